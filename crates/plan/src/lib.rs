//! The planner: values in, a value out.
//!
//! No clock, no randomness, no I/O, no hash-map order: the same input gives the same bytes.

mod abandon;
mod assemble;
mod down;
mod fields;
mod naming;
mod notes;
mod orphans;
mod policy;
mod render;
mod routes;
mod service;
mod strategy;
mod table;
mod withdraw;

pub use abandon::abandon;
pub use assemble::plan;
pub use fields::fields_of;
pub use policy::{Policy, Selection, Standby, Undo};
pub use render::{render, render_steps, to_json};
pub use service::is_waited_for;
pub use withdraw::withdraw;
