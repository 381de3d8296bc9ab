//! What the control server needs of the world, on this machine.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use shiplap_config::Settings;
use shiplap_engine::Summary;
use shiplap_execute::now_ms;
use shiplap_model::{
    Claim, Deployment, DeploymentState, JournalEntry, Ledger, LedgerError, Limits, OrderEnd, Scope,
    StoredImage, Wanted,
};
use shiplap_server::view::{
    DeploymentDetail, DeploymentView, EnvironmentState, ImageState, JournalLine, ServiceChange,
};
use shiplap_server::{CarriedOut, Catalog, EventSink, Stop, Works, WorksError};

use super::catalog::{EnvironmentPlace, Projects};
use super::observe;
use super::run::Runner;
use crate::world::{Place, World};

/// What an engine said is believed for so long: many who ask at once ask it once.
const FRESH: Duration = Duration::from_secs(2);
/// So many deployments are listed at most.
const MOST_LISTED: u32 = 1000;

/// Projects of this machine's folders, deployed by processes of this program.
pub struct Local {
    projects: Projects,
    runner: Runner,
    ledger: Arc<dyn Ledger>,
    limits: Limits,
    /// Engines that were reached, by address.
    worlds: Mutex<HashMap<String, World>>,
    /// What they said.
    seen: Mutex<HashMap<String, Seen>>,
}

/// What an engine said: its containers, or why it said nothing.
#[derive(Clone)]
struct Seen {
    at: Instant,
    containers: Result<Arc<Vec<Summary>>, String>,
}

impl Local {
    pub fn new(
        projects: Projects,
        ledger: Arc<dyn Ledger>,
        limits: Limits,
        state: &std::path::Path,
    ) -> std::io::Result<Self> {
        let runner = Runner::new(state.join("orders"))?;
        let (worlds, seen) = (Mutex::default(), Mutex::default());
        Ok(Self { projects, runner, ledger, limits, worlds, seen })
    }

    /// The projects that it serves.
    pub fn projects(&self) -> &Projects {
        &self.projects
    }

    /// The containers on an environment's engine.
    async fn containers(&self, settings: &Settings) -> Result<Arc<Vec<Summary>>, String> {
        let place = Place::of(Some(settings)).map_err(|error| error.to_string())?;
        let key = place.to_string();
        let seen = || self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = seen().get(&key).filter(|seen| seen.at.elapsed() < FRESH) {
            return seen.containers.clone();
        }
        let containers = self.ask(&place, &key).await.map(Arc::new);
        seen().insert(key, Seen { at: Instant::now(), containers: containers.clone() });
        containers
    }

    /// Asks an engine. What was reached once stays connected: a link over ssh is made once.
    async fn ask(&self, place: &Place, key: &str) -> Result<Vec<Summary>, String> {
        let worlds = || self.worlds.lock().unwrap_or_else(PoisonError::into_inner);
        let known = worlds().get(key).cloned();
        let world = match known {
            Some(world) => world,
            None => {
                let world = place.reach(&self.limits).await.map_err(|error| error.to_string())?;
                worlds().insert(key.to_owned(), world.clone());
                world
            }
        };
        world.docker.summaries().await.map_err(|error| error.to_string())
    }

    async fn place(&self, scope: &Scope) -> Result<Arc<EnvironmentPlace>, WorksError> {
        let place = self.projects.place(scope).await;
        place.ok_or_else(|| WorksError::NoSuchEnvironment(scope.clone()))
    }

    /// Brings the folder up to date before what the files say is deployed, where a push asks for it.
    async fn pull(&self, claim: &Claim, place: &EnvironmentPlace, events: &dyn EventSink) -> bool {
        let deploys_all = matches!(
            &claim.order.new.wanted,
            Wanted::Deploy { tags, services } if tags.is_empty() && services.is_empty()
        );
        let wanted = shiplap_config::Config::read(&place.config, &shiplap_compose::OsFiles)
            .is_ok_and(|config| config.triggers().push.iter().any(|push| push.pull));
        if !deploys_all || !wanted {
            return true;
        }
        let folder = place.config.parent().map(PathBuf::from).unwrap_or_default();
        let mut git = tokio::process::Command::new("git");
        git.arg("-C").arg(&folder).args(["pull", "--ff-only", "--quiet"]);
        git.env("GIT_TERMINAL_PROMPT", "0").stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(self.limits.pull, git.output()).await;
        let said = match output {
            Err(_) => "it did not end in time".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Ok(Ok(output)) if output.status.success() => return true,
            Ok(Ok(output)) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        };
        events.line(&format!("git pull in {}: {said}", folder.display()));
        false
    }
}

#[async_trait]
impl Works for Local {
    async fn catalog(&self) -> Arc<Catalog> {
        self.projects.catalog().await
    }

    async fn carry_out(&self, claim: &Claim, events: &dyn EventSink, stop: &Stop) -> CarriedOut {
        let failed = |summary: String| {
            CarriedOut::Ended(OrderEnd { at_ms: now_ms(), exit: 1, deployment: None, summary })
        };
        let place = match self.place(&claim.order.new.scope).await {
            Ok(place) => place,
            Err(error) => return failed(error.to_string()),
        };
        if !claim.resumed && !self.pull(claim, &place, events).await {
            return failed("the folder could not be brought up to date by git pull".to_owned());
        }
        let ledger = self.ledger.as_ref();
        self.runner.carry_out(claim, &place, ledger, (events, stop)).await
    }

    async fn state(&self, scope: &Scope) -> Result<EnvironmentState, WorksError> {
        let place = self.place(scope).await?;
        let catalog = self.projects.catalog().await;
        let entry = catalog.environment(scope);
        let entry = entry.ok_or_else(|| WorksError::NoSuchEnvironment(scope.clone()))?;
        let past = observe::past(self.ledger.as_ref(), &place.scope).await.map_err(away)?;
        let containers = self.containers(&place.settings).await;
        let own = containers.as_ref().map_err(Clone::clone).map(|all| {
            all.iter().filter(|one| one.project == place.scope.project).collect::<Vec<_>>()
        });
        Ok(observe::state(entry, &past, own))
    }

    async fn history(
        &self,
        scope: &Scope,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<DeploymentView>, WorksError> {
        let place = self.place(scope).await?;
        let all = match before {
            None => limit.saturating_add(1),
            Some(_) => MOST_LISTED,
        };
        let deployments = self.ledger.deployments(&place.scope, all).await.map_err(away)?;
        let older = |index: usize| deployments.get(index + 1..).unwrap_or_default();
        let views = deployments.iter().enumerate().map(|(index, one)| view(one, older(index)));
        let wanted = views.filter(|view| before.is_none_or(|before| view.number < before));
        Ok(wanted.take(usize::try_from(limit).unwrap_or(usize::MAX)).collect())
    }

    async fn deployment(
        &self,
        scope: &Scope,
        number: u64,
    ) -> Result<Option<DeploymentDetail>, WorksError> {
        let place = self.place(scope).await?;
        let found = self.ledger.deployment(&place.scope, number).await.map_err(away)?;
        let Some(found) = found else { return Ok(None) };
        let older = self.ledger.deployments(&place.scope, MOST_LISTED).await.map_err(away)?;
        let older: Vec<Deployment> = older.into_iter().filter(|d| d.number < number).collect();
        let journal = self.ledger.journal(&place.scope, number).await.map_err(away)?;
        let journal = journal.into_iter().map(line).collect();
        Ok(Some(DeploymentDetail { deployment: view(&found, &older), journal }))
    }
}

fn away(error: LedgerError) -> WorksError {
    WorksError::Away(error.to_string())
}

/// A deployment with what it changed, by those before it, the newest first.
fn view(deployment: &Deployment, older: &[Deployment]) -> DeploymentView {
    let (ended_ms, outcome, reason) = match &deployment.state {
        DeploymentState::Unfinished => (None, None, None),
        DeploymentState::Ended { at_ms, outcome, reason } => {
            (Some(*at_ms), Some(outcome.to_string()), reason.clone())
        }
    };
    let is_done = |one: &&Deployment| {
        matches!(one.state, DeploymentState::Ended { outcome: shiplap_model::Outcome::Done, .. })
    };
    let none = BTreeMap::new();
    let before = older.iter().find(is_done).filter(|before| before.kind != "down");
    let before = before.map_or(&none, |before| &before.release.services);
    let after = &deployment.release.services;
    let mut services = BTreeMap::new();
    for name in before.keys().chain(after.keys()) {
        let from = before.get(name).map(|service| image(&service.image));
        let to = after.get(name).map(|service| image(&service.image));
        if from != to {
            services.insert(name.clone(), ServiceChange { from, to });
        }
    }
    let request = deployment.request.as_ref();
    DeploymentView {
        number: deployment.number,
        kind: deployment.kind.clone(),
        who: deployment.who.clone(),
        message: deployment.message.clone(),
        revision: request.and_then(|request| request.revision.clone()),
        order: request.and_then(|request| request.order),
        started_ms: deployment.started_ms,
        ended_ms,
        outcome,
        reason,
        services,
    }
}

fn image(stored: &StoredImage) -> ImageState {
    let digest = stored.digest.clone().or_else(|| stored.id.clone());
    ImageState { reference: stored.reference.clone(), digest }
}

fn line(entry: JournalEntry) -> JournalLine {
    let state = serde_json::to_value(entry.state).ok();
    JournalLine {
        at_ms: entry.at_ms,
        step: entry.step,
        what: entry.what,
        state: state.and_then(|state| state.as_str().map(str::to_owned)).unwrap_or_default(),
        detail: entry.detail,
    }
}
