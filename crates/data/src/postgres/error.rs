//! What can go wrong between us and a server.

use std::fmt;

/// An error from the world, with what we were doing.
#[derive(Debug)]
pub struct Error {
    doing: String,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    Said(String),
    Database(tokio_postgres::Error),
    Io(std::io::Error),
}

/// What we were doing, and where.
pub(crate) trait Doing<T> {
    /// Puts it before the cause.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> Doing<T> for Result<T, tokio_postgres::Error> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|cause| Error { doing: what(), cause: Cause::Database(cause) })
    }
}

impl<T> Doing<T> for Result<T, std::io::Error> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|cause| Error { doing: what(), cause: Cause::Io(cause) })
    }
}

impl Error {
    /// Something that the servers would not have told.
    pub fn said(doing: impl Into<String>, cause: impl Into<String>) -> Self {
        Self { doing: doing.into(), cause: Cause::Said(cause.into()) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.doing)?;
        match &self.cause {
            Cause::Said(text) => f.write_str(text),
            Cause::Io(error) => error.fmt(f),
            Cause::Database(error) => match error.as_db_error() {
                // What a statement holds, or a row, may be personal: only the message is shown.
                Some(said) => write!(f, "{} ({})", said.message(), said.code().code()),
                None => {
                    error.fmt(f)?;
                    let mut source = std::error::Error::source(error);
                    while let Some(cause) = source {
                        write!(f, ": {cause}")?;
                        source = cause.source();
                    }
                    Ok(())
                }
            },
        }
    }
}

impl std::error::Error for Error {}
