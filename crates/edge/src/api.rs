//! The messages of the admin API, other than the [`Table`](crate::Table).
//!
//! HTTP/1.1 over a Unix socket, JSON both ways:
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | [`Status`] |
//! | `GET /v1/table` | the [`Table`](crate::Table), generation also as `ETag` |
//! | `PUT /v1/table` with `If-Match: <generation>` | the table as accepted, or 409 / 412 / 422 and [`Failure`] |
//! | `POST /v1/certificates`, chain and key as PEM | [`StoredCertificate`] |
//! | `POST /v1/probe` [`ProbeRequest`] | [`Probe`] |
//! | `POST /v1/drain` [`DrainRequest`] | [`Drain`] |
//! | `POST /v1/ports` [`PortsRequest`] | [`Ports`] |
//! | `GET /metrics` | counters, as Prometheus reads them |
//!
//! Every failure has a 4xx or 5xx status and a [`Failure`] as its body.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::certificate::{Certificate, seconds};
use crate::table::{Group, Listener, Shown};

/// How the edge is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The version of this message; 1.
    pub schema: u32,
    /// The version of the worker's program.
    pub version: String,
    /// The build the worker was told it is, to see whether an upgrade has arrived.
    pub build: String,
    /// The supervisor's process id.
    pub supervisor_pid: u32,
    /// The worker's process id.
    pub worker_pid: u32,
    /// How often the supervisor has started the worker again.
    pub worker_restarts: u64,
    /// The generation of the table in force.
    pub generation: u64,
    /// Since the worker started.
    pub uptime_ms: u64,
    /// Since the supervisor started.
    pub supervisor_uptime_ms: u64,
    /// Being stopped: answers `Connection: close`.
    pub stopping: bool,
    /// Whether its machine has IPv6, so that "all addresses" means both. An older edge does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub has_ipv6: Option<bool>,
    /// What an operator should look at, such as a table on disk that could not be read.
    pub problems: Vec<String>,
    /// Every listener of the table.
    pub listeners: Vec<ListenerStatus>,
    /// Every certificate of the table.
    #[serde(default)]
    pub certificates: Vec<CertificateStatus>,
    /// Every pool of the table.
    pub pools: BTreeMap<String, PoolStatus>,
    /// Replicas that left the table and still have requests or streams.
    pub draining: Vec<DrainingStatus>,
}

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// As in the table.
    pub listener: Listener,
    /// Whether the socket is open.
    pub bound: bool,
    /// Why not. It is tried again on and on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// As in the table.
    #[serde(flatten)]
    pub shown: Shown,
    /// From when on it is valid, in seconds since 1970; none if it cannot be used, for which see
    /// the problems.
    pub not_before_s: Option<u64>,
    /// Until when it is valid, likewise.
    pub not_after_s: Option<u64>,
}

/// A certificate that the edge now has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredCertificate {
    /// For the table.
    pub id: String,
    /// The names that it is for.
    pub names: Vec<String>,
    /// From when on it is valid, in seconds since 1970.
    pub not_before_s: u64,
    /// Until when it is valid, in seconds since 1970.
    pub not_after_s: u64,
}

impl From<&Certificate> for StoredCertificate {
    fn from(certificate: &Certificate) -> StoredCertificate {
        StoredCertificate {
            id: certificate.id().to_owned(),
            names: certificate.names().to_vec(),
            not_before_s: seconds(certificate.not_before()),
            not_after_s: seconds(certificate.not_after()),
        }
    }
}

/// One pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// As in the table.
    pub paused: bool,
    /// Requests (TCP: connections) waiting for a replica.
    pub held: u64,
    /// Requests answered by 503 (TCP: closed) since the start, because holding had reached a limit.
    pub hold_rejected: u64,
    /// Since the start, requests that were sent again after something had gone wrong.
    #[serde(default)]
    pub retried: u64,
    /// What its replicas have answered since the start, by the group that they are of.
    #[serde(default)]
    pub groups: BTreeMap<Group, GroupStatus>,
    /// Its replicas.
    pub replicas: Vec<ReplicaStatus>,
}

/// What one group of a pool's replicas has answered since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GroupStatus {
    /// Answered in full, or broken off.
    pub requests: u64,
    /// Of these: 5xx, or not answered.
    pub errors: u64,
    /// From the first byte in to the last byte out, all together.
    pub duration_ms: u64,
}

/// One replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// As in the table.
    pub id: String,
    /// Where it is now; may differ from the table after a restart.
    pub address: IpAddr,
    /// As in the table.
    pub port: u16,
    /// Whether requests are sent to it at the moment.
    pub up: bool,
    /// Whether its probes, if it has any, and its answers are such that it gets its part.
    #[serde(default = "yes")]
    pub well: bool,
    /// Requests that have been given to it and are not answered in full.
    pub in_flight: u64,
    /// All that is open besides: event streams, WebSockets, other upgraded connections, TCP.
    pub streams: u64,
    /// Of these: `text/event-stream`.
    #[serde(default)]
    pub event_streams: u64,
    /// Of these: WebSockets.
    #[serde(default)]
    pub web_sockets: u64,
    /// Requests and connections given to it since the worker started.
    pub total: u64,
    /// The last thing that went wrong with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

fn yes() -> bool {
    true
}

/// A replica that is no longer routed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainingStatus {
    /// The pool it was in.
    pub pool: String,
    /// Its numbers.
    pub replica: ReplicaStatus,
}

/// Asks whether, and what, something answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeRequest {
    /// Where, seen from the edge.
    pub address: IpAddr,
    /// On which port.
    pub port: u16,
    /// What to look for.
    pub kind: ProbeKind,
    /// What to GET.
    #[serde(default = "root")]
    pub path: String,
    /// For all of it.
    pub timeout_ms: u64,
}

fn root() -> String {
    "/".to_owned()
}

/// What a probe looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProbeKind {
    /// Finds out: TCP if the port is well known for something else than HTTP or the server speaks
    /// first, otherwise one GET tells, and where it does not, the preface of HTTP/2.
    Auto,
    /// Connect and GET.
    Http,
    /// Connect and begin HTTP/2.
    H2c,
    /// Connect.
    Tcp,
}

/// What a probe saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// The port accepted.
    pub connected: bool,
    /// The status of the answer, if there was an HTTP one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// The answer was HTTP/1.
    pub is_http: bool,
    /// It was HTTP/2, without TLS.
    #[serde(default)]
    pub is_http2: bool,
    /// What went wrong. An `auto` probe that connected and found no HTTP has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ProbeError>,
    /// How long it took.
    pub duration_ms: u64,
}

/// Why a probe failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeError {
    /// Nothing listens there.
    Refused,
    /// No answer in time.
    Timeout,
    /// No way there.
    Unreachable,
    /// Accepted, then cut.
    Reset,
    /// Accepted and closed without a byte (HTTP probes).
    Closed,
    /// Answered, but not by HTTP (HTTP probes).
    NotHttp,
    /// The edge could not try: out of sockets, or the like.
    Local,
}

/// Waits until replicas have nothing in flight, and have said goodbye to their event streams and
/// WebSockets: those of replicas that have left the table end when their time is over (see
/// [`Streams`](crate::table::Streams)), at the latest with the drain; those of a paused pool at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainRequest {
    /// The pool that they are or were in.
    pub pool: String,
    /// Their ids. They should be out of the table, or the pool paused: what is still routed may
    /// never come to 0.
    pub replicas: Vec<String>,
    /// Their streams go on and are not waited for: the replicas are not to leave.
    #[serde(default)]
    pub streams_stay: bool,
    /// Answer after so long in any case.
    pub timeout_ms: u64,
}

/// How a drain ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Nothing is in flight. Streams do not count.
    pub drained: bool,
    /// Requests still in flight.
    pub in_flight: u64,
    /// Streams still open. TCP connections, and upgraded ones that are not WebSockets, end when
    /// the replica does: only their two ends could end them politely.
    pub streams: u64,
}

/// Asks which ports a container listens on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortsRequest {
    /// The full container id.
    pub container: String,
}

/// The listening TCP ports of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// By port, then address.
    pub ports: Vec<ListeningPort>,
}

/// One listening socket inside a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ListeningPort {
    /// The port.
    pub port: u16,
    /// The address it is bound to: a loopback one cannot be reached from outside.
    pub address: IpAddr,
}

/// The body of every failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What and why, for people.
    pub error: String,
    /// With 409: the generation in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<u64>,
    /// With 412: the generation of the lease under which another deployer has changed the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<u64>,
    /// With 422: the listeners that could not be opened.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unbindable: Vec<Unbindable>,
}

/// A listener that could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unbindable {
    /// As in the table that was put.
    pub listener: Listener,
    /// The kind of reason.
    pub reason: BindError,
    /// The reason in full.
    pub detail: String,
}

/// Why a listener could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BindError {
    /// Another process has it.
    AddressInUse,
    /// Not allowed, such as a port below 1024.
    Permission,
    /// The machine (or namespace) does not have that address.
    AddressNotAvailable,
    /// The container of the namespace does not run, or cannot be seen.
    NoNamespace,
    /// Anything else; the detail tells.
    Failed,
}

impl std::fmt::Display for BindError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            BindError::AddressInUse => "address in use",
            BindError::Permission => "permission denied",
            BindError::AddressNotAvailable => "address not available",
            BindError::NoNamespace => "the namespace's container does not run",
            BindError::Failed => "failed",
        })
    }
}
