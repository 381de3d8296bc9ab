//! What can answer.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::is_default;

/// The replicas of one port of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// `project/environment`: whose pool this is. Leave the pools of others as they are.
    pub owner: String,
    /// The Compose service.
    pub service: String,
    /// How to forward.
    pub protocol: Protocol,
    /// Hold what comes in, instead of forwarding it.
    #[serde(default)]
    pub paused: bool,
    /// The limits of holding.
    #[serde(default)]
    pub hold: Hold,
    /// What becomes of streams.
    #[serde(default, skip_serializing_if = "is_default")]
    pub streams: Streams,
    /// Those that answer. Empty: hold.
    #[serde(default)]
    pub replicas: Vec<Replica>,
}

impl Pool {
    /// A pool without a replica, and everything as usual.
    pub fn new(owner: &str, service: &str, protocol: Protocol) -> Pool {
        Pool {
            owner: owner.to_owned(),
            service: service.to_owned(),
            protocol,
            paused: false,
            hold: Hold::default(),
            streams: Streams::default(),
            replicas: Vec::new(),
        }
    }
}

/// How a pool is forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1: per request, with retries, `X-Forwarded-*` and upgrades.
    Http,
    /// The same over HTTP/2 without TLS, from its first byte on: gRPC, for one.
    H2c,
    /// Bytes, both ways, per connection.
    Tcp,
}

/// How many requests (TCP: new connections) wait for a replica, and how long, before they are
/// answered by 503 (TCP: closed).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hold {
    /// At most so many at once.
    pub max_requests: u32,
    /// Each at most so long.
    pub max_wait_ms: u64,
}

impl Default for Hold {
    fn default() -> Self {
        Hold { max_requests: 5000, max_wait_ms: 30_000 }
    }
}

/// What becomes of the streams of a replica that leaves: server-sent events and WebSockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Streams {
    /// So long they may live on. Then they are ended politely: events after one of them, by the
    /// last chunk; WebSockets between two frames, by Close 1012.
    pub limit_ms: u64,
}

impl Default for Streams {
    fn default() -> Self {
        Streams { limit_ms: 15_000 }
    }
}

/// One container (or anything else with an address) that answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// The full container id (64 hexadecimal digits): the edge then follows the container to
    /// another address after a restart, and does not send to an address that it has left. Any
    /// other text is allowed and means a fixed address.
    pub id: String,
    /// Where it answers now.
    pub address: IpAddr,
    /// On which port, inside its own network.
    pub port: u16,
    /// The subnet (`172.18.0.0/16`) of the engine network to reach it by. It chooses among several
    /// addresses when the container has moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
}
