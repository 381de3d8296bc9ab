//! New replicas: made, started, gated, and answered for.

use std::collections::BTreeMap;

use shiplap_compose::model::Condition;
use shiplap_model::{
    Action, AnonymousVolumes, ContainerState, CreateReplica, HealthGate, Names, Phase,
    PublishedPort, RouteIntent, RouteTarget, Starts, StepId,
};

use super::look::{engine_publishes, pool_before, project_labels};
use super::retire::{remove, restart_of};
use super::{Progress, Steps};
use crate::assemble::Context;
use crate::service::{Fresh, Origin, ServicePlan};

pub(super) fn create<'a>(
    context: &Context<'a>,
    steps: &mut Steps,
    progress: &mut Progress<'a>,
    name: &'a str,
    ready: &[StepId],
) {
    let service = &context.services[name];
    let mut ready = ready.to_vec();
    for old in &service.obstacles {
        let action = remove(service, old, AnonymousVolumes::Remove);
        let cleared = steps.push(Phase::Change, Some(name), action, ready.clone());
        ready.push(cleared);
    }
    for fresh in service.fresh.iter().filter(|f| matches!(f.origin, Origin::Create)) {
        let mut after = ready.clone();
        for peer in peers(context, service).keys() {
            after.extend(progress.creates.get(peer.as_str()).into_iter().flatten());
        }
        let action = Action::Create(Box::new(replica(context, service, fresh)));
        let id = steps.push(Phase::Change, Some(name), action, after);
        progress.creates.entry(name).or_default().push(id);
    }
}

pub(super) fn replica(
    context: &Context<'_>,
    service: &ServicePlan<'_>,
    fresh: &Fresh<'_>,
) -> CreateReplica {
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
    if let Some(id) = &spec.image.id {
        labels.insert(shiplap_model::COMPOSE_IMAGE.to_owned(), id.clone());
    }
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
pub(super) fn published_by_engine(service: &ServicePlan<'_>) -> Vec<PublishedPort> {
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
pub(super) fn peers(context: &Context<'_>, service: &ServicePlan<'_>) -> BTreeMap<String, String> {
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
pub(super) fn start<'a>(
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
    let is_job = crate::service::is_job(service.spec, &context.desired.compose);
    let starts = if is_job { Starts::Once } else { Starts::Again };
    for fresh in service.starting() {
        let container = fresh.name.clone();
        let action = match fresh.origin {
            Origin::Revive(old) => match old.state {
                ContainerState::Running | ContainerState::Restarting => None,
                ContainerState::Paused => {
                    Some(Action::Thaw { container, restart: restart_of(&service.spec.facts) })
                }
                // A job that failed is not given another go by the deployment that it failed in.
                ContainerState::Exited(_) if service.gate.completes => None,
                ContainerState::Exited(_) | ContainerState::Dead => {
                    let restart = Some(restart_of(&service.spec.facts));
                    Some(Action::Start { container, restart, starts: Starts::Again })
                }
                ContainerState::Created => {
                    let restart = Some(restart_of(&service.spec.facts));
                    Some(Action::Start { container, restart, starts })
                }
            },
            Origin::Create => Some(Action::Start { container, restart: None, starts }),
            Origin::Finished(_) => None,
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
    if service.starting().next().is_some() {
        let gates = progress.gates.get(name).cloned().unwrap_or_default();
        let answered = answer(context, steps, name, &gates);
        progress.gates.entry(name).or_default().extend(answered);
    }
}

/// Where callers wait that nobody has answered so far, the first working replicas do so at once:
/// what depends on the service may call it before it works itself.
pub(super) fn answer(
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
