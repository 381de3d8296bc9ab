//! Does what a plan says.
//!
//! Steps run as soon as those that they wait for are finished. Before each one `started` is
//! written to the journal, afterwards `finished` or `failed`. When a step fails before the new
//! release has taken over, everything done is undone in reverse order; afterwards a failure is
//! reported and left for the next deployment.

mod act;
mod gate;
mod require;
mod resolve;
mod undo;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures_util::stream::{FuturesUnordered, StreamExt};
use shiplap_model::{
    Action, ContainerState, Desired, Engine, EngineError, EngineErrorKind, JournalEntry, LeaseKey,
    Ledger, LedgerError, Limits, MeetingPoint, Outcome, Phase, Plan, Protocol, RequirementRun,
    Router, RouterError, Step, StepId, StepState, StoredImage,
};

use crate::{Cancel, Event, Meeting, Reporter, now_ms};

/// Most steps at a time that keep the engine busy. Its own start of a container is the slow part:
/// on two idle cores it gains nothing from more than two at once, among others who want them it
/// does.
const MAX_PARALLEL: usize = 16;
/// Most steps at a time that only wait: they cost the engine a look now and then. 30 services
/// whose gate lasts a second would otherwise take four seconds more.
const MAX_WAITING: usize = 64;

/// Whether replicas that failed stay for a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeepFailed {
    /// They are removed.
    #[default]
    No,
    /// They are stopped and renamed.
    Yes,
}

/// All that an execution needs.
pub struct Run {
    /// The engine.
    pub engine: Arc<dyn Engine>,
    /// The edge.
    pub router: Arc<dyn Router>,
    /// The ledger.
    pub ledger: Arc<dyn Ledger>,
    /// Where events go.
    pub reporter: Arc<dyn Reporter>,
    /// Asks to stop.
    pub cancel: Cancel,
    /// The lease under which it runs.
    pub lease: LeaseKey,
    /// The deployment's number.
    pub number: u64,
    /// What should come about.
    pub desired: Arc<Desired>,
    /// Whether failed replicas stay.
    pub keep_failed: KeepFailed,
    /// How long things may take that the plan says nothing of.
    pub limits: Limits,
    /// Ids of the containers that ran when it began: after a way back they run again.
    pub before: BTreeSet<String>,
    /// Where it meets others that are carried out together with it.
    pub meeting: Option<Arc<dyn Meeting>>,
}

/// How an execution ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Execution {
    /// How.
    pub outcome: Outcome,
    /// Why, where it was not done.
    pub reason: Option<String>,
    /// What was left undone after the new release had taken over, or could not be undone.
    pub left: Vec<String>,
    /// Ids of images that were pulled or built, by reference.
    pub images: BTreeMap<String, String>,
    /// Whether it stopped because somebody else has the lease: nothing more may be touched.
    pub lost_lease: bool,
}

/// Why a step did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Router(#[from] RouterError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("{0}")]
    Gate(String),
    #[error("{0}")]
    Cancelled(String),
}

impl StepError {
    /// Whether somebody else has the lease by now: touching anything more would be two at once.
    fn is_lease_lost(&self) -> bool {
        match self {
            Self::Ledger(LedgerError::LeaseLost(_)) | Self::Router(RouterError::LeaseLost(_)) => {
                true
            }
            Self::Engine(error) | Self::Router(RouterError::Engine(error)) => {
                error.kind == EngineErrorKind::LeaseLost
            }
            Self::Ledger(_) | Self::Router(_) | Self::Gate(_) | Self::Cancelled(_) => false,
        }
    }

    /// The whole chain in one line, with what to type where the engine's adapter knows.
    fn text(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            let more = cause.to_string();
            if !text.contains(&more) {
                text = format!("{text}: {more}");
            }
            source = cause.source();
        }
        if let Self::Engine(EngineError { help: Some(help), .. }) = self {
            text = format!("{text} ({help})");
        }
        text
    }
}

/// What steps learn that later steps need.
#[derive(Default)]
pub(crate) struct Learned {
    /// How a service's port speaks, from its gate.
    protocols: BTreeMap<(String, u16), Protocol>,
    /// Images that were pulled or built, id by reference.
    images: BTreeMap<String, String>,
    /// What checks of images have found, for the journal.
    answers: BTreeMap<StepId, String>,
    /// Containers that were there when the plan was made, id by name.
    containers: BTreeMap<String, String>,
}

/// Executes a plan to its end, one way or the other.
pub async fn execute(run: &Run, plan: &Plan) -> Execution {
    let known = Learned { containers: plan.ids.clone(), ..Learned::default() };
    let learned = Mutex::new(known);
    let mut forward = forward(run, plan, &learned).await;
    let images = || learned.lock().expect("no step panics").images.clone();
    let Some(failure) = forward.failure.take() else {
        let images = images();
        let (outcome, left) = (Outcome::Done, forward.left);
        return Execution { outcome, reason: None, left, images, lost_lease: false };
    };
    // Somebody else is at it by now: touching anything more would be two at once.
    let lost = |error: &StepError| Execution {
        outcome: Outcome::Stuck,
        reason: Some(error.text()),
        left: Vec::new(),
        images: images(),
        lost_lease: true,
    };
    if failure.is_lease_lost() {
        return lost(&failure);
    }
    let reason = failure.text();
    let changed = forward
        .finished
        .iter()
        .chain(&forward.begun)
        .any(|id| plan.steps.iter().any(|step| step.id == *id && changes(step)));
    let mut left = match undo::unwind(run, plan, &forward, &learned, &reason).await {
        Ok(left) => left,
        Err(error) => return lost(&error),
    };
    // What could not be undone may be a writer of its own beside the one before.
    if left.is_empty() {
        left = match undo::start_again(run).await {
            Ok(left) => left,
            Err(error) => return lost(&error),
        };
    }
    let outcome = match (left.is_empty(), changed) {
        (false, _) => Outcome::Stuck,
        (true, true) => Outcome::RolledBack,
        (true, false) => Outcome::Failed,
    };
    Execution { outcome, reason: Some(reason), left, images: images(), lost_lease: false }
}

/// Whether something is otherwise after a step. Whoever has only waited has changed nothing.
fn changes(step: &Step) -> bool {
    step.phase != Phase::Prepare && !matches!(step.action, Action::Meet { .. })
}

/// Whether the replicas that a plan has gates for pass them now, before anything is done.
///
/// # Errors
/// The first that does not, and why. A job that has not ended yet is no failure.
pub async fn probe_gates(run: &Run, plan: &Plan) -> Result<(), String> {
    let learned = Mutex::default();
    let probes = plan.steps.iter().map(|step| probe_gate(run, step, &learned));
    let all = futures_util::future::try_join_all(probes);
    tokio::select! {
        passed = all => passed.map(|_| ()).map_err(|error| error.text()),
        reason = run.cancel.cancelled() => Err(reason),
    }
}

async fn probe_gate(run: &Run, step: &Step, learned: &Mutex<Learned>) -> Result<(), StepError> {
    let Action::Gate { container, gate } = &step.action else { return Ok(()) };
    if !gate.completes {
        return gate::pass(run, step.id, step.service.as_deref(), container, gate, learned).await;
    }
    match run.engine.container(container).await?.map(|found| found.state) {
        Some(ContainerState::Exited(code)) if code != 0 => {
            Err(StepError::Gate(format!("{container} exited with {code}")))
        }
        Some(_) | None => Ok(()),
    }
}

/// What going forward came to.
pub(crate) struct Forward {
    /// Finished steps, in the order in which they finished.
    pub finished: Vec<StepId>,
    /// Steps that began and did not finish: their effect may be there.
    pub begun: Vec<StepId>,
    failure: Option<StepError>,
    left: Vec<String>,
}

async fn forward(run: &Run, plan: &Plan, learned: &Mutex<Learned>) -> Forward {
    let mut forward =
        Forward { finished: Vec::new(), begun: Vec::new(), failure: None, left: Vec::new() };
    // Tidying goes on around what could not be tidied.
    let mut skipped: Vec<StepId> = Vec::new();
    let mut waiting: Vec<_> = plan.steps.iter().collect();
    let mut running = FuturesUnordered::new();
    let (mut room, mut room_to_wait) = (MAX_PARALLEL, MAX_WAITING);
    loop {
        let mut ready: Vec<&Step> = Vec::new();
        if forward.failure.is_none() {
            waiting.retain(|step| {
                let blocked = step.after.iter().any(|id| skipped.contains(id));
                if blocked {
                    skipped.push(step.id);
                    forward.left.push(format!("{}: not done", step.action));
                    return false;
                }
                let free = step.after.iter().all(|id| forward.finished.contains(id));
                let room = if waits(&step.action) { &mut room_to_wait } else { &mut room };
                if free && *room > 0 {
                    *room -= 1;
                    ready.push(step);
                    return false;
                }
                true
            });
        }
        for step in ready {
            forward.begun.push(step.id);
            running.push(async move { (step, one(run, step, learned).await) });
        }
        let Some((step, end)) = running.next().await else { break };
        *(if waits(&step.action) { &mut room_to_wait } else { &mut room }) += 1;
        if !matches!(end, StepEnd::Failed(_)) {
            forward.begun.retain(|id| *id != step.id);
        }
        let error = match end {
            StepEnd::Finished => {
                forward.finished.push(step.id);
                continue;
            }
            StepEnd::NotBegun(error) | StepEnd::Failed(error) => error,
        };
        match error {
            error if error.is_lease_lost() => {
                tell_others(run, &error);
                run.cancel.cancel("the lease was lost");
                forward.failure = Some(error);
            }
            error if step.phase == Phase::Tidy => {
                skipped.push(step.id);
                forward.left.push(format!("{}: {}", step.action, error.text()));
            }
            error => {
                // The first failure ends the others' waiting; what they say then is no news.
                if forward.failure.is_none() {
                    tell_others(run, &error);
                    run.cancel.cancel("another step failed");
                    forward.failure = Some(error);
                }
            }
        }
    }
    forward
}

/// Nobody waits for one that does not come any more.
fn tell_others(run: &Run, error: &StepError) {
    if let Some(meeting) = &run.meeting {
        meeting.fail(&error.text());
    }
}

/// How one step ended.
enum StepEnd {
    /// Its effect was seen, and that was written down.
    Finished,
    /// It did nothing: there is nothing to undo.
    NotBegun(StepError),
    /// It did not succeed, or that could not be written down. Its effect may be there.
    Failed(StepError),
}

/// One step, with its journal lines.
async fn one(run: &Run, step: &Step, learned: &Mutex<Learned>) -> StepEnd {
    let what = step.action.to_string();
    if step.phase != Phase::Tidy
        && let Some(reason) = run.cancel.reason()
    {
        return StepEnd::NotBegun(StepError::Cancelled(reason));
    }
    match record(run, step.id, &what, StepState::Started, Note::Nothing).await {
        Ok(()) => {}
        Err(error) => return StepEnd::NotBegun(error),
    }
    match begun(run, step, what, learned).await {
        Ok(()) => StepEnd::Finished,
        Err(error) => StepEnd::Failed(error),
    }
}

/// One step after its first line.
async fn begun(
    run: &Run,
    step: &Step,
    what: String,
    learned: &Mutex<Learned>,
) -> Result<(), StepError> {
    run.reporter.event(Event::Started {
        step: step.id,
        what: what.clone(),
        service: step.service.clone(),
    });
    let began = Instant::now();
    let result = if step.phase == Phase::Tidy {
        act::act(run, step, learned).await
    } else {
        tokio::select! {
            result = act::act(run, step, learned) => result,
            reason = interrupted(run, &step.action) => Err(StepError::Cancelled(reason)),
        }
    };
    match &result {
        Ok(()) => {
            let answer = learned.lock().expect("no step panics").answers.remove(&step.id);
            let note = match (act::made(&step.action, learned), &answer) {
                (Some(made), _) => Note::Made(made),
                (None, Some(answer)) => Note::Reason(answer),
                (None, None) => Note::Nothing,
            };
            match record(run, step.id, &what, StepState::Finished, note).await {
                // All have met and nobody goes back: doing so for want of a line would part us.
                Err(error) if is_last_meeting(&step.action) && !error.is_lease_lost() => {
                    let text = format!("`{what}` is not in history: {}", error.text());
                    run.reporter.event(Event::Notice(text));
                }
                recorded => recorded?,
            }
            run.reporter.event(Event::Finished { step: step.id, what, took: began.elapsed() });
        }
        Err(error) => {
            let reason = error.text();
            record(run, step.id, &what, StepState::Failed, Note::Reason(&reason)).await?;
            run.reporter.event(Event::Failed { step: step.id, what, reason });
        }
    }
    result
}

fn is_last_meeting(action: &Action) -> bool {
    matches!(action, Action::Meet { point: MeetingPoint::Watched, .. })
}

/// Whether a step looks and waits, rather than keeping the engine busy.
fn waits(action: &Action) -> bool {
    match action {
        Action::Gate { .. }
        | Action::Drain { .. }
        | Action::Watch { .. }
        | Action::Meet { .. }
        | Action::Require(_) => true,
        Action::Pull { .. }
        | Action::Build { .. }
        | Action::EnsureEdge
        | Action::EnsureHolder(_)
        | Action::CreateNetwork(_)
        | Action::CreateVolume(_)
        | Action::Create(_)
        | Action::Start { .. }
        | Action::Thaw { .. }
        | Action::Route { .. }
        | Action::Stop { .. }
        | Action::Freeze { .. }
        | Action::Rename { .. }
        | Action::Remove { .. }
        | Action::RemoveHolder { .. }
        | Action::RemoveNetwork { .. }
        | Action::RemoveVolume { .. } => false,
    }
}

/// Only waiting can be interrupted: an engine call that is under way ends by itself, and its
/// effect must be known before it is undone.
async fn interrupted(run: &Run, action: &Action) -> String {
    match action {
        Action::Pull { .. }
        | Action::Build { .. }
        | Action::Gate { .. }
        | Action::Drain { .. }
        | Action::Watch { .. } => run.cancel.cancelled().await,
        // A command is stopped by dropping it; a container that was made must be removed first.
        Action::Require(requirement) => match requirement.run {
            RequirementRun::Command { .. } | RequirementRun::Check(_) => {
                run.cancel.cancelled().await
            }
            RequirementRun::Container { .. } => std::future::pending().await,
        },
        // It can be interrupted, but whether all have met by then it knows by itself.
        Action::Meet { .. } => std::future::pending().await,
        Action::EnsureEdge
        | Action::EnsureHolder(_)
        | Action::RemoveHolder { .. }
        | Action::CreateNetwork(_)
        | Action::CreateVolume(_)
        | Action::Create(_)
        | Action::Start { .. }
        | Action::Thaw { .. }
        | Action::Route { .. }
        | Action::Stop { .. }
        | Action::Freeze { .. }
        | Action::Rename { .. }
        | Action::Remove { .. }
        | Action::RemoveNetwork { .. }
        | Action::RemoveVolume { .. } => std::future::pending().await,
    }
}

/// What a line says besides.
enum Note<'a> {
    Nothing,
    Reason(&'a str),
    Made(StoredImage),
}

async fn record(
    run: &Run,
    step: StepId,
    what: &str,
    state: StepState,
    note: Note<'_>,
) -> Result<(), StepError> {
    let (detail, made) = match note {
        Note::Nothing => (None, None),
        Note::Reason(reason) => (Some(reason.to_owned()), None),
        Note::Made(image) => (None, Some(image)),
    };
    let what = what.to_owned();
    let entry = JournalEntry { step: step.0, what, state, at_ms: now_ms(), detail, made };
    Ok(run.ledger.record(&run.lease, run.number, &entry).await?)
}
