//! From the engine's description of a container to ours.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use serde_json::Value;
use shiplap_model::{
    COMPOSE_NUMBER, COMPOSE_SERVICE, ContainerState, DEPLOYMENT, FIELDS, FieldDigests, Health,
    NAMES, Names, NetworkAddress, ObservedContainer, PublishedPort,
};

use crate::daemon::Daemon;
use crate::facts::{Peer, Side, is_anonymous};

/// Which container stands for which service, by id and by name.
#[derive(Default)]
pub(crate) struct Directory {
    containers: HashMap<String, Entry>,
}

#[derive(Clone)]
struct Entry {
    name: String,
    project: Option<String>,
    service: Option<String>,
}

impl Directory {
    /// Adds a container by its labels.
    pub(crate) fn add(&mut self, id: &str, name: &str, labels: &Value) {
        let label = |name: &str| labels[name].as_str().map(str::to_owned);
        let project = label(shiplap_model::COMPOSE_PROJECT);
        let entry = Entry { name: name.to_owned(), project, service: label(COMPOSE_SERVICE) };
        self.containers.insert(name.to_owned(), entry.clone());
        self.containers.insert(id.to_owned(), entry);
    }

    fn peer(&self, project: &str, container: &str) -> Peer {
        match self.containers.get(container) {
            Some(Entry { project: Some(of), service: Some(service), .. }) if of == project => {
                Peer::Service(service.clone())
            }
            Some(entry) => Peer::Stranger(entry.name.clone()),
            None => Peer::Stranger(container.to_owned()),
        }
    }
}

/// Containers that a container's configuration refers to, by id or name.
pub(crate) fn referenced(inspect: &Value) -> Vec<String> {
    let host = &inspect["HostConfig"];
    let modes = ["NetworkMode", "IpcMode", "PidMode"].iter();
    let mut names: Vec<String> = modes
        .filter_map(|key| host[*key].as_str()?.strip_prefix("container:"))
        .map(str::to_owned)
        .collect();
    let endpoints = inspect["NetworkSettings"]["Networks"].as_object().into_iter().flatten();
    let links = endpoints.map(|(_, endpoint)| &endpoint["Links"]);
    for list in links.chain([&host["Links"], &host["VolumesFrom"]]) {
        for text in list.as_array().into_iter().flatten().filter_map(Value::as_str) {
            let name = text.split(':').next().unwrap_or(text);
            names.push(name.trim_start_matches('/').to_owned());
        }
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// Describes a container. `image` is its image's configuration.
pub(crate) fn container(
    inspect: &Value,
    image: &Value,
    project: &str,
    directory: &Directory,
    daemon: &Daemon,
) -> ObservedContainer {
    let (config, host) = (&inspect["Config"], &inspect["HostConfig"]);
    let settings = &inspect["NetworkSettings"];
    let label = |name: &str| config["Labels"][name].as_str();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let id = text(&inspect["Id"]);
    let name = text(&inspect["Name"]).trim_start_matches('/').to_owned();
    let service = label(COMPOSE_SERVICE).unwrap_or_default().to_owned();
    let peer = |container: &str| directory.peer(project, container);
    let side = Side {
        config,
        host,
        networks: &settings["Networks"],
        image,
        id: &id,
        name: &name,
        project,
        service: &service,
        daemon,
        peer: &peer,
    };
    let facts = side.facts();
    let state = &inspect["State"];
    ObservedContainer {
        service,
        number: label(COMPOSE_NUMBER).and_then(|n| n.parse().ok()).unwrap_or(1),
        names: match label(NAMES) {
            Some("held") => Names::Held,
            _ => Names::Own,
        },
        deployment: label(DEPLOYMENT).and_then(|n| n.parse().ok()),
        state: container_state(state),
        health: match state["Health"]["Status"].as_str() {
            Some("starting") => Some(Health::Starting),
            Some("healthy") => Some(Health::Healthy),
            Some("unhealthy") => Some(Health::Unhealthy),
            _ => None,
        },
        restarts: inspect["RestartCount"].as_u64().unwrap_or(0),
        image_id: text(&inspect["Image"]),
        image_reference: text(&config["Image"]),
        fields: label(FIELDS).and_then(FieldDigests::parse),
        facts,
        networks: addresses(&settings["Networks"]),
        volumes: mounted_volumes(&inspect["Mounts"]).map(|(name, _)| name).collect(),
        anonymous_volumes: mounted_volumes(&inspect["Mounts"])
            .filter(|(name, _)| is_anonymous(name))
            .map(|(name, target)| (target, name))
            .collect(),
        published: published(if state["Running"] == true && settings["Ports"].is_object() {
            &settings["Ports"]
        } else {
            &host["PortBindings"]
        }),
        created_ms: milliseconds(&inspect["Created"]).unwrap_or(0),
        started_ms: milliseconds(&state["StartedAt"]),
        pid: state["Pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0),
        id,
        name,
    }
}

fn container_state(state: &Value) -> ContainerState {
    match state["Status"].as_str().unwrap_or_default() {
        "created" => ContainerState::Created,
        "running" => ContainerState::Running,
        "paused" => ContainerState::Paused,
        "restarting" => ContainerState::Restarting,
        "dead" | "removing" => ContainerState::Dead,
        _ => ContainerState::Exited(state["ExitCode"].as_i64().unwrap_or(0)),
    }
}

fn addresses(networks: &Value) -> BTreeMap<String, Option<NetworkAddress>> {
    let networks = networks.as_object().into_iter().flatten();
    networks
        .map(|(name, endpoint)| {
            let address = |address: &str, bits: &str| {
                let address = endpoint[address].as_str()?.parse().ok()?;
                let prefix_bits = u8::try_from(endpoint[bits].as_u64()?).ok()?;
                Some(NetworkAddress { address, prefix_bits })
            };
            let v4 = address("IPAddress", "IPPrefixLen");
            let v6 = || address("GlobalIPv6Address", "GlobalIPv6PrefixLen");
            (name.clone(), v4.or_else(v6))
        })
        .collect()
}

/// Names of volumes, with where they are mounted.
fn mounted_volumes(mounts: &Value) -> impl Iterator<Item = (String, String)> {
    let mounts = mounts.as_array().into_iter().flatten();
    mounts.filter(|mount| mount["Type"] == "volume").filter_map(|mount| {
        Some((mount["Name"].as_str()?.to_owned(), mount["Destination"].as_str()?.to_owned()))
    })
}

fn published(ports: &Value) -> Vec<PublishedPort> {
    let mut out = BTreeSet::new();
    for (key, bindings) in ports.as_object().into_iter().flatten() {
        let (port, protocol) = key.split_once('/').unwrap_or((key, "tcp"));
        let Ok(container_port) = port.parse() else { continue };
        for binding in bindings.as_array().into_iter().flatten() {
            out.insert(PublishedPort {
                host_address: binding["HostIp"].as_str().and_then(specific_address),
                host_port: binding["HostPort"].as_str().and_then(|p| p.parse().ok()).unwrap_or(0),
                container_port,
                protocol: protocol.to_owned(),
            });
        }
    }
    out.into_iter().collect()
}

/// An address; nothing where it stands for all of them.
pub(crate) fn specific_address(text: &str) -> Option<IpAddr> {
    text.parse().ok().filter(|address: &IpAddr| !address.is_unspecified())
}

/// Milliseconds since 1970; nothing for the engine's "never", which is the year 1.
pub(crate) fn milliseconds(time: &Value) -> Option<i64> {
    let time: jiff::Timestamp = time.as_str()?.parse().ok()?;
    Some(time.as_millisecond()).filter(|ms| *ms > 0)
}
