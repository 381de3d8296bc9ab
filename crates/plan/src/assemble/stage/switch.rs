//! The switch: one move of all routes.

use shiplap_model::{Action, ChangeKind, ListenerSpec, Phase, RouteIntent, RouteTarget, StepId};

use super::in_place::held_group;
use super::look::{listens, pool_before, services_of};
use super::retire::stop;
use super::{Progress, Steps, gives_up_port, takes_over};
use crate::assemble::Context;

pub(super) fn switch<'a>(
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
    let (mut to, mut back) = switch_intents(context);
    if let Some(table) = context.new_table() {
        let before = context.table_before();
        to.guard = Box::new(table.guard.clone());
        back.guard = Box::new(before.guard.clone());
        to.table = Some(Box::new(table.clone()));
        back.table = Some(Box::new(before));
    }
    if to == RouteIntent::default() {
        return after;
    }
    let mut moved: Vec<&str> = services_of(&to.pools);
    let dropped: Vec<&str> = to.drop_pools.iter().map(|key| key.service.as_str()).collect();
    moved.extend(dropped);
    moved.dedup();
    let what = match moved.as_slice() {
        [] => "switch routes".to_owned(),
        moved => format!("switch {}", moved.join(" ")),
    };
    vec![steps.push(Phase::Change, None, Action::Route { what, to, back }, after)]
}

pub(super) fn switch_intents(context: &Context<'_>) -> (RouteIntent, RouteIntent) {
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
pub(super) fn drop_stale(context: &Context<'_>, to: &mut RouteIntent, back: &mut RouteIntent) {
    let Some(router) = &context.observed.router else { return };
    let may_go = |service: &str| match context.services.get(service) {
        Some(plan) => plan.changes() || plan.kind == ChangeKind::Route,
        None => context
            .orphans
            .get(service)
            .is_none_or(|all| all.iter().all(|c| crate::orphans::goes(c, context.policy))),
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
        let routed = context.routed_pools(&key.service).contains(key);
        if !inner && !routed && !wanted().any(|w| w.listener.pool == *key) {
            to.drop_pools.push(key.clone());
            back.pools.extend(pool_before(context, key));
        }
    }
}
