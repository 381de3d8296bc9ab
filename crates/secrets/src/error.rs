//! What can go wrong with the store. No error holds a value, or a part of a file.

use std::io;
use std::path::{Path, PathBuf};

use shiplap_model::Scope;

use crate::Name;

/// Why the store did not do what it was asked. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such secret.
    #[error("{0} has no secret `{1}`")]
    NoSuchSecret(Scope, Name),
    /// The secret has no such version.
    #[error("the secret `{name}` of {scope} has no version {version}")]
    NoSuchVersion {
        /// Where.
        scope: Scope,
        /// Which.
        name: Name,
        /// What was asked for.
        version: u32,
    },
    /// The value is larger than what is kept.
    #[error("the value of `{name}` has {bytes} bytes; at most {most} are kept")]
    TooLarge {
        /// Which.
        name: Name,
        /// How large it is.
        bytes: usize,
        /// How large one may be.
        most: usize,
    },
    /// A project or an environment has a name that cannot be a folder's.
    #[error("`{0}` cannot be kept: letters, digits, `-`, `_` and `.`, not starting with a `.`")]
    BadScope(String),
    /// Somebody else was writing for too long.
    #[error("somebody else is changing secrets: `{}` is locked", .0.display())]
    Busy(PathBuf),
    /// A file is not what was written.
    #[error("`{}` {what}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// How.
        what: String,
    },
    /// The key is missing although there are values.
    #[error("the key `{}` is missing; put it back from a backup: without it nothing can be read", .0.display())]
    KeyMissing(PathBuf),
    /// Others can read the key.
    #[error("the key `{}` can be read by others (mode {mode:o}); make it 600", path.display())]
    KeyOpen {
        /// The key's file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The disk is full.
    #[error("no space is left to {doing} `{}`", path.display())]
    DiskFull {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("cannot {doing} `{}`: {source}", path.display())]
    Files {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The system gives no randomness.
    #[error("the system has no randomness: {0}")]
    NoRandomness(io::Error),
}

impl StoreError {
    pub(crate) fn damaged(path: &Path, what: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), what: what.into() }
    }

    /// For `map_err`: what was being done to which file.
    pub(crate) fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| {
            let path = path.to_owned();
            match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    Self::DiskFull { doing, path }
                }
                _ => Self::Files { doing, path, source },
            }
        }
    }
}
