//! Where a ledger is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use shiplap_model::{LedgerError, Store};

use crate::key::{KeyPlace, Sharing};
use crate::{PostgresLedger, Server, SqliteLedger};

/// Where a ledger is, and its key.
#[derive(Debug, Clone)]
pub enum Address {
    /// A state directory: SQLite.
    Folder(PathBuf),
    /// A database that several machines share, and the file with their key.
    Shared {
        /// The database.
        server: Box<Server>,
        /// The key: made with the first deployment, where it is not there.
        key: PathBuf,
    },
}

impl Address {
    /// The ledger of a state directory.
    #[must_use]
    pub fn folder(state_dir: &Path) -> Self {
        Self::Folder(state_dir.to_owned())
    }

    /// The ledger behind `postgres://user@host:port/database`, whose key is in a file.
    ///
    /// # Errors
    /// `Storage` for a URL that is none, without a part of it: it may hold a password.
    pub fn shared(url: &str, key: &Path) -> Result<Self, LedgerError> {
        Ok(Self::Shared { server: Box::new(Server::parse(url)?), key: key.to_owned() })
    }

    /// Whether it is a URL that holds a password.
    #[must_use]
    pub fn has_password(&self) -> bool {
        match self {
            Self::Folder(_) => false,
            Self::Shared { server, .. } => server.has_password(),
        }
    }
}

impl fmt::Display for Address {
    /// Without a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => path.display().fmt(f),
            Self::Shared { server, .. } => server.fmt(f),
        }
    }
}

/// Opens the ledger at an address; makes it where there is none.
///
/// # Errors
/// `Unreachable` for a server that does not answer; else as for [`SqliteLedger::open`].
pub async fn open(address: &Address) -> Result<Arc<dyn Store>, LedgerError> {
    match address {
        Address::Folder(state_dir) => Ok(Arc::new(SqliteLedger::open(state_dir)?)),
        Address::Shared { server, key } => {
            let place = KeyPlace { path: key.clone(), sharing: Sharing::Shared };
            Ok(Arc::new(PostgresLedger::open(Server::clone(server), place).await?))
        }
    }
}
