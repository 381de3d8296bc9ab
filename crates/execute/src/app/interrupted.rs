//! Deployments that began and did not end.

use std::collections::BTreeSet;

use shiplap_model::{
    ContainerState, Deployment, DeploymentState, Direction, Journal, JournalEntry, JournalFact,
    JournalState, Observed, ObservedContainer, Outcome, Scope, StepState, StoredImage,
    StoredRelease,
};

use super::deploy::{LOOK_BACK, is_done};
use super::{App, AppError};

/// A deployment that can be taken up again: it has begun and not ended, or is stuck.
#[derive(Debug, Clone)]
pub struct Unfinished {
    /// The deployment.
    pub deployment: Deployment,
    /// How far it has come.
    pub state: JournalState,
    /// Who was at it last.
    pub who: String,
    /// Since when, milliseconds since 1970.
    pub since_ms: i64,
    /// Images that its steps made, as far as it got.
    made: Vec<StoredImage>,
    /// What had to hold before it changed anything, and was not seen to.
    open: Vec<String>,
}

impl Unfinished {
    fn new(deployment: Deployment, journal: &Journal) -> Result<Self, AppError> {
        let state = journal.state().map_err(|illegal| {
            shiplap_model::LedgerError::Damaged(format!(
                "the journal of deployment {} of {}: {illegal}",
                deployment.number, deployment.scope
            ))
        })?;
        let last = journal.resumptions().last();
        let (who, since_ms) =
            last.map_or((&deployment.who, deployment.started_ms), |last| (&last.who, last.at_ms));
        let made = journal.steps().filter_map(|(_, entry)| entry.made.clone()).collect();
        let open = open_requirements(&deployment, journal);
        Ok(Self { who: who.clone(), since_ms, state, made, deployment, open })
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.deployment.number
    }

    /// What had to hold before it changed anything (tests, a backup …), and was not seen to. Going on
    /// would be without it.
    #[must_use]
    pub fn open_requirements(&self) -> &[String] {
        &self.open
    }

    /// The newest line of its journal.
    #[must_use]
    pub fn last_step(&self) -> Option<&JournalEntry> {
        self.state.last()
    }

    /// The newest line of its journal in words: `step 4 (start shop-api-1.d6) had begun`.
    #[must_use]
    pub fn last_words(&self) -> String {
        match self.last_step() {
            None => "no step had begun".to_owned(),
            Some(entry) => had(entry.step, &entry.what, entry.state),
        }
    }

    /// What it was to make current, with the images that it has made by now.
    pub(super) fn release(&self) -> StoredRelease {
        let mut release = self.deployment.release.clone();
        for service in release.services.values_mut() {
            let made = self.made.iter().rev().find(|m| m.reference == service.image.reference);
            if let Some(made) = made {
                service.image.id.clone_from(&made.id);
                service.image.digest = service.image.digest.take().or(made.digest.clone());
            }
        }
        release
    }

    /// Whether it wants an image that can only be built, and that it has not built.
    pub(super) fn lacks_an_image(&self) -> bool {
        let release = self.release();
        release.services.values().any(|s| s.image.id.is_none() && s.image.digest.is_none())
    }

    /// What is found of each step that nobody knows the end of, in words.
    pub(super) fn probe(&self, observed: &Observed) -> Vec<String> {
        let under_way = self.state.attempt().under_way();
        under_way
            .map(|(id, step)| {
                let had = had(id, &step.what, step.state);
                match effect(&step.what, observed) {
                    Some(effect) => format!("{had}; {effect}"),
                    None => had,
                }
            })
            .collect()
    }
}

/// Requirements of its plan whose steps did not end well.
fn open_requirements(deployment: &Deployment, journal: &Journal) -> Vec<String> {
    let first = journal.facts.iter().map_while(|fact| match fact {
        JournalFact::Step(entry) => Some(entry),
        JournalFact::Resumed(_) | JournalFact::Ended(_) => None,
    });
    let finished: BTreeSet<u32> =
        first.filter(|entry| entry.state == StepState::Finished).map(|entry| entry.step).collect();
    let steps = deployment.plan["steps"].as_array().into_iter().flatten();
    let open = steps.filter(|step| {
        let id = step["id"].as_u64().and_then(|id| u32::try_from(id).ok());
        step["requires"].is_string() && id.is_none_or(|id| !finished.contains(&id))
    });
    open.map(|step| step["what"].as_str().unwrap_or_default().to_owned()).collect()
}

fn had(step: u32, what: &str, state: StepState) -> String {
    let had = match state {
        StepState::Started => "had begun",
        StepState::Finished => "was finished",
        StepState::Failed => "had failed",
        StepState::UndoStarted => "had begun, in going back",
        StepState::Undone => "was done, in going back",
        StepState::UndoFailed => "had failed, in going back",
    };
    format!("step {step} ({what}) {had}")
}

/// What is there of the things that a step names: its containers, else whom the edge routes to.
fn effect(what: &str, observed: &Observed) -> Option<String> {
    let words: Vec<&str> = what.split([' ', ',', ':']).filter(|word| !word.is_empty()).collect();
    let named = |name: &str| words.contains(&name);
    let containers: Vec<String> = observed
        .containers
        .iter()
        .filter(|c| named(&c.name))
        .map(|c| format!("{} {}", c.name, is(c)))
        .collect();
    if !containers.is_empty() {
        return Some(containers.join(", "));
    }
    let pools = observed.router.iter().flat_map(|router| &router.pools);
    let routes: Vec<String> = pools
        .filter(|(key, _)| named(&key.service))
        .map(|(key, pool)| {
            let of = |id: &str| observed.containers.iter().find(|c| c.id == id);
            let names: Vec<&str> = pool
                .replicas
                .iter()
                .filter_map(|(replica, _, _)| Some(of(&replica.container_id)?.name.as_str()))
                .collect();
            match (pool.held, names.is_empty()) {
                (true, _) => format!("requests to {} are held", key.service),
                (false, true) => format!("nobody answers for {}", key.service),
                (false, false) => format!("{} answers for {}", names.join(" and "), key.service),
            }
        })
        .collect();
    if !routes.is_empty() {
        return Some(routes.join(", "));
    }
    let network = observed.networks.keys().find(|name| named(name));
    let volume = observed.volumes.keys().find(|name| named(name));
    let there = network.or(volume).map(|name| format!("{name} is there"));
    // Of a container, a network or a volume; of anything else nothing is known.
    let gone = words.len() == 2
        && matches!(words[0], "create" | "start" | "stop" | "remove" | "gate" | "freeze" | "thaw");
    there.or_else(|| gone.then(|| format!("{} is not there", words[1])))
}

fn is(container: &ObservedContainer) -> String {
    match container.state {
        ContainerState::Created => "is there, not started".to_owned(),
        ContainerState::Running => "is running".to_owned(),
        ContainerState::Paused => "is frozen".to_owned(),
        ContainerState::Restarting => "keeps restarting".to_owned(),
        ContainerState::Exited(code) => format!("has ended with {code}"),
        ContainerState::Dead => "is dead".to_owned(),
    }
}

/// The deployments since the newest done one that did not end well, for the planner.
#[derive(Debug, Clone, Default)]
pub(super) struct Aftermath {
    pub unfinished: BTreeSet<u64>,
    /// Those that undid nothing.
    pub trusted_jobs: BTreeSet<u64>,
    /// Those that a person left as they were.
    pub abandoned: BTreeSet<u64>,
}

impl App {
    /// The deployment that nobody has ended, if there is one: the newest, if it is still open.
    /// Whether somebody is at it, the lease tells.
    ///
    /// # Errors
    /// See [`AppError`].
    pub async fn unfinished(&self, scope: &Scope) -> Result<Option<Unfinished>, AppError> {
        unfinished(self.ledger.as_ref(), scope).await
    }

    pub(super) async fn aftermath(&self, history: &[Deployment]) -> Result<Aftermath, AppError> {
        let mut aftermath = Aftermath::default();
        for deployment in history.iter().take_while(|deployment| !is_done(deployment)) {
            if !left_something(deployment) {
                continue;
            }
            let number = deployment.number;
            aftermath.unfinished.insert(number);
            let journal = self.ledger.facts(&deployment.scope, number).await?;
            let Ok(state) = journal.state() else { continue };
            if !state.has_undone() {
                aftermath.trusted_jobs.insert(number);
            }
            if state.attempt().direction == Direction::Abandon {
                aftermath.abandoned.insert(number);
            }
        }
        Ok(aftermath)
    }
}

/// The deployment of a scope that nobody has ended, by its ledger alone.
///
/// # Errors
/// See [`AppError`].
pub async fn unfinished(
    ledger: &dyn shiplap_model::Ledger,
    scope: &Scope,
) -> Result<Option<Unfinished>, AppError> {
    let newest = ledger.deployments(scope, 1).await?.pop();
    let Some(deployment) = newest.filter(is_open) else { return Ok(None) };
    let journal = ledger.facts(scope, deployment.number).await?;
    Unfinished::new(deployment, &journal).map(Some)
}

/// Deployments of which the ledger holds no end, the oldest first.
pub(super) fn without_end(history: &[Deployment]) -> impl Iterator<Item = &Deployment> {
    let known = history.iter().take(LOOK_BACK as usize).rev();
    known.filter(|deployment| deployment.state == DeploymentState::Unfinished)
}

pub(super) fn is_open(deployment: &Deployment) -> bool {
    match &deployment.state {
        DeploymentState::Unfinished => true,
        DeploymentState::Ended { outcome, .. } => *outcome == Outcome::Stuck,
    }
}

fn left_something(deployment: &Deployment) -> bool {
    match &deployment.state {
        DeploymentState::Unfinished => true,
        DeploymentState::Ended { outcome, .. } => match outcome {
            Outcome::Stuck | Outcome::Interrupted => true,
            Outcome::Done | Outcome::Failed | Outcome::RolledBack => false,
        },
    }
}
