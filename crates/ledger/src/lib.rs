//! The history of deployments, the journal and the leases, in SQLite.
//!
//! [`SqliteLedger`] keeps everything under one state directory:
//!
//! | file | holds |
//! |---|---|
//! | `ledger.db` (and `-wal`, `-shm` while it is open) | entries, sealed bindings, leases |
//! | `key` | 32 random bytes, under which bindings are sealed |
//!
//! Every fact about a deployment (begun, a journal line, ended) is one row of `entries`, chained
//! to the one before by its hash, and never changed. States are derived from the entries. The
//! last entry is additionally sealed with the key, so that cutting off the newest entries is
//! noticed too.
//!
//! Linux only: leases tell a living holder from a dead one by `/proc`.

mod chain;
mod failure;
mod history;
mod host;
mod key;
mod lease;
mod order;
mod payload;
mod queue;
mod schema;
mod store;
mod token;
mod writer;

pub use host::{Host, Presence, ProcessIdentity, SystemHost};
pub use store::SqliteLedger;
