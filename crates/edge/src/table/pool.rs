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
    /// Which replicas are asked whether they are well, and how.
    #[serde(default, skip_serializing_if = "is_default")]
    pub probe: Option<Probe>,
    /// When a replica is left alone for a while for what it answers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub eject: Eject,
    /// A replica that is new beside others gets its full part after this time, and little at first.
    #[serde(default = "slow_start", skip_serializing_if = "is_slow_start")]
    pub slow_start_ms: u64,
    /// Who gets to the replicas of the group [`Group::Canary`]. None: there is one group.
    #[serde(default, skip_serializing_if = "is_default")]
    pub canary: Option<Canary>,
    /// Those that answer. Empty: hold.
    #[serde(default)]
    pub replicas: Vec<Replica>,
}

fn slow_start() -> u64 {
    5000
}

fn is_slow_start(given: &u64) -> bool {
    *given == slow_start()
}

/// Asking replicas whether they are well. Two answers in a row make one well, three that fail in a
/// row unwell; while no replica is well, all that can be reached are asked as before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Probe {
    /// What to GET; any status below 500 is well. Of TCP and HTTP/2, whether it begins to speak.
    pub path: String,
    /// From one to the next.
    pub interval_ms: u64,
    /// For one.
    pub timeout_ms: u64,
}

impl Default for Probe {
    fn default() -> Self {
        Probe { path: "/".to_owned(), interval_ms: 2000, timeout_ms: 1000 }
    }
}

/// When a replica is left alone. Never the only one, and never more than half of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Eject {
    /// After so many requests in a row that it did not answer, or by 5xx. 0: never.
    pub failures: u32,
    /// For so long.
    pub for_ms: u64,
}

impl Default for Eject {
    fn default() -> Self {
        Eject { failures: 10, for_ms: 5000 }
    }
}

/// Who gets to the canary's replicas.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Canary {
    /// So many of a thousand, of those that nothing else is said about.
    pub permille: u16,
    /// Whoever sends this header with this value.
    #[serde(skip_serializing_if = "is_default")]
    pub header: Option<HeaderMatch>,
    /// Whoever sends this cookie gets to the group that it names, `canary` or `stable`. Others are
    /// given it, so that they stay in theirs.
    #[serde(skip_serializing_if = "is_default")]
    pub cookie: Option<String>,
}

/// A header and its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderMatch {
    /// Its name.
    pub name: String,
    /// Its whole value.
    pub value: String,
}

/// Which of two releases a replica is of, while there are two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// The one that everybody gets.
    #[default]
    Stable,
    /// The one that is tried.
    Canary,
}

impl Group {
    /// As in the table.
    pub fn name(self) -> &'static str {
        match self {
            Group::Stable => "stable",
            Group::Canary => "canary",
        }
    }
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
            probe: None,
            eject: Eject::default(),
            slow_start_ms: slow_start(),
            canary: None,
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
    /// Which release it is of, where the pool has a canary.
    #[serde(default, skip_serializing_if = "is_default")]
    pub group: Group,
}

impl Replica {
    /// One that answers there, and is in no network of an engine's.
    pub fn new(id: &str, address: IpAddr, port: u16) -> Replica {
        Replica { id: id.to_owned(), address, port, network: None, group: Group::Stable }
    }
}
