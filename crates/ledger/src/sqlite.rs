//! The ledger in SQLite.

mod chain;
mod failure;
mod history;
mod lease;
mod order;
mod schema;
mod token;
mod writer;

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::io::Errno;
use shiplap_model::{
    Claim, Deployment, Journal, JournalEntry, Lease, LeaseHeld, LeaseKey, Ledger, LedgerError,
    NewDeployment, NewOrder, Order, OrderEnd, OrderError, Orders, Outcome, Placed, Resumption,
    Scope, Secret, Store, StoredImage, StoredRelease, Token, Tokens,
};
use tokio::sync::oneshot;

use self::failure::Failure;
use self::order::Refusal;
use self::schema::Found;
use self::writer::{Line, Work, Writer};
use crate::failure::file;
use crate::history::Happened;
use crate::host::{Host, machine, system_host};
use crate::key::KeyPlace;
use crate::payload::{Ended, Resumed, Step};

/// A ledger in a state directory, which several processes may use at once.
///
/// The calls of [`Ledger`] work inline, without a thread of their own, except for journal lines,
/// which one thread writes together: each is one short transaction, a few milliseconds of which
/// most is the disk confirming it. A caller whose other tasks cannot bear that puts the ledger on
/// a runtime with more than one thread.
pub struct SqliteLedger {
    place: KeyPlace,
    path: PathBuf,
    id: String,
    connection: Arc<Mutex<Connection>>,
    /// Started by the first journal line.
    writer: Mutex<Option<Writer>>,
    host: Arc<dyn Host>,
}

/// Where the file came from that we are about to open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    JustMade,
    WasThere,
}

impl SqliteLedger {
    /// Opens the ledger of `state_dir`; makes both where they do not exist.
    ///
    /// Writes nothing to a ledger of the current schema.
    ///
    /// # Errors
    /// `TooNew` for a ledger of a later version, `Damaged` for a file that is none, and
    /// `DiskFull` or `Storage` where the file system refuses. The file is left as it is.
    pub fn open(state_dir: &Path) -> Result<Self, LedgerError> {
        Self::open_on(state_dir, system_host()?)
    }

    /// Opens the ledger of `state_dir` if there is one, for commands that only read.
    ///
    /// # Errors
    /// As for [`SqliteLedger::open`].
    pub fn open_existing(state_dir: &Path) -> Result<Option<Self>, LedgerError> {
        let path = database_path(state_dir);
        let exists = path.try_exists().map_err(|error| file("look for", &path, &error))?;
        if exists { Self::open(state_dir).map(Some) } else { Ok(None) }
    }

    /// Like [`SqliteLedger::open`], with a clock and processes of the caller's choice.
    ///
    /// # Errors
    /// As for [`SqliteLedger::open`].
    pub fn open_on(state_dir: &Path, host: Arc<dyn Host>) -> Result<Self, LedgerError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state_dir)
            .map_err(|error| file("create the state directory", state_dir, &error))?;
        let path = database_path(state_dir);
        let origin = make_file(&path)?;
        let mut connection = schema::connect(&path)?;
        let prepare = |connection: &mut Connection| {
            let found = schema::inspect(connection)?;
            refuse_emptied(state_dir, origin, &found)?;
            schema::prepare(connection, &found)
        };
        prepare(&mut connection).map_err(|failure| failure.at(&path))?;
        if origin == Origin::JustMade {
            // SQLite syncs the file, but not that it is there.
            File::open(state_dir)
                .and_then(|dir| dir.sync_all())
                .map_err(|error| file("sync", state_dir, &error))?;
        }
        let id = identity(&path)?;
        Ok(Self {
            place: KeyPlace::of(state_dir),
            path,
            id,
            connection: Arc::new(Mutex::new(connection)),
            writer: Mutex::default(),
            host,
        })
    }

    /// A number that is another one as soon as somebody with another handle has written: whoever
    /// waits for something to happen need not read everything again to see that nothing did. It
    /// says nothing across handles.
    ///
    /// # Errors
    /// `Storage` where the database cannot be read, also because it is busy.
    pub fn revision(&self) -> Result<i64, LedgerError> {
        let asked = self.connection().query_row("PRAGMA data_version", [], |row| row.get(0));
        asked.map_err(|error| Failure::from(error).at(&self.path))
    }

    fn writing<T>(
        &self,
        work: impl FnOnce(&Transaction) -> Result<T, Failure>,
    ) -> Result<T, LedgerError> {
        let done = self.transaction(TransactionBehavior::Immediate, work);
        done.map_err(|failure: Failure| failure.at(&self.path))
    }

    fn ordering<T>(
        &self,
        work: impl FnOnce(&Transaction) -> Result<T, Refusal>,
    ) -> Result<T, OrderError> {
        let done = self.transaction(TransactionBehavior::Immediate, work);
        done.map_err(|refusal: Refusal| refusal.at(&self.path))
    }

    /// A transaction too, so that what is read belongs together.
    fn reading<T>(
        &self,
        work: impl FnOnce(&Transaction) -> Result<T, Failure>,
    ) -> Result<T, LedgerError> {
        let done = self.transaction(TransactionBehavior::Deferred, work);
        done.map_err(|failure: Failure| failure.at(&self.path))
    }

    /// What does not succeed is rolled back.
    fn transaction<T, E: From<rusqlite::Error>>(
        &self,
        behavior: TransactionBehavior,
        work: impl FnOnce(&Transaction) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut connection = self.connection();
        let transaction = connection.transaction_with_behavior(behavior)?;
        let value = work(&transaction)?;
        transaction.commit()?;
        Ok(value)
    }

    fn hand_over(
        &self,
        line: Line,
    ) -> Result<oneshot::Receiver<Result<(), LedgerError>>, LedgerError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if writer.is_none() {
            *writer = Some(Writer::start(Work {
                connection: Arc::clone(&self.connection),
                place: self.place.clone(),
                path: self.path.clone(),
            })?);
        }
        Ok(writer.as_ref().expect("just started").write(line))
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // Who panicked with it rolled its transaction back on the way out.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Ledger for SqliteLedger {
    async fn acquire(
        &self,
        scope: &Scope,
        holder: &str,
        ttl: Duration,
    ) -> Result<Result<Lease, LeaseHeld>, LedgerError> {
        self.writing(|tx| lease::acquire(tx, self.host.as_ref(), scope, holder, ttl))
    }

    async fn raise(&self, key: &LeaseKey, generation: u64) -> Result<Lease, LedgerError> {
        self.writing(|tx| lease::raise(tx, key, generation))
    }

    async fn renew(&self, key: &LeaseKey, ttl: Duration) -> Result<Lease, LedgerError> {
        self.writing(|tx| lease::renew(tx, self.host.as_ref(), key, ttl))
    }

    async fn release(&self, key: &LeaseKey) -> Result<(), LedgerError> {
        self.writing(|tx| lease::release(tx, key))
    }

    async fn holder(&self, scope: &Scope) -> Result<Option<LeaseHeld>, LedgerError> {
        self.reading(|tx| lease::holder(tx, self.host.as_ref(), scope))
    }

    async fn begin(&self, deployment: &NewDeployment) -> Result<u64, LedgerError> {
        let at_ms = self.host.now_ms();
        self.writing(|tx| history::begin(tx, &self.place, deployment, at_ms))
    }

    async fn record(
        &self,
        lease: &LeaseKey,
        number: u64,
        entry: &JournalEntry,
    ) -> Result<(), LedgerError> {
        let answered = self.hand_over(Line {
            lease: lease.clone(),
            number,
            at_ms: self.host.now_ms(),
            step: Step::new(entry, lease.generation),
        })?;
        answered.await.unwrap_or_else(|_| {
            Err(LedgerError::Storage("the journal's thread has ended".to_owned()))
        })
    }

    async fn resume(
        &self,
        lease: &LeaseKey,
        number: u64,
        resumption: &Resumption,
    ) -> Result<(), LedgerError> {
        let at_ms = self.host.now_ms();
        let resumption = Resumption { generation: lease.generation, ..resumption.clone() };
        let resumed = Happened::Resumed(Resumed::new(&resumption));
        self.writing(|tx| history::proceed(tx, &self.place, lease, number, at_ms, resumed))
    }

    async fn end(
        &self,
        lease: &LeaseKey,
        number: u64,
        outcome: Outcome,
        reason: Option<&str>,
        release: &StoredRelease,
    ) -> Result<(), LedgerError> {
        let at_ms = self.host.now_ms();
        let ended = Happened::Ended(Ended::new(lease.generation, outcome, reason, release));
        self.writing(|tx| history::proceed(tx, &self.place, lease, number, at_ms, ended))
    }

    async fn deployments(&self, scope: &Scope, limit: u32) -> Result<Vec<Deployment>, LedgerError> {
        self.reading(|tx| history::deployments(tx, scope, limit))
    }

    async fn deployment(
        &self,
        scope: &Scope,
        number: u64,
    ) -> Result<Option<Deployment>, LedgerError> {
        self.reading(|tx| history::deployment(tx, scope, number))
    }

    async fn facts(&self, scope: &Scope, number: u64) -> Result<Journal, LedgerError> {
        self.reading(|tx| history::facts(tx, scope, number))
    }

    async fn binding(&self, scope: &Scope, number: u64) -> Result<Secret<Vec<u8>>, LedgerError> {
        self.reading(|tx| history::binding(tx, &self.place, scope, number))
    }

    async fn scopes(&self) -> Result<Vec<Scope>, LedgerError> {
        self.reading(|tx| history::scopes(tx))
    }

    fn id(&self) -> String {
        self.id.clone()
    }

    async fn verify(&self) -> Result<u64, LedgerError> {
        self.reading(|tx| chain::verify(tx, &self.place))
    }
}

#[async_trait]
impl Orders for SqliteLedger {
    async fn place(&self, order: &NewOrder) -> Result<Placed, OrderError> {
        let now_ms = self.host.now_ms();
        self.ordering(|tx| order::place(tx, order, now_ms))
    }

    async fn claim(&self, server: &str, ttl: Duration) -> Result<Option<Claim>, OrderError> {
        self.ordering(|tx| Ok(order::claim(tx, self.host.as_ref(), server, ttl)?))
    }

    async fn keep(&self, claim: &Claim, ttl: Duration) -> Result<(), OrderError> {
        self.ordering(|tx| order::keep(tx, self.host.as_ref(), claim, ttl))
    }

    async fn finish(&self, claim: &Claim, end: &OrderEnd) -> Result<(), OrderError> {
        let now_ms = self.host.now_ms();
        self.ordering(|tx| order::finish(tx, claim, end, now_ms))
    }

    async fn order(&self, id: u64) -> Result<Option<Order>, OrderError> {
        Ok(self.reading(|tx| order::order(tx, id))?)
    }

    async fn orders(&self, scope: Option<&Scope>, limit: u32) -> Result<Vec<Order>, OrderError> {
        Ok(self.reading(|tx| order::orders(tx, scope, limit))?)
    }

    async fn orders_revision(&self) -> Result<u64, OrderError> {
        Ok(self.reading(|tx| order::revision(tx))?)
    }
}

#[async_trait]
impl Tokens for SqliteLedger {
    async fn add_token(&self, token: &Token) -> Result<(), LedgerError> {
        self.writing(|tx| token::add(tx, token))
    }

    async fn token(&self, id: &str) -> Result<Option<Token>, LedgerError> {
        self.reading(|tx| token::find(tx, id))
    }

    async fn tokens(&self) -> Result<Vec<Token>, LedgerError> {
        self.reading(|tx| token::all(tx))
    }

    async fn token_used(&self, id: &str, at_ms: i64) -> Result<(), LedgerError> {
        if self.reading(|tx| token::is_news(tx, id, at_ms))? {
            self.writing(|tx| token::used(tx, id, at_ms))?;
        }
        Ok(())
    }

    async fn revoke_token(&self, id: &str, at_ms: i64) -> Result<bool, LedgerError> {
        self.writing(|tx| token::revoke(tx, id, at_ms))
    }
}

#[async_trait]
impl Store for SqliteLedger {
    async fn retained_images(
        &self,
        keep: u32,
    ) -> Result<Vec<(Scope, u64, StoredImage)>, LedgerError> {
        self.reading(|tx| history::retained_images(tx, keep))
    }
}

/// From the machine and the file's place on its disk: a ledger that was copied elsewhere is
/// another one, and one whose folder was renamed is not.
fn identity(path: &Path) -> Result<String, LedgerError> {
    let found = rustix::fs::stat(path).map_err(|error| file("look at", path, &error.into()))?;
    let text = format!("{}\n{}\n{}", machine(), found.st_dev, found.st_ino);
    Ok(blake3::hash(text.as_bytes()).to_hex()[..16].to_owned())
}

fn database_path(state_dir: &Path) -> PathBuf {
    state_dir.join("ledger.db")
}

/// Makes the file with its mode, which SQLite gives to the files beside it too.
///
/// It is made without being opened: closing a second descriptor of a database drops the locks
/// that other connections of this process hold on it.
fn make_file(path: &Path) -> Result<Origin, LedgerError> {
    match mknodat(CWD, path, FileType::RegularFile, Mode::from_raw_mode(0o600), 0) {
        Ok(()) => Ok(Origin::JustMade),
        Err(Errno::EXIST) => Ok(Origin::WasThere),
        Err(error) => Err(file("create", path, &error.into())),
    }
}

/// A file that was emptied looks like a new one. A key beside it tells that there was a history,
/// which must not begin again at 1 without a word.
fn refuse_emptied(state_dir: &Path, origin: Origin, found: &Found) -> Result<(), Failure> {
    let emptied = matches!(found, Found::Empty)
        && origin == Origin::WasThere
        && KeyPlace::of(state_dir).path.exists();
    if emptied {
        let text = format!(
            "`{}` is empty; put it back from a backup, or remove it to begin a new history",
            database_path(state_dir).display()
        );
        return Err(LedgerError::Damaged(text).into());
    }
    Ok(())
}

#[cfg(test)]
#[path = "sqlite/full_disk_tests.rs"]
mod full_disk_tests;
