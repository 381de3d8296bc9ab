//! Scenarios: the real binary on a real engine, one obligation each.
//!
//! Each has a project, ports, a history and an edge of its own, so they run side by side, and
//! each removes what it made. Without an engine they say so and pass.

mod adoption;
mod bad_input;
mod basics;
mod crashes;
mod edge;
mod environments;
mod failures;
mod features;
mod fencing;
mod groups;
mod housekeeping;
mod images;
mod isolation;
mod projects;
mod promote;
mod remote;
mod resume;
mod rollback;
mod secrets;
mod serve;
mod shared;
mod store;
mod two;
mod updates;
