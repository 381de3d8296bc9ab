//! The planner: values in, a value out.
//!
//! No clock, no randomness, no I/O, no hash-map order: the same input gives the same bytes.

mod assemble;
mod down;
mod fields;
mod naming;
mod notes;
mod policy;
mod render;
mod routes;
mod service;
mod strategy;

pub use assemble::plan;
pub use fields::fields_of;
pub use policy::{Policy, Selection, Standby};
pub use render::{render, render_steps, to_json};
