//! Deployments: writing them down, and reading them back.

use shiplap_model::{
    Deployment, Journal, JournalFact, LeaseKey, LedgerError, NewDeployment, Scope, Secret,
    StoredImage,
};
use tokio_postgres::{Row, Transaction};

use super::chain::{self, Appending};
use super::failure::{Attempt, Failure};
use super::lease;
use super::sql::{Sql, numbered, params};
use crate::chain::{Fact, Kind};
use crate::failure::damaged;
use crate::history::{self, DEPLOYMENTS, DeploymentRow, EntryText, Happened};
use crate::key::{KeyPlace, NONCE_BYTES};
use crate::payload::{self, Begun, Ended};

/// The nonces under which a beginning was tried to be written down: they are random, so one that is
/// there tells that it was.
pub(crate) type Tried = Vec<[u8; NONCE_BYTES]>;

/// Begins a deployment and returns its number.
pub(crate) async fn begin(
    transaction: &Transaction<'_>,
    place: &KeyPlace,
    deployment: &NewDeployment,
    tried: &mut Tried,
) -> Result<u64, Failure> {
    let scope = &deployment.scope;
    if deployment.lease.scope != *scope {
        return Err(LedgerError::LeaseLost(scope.clone()).into());
    }
    let mut appending = Appending::begin(transaction, place).await?;
    if let Some(number) = begun(transaction, scope, tried).await? {
        return Ok(number);
    }
    lease::require(transaction, &deployment.lease).await?;
    let sql = "SELECT greatest(coalesce(max(number), 0), $3) + 1, now_ms() FROM entries \
               WHERE project = $1 AND environment = $2";
    let after = history::after(deployment)?;
    let row = transaction.row(sql, params![scope.project, scope.environment, after]).await?;
    let row = row.expect("an aggregate is one row");
    let (number, at_ms): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    let binding = appending.key.encrypt(scope, number, &deployment.binding)?;
    tried.push(binding.nonce);
    let seal = appending.key.seal_binding(&binding);
    let payload = payload::write(&Begun::new(deployment, &seal));
    let seq = appending.append(Fact { kind: Kind::Begun, scope, number, payload, at_ms });
    appending.write(transaction).await?;
    chain::keep_binding(transaction, seq, &binding).await?;
    Ok(number.unsigned_abs())
}

async fn begun(
    transaction: &Transaction<'_>,
    scope: &Scope,
    tried: &Tried,
) -> Result<Option<u64>, Failure> {
    if tried.is_empty() {
        return Ok(None);
    }
    let nonces: Vec<&[u8]> = tried.iter().map(<[u8; NONCE_BYTES]>::as_slice).collect();
    let sql = "SELECT number FROM entries JOIN bindings ON entry = seq \
               WHERE project = $1 AND environment = $2 AND nonce = ANY ($3)";
    let row = transaction.row(sql, params![scope.project, scope.environment, nonces]).await?;
    let number: Option<i64> = row.map(|row| row.try_get(0)).transpose()?;
    Ok(number.map(i64::unsigned_abs))
}

/// What is to be added to a deployment.
pub(crate) struct Addition {
    pub(crate) lease: LeaseKey,
    pub(crate) number: u64,
    kind: Kind,
    payload: String,
    fact: JournalFact,
}

impl Addition {
    pub(crate) fn new(lease: LeaseKey, number: u64, happened: Happened) -> Self {
        let (kind, payload, fact) = happened.into_parts();
        Self { lease, number, kind, payload, fact }
    }
}

/// Adds to deployments what may follow what is there, each for itself: one that is refused leaves
/// the others alone. One that is there already from an attempt before is not added again.
pub(crate) async fn proceed(
    transaction: &Transaction<'_>,
    place: &KeyPlace,
    additions: &[Addition],
    attempt: Attempt,
) -> Result<Vec<Result<(), LedgerError>>, Failure> {
    let mut appending = Appending::begin(transaction, place).await?;
    let at_ms = chain::now_ms(transaction).await?;
    let mut open: Vec<Open> = Vec::new();
    let mut results = Vec::with_capacity(additions.len());
    for addition in additions {
        let is_it = |one: &Open| one.lease == addition.lease && one.number == addition.number;
        let at = match open.iter().position(is_it) {
            Some(at) => at,
            None => {
                let refused = match Open::find(transaction, addition).await {
                    Ok(one) => {
                        open.push(one);
                        None
                    }
                    Err(Failure::Ledger(error)) => Some(error),
                    Err(failure) => return Err(failure),
                };
                if let Some(error) = refused {
                    results.push(Err(error));
                    continue;
                }
                open.len() - 1
            }
        };
        let one = &mut open[at];
        if attempt == Attempt::Repeated && one.has(addition) {
            results.push(Ok(()));
            continue;
        }
        let scope = &addition.lease.scope;
        let admitted = one.state.admit(&addition.fact);
        results.push(admitted.map_err(|fact| history::illegal(scope, addition.number, &fact)));
        if let Some(Ok(())) = results.last() {
            let (kind, payload) = (addition.kind, addition.payload.clone());
            let number = one.row_number;
            appending.append(Fact { kind, scope, number, payload, at_ms });
        }
    }
    appending.write(transaction).await?;
    Ok(results)
}

/// A deployment to which something is added.
struct Open {
    lease: LeaseKey,
    number: u64,
    row_number: i64,
    /// What follows the newest resumption, that included: kind and text.
    newest: Vec<(String, String)>,
    state: shiplap_model::JournalState,
}

impl Open {
    async fn find(transaction: &Transaction<'_>, addition: &Addition) -> Result<Self, Failure> {
        let (lease, number) = (addition.lease.clone(), addition.number);
        lease::require(transaction, &lease).await?;
        let row = find(transaction, &lease.scope, number).await?;
        let followed = followed(transaction, &lease.scope, &row).await?;
        let resumed = followed.iter().rposition(|(_, kind, _)| kind == Kind::Resumed.as_str());
        let newest = followed[resumed.unwrap_or(0)..].iter();
        let newest = newest.map(|(_, kind, text)| (kind.clone(), text.clone())).collect();
        let state = row.journal(followed)?.state();
        let state = state.map_err(|fact| history::illegal(&lease.scope, number, &fact))?;
        Ok(Self { lease, number, row_number: row.number, newest, state })
    }

    /// Whether it is there already. The text names the lease and the time, so nothing else has the
    /// same within one attempt of a deployment.
    fn has(&self, addition: &Addition) -> bool {
        let kind = addition.kind.as_str();
        self.newest.iter().any(|(there, text)| there == kind && *text == addition.payload)
    }
}

fn read(row: &Row) -> Result<DeploymentRow, Failure> {
    let ended = match row.try_get::<_, Option<i64>>(4)? {
        Some(seq) => Some(EntryText { seq, at_ms: row.try_get(5)?, payload: row.try_get(6)? }),
        None => None,
    };
    let begun =
        EntryText { seq: row.try_get(1)?, at_ms: row.try_get(2)?, payload: row.try_get(3)? };
    Ok(DeploymentRow { number: row.try_get(0)?, begun, ended })
}

async fn find(
    transaction: &Transaction<'_>,
    scope: &Scope,
    number: u64,
) -> Result<DeploymentRow, Failure> {
    // A number beyond what a column can hold was never given out.
    let stored = i64::try_from(number).unwrap_or(-1);
    let sql = numbered(&format!("{DEPLOYMENTS} AND begun.number = ?3"));
    let row = transaction.row(&sql, params![scope.project, scope.environment, stored]).await?;
    read(&row.ok_or_else(|| LedgerError::NoSuchDeployment(scope.clone(), number))?)
}

/// Deployments of a scope, newest first.
pub(crate) async fn deployments(
    transaction: &Transaction<'_>,
    scope: &Scope,
    limit: u32,
) -> Result<Vec<Deployment>, Failure> {
    let sql = numbered(&format!("{DEPLOYMENTS} ORDER BY begun.number DESC LIMIT ?3"));
    let parameters = params![scope.project, scope.environment, i64::from(limit)];
    let rows = transaction.rows(&sql, parameters).await?;
    rows.iter().map(|row| Ok(read(row)?.into_deployment(scope)?)).collect()
}

/// One deployment.
pub(crate) async fn deployment(
    transaction: &Transaction<'_>,
    scope: &Scope,
    number: u64,
) -> Result<Option<Deployment>, Failure> {
    match find(transaction, scope, number).await {
        Ok(row) => Ok(Some(row.into_deployment(scope)?)),
        Err(Failure::Ledger(LedgerError::NoSuchDeployment(..))) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// All that happened to a deployment, the oldest first.
pub(crate) async fn facts(
    transaction: &Transaction<'_>,
    scope: &Scope,
    number: u64,
) -> Result<Journal, Failure> {
    let row = find(transaction, scope, number).await?;
    let followed = followed(transaction, scope, &row).await?;
    Ok(row.journal(followed)?)
}

async fn followed(
    transaction: &Transaction<'_>,
    scope: &Scope,
    row: &DeploymentRow,
) -> Result<Vec<(i64, String, String)>, Failure> {
    let sql = "SELECT seq, kind, payload FROM entries \
               WHERE project = $1 AND environment = $2 AND number = $3 AND kind <> 'begun' \
               ORDER BY seq";
    let parameters = params![scope.project, scope.environment, row.number];
    let rows = transaction.rows(sql, parameters).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))).collect()
}

/// A deployment's values.
pub(crate) async fn binding(
    transaction: &Transaction<'_>,
    place: &KeyPlace,
    scope: &Scope,
    number: u64,
) -> Result<Secret<Vec<u8>>, Failure> {
    let row = find(transaction, scope, number).await?;
    let seq = row.begun.seq;
    let key = chain::key_for_reading(transaction, place).await?;
    let sealed = chain::kept_binding(transaction, seq).await?;
    let sealed = sealed.ok_or_else(|| damaged(format!("entry {seq} has lost its binding")))?;
    let binding = key.decrypt(scope, row.number, &sealed);
    Ok(binding.ok_or_else(|| damaged(format!("the binding of entry {seq} was changed")))?)
}

/// All scopes that have a deployment, in order.
pub(crate) async fn scopes(transaction: &Transaction<'_>) -> Result<Vec<Scope>, Failure> {
    let sql = "SELECT DISTINCT project, environment FROM entries";
    let rows = transaction.rows(sql, params![]).await?;
    let scopes = rows
        .iter()
        .map(|row| Ok(Scope { project: row.try_get(0)?, environment: row.try_get(1)? }))
        .collect::<Result<Vec<Scope>, Failure>>();
    // By bytes: a database has an order of its own.
    let mut scopes = scopes?;
    scopes.sort();
    Ok(scopes)
}

/// Images of the newest `keep` done deployments of every scope.
pub(crate) async fn retained_images(
    transaction: &Transaction<'_>,
    keep: u32,
) -> Result<Vec<(Scope, u64, StoredImage)>, Failure> {
    let mut images = Vec::new();
    for scope in scopes(transaction).await? {
        for (number, ended) in newest_done(transaction, &scope, keep).await? {
            let services = ended.release.services.into_values();
            images.extend(services.map(|service| (scope.clone(), number, service.image)));
        }
    }
    Ok(images)
}

async fn newest_done(
    transaction: &Transaction<'_>,
    scope: &Scope,
    keep: u32,
) -> Result<Vec<(u64, Ended)>, Failure> {
    let sql = "SELECT seq, number, payload FROM entries \
               WHERE project = $1 AND environment = $2 AND kind = 'ended' \
               ORDER BY number DESC, seq DESC";
    let rows = transaction.rows(sql, params![scope.project, scope.environment]).await?;
    let ends = rows
        .iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)))
        .collect::<Result<Vec<_>, Failure>>()?;
    Ok(history::newest_done(ends, keep)?)
}
