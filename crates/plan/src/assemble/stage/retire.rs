//! How old replicas leave, and what brings them back.

use std::time::Duration;

use shiplap_model::{Action, AnonymousVolumes, Fields, Gate, HealthGate, Names, ObservedContainer};

use super::look::pools_with;
use crate::assemble::Context;
use crate::policy::Standby;
use crate::service::ServicePlan;

pub(super) fn stop(
    context: &Context<'_>,
    service: &ServicePlan<'_>,
    old: &ObservedContainer,
) -> Action {
    Action::Stop {
        container: old.name.clone(),
        grace: grace(service),
        gate: gate_back(context, service, old),
        restart: restart_of(&old.facts),
    }
}

/// What an old replica must show when it is started again in undoing. It may listen elsewhere than
/// the new one, and have no health check: nothing is asked of it that it did not do before.
pub(super) fn gate_back(
    context: &Context<'_>,
    service: &ServicePlan<'_>,
    old: &ObservedContainer,
) -> Gate {
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
pub(super) fn restart_of(facts: &Fields) -> String {
    facts.get("restart").and_then(|policy| policy.as_str()).unwrap_or("no").to_owned()
}

/// How an old replica rests: frozen, if nobody but the edge leads to it, else stopped. A frozen
/// one whose name the engine still gives out would swallow calls.
pub(super) fn rest(
    context: &Context<'_>,
    service: &ServicePlan<'_>,
    old: &ObservedContainer,
) -> Action {
    let can_freeze = old.state.is_running() && old.names == Names::Held;
    if context.policy.standby == Standby::Frozen && can_freeze {
        return Action::Freeze { container: old.name.clone() };
    }
    stop(context, service, old)
}

pub(super) fn remove(
    service: &ServicePlan<'_>,
    old: &ObservedContainer,
    anonymous_volumes: AnonymousVolumes,
) -> Action {
    Action::Remove { container: old.name.clone(), grace: grace(service), anonymous_volumes }
}

pub(super) fn grace(service: &ServicePlan<'_>) -> Option<Duration> {
    service.spec.service.stop_grace_period.and_then(|grace| grace.as_std())
}
