//! The queue of orders.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, named_params, params};
use shiplap_model::{
    Claim, KEY_LASTS, LedgerError, MAX_WAITING, NewOrder, ORDERS_KEPT, Order, OrderEnd, OrderError,
    Placed, Scope,
};

use super::failure::Failure;
use super::lease::{End, is_over};
use crate::failure::damaged;
use crate::host::{Host, ProcessIdentity};
use crate::queue::{self, COLUMNS, Hold, Open, OrderRow, millis, write_json};

/// Why something was not done to an order, before the path of the database is added.
#[derive(Debug)]
pub(crate) enum Refusal {
    Order(OrderError),
    Failure(Failure),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failure(error.into())
    }
}

impl From<LedgerError> for Refusal {
    fn from(error: LedgerError) -> Self {
        Self::Failure(error.into())
    }
}

impl From<OrderError> for Refusal {
    fn from(error: OrderError) -> Self {
        Self::Order(error)
    }
}

impl Refusal {
    pub(crate) fn at(self, path: &Path) -> OrderError {
        match self {
            Self::Order(error) => error,
            Self::Failure(failure) => failure.at(path).into(),
        }
    }
}

fn read(row: &Row) -> rusqlite::Result<OrderRow> {
    Ok(OrderRow {
        id: row.get(0)?,
        scope: Scope { project: row.get(1)?, environment: row.get(2)? },
        asked: row.get(3)?,
        wanted: row.get(4)?,
        who: row.get(5)?,
        token: row.get(6)?,
        message: row.get(7)?,
        revision: row.get(8)?,
        idempotency_key: row.get(9)?,
        settle_ms: row.get(10)?,
        at_ms: row.get(11)?,
        due_ms: row.get(12)?,
        standing: row.get(13)?,
        generation: row.get(14)?,
        server: row.get(15)?,
        since_ms: row.get(16)?,
        merged_into: row.get(17)?,
        ended: row.get(18)?,
    })
}

/// Writes an order down, unless its key brings one that is there.
pub(crate) fn place(
    transaction: &Transaction,
    new: &NewOrder,
    now_ms: i64,
) -> Result<Placed, Refusal> {
    if let Some(there) = under_key(transaction, new, now_ms)? {
        return Ok(Placed { id: queue::repeat(there, new)?, repeated: true });
    }
    let scope = params![new.scope.project, new.scope.environment];
    let waiting: u32 = transaction
        .prepare_cached(
            "SELECT count(*) FROM orders \
             WHERE project = ?1 AND environment = ?2 AND standing = 'waiting'",
        )?
        .query_row(scope, |row| row.get(0))?;
    if waiting >= MAX_WAITING {
        return Err(OrderError::Full(MAX_WAITING).into());
    }
    transaction
        .prepare_cached("DELETE FROM orders WHERE closed_ms < ?1")?
        .execute([now_ms.saturating_sub(millis(ORDERS_KEPT))])?;
    let due_ms = now_ms.saturating_add(millis(new.settle));
    transaction
        .prepare_cached(
            "UPDATE orders SET due_ms = ?3 WHERE project = ?1 AND environment = ?2 \
             AND standing = 'waiting' AND due_ms > ?3",
        )?
        .execute(params![new.scope.project, new.scope.environment, due_ms])?;
    let wanted = write_json(&new.wanted);
    let id: i64 = transaction
        .prepare_cached(
            "INSERT INTO orders (project, environment, asked, wanted, who, token, message, \
             revision, idempotency_key, settle_ms, at_ms, due_ms, standing) \
             VALUES (:project, :environment, :wanted, :wanted, :who, :token, :message, \
             :revision, :idempotency_key, :settle_ms, :at_ms, :due_ms, 'waiting') RETURNING id",
        )?
        .query_row(
            named_params! {
                ":project": new.scope.project,
                ":environment": new.scope.environment,
                ":wanted": wanted,
                ":who": new.who,
                ":token": new.token,
                ":message": new.message,
                ":revision": new.revision,
                ":idempotency_key": new.idempotency_key,
                ":settle_ms": millis(new.settle),
                ":at_ms": now_ms,
                ":due_ms": due_ms,
            },
            |row| row.get(0),
        )?;
    something_happened(transaction)?;
    Ok(Placed { id: id.unsigned_abs(), repeated: false })
}

fn under_key(
    connection: &Connection,
    new: &NewOrder,
    now_ms: i64,
) -> Result<Option<OrderRow>, Failure> {
    let Some(key) = &new.idempotency_key else { return Ok(None) };
    let since_ms = now_ms.saturating_sub(millis(KEY_LASTS));
    let found = connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM orders WHERE idempotency_key = ?1 AND token IS ?2 \
             AND at_ms > ?3 ORDER BY id DESC LIMIT 1"
        ))?
        .query_row(params![key, new.token, since_ms], read)
        .optional()?;
    Ok(found)
}

fn something_happened(transaction: &Transaction) -> Result<(), Failure> {
    transaction.prepare_cached("UPDATE orders_revision SET revision = revision + 1")?.execute([])?;
    Ok(())
}

/// Takes the order that is next, if one is.
pub(crate) fn claim(
    transaction: &Transaction,
    host: &dyn Host,
    server: &str,
    ttl: Duration,
) -> Result<Option<Claim>, Failure> {
    let (open, now_ms) = (open(transaction)?, host.now_ms());
    let Some(next) = queue::next(&open, now_ms, |hold| is_over(host, hold)) else {
        return Ok(None);
    };
    let resumed = next.claim.is_some();
    let id = if resumed { next.id } else { merge(transaction, &next.scope, now_ms)? };
    let (process, end) = (host.process(), End::after(host, ttl));
    let row = transaction
        .prepare_cached(&format!(
            "UPDATE orders SET standing = 'running', generation = generation + 1, \
             server = :server, since_ms = :since_ms, boot_id = :boot_id, \
             pid_namespace = :pid_namespace, pid = :pid, process_start = :process_start, \
             expires_ms = :expires_ms, expires_uptime_ms = :expires_uptime_ms \
             WHERE id = :id RETURNING {COLUMNS}"
        ))?
        .query_row(
            named_params! {
                ":id": id,
                ":server": server,
                ":since_ms": now_ms,
                ":boot_id": process.boot_id,
                ":pid_namespace": process.pid_namespace,
                ":pid": process.pid,
                ":process_start": process.start_column(),
                ":expires_ms": end.wall_ms,
                ":expires_uptime_ms": end.uptime_ms,
            },
            read,
        )?;
    something_happened(transaction)?;
    let generation = row.generation.unsigned_abs();
    Ok(Some(Claim { order: row.into_order()?, resumed, generation }))
}

/// All orders that have not ended, by number.
fn open(connection: &Connection) -> Result<Vec<Open<Hold>>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT id, project, environment, at_ms, due_ms, standing = 'running', boot_id, \
         pid_namespace, pid, process_start, expires_ms, expires_uptime_ms \
         FROM orders WHERE standing IN ('waiting', 'running') ORDER BY id",
    )?;
    let rows = statement.query_map([], |row| {
        Ok(Open {
            id: row.get(0)?,
            scope: Scope { project: row.get(1)?, environment: row.get(2)? },
            at_ms: row.get(3)?,
            due_ms: row.get(4)?,
            claim: if row.get(5)? { Some(read_claim(row)?) } else { None },
        })
    })?;
    rows.map(|row| Ok(row?)).collect()
}

fn read_claim(row: &Row) -> rusqlite::Result<Hold> {
    let process = ProcessIdentity {
        boot_id: row.get(6)?,
        pid_namespace: row.get(7)?,
        pid: row.get(8)?,
        start_ticks: row.get::<_, i64>(9)?.unsigned_abs(),
    };
    Ok(Hold { process, expires_ms: row.get(10)?, expires_uptime_ms: row.get(11)? })
}

/// Makes one of the orders that wait in a scope, as far as they can be; returns its number.
fn merge(transaction: &Transaction, scope: &Scope, now_ms: i64) -> Result<i64, Failure> {
    let mut statement = transaction.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM orders WHERE project = ?1 AND environment = ?2 \
         AND standing = 'waiting' ORDER BY id"
    ))?;
    let rows = statement.query_map(params![scope.project, scope.environment], read)?;
    let waiting = rows.collect::<rusqlite::Result<Vec<OrderRow>>>()?;
    let merged = queue::merge(waiting)?;
    let merged = merged.ok_or_else(|| damaged(format!("the orders of {scope} are gone")))?;
    for older in merged.older {
        transaction
            .prepare_cached(
                "UPDATE orders SET standing = 'merged', merged_into = ?2, closed_ms = ?3 \
                 WHERE id = ?1",
            )?
            .execute(params![older, merged.into.id, now_ms])?;
    }
    transaction
        .prepare_cached("UPDATE orders SET wanted = ?2 WHERE id = ?1")?
        .execute(params![merged.into.id, merged.wanted])?;
    Ok(merged.into.id)
}

/// Prolongs a claim.
pub(crate) fn keep(
    transaction: &Transaction,
    host: &dyn Host,
    claim: &Claim,
    ttl: Duration,
) -> Result<(), Refusal> {
    let (id, generation) = columns(claim);
    let end = End::after(host, ttl);
    let kept = transaction
        .prepare_cached(
            "UPDATE orders SET expires_ms = ?3, expires_uptime_ms = ?4 \
             WHERE id = ?1 AND generation = ?2 AND standing = 'running'",
        )?
        .execute(params![id, generation, end.wall_ms, end.uptime_ms])?;
    if kept == 1 { Ok(()) } else { Err(OrderError::Lost(claim.order.id).into()) }
}

/// Writes down how an order ended.
pub(crate) fn finish(
    transaction: &Transaction,
    claim: &Claim,
    end: &OrderEnd,
    now_ms: i64,
) -> Result<(), Refusal> {
    let (id, generation) = columns(claim);
    let ended = transaction
        .prepare_cached(
            "UPDATE orders SET standing = 'ended', ended = ?3, closed_ms = ?4 \
             WHERE id = ?1 AND generation = ?2 AND standing = 'running'",
        )?
        .execute(params![id, generation, write_json(end), now_ms])?;
    if ended == 1 {
        return Ok(something_happened(transaction)?);
    }
    match find(transaction, id)? {
        Some(row) if row.has_ended(generation, end)? => Ok(()),
        Some(_) | None => Err(OrderError::Lost(claim.order.id).into()),
    }
}

fn columns(claim: &Claim) -> (i64, i64) {
    // One beyond what a column can hold was never given out; it matches no row.
    let column = |number| i64::try_from(number).unwrap_or(-1);
    (column(claim.order.id), column(claim.generation))
}

fn find(connection: &Connection, id: i64) -> Result<Option<OrderRow>, Failure> {
    let found = connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM orders WHERE id = ?1"))?
        .query_row([id], read)
        .optional()?;
    Ok(found)
}

/// One order.
pub(crate) fn order(connection: &Connection, id: u64) -> Result<Option<Order>, Failure> {
    let Ok(id) = i64::try_from(id) else { return Ok(None) };
    Ok(find(connection, id)?.map(OrderRow::into_order).transpose()?)
}

/// Orders, newest first.
pub(crate) fn orders(
    connection: &Connection,
    scope: Option<&Scope>,
    limit: u32,
) -> Result<Vec<Order>, Failure> {
    let rows = match scope {
        Some(scope) => {
            let sql = format!(
                "SELECT {COLUMNS} FROM orders WHERE project = ?1 AND environment = ?2 \
                 ORDER BY id DESC LIMIT ?3"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let rows =
                statement.query_map(params![scope.project, scope.environment, limit], read)?;
            rows.collect::<rusqlite::Result<Vec<OrderRow>>>()?
        }
        None => {
            let sql = format!("SELECT {COLUMNS} FROM orders ORDER BY id DESC LIMIT ?1");
            let mut statement = connection.prepare_cached(&sql)?;
            statement.query_map([limit], read)?.collect::<rusqlite::Result<Vec<OrderRow>>>()?
        }
    };
    rows.into_iter().map(|row| Ok(row.into_order()?)).collect()
}

/// How often an order was placed, taken or ended.
pub(crate) fn revision(connection: &Connection) -> Result<u64, Failure> {
    let revision: i64 = connection
        .prepare_cached("SELECT revision FROM orders_revision")?
        .query_row([], |row| row.get(0))?;
    Ok(revision.unsigned_abs())
}
