//! Deployments: writing them down, and reading them back.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use shiplap_model::{
    Deployment, DeploymentState, Journal, JournalFact, LeaseKey, LedgerError, NewDeployment,
    Outcome, Scope, Secret, StoredImage,
};

use crate::chain::{self, Fact, Kind};
use crate::failure::{Failure, damaged};
use crate::lease;
use crate::payload::{self, Begun, Ended, Resumed, Step};

/// Begins a deployment and returns its number.
pub(crate) fn begin(
    transaction: &Transaction,
    dir: &Path,
    deployment: &NewDeployment,
    at_ms: i64,
) -> Result<u64, Failure> {
    let scope = &deployment.scope;
    if deployment.lease.scope != *scope {
        return Err(LedgerError::LeaseLost(scope.clone()).into());
    }
    lease::require(transaction, &deployment.lease)?;
    let number: i64 = transaction
        .prepare_cached(
            "SELECT coalesce(max(number), 0) + 1 FROM entries \
             WHERE project = ?1 AND environment = ?2",
        )?
        .query_row(params![scope.project, scope.environment], |row| row.get(0))?;
    let key = chain::key_for_writing(transaction, dir)?;
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
    dir: &Path,
    lease: &LeaseKey,
    number: u64,
    at_ms: i64,
    happened: Happened,
) -> Result<(), Failure> {
    lease::require(transaction, lease)?;
    let scope = &lease.scope;
    let row = find(transaction, scope, number)?;
    let (kind, payload, fact) = happened.into_parts();
    let illegal = |illegal: shiplap_model::IllegalFact| LedgerError::Illegal {
        scope: scope.clone(),
        number,
        reason: illegal.to_string(),
    };
    let mut state = journal_of(transaction, scope, &row)?.state().map_err(illegal)?;
    state.admit(&fact).map_err(illegal)?;
    let key = chain::key_for_writing(transaction, dir)?;
    let fact = Fact { kind, scope, number: row.number, payload, at_ms };
    chain::append(transaction, &key, fact)?;
    Ok(())
}

/// What is added to a deployment.
pub(crate) enum Happened {
    Step(Step),
    Resumed(Resumed),
    Ended(Ended),
}

impl Happened {
    fn into_parts(self) -> (Kind, String, JournalFact) {
        match self {
            Self::Step(step) => {
                (Kind::Step, payload::write(&step), JournalFact::Step(step.into_entry()))
            }
            Self::Resumed(resumed) => {
                let text = payload::write(&resumed);
                (Kind::Resumed, text, JournalFact::Resumed(resumed.into_resumption()))
            }
            Self::Ended(ended) => {
                (Kind::Ended, payload::write(&ended), JournalFact::Ended(ended.outcome))
            }
        }
    }
}

/// A deployment as it stands in `entries`.
struct DeploymentRow {
    number: i64,
    begun: EntryText,
    ended: Option<EntryText>,
}

struct EntryText {
    seq: i64,
    at_ms: i64,
    payload: String,
}

const DEPLOYMENTS: &str = "\
    SELECT begun.number, begun.seq, begun.at_ms, begun.payload, \
           ended.seq, ended.at_ms, ended.payload \
    FROM entries AS begun LEFT JOIN entries AS ended \
      ON ended.kind = 'ended' AND ended.seq = ( \
         SELECT max(last.seq) FROM entries AS last \
         WHERE last.project = begun.project AND last.environment = begun.environment \
           AND last.number = begun.number AND last.kind IN ('resumed', 'ended')) \
    WHERE begun.kind = 'begun' AND begun.project = ?1 AND begun.environment = ?2";

impl DeploymentRow {
    fn read(row: &Row) -> rusqlite::Result<Self> {
        let ended = match row.get::<_, Option<i64>>(4)? {
            Some(seq) => Some(EntryText { seq, at_ms: row.get(5)?, payload: row.get(6)? }),
            None => None,
        };
        let begun = EntryText { seq: row.get(1)?, at_ms: row.get(2)?, payload: row.get(3)? };
        Ok(Self { number: row.get(0)?, begun, ended })
    }

    fn into_deployment(self, scope: &Scope) -> Result<Deployment, Failure> {
        let begun: Begun = payload::read(self.begun.seq, &self.begun.payload)?;
        let ended = match self.ended {
            Some(text) => Some((text.at_ms, payload::read::<Ended>(text.seq, &text.payload)?)),
            None => None,
        };
        let (release, state) = match ended {
            None => (begun.release, DeploymentState::Unfinished),
            Some((at_ms, Ended { outcome, reason, release, .. })) => {
                (release, DeploymentState::Ended { at_ms, outcome, reason })
            }
        };
        Ok(Deployment {
            scope: scope.clone(),
            number: self.number.unsigned_abs(),
            kind: begun.kind,
            who: begun.who,
            message: begun.message,
            release,
            plan: begun.plan,
            request: begun.request,
            started_ms: self.begun.at_ms,
            state,
        })
    }
}

fn find(connection: &Connection, scope: &Scope, number: u64) -> Result<DeploymentRow, Failure> {
    // A number beyond what a column can hold was never given out.
    let stored = i64::try_from(number).unwrap_or(-1);
    connection
        .prepare_cached(&format!("{DEPLOYMENTS} AND begun.number = ?3"))?
        .query_row(params![scope.project, scope.environment, stored], DeploymentRow::read)
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
    let rows = statement
        .query_map(params![scope.project, scope.environment, limit], DeploymentRow::read)?;
    rows.map(|row| row?.into_deployment(scope)).collect()
}

/// One deployment.
pub(crate) fn deployment(
    connection: &Connection,
    scope: &Scope,
    number: u64,
) -> Result<Option<Deployment>, Failure> {
    match find(connection, scope, number) {
        Ok(row) => row.into_deployment(scope).map(Some),
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
    let (generation, rules) = payload::read_head(row.begun.seq, &row.begun.payload)?;
    let mut statement = connection.prepare_cached(
        "SELECT seq, kind, payload FROM entries \
         WHERE project = ?1 AND environment = ?2 AND number = ?3 AND kind <> 'begun' ORDER BY seq",
    )?;
    let rows = statement
        .query_map(params![scope.project, scope.environment, row.number], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
        })?;
    let facts = rows.map(|row| {
        let (seq, kind, text) = row?;
        chain::fact_of(seq, &kind, &text)
    });
    let facts = facts.collect::<Result<Vec<_>, Failure>>()?;
    Ok(Journal { generation, rules, facts })
}

/// A deployment's values.
pub(crate) fn binding(
    connection: &Connection,
    dir: &Path,
    scope: &Scope,
    number: u64,
) -> Result<Secret<Vec<u8>>, Failure> {
    let row = find(connection, scope, number)?;
    let key = chain::key_for_reading(connection, dir)?;
    let sealed = chain::kept_binding(connection, row.begun.seq)?
        .ok_or_else(|| damaged(format!("entry {} has lost its binding", row.begun.seq)))?;
    key.decrypt(scope, row.number, &sealed)
        .ok_or_else(|| damaged(format!("the binding of entry {} was changed", row.begun.seq)))
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
    let keep = usize::try_from(keep).unwrap_or(usize::MAX);
    let mut statement = connection.prepare_cached(
        "SELECT seq, number, payload FROM entries \
         WHERE project = ?1 AND environment = ?2 AND kind = 'ended' ORDER BY number DESC",
    )?;
    let rows = statement.query_map(params![scope.project, scope.environment], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, String>(2)?))
    })?;
    let mut done = Vec::new();
    for row in rows {
        if done.len() == keep {
            break;
        }
        let (seq, number, text) = row?;
        let ended: Ended = payload::read(seq, &text)?;
        if ended.outcome == Outcome::Done {
            done.push((number.unsigned_abs(), ended));
        }
    }
    Ok(done)
}
