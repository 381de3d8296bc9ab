//! Watching, and then leaving.

use std::collections::BTreeMap;
use std::time::Duration;

use shiplap_model::{
    Action, AnonymousVolumes, ChangeKind, ContainerState, ObservedContainer, OpenStreams, Phase,
    PoolKey, ReplicaName, Standing, StepId,
};

use super::look::pools_with;
use super::retire::{remove, rest};
use super::{Steps, gives_up_port};
use crate::assemble::Context;
use crate::orphans::goes;
use crate::service::{ServicePlan, is_undone};

pub(super) fn watch(context: &Context<'_>, steps: &mut Steps, after: &[StepId]) -> Vec<StepId> {
    let mut containers = Vec::new();
    let mut window = Duration::ZERO;
    for service in context.services.values() {
        // What comes up for the first time has nothing to go back to.
        if service.kind != ChangeKind::Replace || service.gate.completes {
            continue;
        }
        let before = containers.len();
        containers.extend(service.starting().map(|fresh| fresh.name.clone()));
        if containers.len() > before {
            window = window.max(monitor(context, service));
        }
    }
    if containers.is_empty() || window.is_zero() {
        return after.to_vec();
    }
    let action = Action::Watch { containers, window };
    vec![steps.push(Phase::Change, None, action, after.iter().copied())]
}

pub(super) fn monitor(context: &Context<'_>, service: &ServicePlan<'_>) -> Duration {
    let update = service.spec.service.deploy.as_ref().and_then(|d| d.update_config.as_ref());
    update.and_then(|config| config.monitor?.as_std()).unwrap_or(context.policy.limits.watch)
}

pub(super) fn tidy(context: &Context<'_>, steps: &mut Steps, after: &[StepId]) {
    for name in &context.order {
        let service = &context.services[name];
        let mut discarded = BTreeMap::new();
        for old in &service.discard {
            // It may have been routed to when a deployment ended that was on its way back.
            let before = drained(context, steps, service, old, after);
            let action = remove(service, old, AnonymousVolumes::Remove);
            let id = steps.push(Phase::Tidy, Some(name), action, before);
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
    {
        for (name, containers) in &context.orphans {
            for container in containers.iter().filter(|c| goes(c, context.policy)) {
                let mut before = after.to_vec();
                let pools = pools_of_orphan(context, container);
                if container.state.is_running() && !pools.is_empty() {
                    let drain = Action::Drain {
                        pools,
                        containers: vec![container.name.clone()],
                        streams: OpenStreams::End,
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
    remove_networks(context, steps);
}

/// Pools through which a container of a service that is not wanted may have been called.
fn pools_of_orphan(context: &Context<'_>, container: &ObservedContainer) -> Vec<PoolKey> {
    let mut pools = pools_with(context, container);
    let undo = context.policy.undo.as_ref().filter(|_| is_undone(container, context.policy));
    let ports = undo.and_then(|undo| undo.ports.get(&container.service));
    let keys = ports.into_iter().flatten().map(|port| PoolKey {
        project: context.desired.project.clone(),
        environment: context.desired.environment.clone(),
        service: container.service.clone(),
        port: *port,
    });
    pools.extend(keys);
    pools.sort();
    pools.dedup();
    pools
}

/// Networks that the deployment made which is gone back from, when nothing is in them any more.
fn remove_networks(context: &Context<'_>, steps: &mut Steps) {
    let Some(before) = context.policy.undo.as_ref().and_then(|undo| undo.networks.as_ref()) else {
        return;
    };
    let wanted = |name: &String| {
        context.desired.compose.networks.values().any(|n| n.name.as_ref() == Some(name))
    };
    let all: Vec<StepId> = steps.steps.iter().map(|step| step.id).collect();
    for (name, network) in &context.observed.networks {
        let own = network.project.as_deref() == Some(context.desired.project.as_str());
        if own && !before.contains(name) && !wanted(name) {
            let action = Action::RemoveNetwork { name: name.clone() };
            steps.push(Phase::Tidy, None, action, all.clone());
        }
    }
}

/// What a replica has in flight ends, if it may have any. Returns what to wait for.
fn drained(
    context: &Context<'_>,
    steps: &mut Steps,
    service: &ServicePlan<'_>,
    old: &ObservedContainer,
    after: &[StepId],
) -> Vec<StepId> {
    let name = service.spec.name.as_str();
    let pools: Vec<PoolKey> = context.pools_of(name).into_iter().collect();
    if !old.state.is_running() || pools.is_empty() {
        return after.to_vec();
    }
    let containers = vec![old.name.clone()];
    let (streams, limit) = (OpenStreams::End, context.policy.limits.drain);
    let drain = Action::Drain { pools, containers, streams, limit };
    vec![steps.push(Phase::Tidy, Some(name), drain, after.iter().copied())]
}

/// Old replicas finish, stop, and give up the name. Returns the last steps. `discarded` are the
/// removals that free names.
pub(super) fn leave(
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
        let mut before =
            if stopped { after.to_vec() } else { drained(context, steps, service, old, after) };
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
        if is_undone(old, context.policy) {
            let action = remove(service, old, AnonymousVolumes::Remove);
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
