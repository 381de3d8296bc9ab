//! What SQLite says, in the words of the contract.

use std::path::Path;

use rusqlite::ErrorCode;
use shiplap_model::LedgerError;

/// An error inside a transaction, before the path of the database is added.
#[derive(Debug)]
pub(crate) enum Failure {
    Sqlite(rusqlite::Error),
    Ledger(LedgerError),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error)
    }
}

impl Failure {
    pub(crate) fn at(self, path: &Path) -> LedgerError {
        match self {
            Self::Sqlite(error) => sqlite(path, &error),
            Self::Ledger(error) => error,
        }
    }
}

/// An error of SQLite, sorted by what the reader can do about it.
pub(crate) fn sqlite(path: &Path, error: &rusqlite::Error) -> LedgerError {
    let text = format!("`{}`: {error}", path.display());
    let code = match error {
        rusqlite::Error::SqliteFailure(error, _) => error.code,
        rusqlite::Error::SqlInputError { error, .. } => error.code,
        // Everything else is a value that is not what we store there.
        _ => return LedgerError::Damaged(text),
    };
    match code {
        ErrorCode::DiskFull => LedgerError::DiskFull(text),
        // `Unknown` is a statement that does not fit the tables: somebody changed them.
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown => {
            LedgerError::Damaged(text)
        }
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => LedgerError::Storage(format!(
            "{text}; another process is writing to it, trying again is safe"
        )),
        ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly => {
            LedgerError::Storage(format!(
                "{text}; the file and its directory must be readable and writable for this user"
            ))
        }
        _ => LedgerError::Storage(text),
    }
}
