//! Whether environments on one engine are separate.
//!
//! An environment is a Compose project here. [`check`] takes what was seen of each, a
//! [`Snapshot`], and says what they share: networks, volumes, paths, secret values, host ports,
//! namespaces, and variables that point at the other. It is pure. What can be told only by trying
//! is in two halves: [`reach::questions`] and [`reach::judge`] are pure, and [`probe::run`] does
//! the trying from inside of a container's network namespace.
//!
//! Nothing in here knows an engine; the containers come as the JSON with which one describes them.

mod check;
mod container;
mod control;
mod finding;
mod mounts;
mod namespaces;
mod networks;
mod place;
mod pointing;
mod ports;
pub mod probe;
pub mod reach;
mod secrets;
mod seen;
mod url;

pub use check::{Report, check};
pub use container::{
    Attachment, Backing, Container, HostPort, Join, Listening, Mount, MountKind, NetworkMode, Role,
    SecretFile, State, Transport, Variable,
};
pub use finding::{Code, Finding, Party, Severity, Tried, Untested};
pub use place::Place;
pub use secrets::files_to_read;
pub use seen::{Instance, Snapshot};
