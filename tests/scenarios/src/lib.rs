//! What scenario tests and the benchmark stand on: an engine, images made of the demo's
//! application, a project of one's own with its own edge and history, load, and the removal of
//! all of it.

mod engine;
mod host;
mod images;
mod lab;
mod peer;
mod ports;
mod program;
pub mod registry;
mod traffic;
mod wait;

pub use engine::Engine;
pub use host::Host;
pub use images::Images;
pub use lab::Lab;
pub use peer::{Peer, peer};
pub use ports::Port;
pub use program::{Program, Run, Running, binary};
pub use registry::Registry;
pub use traffic::{Kind, Traffic, get, post};
pub use wait::{block_on, until};

/// Says why something is not done.
pub fn skip<T>(reason: &str) -> Option<T> {
    eprintln!("skipped: {reason}");
    None
}
