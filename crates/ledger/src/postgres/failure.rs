//! What PostgreSQL says, in the words of the contract, and what is worth another attempt.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use shiplap_model::LedgerError;
use tokio::time::Instant;
use tokio_postgres::error::SqlState;

use super::server::Server;

/// An error inside an attempt.
#[derive(Debug)]
pub(crate) enum Failure {
    Postgres(tokio_postgres::Error),
    /// The server did not answer in time.
    Silent(Duration),
    Ledger(LedgerError),
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error)
    }
}

/// What to do about a failure.
enum Remedy {
    /// Somebody else was faster: at once again.
    Again,
    /// Nobody is there, maybe only for a moment.
    Wait,
    /// Nothing.
    None,
}

/// Whether an attempt is the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    First,
    /// One before it broke off, and may have been written all the same.
    Repeated,
}

/// How long a server that is away is waited for: it is back within it after a restart, and within a
/// lease.
const PATIENCE: Duration = Duration::from_secs(10);
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Each time somebody else wins; more would be a mistake of ours.
const MOST_CONFLICTS: u32 = 20;

/// The attempts at one thing.
pub(crate) struct Attempts<'a> {
    server: &'a Server,
    until: Instant,
    attempt: Attempt,
    conflicts: u32,
    pause: Duration,
}

impl<'a> Attempts<'a> {
    /// At something that is done again when the connection breaks.
    pub(crate) fn patient(server: &'a Server) -> Self {
        Self::within(server, PATIENCE)
    }

    /// At something whose caller wants to know at once that nobody is there.
    pub(crate) fn brief(server: &'a Server) -> Self {
        Self::within(server, Duration::ZERO)
    }

    fn within(server: &'a Server, patience: Duration) -> Self {
        let until = Instant::now() + patience;
        Self { server, until, attempt: Attempt::First, conflicts: 0, pause: SHORTEST_PAUSE }
    }

    /// Which one is next.
    pub(crate) fn attempt(&self) -> Attempt {
        self.attempt
    }

    /// The answer, unless it is to be tried again, for which this waits.
    pub(crate) async fn settle<T>(
        &mut self,
        done: Result<T, Failure>,
    ) -> Option<Result<T, LedgerError>> {
        let failure = match done {
            Ok(value) => return Some(Ok(value)),
            Err(failure) => failure,
        };
        match failure.remedy() {
            Remedy::Again if self.conflicts < MOST_CONFLICTS => self.conflicts += 1,
            Remedy::Wait if Instant::now() + self.pause < self.until => {
                self.attempt = Attempt::Repeated;
            }
            Remedy::Again | Remedy::Wait | Remedy::None => {
                return Some(Err(failure.of(self.server)));
            }
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        None
    }
}

impl Failure {
    fn remedy(&self) -> Remedy {
        let error = match self {
            Self::Postgres(error) => error,
            Self::Silent(_) => return Remedy::Wait,
            Self::Ledger(_) => return Remedy::None,
        };
        let Some(code) = error.code() else {
            return if is_broken(error) { Remedy::Wait } else { Remedy::None };
        };
        match code {
            &SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED => {
                Remedy::Again
            }
            // The last is one that became a standby.
            &SqlState::ADMIN_SHUTDOWN
            | &SqlState::CRASH_SHUTDOWN
            | &SqlState::CANNOT_CONNECT_NOW
            | &SqlState::TOO_MANY_CONNECTIONS
            | &SqlState::READ_ONLY_SQL_TRANSACTION => Remedy::Wait,
            code if code.code().starts_with("08") => Remedy::Wait,
            _ => Remedy::None,
        }
    }

    /// The error that the caller gets.
    pub(crate) fn of(self, server: &Server) -> LedgerError {
        let error = match self {
            Self::Ledger(error) => return error,
            Self::Silent(time) => {
                let seconds = time.as_secs();
                let text = format!("`{server}` has said nothing for {seconds} s");
                return LedgerError::Unreachable(text);
            }
            Self::Postgres(error) => error,
        };
        let text = format!("`{server}`: {}", said(&error));
        let Some(code) = error.code() else {
            return match is_broken(&error) {
                true => LedgerError::Unreachable(text),
                false if is_unreadable(&error) => LedgerError::Damaged(text),
                false => LedgerError::Storage(text),
            };
        };
        match code {
            &SqlState::DISK_FULL => LedgerError::DiskFull(text),
            &SqlState::ADMIN_SHUTDOWN
            | &SqlState::CRASH_SHUTDOWN
            | &SqlState::CANNOT_CONNECT_NOW
            | &SqlState::TOO_MANY_CONNECTIONS
            | &SqlState::READ_ONLY_SQL_TRANSACTION => LedgerError::Unreachable(text),
            &SqlState::INSUFFICIENT_PRIVILEGE => LedgerError::Storage(format!(
                "{text}; docs/ledger.md says which privileges its role needs"
            )),
            &SqlState::LOCK_NOT_AVAILABLE | &SqlState::QUERY_CANCELED => LedgerError::Storage(
                format!("{text}; somebody else keeps it busy, trying again is safe"),
            ),
            &SqlState::UNDEFINED_TABLE
            | &SqlState::UNDEFINED_COLUMN
            | &SqlState::UNDEFINED_FUNCTION
            | &SqlState::DATA_CORRUPTED
            | &SqlState::INDEX_CORRUPTED => LedgerError::Damaged(text),
            code if code.code().starts_with("08") => LedgerError::Unreachable(text),
            _ => LedgerError::Storage(text),
        }
    }
}

/// Whether the connection broke, or there never was one.
fn is_broken(error: &tokio_postgres::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    // Data that is not valid: a certificate of somebody else, above all.
    let io = cause.is_some_and(|cause| cause.kind() != io::ErrorKind::InvalidData);
    // The library says no more of a connection that took too long than this.
    io || error.is_closed() || error.to_string().starts_with("timeout")
}

/// Whether a column holds something else than it should.
fn is_unreadable(error: &tokio_postgres::Error) -> bool {
    let text = error.to_string();
    text.starts_with("error deserializing") || text.starts_with("invalid column")
}

/// What a server said, without what a statement or a row holds.
fn said(error: &tokio_postgres::Error) -> String {
    if let Some(said) = error.as_db_error() {
        return format!("{} ({})", said.message(), said.code().code());
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
