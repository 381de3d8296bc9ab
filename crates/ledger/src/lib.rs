//! The history of deployments, the journal, the leases, the queue of orders and the tokens: in
//! SQLite for one machine, in PostgreSQL for several.
//!
//! [`open`] takes an [`Address`]. [`SqliteLedger`] keeps everything under one state directory:
//!
//! | file | holds |
//! |---|---|
//! | `ledger.db` (and `-wal`, `-shm` while it is open) | entries, sealed bindings, leases, orders, tokens |
//! | `key` | 32 random bytes, under which bindings are sealed |
//!
//! [`PostgresLedger`] keeps the same in the schema `shiplap` of a database; all that share it have
//! the same key.
//!
//! Every fact about a deployment (begun, a journal line, ended) is one row of `entries`, chained
//! to the one before by its hash, and never changed. States are derived from the entries. The
//! last entry is additionally sealed with the key, so that cutting off the newest entries is
//! noticed too. What an entry is, what may follow, and which order is next does not depend on the
//! database: only the modules of each database know how it is asked.
//!
//! Linux only: leases tell a living holder from a dead one by `/proc`.

mod address;
mod chain;
mod failure;
mod history;
mod host;
mod key;
mod payload;
mod postgres;
mod queue;
mod sqlite;

pub use address::{Address, open};
pub use host::{Host, Presence, ProcessIdentity, SystemHost};
pub use postgres::{PostgresLedger, Server};
pub use sqlite::SqliteLedger;
