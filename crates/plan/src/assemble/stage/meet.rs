//! Waiting for others that are deployed together.

use shiplap_model::{Action, MeetingPoint, Phase, Step, StepId};

use super::Steps;
use crate::assemble::Context;

/// Waits until all others have come as far. Nothing where there are none.
pub(super) fn meet(
    context: &Context<'_>,
    steps: &mut Steps,
    point: MeetingPoint,
    after: impl IntoIterator<Item = StepId>,
) -> Option<StepId> {
    let others = context.policy.meet.clone();
    if others.is_empty() {
        return None;
    }
    Some(steps.push(Phase::Change, None, Action::Meet { point, others }, after))
}

/// Where nothing else is to be done, nobody is waited for.
pub(super) fn unless_alone(steps: Vec<Step>) -> Vec<Step> {
    let only_meets = steps.iter().all(|step| matches!(step.action, Action::Meet { .. }));
    if only_meets { Vec::new() } else { steps }
}
