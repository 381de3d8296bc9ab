//! Services that are replaced in place, with requests held.

use std::collections::BTreeSet;

use shiplap_model::{Action, ListenerSpec, Phase, PoolKey, RouteIntent, RouteTarget, StepId};

use super::hold::{held_pools, hold};
use super::look::{pool_before, services_of};
use super::replicas::start;
use super::retire::stop;
use super::{Progress, Steps, takes_over};
use crate::assemble::Context;

/// What is held while stop-first services are replaced.
#[derive(Default)]
pub(super) struct Held<'a> {
    /// Services that are replaced in place.
    pub(super) replaced: BTreeSet<&'a str>,
    /// Those, and all services that need them and change: they start after it.
    pub(super) after: BTreeSet<&'a str>,
    /// Pools that are held, as they are now.
    pub(super) pools: Vec<RouteTarget>,
    /// Pools that a deployment which did not end holds already. Its replicas may still be busy.
    pub(super) before: Vec<PoolKey>,
    /// Pools of ports that the engine gives up when an old replica stops.
    pub(super) taken_over: Vec<RouteTarget>,
}

pub(super) fn held_group<'a>(context: &Context<'a>) -> Held<'a> {
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

/// Holds, stops, starts, gates, releases, after what can fail without having touched anything.
/// Returns the steps after which requests flow again.
pub(super) fn replace_in_place<'a>(
    context: &Context<'a>,
    steps: &mut Steps,
    progress: &mut Progress<'a>,
    held: &Held<'a>,
    before: &[StepId],
) -> Vec<StepId> {
    if held.replaced.is_empty() {
        return Vec::new();
    }
    let stop_after = hold(context, steps, held, before);
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
pub(super) fn take_over_ports(
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
        let guard = Box::new(context.table.guard.clone());
        let to = RouteIntent { pools, listeners, guard, ..RouteIntent::default() };
        let what = format!("take over the port of {name}");
        let after = progress.stops.get(name).into_iter().flatten().copied();
        ids.push(steps.push(Phase::Change, Some(name), Action::Route { what, to, back }, after));
    }
    ids
}

pub(super) fn release(
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
