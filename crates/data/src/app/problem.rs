//! Why nothing was changed.

use crate::diagnostic::Diagnostic;
use crate::mask::Unclassified;
use crate::postgres::Error;
use crate::vault;

/// Why a use case ended without its result. The target answers as before.
#[derive(Debug)]
pub enum Problem {
    /// The configuration does not fit the schema.
    Configuration(Vec<Diagnostic>),
    /// Columns look personal or secret, and no rule says what becomes of them.
    Unclassified {
        /// These; those that the database computes from others need none.
        columns: Vec<Unclassified>,
        /// What to paste into the configuration.
        block: String,
    },
    /// The schema is not what it was when somebody looked at it.
    Changed {
        /// Tables that are new, or have other columns.
        tables: Vec<String>,
        /// What to paste into the configuration, after a look.
        block: String,
    },
    /// The plan passes what the configuration allows.
    Limits(Vec<String>),
    /// Columns that were kept hold values that were masked elsewhere: these, in so many rows.
    Leaks(Vec<(String, u64)>),
    /// Files could not be copied.
    Files(vault::Error),
    /// The world.
    World(Error),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::World(error)
    }
}

impl From<vault::Error> for Problem {
    fn from(error: vault::Error) -> Self {
        Self::Files(error)
    }
}
