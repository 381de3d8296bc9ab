//! The Docker Engine, over its HTTP API.
//!
//! [`DockerEngine`] implements [`shiplap_model::Engine`]. It speaks to Docker 20.10 and newer.

mod address;
mod archive;
mod build;
mod client;
mod containers;
mod context;
mod create;
mod daemon;
mod describe;
mod endpoint;
mod engine;
mod error;
mod facts;
mod ignore;
mod images;
mod inspect;
mod link;
mod listening;
mod marks;
mod observe;
mod ping;
mod push;
mod registry;
mod resources;
mod send;
mod streams;
mod summary;
mod supply;

pub use address::{Address, SshAddress};
pub use archive::SavedImage;
pub use endpoint::Endpoint;
pub use engine::DockerEngine;
pub use error::from_bollard;
pub use link::{Link, LinkOptions};
pub use push::Pushed;
pub use send::Sent;
pub use streams::{LogChunk, LogOptions, Terminal, TerminalExec};
pub use summary::Summary;
pub use supply::Supply;
