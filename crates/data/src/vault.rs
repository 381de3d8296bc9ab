//! The files that belong to the rows of a sample: copied beneath one folder from beneath another,
//! and nothing that a link leads to.

mod copy;
mod error;
mod folder;
mod pace;
mod path;
mod prune;
mod run;

pub use error::Error;
pub use path::{Pattern, VaultPath};
pub use run::{FilesReport, Vault};
