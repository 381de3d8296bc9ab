//! The queue of orders.
//!
//! Whoever changes an order locks the row of `orders_revision` first, so that one does at a time.

use std::time::Duration;

use shiplap_model::{
    Claim, KEY_LASTS, MAX_WAITING, NewOrder, ORDERS_KEPT, Order, OrderEnd, OrderError, Placed,
    Scope,
};
use tokio_postgres::{Row, Transaction};

use super::chain;
use super::failure::{Attempt, Failure};
use super::lease::Holder;
use super::sql::{Sql, params};
use crate::failure::damaged;
use crate::host::Host;
use crate::queue::{self, COLUMNS, Open, OrderRow, millis, write_json};

/// An answer, or why the order was not touched.
type Answer<T> = Result<Result<T, OrderError>, Failure>;

fn read(row: &Row) -> Result<OrderRow, Failure> {
    Ok(OrderRow {
        id: row.try_get(0)?,
        scope: Scope { project: row.try_get(1)?, environment: row.try_get(2)? },
        asked: row.try_get(3)?,
        wanted: row.try_get(4)?,
        who: row.try_get(5)?,
        token: row.try_get(6)?,
        message: row.try_get(7)?,
        revision: row.try_get(8)?,
        idempotency_key: row.try_get(9)?,
        settle_ms: row.try_get(10)?,
        at_ms: row.try_get(11)?,
        due_ms: row.try_get(12)?,
        standing: row.try_get(13)?,
        generation: row.try_get(14)?,
        server: row.try_get(15)?,
        since_ms: row.try_get(16)?,
        merged_into: row.try_get(17)?,
        ended: row.try_get(18)?,
    })
}

/// What a column can hold: PostgreSQL has no text with a null character.
pub(crate) fn storable(order: &NewOrder) -> NewOrder {
    let text = |text: &String| text.replace('\0', "\u{fffd}");
    NewOrder {
        scope: Scope {
            project: text(&order.scope.project),
            environment: text(&order.scope.environment),
        },
        wanted: order.wanted.clone(),
        who: text(&order.who),
        token: order.token.as_ref().map(text),
        message: order.message.as_ref().map(text),
        revision: order.revision.as_ref().map(text),
        idempotency_key: order.idempotency_key.as_ref().map(text),
        settle: order.settle,
    }
}

async fn lock(transaction: &Transaction<'_>) -> Result<(), Failure> {
    let sql = "SELECT revision FROM orders_revision WHERE id = 1 FOR UPDATE";
    let row = transaction.row(sql, params![]).await?;
    row.map(drop).ok_or_else(|| damaged("the revision of the orders is missing").into())
}

async fn something_happened(transaction: &Transaction<'_>) -> Result<(), Failure> {
    let sql = "UPDATE orders_revision SET revision = revision + 1 WHERE id = 1";
    transaction.act(sql, params![]).await?;
    Ok(())
}

/// Writes an order down, unless its key brings one that is there. `mark` is random, and tells a
/// repeated attempt that the one before it got through.
pub(crate) async fn place(
    transaction: &Transaction<'_>,
    new: &NewOrder,
    mark: &[u8],
    attempt: Attempt,
) -> Answer<Placed> {
    lock(transaction).await?;
    if attempt == Attempt::Repeated {
        let sql = "SELECT id FROM orders WHERE mark = $1";
        if let Some(row) = transaction.row(sql, params![mark]).await? {
            let id = row.try_get::<_, i64>(0)?.unsigned_abs();
            return Ok(Ok(Placed { id, repeated: false }));
        }
    }
    let now_ms = chain::now_ms(transaction).await?;
    if let Some(there) = under_key(transaction, new, now_ms).await? {
        return Ok(queue::repeat(there, new).map(|id| Placed { id, repeated: true }));
    }
    let (project, environment) = (new.scope.project.as_str(), new.scope.environment.as_str());
    let sql = "SELECT count(*) FROM orders \
               WHERE project = $1 AND environment = $2 AND standing = 'waiting'";
    let row = transaction.row(sql, params![project, environment]).await?;
    let waiting: i64 = row.expect("an aggregate is one row").try_get(0)?;
    if waiting >= i64::from(MAX_WAITING) {
        return Ok(Err(OrderError::Full(MAX_WAITING)));
    }
    let long_ago = now_ms.saturating_sub(millis(ORDERS_KEPT));
    transaction.act("DELETE FROM orders WHERE closed_ms < $1", params![long_ago]).await?;
    let due_ms = now_ms.saturating_add(millis(new.settle));
    let sql = "UPDATE orders SET due_ms = $3 WHERE project = $1 AND environment = $2 \
               AND standing = 'waiting' AND due_ms > $3";
    transaction.act(sql, params![project, environment, due_ms]).await?;
    let sql = "INSERT INTO orders (mark, project, environment, asked, wanted, who, token, \
               message, revision, idempotency_key, settle_ms, at_ms, due_ms, standing) \
               VALUES ($1, $2, $3, $4, $4, $5, $6, $7, $8, $9, $10, $11, $12, 'waiting') \
               RETURNING id";
    let parameters = params![
        mark,
        project,
        environment,
        write_json(&new.wanted),
        new.who,
        new.token,
        new.message,
        new.revision,
        new.idempotency_key,
        millis(new.settle),
        now_ms,
        due_ms
    ];
    let row = transaction.row(sql, parameters).await?.expect("what is inserted is returned");
    something_happened(transaction).await?;
    Ok(Ok(Placed { id: row.try_get::<_, i64>(0)?.unsigned_abs(), repeated: false }))
}

async fn under_key(
    transaction: &Transaction<'_>,
    new: &NewOrder,
    now_ms: i64,
) -> Result<Option<OrderRow>, Failure> {
    let Some(key) = &new.idempotency_key else { return Ok(None) };
    let since_ms = now_ms.saturating_sub(millis(KEY_LASTS));
    let sql = format!(
        "SELECT {COLUMNS} FROM orders WHERE idempotency_key = $1 \
         AND token IS NOT DISTINCT FROM $2 AND at_ms > $3 ORDER BY id DESC LIMIT 1"
    );
    let row = transaction.row(&sql, params![*key, new.token, since_ms]).await?;
    row.as_ref().map(read).transpose()
}

/// Who claims.
pub(crate) struct Claimant<'a> {
    pub(crate) host: &'a dyn Host,
    pub(crate) machine: &'a str,
    pub(crate) server: &'a str,
    /// Random, and tells a repeated attempt that the one before it got through.
    pub(crate) mark: &'a [u8],
}

/// Takes the order that is next, if one is.
pub(crate) async fn claim(
    transaction: &Transaction<'_>,
    claimant: &Claimant<'_>,
    ttl: Duration,
    attempt: Attempt,
) -> Result<Option<Claim>, Failure> {
    let is_over =
        |holder: &Holder, now_ms: i64| holder.is_over(claimant.host, claimant.machine, now_ms);
    if attempt == Attempt::Repeated {
        let sql =
            format!("SELECT {COLUMNS} FROM orders WHERE standing = 'running' AND claim_mark = $1");
        if let Some(row) = transaction.row(&sql, params![claimant.mark]).await? {
            return Ok(Some(claimed(read(&row)?)?));
        }
    }
    // Servers ask all the time, and mostly for nothing: that locks and writes nothing.
    let (waiting, now_ms) = (open(transaction).await?, chain::now_ms(transaction).await?);
    if queue::next(&waiting, now_ms, |holder| is_over(holder, now_ms)).is_none() {
        return Ok(None);
    }
    lock(transaction).await?;
    let (open, now_ms) = (open(transaction).await?, chain::now_ms(transaction).await?);
    let Some(next) = queue::next(&open, now_ms, |holder| is_over(holder, now_ms)) else {
        return Ok(None);
    };
    let id = match next.claim {
        Some(_) => next.id,
        None => merge(transaction, &next.scope, now_ms).await?,
    };
    let process = claimant.host.process();
    let sql = format!(
        "UPDATE orders SET standing = 'running', generation = generation + 1, claim_mark = $2, \
         server = $3, since_ms = $4, machine = $5, boot_id = $6, pid_namespace = $7, pid = $8, \
         process_start = $9, expires_ms = $10 WHERE id = $1 RETURNING {COLUMNS}"
    );
    let parameters = params![
        id,
        claimant.mark,
        claimant.server,
        now_ms,
        claimant.machine,
        process.boot_id,
        process.pid_namespace,
        i64::from(process.pid),
        process.start_column(),
        now_ms.saturating_add(millis(ttl))
    ];
    let row = transaction.row(&sql, parameters).await?.expect("nobody else deletes orders");
    something_happened(transaction).await?;
    Ok(Some(claimed(read(&row)?)?))
}

fn claimed(row: OrderRow) -> Result<Claim, Failure> {
    let generation = row.generation.unsigned_abs();
    Ok(Claim { order: row.into_order()?, resumed: generation > 1, generation })
}

/// All orders that have not ended, by number.
async fn open(transaction: &Transaction<'_>) -> Result<Vec<Open<Holder>>, Failure> {
    let sql = "SELECT id, project, environment, at_ms, due_ms, standing = 'running', machine, \
               boot_id, pid_namespace, pid, process_start, expires_ms \
               FROM orders WHERE standing IN ('waiting', 'running') ORDER BY id";
    let read = |row: &Row| {
        Ok(Open {
            id: row.try_get(0)?,
            scope: Scope { project: row.try_get(1)?, environment: row.try_get(2)? },
            at_ms: row.try_get(3)?,
            due_ms: row.try_get(4)?,
            claim: if row.try_get(5)? { Some(Holder::read(row, 6)?) } else { None },
        })
    };
    transaction.rows(sql, params![]).await?.iter().map(read).collect()
}

/// Makes one of the orders that wait in a scope, as far as they can be; returns its number.
async fn merge(transaction: &Transaction<'_>, scope: &Scope, now_ms: i64) -> Result<i64, Failure> {
    let sql = format!(
        "SELECT {COLUMNS} FROM orders WHERE project = $1 AND environment = $2 \
         AND standing = 'waiting' ORDER BY id"
    );
    let rows = transaction.rows(&sql, params![scope.project, scope.environment]).await?;
    let waiting = rows.iter().map(read).collect::<Result<Vec<OrderRow>, Failure>>()?;
    let merged = queue::merge(waiting)?;
    let merged = merged.ok_or_else(|| damaged(format!("the orders of {scope} are gone")))?;
    let sql = "UPDATE orders SET standing = 'merged', merged_into = $2, closed_ms = $3 \
               WHERE id = ANY ($1)";
    transaction.act(sql, params![merged.older, merged.into.id, now_ms]).await?;
    let sql = "UPDATE orders SET wanted = $2 WHERE id = $1";
    transaction.act(sql, params![merged.into.id, merged.wanted]).await?;
    Ok(merged.into.id)
}

/// Prolongs a claim.
pub(crate) async fn keep(
    transaction: &Transaction<'_>,
    claim: &Claim,
    ttl: Duration,
) -> Answer<()> {
    let (id, generation) = columns(claim);
    let sql = "UPDATE orders SET expires_ms = now_ms() + $3 \
               WHERE id = $1 AND generation = $2 AND standing = 'running'";
    let kept = transaction.act(sql, params![id, generation, millis(ttl)]).await?;
    Ok(if kept == 1 { Ok(()) } else { Err(OrderError::Lost(claim.order.id)) })
}

/// Writes down how an order ended.
pub(crate) async fn finish(
    transaction: &Transaction<'_>,
    claim: &Claim,
    end: &OrderEnd,
) -> Answer<()> {
    lock(transaction).await?;
    let (id, generation) = columns(claim);
    let sql = "UPDATE orders SET standing = 'ended', ended = $3, closed_ms = now_ms() \
               WHERE id = $1 AND generation = $2 AND standing = 'running'";
    if transaction.act(sql, params![id, generation, write_json(end)]).await? == 1 {
        something_happened(transaction).await?;
        return Ok(Ok(()));
    }
    Ok(match find(transaction, id).await? {
        Some(row) if row.has_ended(generation, end)? => Ok(()),
        Some(_) | None => Err(OrderError::Lost(claim.order.id)),
    })
}

fn columns(claim: &Claim) -> (i64, i64) {
    // One beyond what a column can hold was never given out; it matches no row.
    let column = |number| i64::try_from(number).unwrap_or(-1);
    (column(claim.order.id), column(claim.generation))
}

async fn find(transaction: &Transaction<'_>, id: i64) -> Result<Option<OrderRow>, Failure> {
    let sql = format!("SELECT {COLUMNS} FROM orders WHERE id = $1");
    transaction.row(&sql, params![id]).await?.as_ref().map(read).transpose()
}

/// One order.
pub(crate) async fn order(
    transaction: &Transaction<'_>,
    id: u64,
) -> Result<Option<Order>, Failure> {
    let Ok(id) = i64::try_from(id) else { return Ok(None) };
    Ok(find(transaction, id).await?.map(OrderRow::into_order).transpose()?)
}

/// Orders, newest first.
pub(crate) async fn orders(
    transaction: &Transaction<'_>,
    scope: Option<&Scope>,
    limit: u32,
) -> Result<Vec<Order>, Failure> {
    let limit = i64::from(limit);
    let rows = match scope {
        Some(scope) => {
            let sql = format!(
                "SELECT {COLUMNS} FROM orders WHERE project = $1 AND environment = $2 \
                 ORDER BY id DESC LIMIT $3"
            );
            let parameters = params![scope.project, scope.environment, limit];
            transaction.rows(&sql, parameters).await?
        }
        None => {
            let sql = format!("SELECT {COLUMNS} FROM orders ORDER BY id DESC LIMIT $1");
            transaction.rows(&sql, params![limit]).await?
        }
    };
    rows.iter().map(|row| Ok(read(row)?.into_order()?)).collect()
}

/// How often an order was placed, taken or ended.
pub(crate) async fn revision(transaction: &Transaction<'_>) -> Result<u64, Failure> {
    let sql = "SELECT revision FROM orders_revision WHERE id = 1";
    let row = transaction.row(sql, params![]).await?;
    let row = row.ok_or_else(|| damaged("the revision of the orders is missing"))?;
    Ok(row.try_get::<_, i64>(0)?.unsigned_abs())
}
