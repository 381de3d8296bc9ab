//! Where the edge listens, and what it puts up with there.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{ListenerTls, Policy, is_default};

/// One listening socket.
///
/// It leads to the routes of its `entry`, and for what none of them is about, to its `pool`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// `project/environment`: whose listener this is.
    pub owner: String,
    /// The full id of the container in whose network namespace to listen; none is the edge's own,
    /// which is the host's. Opened again when that container has restarted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// `0.0.0.0` is every IPv4 address, `::` is every IPv6 address (and only those).
    pub address: IpAddr,
    /// 0: take a free one. The answered table carries the one taken, and it is kept from then on.
    pub port: u16,
    /// The name of the pool that answers here. None: only routes lead on from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// The name by which routes refer to this listener, such as `http`. None: no route does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    /// TLS is taken off here. None: what comes is not encrypted.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tls: Option<ListenerTls>,
    /// Address blocks of proxies that speak the PROXY protocol (1 or 2) here: theirs must begin with it,
    /// and others' must not. Empty: nobody's.
    #[serde(default, skip_serializing_if = "is_default")]
    pub proxy_protocol: Vec<String>,
    /// What holds for requests that go to `pool`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub policy: Policy,
    /// What holds for connections.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: Limits,
}

impl Listener {
    /// A listener on an address of the edge's own that leads to a pool.
    pub fn new(owner: &str, address: IpAddr, port: u16, pool: &str) -> Listener {
        Listener {
            owner: owner.to_owned(),
            namespace: None,
            address,
            port,
            pool: Some(pool.to_owned()),
            entry: None,
            tls: None,
            proxy_protocol: Vec::new(),
            policy: Policy::default(),
            limits: Limits::default(),
        }
    }

    /// `address:port`, for messages; with the start of the namespace's id if there is one.
    pub fn place(&self) -> String {
        let place = std::net::SocketAddr::new(self.address, self.port);
        match &self.namespace {
            None => place.to_string(),
            Some(id) => format!("{place} in {}", id.get(..12).unwrap_or(id)),
        }
    }
}

/// What a client may ask of the edge itself, before it is known what its request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Of a request's head, in bytes; more is answered by 431. At most 65,536.
    pub head_bytes: u32,
    /// Headers of a request; more are answered by 431. At most 1,000.
    pub head_fields: u16,
    /// For TLS to be agreed on, and for a proxy to say whom it speaks for; then the connection is
    /// closed.
    pub handshake_timeout_ms: u64,
    /// From the first byte of a head to its last; then 408.
    pub head_timeout_ms: u64,
    /// Between two requests. Longer than what clients keep connections for (most 60 s), so that
    /// it is the client that closes.
    pub idle_timeout_ms: u64,
    /// For which a client that sends a body may be waited for in all; then 408. Every byte that
    /// comes adds to it, see `body_bytes_per_s`. Not for gRPC, whose streams may be silent.
    pub body_timeout_ms: u64,
    /// A client that sends at least so fast is never too slow.
    pub body_bytes_per_s: u32,
    /// For which a client may take nothing of what is written to it; then it is cut.
    pub send_timeout_ms: u64,
    /// Connections at once; what comes on top is closed.
    pub connections: u32,
    /// Connections at once from one address (of IPv6: one /64). Trusted proxies and callers
    /// inside networks are exempt: many clients come from their one address.
    pub connections_per_address: u32,
    /// Requests at once on one HTTP/2 connection.
    pub http2_streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            head_bytes: 64 << 10,
            head_fields: 100,
            handshake_timeout_ms: 10_000,
            head_timeout_ms: 30_000,
            idle_timeout_ms: 75_000,
            body_timeout_ms: 30_000,
            body_bytes_per_s: 250,
            send_timeout_ms: 60_000,
            connections: 50_000,
            connections_per_address: 2_000,
            http2_streams: 200,
        }
    }
}
