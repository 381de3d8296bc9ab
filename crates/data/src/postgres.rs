//! PostgreSQL: reading from a source without changing it, and filling a new database.

mod array;
mod catalog;
mod copy;
mod dump;
mod error;
mod filling;
mod keys;
mod look;
mod search;
mod server;
mod source;
mod statement;
mod target;
mod tls;
mod transfer;
mod url;

pub use error::Error;
pub use filling::Filling;
pub use search::Leak;
pub use server::Server;
pub use source::{KEYS_AT_ONCE, Source};
pub use target::Target;
pub use transfer::{RowPlan, Transferred};
