//! The journaled executor, and the use cases that every front end calls.
//!
//! The executor does what a plan says and decides nothing. The use cases in [`app`] load,
//! observe, plan, take the lease, execute and write history; the command line, the HTTP API and
//! the dashboard call the same functions.

pub mod app;
mod cancel;
mod clock;
mod executor;
mod holding;
mod meeting;
pub mod program;
mod reporter;
mod steady;

pub use cancel::Cancel;
pub use clock::now_ms;
pub use executor::{Execution, KeepFailed, Run, execute, probe_gates};
pub use holding::Holding;
pub use meeting::Meeting;
pub use reporter::{Event, Reporter, Silent};
pub use steady::{MOST_FAULTS, Steady};
