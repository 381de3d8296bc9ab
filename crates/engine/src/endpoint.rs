//! How the engine is reached.

use std::fmt;
use std::path::PathBuf;

use crate::link::Link;

/// An engine's address that was made reachable.
#[derive(Debug, Clone)]
pub enum Endpoint {
    /// A Unix socket of this machine.
    Unix(PathBuf),
    /// `host:port`, without TLS.
    Tcp(String),
    /// A socket of another machine.
    Ssh(Link),
}

impl Endpoint {
    /// Whether the engine is surely on this machine, so that what this machine says of processes
    /// and files is about what the engine runs.
    #[must_use]
    pub const fn is_here(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp(_) | Self::Ssh(_) => false,
        }
    }

    /// The link to the engine's machine, where it is on another one.
    #[must_use]
    pub const fn link(&self) -> Option<&Link> {
        match self {
            Self::Ssh(link) => Some(link),
            Self::Unix(_) | Self::Tcp(_) => None,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Ssh(link) => link.address().fmt(f),
        }
    }
}
