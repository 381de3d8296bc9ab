//! What can go wrong whatever the database, in the words of the contract.

use std::io;
use std::path::Path;

use shiplap_model::LedgerError;

/// An error of the file system while `doing` something to `path`.
pub(crate) fn file(doing: &str, path: &Path, error: &io::Error) -> LedgerError {
    let text = format!("cannot {doing} `{}`: {error}", path.display());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => LedgerError::DiskFull(text),
        _ => LedgerError::Storage(text),
    }
}

/// A database that is not as we wrote it.
pub(crate) fn damaged(text: impl Into<String>) -> LedgerError {
    LedgerError::Damaged(text.into())
}
