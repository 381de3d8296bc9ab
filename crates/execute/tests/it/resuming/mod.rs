//! The deployer dies anywhere, and what people type afterwards puts things in order.
//!
//! Every kind of change is stopped before and after each of its calls to the engine, the edge and
//! the ledger. By default a sample of these points is tried; `SHIPLAP_FAULTS=all` tries every one
//! (of pairs of points, every twelfth). The tests print how many that were.

mod commands;
mod crashes;
mod jobs;
mod ledgers;
mod second;
pub mod shop;
mod stuck;
