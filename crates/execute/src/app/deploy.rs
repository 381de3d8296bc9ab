//! Planning and carrying out: deploy, roll back, restart, scale, take down.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use shiplap_compose::model::Project;
use shiplap_model::{
    Action, Deployment, DeploymentState, Desired, Goal, ImagePin, LeaseKey, LedgerError,
    NewDeployment, Observed, Outcome, Plan, Scope, StoredRelease,
};
use shiplap_plan::{Policy, Selection};

use super::desired::{Assembled, Contents, assemble, contents};
use super::{App, AppError, Intent, Planned, Report, Request, Source, binding, images};
use crate::{Event, Run, execute, now_ms};

/// How long a lease lasts unless renewed: a deployer that is gone blocks nobody for longer.
pub(super) const LEASE_TTL: Duration = Duration::from_secs(30);
/// How often it is renewed: two may fail before it is lost.
const LEASE_RENEWAL: Duration = Duration::from_secs(10);

/// How far back is looked for a deployment to build on.
const LOOK_BACK: u32 = 100;

impl App {
    /// Plans, and changes nothing.
    ///
    /// # Errors
    /// See [`AppError`].
    pub async fn plan(&self, intent: &Intent<'_>, request: &Request) -> Result<Planned, AppError> {
        Ok(self.prepare(intent, request, None).await?.planned)
    }

    /// Plans under the lease, asks, and carries out what was shown.
    ///
    /// # Errors
    /// See [`AppError`]. What goes wrong once it has begun is in the [`Report`].
    pub async fn carry_out<F>(
        &self,
        intent: &Intent<'_>,
        request: &Request,
        approve: impl FnOnce(&Plan) -> F,
    ) -> Result<Report, AppError>
    where
        F: Future<Output = bool>,
    {
        let began = now_ms();
        let scope = intent.scope();
        // Mostly there is nothing to do. Then nothing is written either, and nobody is kept out.
        let ahead = self.look_ahead(intent, request).await?;
        if let Some(ahead) = &ahead
            && ahead.planned.plan.is_empty()
        {
            return Ok(not_begun(&ahead.planned.plan, Outcome::Done, Declined::No, began));
        }
        let lease = self.ledger.acquire(&scope, &self.who, LEASE_TTL).await??.key;
        let renewer = tokio::spawn(renew(self.clone(), lease.clone()));
        let result = self.under_lease(intent, request, approve, &lease, ahead, began).await;
        renewer.abort();
        self.ledger.release(&lease).await?;
        result
    }

    /// Plans without the lease. Nothing where somebody was deploying meanwhile, or left a
    /// deployment unfinished: what was seen may have been in between two states.
    async fn look_ahead(
        &self,
        intent: &Intent<'_>,
        request: &Request,
    ) -> Result<Option<Prepared>, AppError> {
        let scope = intent.scope();
        if self.ledger.holder(&scope).await?.is_some() {
            return Ok(None);
        }
        let newest = self.ledger.deployments(&scope, 1).await?;
        if newest.iter().any(|d| d.state == DeploymentState::Unfinished) {
            return Ok(None);
        }
        let prepared = self.prepare(intent, request, None).await;
        let is_quiet = self.ledger.holder(&scope).await?.is_none()
            && self.ledger.deployments(&scope, 1).await? == newest;
        if is_quiet { prepared.map(Some) } else { Ok(None) }
    }

    async fn under_lease<F>(
        &self,
        intent: &Intent<'_>,
        request: &Request,
        approve: impl FnOnce(&Plan) -> F,
        lease: &LeaseKey,
        ahead: Option<Prepared>,
        began: i64,
    ) -> Result<Report, AppError>
    where
        F: Future<Output = bool>,
    {
        self.close_interrupted(lease).await?;
        let Prepared { assembled, planned, .. } = self.prepare(intent, request, ahead).await?;
        let plan = planned.plan.clone();
        if plan.is_empty() {
            return Ok(not_begun(&plan, Outcome::Done, Declined::No, began));
        }
        if !approve(&plan).await {
            return Ok(not_begun(&plan, Outcome::Failed, Declined::Yes, began));
        }
        let number = self
            .ledger
            .begin(&NewDeployment {
                scope: intent.scope(),
                kind: intent.kind().to_owned(),
                who: self.who.clone(),
                message: request.message.clone(),
                release: binding::release(&assembled.desired, &Default::default()),
                binding: binding::write(&assembled),
                plan: shiplap_plan::to_json(&plan),
                request: Default::default(),
                lease: lease.clone(),
            })
            .await?;
        let desired = Arc::new(assembled.desired);
        let run = Run {
            engine: self.engine.clone(),
            router: self.router.clone(),
            ledger: self.ledger.clone(),
            reporter: self.reporter.clone(),
            cancel: self.cancel.clone(),
            lease: lease.clone(),
            number,
            desired: desired.clone(),
            keep_failed: request.keep_failed,
        };
        let execution = execute(&run, &plan).await;
        let frozen = frozen(&plan, &planned.observed);
        let release = binding::release(&desired, &execution.images);
        let reason = execution.reason.as_deref();
        let ended = self.ledger.end(lease, number, execution.outcome, reason, &release).await;
        let mut left = execution.left;
        if let Err(error) = ended {
            left.push(format!("history could not be written: {error}"));
        }
        Ok(Report {
            number: Some(number),
            outcome: execution.outcome,
            reason: execution.reason,
            left,
            plan,
            took_ms: now_ms() - began,
            declined: false,
            frozen,
        })
    }

    /// Deployments that nobody is at any more are closed: we hold the lease.
    async fn close_interrupted(&self, lease: &LeaseKey) -> Result<(), AppError> {
        for deployment in self.ledger.deployments(&lease.scope, LOOK_BACK).await? {
            if deployment.state == DeploymentState::Unfinished {
                self.ledger
                    .end(
                        lease,
                        deployment.number,
                        Outcome::Interrupted,
                        Some("its deployer ended before it did"),
                        &deployment.release,
                    )
                    .await?;
                self.reporter.event(Event::Notice(format!(
                    "deployment {} was interrupted; this one starts from what it left",
                    deployment.number
                )));
            }
        }
        Ok(())
    }

    /// Plans. What was assembled `ahead` is used again if history is still what it was; the
    /// engine is looked at anew.
    async fn prepare(
        &self,
        intent: &Intent<'_>,
        request: &Request,
        ahead: Option<Prepared>,
    ) -> Result<Prepared, AppError> {
        let scope = intent.scope();
        let history = self.ledger.deployments(&scope, LOOK_BACK).await?;
        let (assembled, observed) = match ahead {
            Some(ahead) if ahead.history == history => {
                let observed = self.observed(&scope, &ahead.assembled.desired.compose).await?;
                (ahead.assembled, observed)
            }
            _ => self.assembled(intent, request, &history).await?,
        };
        let mut policy = Policy {
            goal: intent.goal(&history),
            remove_orphans: request.remove_orphans,
            limits: request.limits,
            standby: request.standby,
            version: self.version.clone(),
            selection: request.selection(),
            ..Policy::deploy(history.first().map_or(0, |newest| newest.number) + 1)
        };
        match intent {
            Intent::Restart(_) => policy.force = forced(&policy.selection, &assembled.desired),
            Intent::Scale { replicas, .. } => {
                policy.selection = Selection::Only(replicas.keys().cloned().collect());
            }
            Intent::Down { volumes, .. } => policy.remove_volumes = *volumes,
            Intent::Deploy(_) if request.force => {
                policy.force = forced(&policy.selection, &assembled.desired);
            }
            Intent::Deploy(_) | Intent::Rollback { .. } => {}
        }
        let plan = shiplap_plan::plan(&assembled.desired, &observed, &policy)
            .map_err(AppError::Refused)?;
        Ok(Prepared { history, assembled, planned: Planned { plan, observed } })
    }

    /// What is, the edge included.
    pub(super) async fn observed(
        &self,
        scope: &Scope,
        compose: &Project,
    ) -> Result<Observed, AppError> {
        let owner = scope.to_string();
        let (engine, router) = tokio::join!(
            self.engine.observe(&scope.project, Some(compose)),
            self.router.state(&owner),
        );
        let mut observed = engine?;
        observed.router = router?;
        Ok(observed)
    }

    /// What is desired, and what is.
    async fn assembled(
        &self,
        intent: &Intent<'_>,
        request: &Request,
        history: &[Deployment],
    ) -> Result<(Assembled, Observed), AppError> {
        let scope = intent.scope();
        let basis = self.basis(intent, history).await?;
        match basis {
            Basis::Files(source) => {
                let project = project_of(source, request);
                let (observed, pins) =
                    tokio::join!(self.observed(&scope, &project), self.pins(&project, request),);
                let pins = pins?;
                let contents = contents(source).map_err(AppError::Refused)?;
                let assembled =
                    self.assemble_files(source, &project, &pins, contents, request, history);
                Ok((scaled(intent, assembled.await?), observed?))
            }
            Basis::Earlier(deployment, read) => {
                let observed = self.observed(&scope, &read.project).await?;
                let engine = self.engine.as_ref();
                let release = &deployment.release;
                let assembled = binding::restore(engine, &scope.environment, read, release).await?;
                Ok((scaled(intent, assembled), observed))
            }
            Basis::Nothing(project) => {
                let observed = self.observed(&scope, &project).await?;
                Ok((self.bare(project, &scope), observed))
            }
        }
    }

    /// Where the desired state comes from.
    async fn basis<'a>(
        &self,
        intent: &Intent<'a>,
        history: &'a [Deployment],
    ) -> Result<Basis<'a>, AppError> {
        match intent {
            Intent::Deploy(source) => Ok(Basis::Files(source)),
            Intent::Rollback { scope, to } => self.earlier(find_target(scope, *to, history)?).await,
            Intent::Restart(source) | Intent::Scale { source, .. } => match newest_done(history) {
                Some(deployment) => self.earlier(deployment).await,
                None => Ok(Basis::Files(source)),
            },
            Intent::Down { source, .. } => {
                Ok(Basis::Nothing(match (source, newest_done(history)) {
                    (Some(source), _) => source.loaded.project.clone(),
                    (None, Some(deployment)) => self.read_binding(deployment).await?.project,
                    (None, None) => Project::default(),
                }))
            }
        }
    }

    async fn earlier<'a>(&self, deployment: &'a Deployment) -> Result<Basis<'a>, AppError> {
        Ok(Basis::Earlier(deployment, self.read_binding(deployment).await?))
    }

    async fn read_binding(&self, deployment: &Deployment) -> Result<binding::Read, AppError> {
        binding::read(&self.ledger.binding(&deployment.scope, deployment.number).await?)
    }

    async fn pins(
        &self,
        project: &Project,
        request: &Request,
    ) -> Result<BTreeMap<String, ImagePin>, AppError> {
        images::pin_all(self.engine.as_ref(), project, &request.selection(), request.images).await
    }

    async fn assemble_files(
        &self,
        source: &Source,
        project: &Project,
        pins: &BTreeMap<String, ImagePin>,
        contents: BTreeMap<String, Contents>,
        request: &Request,
        history: &[Deployment],
    ) -> Result<Assembled, AppError> {
        let loaded = &source.loaded;
        let files = loaded.files.iter().map(|file| file.display().to_string()).collect();
        let place = (loaded.project_directory.display().to_string(), files);
        let assembled =
            assemble(self.engine.as_ref(), project, &source.environment, place, pins, contents);
        match (request.selection(), newest_done(history)) {
            (Selection::Only(chosen), Some(before)) => {
                self.with_the_rest_from(assembled, before, &chosen).await
            }
            _ => Ok(assembled),
        }
    }

    /// A deployment of some services leaves the others as they are: what it makes current is the
    /// release before, with those services replaced. So a rollback to it restores both.
    async fn with_the_rest_from(
        &self,
        mut assembled: Assembled,
        before: &Deployment,
        chosen: &BTreeSet<String>,
    ) -> Result<Assembled, AppError> {
        let scope = &before.scope;
        let read = self.read_binding(before).await?;
        let engine = self.engine.as_ref();
        // An image that is gone is no reason to refuse: those services are not touched.
        let Ok(old) = binding::restore(engine, &scope.environment, read, &before.release).await
        else {
            return Ok(assembled);
        };
        let desired = &mut assembled.desired;
        for (name, spec) in old.desired.services {
            if chosen.contains(&name) || !desired.services.contains_key(&name) {
                continue;
            }
            if let Some(service) = old.desired.compose.services.get(&name) {
                desired.compose.services.insert(name.clone(), service.clone());
            }
            desired.services.insert(name.clone(), spec);
            let contents: Option<&Contents> = old.contents.get(&name);
            assembled.contents.insert(name, contents.cloned().unwrap_or_default());
        }
        for (key, network) in old.desired.compose.networks {
            desired.compose.networks.entry(key).or_insert(network);
        }
        for (key, volume) in old.desired.compose.volumes {
            desired.compose.volumes.entry(key).or_insert(volume);
        }
        Ok(assembled)
    }

    /// A desired state for taking a project down: its images do not matter.
    fn bare(&self, mut project: Project, scope: &Scope) -> Assembled {
        project.name.clone_from(&scope.project);
        let pins = project.services.keys().map(|name| (name.clone(), nameless())).collect();
        let place = (String::new(), Vec::new());
        let contents = BTreeMap::new();
        assemble(self.engine.as_ref(), &project, &scope.environment, place, &pins, contents)
    }
}

/// Where a desired state comes from.
enum Basis<'a> {
    /// The user's files.
    Files(&'a Source),
    /// An earlier deployment, and its values.
    Earlier(&'a Deployment, binding::Read),
    /// Nothing should be left of this project.
    Nothing(Project),
}

/// Everything that a deployment is decided from.
struct Prepared {
    history: Vec<Deployment>,
    assembled: Assembled,
    planned: Planned,
}

/// What the files say, with the tags that the user set instead.
fn project_of(source: &Source, request: &Request) -> Project {
    let mut project = source.loaded.project.clone();
    for (name, tag) in &request.set {
        if let Some(service) = project.services.get_mut(name) {
            let current = service.image.clone().unwrap_or_default();
            service.image = Some(retag(&current, tag));
        }
    }
    project
}

fn scaled(intent: &Intent<'_>, mut assembled: Assembled) -> Assembled {
    if let Intent::Scale { replicas, .. } = intent {
        for (name, spec) in &mut assembled.desired.services {
            if let Some(wanted) = replicas.get(name) {
                spec.replicas = *wanted;
            }
        }
    }
    assembled
}

/// Whether the user said no.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Declined {
    No,
    Yes,
}

/// The report of what did not even begin.
fn not_begun(plan: &Plan, outcome: Outcome, declined: Declined, began: i64) -> Report {
    Report {
        number: None,
        outcome,
        reason: None,
        left: Vec::new(),
        plan: plan.clone(),
        took_ms: now_ms() - began,
        declined: declined == Declined::Yes,
        frozen: Vec::new(),
    }
}

fn nameless() -> ImagePin {
    ImagePin {
        reference: "-".to_owned(),
        id: None,
        digest: None,
        origin: shiplap_model::ImageOrigin::Local,
        info: None,
    }
}

/// Ids of the containers that a plan freezes.
fn frozen(plan: &Plan, observed: &Observed) -> Vec<String> {
    let names: Vec<&String> = plan
        .steps
        .iter()
        .filter_map(|step| match &step.action {
            Action::Freeze { container } => Some(container),
            _ => None,
        })
        .collect();
    let containers = observed.containers.iter().filter(|c| names.contains(&&c.name));
    containers.map(|container| container.id.clone()).collect()
}

async fn renew(app: App, lease: LeaseKey) {
    loop {
        tokio::time::sleep(LEASE_RENEWAL).await;
        match app.ledger.renew(&lease, LEASE_TTL).await {
            Ok(_) => {}
            Err(LedgerError::LeaseLost(_)) => {
                app.cancel.cancel("the lease was lost to another deployer");
                return;
            }
            Err(error) => {
                app.reporter.event(Event::Notice(format!("the lease was not renewed: {error}")));
            }
        }
    }
}

fn forced(selection: &Selection, desired: &Desired) -> BTreeSet<String> {
    desired.services.keys().filter(|name| selection.contains(name)).cloned().collect()
}

/// The deployment that is current; nothing after the project was taken down.
fn newest_done(history: &[Deployment]) -> Option<&Deployment> {
    history.iter().find(|deployment| is_done(deployment)).filter(|d| d.kind != "down")
}

fn is_done(deployment: &Deployment) -> bool {
    matches!(deployment.state, DeploymentState::Ended { outcome: Outcome::Done, .. })
}

/// The deployment to go back to: the one asked for, else the one done before the current one.
fn find_target<'a>(
    scope: &Scope,
    to: Option<u64>,
    history: &'a [Deployment],
) -> Result<&'a Deployment, AppError> {
    let help = || format!("`shiplap history` lists the deployments of {scope}");
    let mut done = history.iter().filter(|d| is_done(d) && d.kind != "down");
    match to {
        None => {
            // After a `down` the newest release is the one to go back to.
            let current = newest_done(history).and_then(|_| done.next());
            let before = done.find(|d| current.is_none_or(|c| differs(d, c)));
            before.ok_or_else(|| AppError::History {
                message: format!("{scope} has no earlier deployment to go back to"),
                help: help(),
            })
        }
        Some(number) => {
            let found = history.iter().find(|deployment| deployment.number == number);
            let found = found.ok_or_else(|| AppError::History {
                message: format!("{scope} has no deployment {number}"),
                help: help(),
            })?;
            if is_done(found) && found.kind != "down" {
                return Ok(found);
            }
            Err(AppError::History {
                message: format!("deployment {number} of {scope} was never current"),
                help: help(),
            })
        }
    }
}

/// After a rollback from 3 to 2, going back once more means 1, not 3: a deployment that was
/// itself a rollback stands for what it restored.
fn differs(candidate: &Deployment, current: &Deployment) -> bool {
    let restored = |deployment: &Deployment| deployment.plan["rollback_to"].as_u64();
    match restored(current) {
        Some(to) => candidate.number < to && restored(candidate).is_none(),
        None => true,
    }
}

/// `registry/api:v1` with tag `v2`: `registry/api:v2`. A whole reference replaces everything.
fn retag(image: &str, tag: &str) -> String {
    if tag.contains(['/', ':', '@']) {
        return tag.to_owned();
    }
    let named = image.split('@').next().unwrap_or(image);
    let bare = match named.rfind(':') {
        Some(colon) if !named[colon..].contains('/') => &named[..colon],
        _ => named,
    };
    format!("{bare}:{tag}")
}

impl Intent<'_> {
    /// Where.
    #[must_use]
    pub fn scope(&self) -> Scope {
        match self {
            Self::Deploy(source) | Self::Restart(source) | Self::Scale { source, .. } => {
                source.scope()
            }
            Self::Rollback { scope, .. } | Self::Down { scope, .. } => scope.clone(),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Deploy(_) => "deploy",
            Self::Rollback { .. } => "rollback",
            Self::Restart(_) => "restart",
            Self::Scale { .. } => "scale",
            Self::Down { .. } => "down",
        }
    }

    fn goal(&self, history: &[Deployment]) -> Goal {
        match self {
            Self::Deploy(_) => Goal::Deploy,
            Self::Rollback { scope, to } => Goal::Rollback {
                to: find_target(scope, *to, history).map_or(0, |found| found.number),
            },
            Self::Restart(_) => Goal::Restart,
            Self::Scale { .. } => Goal::Scale,
            Self::Down { .. } => Goal::Down,
        }
    }
}

/// The release of the newest deployment that is current.
pub(super) fn current(history: &[Deployment]) -> Option<(&Deployment, &StoredRelease)> {
    newest_done(history).map(|deployment| (deployment, &deployment.release))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_replaces_the_tag_and_a_reference_replaces_everything() {
        assert_eq!(retag("127.0.0.1:5000/api:v1", "v2"), "127.0.0.1:5000/api:v2");
        assert_eq!(retag("127.0.0.1:5000/api", "v2"), "127.0.0.1:5000/api:v2");
        assert_eq!(retag("api:v1", "ghcr.io/x/api:v2"), "ghcr.io/x/api:v2");
    }
}
