//! An edge in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use shiplap_model::{
    ContainerState, HolderSpec, MaintenanceChange, OpenStreams, PoolKey, PoolSpec, ProbeKind,
    ProbeOutcome, ProbeRequest, Protocol, RouteChange, RoutePolicy, RouteSpec, RouteTable, RouteTo,
    Router, RouterError, RouterState,
};

use crate::calls::{Calls, Fate, Injected};
use crate::state::{Holder, State};

/// Where ports begin that the edge chooses itself.
const FIRST_CHOSEN_PORT: u16 = 49_152;

/// An edge in memory.
pub struct FakeRouter {
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) calls: Calls,
}

fn injected(what: Injected) -> RouterError {
    match what {
        Injected::Fault | Injected::Kind(_) => RouterError::Refused("injected".to_owned()),
        Injected::Away => RouterError::Unreachable("nobody is there".to_owned()),
    }
}

impl FakeRouter {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while holding it")
    }

    async fn enter(&self, text: String) -> Result<Fate, RouterError> {
        self.calls.enter(format!("router.{text}")).await.map_err(injected)
    }
}

/// Only an edge that runs answers.
fn runs(state: &State) -> Result<(), RouterError> {
    if state.edge_runs { Ok(()) } else { Err(RouterError::Unreachable("no edge".to_owned())) }
}

/// In words, for the log.
fn words(change: &RouteChange) -> String {
    let mut words = Vec::new();
    for pool in &change.pools {
        let held = if pool.held { " held" } else { "" };
        words.push(format!("{}:{}{held}={}", pool.key.service, pool.key.port, pool.replicas.len()));
    }
    words.extend(
        change.names.iter().map(|n| format!("{}>{}:{}", n.holder, n.pool.service, n.pool.port)),
    );
    words.extend(change.listeners.iter().map(|l| format!("+{}", l.port)));
    words.extend(change.drop_listeners.iter().map(|l| format!("-{}", l.port)));
    words.extend(change.entries.iter().map(|entry| format!("+{}", entry.name)));
    words.extend(change.table.iter().map(|table| format!("routes={}", table.routes.len())));
    words.extend(change.drop_pools.iter().map(|p| format!("-{}:{}", p.service, p.port)));
    words.join(" ")
}

/// The page lies at what is reached: with the last of that it is gone.
fn maintain(state: &mut State, owner: &str, change: &MaintenanceChange) {
    let is_reached = state.listeners.iter().any(|(of, _)| of == owner)
        || state.tables.get(owner).is_some_and(|table| !table.routes.is_empty());
    match change {
        MaintenanceChange::On(page) => {
            state.maintenance.insert(owner.to_owned(), page.clone());
        }
        MaintenanceChange::Off => {
            state.maintenance.remove(owner);
        }
        MaintenanceChange::Keep => {}
    }
    if !is_reached {
        state.maintenance.remove(owner);
    }
}

fn apply(state: &mut State, owner: &str, change: &RouteChange) -> Result<u64, RouterError> {
    runs(state)?;
    let known = state.leases.get(owner).copied().unwrap_or(0);
    if change.lease.is_some_and(|lease| lease < known) {
        return Err(RouterError::LeaseLost(format!("{owner} was changed under lease {known}")));
    }
    let mut pools = state.pools.clone();
    let mut listeners = state.listeners.clone();
    let mut inside = state.name_listeners.clone();
    for name in &change.names {
        let Some(holder) = state.holders.get(&name.holder) else { continue };
        let taken =
            inside.iter().any(|(_, id, pool)| *id == holder.id && pool.port == name.pool.port);
        if !taken {
            inside.push((owner.to_owned(), holder.id.clone(), name.pool.clone()));
        }
    }
    if !change.names.is_empty() {
        inside.retain(|(of, id, _)| of != owner || state.holders.values().any(|h| h.id == *id));
    }
    for spec in &change.pools {
        let mut spec = spec.clone();
        follow(state, &mut spec);
        pools.insert(spec.key.clone(), (owner.to_owned(), spec));
    }
    for mut listener in change.listeners.iter().flat_map(|spec| state.expand(spec)) {
        let there = listeners.iter_mut().find(|(of, known)| {
            of == owner
                && known.address == listener.address
                && (known.port == listener.port
                    || (listener.port == 0 && known.pool == listener.pool))
        });
        if let Some((_, known)) = there {
            known.pool = listener.pool;
            continue;
        }
        if listener.port == 0 {
            let taken = |port: u16| listeners.iter().any(|(_, l)| l.port == port);
            let free = (FIRST_CHOSEN_PORT..).find(|port| !taken(*port));
            listener.port = free.expect("tests open few ports");
        }
        let published = state.containers.values().any(|c| {
            c.state == ContainerState::Running
                && c.published.iter().any(|p| p.protocol == "tcp" && p.host_port == listener.port)
        });
        if published || state.busy_ports.contains(&listener.port) {
            let reason = "address already in use".to_owned();
            return Err(RouterError::PortTaken { port: listener.port, reason });
        }
        let twice =
            listeners.iter().any(|(_, l)| l.port == listener.port && l.address == listener.address);
        if twice {
            return Err(RouterError::Refused(format!("two listeners on {}", listener.port)));
        }
        listeners.push((owner.to_owned(), listener));
    }
    let dropped: Vec<_> =
        change.drop_listeners.iter().flat_map(|spec| state.expand(spec)).collect();
    listeners.retain(|(of, l)| {
        let named = of == owner
            && dropped.iter().any(|gone| gone.address == l.address && gone.port == l.port);
        !named && !change.drop_pools.contains(&l.pool)
    });
    inside.retain(|(_, _, pool)| !change.drop_pools.contains(pool));
    pools.retain(|key, (of, _)| !(of == owner && change.drop_pools.contains(key)));
    let mut tables = state.tables.clone();
    if let Some(table) = &change.table {
        tables.insert(owner.to_owned(), RouteTable { entries: Vec::new(), ..table.clone() });
    }
    let led = |route: &RouteSpec| match &route.to {
        RouteTo::Service { service, port } => pools
            .keys()
            .any(|key| key.owner() == owner && key.service == *service && key.port == *port),
        RouteTo::Redirect { .. } => true,
    };
    if let Some(lost) = tables.get(owner).and_then(|t| t.routes.iter().find(|r| !led(r))) {
        return Err(RouterError::Refused(format!("route {lost} leads to no pool")));
    }
    let mut entries = state.entries.clone();
    for entry in &change.entries {
        if state.busy_ports.contains(&entry.port) {
            let reason = "address already in use".to_owned();
            return Err(RouterError::PortTaken { port: entry.port, reason });
        }
        entries.insert(entry.name.clone());
    }
    // With the last route that names it, an entry is closed.
    let named = |tables: &BTreeMap<String, RouteTable>, entry: &String| {
        tables.values().flat_map(|t| &t.routes).any(|route| route.entries.contains(entry))
    };
    entries.retain(|entry| named(&tables, entry) || !named(&state.tables, entry));
    if let Some((_, lost)) = listeners.iter().find(|(_, l)| !pools.contains_key(&l.pool)) {
        return Err(RouterError::Refused(format!("no pool {}", lost.pool)));
    }
    if let Some((_, _, lost)) = inside.iter().find(|(_, _, pool)| !pools.contains_key(pool)) {
        return Err(RouterError::Refused(format!("no pool {lost}")));
    }
    state.name_listeners = inside;
    if (&pools, &listeners, &tables, &entries)
        != (&state.pools, &state.listeners, &state.tables, &state.entries)
    {
        state.generation += 1;
    }
    (state.pools, state.listeners) = (pools, listeners);
    (state.tables, state.entries) = (tables, entries);
    maintain(state, owner, &change.maintenance);
    let has_listeners = state.listeners.iter().any(|(of, _)| of == owner);
    match &change.table {
        Some(table) if has_listeners => {
            state.guards.insert(owner.to_owned(), table.guard.clone());
        }
        None if !change.listeners.is_empty() && !state.guards.contains_key(owner) => {
            state.guards.insert(owner.to_owned(), change.guard.clone());
        }
        Some(_) | None => {}
    }
    if !has_listeners {
        state.guards.insert(owner.to_owned(), RoutePolicy::default());
    }
    if let Some(lease) = change.lease {
        state.leases.insert(owner.to_owned(), lease);
    }
    audit(state, change);
    Ok(state.generation)
}

/// Where a replica is now wins over where it was when it was looked up, as with the real edge.
fn follow(state: &State, spec: &mut PoolSpec) {
    for replica in &mut spec.replicas {
        let Some(container) = state.containers.get(&replica.container_id) else { continue };
        let mut addresses = container.networks.values().flatten().map(|known| known.address);
        if !addresses.clone().any(|known| known == replica.address)
            && let Some(now) = addresses.next()
        {
            replica.address = now;
        }
    }
}

/// Whether every pool that this change touched has somebody to answer, or is held.
fn audit(state: &mut State, change: &RouteChange) {
    for key in change.pools.iter().map(|pool| &pool.key) {
        let Some((_, pool)) = state.pools.get(key).cloned() else { continue };
        if pool.held || !state.listens(key) {
            continue;
        }
        let mut answers = pool.replicas.is_empty();
        for replica in &pool.replicas {
            let Some(container) = state.containers.get_mut(&replica.container_id) else { continue };
            let addressed =
                container.networks.values().flatten().any(|a| a.address == replica.address);
            answers |= container.state == ContainerState::Running && addressed;
            container.was_routed = true;
            container.undrained = true;
        }
        // An edge holds what comes in for a pool without replicas.
        if !answers {
            state.violations.push(format!("nobody answers for {key}"));
        }
    }
}

fn probe(state: &mut State, request: &ProbeRequest) -> ProbeOutcome {
    let found = state.containers.values().find(|c| {
        c.state == ContainerState::Running
            && c.networks.values().flatten().any(|a| a.address == request.address)
    });
    let failed = |error: &str| ProbeOutcome {
        answered: false,
        http_status: None,
        protocol: None,
        error: Some(error.to_owned()),
    };
    let Some(id) = found.map(|c| c.id.clone()) else { return failed("unreachable") };
    let script = state.script(&state.containers[&id]);
    let container = state.containers.get_mut(&id).expect("just found");
    container.probes = container.probes.saturating_add(1);
    if container.probes <= script.refused_probes {
        return failed("refused");
    }
    let http_status = script.http_status.filter(|_| request.kind != ProbeKind::Tcp);
    match (request.kind, http_status) {
        (ProbeKind::Http, None) => failed("does not speak HTTP"),
        (ProbeKind::Http | ProbeKind::Http2 | ProbeKind::Auto | ProbeKind::Tcp, _) => {
            ProbeOutcome {
                answered: true,
                protocol: Some(match (request.kind, http_status) {
                    (ProbeKind::Http2, _) => Protocol::Http2,
                    (_, Some(_)) => Protocol::Http,
                    (_, None) => Protocol::Tcp,
                }),
                http_status,
                error: None,
            }
        }
    }
}

#[async_trait]
impl Router for FakeRouter {
    async fn ensure(&self) -> Result<(), RouterError> {
        let fate = self.enter("ensure".to_owned()).await?;
        self.state().edge_runs = true;
        fate.end().await.map_err(injected)
    }

    async fn ensure_holder(&self, spec: &HolderSpec) -> Result<(), RouterError> {
        let fate = self.enter(format!("ensure_holder {}", spec.name)).await?;
        {
            let mut state = self.state();
            if let Some(lost) =
                spec.networks.keys().find(|name| !state.networks.contains_key(*name))
            {
                return Err(RouterError::Refused(format!("network {lost} not found")));
            }
            let id = format!("{:064x}", state.next());
            let made = Holder { id, spec: spec.clone(), running: true };
            state.holders.entry(spec.name.clone()).or_insert(made).running = true;
        }
        fate.end().await.map_err(injected)
    }

    async fn remove_holder(&self, name: &str) -> Result<(), RouterError> {
        let fate = self.enter(format!("remove_holder {name}")).await?;
        self.state().holders.remove(name);
        fate.end().await.map_err(injected)
    }

    async fn listening_ports(&self, container_id: &str) -> Result<Vec<u16>, RouterError> {
        let fate = self.enter("listening_ports".to_owned()).await?;
        let ports = {
            let state = self.state();
            runs(&state)?;
            let found = state.containers.get(container_id);
            found.map_or_else(Vec::new, |container| state.script(container).listens)
        };
        fate.end().await.map_err(injected)?;
        Ok(ports)
    }

    async fn state(&self, owner: &str) -> Result<Option<RouterState>, RouterError> {
        let fate = self.enter(format!("state {owner}")).await?;
        let state = self.state().router_state(owner);
        fate.end().await.map_err(injected)?;
        Ok(state)
    }

    async fn apply(&self, owner: &str, change: &RouteChange) -> Result<u64, RouterError> {
        let fate = self.enter(format!("apply {}", words(change))).await?;
        let applied = apply(&mut self.state(), owner, change);
        fate.end().await.map_err(injected)?;
        applied
    }

    async fn probe(&self, request: &ProbeRequest) -> Result<ProbeOutcome, RouterError> {
        let fate = self.enter(format!("probe {}", request.port)).await?;
        let outcome = {
            let mut state = self.state();
            runs(&state)?;
            probe(&mut state, request)
        };
        fate.end().await.map_err(injected)?;
        Ok(outcome)
    }

    async fn drain(
        &self,
        pool: &PoolKey,
        container_ids: &[String],
        _streams: OpenStreams,
        limit: Duration,
    ) -> Result<u64, RouterError> {
        let fate = self.enter(format!("drain {}:{}", pool.service, pool.port)).await?;
        let stuck: u64 = {
            let state = self.state();
            runs(&state)?;
            container_ids.iter().filter_map(|id| state.stuck_requests.get(id)).sum()
        };
        if stuck > 0 {
            tokio::time::sleep(limit).await;
        }
        for id in container_ids {
            let mut state = self.state();
            let routed = state.routes_to(id).is_some();
            if let Some(container) = state.containers.get_mut(id).filter(|_| !routed) {
                container.undrained = false;
            }
        }
        fate.end().await.map_err(injected)?;
        Ok(stuck)
    }
}
