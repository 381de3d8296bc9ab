//! The ledger in PostgreSQL, which several machines share.

mod chain;
mod failure;
mod history;
mod lease;
mod order;
mod pool;
mod schema;
mod server;
mod sql;
mod tls;
mod token;
mod writer;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use shiplap_model::{
    Claim, Deployment, Journal, JournalEntry, Lease, LeaseHeld, LeaseKey, Ledger, LedgerError,
    NewDeployment, NewOrder, Order, OrderEnd, OrderError, Orders, Outcome, Placed, Resumption,
    Scope, Secret, Store, StoredImage, StoredRelease, Token, Tokens,
};
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::IsolationLevel;

pub use self::server::Server;

use self::failure::{Attempts, Failure};
use self::history::{Addition, Tried};
use self::order::Claimant;
use self::pool::Pool;
use self::writer::Line;
use crate::history::Happened;
use crate::host::{Host, machine, system_host};
use crate::key::{KeyPlace, Sharing, fill_random};
use crate::payload::{Ended, Resumed, Step};

/// A transaction takes milliseconds; a server that is silent for so long is away. Longer than a
/// statement may take, and than TCP waits.
const LONGEST: Duration = Duration::from_secs(20);
/// All of history is read then.
const LONGEST_VERIFYING: Duration = Duration::from_secs(60 * 60);

/// A ledger in a database, which several machines may use at once.
///
/// Whoever changes history locks one row, so entries follow each other without a hole whoever
/// writes them. When a connection breaks, what was asked for is asked for again on a new one for
/// ten seconds; what may have been written by then is looked for first, so nothing is written
/// twice.
pub struct PostgresLedger {
    inner: Arc<Inner>,
    id: String,
    /// Made by the first journal line.
    lines: Mutex<Option<mpsc::UnboundedSender<Line>>>,
}

/// What the writer of lines needs too.
pub(crate) struct Inner {
    pool: Pool,
    server: Server,
    place: KeyPlace,
    host: Arc<dyn Host>,
    machine: String,
}

/// Does `work` in a transaction until it is done, or is not to be tried again. A macro, since the
/// future of `work` borrows from the transaction and from the caller, which no closure's may.
macro_rules! transacting {
    ($inner:expr, $limit:expr, |$client:ident| $start:expr, |$tx:ident, $attempt:ident| $work:expr) => {{
        let mut attempts = Attempts::patient(&$inner.server);
        loop {
            let $attempt = attempts.attempt();
            let trial = async {
                let mut $client = $inner.pool.take().await?;
                let transaction = $start.await?;
                let $tx = &transaction;
                let done = $work.await;
                match &done {
                    Ok(_) => transaction.commit().await?,
                    Err(Failure::Ledger(_)) => transaction.rollback().await?,
                    Err(Failure::Postgres(_) | Failure::Silent(_)) => return done,
                }
                $client.give_back();
                done
            };
            let done = tokio::time::timeout($limit, trial).await;
            if let Some(answer) =
                attempts.settle(done.unwrap_or(Err(Failure::Silent($limit)))).await
            {
                break answer;
            }
        }
    }};
}

macro_rules! writing {
    ($inner:expr, |$tx:ident, $attempt:ident| $work:expr) => {
        transacting!($inner, LONGEST, |client| client.transaction(), |$tx, $attempt| $work)
    };
    ($inner:expr, |$tx:ident| $work:expr) => {
        writing!($inner, |$tx, _attempt| $work)
    };
}

/// What is read belongs together.
macro_rules! reading {
    ($inner:expr, $limit:expr, |$tx:ident| $work:expr) => {
        transacting!(
            $inner,
            $limit,
            |client| client
                .build_transaction()
                .isolation_level(IsolationLevel::RepeatableRead)
                .read_only(true)
                .start(),
            |$tx, _attempt| $work
        )
    };
    ($inner:expr, |$tx:ident| $work:expr) => {
        reading!($inner, LONGEST, |$tx| $work)
    };
}

impl PostgresLedger {
    /// Opens the ledger of a database; makes its tables where they do not exist.
    ///
    /// Writes nothing to a ledger of the current schema.
    ///
    /// # Errors
    /// `Unreachable` where nobody answers, `TooNew` for a ledger of a later version, `Damaged` for a
    /// schema `shiplap` that is none.
    pub(crate) async fn open(server: Server, place: KeyPlace) -> Result<Self, LedgerError> {
        Self::open_with(server, place, system_host()?, machine()).await
    }

    async fn open_with(
        server: Server,
        place: KeyPlace,
        host: Arc<dyn Host>,
        machine: String,
    ) -> Result<Self, LedgerError> {
        let pool = Pool::new(server.clone(), tls::connector(&server.protection)?);
        // Whoever opens a ledger wants to know at once that nobody is there.
        let mut attempts = Attempts::brief(&server);
        let id = loop {
            let trial = async {
                let mut client = pool.take().await?;
                schema::prepare(&mut client).await?;
                let id = schema::identity(&mut client).await?;
                client.give_back();
                Ok(id)
            };
            let done = tokio::time::timeout(LONGEST, trial).await;
            let done = done.unwrap_or(Err(Failure::Silent(LONGEST)));
            if let Some(answer) = attempts.settle(done).await {
                break answer?;
            }
        };
        let inner = Inner { pool, server, place, host, machine };
        Ok(Self { inner: Arc::new(inner), id, lines: Mutex::default() })
    }

    /// Opens the ledger of a database with the key in `key`, as a process of a machine of the
    /// caller's choice.
    ///
    /// # Errors
    /// As for [`crate::open`].
    pub async fn open_on(
        server: Server,
        key: std::path::PathBuf,
        host: Arc<dyn Host>,
        machine: &str,
    ) -> Result<Self, LedgerError> {
        let place = KeyPlace { path: key, sharing: Sharing::Shared };
        Self::open_with(server, place, host, machine.to_owned()).await
    }

    fn hand_over(&self, line: Line) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = lines.get_or_insert_with(|| writer::start(Arc::clone(&self.inner)));
        if let Err(mpsc::error::SendError(line)) = sender.send(line) {
            // Its runtime has ended; this one has not.
            let sender = lines.insert(writer::start(Arc::clone(&self.inner)));
            let _ = sender.send(line);
        }
    }

    async fn add(
        &self,
        lease: &LeaseKey,
        number: u64,
        happened: Happened,
    ) -> Result<(), LedgerError> {
        let addition = [Addition::new(lease.clone(), number, happened)];
        let mut results = self.inner.proceed(&addition).await?;
        results.pop().expect("one answer for each")
    }
}

impl Inner {
    async fn proceed(
        &self,
        additions: &[Addition],
    ) -> Result<Vec<Result<(), LedgerError>>, LedgerError> {
        writing!(self, |tx, attempt| history::proceed(tx, &self.place, additions, attempt))
    }
}

/// Random, so that a repeated attempt recognises what the one before it has written.
fn mark() -> Result<[u8; 16], LedgerError> {
    let mut mark = [0; 16];
    fill_random(&mut mark)?;
    Ok(mark)
}

#[async_trait]
impl Ledger for PostgresLedger {
    async fn acquire(
        &self,
        scope: &Scope,
        holder: &str,
        ttl: Duration,
    ) -> Result<Result<Lease, LeaseHeld>, LedgerError> {
        let (inner, mark) = (&self.inner, mark()?);
        let taker = lease::Taker {
            host: inner.host.as_ref(),
            machine: &inner.machine,
            name: holder,
            mark: &mark,
        };
        writing!(inner, |tx| lease::acquire(tx, &taker, scope, ttl))
    }

    async fn raise(&self, key: &LeaseKey, generation: u64) -> Result<Lease, LedgerError> {
        let (host, machine) = (self.inner.host.as_ref(), self.inner.machine.as_str());
        writing!(self.inner, |tx, attempt| {
            lease::raise(tx, host, machine, key, generation, attempt)
        })
    }

    async fn renew(&self, key: &LeaseKey, ttl: Duration) -> Result<Lease, LedgerError> {
        writing!(self.inner, |tx| lease::renew(tx, key, ttl))
    }

    async fn release(&self, key: &LeaseKey) -> Result<(), LedgerError> {
        writing!(self.inner, |tx| lease::release(tx, key))
    }

    async fn holder(&self, scope: &Scope) -> Result<Option<LeaseHeld>, LedgerError> {
        let (host, machine) = (self.inner.host.as_ref(), self.inner.machine.as_str());
        reading!(self.inner, |tx| lease::holder(tx, host, machine, scope))
    }

    async fn begin(&self, deployment: &NewDeployment) -> Result<u64, LedgerError> {
        let (inner, mut tried) = (&self.inner, Tried::new());
        writing!(inner, |tx| history::begin(tx, &inner.place, deployment, &mut tried))
    }

    async fn record(
        &self,
        lease: &LeaseKey,
        number: u64,
        entry: &JournalEntry,
    ) -> Result<(), LedgerError> {
        let step = Happened::Step(Step::new(entry, lease.generation));
        let (answer, answered) = oneshot::channel();
        self.hand_over(Line(Addition::new(lease.clone(), number, step), answer));
        answered.await.unwrap_or_else(|_| {
            Err(LedgerError::Storage("the journal's task has ended".to_owned()))
        })
    }

    async fn resume(
        &self,
        lease: &LeaseKey,
        number: u64,
        resumption: &Resumption,
    ) -> Result<(), LedgerError> {
        let resumption = Resumption { generation: lease.generation, ..resumption.clone() };
        self.add(lease, number, Happened::Resumed(Resumed::new(&resumption))).await
    }

    async fn end(
        &self,
        lease: &LeaseKey,
        number: u64,
        outcome: Outcome,
        reason: Option<&str>,
        release: &StoredRelease,
    ) -> Result<(), LedgerError> {
        let ended = Ended::new(lease.generation, outcome, reason, release);
        self.add(lease, number, Happened::Ended(ended)).await
    }

    async fn deployments(&self, scope: &Scope, limit: u32) -> Result<Vec<Deployment>, LedgerError> {
        reading!(self.inner, |tx| history::deployments(tx, scope, limit))
    }

    async fn deployment(
        &self,
        scope: &Scope,
        number: u64,
    ) -> Result<Option<Deployment>, LedgerError> {
        reading!(self.inner, |tx| history::deployment(tx, scope, number))
    }

    async fn facts(&self, scope: &Scope, number: u64) -> Result<Journal, LedgerError> {
        reading!(self.inner, |tx| history::facts(tx, scope, number))
    }

    async fn binding(&self, scope: &Scope, number: u64) -> Result<Secret<Vec<u8>>, LedgerError> {
        let inner = &self.inner;
        reading!(inner, |tx| history::binding(tx, &inner.place, scope, number))
    }

    async fn scopes(&self) -> Result<Vec<Scope>, LedgerError> {
        reading!(self.inner, |tx| history::scopes(tx))
    }

    fn id(&self) -> String {
        self.id.clone()
    }

    async fn verify(&self) -> Result<u64, LedgerError> {
        let inner = &self.inner;
        reading!(inner, LONGEST_VERIFYING, |tx| chain::verify(tx, &inner.place))
    }
}

#[async_trait]
impl Orders for PostgresLedger {
    async fn place(&self, order: &NewOrder) -> Result<Placed, OrderError> {
        let (order, mark) = (order::storable(order), mark()?);
        writing!(self.inner, |tx, attempt| order::place(tx, &order, &mark, attempt))?
    }

    async fn claim(&self, server: &str, ttl: Duration) -> Result<Option<Claim>, OrderError> {
        let (inner, mark) = (&self.inner, mark()?);
        let claimant =
            Claimant { host: inner.host.as_ref(), machine: &inner.machine, server, mark: &mark };
        Ok(writing!(inner, |tx, attempt| order::claim(tx, &claimant, ttl, attempt))?)
    }

    async fn keep(&self, claim: &Claim, ttl: Duration) -> Result<(), OrderError> {
        writing!(self.inner, |tx| order::keep(tx, claim, ttl))?
    }

    async fn finish(&self, claim: &Claim, end: &OrderEnd) -> Result<(), OrderError> {
        writing!(self.inner, |tx| order::finish(tx, claim, end))?
    }

    async fn order(&self, id: u64) -> Result<Option<Order>, OrderError> {
        Ok(reading!(self.inner, |tx| order::order(tx, id))?)
    }

    async fn orders(&self, scope: Option<&Scope>, limit: u32) -> Result<Vec<Order>, OrderError> {
        Ok(reading!(self.inner, |tx| order::orders(tx, scope, limit))?)
    }

    async fn orders_revision(&self) -> Result<u64, OrderError> {
        Ok(reading!(self.inner, |tx| order::revision(tx))?)
    }
}

#[async_trait]
impl Tokens for PostgresLedger {
    async fn add_token(&self, token: &Token) -> Result<(), LedgerError> {
        writing!(self.inner, |tx, attempt| token::add(tx, token, attempt))
    }

    async fn token(&self, id: &str) -> Result<Option<Token>, LedgerError> {
        // PostgreSQL has no text with a null character, so no token has either.
        if id.contains('\0') {
            return Ok(None);
        }
        reading!(self.inner, |tx| token::find(tx, id))
    }

    async fn tokens(&self) -> Result<Vec<Token>, LedgerError> {
        reading!(self.inner, |tx| token::all(tx))
    }

    async fn token_used(&self, id: &str, at_ms: i64) -> Result<(), LedgerError> {
        writing!(self.inner, |tx| token::used(tx, id, at_ms))
    }

    async fn revoke_token(&self, id: &str, at_ms: i64) -> Result<bool, LedgerError> {
        writing!(self.inner, |tx, attempt| token::revoke(tx, id, at_ms, attempt))
    }
}

#[async_trait]
impl Store for PostgresLedger {
    async fn retained_images(
        &self,
        keep: u32,
    ) -> Result<Vec<(Scope, u64, StoredImage)>, LedgerError> {
        reading!(self.inner, |tx| history::retained_images(tx, keep))
    }
}
