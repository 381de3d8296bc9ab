//! One step's effect. Each can be repeated.

use std::sync::Mutex;
use std::time::Duration;

use shiplap_model::{
    Action, ContainerState, EngineError, EngineErrorKind, Health, ImagePin, Limit, MeetingPoint,
    ObservedContainer, OpenStreams, Phase, ProgressSink, RouteIntent, RouterError, Span, Starts,
    Step, StepId, StoredImage,
};
use tokio::time::Instant;

use super::{Learned, Run, StepError, gate, require, resolve};
use crate::Event;

/// The restart policy of a container that must not come back by itself.
pub(super) const NEVER: &str = "no";

/// How often a watched replica is looked at: often enough to fall back within a second of a
/// crash, rarely enough to cost nothing.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// How long the edge tries to open a port that a container has just given up. The engine frees
/// it when its proxy process has ended, some 10 ms after the container.
pub(super) const PORT_FREED_WITHIN: Duration = Duration::from_secs(5);

/// How often it tries.
const PORT_RETRY: Duration = Duration::from_millis(10);

/// The image that a step has pulled or built.
pub(super) fn made(action: &Action, learned: &Mutex<Learned>) -> Option<StoredImage> {
    let (reference, digest) = if let Action::Pull { image, .. } = action {
        (&image.reference, image.digest.clone())
    } else if let Action::Build { request } = action {
        (&request.tag, None)
    } else {
        return None;
    };
    let id = learned.lock().expect("no step panics").images.get(reference).cloned();
    id.map(|id| StoredImage { reference: reference.clone(), id: Some(id), digest })
}

pub(super) async fn act(run: &Run, step: &Step, learned: &Mutex<Learned>) -> Result<(), StepError> {
    match &step.action {
        Action::Pull { image, platform } => {
            pull(run, step.id, image, platform.as_deref(), learned).await
        }
        Action::Build { request } => {
            let image = run.engine.build(request, sink(run, step.id)).await?;
            let mut learned = learned.lock().expect("no step panics");
            learned.images.insert(request.tag.clone(), image.id);
            Ok(())
        }
        Action::Require(requirement) => require::require(run, step.id, requirement, learned).await,
        Action::EnsureEdge => Ok(run.router.ensure().await?),
        Action::EnsureHolder(holder) => Ok(run.router.ensure_holder(holder).await?),
        Action::RemoveHolder { name } => Ok(run.router.remove_holder(name).await?),
        Action::CreateNetwork(network) => Ok(run.engine.create_network(network).await?),
        Action::CreateVolume(volume) => Ok(run.engine.create_volume(volume).await?),
        Action::Create(replica) => {
            run.engine.create(&resolve::with_made_images(run, learned), replica).await?;
            Ok(())
        }
        Action::Start { container, restart, starts } => {
            if let Some(policy) = restart {
                run.engine.set_restart(container, policy).await?;
            }
            match starts {
                Starts::Again => start(run, container).await,
                Starts::Once => start_once(run, container).await,
            }
        }
        Action::Thaw { container, restart } => {
            run.engine.set_restart(container, restart).await?;
            thaw(run, container).await
        }
        Action::Gate { container, gate } => {
            gate::pass(run, step.id, step.service.as_deref(), container, gate, learned).await
        }
        Action::Route { to, .. } => {
            // Before anything was stopped a port that is taken stays taken.
            let patience = match step.phase {
                Phase::Prepare => Duration::ZERO,
                Phase::Change | Phase::Tidy => PORT_FREED_WITHIN,
            };
            route(run, to, learned, patience).await
        }
        Action::Drain { pools, containers, streams, limit } => {
            let mut ids = Vec::new();
            for name in containers {
                ids.extend(id_of(run, name, learned).await?);
            }
            drain(run, step.id, pools, &ids, *streams, *limit).await
        }
        Action::Stop { container, grace, .. } => {
            // By its id: the name may belong to its successor by the time of the last look.
            let id = id_of(run, container, learned).await?;
            stop(run, id.as_deref().unwrap_or(container), *grace).await
        }
        Action::Freeze { container } => freeze(run, container).await,
        Action::Watch { containers, window } => watch(run, containers, *window).await,
        Action::Meet { point, others } => meet(run, step.id, *point, others).await,
        Action::Rename { from, to } => rename(run, from, to).await,
        Action::Remove { container, grace, anonymous_volumes } => {
            run.engine.stop(container, *grace).await.or_else(gone_is_fine)?;
            Ok(run.engine.remove(container, *anonymous_volumes).await?)
        }
        Action::RemoveNetwork { name } => Ok(run.engine.remove_network(name).await?),
        Action::RemoveVolume { name } => Ok(run.engine.remove_volume(name).await?),
    }
}

/// Starts a container. Where it shares the namespace of one that an engine is about to start again,
/// that one is waited for.
pub(super) async fn start(run: &Run, container: &str) -> Result<(), StepError> {
    let began = Instant::now();
    loop {
        let error = match run.engine.start(container).await {
            Err(error) if error.kind == EngineErrorKind::Conflict => error,
            other => return Ok(other?),
        };
        let all = run.engine.observe(&run.desired.project, None).await?.containers;
        let is_waited_for = all.iter().any(|other| other.name != container && comes_back(other));
        if !is_waited_for || began.elapsed() >= run.limits.engine_away {
            return Err(error.into());
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

/// The id of a container. What the plan knows is not asked for: requests may be held meanwhile.
async fn id_of(
    run: &Run,
    name: &str,
    learned: &Mutex<Learned>,
) -> Result<Option<String>, StepError> {
    let known = learned.lock().expect("no step panics").containers.get(name).cloned();
    match known {
        Some(id) => Ok(Some(id)),
        None => Ok(run.engine.container(name).await?.map(|found| found.id)),
    }
}

/// Stops a container so that it stays stopped.
///
/// Its policy goes after it has stopped: a deployer that died between the two would otherwise leave
/// one that serves and does not come back with the next boot.
async fn stop(run: &Run, id: &str, grace: Option<Duration>) -> Result<(), StepError> {
    run.engine.stop(id, grace).await?;
    run.engine.set_restart(id, NEVER).await?;
    // An engine that was restarted between the two has started it again.
    let found = run.engine.container(id).await?;
    if found.is_some_and(|found| found.state.is_running()) {
        run.engine.stop(id, grace).await?;
    }
    Ok(())
}

/// Freezes a container. One that an engine has stopped in restarting rests already.
pub(super) async fn freeze(run: &Run, container: &str) -> Result<(), StepError> {
    run.engine.set_restart(container, NEVER).await?;
    match run.engine.pause(container).await {
        Err(error) if error.kind == EngineErrorKind::Conflict => {
            match run.engine.container(container).await? {
                Some(found) if found.state.is_running() => Err(error.into()),
                Some(_) | None => Ok(()),
            }
        }
        other => Ok(other?),
    }
}

/// Thaws a container. One that an engine has stopped in restarting is started.
async fn thaw(run: &Run, container: &str) -> Result<(), StepError> {
    match run.engine.unpause(container).await {
        Err(error) if error.kind == EngineErrorKind::Conflict => {
            match run.engine.container(container).await?.map(|found| found.state) {
                Some(ContainerState::Exited(_) | ContainerState::Created) => {
                    start(run, container).await
                }
                Some(_) | None => Err(error.into()),
            }
        }
        other => Ok(other?),
    }
}

/// Whether a container that does not run is about to: an engine that was restarted starts it
/// again. A crash does not look like this: the engine calls it restarting then.
pub(super) fn comes_back(container: &ObservedContainer) -> bool {
    let policy = container.facts.get("restart").and_then(|policy| policy.as_str());
    matches!(container.state, ContainerState::Exited(_))
        && matches!(policy, Some("always" | "unless-stopped"))
}

/// Starts a job, unless it has run: a job may end before the answer to its start arrives.
async fn start_once(run: &Run, name: &str) -> Result<(), StepError> {
    let found = run.engine.container(name).await?;
    match found.map(|container| container.state) {
        Some(
            ContainerState::Exited(_)
            | ContainerState::Running
            | ContainerState::Restarting
            | ContainerState::Paused
            | ContainerState::Dead,
        ) => Ok(()),
        // That it is gone is for the engine to say.
        Some(ContainerState::Created) | None => start(run, name).await,
    }
}

fn gone_is_fine(error: EngineError) -> Result<(), EngineError> {
    if error.kind == EngineErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn sink(run: &Run, step: StepId) -> ProgressSink {
    let reporter = run.reporter.clone();
    std::sync::Arc::new(move |progress| reporter.event(Event::Progress { step, progress }))
}

/// Pulls exactly the pinned digest, then gives it the tag that the file names.
async fn pull(
    run: &Run,
    step: StepId,
    image: &ImagePin,
    platform: Option<&str>,
    learned: &Mutex<Learned>,
) -> Result<(), StepError> {
    let exact = image.by_digest().unwrap_or_else(|| image.reference.clone());
    let got = run.engine.pull(&exact, platform, sink(run, step)).await?;
    if !image.reference.contains('@') {
        run.engine.tag(&got.id, &image.reference).await?;
    }
    learned.lock().expect("no step panics").images.insert(image.reference.clone(), got.id);
    Ok(())
}

pub(super) async fn route(
    run: &Run,
    intent: &RouteIntent,
    learned: &Mutex<Learned>,
    patience: Duration,
) -> Result<(), StepError> {
    let change = resolve::route_change(run, intent, learned).await?;
    let owner = format!("{}/{}", run.desired.project, run.desired.environment);
    let began = Instant::now();
    loop {
        match run.router.apply(&owner, &change).await {
            Err(RouterError::PortTaken { .. }) if began.elapsed() < patience => {
                tokio::time::sleep(PORT_RETRY).await;
            }
            other => return Ok(other.map(drop)?),
        }
    }
}

async fn drain(
    run: &Run,
    step: StepId,
    pools: &[shiplap_model::PoolKey],
    ids: &[String],
    streams: OpenStreams,
    limit: Duration,
) -> Result<(), StepError> {
    let drains = pools.iter().map(|pool| run.router.drain(pool, ids, streams, limit));
    let mut left = 0;
    for drained in futures_util::future::join_all(drains).await {
        left += drained?;
    }
    if left > 0 {
        let fate = if streams == OpenStreams::End { " and are cut" } else { "" };
        let seconds = limit.as_secs_f32();
        let on = format!("{left} requests were still in flight after {seconds} s{fate}");
        run.reporter.event(Event::Waiting { step, on });
    }
    Ok(())
}

/// Renames by id, so that a repeated step finds the container under either name.
async fn rename(run: &Run, from: &str, to: &str) -> Result<(), StepError> {
    match run.engine.rename(from, to).await {
        Err(error) if error.kind == EngineErrorKind::NotFound => {
            // Already done, if the new name is there.
            match run.engine.container(to).await? {
                Some(_) => Ok(()),
                None => Err(error.into()),
            }
        }
        other => Ok(other?),
    }
}

/// Whether a container that ends with 0 has done its work: nothing starts it again, and nobody
/// calls it.
pub(super) fn may_end(run: &Run, container: &ObservedContainer) -> bool {
    let is_called = run.desired.services.get(&container.service).is_some_and(|spec| {
        let check = spec.service.healthcheck.as_ref();
        !spec.service.ports.is_empty()
            || !spec.service.expose.is_empty()
            || check.is_some_and(|check| !check.test.is_empty())
    });
    container.facts.get("restart").is_none() && !is_called
}

/// That a stopped replica was not started again.
pub(super) fn not_back(name: &str, limit: Duration) -> String {
    let more = Limit::EngineAway.raise(limit);
    format!(
        "{name} was stopped, and the engine did not start it again within {} ({more})",
        Span(limit)
    )
}

/// Waits for the others. What ends the waiting asks the meeting whether it has taken place: one that
/// is interrupted a moment after it must not be the only one to go back.
async fn meet(
    run: &Run,
    step: StepId,
    point: MeetingPoint,
    others: &[String],
) -> Result<(), StepError> {
    let Some(meeting) = &run.meeting else { return Ok(()) };
    let limit = run.limits.meet;
    let on = format!("{} ({})", others.join(" "), point.word());
    run.reporter.event(Event::Waiting { step, on });
    tokio::select! {
        biased;
        met = meeting.arrive(point) => met.map_err(StepError::Gate),
        reason = run.cancel.cancelled() => {
            meeting.give_up(point, &reason).map_err(StepError::Cancelled)
        }
        () = tokio::time::sleep(limit) => {
            let raise = Limit::Meet.raise(limit);
            let reason = format!("not all have come within {} ({raise})", Span(limit));
            meeting.give_up(point, &reason).map_err(StepError::Gate)
        }
    }
}

async fn watch(run: &Run, containers: &[String], window: Duration) -> Result<(), StepError> {
    let began = Instant::now();
    let mut before = Vec::new();
    let mut absence: Option<Instant> = None;
    let owner = format!("{}/{}", run.desired.project, run.desired.environment);
    let has_edge = run.router.state(&owner).await?.is_some();
    loop {
        // An edge that goes while nothing else asks it is missed here.
        if has_edge {
            run.router.ensure().await?;
        }
        let mut absent = None;
        for (index, name) in containers.iter().enumerate() {
            let Some(container) = run.engine.container(name).await? else {
                return Err(StepError::Gate(format!("{name} was removed while it was watched")));
            };
            if before.len() <= index {
                // The engine may still call a thawed replica what it was while frozen.
                before.push((container.restarts, container.health == Some(Health::Unhealthy)));
            }
            let (restarts, was_unhealthy) = before[index];
            if comes_back(&container) {
                absent = Some(name);
                continue;
            }
            let trouble = match (container.state, container.health) {
                (ContainerState::Exited(0), _) if may_end(run, &container) => None,
                (ContainerState::Exited(code), _) => Some(format!("exited with {code}")),
                (ContainerState::Dead | ContainerState::Restarting, _) => {
                    Some("crashed".to_owned())
                }
                _ if container.restarts > restarts => Some("crashed".to_owned()),
                (_, Some(Health::Unhealthy)) if !was_unhealthy => {
                    Some("became unhealthy".to_owned())
                }
                _ => None,
            };
            if let Some(trouble) = trouble {
                let after = began.elapsed().as_secs_f32();
                let what = format!("{name} {trouble} {after:.1} s after the switch");
                return Err(StepError::Gate(gate::with_tail(run, name, what).await));
            }
        }
        match absent {
            None if began.elapsed() >= window => return Ok(()),
            None => absence = None,
            Some(name) => {
                let since = *absence.get_or_insert_with(Instant::now);
                if since.elapsed() >= run.limits.engine_away {
                    let what = not_back(name, run.limits.engine_away);
                    return Err(StepError::Gate(gate::with_tail(run, name, what).await));
                }
            }
        }
        tokio::time::sleep(WATCH_INTERVAL.min(window)).await;
    }
}
