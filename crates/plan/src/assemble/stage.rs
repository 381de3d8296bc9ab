//! The stages of a deployment as steps.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shiplap_compose::model::Condition;
use shiplap_model::{
    Action, AnonymousVolumes, BuildRequest, ChangeKind, ContainerState, CreateReplica,
    EngineNetwork, EngineVolume, Fields, Gate, HealthGate, HolderSpec, ImageOrigin, ListenerSpec,
    Names, ObservedContainer, Phase, PoolKey, PublishedPort, ReplicaName, RouteIntent, RouteTarget,
    Standing, Step, StepId,
};

use super::Context;
use crate::naming;
use crate::policy::Standby;
use crate::routes;
use crate::service::{Fresh, Origin, ServicePlan};

/// Collects steps.
struct Steps {
    steps: Vec<Step>,
}

impl Steps {
    fn push(
        &mut self,
        phase: Phase,
        service: Option<&str>,
        action: Action,
        after: impl IntoIterator<Item = StepId>,
    ) -> StepId {
        let id = StepId(u32::try_from(self.steps.len()).expect("fewer than 2^32 steps") + 1);
        let mut after: Vec<StepId> = after.into_iter().collect();
        after.sort_unstable();
        after.dedup();
        let service = service.map(str::to_owned);
        self.steps.push(Step { id, action, after, service, phase });
        id
    }
}

/// What other steps wait for, by service.
#[derive(Default)]
struct Progress<'a> {
    starts: BTreeMap<&'a str, Vec<StepId>>,
    gates: BTreeMap<&'a str, Vec<StepId>>,
    creates: BTreeMap<&'a str, Vec<StepId>>,
    stops: BTreeMap<&'a str, Vec<StepId>>,
}

pub(super) fn steps(context: &Context<'_>) -> Vec<Step> {
    let mut steps = Steps { steps: Vec::new() };
    let ready = prepare(context, &mut steps);
    let mut progress = Progress::default();
    for name in &context.order {
        create(context, &mut steps, &mut progress, name, &ready);
    }
    let held = held_group(context);
    let early: Vec<&str> =
        context.order.iter().copied().filter(|name| !held.after.contains(name)).collect();
    for name in &early {
        start(context, &mut steps, &mut progress, name, &[]);
    }
    let release = replace_in_place(context, &mut steps, &mut progress, &held, &ready);
    let late: Vec<&str> = context
        .order
        .iter()
        .copied()
        .filter(|name| held.after.contains(name) && !held.replaced.contains(name))
        .collect();
    for name in late {
        start(context, &mut steps, &mut progress, name, &release);
    }
    let moved = switch(context, &mut steps, &progress, &release, &ready);
    let watched = watch(context, &mut steps, &moved);
    tidy(context, &mut steps, &watched);
    steps.steps
}

/// Whether an old replica must stop before the edge can hold its port.
pub(crate) fn takes_over(context: &Context<'_>, service: &ServicePlan<'_>) -> bool {
    service.leave.iter().any(|old| gives_up_port(context, service, old))
}

fn gives_up_port(
    context: &Context<'_>,
    service: &ServicePlan<'_>,
    old: &ObservedContainer,
) -> bool {
    let wanted = &context.wanted[service.spec.name.as_str()];
    old.state == ContainerState::Running && routes::published_by_engine(old, wanted)
}

// --- 1. What can be missing -------------------------------------------------------------------

fn prepare(context: &Context<'_>, steps: &mut Steps) -> Vec<StepId> {
    let mut ready = images(context, steps);
    let barrier = ready.clone();
    let routes = context.services.iter().any(|(name, service)| {
        !context.pools_of(name).is_empty()
            && (service.changes() || service.kind == ChangeKind::Route)
    });
    let mut open_after = barrier.clone();
    if routes {
        let edge = steps.push(Phase::Prepare, None, Action::EnsureEdge, []);
        open_after.push(edge);
        ready.push(edge);
    }
    let networks = networks(context, steps, &barrier);
    open_after.extend(holders(context, steps, &open_after, &networks));
    ready.extend(networks);
    ready.extend(volumes(context, steps, &barrier));
    ready.extend(&open_after);
    ready.extend(open_ports(context, steps, &open_after));
    ready
}

fn holders(
    context: &Context<'_>,
    steps: &mut Steps,
    edge: &[StepId],
    networks: &[StepId],
) -> Vec<StepId> {
    let needed = |holder: &&HolderSpec| {
        holder.services.iter().any(|name| {
            let service = context.services.get(name.as_str());
            service.is_some_and(|s| s.changes() || s.kind == ChangeKind::Route)
        })
    };
    let make = context.naming.make.iter().filter(needed);
    make.map(|holder| {
        let action = Action::EnsureHolder(Box::new(holder.clone()));
        let after = edge.iter().chain(networks).copied();
        steps.push(Phase::Prepare, None, action, after)
    })
    .collect()
}

fn images(context: &Context<'_>, steps: &mut Steps) -> Vec<StepId> {
    let mut seen = BTreeSet::new();
    let mut ids = Vec::new();
    for name in &context.order {
        let service = &context.services[name];
        let creates = service.fresh.iter().any(|f| matches!(f.origin, Origin::Create));
        let image = &service.spec.image;
        if !creates || !seen.insert(image.reference.as_str()) {
            continue;
        }
        let platform = service.spec.service.platform.clone();
        let action = match (image.origin, &service.spec.service.build) {
            (ImageOrigin::Pull, _) => Action::Pull { image: image.clone(), platform },
            (ImageOrigin::Build, Some(build)) => Action::Build {
                request: Box::new(BuildRequest {
                    tag: image.reference.clone(),
                    build: build.clone(),
                    platform,
                }),
            },
            (ImageOrigin::Local | ImageOrigin::Build, _) => continue,
        };
        ids.push(steps.push(Phase::Prepare, Some(name), action, []));
    }
    ids
}

fn networks(context: &Context<'_>, steps: &mut Steps, after: &[StepId]) -> Vec<StepId> {
    let mut ids = Vec::new();
    for (key, spec) in context.desired.compose.networks.iter().filter(|(_, n)| !n.external) {
        let used = context
            .services
            .values()
            .any(|s| !s.fresh.is_empty() && s.spec.service.networks.contains_key(key));
        let name = spec.name.clone().unwrap_or_else(|| key.clone());
        if !used || context.observed.networks.contains_key(&name) {
            continue;
        }
        let mut labels: BTreeMap<String, String> = spec.labels.clone().into_iter().collect();
        labels.insert(shiplap_model::COMPOSE_NETWORK.to_owned(), key.clone());
        labels.extend(project_labels(context));
        let network = EngineNetwork { name, key: key.clone(), spec: spec.clone(), labels };
        let action = Action::CreateNetwork(Box::new(network));
        ids.push(steps.push(Phase::Prepare, None, action, after.iter().copied()));
    }
    ids
}

fn volumes(context: &Context<'_>, steps: &mut Steps, after: &[StepId]) -> Vec<StepId> {
    let mut ids = Vec::new();
    for (key, spec) in context.desired.compose.volumes.iter().filter(|(_, v)| !v.external) {
        let used = context.services.values().any(|s| {
            !s.fresh.is_empty()
                && s.spec.service.volumes.iter().any(|m| m.source.as_deref() == Some(key.as_str()))
        });
        let name = spec.name.clone().unwrap_or_else(|| key.clone());
        if !used || context.observed.volumes.contains_key(&name) {
            continue;
        }
        let mut labels: BTreeMap<String, String> = spec.labels.clone().into_iter().collect();
        labels.insert(shiplap_model::COMPOSE_VOLUME.to_owned(), key.clone());
        labels.extend(project_labels(context));
        let volume = EngineVolume { name, key: key.clone(), spec: spec.clone(), labels };
        let action = Action::CreateVolume(Box::new(volume));
        ids.push(steps.push(Phase::Prepare, None, action, after.iter().copied()));
    }
    ids
}

fn project_labels(context: &Context<'_>) -> [(String, String); 2] {
    [
        (shiplap_model::COMPOSE_PROJECT.to_owned(), context.desired.project.clone()),
        (shiplap_model::COMPOSE_VERSION.to_owned(), context.policy.version.clone()),
    ]
}

/// Opens the host ports that nobody listens on yet, with requests held: a port that somebody
/// else has is found now, and early callers wait rather than being refused.
fn open_ports(context: &Context<'_>, steps: &mut Steps, after: &[StepId]) -> Option<StepId> {
    let mut to = RouteIntent::default();
    let mut back = RouteIntent::default();
    for (name, service) in &context.services {
        if service.fresh.is_empty() || engine_publishes(context, service) {
            continue;
        }
        let listeners = context.wanted[name].iter().map(|wanted| &wanted.listener);
        let closed: Vec<&ListenerSpec> = listeners.filter(|l| !listens(context, l)).collect();
        let named = naming::answers(&context.naming, context.observed, name);
        let names = if named { Vec::new() } else { context.names_of(name) };
        if closed.is_empty() && names.is_empty() {
            continue;
        }
        for key in context.pools_of(name) {
            let opened = closed.iter().any(|l| l.pool == key) || !names.is_empty();
            if opened && pool_before(context, &key).is_none() {
                to.pools.push(RouteTarget {
                    protocol: context.protocol_of(&key),
                    key: key.clone(),
                    replicas: Vec::new(),
                    held: true,
                    networks: Vec::new(),
                });
                back.drop_pools.push(key);
            }
        }
        to.listeners.extend(closed.iter().map(|l| (*l).clone()));
        back.drop_listeners.extend(closed.into_iter().cloned());
        to.names.extend(names);
    }
    if to.listeners.is_empty() && to.names.is_empty() {
        return None;
    }
    let mut ports: Vec<String> = to
        .listeners
        .iter()
        .map(|l| if l.port == 0 { "any".to_owned() } else { l.port.to_string() })
        .collect();
    ports.dedup();
    let mut names: Vec<&str> = to.names.iter().map(|name| name.service.as_str()).collect();
    names.dedup();
    let what = match (ports.is_empty(), names.is_empty()) {
        (false, true) => format!("open port {}", ports.join(", ")),
        (true, _) => format!("answer to {}", names.join(" ")),
        (false, false) => {
            format!("open port {}, answer to {}", ports.join(", "), names.join(" "))
        }
    };
    let action = Action::Route { what, to, back };
    Some(steps.push(Phase::Prepare, None, action, after.iter().copied()))
}

fn engine_publishes(context: &Context<'_>, service: &ServicePlan<'_>) -> bool {
    let wanted = &context.wanted[service.spec.name.as_str()];
    service.leave.iter().any(|c| routes::published_by_engine(c, wanted))
}

fn listens(context: &Context<'_>, wanted: &ListenerSpec) -> bool {
    wanted.port != 0
        && context.observed.router.iter().flat_map(|r| &r.listeners).any(|listener| {
            listener.pool == wanted.pool
                && listener.port == wanted.port
                && wanted
                    .address
                    .map_or(listener.address.is_unspecified(), |a| a == listener.address)
        })
}

/// A pool as the edge has it now, by container names.
fn pool_before(context: &Context<'_>, key: &PoolKey) -> Option<RouteTarget> {
    let pool = context.observed.router.as_ref()?.pools.get(key)?;
    Some(RouteTarget {
        key: key.clone(),
        protocol: Some(pool.protocol),
        replicas: pool
            .replicas
            .iter()
            .filter_map(|(replica, _, _)| context.name_of(&replica.container_id))
            .collect(),
        held: pool.held,
        networks: context
            .services
            .get(key.service.as_str())
            .map_or_else(Vec::new, |service| context.networks_of(&service.spec.name)),
    })
}

// --- 2. New replicas --------------------------------------------------------------------------

fn create<'a>(
    context: &Context<'a>,
    steps: &mut Steps,
    progress: &mut Progress<'a>,
    name: &'a str,
    ready: &[StepId],
) {
    let service = &context.services[name];
    for fresh in service.fresh.iter().filter(|f| matches!(f.origin, Origin::Create)) {
        let mut after = ready.to_vec();
        for peer in peers(context, service).keys() {
            after.extend(progress.creates.get(peer.as_str()).into_iter().flatten());
        }
        let action = Action::Create(Box::new(replica(context, service, fresh)));
        let id = steps.push(Phase::Change, Some(name), action, after);
        progress.creates.entry(name).or_default().push(id);
    }
}

fn replica(context: &Context<'_>, service: &ServicePlan<'_>, fresh: &Fresh<'_>) -> CreateReplica {
    let spec = service.spec;
    let digests = spec.fields.digests(&format!("{}:{}", context.policy.deployment, fresh.base));
    let mut labels = BTreeMap::from(project_labels(context));
    let label = |key: &str, value: String| (key.to_owned(), value);
    labels.extend([
        label(shiplap_model::COMPOSE_SERVICE, spec.name.clone()),
        label(shiplap_model::COMPOSE_NUMBER, fresh.number.to_string()),
        label(shiplap_model::COMPOSE_ONEOFF, "False".to_owned()),
        label(shiplap_model::COMPOSE_CONFIG_HASH, digests.whole()),
        label(shiplap_model::COMPOSE_WORKING_DIR, context.desired.working_dir.clone()),
        label(shiplap_model::COMPOSE_FILES, context.desired.config_files.join(",")),
        label(shiplap_model::ENVIRONMENT, context.desired.environment.clone()),
        label(shiplap_model::DEPLOYMENT, context.policy.deployment.to_string()),
        label(shiplap_model::FIELDS, digests.to_label()),
    ]);
    let anonymous_volumes = service
        .leave
        .iter()
        .find(|old| old.number == fresh.number)
        .map(|old| old.anonymous_volumes.clone())
        .unwrap_or_default();
    if context.naming.of(&spec.name) == Names::Held {
        labels.insert(shiplap_model::NAMES.to_owned(), "held".to_owned());
    }
    CreateReplica {
        service: spec.name.clone(),
        name: fresh.name.clone(),
        base_name: fresh.base.clone(),
        number: fresh.number,
        names: context.naming.of(&spec.name),
        anonymous_volumes,
        labels,
        publish: published_by_engine(service),
        peers: peers(context, service),
    }
}

/// Ports that only the engine can carry.
fn published_by_engine(service: &ServicePlan<'_>) -> Vec<PublishedPort> {
    let ports = &service.spec.service.ports;
    ports
        .iter()
        .filter_map(|port| {
            let protocol = port.protocol.as_deref().filter(|p| *p != "tcp")?;
            Some(PublishedPort {
                host_address: port.host_ip.as_deref().and_then(|ip| ip.parse().ok()),
                host_port: port.published_range().map_or(0, |(first, _)| first),
                container_port: port.target,
                protocol: protocol.to_owned(),
            })
        })
        .collect()
}

/// The containers that stand for services whose namespaces or volumes this one uses.
fn peers(context: &Context<'_>, service: &ServicePlan<'_>) -> BTreeMap<String, String> {
    let spec = &service.spec.service;
    let modes = [&spec.network_mode, &spec.ipc, &spec.pid].into_iter().flatten();
    let namespaces = modes.filter_map(|mode| mode.strip_prefix("service:"));
    let volumes = spec
        .volumes_from
        .iter()
        .filter(|from| !from.starts_with("container:"))
        .map(|from| from.split(':').next().unwrap_or(from));
    let links = spec.links.iter().map(|link| link.split(':').next().unwrap_or(link));
    namespaces
        .chain(volumes)
        .chain(links)
        .filter_map(|name| {
            let other = context.services.get(name)?;
            Some((name.to_owned(), other.serving().into_iter().next()?))
        })
        .collect()
}

/// Starts the new replicas of a service and waits for their gates.
fn start<'a>(
    context: &Context<'a>,
    steps: &mut Steps,
    progress: &mut Progress<'a>,
    name: &'a str,
    also_after: &[StepId],
) {
    let service = &context.services[name];
    let mut before = also_after.to_vec();
    for (dependency, how) in &service.spec.service.depends_on {
        let done = match how.condition {
            Condition::Started => &progress.starts,
            Condition::Healthy | Condition::CompletedSuccessfully => &progress.gates,
        };
        before.extend(done.get(dependency.as_str()).into_iter().flatten());
    }
    before.extend(progress.creates.get(name).into_iter().flatten());
    before.extend(progress.stops.get(name).into_iter().flatten());
    for fresh in &service.fresh {
        let container = fresh.name.clone();
        let action = match fresh.origin {
            Origin::Revive(old) => match old.state {
                ContainerState::Running | ContainerState::Restarting => None,
                ContainerState::Paused => {
                    Some(Action::Thaw { container, restart: restart_of(&service.spec.facts) })
                }
                ContainerState::Created | ContainerState::Exited(_) | ContainerState::Dead => {
                    let restart = Some(restart_of(&service.spec.facts));
                    Some(Action::Start { container, restart })
                }
            },
            Origin::Create => Some(Action::Start { container, restart: None }),
        };
        // What was frozen has worked beside what it depends on: it need not wait for it.
        let thaws = matches!(action, Some(Action::Thaw { .. }));
        let before = if thaws { also_after.to_vec() } else { before.clone() };
        let started =
            action.map(|action| steps.push(Phase::Change, Some(name), action, before.clone()));
        progress.starts.entry(name).or_default().extend(started);
        let mut gate = service.gate.clone();
        if thaws && gate.healthcheck == HealthGate::Pass && !gate.ports.is_empty() {
            gate.healthcheck = HealthGate::Passed;
        }
        let gate = Action::Gate { container: fresh.name.clone(), gate };
        let after = started.map_or_else(|| before.clone(), |id| vec![id]);
        let id = steps.push(Phase::Change, Some(name), gate, after);
        progress.gates.entry(name).or_default().push(id);
    }
    if !service.fresh.is_empty() {
        let gates = progress.gates.get(name).cloned().unwrap_or_default();
        let answered = answer(context, steps, name, &gates);
        progress.gates.entry(name).or_default().extend(answered);
    }
}

/// Where callers wait that nobody has answered so far, the first working replicas do so at once:
/// what depends on the service may call it before it works itself.
fn answer(
    context: &Context<'_>,
    steps: &mut Steps,
    name: &str,
    gates: &[StepId],
) -> Option<StepId> {
    let names = context.names_of(name);
    let service = &context.services[name];
    let pools: Vec<RouteTarget> = context
        .pools_of(name)
        .into_iter()
        .filter(|key| !names.is_empty() && pool_before(context, key).is_none())
        .map(|key| RouteTarget {
            protocol: context.protocol_of(&key),
            key,
            replicas: service.serving(),
            held: false,
            networks: context.networks_of(name),
        })
        .collect();
    if pools.is_empty() {
        return None;
    }
    let waiting =
        |pool: &RouteTarget| RouteTarget { replicas: Vec::new(), held: true, ..pool.clone() };
    // Where the engine has the host port, nothing was opened before.
    let back = if engine_publishes(context, service) {
        let drop_pools = pools.iter().map(|pool| pool.key.clone()).collect();
        RouteIntent { drop_pools, ..RouteIntent::default() }
    } else {
        RouteIntent { pools: pools.iter().map(waiting).collect(), ..RouteIntent::default() }
    };
    let to = RouteIntent { pools, names, ..RouteIntent::default() };
    let action = Action::Route { what: format!("answer to {name}"), to, back };
    Some(steps.push(Phase::Change, Some(name), action, gates.iter().copied()))
}

// --- 3. Replaced in place ---------------------------------------------------------------------

/// What is held while stop-first services are replaced.
#[derive(Default)]
struct Held<'a> {
    /// Services that are replaced in place.
    replaced: BTreeSet<&'a str>,
    /// Those, and all services that need them and change: they start after it.
    after: BTreeSet<&'a str>,
    /// Pools that are held, as they are now.
    pools: Vec<RouteTarget>,
    /// Pools that a deployment which did not end holds already. Its replicas may still be busy.
    before: Vec<PoolKey>,
    /// Pools of ports that the engine gives up when an old replica stops.
    taken_over: Vec<RouteTarget>,
}

fn held_group<'a>(context: &Context<'a>) -> Held<'a> {
    let mut held = Held::default();
    let mut affected = BTreeSet::new();
    for name in &context.order {
        if context.services[name].stops_first() {
            held.replaced.insert(*name);
            affected.insert(*name);
            affected.extend(context.dependents(name));
        }
    }
    held.after = affected.clone();
    for name in &held.replaced {
        if !takes_over(context, &context.services[name]) {
            continue;
        }
        let pool = |key: PoolKey| RouteTarget {
            protocol: context.protocol_of(&key),
            key,
            replicas: Vec::new(),
            held: true,
            networks: context.networks_of(name),
        };
        held.taken_over.extend(context.pools_of(name).into_iter().map(pool));
    }
    let pools = context.observed.router.iter().flat_map(|router| router.pools.keys());
    let pools = pools
        .filter(|key| affected.contains(key.service.as_str()))
        .filter_map(|key| pool_before(context, key));
    let (open, before): (Vec<_>, Vec<_>) = pools.partition(|pool| !pool.replicas.is_empty());
    held.pools = open;
    held.before = before.into_iter().map(|pool| pool.key).collect();
    held
}

/// Holds, stops, starts, gates, releases. Returns the steps after which requests flow again.
fn replace_in_place<'a>(
    context: &Context<'a>,
    steps: &mut Steps,
    progress: &mut Progress<'a>,
    held: &Held<'a>,
    ready: &[StepId],
) -> Vec<StepId> {
    if held.replaced.is_empty() {
        return Vec::new();
    }
    // Whatever can still fail without having touched anything comes first.
    let mut before: Vec<StepId> = ready.to_vec();
    before.extend(progress.creates.values().flatten());
    before.extend(progress.gates.values().flatten());
    let stop_after = hold(context, steps, held, &before);
    // Those that need others stop before them.
    for name in context.order.iter().rev().filter(|name| held.replaced.contains(*name)) {
        let service = &context.services[name];
        let mut after = stop_after.clone();
        for dependent in context.dependents(name) {
            after.extend(progress.stops.get(dependent).into_iter().flatten());
        }
        for old in service.leave.iter().filter(|old| service.stops_in_place(old)) {
            let id =
                steps.push(Phase::Change, Some(name), stop(context, service, old), after.clone());
            progress.stops.entry(name).or_default().push(id);
        }
    }
    let opened = take_over_ports(context, steps, progress, held);
    let in_place: Vec<&str> =
        context.order.iter().copied().filter(|name| held.replaced.contains(name)).collect();
    for name in &in_place {
        start(context, steps, progress, name, &[]);
    }
    let mut gates: Vec<StepId> = in_place
        .iter()
        .flat_map(|name| progress.gates.get(name).into_iter().flatten().copied())
        .collect();
    gates.extend(opened);
    let others_start = context.services.iter().any(|(name, service)| {
        held.after.contains(name) && !held.replaced.contains(name) && !service.fresh.is_empty()
    });
    // Where nobody else starts, the switch itself lets requests go on.
    let nothing_held = held.pools.is_empty() && held.taken_over.is_empty();
    if nothing_held || !others_start { gates } else { release(context, steps, held, &gates) }
}

/// Opens the ports that old replicas have just given up, with requests held: callers wait for the
/// new replica instead of being refused until it works.
fn take_over_ports(
    context: &Context<'_>,
    steps: &mut Steps,
    progress: &Progress<'_>,
    held: &Held<'_>,
) -> Vec<StepId> {
    let mut ids = Vec::new();
    for name in &held.replaced {
        let own = held.taken_over.iter().filter(|pool| pool.key.service == *name);
        let pools: Vec<RouteTarget> = own.cloned().collect();
        if pools.is_empty() {
            continue;
        }
        let listeners: Vec<ListenerSpec> =
            context.wanted[name].iter().map(|wanted| wanted.listener.clone()).collect();
        let back = RouteIntent {
            drop_pools: pools.iter().map(|pool| pool.key.clone()).collect(),
            drop_listeners: listeners.clone(),
            ..RouteIntent::default()
        };
        let to = RouteIntent { pools, listeners, ..RouteIntent::default() };
        let what = format!("take over the port of {name}");
        let after = progress.stops.get(name).into_iter().flatten().copied();
        ids.push(steps.push(Phase::Change, Some(name), Action::Route { what, to, back }, after));
    }
    ids
}

fn hold(
    context: &Context<'_>,
    steps: &mut Steps,
    held: &Held<'_>,
    before: &[StepId],
) -> Vec<StepId> {
    let mut containers: Vec<String> =
        held.pools.iter().flat_map(|pool| pool.replicas.clone()).collect();
    let mut drained: Vec<PoolKey> = held.pools.iter().map(|pool| pool.key.clone()).collect();
    for key in &held.before {
        let service = &context.services[key.service.as_str()];
        let busy: Vec<String> = service
            .leave
            .iter()
            .filter(|old| old.state.is_running() && held.replaced.contains(key.service.as_str()))
            .map(|old| old.name.clone())
            .collect();
        if !busy.is_empty() {
            drained.push(key.clone());
            containers.extend(busy);
        }
    }
    if drained.is_empty() {
        return before.to_vec();
    }
    containers.sort();
    containers.dedup();
    let drain = Action::Drain { pools: drained, containers, limit: context.policy.limits.drain };
    if held.pools.is_empty() {
        return vec![steps.push(Phase::Change, None, drain, before.iter().copied())];
    }
    let action = Action::Route {
        what: format!("hold {}", services_of(&held.pools).join(" ")),
        to: RouteIntent { pools: held_pools(&held.pools), ..RouteIntent::default() },
        back: RouteIntent { pools: held.pools.clone(), ..RouteIntent::default() },
    };
    let holding = steps.push(Phase::Change, None, action, before.iter().copied());
    vec![steps.push(Phase::Change, None, drain, [holding])]
}

fn release(
    context: &Context<'_>,
    steps: &mut Steps,
    held: &Held<'_>,
    gates: &[StepId],
) -> Vec<StepId> {
    let all = || held.pools.iter().chain(&held.taken_over);
    let pools: Vec<RouteTarget> = all()
        .map(|pool| {
            let service = pool.key.service.as_str();
            let replicas = if held.replaced.contains(service) {
                context.services[service].serving()
            } else {
                pool.replicas.clone()
            };
            RouteTarget { replicas, held: false, ..pool.clone() }
        })
        .collect();
    let action = Action::Route {
        what: format!("release {}", services_of(&pools).join(" ")),
        to: RouteIntent { pools, ..RouteIntent::default() },
        back: RouteIntent { pools: held_pools(all()), ..RouteIntent::default() },
    };
    vec![steps.push(Phase::Change, None, action, gates.iter().copied())]
}

fn held_pools<'a>(pools: impl IntoIterator<Item = &'a RouteTarget>) -> Vec<RouteTarget> {
    let pools = pools.into_iter();
    pools.map(|pool| RouteTarget { replicas: Vec::new(), held: true, ..pool.clone() }).collect()
}

fn services_of(pools: &[RouteTarget]) -> Vec<&str> {
    let mut services: Vec<&str> = pools.iter().map(|pool| pool.key.service.as_str()).collect();
    services.sort_unstable();
    services.dedup();
    services
}

fn stop(context: &Context<'_>, service: &ServicePlan<'_>, old: &ObservedContainer) -> Action {
    Action::Stop {
        container: old.name.clone(),
        grace: grace(service),
        gate: gate_back(context, service, old),
        restart: restart_of(&old.facts),
    }
}

/// What an old replica must show when it is started again in undoing. It may listen elsewhere than
/// the new one, and have no health check: nothing is asked of it that it did not do before.
fn gate_back(context: &Context<'_>, service: &ServicePlan<'_>, old: &ObservedContainer) -> Gate {
    let mut gate = service.gate.clone();
    let answered = |port: u16| {
        pools_with(context, old).iter().any(|key| key.port == port)
            || old.published.iter().any(|published| published.container_port == port)
    };
    gate.ports.retain(|probe| answered(probe.port));
    if old.health.is_none() {
        gate.healthcheck = HealthGate::None;
    }
    if gate.ports.is_empty() && gate.healthcheck == HealthGate::None {
        gate.steady = context.policy.limits.steady;
    }
    gate
}

/// The restart policy among a container's facts.
fn restart_of(facts: &Fields) -> String {
    facts.get("restart").and_then(|policy| policy.as_str()).unwrap_or("no").to_owned()
}

/// How an old replica rests: frozen, if nobody but the edge leads to it, else stopped. A frozen
/// one whose name the engine still gives out would swallow calls.
fn rest(context: &Context<'_>, service: &ServicePlan<'_>, old: &ObservedContainer) -> Action {
    let can_freeze = old.state.is_running() && old.names == Names::Held;
    if context.policy.standby == Standby::Frozen && can_freeze {
        return Action::Freeze { container: old.name.clone() };
    }
    stop(context, service, old)
}

fn remove(
    service: &ServicePlan<'_>,
    old: &ObservedContainer,
    anonymous_volumes: AnonymousVolumes,
) -> Action {
    Action::Remove { container: old.name.clone(), grace: grace(service), anonymous_volumes }
}

fn grace(service: &ServicePlan<'_>) -> Option<Duration> {
    service.spec.service.stop_grace_period.and_then(|grace| grace.as_std())
}

// --- 4. The switch ----------------------------------------------------------------------------

fn switch<'a>(
    context: &Context<'a>,
    steps: &mut Steps,
    progress: &Progress<'a>,
    release: &[StepId],
    ready: &[StepId],
) -> Vec<StepId> {
    let mut after: Vec<StepId> = progress.gates.values().flatten().copied().collect();
    after.extend(release);
    if after.is_empty() {
        after.extend(ready);
    }
    let gated = after.clone();
    for name in &context.order {
        let service = &context.services[name];
        if service.stops_first() || !takes_over(context, service) {
            continue;
        }
        let stops: Vec<StepId> = service
            .leave
            .iter()
            .filter(|old| gives_up_port(context, service, old))
            .map(|old| {
                steps.push(Phase::Change, Some(name), stop(context, service, old), gated.clone())
            })
            .collect();
        after.extend(stops);
    }
    let (to, back) = switch_intents(context);
    if to == RouteIntent::default() {
        return after;
    }
    let mut moved: Vec<&str> = services_of(&to.pools);
    let dropped: Vec<&str> = to.drop_pools.iter().map(|key| key.service.as_str()).collect();
    moved.extend(dropped);
    moved.dedup();
    let what = format!("switch {}", moved.join(" "));
    vec![steps.push(Phase::Change, None, Action::Route { what, to, back }, after)]
}

fn switch_intents(context: &Context<'_>) -> (RouteIntent, RouteIntent) {
    let mut to = RouteIntent::default();
    let mut back = RouteIntent::default();
    let held = held_group(context);
    for (name, service) in &context.services {
        let moves = service.changes()
            || service.kind == ChangeKind::Route
            || held.pools.iter().any(|pool| pool.key.service == *name);
        if !moves {
            continue;
        }
        to.listeners.extend(context.wanted[name].iter().map(|wanted| wanted.listener.clone()));
        to.names.extend(context.names_of(name));
        for key in &context.pools_of(name) {
            to.pools.push(RouteTarget {
                key: key.clone(),
                protocol: context.protocol_of(key),
                replicas: service.serving(),
                held: false,
                networks: context.networks_of(name),
            });
            // What was held before it moved goes back to being held: undoing goes on from there.
            let holding = held.pools.iter().any(|pool| pool.key == *key);
            match pool_before(context, key) {
                Some(pool) if holding => {
                    back.pools.push(RouteTarget { replicas: Vec::new(), held: true, ..pool });
                }
                Some(pool) => back.pools.push(pool),
                None => back.drop_pools.push(key.clone()),
            }
        }
    }
    for listener in &to.listeners {
        if !listens(context, listener) {
            back.drop_listeners.push(listener.clone());
        }
    }
    drop_stale(context, &mut to, &mut back);
    (to, back)
}

/// Routes of the environment that nothing asks for any more.
fn drop_stale(context: &Context<'_>, to: &mut RouteIntent, back: &mut RouteIntent) {
    let Some(router) = &context.observed.router else { return };
    let may_go = |service: &str| match context.services.get(service) {
        Some(plan) => plan.changes() || plan.kind == ChangeKind::Route,
        None => context.policy.remove_orphans || !context.orphans.contains_key(service),
    };
    let wanted = || context.wanted.values().flatten();
    for listener in router.listeners.iter().filter(|l| may_go(&l.pool.service)) {
        let stays = wanted().any(|w| {
            w.listener.pool == listener.pool
                && (w.listener.port == listener.port || w.listener.port == 0)
                && w.listener
                    .address
                    .map_or(listener.address.is_unspecified(), |a| a == listener.address)
        });
        if !stays {
            let spec = ListenerSpec {
                address: Some(listener.address),
                port: listener.port,
                pool: listener.pool.clone(),
            };
            to.drop_listeners.push(spec.clone());
            back.listeners.push(spec);
        }
    }
    for key in router.pools.keys().filter(|key| may_go(&key.service)) {
        let inner = context.naming.by_service.contains_key(&key.service);
        if !inner && !wanted().any(|w| w.listener.pool == *key) {
            to.drop_pools.push(key.clone());
            back.pools.extend(pool_before(context, key));
        }
    }
}

// --- 5. Watching ------------------------------------------------------------------------------

fn watch(context: &Context<'_>, steps: &mut Steps, after: &[StepId]) -> Vec<StepId> {
    let mut containers = Vec::new();
    let mut window = Duration::ZERO;
    for service in context.services.values() {
        // What comes up for the first time has nothing to go back to.
        if service.kind != ChangeKind::Replace || service.gate.completes {
            continue;
        }
        containers.extend(service.fresh.iter().map(|fresh| fresh.name.clone()));
        window = window.max(monitor(context, service));
    }
    if containers.is_empty() || window.is_zero() {
        return after.to_vec();
    }
    let action = Action::Watch { containers, window };
    vec![steps.push(Phase::Change, None, action, after.iter().copied())]
}

fn monitor(context: &Context<'_>, service: &ServicePlan<'_>) -> Duration {
    let update = service.spec.service.deploy.as_ref().and_then(|d| d.update_config.as_ref());
    update.and_then(|config| config.monitor?.as_std()).unwrap_or(context.policy.limits.watch)
}

// --- 6. Leaving -------------------------------------------------------------------------------

fn tidy(context: &Context<'_>, steps: &mut Steps, after: &[StepId]) {
    for name in &context.order {
        let service = &context.services[name];
        let mut discarded = BTreeMap::new();
        for old in &service.discard {
            let action = remove(service, old, AnonymousVolumes::Remove);
            let id = steps.push(Phase::Tidy, Some(name), action, after.iter().copied());
            discarded.insert(old.name.clone(), id);
        }
        let gone = if service.changes() {
            leave(context, steps, service, after, &discarded)
        } else {
            vec![]
        };
        let settled = if gone.is_empty() { after.to_vec() } else { gone };
        for fresh in service.fresh.iter().filter(|fresh| fresh.name != fresh.base) {
            let action = Action::Rename { from: fresh.name.clone(), to: fresh.base.clone() };
            steps.push(Phase::Tidy, Some(name), action, settled.iter().copied());
        }
        for kept in &service.keep {
            let (base, standing) = ReplicaName::parse(&kept.name);
            if standing == Standing::Aside {
                let action = Action::Rename { from: kept.name.clone(), to: base.to_owned() };
                steps.push(Phase::Tidy, Some(name), action, settled.iter().copied());
            }
        }
    }
    for name in &context.naming.gone {
        let action = Action::RemoveHolder { name: name.clone() };
        steps.push(Phase::Tidy, None, action, after.iter().copied());
    }
    if context.policy.remove_orphans {
        for (name, containers) in &context.orphans {
            for container in containers {
                let mut before = after.to_vec();
                let pools = pools_with(context, container);
                if container.state.is_running() && !pools.is_empty() {
                    let drain = Action::Drain {
                        pools,
                        containers: vec![container.name.clone()],
                        limit: context.policy.limits.drain,
                    };
                    before = vec![steps.push(Phase::Tidy, Some(name), drain, before)];
                }
                let action = Action::Remove {
                    container: container.name.clone(),
                    grace: None,
                    anonymous_volumes: AnonymousVolumes::Keep,
                };
                steps.push(Phase::Tidy, Some(name), action, before);
            }
        }
    }
}

/// Pools that route to a container now.
fn pools_with(context: &Context<'_>, container: &ObservedContainer) -> Vec<PoolKey> {
    let pools = context.observed.router.iter().flat_map(|router| &router.pools);
    pools
        .filter(|(_, pool)| pool.replicas.iter().any(|(r, _, _)| r.container_id == container.id))
        .map(|(key, _)| key.clone())
        .collect()
}

/// Old replicas finish, stop, and give up the name. Returns the last steps. `discarded` are the
/// removals that free names.
fn leave(
    context: &Context<'_>,
    steps: &mut Steps,
    service: &ServicePlan<'_>,
    after: &[StepId],
    discarded: &BTreeMap<String, StepId>,
) -> Vec<StepId> {
    let name = Some(service.spec.name.as_str());
    // Where a replica that stays waits for the name, a deployment ended between its switch and here.
    let is_replaced = |old: &ObservedContainer| {
        service.kind == ChangeKind::Replace
            || service.keep.iter().any(|kept| ReplicaName::parse(&kept.name).0 == old.name)
    };
    let mut last = Vec::new();
    for old in &service.leave {
        let stopped = service.stops_in_place(old) || gives_up_port(context, service, old);
        let mut before = after.to_vec();
        let pools: Vec<PoolKey> = context.pools_of(&service.spec.name).into_iter().collect();
        if !stopped && old.state.is_running() && !pools.is_empty() {
            let drain = Action::Drain {
                pools,
                containers: vec![old.name.clone()],
                limit: context.policy.limits.drain,
            };
            before = vec![steps.push(Phase::Tidy, name, drain, before)];
        }
        if old.state == ContainerState::Created {
            // It never ran: there is nothing to go back to.
            let action = remove(service, old, AnonymousVolumes::Remove);
            last.push(steps.push(Phase::Tidy, name, action, before));
            continue;
        }
        if !is_replaced(old) {
            let action = remove(service, old, AnonymousVolumes::Keep);
            last.push(steps.push(Phase::Tidy, name, action, before));
            continue;
        }
        // One that has ended by itself, or keeps restarting, must not come back either.
        let may_come_back = old.state.is_running() || old.facts.get("restart").is_some();
        if !stopped && may_come_back {
            before = vec![steps.push(Phase::Tidy, name, rest(context, service, old), before)];
        }
        if ReplicaName::parse(&old.name).1 == Standing::Live {
            let aside = ReplicaName {
                base: old.name.clone(),
                deployment: old.deployment.unwrap_or_default(),
            };
            // Adopted twice, both old replicas are of deployment 0.
            let freed = discarded.get(&aside.aside()).copied();
            let before_rename = before.iter().copied().chain(freed);
            let action = Action::Rename { from: old.name.clone(), to: aside.aside() };
            before = vec![steps.push(Phase::Tidy, name, action, before_rename)];
        }
        last.extend(before.iter().filter(|id| !after.contains(id)));
    }
    last
}
