//! Who may deploy.
//!
//! A lease is free when it was released, when its holder is a process of this machine that is
//! gone, or when it has expired. Within one boot the time since boot decides about expiry, so
//! that a wall clock that jumps takes a lease from nobody; for a holder of another boot there is
//! nothing but the wall clock.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, named_params, params};
use shiplap_model::{Lease, LeaseHeld, LeaseKey, LedgerError, Scope};

use super::failure::Failure;
use crate::host::{Host, Presence, ProcessIdentity};
use crate::queue::Hold;

/// A row of `leases` that was not released.
struct Held {
    holder: String,
    since_ms: i64,
    hold: Hold,
}

impl Held {
    fn read(connection: &Connection, scope: &Scope) -> Result<Option<Self>, Failure> {
        let held = connection
            .prepare_cached(
                "SELECT holder, boot_id, pid_namespace, pid, process_start, since_ms, \
                 expires_ms, expires_uptime_ms FROM leases \
                 WHERE project = ?1 AND environment = ?2 AND standing = 'held'",
            )?
            .query_row(params![scope.project, scope.environment], |row| {
                let process = ProcessIdentity {
                    boot_id: row.get(1)?,
                    pid_namespace: row.get(2)?,
                    pid: row.get(3)?,
                    start_ticks: row.get::<_, i64>(4)?.unsigned_abs(),
                };
                let (expires_ms, expires_uptime_ms) = (row.get(6)?, row.get(7)?);
                let hold = Hold { process, expires_ms, expires_uptime_ms };
                Ok(Self { holder: row.get(0)?, since_ms: row.get(5)?, hold })
            })
            .optional()?;
        Ok(held)
    }

    fn into_answer(self, scope: &Scope) -> LeaseHeld {
        LeaseHeld {
            scope: scope.clone(),
            holder: self.holder,
            since_ms: self.since_ms,
            expires_ms: self.hold.expires_ms,
        }
    }
}

/// Whether nobody has it any more.
pub(crate) fn is_over(host: &dyn Host, hold: &Hold) -> bool {
    let expired = if hold.process.boot_id == host.process().boot_id {
        host.uptime_ms() >= hold.expires_uptime_ms
    } else {
        host.now_ms() >= hold.expires_ms
    };
    match host.presence(&hold.process) {
        Presence::Gone => true,
        Presence::Running | Presence::Elsewhere => expired,
    }
}

/// Who holds the lease of a scope, if anybody does.
pub(crate) fn holder(
    connection: &Connection,
    host: &dyn Host,
    scope: &Scope,
) -> Result<Option<LeaseHeld>, Failure> {
    let held = Held::read(connection, scope)?;
    Ok(held.filter(|held| !is_over(host, &held.hold)).map(|held| held.into_answer(scope)))
}

/// Takes the lease if it is free.
pub(crate) fn acquire(
    transaction: &Transaction,
    host: &dyn Host,
    scope: &Scope,
    name: &str,
    ttl: Duration,
) -> Result<Result<Lease, LeaseHeld>, Failure> {
    if let Some(held) = holder(transaction, host, scope)? {
        return Ok(Err(held));
    }
    let process = host.process();
    let end = End::after(host, ttl);
    let generation: i64 = transaction
        .prepare_cached(
            "INSERT INTO leases (project, environment, generation, standing, holder, boot_id, \
             pid_namespace, pid, process_start, since_ms, expires_ms, expires_uptime_ms) \
             VALUES (:project, :environment, 1, 'held', :holder, :boot_id, \
             :pid_namespace, :pid, :process_start, :since_ms, :expires_ms, :expires_uptime_ms) \
             ON CONFLICT (project, environment) DO UPDATE SET \
             generation = generation + 1, standing = 'held', holder = excluded.holder, \
             boot_id = excluded.boot_id, pid_namespace = excluded.pid_namespace, \
             pid = excluded.pid, process_start = excluded.process_start, \
             since_ms = excluded.since_ms, expires_ms = excluded.expires_ms, \
             expires_uptime_ms = excluded.expires_uptime_ms \
             RETURNING generation",
        )?
        .query_row(
            named_params! {
                ":project": scope.project,
                ":environment": scope.environment,
                ":holder": name,
                ":boot_id": process.boot_id,
                ":pid_namespace": process.pid_namespace,
                ":pid": process.pid,
                ":process_start": process.start_column(),
                ":since_ms": host.now_ms(),
                ":expires_ms": end.wall_ms,
                ":expires_uptime_ms": end.uptime_ms,
            },
            |row| row.get(0),
        )?;
    let key = LeaseKey { scope: scope.clone(), generation: generation.unsigned_abs() };
    Ok(Ok(Lease { key, expires_ms: end.wall_ms }))
}

/// Prolongs a lease. One that has expired but was not taken by anybody is prolonged as well.
pub(crate) fn renew(
    transaction: &Transaction,
    host: &dyn Host,
    key: &LeaseKey,
    ttl: Duration,
) -> Result<Lease, Failure> {
    require(transaction, key)?;
    let end = End::after(host, ttl);
    transaction
        .prepare_cached(
            "UPDATE leases SET expires_ms = ?3, expires_uptime_ms = ?4 \
             WHERE project = ?1 AND environment = ?2",
        )?
        .execute(params![key.scope.project, key.scope.environment, end.wall_ms, end.uptime_ms])?;
    Ok(Lease { key: key.clone(), expires_ms: end.wall_ms })
}

/// Goes on under a generation of at least `generation`.
pub(crate) fn raise(
    transaction: &Transaction,
    key: &LeaseKey,
    generation: u64,
) -> Result<Lease, Failure> {
    require(transaction, key)?;
    let raised = key.generation.max(generation);
    let column = i64::try_from(raised)
        .map_err(|_| LedgerError::Storage(format!("{raised} is no generation")))?;
    let expires_ms = transaction
        .prepare_cached(
            "UPDATE leases SET generation = ?3 WHERE project = ?1 AND environment = ?2 \
             RETURNING expires_ms",
        )?
        .query_row(params![key.scope.project, key.scope.environment, column], |row| row.get(0))?;
    let key = LeaseKey { scope: key.scope.clone(), generation: raised };
    Ok(Lease { key, expires_ms })
}

/// Gives a lease back, if it is still ours.
pub(crate) fn release(transaction: &Transaction, key: &LeaseKey) -> Result<(), Failure> {
    transaction
        .prepare_cached(
            "UPDATE leases SET standing = 'released' \
             WHERE project = ?1 AND environment = ?2 AND generation = ?3",
        )?
        .execute(params![key.scope.project, key.scope.environment, generation(key)])?;
    Ok(())
}

/// Refuses with `LeaseLost` unless the lease is still ours. An expired one that nobody took is.
pub(crate) fn require(connection: &Connection, key: &LeaseKey) -> Result<(), Failure> {
    let ours = connection
        .prepare_cached(
            "SELECT 1 FROM leases WHERE project = ?1 AND environment = ?2 \
             AND generation = ?3 AND standing = 'held'",
        )?
        .exists(params![key.scope.project, key.scope.environment, generation(key)])?;
    if ours { Ok(()) } else { Err(LedgerError::LeaseLost(key.scope.clone()).into()) }
}

fn generation(key: &LeaseKey) -> i64 {
    // One beyond what a column can hold was never given out; it matches no row.
    i64::try_from(key.generation).unwrap_or(-1)
}

/// When a lease ends, on both clocks.
pub(crate) struct End {
    pub(crate) wall_ms: i64,
    pub(crate) uptime_ms: i64,
}

impl End {
    pub(crate) fn after(host: &dyn Host, ttl: Duration) -> Self {
        let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
        Self {
            wall_ms: host.now_ms().saturating_add(ttl_ms),
            uptime_ms: host.uptime_ms().saturating_add(ttl_ms),
        }
    }
}
