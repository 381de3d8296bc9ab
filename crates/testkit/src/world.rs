//! A machine, and handles on it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use shiplap_model::{
    COMPOSE_NUMBER, COMPOSE_PROJECT, COMPOSE_SERVICE, ContainerState, Desired, ImageOrigin,
    Observed, ObservedNetwork, ObservedVolume, PublishedPort,
};

use crate::calls::{Calls, Trouble};
use crate::engine::FakeEngine;
use crate::ledger::MemoryLedger;
use crate::project::image_info;
use crate::router::FakeRouter;
use crate::state::{Container, Script, State};

/// One machine. Clones share it.
#[derive(Clone)]
pub struct World {
    state: Arc<Mutex<State>>,
    calls: Calls,
    ledger: Arc<MemoryLedger>,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// An empty machine.
    #[must_use]
    pub fn new() -> Self {
        let calls = Calls::default();
        let ledger = Arc::new(MemoryLedger::new(calls.clone()));
        Self { state: Arc::default(), calls, ledger }
    }

    /// Another machine that looks the same, with no calls so far.
    #[must_use]
    pub fn fork(&self) -> Self {
        let calls = Calls::default();
        let ledger = Arc::new(self.ledger.fork(calls.clone()));
        Self { state: Arc::new(Mutex::new(self.state().clone())), calls, ledger }
    }

    /// The same machine, whose history was lost.
    #[must_use]
    pub fn with_a_new_ledger(&self) -> Self {
        let ledger = Arc::new(MemoryLedger::new(self.calls.clone()));
        Self { ledger, ..self.clone() }
    }

    /// Its engine.
    #[must_use]
    pub fn engine(&self) -> Arc<FakeEngine> {
        Arc::new(FakeEngine { state: self.state.clone(), calls: self.calls.clone() })
    }

    /// Its edge.
    #[must_use]
    pub fn router(&self) -> Arc<FakeRouter> {
        Arc::new(FakeRouter { state: self.state.clone(), calls: self.calls.clone() })
    }

    /// Another ledger, as that of another user of the machine.
    #[must_use]
    pub fn another_ledger(&self) -> Arc<MemoryLedger> {
        Arc::new(MemoryLedger::new(self.calls.clone()))
    }

    /// A ledger.
    #[must_use]
    pub fn ledger(&self) -> Arc<MemoryLedger> {
        self.ledger.clone()
    }

    /// What is on it.
    ///
    /// # Panics
    /// If something panicked while holding it.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while holding it")
    }

    /// What a planner sees.
    #[must_use]
    pub fn observed(&self, desired: &Desired) -> Observed {
        self.state().everything(desired)
    }

    /// All calls so far, in order.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.calls.log()
    }

    /// Forgets the calls so far, and all trouble.
    pub fn reset(&self) {
        self.calls.reset();
    }

    /// Makes trouble at a call, counted from 0 since the last reset.
    pub fn trouble_at(&self, call: usize, trouble: Trouble) {
        self.calls.at(call, trouble);
    }

    /// Makes trouble at all calls that begin so, such as `engine.stop shop-api-1`.
    pub fn trouble_on(&self, prefix: &str, trouble: Trouble) {
        self.calls.on(prefix, trouble);
    }

    /// The engine does not answer for a while.
    pub fn engine_is_away(&self, during: Duration) {
        self.calls.leave("engine.", during);
    }

    /// The engine stops, and is back after a while; containers that it starts again are there
    /// `late` after that.
    pub fn engine_restarts(&self, during: Duration, late: Duration) {
        self.calls.leave("engine.", during);
        self.state().engine_restarts(during + late);
    }

    /// The edge does not answer for a while, whatever is done about it.
    pub fn edge_is_away(&self, during: Duration) {
        self.calls.leave("router.", during);
    }

    /// Every call takes so long.
    pub fn is_slow(&self, each: Duration) {
        self.calls.slow("", each);
    }

    /// Every call to the engine takes so long.
    pub fn engine_is_slow(&self, each: Duration) {
        self.calls.slow("engine.", each);
    }

    /// No more trouble.
    pub fn calm(&self) {
        self.calls.calm();
    }

    /// Waits until a call hangs.
    pub async fn hung(&self) {
        self.calls.hung().await;
    }

    /// So much time passes that requests to whom nobody routes any more have ended, and that what
    /// the engine starts again is there, if it is due.
    pub fn time_passes(&self) {
        let mut state = self.state();
        state.come_back();
        let routed: Vec<String> = state
            .pools
            .values()
            .flat_map(|(_, pool)| pool.replicas.iter().map(|r| r.container_id.clone()))
            .collect();
        for (id, container) in &mut state.containers {
            container.undrained &= routed.contains(id);
        }
    }

    /// How often containers of a service were started with an image.
    #[must_use]
    pub fn starts(&self, service: &str, image: &str) -> u32 {
        self.state().starts.get(&(service.to_owned(), image.to_owned())).copied().unwrap_or(0)
    }

    /// What must never happen and did.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    /// Says how containers behave: of one name, of an image, or of a service.
    pub fn script(&self, of: &str, script: Script) {
        self.state().scripts.insert(of.to_owned(), script);
    }

    /// Puts an image on the engine.
    pub fn has_image(&self, reference: &str) {
        let image = image_info(reference);
        self.state().images.insert(image.id.clone(), image);
    }

    /// Puts the images of a project on the engine, and in the registry those that are pulled.
    pub fn has_images_of(&self, desired: &Desired) {
        let mut state = self.state();
        for spec in desired.services.values() {
            match (spec.image.origin, &spec.image.info, &spec.image.digest) {
                (ImageOrigin::Local, Some(info), _) => {
                    state.images.insert(info.id.clone(), info.clone());
                }
                (ImageOrigin::Pull, _, Some(digest)) => {
                    state.registry.insert(spec.image.reference.clone(), digest.clone());
                }
                _ => {}
            }
        }
    }

    /// Brings a project up as Compose itself would: ports published by the engine, no labels of
    /// ours.
    pub fn compose_up(&self, desired: &Desired) {
        self.has_images_of(desired);
        let mut state = self.state();
        let project = Some(desired.project.clone());
        for network in desired.compose.networks.values().filter_map(|n| n.name.clone()) {
            let made = ObservedNetwork { project: project.clone(), ..Default::default() };
            state.networks.insert(network, made);
        }
        for volume in desired.compose.volumes.values().filter_map(|v| v.name.clone()) {
            let made = ObservedVolume { project: project.clone(), ..Default::default() };
            state.volumes.insert(volume, made);
        }
        for spec in desired.services.values() {
            for number in 1..=spec.replicas {
                let name = format!("{}-{}-{number}", desired.project, spec.name);
                let name = spec.service.container_name.clone().unwrap_or(name);
                let labels = BTreeMap::from([
                    (COMPOSE_PROJECT.to_owned(), desired.project.clone()),
                    (COMPOSE_SERVICE.to_owned(), spec.name.clone()),
                    (COMPOSE_NUMBER.to_owned(), number.to_string()),
                ]);
                let mut container =
                    FakeEngine::container_of(&mut state, desired, spec, name, labels);
                let ports = spec.service.ports.iter().filter_map(|port| {
                    let (first, _) = port.published_range()?;
                    Some(PublishedPort {
                        host_address: None,
                        host_port: first,
                        container_port: port.target,
                        protocol: port.protocol.clone().unwrap_or_else(|| "tcp".to_owned()),
                    })
                });
                container.published = ports.collect();
                container.state = ContainerState::Running;
                container.started_ms = Some(container.created_ms);
                let id = container.id.clone();
                state.containers.insert(id.clone(), container);
                let script = state.script(&state.containers[&id]);
                match script.exits {
                    Some((_, code)) => {
                        let container = state.containers.get_mut(&id).expect("just made");
                        container.state = ContainerState::Exited(code);
                    }
                    None => state.attach(&id),
                }
            }
        }
    }

    /// Puts a running container of somebody else on the machine.
    pub fn foreign_container(&self, name: &str, host_port: Option<u16>) {
        let mut state = self.state();
        let id = format!("{:064x}", state.next());
        let published = host_port.map(|port| PublishedPort {
            host_address: None,
            host_port: port,
            container_port: port,
            protocol: "tcp".to_owned(),
        });
        let container = Container {
            id: id.clone(),
            name: name.to_owned(),
            published: published.into_iter().collect(),
            state: ContainerState::Running,
            ..FakeEngine::blank()
        };
        state.containers.insert(id, container);
    }

    /// Everything that runs and is routed, in words, without ids: to compare two moments.
    #[must_use]
    pub fn picture(&self) -> String {
        let state = self.state();
        let mut lines = Vec::new();
        for container in state.containers.values() {
            let (name, image) = (&container.name, &container.image_reference);
            lines.push(format!("{name} {image} {:?}", container.state));
        }
        for network in state.networks.keys() {
            lines.push(format!("network {network}"));
        }
        for holder in state.holders.values() {
            let state = if holder.running { "runs" } else { "rests" };
            lines.push(format!("holder {} {state}", holder.spec.name));
        }
        for (_, id, pool) in &state.name_listeners {
            let holder = state.holders.values().find(|holder| holder.id == *id);
            let holder = holder.map_or("gone", |holder| holder.spec.name.as_str());
            lines.push(format!("listener in {holder} {pool}"));
        }
        for volume in state.volumes.keys() {
            lines.push(format!("volume {volume}"));
        }
        for (_, listener) in &state.listeners {
            lines
                .push(format!("listener {}:{} {}", listener.address, listener.port, listener.pool));
        }
        for (key, (_, pool)) in &state.pools {
            let mut names: Vec<&str> = pool
                .replicas
                .iter()
                .map(|r| state.find(&r.container_id).map_or("gone", |c| c.name.as_str()))
                .collect();
            names.sort_unstable();
            let held = if pool.held { " held" } else { "" };
            lines.push(format!("pool {key}{held} -> {}", names.join(" ")));
        }
        lines.sort();
        let mut text = String::new();
        for line in lines {
            let _ = writeln!(text, "{line}");
        }
        text
    }
}
