//! The stages of a deployment as steps.

mod hold;
mod in_place;
mod leave;
mod look;
mod meet;
mod prepare;
mod replicas;
mod retire;
mod switch;

use std::collections::BTreeMap;

use shiplap_model::{Action, ContainerState, MeetingPoint, ObservedContainer, Phase, Step, StepId};

use super::Context;
use in_place::{held_group, replace_in_place};
use leave::{tidy, watch};
use meet::{meet, unless_alone};
use prepare::prepare;
use replicas::{create, start};
use switch::switch;

use crate::routes;
use crate::service::ServicePlan;

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

    /// Those that none of the others waits for.
    fn ends(&self) -> Vec<StepId> {
        let is_awaited = |id: StepId| self.steps.iter().any(|step| step.after.contains(&id));
        self.steps.iter().map(|step| step.id).filter(|id| !is_awaited(*id)).collect()
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
    // Whatever can still fail without having touched anything comes first.
    let mut untouched = ready.clone();
    untouched.extend(progress.creates.values().flatten());
    untouched.extend(progress.gates.values().flatten());
    let met = meet(context, &mut steps, MeetingPoint::Ready, untouched.iter().copied());
    untouched.extend(met);
    let release = replace_in_place(context, &mut steps, &mut progress, &held, &untouched);
    let late: Vec<&str> = context
        .order
        .iter()
        .copied()
        .filter(|name| held.after.contains(name) && !held.replaced.contains(name))
        .collect();
    for name in late {
        start(context, &mut steps, &mut progress, name, &release);
    }
    let release: Vec<StepId> = release.into_iter().chain(met).collect();
    let moved = switch(context, &mut steps, &progress, &release, &ready);
    let mut watched = watch(context, &mut steps, &moved);
    // Whatever is still under way may fail: nobody may go on meanwhile.
    let ends = steps.ends();
    watched.extend(meet(context, &mut steps, MeetingPoint::Watched, ends));
    tidy(context, &mut steps, &watched);
    unless_alone(steps.steps)
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
