//! Going back.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use shiplap_model::{
    Action, AnonymousVolumes, ContainerState, EngineError, EngineErrorKind, ObservedContainer,
    OpenStreams, Plan, ReplicaName, RouteIntent, Step, StepId, StepState,
};

use super::{Forward, KeepFailed, Learned, Note, Run, StepError, act, gate, record};
use crate::{Cancel, Event};

/// How long replicas of a release that failed may finish what they have in flight. Less than in a
/// deployment that works: what hangs in them may be what is wrong with them.
const FINISH_LIMIT: Duration = Duration::from_secs(10);

/// Undoes all steps that began, the last first. Returns what could not be undone; fails, and leaves
/// everything as it is from there on, when the lease is lost.
///
/// A step that began and did not finish is undone as well: its effect may be there, and undoing
/// what is not there does nothing.
///
/// Where one cannot be undone, what it was built on stays too. With `2 <-1 start new`, `3 <-2
/// switch to new`: while the switch stands, stopping the new replica would leave nobody to answer;
/// and while a new writer runs, starting the old one would make two.
pub(super) async fn unwind(
    run: &Run,
    plan: &Plan,
    forward: &Forward,
    learned: &Mutex<Learned>,
    reason: &str,
) -> Result<Vec<String>, StepError> {
    let order: Vec<StepId> = forward.finished.iter().chain(&forward.begun).rev().copied().collect();
    let mut left = Vec::new();
    let mut needed: BTreeSet<StepId> = BTreeSet::new();
    let mut announced = false;
    // Undoing is not to be interrupted by what caused it.
    let run = &Run { cancel: Cancel::default(), ..again(run) };
    for id in order {
        let step = plan.steps.iter().find(|step| step.id == id).expect("steps of this plan");
        let words = words(run, step);
        if needed.contains(&id) {
            needed.extend(&step.after);
            left.extend(words.map(|what| format!("{what}: not done, since it is still needed")));
            continue;
        }
        let Some(what) = words else { continue };
        if !announced {
            announced = true;
            run.reporter.event(Event::Unwinding { reason: reason.to_owned() });
        }
        // A journal that cannot be written must not keep us from going back.
        let announced = match record(run, id, &what, StepState::UndoStarted, Note::Nothing).await {
            Err(error) if error.is_lease_lost() => return Err(error),
            other => other.is_ok(),
        };
        let undone = undo(run, step, learned).await;
        // It may be writable again by now; that something was undone comes after that it began.
        if !announced {
            let _ = record(run, id, &what, StepState::UndoStarted, Note::Nothing).await;
        }
        match undone {
            Ok(()) => {
                let _ = record(run, id, &what, StepState::Undone, Note::Nothing).await;
                run.reporter.event(Event::Undone { step: id, what });
            }
            Err(error) if error.is_lease_lost() => return Err(error),
            Err(error) => {
                let text = error.text();
                let _ = record(run, id, &what, StepState::UndoFailed, Note::Reason(&text)).await;
                run.reporter.event(Event::Failed {
                    step: id,
                    what: what.clone(),
                    reason: text.clone(),
                });
                left.push(format!("{what}: {text}"));
                needed.extend(&step.after);
            }
        }
    }
    Ok(left)
}

/// Starts what ran before and does not run any more, though nothing here stopped it: an engine that
/// is restarted leaves containers down whose restart policy does not say otherwise, one that is killed
/// others too. Returns what could not be started.
pub(super) async fn start_again(run: &Run) -> Result<Vec<String>, StepError> {
    let run = &Run { cancel: Cancel::default(), ..again(run) };
    let mut down: Vec<String> = run.before.iter().cloned().collect();
    loop {
        let tried = down.len();
        let mut left = Vec::new();
        let mut again = Vec::new();
        for id in down {
            match start_if_down(run, &id).await {
                Ok(()) => {}
                Err((_, error)) if error.is_lease_lost() => return Err(error),
                Err((name, error)) => {
                    left.push(format!("start {name}: {}", error.text()));
                    again.push(id);
                }
            }
        }
        // One that shares the namespace of another starts after it.
        if again.is_empty() || again.len() == tried {
            return Ok(left);
        }
        down = again;
    }
}

/// The same for one container; an error comes with its name.
async fn start_if_down(run: &Run, container: &str) -> Result<(), (String, StepError)> {
    let found = run.engine.container(container).await;
    let found = found.map_err(|error| (container.to_owned(), StepError::from(error)))?;
    // Whoever removed it did so on purpose.
    let is_it = |found: &ObservedContainer| run.before.contains(&found.id) && is_down(run, found);
    let Some(ObservedContainer { id, name, .. }) = found.filter(is_it) else { return Ok(()) };
    let text = format!("{name} ran before and had stopped meanwhile: starting it again");
    run.reporter.event(Event::Notice(text));
    act::start(run, &id).await.map_err(|error| (name, error))
}

/// Whether it has ended without having done its work.
fn is_down(run: &Run, container: &ObservedContainer) -> bool {
    match container.state {
        ContainerState::Exited(0) => !act::may_end(run, container),
        ContainerState::Exited(_) | ContainerState::Dead => true,
        ContainerState::Created
        | ContainerState::Running
        | ContainerState::Restarting
        | ContainerState::Paused => false,
    }
}

fn again(run: &Run) -> Run {
    Run {
        engine: run.engine.clone(),
        router: run.router.clone(),
        ledger: run.ledger.clone(),
        reporter: run.reporter.clone(),
        cancel: run.cancel.clone(),
        lease: run.lease.clone(),
        number: run.number,
        desired: run.desired.clone(),
        keep_failed: run.keep_failed,
        limits: run.limits,
        before: run.before.clone(),
        // Who goes back waits for nobody.
        meeting: None,
    }
}

/// How a step is undone, in words; nothing where there is nothing to undo.
fn words(run: &Run, step: &Step) -> Option<String> {
    match &step.action {
        Action::EnsureHolder(holder) => Some(format!("remove {}", holder.name)),
        Action::CreateNetwork(network) => Some(format!("remove network {}", network.name)),
        Action::Create(replica) => Some(match run.keep_failed {
            KeepFailed::No => format!("remove {}", replica.name),
            KeepFailed::Yes => format!("keep {} for a look", replica.name),
        }),
        // Also what is removed later: it must be gone before the one before it starts again, since
        // both may write to one volume.
        Action::Start { container, .. } => Some(format!("stop {container}")),
        Action::Thaw { container, .. } => Some(format!("freeze {container}")),
        Action::Route { what, .. } => Some(format!("take back: {what}")),
        Action::Stop { container, .. } => Some(format!("start {container}")),
        // Pulled and built images wait for the next attempt; a new volume may already hold data.
        Action::Pull { .. }
        | Action::Build { .. }
        | Action::Require(_)
        | Action::EnsureEdge
        | Action::CreateVolume(_)
        | Action::Gate { .. }
        | Action::Drain { .. }
        | Action::Watch { .. }
        | Action::Meet { .. } => None,
        Action::Freeze { .. }
        | Action::RemoveHolder { .. }
        | Action::Rename { .. }
        | Action::Remove { .. }
        | Action::RemoveNetwork { .. }
        | Action::RemoveVolume { .. } => None,
    }
}

async fn undo(run: &Run, step: &Step, learned: &Mutex<Learned>) -> Result<(), StepError> {
    match &step.action {
        Action::EnsureHolder(holder) => Ok(run.router.remove_holder(&holder.name).await?),
        Action::CreateNetwork(network) => Ok(run.engine.remove_network(&network.name).await?),
        Action::Create(replica) => uncreate(run, &replica.name, &replica.base_name).await,
        Action::Start { container, .. } => match run.engine.stop(container, None).await {
            Err(error) if error.kind == EngineErrorKind::NotFound => Ok(()),
            other => {
                other?;
                Ok(run.engine.set_restart(container, act::NEVER).await?)
            }
        },
        Action::Thaw { container, .. } => match act::freeze(run, container).await {
            Err(StepError::Engine(error)) if error.kind == EngineErrorKind::NotFound => Ok(()),
            other => other,
        },
        Action::Route { to, back, .. } => {
            for name in back.pools.iter().flat_map(|pool| &pool.replicas) {
                start_if_down(run, name).await.map_err(|(_, error)| error)?;
            }
            act::route(run, back, learned, act::PORT_FREED_WITHIN).await?;
            finish(run, to, back).await;
            Ok(())
        }
        Action::Stop { container, gate, restart, .. } => {
            run.engine.set_restart(container, restart).await?;
            act::start(run, container).await.map_err(removed_by_hand)?;
            gate::pass(run, step.id, step.service.as_deref(), container, gate, learned).await
        }
        Action::Pull { .. }
        | Action::Build { .. }
        | Action::Require(_)
        | Action::EnsureEdge
        | Action::CreateVolume(_)
        | Action::Gate { .. }
        | Action::Drain { .. }
        | Action::Watch { .. }
        | Action::Meet { .. }
        | Action::Freeze { .. }
        | Action::RemoveHolder { .. }
        | Action::Rename { .. }
        | Action::Remove { .. }
        | Action::RemoveNetwork { .. }
        | Action::RemoveVolume { .. } => unreachable!("has no words, so it is not undone"),
    }
}

fn removed_by_hand(error: StepError) -> StepError {
    match error {
        StepError::Engine(error) if error.kind == EngineErrorKind::NotFound => {
            let help = "somebody removed it meanwhile; `shiplap deploy` makes it anew".to_owned();
            StepError::Engine(EngineError { help: Some(help), ..error })
        }
        other => other,
    }
}

/// Replicas that lose their requests again finish those that they have: they stop next. One that
/// does not is the reason for going back, and no reason not to.
async fn finish(run: &Run, to: &RouteIntent, back: &RouteIntent) {
    for pool in &to.pools {
        let stays = |name: &String| {
            back.pools.iter().any(|before| before.key == pool.key && before.replicas.contains(name))
        };
        let mut ids = Vec::new();
        for name in pool.replicas.iter().filter(|name| !stays(name)) {
            let found = run.engine.container(name).await;
            ids.extend(found.ok().flatten().filter(|c| c.state.is_running()).map(|c| c.id));
        }
        if !ids.is_empty() {
            let _ = run.router.drain(&pool.key, &ids, OpenStreams::End, FINISH_LIMIT).await;
        }
    }
}

async fn uncreate(run: &Run, name: &str, base: &str) -> Result<(), StepError> {
    match run.keep_failed {
        KeepFailed::No => Ok(run.engine.remove(name, AnonymousVolumes::Remove).await?),
        KeepFailed::Yes => {
            match run.engine.stop(name, None).await {
                Err(error) if error.kind != EngineErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
            let aside = ReplicaName { base: base.to_owned(), deployment: run.number };
            Ok(run.engine.rename(name, &aside.failed()).await?)
        }
    }
}
