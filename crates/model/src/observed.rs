//! A snapshot of what is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::desired::FieldDigests;
use crate::{Fields, ImageInfo, RouterState};

/// What a target looks like, as far as one environment is concerned: the planner's right hand.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Containers of the project, in any state, one-off ones excluded, in order of name.
    pub containers: Vec<ObservedContainer>,
    /// Networks by engine name: the project's own, and those that it names as external.
    pub networks: BTreeMap<String, ObservedNetwork>,
    /// Volumes by engine name: the project's own, and those that it names as external.
    pub volumes: BTreeMap<String, ObservedVolume>,
    /// Images that the containers run, by id.
    pub images: BTreeMap<String, ImageInfo>,
    /// What the edge does, or nothing when there is none.
    pub router: Option<RouterState>,
    /// Host ports that containers of *other* projects publish through the engine, with the
    /// container's name.
    pub foreign_ports: BTreeMap<(Option<IpAddr>, u16, &'static str), String>,
    /// Names of all containers on the engine that are not of this project.
    pub foreign_names: BTreeSet<String>,
}

impl Observed {
    /// Ids of the containers, by name.
    #[must_use]
    pub fn ids(&self) -> BTreeMap<String, String> {
        self.containers.iter().map(|c| (c.name.clone(), c.id.clone())).collect()
    }
}

/// One container.
#[derive(Debug, Clone)]
pub struct ObservedContainer {
    /// The engine's id.
    pub id: String,
    /// Its name, without the leading slash.
    pub name: String,
    /// The Compose service.
    pub service: String,
    /// The replica's number, from 1.
    pub number: u32,
    /// Who carries the service's names.
    pub names: crate::Names,
    /// The deployment that made it; nothing when somebody else did.
    pub deployment: Option<u64>,
    /// What it is doing.
    pub state: ContainerState,
    /// What its health check says; nothing when it has none.
    pub health: Option<Health>,
    /// How often the engine restarted it by itself.
    pub restarts: u64,
    /// Id of its image.
    pub image_id: String,
    /// The name by which its image was asked for.
    pub image_reference: String,
    /// Digests of the fields that it was made from; nothing when somebody else made it.
    pub fields: Option<FieldDigests>,
    /// Its configuration in the engine's terms.
    pub facts: Fields,
    /// Networks by engine name, with its address there while it runs.
    pub networks: BTreeMap<String, Option<NetworkAddress>>,
    /// Names of the volumes that it mounts.
    pub volumes: BTreeSet<String>,
    /// Anonymous ones among them, mount point to volume name.
    pub anonymous_volumes: BTreeMap<String, String>,
    /// Host ports that the engine publishes for it.
    pub published: Vec<PublishedPort>,
    /// When it was created, milliseconds since 1970.
    pub created_ms: i64,
    /// When it was last started, milliseconds since 1970.
    pub started_ms: Option<i64>,
    /// Its first process, in the engine's own count, while it runs.
    pub pid: Option<u32>,
}

/// An address in a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkAddress {
    /// The address.
    pub address: IpAddr,
    /// Length of the network's prefix in bits.
    pub prefix_bits: u8,
}

impl NetworkAddress {
    /// The network in CIDR notation, such as `172.18.0.0/16`.
    #[must_use]
    pub fn subnet(&self) -> String {
        let bits = u32::from(self.prefix_bits);
        let network: IpAddr = match self.address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - bits.min(32)).unwrap_or(0);
                std::net::Ipv4Addr::from(u32::from(v4) & mask).into()
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - bits.min(128)).unwrap_or(0);
                std::net::Ipv6Addr::from(u128::from(v6) & mask).into()
            }
        };
        format!("{network}/{bits}")
    }
}

/// What a container is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerState {
    /// Made, never started.
    Created,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Between an exit and the engine's own restart.
    Restarting,
    /// Ended with this code.
    Exited(i64),
    /// Half removed.
    Dead,
}

impl ContainerState {
    /// Whether processes of the container exist and can run.
    #[must_use]
    pub const fn is_running(self) -> bool {
        matches!(self, Self::Running)
    }
}

/// What a health check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Not known yet.
    Starting,
    /// Passed.
    Healthy,
    /// Failed more often than `retries`.
    Unhealthy,
}

/// A port that the engine publishes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublishedPort {
    /// Address on the host; nothing for all.
    pub host_address: Option<IpAddr>,
    /// Port on the host; 0 for one that the engine chooses.
    pub host_port: u16,
    /// Port in the container.
    pub container_port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

/// One network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ObservedNetwork {
    /// The engine's id.
    pub id: String,
    /// Its subnets, in CIDR notation.
    pub subnets: Vec<String>,
    /// The project that it is labelled with.
    pub project: Option<String>,
    /// Names of the fields in which it differs from what the file asks for.
    pub driver: String,
    /// Whether it is cut off from the outside.
    pub internal: bool,
}

/// One volume.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ObservedVolume {
    /// The project that it is labelled with.
    pub project: Option<String>,
    /// Its driver.
    pub driver: String,
}

/// A listener of the edge that belongs to the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedListener {
    /// The address on the host.
    pub address: IpAddr,
    /// The port on the host.
    pub port: u16,
    /// The pool that answers.
    pub pool: crate::PoolKey,
}
