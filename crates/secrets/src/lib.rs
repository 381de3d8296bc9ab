//! Secrets of environments: encrypted, versioned, never overwritten.
//!
//! [`Store`] keeps the values of each environment in files that the `age` program can read as
//! well; [`magic`] says which values a file made for Coolify expects to be generated, and
//! [`random`] makes them.

mod error;
mod files;
mod index;
mod key;
pub mod magic;
mod name;
pub mod random;
mod store;

pub use error::StoreError;
pub use index::Origin;
pub use name::{BadName, Name};
pub use store::{Entry, LARGEST_VALUE, Store, Stored, Version, Written};
