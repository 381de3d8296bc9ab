//! The trait behind which the edge stands.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;

use crate::{
    EntrySpec, Maintenance, MaintenanceChange, ObservedListener, RoutePolicy, RouteSpec, RouteTable,
};

/// Key of a pool: one container port of one service of one environment.
///
/// Prints as `shop/default/api:8000`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolKey {
    /// The project.
    pub project: String,
    /// The environment.
    pub environment: String,
    /// The service.
    pub service: String,
    /// The port in the container.
    pub port: u16,
}

impl PoolKey {
    /// `project/environment`, the name under which the edge keeps what belongs together.
    #[must_use]
    pub fn owner(&self) -> String {
        format!("{}/{}", self.project, self.environment)
    }

    /// Reads the printed form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (rest, port) = text.rsplit_once(':')?;
        let mut parts = rest.splitn(3, '/');
        Some(Self {
            project: parts.next()?.to_owned(),
            environment: parts.next()?.to_owned(),
            service: parts.next()?.to_owned(),
            port: port.parse().ok()?,
        })
    }
}

impl fmt::Display for PoolKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}:{}", self.project, self.environment, self.service, self.port)
    }
}

/// How a pool speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1: request by request.
    Http,
    /// HTTP/2 from the first byte on, without TLS: gRPC, for one.
    Http2,
    /// Anything else over TCP: connection by connection.
    Tcp,
}

impl Protocol {
    /// Ports that by convention do not speak HTTP: databases, brokers, mail, SSH. They are not
    /// asked with HTTP, which would fill their logs with complaints.
    const NOT_HTTP: &[u16] = &[
        21, 22, 23, 25, 53, 110, 143, 389, 465, 587, 636, 993, 995, 1433, 1521, 1883, 3306, 4222,
        5432, 5433, 5671, 5672, 6379, 6432, 8883, 9042, 9092, 11211, 27017,
    ];

    /// How a port probably speaks, before anybody could ask it.
    #[must_use]
    pub fn guess(port: u16) -> Self {
        if Self::NOT_HTTP.contains(&port) { Self::Tcp } else { Self::Http }
    }
}

/// A replica that a pool routes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutedReplica {
    /// The container's id.
    pub container_id: String,
    /// Its address.
    pub address: IpAddr,
    /// Subnet of the network that the address is in, in CIDR notation, by which the edge finds
    /// the right one again after a restart.
    pub subnet: Option<String>,
}

/// A pool as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSpec {
    /// Which one.
    pub key: PoolKey,
    /// How it speaks.
    pub protocol: Protocol,
    /// Whether requests are held.
    pub held: bool,
    /// Who answers.
    pub replicas: Vec<RoutedReplica>,
}

/// A listener as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListenerSpec {
    /// Address on the host; nothing for all, IPv4 and IPv6.
    pub address: Option<IpAddr>,
    /// Port on the host; 0 lets the edge choose, and keep.
    pub port: u16,
    /// The pool that answers.
    pub pool: PoolKey,
}

/// A change of one environment's part of the table. What it does not name stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteChange {
    /// Pools to make or replace.
    pub pools: Vec<PoolSpec>,
    /// Listeners to open; one that is open already stays open.
    pub listeners: Vec<ListenerSpec>,
    /// Listeners to open inside name holders. One that another service has already is left out:
    /// it was found by looking, and nobody declared it.
    pub names: Vec<NameListener>,
    /// Pools to remove.
    pub drop_pools: Vec<PoolKey>,
    /// Listeners to close.
    pub drop_listeners: Vec<ListenerSpec>,
    /// Entries to open, where nobody has opened them yet.
    pub entries: Vec<EntrySpec>,
    /// What holds at listeners on the host that this change opens.
    pub guard: RoutePolicy,
    /// The environment's routes, and what holds at all its listeners on the host, instead of what
    /// it had. Nothing: they stay.
    pub table: Option<RouteTable>,
    /// Whether the environment is in maintenance.
    pub maintenance: MaintenanceChange,
    /// The generation of the lease under which it is made; refused where a higher one has
    /// changed the table before.
    pub lease: Option<u64>,
}

/// A listener inside a name holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameListener {
    /// Name of the holder's container.
    pub holder: String,
    /// The pool that answers; the port is the pool's own.
    pub pool: PoolKey,
}

/// A name holder to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolderSpec {
    /// Its container's name.
    pub name: String,
    /// `project/environment`.
    pub owner: String,
    /// The services whose names it carries.
    pub services: Vec<String>,
    /// Names on each network, by the network's engine name.
    pub networks: BTreeMap<String, Vec<String>>,
}

/// A name holder as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolderStatus {
    /// What it was made as.
    pub spec: HolderSpec,
    /// Whether it runs.
    pub running: bool,
    /// Pools that are answered for inside it.
    pub pools: Vec<PoolKey>,
}

/// What the edge does for one environment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouterState {
    /// Version of the running edge.
    pub version: String,
    /// Generation of its table.
    pub generation: u64,
    /// The highest generation of a lease that has changed the environment's part of it.
    pub lease: u64,
    /// The environment's pools.
    pub pools: BTreeMap<PoolKey, PoolStatus>,
    /// The environment's listeners on the host.
    pub listeners: Vec<ObservedListener>,
    /// The environment's name holders, in order of name.
    pub holders: Vec<HolderStatus>,
    /// Host ports that *other* environments hold, with the owner.
    pub foreign_listeners: Vec<(IpAddr, u16, String)>,
    /// The environment's routes, and what holds at its listeners on the host.
    pub table: RouteTable,
    /// Routes of *other* environments, with the owner.
    pub foreign_routes: Vec<(RouteSpec, String)>,
    /// Names of entries that are open, whoever opened them.
    pub entries: BTreeSet<String>,
    /// What everybody gets instead of an answer, while the environment is in maintenance.
    pub maintenance: Option<Maintenance>,
}

/// A pool as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolStatus {
    /// How it speaks.
    pub protocol: Protocol,
    /// Whether requests are held.
    pub held: bool,
    /// Who answers, with requests in flight and streams.
    pub replicas: Vec<(RoutedReplica, u64, u64)>,
    /// Requests waiting.
    pub waiting: u64,
}

/// What a probe should do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeRequest {
    /// The container's own address.
    pub address: IpAddr,
    /// The container's port.
    pub port: u16,
    /// How to ask.
    pub kind: ProbeKind,
    /// Path of an HTTP request.
    pub path: String,
    /// How long to wait.
    pub timeout: Duration,
}

/// How a probe asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeKind {
    /// HTTP if it looks like HTTP, else TCP.
    Auto,
    /// An HTTP request.
    Http,
    /// The beginning of HTTP/2.
    Http2,
    /// A connection.
    Tcp,
}

/// What a probe saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeOutcome {
    /// Whether something accepted the connection and, where HTTP was spoken, answered.
    pub answered: bool,
    /// The status, where HTTP was spoken.
    pub http_status: Option<u16>,
    /// What is spoken there, if something answered.
    pub protocol: Option<Protocol>,
    /// What went wrong, in a word or two.
    pub error: Option<String>,
}

/// The edge, seen from a deployment.
#[async_trait]
pub trait Router: Send + Sync {
    /// Makes sure that an edge runs and answers. Safe to repeat.
    async fn ensure(&self) -> Result<(), RouterError>;

    /// Makes sure that a name holder runs, attached to its networks. Safe to repeat.
    async fn ensure_holder(&self, holder: &HolderSpec) -> Result<(), RouterError>;

    /// Removes a name holder. One that is gone is no error.
    async fn remove_holder(&self, name: &str) -> Result<(), RouterError>;

    /// TCP ports that something listens on inside a container, other than on its loopback.
    async fn listening_ports(&self, container_id: &str) -> Result<Vec<u16>, RouterError>;

    /// What it does for one environment; nothing when no edge runs.
    async fn state(&self, owner: &str) -> Result<Option<RouterState>, RouterError>;

    /// Changes one environment's part of the table in one swap, once all sockets are open and
    /// the table is on disk. Either all of it happens or nothing. Safe to repeat. Returns the
    /// generation of the table that holds it.
    async fn apply(&self, owner: &str, change: &RouteChange) -> Result<u64, RouterError>;

    /// Asks a replica on its own address.
    async fn probe(&self, request: &ProbeRequest) -> Result<ProbeOutcome, RouterError>;

    /// Waits until replicas that are not routed to any more, or for which requests are held, have
    /// nothing in flight, at most `limit`; returns what is still in flight.
    async fn drain(
        &self,
        pool: &PoolKey,
        container_ids: &[String],
        streams: OpenStreams,
        limit: Duration,
    ) -> Result<u64, RouterError>;
}

/// What becomes of the event streams and WebSockets of replicas that are drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OpenStreams {
    /// They end politely: the replica goes.
    #[default]
    End,
    /// They go on and are not waited for: the replica stays.
    Stay,
}

/// Why the edge did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RouterError {
    /// A host port could not be opened.
    #[error("host port {port} is taken: {reason}")]
    PortTaken {
        /// The port.
        port: u16,
        /// What the kernel said.
        reason: String,
    },
    /// No edge answers.
    #[error("the edge does not answer: {0}")]
    Unreachable(String),
    /// A deployer with a newer lease has changed the environment's routes; nothing was changed.
    #[error("another deployer has taken over: {0}")]
    LeaseLost(String),
    /// It answered with something else.
    #[error("the edge refused: {0}")]
    Refused(String),
    /// The engine could not start it.
    #[error("the edge could not be started")]
    Engine(#[from] crate::EngineError),
}
