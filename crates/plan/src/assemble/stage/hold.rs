//! Holding requests, callers first.
//!
//! A request that is in flight at a caller may be about to call a service that is replaced. If both
//! were held at once, it would wait for a service that waits for it. So the callers' requests are
//! held and come to an end first, while those they call still answer.

use std::collections::BTreeMap;

use shiplap_model::{Action, OpenStreams, Phase, PoolKey, RouteIntent, RouteTarget, StepId};

use super::Steps;
use super::in_place::Held;
use super::look::services_of;
use crate::assemble::Context;
use crate::assemble::graph::callers_first;

/// Holds and drains, wave by wave. Returns the steps after which nothing is in flight.
pub(super) fn hold(
    context: &Context<'_>,
    steps: &mut Steps,
    held: &Held<'_>,
    before: &[StepId],
) -> Vec<StepId> {
    let mut busy: BTreeMap<&str, Vec<(PoolKey, Vec<String>)>> = BTreeMap::new();
    for pool in &held.pools {
        let drained = (pool.key.clone(), pool.replicas.clone());
        busy.entry(&pool.key.service).or_default().push(drained);
    }
    for key in held.before.iter().filter(|key| held.replaced.contains(key.service.as_str())) {
        let leave = &context.services[key.service.as_str()].leave;
        let running = leave.iter().filter(|old| old.state.is_running());
        let running: Vec<String> = running.map(|old| old.name.clone()).collect();
        if !running.is_empty() {
            busy.entry(&key.service).or_default().push((key.clone(), running));
        }
    }
    let waves = callers_first(context.desired, &busy.keys().copied().collect());
    let limit = context.policy.drain_while_held(waves.len());
    let mut after = before.to_vec();
    for wave in &waves {
        let of = |pool: &&RouteTarget| wave.contains(pool.key.service.as_str());
        let pools: Vec<RouteTarget> = held.pools.iter().filter(of).cloned().collect();
        if !pools.is_empty() {
            let what = format!("hold {}", services_of(&pools).join(" "));
            let to = RouteIntent { pools: held_pools(&pools), ..RouteIntent::default() };
            let back = RouteIntent { pools, ..RouteIntent::default() };
            let action = Action::Route { what, to, back };
            after = vec![steps.push(Phase::Change, None, action, after)];
        }
        // What is not replaced keeps its streams; what is replaced says goodbye to them.
        let (leave, stay): (Vec<&str>, Vec<&str>) =
            wave.iter().copied().partition(|name| held.replaced.contains(name));
        let mut drained = Vec::new();
        for (services, streams) in [(leave, OpenStreams::End), (stay, OpenStreams::Stay)] {
            let all = services.iter().flat_map(|name| &busy[name]);
            let (pools, names): (Vec<PoolKey>, Vec<Vec<String>>) = all.cloned().unzip();
            if !pools.is_empty() {
                let mut containers = names.concat();
                containers.sort();
                containers.dedup();
                let drain = Action::Drain { pools, containers, streams, limit };
                drained.push(steps.push(Phase::Change, None, drain, after.iter().copied()));
            }
        }
        after = drained;
    }
    after
}

pub(super) fn held_pools<'a>(pools: impl IntoIterator<Item = &'a RouteTarget>) -> Vec<RouteTarget> {
    let pools = pools.into_iter();
    pools.map(|pool| RouteTarget { replicas: Vec::new(), held: true, ..pool.clone() }).collect()
}
