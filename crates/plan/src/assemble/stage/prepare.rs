//! What can be missing: images, the edge, networks, volumes, host ports.

use std::collections::{BTreeMap, BTreeSet};

use shiplap_model::{
    Action, BuildRequest, ChangeKind, EngineNetwork, EngineVolume, HolderSpec, ImageOrigin,
    ListenerSpec, Phase, Requirement, RequirementKind, RouteIntent, RouteTarget, StepId,
};

use super::Steps;
use super::look::{engine_publishes, listens, pool_before, project_labels};
use crate::assemble::Context;
use crate::naming;
use crate::service::Origin;
use crate::table;

pub(super) fn prepare(context: &Context<'_>, steps: &mut Steps) -> Vec<StepId> {
    let mut ready = images(context, steps);
    ready.extend(requirements(context, steps, &ready));
    let barrier = ready.clone();
    let routes = context.new_table().is_some()
        || context.services.iter().any(|(name, service)| {
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

pub(super) fn holders(
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

pub(super) fn images(context: &Context<'_>, steps: &mut Steps) -> Vec<StepId> {
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

/// What must hold before anything is changed, one after the other: a backup before tests have
/// passed is for nothing. Images are there by then. Where no container is made, nothing is asked.
fn requirements(context: &Context<'_>, steps: &mut Steps, images: &[StepId]) -> Option<StepId> {
    let new: BTreeSet<&str> = context
        .services
        .values()
        .filter(|service| service.fresh.iter().any(|f| matches!(f.origin, Origin::Create)))
        .map(|service| service.spec.image.reference.as_str())
        .collect();
    if new.is_empty() {
        return None;
    }
    let is_known = |reference: &str| {
        let ids = context.services.values().map(|service| &service.spec.image);
        let id = ids.filter(|image| image.reference == reference).find_map(|i| i.id.as_ref());
        id.is_some_and(|id| context.observed.containers.iter().any(|c| c.image_id == *id))
    };
    let mut last: Option<StepId> = None;
    for requirement in &context.policy.requirements {
        // Before a first deployment there is nothing to save.
        if requirement.kind == RequirementKind::Backup && context.observed.containers.is_empty() {
            continue;
        }
        let about: Vec<Option<String>> = if requirement.kind.is_per_image() {
            let new = new.iter().filter(|r| !is_known(r) && requirement.is_about(r));
            new.map(|reference| Some((*reference).to_owned())).collect()
        } else {
            vec![None]
        };
        for image in about {
            let action = Action::Require(Box::new(Requirement { image, ..requirement.clone() }));
            let after: Vec<StepId> = last.map_or_else(|| images.to_vec(), |last| vec![last]);
            last = Some(steps.push(Phase::Prepare, None, action, after));
        }
    }
    last
}

pub(super) fn networks(context: &Context<'_>, steps: &mut Steps, after: &[StepId]) -> Vec<StepId> {
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

pub(super) fn volumes(context: &Context<'_>, steps: &mut Steps, after: &[StepId]) -> Vec<StepId> {
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

/// Opens the host ports that nobody listens on yet, with requests held: a port that somebody
/// else has is found now, and early callers wait rather than being refused.
pub(super) fn open_ports(
    context: &Context<'_>,
    steps: &mut Steps,
    after: &[StepId],
) -> Option<StepId> {
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
    to.guard = Box::new(context.table.guard.clone());
    to.entries = table::closed_entries(&context.table, context.observed);
    if to.listeners.is_empty() && to.names.is_empty() && to.entries.is_empty() {
        return None;
    }
    let mut ports: Vec<String> = to
        .listeners
        .iter()
        .map(|l| if l.port == 0 { "any".to_owned() } else { l.port.to_string() })
        .chain(to.entries.iter().map(|entry| entry.port.to_string()))
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
