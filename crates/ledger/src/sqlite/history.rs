//! Deployments: writing them down, and reading them back.

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use shiplap_model::{
    Deployment, Journal, LeaseKey, LedgerError, NewDeployment, Scope, Secret, StoredImage,
};

use super::failure::Failure;
use super::{chain, lease};
use crate::chain::{Fact, Kind};
use crate::failure::damaged;
use crate::history::{self, DEPLOYMENTS, DeploymentRow, EntryText, Happened};
use crate::key::KeyPlace;
use crate::payload::{self, Begun, Ended};

/// Begins a deployment and returns its number.
pub(crate) fn begin(
    transaction: &Transaction,
    place: &KeyPlace,
    deployment: &NewDeployment,
    at_ms: i64,
) -> Result<u64, Failure> {
    let scope = &deployment.scope;
    if deployment.lease.scope != *scope {
        return Err(LedgerError::LeaseLost(scope.clone()).into());
    }
    lease::require(transaction, &deployment.lease)?;
    let after = history::after(deployment)?;
    let number: i64 = transaction
        .prepare_cached(
            "SELECT max(coalesce(max(number), 0), ?3) + 1 FROM entries \
             WHERE project = ?1 AND environment = ?2",
        )?
        .query_row(params![scope.project, scope.environment, after], |row| row.get(0))?;
    let key = chain::key_for_writing(transaction, place)?;
    let binding = key.encrypt(scope, number, &deployment.binding)?;
    let payload = payload::write(&Begun::new(deployment, &key.seal_binding(&binding)));
    let fact = Fact { kind: Kind::Begun, scope, number, payload, at_ms };
    let seq = chain::append(transaction, &key, fact)?;
    chain::keep_binding(transaction, seq, &binding)?;
    Ok(number.unsigned_abs())
}

/// Adds to a deployment what may follow what is there.
pub(crate) fn proceed(
    transaction: &Transaction,
    place: &KeyPlace,
    lease: &LeaseKey,
    number: u64,
    at_ms: i64,
    happened: Happened,
) -> Result<(), Failure> {
    lease::require(transaction, lease)?;
    let scope = &lease.scope;
    let row = find(transaction, scope, number)?;
    let (kind, payload, fact) = happened.into_parts();
    let illegal = |fact| history::illegal(scope, number, &fact);
    let mut state = journal_of(transaction, scope, &row)?.state().map_err(illegal)?;
    state.admit(&fact).map_err(illegal)?;
    let key = chain::key_for_writing(transaction, place)?;
    let fact = Fact { kind, scope, number: row.number, payload, at_ms };
    chain::append(transaction, &key, fact)?;
    Ok(())
}

fn read(row: &Row) -> rusqlite::Result<DeploymentRow> {
    let ended = match row.get::<_, Option<i64>>(4)? {
        Some(seq) => Some(EntryText { seq, at_ms: row.get(5)?, payload: row.get(6)? }),
        None => None,
    };
    let begun = EntryText { seq: row.get(1)?, at_ms: row.get(2)?, payload: row.get(3)? };
    Ok(DeploymentRow { number: row.get(0)?, begun, ended })
}

fn find(connection: &Connection, scope: &Scope, number: u64) -> Result<DeploymentRow, Failure> {
    // A number beyond what a column can hold was never given out.
    let stored = i64::try_from(number).unwrap_or(-1);
    connection
        .prepare_cached(&format!("{DEPLOYMENTS} AND begun.number = ?3"))?
        .query_row(params![scope.project, scope.environment, stored], read)
        .optional()?
        .ok_or_else(|| LedgerError::NoSuchDeployment(scope.clone(), number).into())
}

/// Deployments of a scope, newest first.
pub(crate) fn deployments(
    connection: &Connection,
    scope: &Scope,
    limit: u32,
) -> Result<Vec<Deployment>, Failure> {
    let mut statement =
        connection.prepare_cached(&format!("{DEPLOYMENTS} ORDER BY begun.number DESC LIMIT ?3"))?;
    let rows = statement.query_map(params![scope.project, scope.environment, limit], read)?;
    rows.map(|row| Ok(row?.into_deployment(scope)?)).collect()
}

/// One deployment.
pub(crate) fn deployment(
    connection: &Connection,
    scope: &Scope,
    number: u64,
) -> Result<Option<Deployment>, Failure> {
    match find(connection, scope, number) {
        Ok(row) => Ok(Some(row.into_deployment(scope)?)),
        Err(Failure::Ledger(LedgerError::NoSuchDeployment(..))) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// All that happened to a deployment, the oldest first.
pub(crate) fn facts(
    connection: &Connection,
    scope: &Scope,
    number: u64,
) -> Result<Journal, Failure> {
    journal_of(connection, scope, &find(connection, scope, number)?)
}

fn journal_of(
    connection: &Connection,
    scope: &Scope,
    row: &DeploymentRow,
) -> Result<Journal, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT seq, kind, payload FROM entries \
         WHERE project = ?1 AND environment = ?2 AND number = ?3 AND kind <> 'begun' ORDER BY seq",
    )?;
    let followed = statement
        .query_map(params![scope.project, scope.environment, row.number], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(row.journal(followed)?)
}

/// A deployment's values.
pub(crate) fn binding(
    connection: &Connection,
    place: &KeyPlace,
    scope: &Scope,
    number: u64,
) -> Result<Secret<Vec<u8>>, Failure> {
    let row = find(connection, scope, number)?;
    let key = chain::key_for_reading(connection, place)?;
    let sealed = chain::kept_binding(connection, row.begun.seq)?
        .ok_or_else(|| damaged(format!("entry {} has lost its binding", row.begun.seq)))?;
    let binding = key
        .decrypt(scope, row.number, &sealed)
        .ok_or_else(|| damaged(format!("the binding of entry {} was changed", row.begun.seq)))?;
    Ok(binding)
}

/// All scopes that have a deployment, in order.
pub(crate) fn scopes(connection: &Connection) -> Result<Vec<Scope>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT DISTINCT project, environment FROM entries ORDER BY project, environment",
    )?;
    let rows = statement
        .query_map([], |row| Ok(Scope { project: row.get(0)?, environment: row.get(1)? }))?;
    rows.map(|row| Ok(row?)).collect()
}

/// Images of the newest `keep` done deployments of every scope.
pub(crate) fn retained_images(
    connection: &Connection,
    keep: u32,
) -> Result<Vec<(Scope, u64, StoredImage)>, Failure> {
    let mut images = Vec::new();
    for scope in scopes(connection)? {
        for (number, ended) in newest_done(connection, &scope, keep)? {
            let services = ended.release.services.into_values();
            images.extend(services.map(|service| (scope.clone(), number, service.image)));
        }
    }
    Ok(images)
}

fn newest_done(
    connection: &Connection,
    scope: &Scope,
    keep: u32,
) -> Result<Vec<(u64, Ended)>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT seq, number, payload FROM entries \
         WHERE project = ?1 AND environment = ?2 AND kind = 'ended' ORDER BY number DESC",
    )?;
    let ends = statement
        .query_map(params![scope.project, scope.environment], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(history::newest_done(ends, keep)?)
}
