//! What is on the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use shiplap_compose::model::Project;
use shiplap_model::{
    ContainerState, Desired, FieldDigests, Fields, Health, HolderSpec, HolderStatus, ImageInfo,
    ListenerSpec, Maintenance, Mark, Names, NetworkAddress, Observed, ObservedContainer,
    ObservedListener, ObservedNetwork, ObservedVolume, PoolKey, PoolSpec, PublishedPort,
    RoutePolicy, RouteTable, RouterState, ServiceSpec,
};
use tokio::time::Instant;

/// Where the fake clock starts, milliseconds since 1970.
const EPOCH_MS: i64 = 1_700_000_000_000;

/// How a container behaves.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// Starting fails with this.
    pub start_error: Option<String>,
    /// It exits with the code at this look, counted from 1 at each start.
    pub exits: Option<(u32, i64)>,
    /// The same, counted from when the edge first routed to it.
    pub exits_once_routed: Option<(u32, i64)>,
    /// The engine restarts it at each of its first looks.
    pub restarts: u32,
    /// The engine calls it unhealthy from this look on.
    pub unhealthy_at: Option<u32>,
    /// The engine calls it healthy from this look on.
    pub healthy_at: Option<u32>,
    /// Its check fails so often before it passes.
    pub failing_checks: u32,
    /// Its ports refuse so often before they answer.
    pub refused_probes: u32,
    /// It speaks HTTP and answers so.
    pub http_status: Option<u16>,
    /// TCP ports that it is found listening on, besides what it declares.
    pub listens: Vec<u16>,
    /// Something in it listens from this look on, as its host sees.
    pub listens_at: Option<u32>,
    /// What it printed.
    pub tail: Vec<String>,
}

/// A container.
#[derive(Debug, Clone)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The image that it was asked for by.
    pub image_reference: String,
    /// The image.
    pub image_id: String,
    /// What it is doing.
    pub state: ContainerState,
    /// How often the engine restarted it.
    pub restarts: u64,
    /// Its configuration.
    pub facts: Fields,
    /// Its networks, with its address while it runs.
    pub networks: BTreeMap<String, Option<NetworkAddress>>,
    /// The volumes that it mounts.
    pub volumes: BTreeSet<String>,
    /// Those that it writes to.
    pub writes: BTreeSet<String>,
    /// Anonymous volumes, by mount point.
    pub anonymous: BTreeMap<String, String>,
    /// Those that go with it.
    pub own_anonymous: BTreeSet<String>,
    /// Host ports that the engine publishes for it.
    pub published: Vec<PublishedPort>,
    /// Ids of containers whose namespaces it shares.
    pub peers: Vec<String>,
    /// Whether it has a health check.
    pub has_healthcheck: bool,
    /// When it was made.
    pub created_ms: i64,
    /// When it was started.
    pub started_ms: Option<i64>,
    /// When an engine that restarted starts it again.
    pub(crate) comes_back: Option<Instant>,
    pub(crate) looks: u32,
    pub(crate) looks_once_routed: u32,
    pub(crate) was_routed: bool,
    pub(crate) undrained: bool,
    pub(crate) checks: u32,
    pub(crate) probes: u32,
}

impl Container {
    /// The project that its labels name.
    #[must_use]
    pub fn project(&self) -> Option<&str> {
        self.labels.get(shiplap_model::COMPOSE_PROJECT).map(String::as_str)
    }

    /// The service that its labels name.
    #[must_use]
    pub fn service(&self) -> &str {
        self.labels.get(shiplap_model::COMPOSE_SERVICE).map_or("", String::as_str)
    }

    /// Whether a deployment of ours made it.
    #[must_use]
    pub fn deployed(&self) -> bool {
        self.labels.contains_key(shiplap_model::DEPLOYMENT)
    }

    /// The replica's number.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.labels
            .get(shiplap_model::COMPOSE_NUMBER)
            .and_then(|number| number.parse().ok())
            .unwrap_or(1)
    }

    pub(crate) fn observed(&self, script: &Script) -> ObservedContainer {
        let health = (self.has_healthcheck && self.state == ContainerState::Running).then(|| {
            if script.unhealthy_at.is_some_and(|at| self.looks >= at) {
                Health::Unhealthy
            } else if script.healthy_at.is_some_and(|at| self.looks >= at) {
                Health::Healthy
            } else {
                Health::Starting
            }
        });
        ObservedContainer {
            id: self.id.clone(),
            name: self.name.clone(),
            service: self.service().to_owned(),
            number: self.number(),
            names: match self.labels.get(shiplap_model::NAMES).map(String::as_str) {
                Some("held") => Names::Held,
                Some(_) | None => Names::Own,
            },
            deployment: self.labels.get(shiplap_model::DEPLOYMENT).and_then(|n| n.parse().ok()),
            state: self.state,
            health,
            restarts: self.restarts,
            image_id: self.image_id.clone(),
            image_reference: self.image_reference.clone(),
            fields: self.labels.get(shiplap_model::FIELDS).and_then(|l| FieldDigests::parse(l)),
            facts: self.facts.clone(),
            networks: self.networks.clone(),
            volumes: self.volumes.clone(),
            anonymous_volumes: self.anonymous.clone(),
            published: self.published.clone(),
            created_ms: self.created_ms,
            started_ms: self.started_ms,
            pid: None,
        }
    }
}

/// A name holder.
#[derive(Debug, Clone)]
pub struct Holder {
    /// Its container's id.
    pub id: String,
    /// What it was made as.
    pub spec: HolderSpec,
    /// Whether it runs.
    pub running: bool,
}

/// One machine.
#[derive(Debug, Clone)]
pub struct State {
    /// Containers by id.
    pub containers: BTreeMap<String, Container>,
    /// Networks by name.
    pub networks: BTreeMap<String, ObservedNetwork>,
    /// Volumes by name.
    pub volumes: BTreeMap<String, ObservedVolume>,
    /// Images by id.
    pub images: BTreeMap<String, ImageInfo>,
    /// What the registry has, reference to digest.
    pub registry: BTreeMap<String, String>,
    /// How containers behave, by the container's name, its image's, or its service's.
    pub scripts: BTreeMap<String, Script>,
    /// Whether an edge runs.
    pub edge_runs: bool,
    /// Whether the host has IPv6, so that "all addresses" are two listeners.
    pub has_ipv6: bool,
    /// The edge's pools, with their owners.
    pub pools: BTreeMap<PoolKey, (String, PoolSpec)>,
    /// The edge's listeners, with their owners.
    pub listeners: Vec<(String, ObservedListener)>,
    /// The edge's routes, by owner.
    pub tables: BTreeMap<String, RouteTable>,
    /// The page of those that are in maintenance, by owner.
    pub maintenance: BTreeMap<String, Maintenance>,
    /// What holds at each owner's listeners that were opened before there was a table of its.
    pub guards: BTreeMap<String, RoutePolicy>,
    /// Entries that are open.
    pub entries: BTreeSet<String>,
    /// Name holders by name.
    pub holders: BTreeMap<String, Holder>,
    /// Listeners inside name holders: owner, the holder's id, pool.
    pub name_listeners: Vec<(String, String, PoolKey)>,
    /// Host ports that some other process has.
    pub busy_ports: BTreeSet<u16>,
    /// Requests in flight that never end, by container id.
    pub stuck_requests: BTreeMap<String, u64>,
    /// Who deploys, as the engine knows it, by scope and number.
    pub marks: Vec<Mark>,
    /// By owner, the highest lease that has changed the edge's table.
    pub leases: BTreeMap<String, u64>,
    /// What must never happen and did.
    pub violations: Vec<String>,
    /// How often containers of a service were started with an image.
    pub starts: BTreeMap<(String, String), u32>,
    pub(crate) generation: u64,
    born: Instant,
    made: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            containers: BTreeMap::new(),
            networks: BTreeMap::new(),
            volumes: BTreeMap::new(),
            images: BTreeMap::new(),
            registry: BTreeMap::new(),
            scripts: BTreeMap::new(),
            edge_runs: false,
            has_ipv6: false,
            pools: BTreeMap::new(),
            listeners: Vec::new(),
            tables: BTreeMap::new(),
            maintenance: BTreeMap::new(),
            guards: BTreeMap::new(),
            entries: BTreeSet::new(),
            holders: BTreeMap::new(),
            name_listeners: Vec::new(),
            busy_ports: BTreeSet::new(),
            stuck_requests: BTreeMap::new(),
            marks: Vec::new(),
            leases: BTreeMap::new(),
            violations: Vec::new(),
            starts: BTreeMap::new(),
            generation: 0,
            born: Instant::now(),
            made: 0,
        }
    }
}

/// Facts of a container of this service: the fields, and `restart` only where it says something.
pub(crate) fn fake_facts(spec: &ServiceSpec) -> Fields {
    let mut facts = spec.fields.clone();
    if facts.get("restart").is_some_and(|restart| restart == "no") {
        facts.unset("restart");
    }
    facts
}

impl State {
    /// Milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> i64 {
        EPOCH_MS + i64::try_from(self.born.elapsed().as_millis()).expect("tests are short")
    }

    /// Sets the generation of the edge's table, as if an older one had come back.
    pub fn set_generation(&mut self, generation: u64) {
        self.generation = generation;
    }

    /// A number that nothing else has.
    pub(crate) fn next(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    /// A container by id or name.
    #[must_use]
    pub fn find(&self, container: &str) -> Option<&Container> {
        self.containers
            .get(container)
            .or_else(|| self.containers.values().find(|c| c.name == container))
    }

    pub(crate) fn id_of(&self, container: &str) -> Option<String> {
        self.find(container).map(|c| c.id.clone())
    }

    pub(crate) fn script(&self, container: &Container) -> Script {
        [container.name.as_str(), &container.image_reference, container.service()]
            .into_iter()
            .find_map(|of| self.scripts.get(of))
            .cloned()
            .unwrap_or_default()
    }

    /// An image by id, tag or digest.
    #[must_use]
    pub fn image(&self, reference: &str) -> Option<&ImageInfo> {
        self.images.get(reference).or_else(|| {
            self.images.values().find(|image| {
                image.tags.iter().chain(&image.repo_digests).any(|name| name == reference)
            })
        })
    }

    /// Everything that concerns a project, the edge included.
    #[must_use]
    pub fn observed(&self, project: &str, compose: Option<&Project>) -> Observed {
        let own = |of: &Option<String>| of.as_deref() == Some(project);
        let named_networks: BTreeSet<&str> = compose
            .iter()
            .flat_map(|c| c.networks.values())
            .filter_map(|n| n.name.as_deref())
            .collect();
        let named_volumes: BTreeSet<&str> = compose
            .iter()
            .flat_map(|c| c.volumes.values())
            .filter_map(|v| v.name.as_deref())
            .collect();
        let mut observed = Observed {
            networks: self
                .networks
                .iter()
                .filter(|(name, n)| own(&n.project) || named_networks.contains(name.as_str()))
                .map(|(name, n)| (name.clone(), n.clone()))
                .collect(),
            volumes: self
                .volumes
                .iter()
                .filter(|(name, v)| own(&v.project) || named_volumes.contains(name.as_str()))
                .map(|(name, v)| (name.clone(), v.clone()))
                .collect(),
            ..Observed::default()
        };
        for container in self.containers.values() {
            if container.project() == Some(project) {
                if let Some(image) = self.images.get(&container.image_id) {
                    observed.images.insert(image.id.clone(), image.clone());
                }
                observed.containers.push(container.observed(&self.script(container)));
            } else {
                observed.foreign_names.insert(container.name.clone());
                if container.state == ContainerState::Running {
                    for port in &container.published {
                        let protocol = if port.protocol == "udp" { "udp" } else { "tcp" };
                        let key = (port.host_address, port.host_port, protocol);
                        observed.foreign_ports.insert(key, container.name.clone());
                    }
                }
            }
        }
        observed.foreign_names.extend(self.holders.keys().cloned());
        observed.containers.sort_by(|a, b| a.name.cmp(&b.name));
        observed
    }

    /// What the edge does for one environment.
    #[must_use]
    pub fn router_state(&self, owner: &str) -> Option<RouterState> {
        if !self.edge_runs {
            return None;
        }
        let mut state = RouterState {
            version: "0".to_owned(),
            generation: self.generation,
            lease: self.leases.get(owner).copied().unwrap_or(0),
            ..RouterState::default()
        };
        for (key, (of, pool)) in &self.pools {
            if of == owner {
                let replicas = pool.replicas.iter().cloned().map(|r| (r, 0, 0)).collect();
                let (protocol, held) = (pool.protocol, pool.held);
                let status = shiplap_model::PoolStatus { protocol, held, replicas, waiting: 0 };
                state.pools.insert(key.clone(), status);
            }
        }
        for (of, listener) in &self.listeners {
            if of == owner {
                state.listeners.push(listener.clone());
            } else {
                state.foreign_listeners.push((listener.address, listener.port, of.clone()));
            }
        }
        state.table = self.tables.get(owner).cloned().unwrap_or_default();
        state.maintenance = self.maintenance.get(owner).cloned();
        if let Some(guard) = self.guards.get(owner) {
            state.table.guard.clone_from(guard);
        }
        let others = self.tables.iter().filter(|(of, _)| *of != owner);
        state.foreign_routes = others
            .flat_map(|(of, table)| table.routes.iter().map(|route| (route.clone(), of.clone())))
            .collect();
        state.entries.clone_from(&self.entries);
        for holder in self.holders.values().filter(|holder| holder.spec.owner == owner) {
            let inside = self.name_listeners.iter().filter(|(_, id, _)| *id == holder.id);
            state.holders.push(HolderStatus {
                spec: holder.spec.clone(),
                running: holder.running,
                pools: inside.map(|(_, _, pool)| pool.clone()).collect(),
            });
        }
        Some(state)
    }

    /// Both together.
    #[must_use]
    pub fn everything(&self, desired: &Desired) -> Observed {
        let owner = format!("{}/{}", desired.project, desired.environment);
        Observed {
            router: self.router_state(&owner),
            ..self.observed(&desired.project, Some(&desired.compose))
        }
    }

    /// Whether anybody can reach a pool.
    pub(crate) fn listens(&self, key: &PoolKey) -> bool {
        self.listeners.iter().any(|(_, l)| l.pool == *key)
            || self.name_listeners.iter().any(|(_, _, pool)| pool == key)
    }

    /// Whom a listening pool sends requests to, where they are not held.
    pub(crate) fn routes_to(&self, container: &str) -> Option<&PoolKey> {
        self.pools
            .iter()
            .filter(|(key, (_, pool))| !pool.held && self.listens(key))
            .find(|(_, (_, pool))| pool.replicas.iter().any(|r| r.container_id == container))
            .map(|(key, _)| key)
    }

    /// Notes what a stop, a freeze or a removal of this container means to callers.
    pub(crate) fn leaves(&mut self, id: &str, verb: &str) {
        let container = &self.containers[id];
        if container.state != ContainerState::Running {
            return;
        }
        let name = container.name.clone();
        if let Some(key) = self.routes_to(id) {
            let text = format!("{verb} {name} while {key} routes to it");
            self.violations.push(text);
        } else if container.undrained {
            self.violations.push(format!("{verb} {name} while it may answer requests"));
        }
    }

    /// Gives a container an address on each of its networks.
    pub(crate) fn attach(&mut self, id: &str) {
        let names: Vec<String> = self.containers[id].networks.keys().cloned().collect();
        for name in names {
            let number = self.next();
            let index = self.networks.keys().position(|known| *known == name).unwrap_or(0);
            let [.., high, low] =
                u16::try_from(number % 65_000 + 2).expect("bounded").to_be_bytes();
            let net = u8::try_from(16 + index).expect("few networks");
            let address = IpAddr::V4(Ipv4Addr::new(172, net, high, low));
            let address = Some(NetworkAddress { address, prefix_bits: 16 });
            let container = self.containers.get_mut(id).expect("the caller has it");
            container.networks.insert(name, address);
        }
    }

    /// The engine stops and starts again: everything stops, and after `late` what has a policy
    /// for it comes back, at other addresses, to which the edge follows.
    pub(crate) fn engine_restarts(&mut self, late: Duration) {
        let running: Vec<String> = self
            .containers
            .values()
            .filter(|c| matches!(c.state, ContainerState::Running | ContainerState::Paused))
            .map(|c| c.id.clone())
            .collect();
        for id in running {
            self.detach(&id);
            let container = self.containers.get_mut(&id).expect("just listed");
            container.state = ContainerState::Exited(143);
            let policy = container.facts.get("restart").and_then(|policy| policy.as_str());
            if matches!(policy, Some("always" | "unless-stopped")) {
                container.comes_back = Some(Instant::now() + late);
            }
        }
    }

    /// Starts what is due to be started again by the engine.
    pub(crate) fn come_back(&mut self) {
        let due: Vec<String> = self
            .containers
            .values()
            .filter(|c| c.comes_back.is_some_and(|at| at <= Instant::now()))
            .map(|c| c.id.clone())
            .collect();
        for id in due {
            self.attach(&id);
            let now = self.now_ms();
            let container = self.containers.get_mut(&id).expect("just listed");
            container.comes_back = None;
            container.state = ContainerState::Running;
            container.started_ms = Some(now);
            self.follow(&id);
        }
    }

    /// The edge finds a container that was started again where it is now.
    pub(crate) fn follow(&mut self, id: &str) {
        let address = self.containers[id].networks.values().flatten().next().copied();
        for (_, pool) in self.pools.values_mut() {
            let own = pool.replicas.iter_mut().filter(|replica| replica.container_id == id);
            own.for_each(|replica| {
                replica.address = address.map_or(replica.address, |found| found.address);
            });
        }
    }

    /// Takes its addresses.
    pub(crate) fn detach(&mut self, id: &str) {
        let container = self.containers.get_mut(id).expect("the caller has it");
        container.networks.values_mut().for_each(|address| *address = None);
    }

    /// Listeners that a listener's description stands for.
    pub(crate) fn expand(&self, spec: &ListenerSpec) -> Vec<ObservedListener> {
        let any = [IpAddr::from([0; 4]), IpAddr::from([0; 16])];
        let addresses = match spec.address {
            Some(address) => vec![address],
            None if self.has_ipv6 && spec.port != 0 => any.to_vec(),
            None => vec![any[0]],
        };
        let listener =
            |address| ObservedListener { address, port: spec.port, pool: spec.pool.clone() };
        addresses.into_iter().map(listener).collect()
    }
}
