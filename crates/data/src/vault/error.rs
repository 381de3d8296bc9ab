//! What can go wrong with files.

use std::fmt;

/// An error from the world, with what we were doing. A run that is repeated goes on where it was.
#[derive(Debug)]
pub struct Error {
    doing: String,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    Said(String),
    Io(rustix::io::Errno),
}

impl Error {
    /// Something that the system would not have told.
    pub fn said(doing: impl Into<String>, cause: impl Into<String>) -> Self {
        Self { doing: doing.into(), cause: Cause::Said(cause.into()) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::Said(cause) => write!(f, "{}: {cause}", self.doing),
            Cause::Io(errno) => write!(f, "{}: {}", self.doing, std::io::Error::from(*errno)),
        }
    }
}

impl std::error::Error for Error {}

/// What we were doing.
pub(super) trait Doing<T> {
    /// Puts it before the cause.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> Doing<T> for Result<T, rustix::io::Errno> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|errno| Error { doing: what(), cause: Cause::Io(errno) })
    }
}
