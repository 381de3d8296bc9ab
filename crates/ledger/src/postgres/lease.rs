//! Who may deploy.
//!
//! The database's clock tells when a lease has expired: the machines that share it need not agree
//! on the time. Whoever writes holds the lease's row until the transaction ends, so that nobody
//! takes it over in between.

use std::time::Duration;

use shiplap_model::{Lease, LeaseHeld, LeaseKey, LedgerError, Scope};
use tokio_postgres::{Row, Transaction};

use super::chain::now_ms;
use super::failure::{Attempt, Failure};
use super::sql::{Sql, params};
use crate::host::{Host, Presence, ProcessIdentity};
use crate::queue::millis;

/// A process of one of the machines that share a ledger.
pub(crate) struct Holder {
    pub(crate) machine: String,
    pub(crate) process: ProcessIdentity,
    pub(crate) expires_ms: i64,
}

impl Holder {
    /// Reads `machine, boot_id, pid_namespace, pid, process_start, expires_ms` from `column` on.
    pub(crate) fn read(row: &Row, column: usize) -> Result<Self, Failure> {
        let process = ProcessIdentity {
            boot_id: row.try_get(column + 1)?,
            pid_namespace: row.try_get(column + 2)?,
            pid: u32::try_from(row.try_get::<_, i64>(column + 3)?).unwrap_or(u32::MAX),
            start_ticks: row.try_get::<_, i64>(column + 4)?.unsigned_abs(),
        };
        Ok(Self { machine: row.try_get(column)?, process, expires_ms: row.try_get(column + 5)? })
    }

    /// Whether it does not have it any more: it has expired, or is a process of this machine that
    /// is gone. Of another machine nobody can tell but by the time.
    pub(crate) fn is_over(&self, host: &dyn Host, machine: &str, now_ms: i64) -> bool {
        let is_gone = self.machine == machine && host.presence(&self.process) == Presence::Gone;
        is_gone || now_ms >= self.expires_ms
    }
}

const HELD: &str = "SELECT holder, since_ms, mark, generation, machine, boot_id, pid_namespace, \
     pid, process_start, expires_ms FROM leases \
     WHERE project = $1 AND environment = $2 AND standing = 'held'";

fn answer(row: &Row, scope: &Scope) -> Result<LeaseHeld, Failure> {
    Ok(LeaseHeld {
        scope: scope.clone(),
        holder: row.try_get(0)?,
        since_ms: row.try_get(1)?,
        expires_ms: row.try_get(9)?,
    })
}

/// Who holds the lease of a scope, if anybody does.
pub(crate) async fn holder(
    transaction: &Transaction<'_>,
    host: &dyn Host,
    machine: &str,
    scope: &Scope,
) -> Result<Option<LeaseHeld>, Failure> {
    let found = transaction.row(HELD, params![scope.project, scope.environment]).await?;
    let Some(row) = found else { return Ok(None) };
    let now_ms = now_ms(transaction).await?;
    if Holder::read(&row, 4)?.is_over(host, machine, now_ms) {
        return Ok(None);
    }
    answer(&row, scope).map(Some)
}

/// Who wants a lease.
pub(crate) struct Taker<'a> {
    pub(crate) host: &'a dyn Host,
    pub(crate) machine: &'a str,
    pub(crate) name: &'a str,
    /// Random, and tells a repeated attempt that the one before it got through.
    pub(crate) mark: &'a [u8],
}

/// Takes the lease if it is free.
pub(crate) async fn acquire(
    transaction: &Transaction<'_>,
    taker: &Taker<'_>,
    scope: &Scope,
    ttl: Duration,
) -> Result<Result<Lease, LeaseHeld>, Failure> {
    let Taker { host, machine, name, mark } = *taker;
    let place = params![scope.project, scope.environment];
    let sql = "INSERT INTO leases (project, environment, generation, standing) \
               VALUES ($1, $2, 0, 'released') ON CONFLICT (project, environment) DO NOTHING";
    transaction.act(sql, place).await?;
    let sql = "SELECT 1 FROM leases WHERE project = $1 AND environment = $2 FOR UPDATE";
    transaction.rows(sql, place).await?;
    let now_ms = now_ms(transaction).await?;
    if let Some(row) = transaction.row(HELD, place).await? {
        let (theirs, generation): (&[u8], i64) = (row.try_get(2)?, row.try_get(3)?);
        if theirs == mark {
            let generation = generation.unsigned_abs();
            let key = LeaseKey { scope: scope.clone(), generation };
            return Ok(Ok(Lease { key, expires_ms: row.try_get(9)? }));
        }
        if !Holder::read(&row, 4)?.is_over(host, machine, now_ms) {
            return Ok(Err(answer(&row, scope)?));
        }
    }
    let process = host.process();
    let expires_ms = now_ms.saturating_add(millis(ttl));
    let sql = "UPDATE leases SET generation = generation + 1, standing = 'held', mark = $3, \
               holder = $4, machine = $5, boot_id = $6, pid_namespace = $7, pid = $8, \
               process_start = $9, since_ms = $10, expires_ms = $11 \
               WHERE project = $1 AND environment = $2 RETURNING generation";
    let parameters = params![
        scope.project,
        scope.environment,
        mark,
        name,
        machine,
        process.boot_id,
        process.pid_namespace,
        i64::from(process.pid),
        process.start_column(),
        now_ms,
        expires_ms
    ];
    let row = transaction.row(sql, parameters).await?.expect("it was locked");
    let generation = row.try_get::<_, i64>(0)?.unsigned_abs();
    Ok(Ok(Lease { key: LeaseKey { scope: scope.clone(), generation }, expires_ms }))
}

/// Prolongs a lease. One that has expired but was not taken by anybody is prolonged as well.
pub(crate) async fn renew(
    transaction: &Transaction<'_>,
    key: &LeaseKey,
    ttl: Duration,
) -> Result<Lease, Failure> {
    let sql = "UPDATE leases SET expires_ms = now_ms() + $4 \
               WHERE project = $1 AND environment = $2 AND generation = $3 AND standing = 'held' \
               RETURNING expires_ms";
    let scope = &key.scope;
    let parameters = params![scope.project, scope.environment, generation(key), millis(ttl)];
    match transaction.row(sql, parameters).await? {
        Some(row) => Ok(Lease { key: key.clone(), expires_ms: row.try_get(0)? }),
        None => Err(LedgerError::LeaseLost(scope.clone()).into()),
    }
}

/// Goes on under a generation of at least `generation`.
pub(crate) async fn raise(
    transaction: &Transaction<'_>,
    host: &dyn Host,
    machine: &str,
    key: &LeaseKey,
    generation: u64,
    attempt: Attempt,
) -> Result<Lease, Failure> {
    let raised = LeaseKey { scope: key.scope.clone(), generation: key.generation.max(generation) };
    let column = i64::try_from(raised.generation)
        .map_err(|_| LedgerError::Storage(format!("{} is no generation", raised.generation)))?;
    let scope = &key.scope;
    let sql = "UPDATE leases SET generation = $4 \
               WHERE project = $1 AND environment = $2 AND generation = $3 AND standing = 'held' \
               RETURNING expires_ms";
    let parameters = params![scope.project, scope.environment, self::generation(key), column];
    if let Some(row) = transaction.row(sql, parameters).await? {
        return Ok(Lease { key: raised, expires_ms: row.try_get(0)? });
    }
    let lost = || LedgerError::LeaseLost(scope.clone());
    if attempt == Attempt::First {
        return Err(lost().into());
    }
    // The attempt before may have got through.
    let found = transaction.row(HELD, params![scope.project, scope.environment]).await?;
    let row = found.ok_or_else(lost)?;
    let holder = Holder::read(&row, 4)?;
    let is_ours = row.try_get::<_, i64>(3)? == column
        && holder.machine == machine
        && holder.process == host.process();
    if is_ours {
        return Ok(Lease { key: raised, expires_ms: holder.expires_ms });
    }
    Err(lost().into())
}

/// Gives a lease back, if it is still ours.
pub(crate) async fn release(transaction: &Transaction<'_>, key: &LeaseKey) -> Result<(), Failure> {
    let sql = "UPDATE leases SET standing = 'released' \
               WHERE project = $1 AND environment = $2 AND generation = $3";
    let scope = &key.scope;
    transaction.act(sql, params![scope.project, scope.environment, generation(key)]).await?;
    Ok(())
}

/// Refuses with `LeaseLost` unless the lease is still ours, and keeps others from taking it until
/// the transaction ends. An expired one that nobody took is ours.
pub(crate) async fn require(transaction: &Transaction<'_>, key: &LeaseKey) -> Result<(), Failure> {
    let sql = "SELECT 1 FROM leases WHERE project = $1 AND environment = $2 \
               AND generation = $3 AND standing = 'held' FOR SHARE";
    let scope = &key.scope;
    let parameters = params![scope.project, scope.environment, generation(key)];
    match transaction.row(sql, parameters).await? {
        Some(_) => Ok(()),
        None => Err(LedgerError::LeaseLost(scope.clone()).into()),
    }
}

fn generation(key: &LeaseKey) -> i64 {
    // One beyond what a column can hold was never given out; it matches no row.
    i64::try_from(key.generation).unwrap_or(-1)
}
