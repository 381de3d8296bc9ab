//! Taking back a deployment before which there was none.
//!
//! There is no release to go back to, but there may have been containers: a project that Compose
//! had started, and that the deployment was taking over. What the deployment made goes, and only
//! that; what ran before it runs again.
//!
//! Nothing here is undone when it fails: undoing a way back leads to no release either. What could
//! not be done is named, and doing it again goes on from there.

use std::collections::{BTreeMap, BTreeSet};

use shiplap_model::{
    Action, AnonymousVolumes, Cause, Change, ChangeKind, ContainerState, Desired, Gate, Goal,
    HealthGate, ListenerSpec, Names, Note, Observed, ObservedContainer, OpenStreams, Phase, Plan,
    PoolKey, RouteIntent, RouteTable, RouteTarget, Starts, Step, StepId, StoredBefore,
    StoredContainer,
};

use crate::assemble::graph::callers_first;
use crate::policy::Policy;
use crate::service::is_undone;

/// How to be again where `before` was. `desired` is what the deployment was to bring about: it
/// tells how long services take to stop, and what they depend on. The policy names the deployments
/// whose traces go; without that nothing does.
#[must_use]
pub fn withdraw(
    desired: &Desired,
    observed: &Observed,
    before: &StoredBefore,
    policy: &Policy,
) -> Plan {
    let mut steps = Steps::default();
    let gone: Vec<&ObservedContainer> =
        observed.containers.iter().filter(|c| is_undone(c, policy)).collect();
    let returning = returning(observed, before, policy);
    let routes = Routes::of(observed, before, &gone);
    let closed = close(desired, observed, &routes, &gone, policy, &mut steps);
    let mut removed: BTreeMap<&str, Vec<StepId>> = BTreeMap::new();
    for container in &gone {
        let spec = desired.services.get(&container.service);
        let grace = spec.and_then(|spec| spec.service.stop_grace_period?.as_std());
        let name = container.name.clone();
        // Volumes that it shares with a container from before stay: that one uses them.
        let anonymous_volumes = AnonymousVolumes::Remove;
        let action = Action::Remove { container: name, grace, anonymous_volumes };
        let id = steps.push(Some(&container.service), action, &closed);
        removed.entry(&container.service).or_default().push(id);
    }
    bring_back(desired, policy, &returning, &closed, &removed, &mut steps);
    route_back(&routes, observed, before, &mut steps);
    let all = steps.all();
    let mut last = all.clone();
    let answered = |service: &String| routes.back.iter().any(|key| key.service == *service);
    let holders = observed.router.iter().flat_map(|router| &router.holders);
    for holder in holders.filter(|holder| !holder.spec.services.iter().any(answered)) {
        let action = Action::RemoveHolder { name: holder.spec.name.clone() };
        last.push(steps.push(None, action, &all));
    }
    let kept = policy.undo.as_ref().and_then(|undo| undo.networks.as_ref());
    for (name, network) in &observed.networks {
        let own = network.project.as_deref() == Some(desired.project.as_str());
        if own && kept.is_some_and(|kept| !kept.contains(name)) {
            steps.push(None, Action::RemoveNetwork { name: name.clone() }, &last);
        }
    }
    Plan {
        project: desired.project.clone(),
        environment: desired.environment.clone(),
        goal: Goal::Withdraw,
        routes: Vec::new(),
        changes: changes(&gone, &returning),
        notes: notes(&returning),
        steps: steps.0,
        kept_volumes: Vec::new(),
        replicas: BTreeMap::new(),
        ids: observed.ids(),
    }
}

/// Collects steps.
#[derive(Default)]
struct Steps(Vec<Step>);

impl Steps {
    fn push(&mut self, service: Option<&str>, action: Action, after: &[StepId]) -> StepId {
        let id = StepId(u32::try_from(self.0.len()).expect("fewer than 2^32 steps") + 1);
        let (service, after) = (service.map(str::to_owned), after.to_vec());
        self.0.push(Step { id, action, after, service, phase: Phase::Tidy });
        id
    }

    fn all(&self) -> Vec<StepId> {
        self.0.iter().map(|step| step.id).collect()
    }
}

/// A container from before that does not run as it did.
struct Returning<'a> {
    container: &'a ObservedContainer,
    was: &'a StoredContainer,
}

impl Returning<'_> {
    fn rests(&self) -> bool {
        self.was.running
            && !matches!(self.container.state, ContainerState::Running | ContainerState::Restarting)
    }
}

fn returning<'a>(
    observed: &'a Observed,
    before: &'a StoredBefore,
    policy: &Policy,
) -> Vec<Returning<'a>> {
    let found = before.containers.iter().filter_map(|was| {
        let container = observed.containers.iter().find(|c| c.id == was.id)?;
        Some(Returning { container, was })
    });
    found
        .filter(|r| !is_undone(r.container, policy))
        .filter(|r| r.rests() || r.container.name != r.was.name)
        .collect()
}

/// What becomes of the pools that there are.
struct Routes<'a> {
    /// Those whose names are answered for by the edge, and by a container from before: they lead
    /// there again. That is so where history was lost, not where Compose had started it.
    back: Vec<&'a PoolKey>,
    /// Those that nobody needs any more.
    dropped: Vec<&'a PoolKey>,
}

impl<'a> Routes<'a> {
    fn of(observed: &'a Observed, before: &StoredBefore, gone: &[&ObservedContainer]) -> Self {
        let is_gone = |id: &str| gone.iter().any(|c| c.id == id);
        let pools = || observed.router.iter().flat_map(|router| &router.pools);
        let leads_on = |key: &PoolKey| {
            let mut routed =
                pools().filter(|(known, _)| *known == key).flat_map(|(_, p)| &p.replicas);
            let held = observed.containers.iter().any(|c| {
                let there = before.containers.iter().any(|was| was.id == c.id && was.running);
                c.service == key.service && c.names == Names::Held && there && !is_gone(&c.id)
            });
            held || routed.any(|(replica, _, _)| !is_gone(&replica.container_id))
        };
        let (back, dropped) = pools().map(|(key, _)| key).partition(|key| leads_on(key));
        Self { back, dropped }
    }
}

/// Containers from before that answer for a pool.
fn answering(key: &PoolKey, observed: &Observed, before: &StoredBefore) -> Vec<String> {
    let was = before.containers.iter().filter(|was| was.running && was.service == key.service);
    let found = was.filter(|was| observed.containers.iter().any(|c| c.id == was.id));
    found.map(|was| was.name.clone()).collect()
}

/// Lets requests go on, to containers from before, under the names that they have again.
fn route_back(routes: &Routes<'_>, observed: &Observed, before: &StoredBefore, steps: &mut Steps) {
    let Some(router) = &observed.router else { return };
    let ids = |names: &[String]| -> BTreeSet<String> {
        let was = before.containers.iter().filter(|was| names.contains(&was.name));
        was.map(|was| was.id.clone()).collect()
    };
    let mut to = RouteIntent::default();
    for key in &routes.back {
        let pool = &router.pools[*key];
        let replicas = answering(key, observed, before);
        let now: BTreeSet<String> =
            pool.replicas.iter().map(|(replica, _, _)| replica.container_id.clone()).collect();
        if !pool.held && now == ids(&replicas) {
            continue;
        }
        to.pools.push(RouteTarget {
            key: (*key).clone(),
            protocol: Some(pool.protocol),
            replicas,
            held: false,
            networks: Vec::new(),
        });
    }
    if to.pools.is_empty() {
        return;
    }
    let mut services: Vec<&str> = to.pools.iter().map(|pool| pool.key.service.as_str()).collect();
    services.dedup();
    let what = format!("switch {}", services.join(" "));
    let action = Action::Route { what, to, back: RouteIntent::default() };
    let all = steps.all();
    steps.push(None, action, &all);
}

/// What comes in for whom goes waits while what is in flight ends, and then ports are given up that
/// nobody needs any more.
fn close(
    desired: &Desired,
    observed: &Observed,
    routes: &Routes<'_>,
    gone: &[&ObservedContainer],
    policy: &Policy,
    steps: &mut Steps,
) -> Vec<StepId> {
    let Some(router) = &observed.router else { return Vec::new() };
    let dropped = &routes.dropped;
    let listeners = router.listeners.iter().filter(|l| !routes.back.contains(&&l.pool));
    let drop_listeners: Vec<ListenerSpec> = listeners
        .map(|l| ListenerSpec { address: Some(l.address), port: l.port, pool: l.pool.clone() })
        .collect();
    let is_gone = |id: &str| gone.iter().any(|c| c.id == id);
    let loses = |key: &&&PoolKey| {
        let replicas = router.pools.get(**key).map(|pool| pool.replicas.as_slice());
        replicas.unwrap_or_default().iter().any(|(r, _, _)| is_gone(&r.container_id))
    };
    let held: Vec<&PoolKey> =
        dropped.iter().chain(routes.back.iter().filter(loses)).copied().collect();
    // Before a first deployment there were none.
    let table = (!router.table.same(&RouteTable::default())).then(RouteTable::default);
    if held.is_empty() && drop_listeners.is_empty() && table.is_none() {
        return Vec::new();
    }
    let runs = |key: &PoolKey| {
        let running = gone.iter().filter(|c| c.state == ContainerState::Running);
        let own: Vec<String> =
            running.filter(|c| c.service == key.service).map(|c| c.name.clone()).collect();
        own
    };
    let any_busy = held.iter().any(|key| !runs(key).is_empty());
    let services: BTreeSet<&str> = held.iter().map(|key| key.service.as_str()).collect();
    let waves = if any_busy { callers_first(desired, &services) } else { Vec::new() };
    let limit = policy.drain_while_held(waves.len());
    let mut after = Vec::new();
    for wave in &waves {
        let keys: Vec<&PoolKey> =
            held.iter().copied().filter(|key| wave.contains(key.service.as_str())).collect();
        let hold = |key: &&PoolKey| RouteTarget {
            key: (*key).clone(),
            protocol: router.pools.get(*key).map(|pool| pool.protocol),
            replicas: Vec::new(),
            held: true,
            networks: Vec::new(),
        };
        let to = RouteIntent { pools: keys.iter().map(hold).collect(), ..RouteIntent::default() };
        let names: Vec<&str> = wave.iter().copied().collect();
        let what = format!("hold {}", names.join(" "));
        let action = Action::Route { what, to, back: RouteIntent::default() };
        after = vec![steps.push(None, action, &after)];
        let mut containers: Vec<String> = keys.iter().flat_map(|key| runs(key)).collect();
        containers.sort();
        containers.dedup();
        if !containers.is_empty() {
            let pools = keys.iter().map(|key| (*key).clone()).collect();
            let drain = Action::Drain { pools, containers, streams: OpenStreams::End, limit };
            after = vec![steps.push(None, drain, &after)];
        }
    }
    if dropped.is_empty() && drop_listeners.is_empty() && table.is_none() {
        return after;
    }
    let drop_pools = dropped.iter().map(|key| (*key).clone()).collect();
    let to = RouteIntent { drop_pools, drop_listeners, table, ..RouteIntent::default() };
    let action = Action::Route { what: "close ports".to_owned(), to, back: RouteIntent::default() };
    vec![steps.push(None, action, &after)]
}

fn bring_back(
    desired: &Desired,
    policy: &Policy,
    returning: &[Returning<'_>],
    closed: &[StepId],
    removed: &BTreeMap<&str, Vec<StepId>>,
    steps: &mut Steps,
) {
    let mut gates: BTreeMap<&str, Vec<StepId>> = BTreeMap::new();
    // A project that was deployed has no cycle.
    let order = crate::assemble::graph::order(desired).unwrap_or_default();
    let place = |r: &&Returning<'_>| order.iter().position(|name| *name == r.was.service);
    let mut sorted: Vec<&Returning<'_>> = returning.iter().collect();
    sorted.sort_by_key(|r| (place(r), &r.was.name));
    for back in sorted {
        let service = back.was.service.as_str();
        let mut after = closed.to_vec();
        after.extend(removed.get(service).into_iter().flatten());
        let spec = desired.services.get(service);
        let needs = spec.into_iter().flat_map(|spec| spec.service.depends_on.keys());
        after.extend(needs.filter_map(|name| gates.get(name.as_str())).flatten());
        let container = back.container.name.clone();
        if back.rests() {
            let restart = back.was.restart.clone();
            let start = if back.container.state == ContainerState::Paused {
                Action::Thaw { container: container.clone(), restart }
            } else {
                let (restart, starts) = (Some(restart), Starts::Again);
                Action::Start { container: container.clone(), restart, starts }
            };
            let started = steps.push(Some(service), start, &after);
            let gate = Action::Gate { container: container.clone(), gate: gate(policy) };
            let gated = steps.push(Some(service), gate, &[started]);
            gates.entry(service).or_default().push(gated);
            after = vec![gated];
        }
        if container != back.was.name {
            let action = Action::Rename { from: container, to: back.was.name.clone() };
            steps.push(Some(service), action, &after);
        }
    }
}

/// It worked before: its own check is enough, and where it has none, that it runs.
fn gate(policy: &Policy) -> Gate {
    Gate {
        healthcheck: HealthGate::IfAny,
        ports: Vec::new(),
        steady: policy.limits.steady,
        limit: policy.limits.gate,
        completes: false,
    }
}

fn changes(gone: &[&ObservedContainer], returning: &[Returning<'_>]) -> Vec<Change> {
    let services: BTreeSet<&str> = gone.iter().map(|c| c.service.as_str()).collect();
    let back: BTreeSet<&str> = returning.iter().map(|r| r.was.service.as_str()).collect();
    let change = |service: &&str| {
        let comes_back = back.contains(service);
        let from = gone.iter().find(|c| c.service == *service);
        Change {
            service: (*service).to_owned(),
            kind: if comes_back { ChangeKind::Replace } else { ChangeKind::Remove },
            from_image: from.map(|c| crate::assemble::short(&c.image_id)),
            to_image: None,
            causes: vec![Cause::Asked],
            strategy: None,
            replicas: u32::from(comes_back),
            gate: None,
            revives: comes_back.then_some(0),
            details: Vec::new(),
        }
    };
    services.union(&back).map(change).collect()
}

fn notes(returning: &[Returning<'_>]) -> Vec<Note> {
    let published: BTreeSet<u16> = returning
        .iter()
        .filter(|r| r.rests())
        .flat_map(|r| &r.container.published)
        .map(|port| port.host_port)
        .collect();
    if published.is_empty() {
        return Vec::new();
    }
    let ports: Vec<String> = published.iter().map(u16::to_string).collect();
    let text = format!(
        "port {} moves from the edge back to the engine: requests are refused meanwhile",
        ports.join(", ")
    );
    vec![Note { code: "port-moves", text }]
}
