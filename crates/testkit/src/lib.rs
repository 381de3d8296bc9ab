//! Fakes of everything at the edges: an engine, an edge and a ledger, all in memory.
//!
//! A [`World`] is one machine. Its [`FakeEngine`] and [`FakeRouter`] work on the same state, so
//! the edge notices when a container that it routes to is stopped, and every such mistake is
//! written down in [`World::violations`]. Every call through any trait is counted and logged, and
//! trouble can be injected at each.

mod calls;
pub mod contract;
mod engine;
mod ledger;
mod postgres;
mod project;
mod queue;
mod router;
mod state;
mod world;

pub use calls::Trouble;
pub use engine::FakeEngine;
pub use ledger::MemoryLedger;
pub use postgres::Postgres;
pub use project::{ENVIRONMENT, PROJECT, desired, image_id, image_info, pin, source};
pub use router::FakeRouter;
pub use state::{Container, Holder, Script, State};
pub use world::World;
