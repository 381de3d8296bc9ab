//! A container, as far as it matters to its neighbours.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;
use shiplap_model::{COMPOSE_SERVICE, ROLE, Secret};

use crate::place::Place;

/// What a container is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It runs what is in the Compose files.
    Service,
    /// It is idle and carries names; the edge answers there.
    NameHolder,
}

/// Whether something in it can act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It runs.
    Running,
    /// It is frozen.
    Frozen,
    /// It does not run; it may be started again.
    Stopped,
}

/// Whose network namespace it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkMode {
    /// Its own.
    Own,
    /// Its own, with nothing in it.
    Nothing,
    /// The machine's.
    Host,
    /// Another container's, by id or name.
    Container(String),
}

/// Whose namespace of another kind it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Join {
    /// Its own.
    Own,
    /// The machine's.
    Host,
    /// Another container's, by id or name.
    Container(String),
}

/// A place on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The network's name.
    pub network: String,
    /// Its id; empty before the container was started.
    pub network_id: String,
    /// The container's addresses there; none while it does not run.
    pub addresses: Vec<IpAddr>,
    /// The machine's addresses there.
    pub gateways: Vec<IpAddr>,
    /// Names that it has there, besides the container's.
    pub aliases: Vec<String>,
    /// Containers that it is linked to, by name.
    pub links: Vec<String>,
}

impl Attachment {
    /// Whether both are on one network.
    #[must_use]
    pub fn is_with(&self, other: &Self) -> bool {
        // Two networks may have one name. One that the container never was on has no id yet.
        if self.network_id.is_empty() || other.network_id.is_empty() {
            return self.network == other.network;
        }
        self.network_id == other.network_id
    }
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// A volume, by its name.
    Volume(String),
    /// A path of the machine.
    Bind,
}

/// What a volume stands on, besides the engine's own folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backing {
    /// A path of the machine.
    Place(Place),
    /// Something elsewhere, such as `nfs:10.0.0.5:/export`.
    Remote(String),
}

/// A volume or a path of the machine in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// What.
    pub kind: MountKind,
    /// Where in the container.
    pub target: String,
    /// Whether it can be written to.
    pub writable: bool,
    /// Where on the machine.
    pub place: Option<Place>,
    /// What a volume stands on.
    pub backing: Option<Backing>,
}

/// A port of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// On this address; on all where there is none.
    pub address: Option<IpAddr>,
    /// The number.
    pub port: u16,
    /// What is spoken there.
    pub protocol: Transport,
}

/// How a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl std::fmt::Display for HostPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.address {
            Some(address @ IpAddr::V6(_)) => write!(f, "[{address}]:{}", self.port)?,
            Some(address) => write!(f, "{address}:{}", self.port)?,
            None => write!(f, "port {}", self.port)?,
        }
        f.write_str(match self.protocol {
            Transport::Tcp => "",
            Transport::Udp => "/udp",
            Transport::Sctp => "/sctp",
        })
    }
}

/// A variable that is not the image's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Secret<String>,
}

/// A file in a container that may hold a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFile {
    /// Where in the container.
    pub path: String,
    /// What it holds.
    pub content: Secret<Vec<u8>>,
}

/// On which TCP ports something listens for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listening {
    /// As the kernel says.
    On(BTreeSet<u16>),
    /// The kernel could not be asked: what the image and the Compose file declare.
    Declared(BTreeSet<u16>),
}

/// A container.
#[derive(Debug, Clone)]
pub struct Container {
    /// The engine's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The service that it runs; its own name where it has none.
    pub service: String,
    /// What it is for.
    pub role: Role,
    /// Whether something in it can act.
    pub state: State,
    /// Its first process on the engine's machine.
    pub pid: Option<u32>,
    /// What it thinks it is called.
    pub hostname: String,
    /// Whose network namespace it has.
    pub network_mode: NetworkMode,
    /// Whose processes it sees.
    pub processes: Join,
    /// Whose shared memory it has.
    pub shared_memory: Join,
    /// Its places on networks.
    pub attachments: Vec<Attachment>,
    /// Containers that it is linked to, by name.
    pub links: Vec<String>,
    /// Containers of which it takes the volumes, by id or name.
    pub volumes_from: Vec<String>,
    /// Names that it has of addresses, besides the networks'.
    pub extra_hosts: Vec<(String, String)>,
    /// Volumes and paths.
    pub mounts: Vec<Mount>,
    /// Devices of the machine, and whether it can write to each.
    pub devices: Vec<(String, bool)>,
    /// Whether it has every right.
    pub privileged: bool,
    /// Rights that it has been given, without `CAP_`.
    pub capabilities: Vec<String>,
    /// Where it is in the machine's tree of budgets; empty for the engine's default.
    pub cgroup_parent: String,
    /// Ports of the machine that it has or wants.
    pub host_ports: Vec<HostPort>,
    /// Its variables, without those that are the image's.
    pub variables: Vec<Variable>,
    /// Its command, word by word, without the image's.
    pub words: Vec<Secret<String>>,
    /// What was read of the files in it that may hold secrets.
    pub files: Vec<SecretFile>,
    /// Where something listens.
    pub listening: Listening,
}

impl Container {
    /// From the engine's description of a container, and of its image's configuration. Files,
    /// places and listening sockets are not part of it: they are filled in afterwards.
    #[must_use]
    pub fn read(inspect: &Value, image: &Value) -> Self {
        let (config, host) = (&inspect["Config"], &inspect["HostConfig"]);
        let name = text(&inspect["Name"]).trim_start_matches('/').to_owned();
        let labels = &config["Labels"];
        let is_holder = labels[ROLE] == "names";
        let service = labels[COMPOSE_SERVICE].as_str().unwrap_or(&name).to_owned();
        let state = &inspect["State"];
        let of_image: BTreeSet<&str> = strings(&image["Env"]).collect();
        let id = text(&inspect["Id"]);
        Self {
            service: if is_holder { "the names of services".to_owned() } else { service },
            role: if is_holder { Role::NameHolder } else { Role::Service },
            state: match (state["Running"] == true, state["Paused"] == true) {
                (true, false) => State::Running,
                (true, true) => State::Frozen,
                (false, _) => State::Stopped,
            },
            pid: state["Pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).filter(|p| *p != 0),
            hostname: text(&config["Hostname"]),
            network_mode: network_mode(host["NetworkMode"].as_str().unwrap_or_default()),
            processes: join(host["PidMode"].as_str().unwrap_or_default()),
            shared_memory: join(host["IpcMode"].as_str().unwrap_or_default()),
            attachments: attachments(&inspect["NetworkSettings"]["Networks"], &id),
            links: strings(&host["Links"]).map(before_colon).collect(),
            volumes_from: strings(&host["VolumesFrom"]).map(before_colon).collect(),
            extra_hosts: strings(&host["ExtraHosts"])
                .filter_map(|pair| pair.split_once([':', '=']))
                .map(|(name, address)| (name.to_owned(), address.to_owned()))
                .collect(),
            mounts: mounts(&inspect["Mounts"]),
            devices: devices(&host["Devices"]),
            privileged: host["Privileged"] == true,
            capabilities: strings(&host["CapAdd"])
                .map(|name| name.trim_start_matches("CAP_").to_ascii_uppercase())
                .collect(),
            cgroup_parent: text(&host["CgroupParent"]),
            host_ports: host_ports(host, &inspect["NetworkSettings"]["Ports"]),
            variables: strings(&config["Env"])
                .filter(|pair| !of_image.contains(pair))
                .filter_map(|pair| pair.split_once('='))
                .map(|(name, value)| Variable {
                    name: name.to_owned(),
                    value: Secret::new(value.to_owned()),
                })
                .collect(),
            words: ["Entrypoint", "Cmd"]
                .into_iter()
                .filter(|key| config[*key] != image[*key])
                .flat_map(|key| strings(&config[key]))
                .map(|word| Secret::new(word.to_owned()))
                .collect(),
            files: Vec::new(),
            listening: Listening::Declared(declared(config, host)),
            id,
            name,
        }
    }

    /// TCP ports on which it may be called.
    pub(crate) fn ports(&self) -> &BTreeSet<u16> {
        match &self.listening {
            Listening::On(ports) | Listening::Declared(ports) => ports,
        }
    }

    /// Whether an id or a name means it.
    pub(crate) fn is(&self, container: &str) -> bool {
        self.name == container || (container.len() >= 12 && self.id.starts_with(container))
    }

    /// Whether somebody else chose its hostname: the engine's own is the id.
    pub(crate) fn chosen_hostname(&self) -> Option<&str> {
        let is_id = self.hostname.len() == 12 && self.id.starts_with(&self.hostname);
        (!is_id && !self.hostname.is_empty()).then_some(&self.hostname)
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn strings(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// `/db:/web/db` and `db:ro` name the container first.
fn before_colon(text: &str) -> String {
    text.split(':').next().unwrap_or(text).trim_start_matches('/').to_owned()
}

fn network_mode(mode: &str) -> NetworkMode {
    match (mode, mode.strip_prefix("container:")) {
        (_, Some(container)) => NetworkMode::Container(container.to_owned()),
        ("host", _) => NetworkMode::Host,
        ("none", _) => NetworkMode::Nothing,
        _ => NetworkMode::Own,
    }
}

fn join(mode: &str) -> Join {
    match (mode, mode.strip_prefix("container:")) {
        (_, Some(container)) => Join::Container(container.to_owned()),
        ("host", _) => Join::Host,
        _ => Join::Own,
    }
}

fn attachments(networks: &Value, id: &str) -> Vec<Attachment> {
    let networks = networks.as_object().into_iter().flatten();
    // `none` and `host` stand here as networks, too.
    let networks = networks.filter(|(name, _)| !matches!(name.as_str(), "none" | "host"));
    networks
        .map(|(network, endpoint)| {
            let addresses = |keys: [&str; 2]| -> Vec<IpAddr> {
                keys.iter().filter_map(|key| endpoint[*key].as_str()?.parse().ok()).collect()
            };
            // The engine adds the short id by itself.
            let is_short_id = |alias: &str| alias.len() == 12 && id.starts_with(alias);
            let names = ["Aliases", "DNSNames"].into_iter().flat_map(|key| strings(&endpoint[key]));
            let aliases: BTreeSet<String> =
                names.filter(|alias| !is_short_id(alias)).map(str::to_owned).collect();
            Attachment {
                network: network.clone(),
                network_id: text(&endpoint["NetworkID"]),
                addresses: addresses(["IPAddress", "GlobalIPv6Address"]),
                gateways: addresses(["Gateway", "IPv6Gateway"]),
                aliases: aliases.into_iter().collect(),
                links: strings(&endpoint["Links"]).map(before_colon).collect(),
            }
        })
        .collect()
}

fn mounts(list: &Value) -> Vec<Mount> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(|mount| {
        let kind = match mount["Type"].as_str()? {
            "volume" => MountKind::Volume(text(&mount["Name"])),
            "bind" => MountKind::Bind,
            _ => return None,
        };
        let source = mount["Source"].as_str().filter(|source| source.starts_with('/'));
        Some(Mount {
            kind,
            target: text(&mount["Destination"]),
            writable: mount["RW"] == true,
            place: source.map(Place::at),
            backing: None,
        })
    })
    .collect()
}

fn devices(list: &Value) -> Vec<(String, bool)> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(|device| {
        let rights = device["CgroupPermissions"].as_str().unwrap_or("rwm");
        Some((device["PathOnHost"].as_str()?.to_owned(), rights.contains('w')))
    })
    .collect()
}

/// What it has now, and what it wants when it is started.
fn host_ports(host: &Value, ports: &Value) -> Vec<HostPort> {
    let mut found = BTreeSet::new();
    for all in [&host["PortBindings"], ports] {
        for (key, bindings) in all.as_object().into_iter().flatten() {
            let protocol = match key.split_once('/').map(|(_, protocol)| protocol) {
                Some("udp") => Transport::Udp,
                Some("sctp") => Transport::Sctp,
                _ => Transport::Tcp,
            };
            for binding in bindings.as_array().into_iter().flatten() {
                let port = binding["HostPort"].as_str().and_then(|port| port.parse().ok());
                // 0: any free one, which the other list then names.
                let Some(port) = port.filter(|port| *port != 0) else { continue };
                let address = binding["HostIp"].as_str().and_then(|ip| ip.parse().ok());
                let address = address.filter(|address: &IpAddr| !address.is_unspecified());
                found.insert(HostPort { address, port, protocol });
            }
        }
    }
    found.into_iter().collect()
}

fn declared(config: &Value, host: &Value) -> BTreeSet<u16> {
    let keys = [&config["ExposedPorts"], &host["PortBindings"]];
    let keys = keys.into_iter().filter_map(Value::as_object).flat_map(|ports| ports.keys());
    keys.filter(|key| !key.ends_with("/udp") && !key.ends_with("/sctp"))
        .filter_map(|key| key.split('/').next()?.parse().ok())
        .collect()
}
