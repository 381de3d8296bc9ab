//! The edge proxy of Shiplap.
//!
//! Two processes. The supervisor is small and privileged: it holds every listening socket,
//! starts the worker again when it dies, and looks up where containers are. The worker has no
//! privileges: it proxies HTTP and TCP to the replicas named in the [`Table`] and serves the admin
//! API, which [`Client`] speaks.
//!
//! Whoever deploys gives the edge the whole desired state as one [`Table`]; the edge swaps to it
//! at once or not at all.

pub mod api;
mod certificate;
mod channel;
pub mod client;
mod containers;
mod log;
mod password;
mod sockets;
pub mod supervisor;
pub mod table;
mod tickets;
pub mod worker;

pub use certificate::{Certificate, CertificateError};
pub use client::{Client, ClientError, Way};
pub use password::{PasswordError, hash_password};
pub use sockets::has_ipv6;
pub use table::{Hold, Listener, Policy, Pool, Protocol, Replica, Route, Table, Target};
