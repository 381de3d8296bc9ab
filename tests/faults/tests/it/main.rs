//! Faults: whatever dies, fails or fills up in the middle, a deployment ends as the new release or
//! the old one, and nobody who asks goes without an answer.
//!
//! A run by itself takes a sample of each matrix; `SHIPLAP_FAULTS=all` takes everything. What is
//! seen is written down, and `fault-table` makes a table of it.

mod calls;
mod edge;
mod engine;
mod hands;
mod kill;
mod lease;
mod ledger;
mod projects;
mod scene;
mod shapes;
mod signals;
