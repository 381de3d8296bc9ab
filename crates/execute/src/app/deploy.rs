//! Planning and carrying out: deploy, roll back, restart, scale, take down.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;

use shiplap_compose::model::Project;
use shiplap_model::{
    Action, ContainerState, Deployment, DeploymentState, Desired, Goal, ImagePin, LeaseKey, Limits,
    NewDeployment, Observed, ObservedContainer, Outcome, Plan, RouteSpec, RouteTable, RouteTo,
    Scope, StepState, StoredBefore, StoredContainer, StoredRelease, StoredRequest,
};
use shiplap_plan::{Policy, Selection};

use super::claim::Claim;
use super::desired::{Assembled, Contents, assemble, contents};
use super::interrupted::{Unfinished, is_open, without_end};
use super::{
    App, AppError, Choice, Intent, JobEnd, Party, Planned, Promotion, Report, Request, Source,
    binding, images, promote,
};
use crate::holding::{Claimed, Holding, Last, are_left_over};
use crate::{Event, Run, Steady, execute, now_ms};

/// How far back is looked for a deployment to build on.
pub(super) const LOOK_BACK: u32 = 100;

impl App {
    /// Plans, and changes nothing.
    ///
    /// # Errors
    /// See [`AppError`].
    pub async fn plan(&self, intent: &Intent<'_>, request: &Request) -> Result<Planned, AppError> {
        if let Some(unfinished) = self.unfinished(&intent.scope()).await?
            && let Claim::IsTheSame(choice) = self.claim(intent, request, &unfinished).await?
        {
            return self.plan_to_settle(&unfinished, choice, request).await;
        }
        Ok(Box::pin(self.prepare(intent, request, None)).await?.planned)
    }

    /// Plans under the lease, asks, and carries out what was shown. Where a deployment that did not
    /// end has to be settled before, that is shown and asked about first.
    ///
    /// # Errors
    /// See [`AppError`]. What goes wrong once it has begun is in the [`Report`].
    pub async fn carry_out<F>(
        &self,
        intent: &Intent<'_>,
        request: &Request,
        approve: impl Fn(&Plan) -> F,
    ) -> Result<Report, AppError>
    where
        F: Future<Output = bool>,
    {
        let began = now_ms();
        // Mostly there is nothing to do. Then nothing is written either, and nobody is kept out.
        let ahead = self.unless_stopped(self.look_ahead(intent, request)).await?;
        self.carry_on(intent, request, approve, ahead, began).await
    }

    /// The same, after a look ahead.
    pub(super) async fn carry_on<F>(
        &self,
        intent: &Intent<'_>,
        request: &Request,
        approve: impl Fn(&Plan) -> F,
        ahead: Option<Prepared>,
        began: i64,
    ) -> Result<Report, AppError>
    where
        F: Future<Output = bool>,
    {
        if let Some(ahead) = &ahead
            && ahead.planned.plan.is_empty()
        {
            return Ok(Report::nothing(began, ahead.planned.plan.clone()));
        }
        self.with_lease(&intent.scope(), &request.limits, async |app, holding| {
            let work = app.under_lease(intent, request, &approve, holding, ahead, began);
            let report = Box::pin(work).await?;
            let last = app.what_remains(&intent.scope(), &report).await;
            Ok((report, last))
        })
        .await
    }

    /// Does something under the lease of a scope, which is renewed meanwhile. The use cases that
    /// `work` is given go on while the engine or the edge is away.
    pub(super) async fn with_lease<T>(
        &self,
        scope: &Scope,
        limits: &Limits,
        work: impl AsyncFnOnce(&App, &Holding) -> Result<(T, Last), AppError>,
    ) -> Result<T, AppError> {
        let holding = Holding::take(self, scope, limits.lease).await?;
        let steady = self.steady(&holding, limits);
        // On the heap: what is done under a lease is long, and several of it are nested.
        let result = Box::pin(work(&steady, &holding)).await;
        let (result, last) = match result {
            Ok((done, last)) => (Ok(done), last),
            Err(error) => (Err(error), Last::AsBefore),
        };
        // What was done is told even if the lease cannot be given back: it ends by itself.
        if let Err(error) = holding.release(last).await {
            self.reporter.event(Event::Notice(format!("the lease was not given back: {error}")));
        }
        result
    }

    /// The same, waiting for an engine and an edge that are away, and changing nothing once the
    /// lease is lost.
    fn steady(&self, holding: &Holding, limits: &Limits) -> Self {
        let steady = Steady::new(limits, self.reporter.clone(), self.cancel.clone());
        let steady = steady.under(holding.clone());
        Self {
            engine: steady.engine(self.engine.clone()),
            router: steady.router(self.router.clone()),
            ..self.clone()
        }
    }

    /// What a deployment has left of the project.
    pub(super) async fn what_remains(&self, scope: &Scope, report: &Report) -> Last {
        match (report.number, report.outcome) {
            (None, _) => Last::AsBefore,
            (_, Outcome::Done) if report.plan.goal != Goal::Down => Last::Something,
            // Going down, and going back from a first deployment, may have ended in nothing.
            (_, Outcome::Done | Outcome::Failed | Outcome::RolledBack) => {
                match self.engine.observe(&scope.project, None).await {
                    Ok(observed) if observed.containers.is_empty() => Last::Nothing,
                    Ok(_) => Last::Something,
                    Err(_) => Last::AsBefore,
                }
            }
            (_, Outcome::Stuck | Outcome::Interrupted) => Last::Something,
        }
    }

    /// Plans without the lease. Nothing where somebody was deploying meanwhile, or left a
    /// deployment unfinished: what was seen may have been in between two states. Nothing either
    /// where marks were left that only a holder of the lease may remove.
    pub(super) async fn look_ahead(
        &self,
        intent: &Intent<'_>,
        request: &Request,
    ) -> Result<Option<Prepared>, AppError> {
        let scope = intent.scope();
        if self.ledger.holder(&scope).await?.is_some() {
            return Ok(None);
        }
        let newest = self.ledger.deployments(&scope, 1).await?;
        if newest.iter().any(is_open) {
            return Ok(None);
        }
        let (prepared, marks) =
            tokio::join!(self.prepare(intent, request, None), self.engine.marks(&scope));
        // Under the lease they are looked at once more, and it matters if that does not work.
        let marks = marks.unwrap_or_default();
        let is_quiet = self.ledger.holder(&scope).await?.is_none()
            && self.ledger.deployments(&scope, 1).await? == newest
            && !are_left_over(&marks, &self.ledger.id());
        if is_quiet { prepared.map(Some) } else { Ok(None) }
    }

    async fn under_lease<F>(
        &self,
        intent: &Intent<'_>,
        request: &Request,
        approve: &impl Fn(&Plan) -> F,
        holding: &Holding,
        ahead: Option<Prepared>,
        began: i64,
    ) -> Result<Report, AppError>
    where
        F: Future<Output = bool>,
    {
        let scope = &intent.scope();
        let mut settled = None;
        let mut takes_over = false;
        if let Some(unfinished) = self.unfinished(scope).await? {
            if let Some(party) = &request.party {
                return Err(is_unfinished(&unfinished, &party.group));
            }
            match self.claim(intent, request, &unfinished).await? {
                Claim::IsTheSame(choice) => {
                    let settling =
                        self.settle(&unfinished, choice, request, approve, holding, began);
                    return Box::pin(settling).await;
                }
                Claim::SettleFirst => {
                    let choice = Choice::Settle(request.on_interrupted);
                    let settling =
                        self.settle(&unfinished, choice, request, approve, holding, began);
                    let report = Box::pin(settling).await?;
                    if report.declined || report.outcome == Outcome::Stuck {
                        return Ok(report);
                    }
                    settled = Some(Box::new(report));
                }
                Claim::TakesOver => {
                    takes_over = true;
                    let number = unfinished.number();
                    let what = unfinished.last_words();
                    self.reporter.event(Event::Notice(format!(
                        "deployment {number} was interrupted ({what}); this one starts from what \
                         it left"
                    )));
                }
            }
        }
        let preparing = Box::pin(self.prepare(intent, request, ahead));
        let mut prepared = self.unless_stopped(preparing).await?;
        // Whoever came before may have left a mark, also where nothing else is to be done.
        let is_busy = takes_over || !prepared.planned.plan.is_empty();
        if is_busy || holding.found_leftovers() {
            let observed = &prepared.planned.observed;
            let edge = observed.router.as_ref().map_or(0, |router| router.lease);
            let fresh = observed.containers.is_empty();
            if self.unless_stopped(holding.claim(edge, fresh)).await? == Claimed::LookAgain {
                let preparing = Box::pin(self.prepare(intent, request, None));
                prepared = self.unless_stopped(preparing).await?;
            }
        }
        let Prepared { assembled, planned, policy, .. } = prepared;
        let lease = &holding.key();
        let plan = planned.plan.clone();
        let report = Report { settled, ..Report::nothing(began, plan.clone()) };
        // Where a deployment that did not end has come so far that nothing is left to do, history must
        // still say what is current: the next rollback goes by it.
        if plan.is_empty() && !takes_over {
            self.close_all(lease, "nothing of it was left to be done or undone").await?;
            return Ok(report);
        }
        let approved = async { Ok(plan.is_empty() || approve(&plan).await) };
        if !self.unless_stopped(approved).await? {
            return Ok(Report { declined: true, outcome: Outcome::Failed, ..report });
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
                request: StoredRequest {
                    approved_by: request.approved_by.clone(),
                    order: request.order,
                    revision: request.revision.clone(),
                    group: request.party.as_ref().map(Party::stored),
                    ..stored(&policy, &planned.observed, &assembled)
                },
                lease: lease.clone(),
                after: newest_number(&planned.observed),
            })
            .await?;
        self.close_older(lease, number, &format!("taken over by deployment {number}")).await?;
        let run = self.run(lease, number, assembled.desired, &request.limits);
        let ran = planned.observed.containers.iter().filter(|c| is_up(c));
        let before = ran.map(|c| c.id.clone()).collect();
        let keep_failed = request.keep_failed;
        let run = Run { keep_failed, before, meeting: request.meeting(), ..run };
        let execution = execute(&run, &plan).await;
        let frozen = frozen(&plan, &planned.observed);
        let release = binding::release(&run.desired, &execution.images);
        let reason = execution.reason.as_deref();
        let ended = self.ledger.end(lease, number, execution.outcome, reason, &release).await;
        let mut left = execution.left;
        if matches!(intent, Intent::Promote(_)) && execution.outcome == Outcome::Done {
            left.extend(self.name_promoted(&run.desired).await);
        }
        let jobs = self.jobs(&plan, &run.desired.compose, lease, number).await;
        if let Err(error) = ended
            && holding.lost_to().is_none()
        {
            left.push(format!("history could not be written: {error}"));
        }
        Ok(Report {
            number: Some(number),
            outcome: execution.outcome,
            reason: execution.reason,
            left,
            took_ms: now_ms() - began,
            taken_over_by: holding.lost_to(),
            frozen,
            jobs,
            ..report
        })
    }

    /// What became of a plan's jobs, by its journal.
    async fn jobs(
        &self,
        plan: &Plan,
        compose: &Project,
        lease: &LeaseKey,
        number: u64,
    ) -> BTreeMap<String, JobEnd> {
        let journal = self.ledger.journal(&lease.scope, number).await.unwrap_or_default();
        let steps = |state: StepState| -> BTreeSet<u32> {
            journal.iter().filter(|entry| entry.state == state).map(|entry| entry.step).collect()
        };
        promote::jobs(plan, compose, &steps(StepState::Started), &steps(StepState::Finished))
    }

    /// What comes before a deployment begins can be dropped at any moment.
    pub(super) async fn unless_stopped<T>(
        &self,
        work: impl Future<Output = Result<T, AppError>>,
    ) -> Result<T, AppError> {
        tokio::select! {
            result = work => result,
            reason = self.cancel.cancelled() => Err(AppError::Interrupted(reason)),
        }
    }

    /// Deployments of which the ledger holds no end come to nothing.
    async fn close_all(&self, lease: &LeaseKey, reason: &str) -> Result<(), AppError> {
        self.close_older(lease, u64::MAX, reason).await
    }

    /// Those among them that are older than one.
    pub(super) async fn close_older(
        &self,
        lease: &LeaseKey,
        than: u64,
        reason: &str,
    ) -> Result<(), AppError> {
        let history = self.ledger.deployments(&lease.scope, LOOK_BACK).await?;
        for older in without_end(&history).filter(|older| older.number < than) {
            let (number, release) = (older.number, &older.release);
            self.ledger.end(lease, number, Outcome::Interrupted, Some(reason), release).await?;
        }
        Ok(())
    }

    /// Plans. What was assembled `ahead` is used again if history is still what it was; the
    /// engine is looked at anew.
    pub(super) async fn prepare(
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
            // On the heap: what is read and asked for here is much, and several of it are nested.
            _ => Box::pin(self.assembled(intent, request, &history)).await?,
        };
        let aftermath = self.aftermath(&history).await?;
        let mut policy = Policy {
            goal: intent.goal(&history),
            remove_orphans: request.remove_orphans,
            limits: request.limits,
            standby: request.standby,
            version: self.version.clone(),
            selection: request.selection(),
            unfinished: aftermath.unfinished,
            trusted_jobs: aftermath.trusted_jobs,
            ..Policy::deploy(
                history.first().map_or(0, |d| d.number).max(newest_number(&observed)) + 1,
            )
        };
        match intent {
            Intent::Restart(_) => policy.force = restarted(&policy.selection, &assembled.desired),
            Intent::Scale { replicas, .. } => {
                policy.selection = Selection::Only(replicas.keys().cloned().collect());
            }
            Intent::Down { volumes, .. } => policy.remove_volumes = *volumes,
            Intent::Deploy(_) if request.force => {
                policy.force = forced(&policy.selection, &assembled.desired);
            }
            Intent::Deploy(_) | Intent::Promote(_) | Intent::Rollback { .. } => {}
        }
        policy.meet = request.others();
        let mut notes = Vec::new();
        match intent {
            Intent::Deploy(source) => {
                policy.requirements.clone_from(&request.requirements);
                notes.extend(source.notes.iter().cloned());
            }
            Intent::Promote(promotion) => {
                let promoted = promotion.deployment(self).await?;
                policy.requirements.clone_from(&request.requirements);
                let tests = Box::pin(self.tests(promotion, &promoted, request)).await?;
                policy.requirements.extend(tests);
                policy.requirements.sort_by_key(|requirement| requirement.kind);
                policy.goal = Goal::Promote {
                    from: promotion.from.environment.clone(),
                    number: promoted.number,
                };
                notes.extend(promotion.to.notes.iter().cloned());
                let desired = &assembled.desired;
                notes.extend(self.promotion_notes(promotion, &promoted, desired).await);
            }
            Intent::Rollback { .. }
            | Intent::Restart(_)
            | Intent::Scale { .. }
            | Intent::Down { .. } => {}
        }
        let mut plan = shiplap_plan::plan(&assembled.desired, &observed, &policy)
            .map_err(AppError::Refused)?;
        plan.notes.extend(notes);
        let planned = Planned { plan, observed, resumes: None };
        Ok(Prepared { history, assembled, planned, policy })
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
            Basis::Promoted(promotion) => {
                let source = promotion.to;
                let promoted = promotion.deployment(self).await?;
                let project = project_of(source, request);
                let (observed, pins) = tokio::join!(
                    self.observed(&scope, &project),
                    self.promoted_pins(&project, &promoted, request),
                );
                let pins = pins?;
                let contents = contents(source).map_err(AppError::Refused)?;
                let assembled =
                    self.assemble_files(source, &project, &pins, contents, request, history);
                Ok((assembled.await?, observed?))
            }
            Basis::Earlier(deployment, read) => {
                let observed = self.observed(&scope, &read.project).await?;
                let engine = self.engine.as_ref();
                let release = &deployment.release;
                let mut assembled =
                    binding::restore(engine, &scope.environment, *read, release).await?;
                assembled.secrets = secrets_of(deployment);
                Ok((scaled(intent, assembled), observed))
            }
            Basis::Nothing(project) => {
                let observed = self.observed(&scope, &project).await?;
                Ok((self.bare(*project, &scope), observed))
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
            Intent::Promote(promotion) => Ok(Basis::Promoted(promotion)),
            Intent::Rollback { scope, to } => self.earlier(find_target(scope, *to, history)?).await,
            Intent::Restart(source) | Intent::Scale { source, .. } => match newest_done(history) {
                Some(deployment) => self.earlier(deployment).await,
                None => Ok(Basis::Files(source)),
            },
            Intent::Down { source, .. } => {
                Ok(Basis::Nothing(Box::new(match (source, newest_done(history)) {
                    (Some(source), _) => source.loaded.project.clone(),
                    (None, Some(deployment)) => self.read_binding(deployment).await?.project,
                    (None, None) => Project::default(),
                })))
            }
        }
    }

    async fn earlier<'a>(&self, deployment: &'a Deployment) -> Result<Basis<'a>, AppError> {
        Ok(Basis::Earlier(deployment, Box::new(self.read_binding(deployment).await?)))
    }

    pub(super) async fn read_binding(
        &self,
        deployment: &Deployment,
    ) -> Result<binding::Read, AppError> {
        binding::read(&self.ledger.binding(&deployment.scope, deployment.number).await?)
    }

    pub(super) async fn pins(
        &self,
        project: &Project,
        request: &Request,
    ) -> Result<BTreeMap<String, ImagePin>, AppError> {
        images::pin_all(self.engine.as_ref(), project, &request.selection(), request.images).await
    }

    pub(super) async fn assemble_files(
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
        let engine = self.engine.as_ref();
        let mut assembled =
            assemble(engine, project, &source.environment, place, pins, contents, &source.routes);
        assembled.secrets = source.secret_versions();
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
        for (name, version) in secrets_of(before) {
            assembled.secrets.entry(name).or_insert(version);
        }
        let desired = &mut assembled.desired;
        desired.routes = merged(&old.desired.routes, &desired.routes, chosen);
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
    pub(super) fn bare(&self, mut project: Project, scope: &Scope) -> Assembled {
        project.name.clone_from(&scope.project);
        let pins = project.services.keys().map(|name| (name.clone(), nameless())).collect();
        let place = (String::new(), Vec::new());
        let contents = BTreeMap::new();
        let engine = self.engine.as_ref();
        let routes = RouteTable::default();
        assemble(engine, &project, &scope.environment, place, &pins, contents, &routes)
    }
}

/// The routes from before, with those of some services replaced.
fn merged(old: &RouteTable, new: &RouteTable, chosen: &BTreeSet<String>) -> RouteTable {
    let is_chosen = |route: &&RouteSpec| match &route.to {
        RouteTo::Service { service, .. } => chosen.contains(service),
        RouteTo::Redirect { .. } => false,
    };
    let mut routes: Vec<RouteSpec> =
        old.routes.iter().filter(|route| !is_chosen(route)).cloned().collect();
    for route in new.routes.iter().filter(is_chosen) {
        routes.retain(|known| !known.collides(route));
        routes.push(route.clone());
    }
    RouteTable { entries: new.entries.clone(), routes, guard: old.guard.clone() }
}

/// Where a desired state comes from.
enum Basis<'a> {
    /// The user's files.
    Files(&'a Source),
    /// The user's files, with another environment's images.
    Promoted(&'a Promotion<'a>),
    /// An earlier deployment, and its values.
    Earlier(&'a Deployment, Box<binding::Read>),
    /// Nothing should be left of this project.
    Nothing(Box<Project>),
}

/// Everything that a deployment is decided from.
pub(super) struct Prepared {
    history: Vec<Deployment>,
    assembled: Assembled,
    pub(super) planned: Planned,
    policy: Policy,
}

impl Prepared {
    /// The plan, with others to meet.
    pub(super) fn meeting(mut self, others: Vec<String>) -> Result<Planned, AppError> {
        self.policy.meet = others;
        let desired = &self.assembled.desired;
        let plan = shiplap_plan::plan(desired, &self.planned.observed, &self.policy);
        let notes = self.planned.plan.notes;
        let plan = Plan { notes, ..plan.map_err(AppError::Refused)? };
        Ok(Planned { plan, ..self.planned })
    }
}

/// One of several environments that are deployed together cannot settle something first, on its
/// own: the others may be as unfinished.
pub(super) fn is_unfinished(unfinished: &Unfinished, group: &str) -> AppError {
    let (number, scope) = (unfinished.number(), &unfinished.deployment.scope);
    let last = unfinished.last_words();
    AppError::History {
        message: format!("deployment {number} of {scope} did not end: {last}"),
        help: format!("`shiplap -e {group} resume` settles it first"),
    }
}

/// What the files say, with the tags that the user set instead.
pub(super) fn project_of(source: &Source, request: &Request) -> Project {
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

fn nameless() -> ImagePin {
    ImagePin {
        reference: "-".to_owned(),
        id: None,
        digest: None,
        origin: shiplap_model::ImageOrigin::Local,
        info: None,
    }
}

/// The highest number of a deployment that made any of these containers.
fn newest_number(observed: &Observed) -> u64 {
    observed.containers.iter().filter_map(|container| container.deployment).max().unwrap_or(0)
}

/// Ids of the containers that a plan freezes.
pub(super) fn frozen(plan: &Plan, observed: &Observed) -> Vec<String> {
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

fn is_up(container: &ObservedContainer) -> bool {
    matches!(container.state, ContainerState::Running | ContainerState::Restarting)
}

/// The versions of secrets that a deployment was made with.
fn secrets_of(deployment: &Deployment) -> BTreeMap<String, u32> {
    deployment.request.as_ref().map(|request| request.secrets.clone()).unwrap_or_default()
}

/// What resuming a deployment needs to know of what it was asked, and of what there was.
fn stored(policy: &Policy, observed: &Observed, assembled: &Assembled) -> StoredRequest {
    let project = assembled.desired.project.as_str();
    let container = |c: &ObservedContainer| StoredContainer {
        id: c.id.clone(),
        name: c.name.clone(),
        service: c.service.clone(),
        running: is_up(c),
        restart: c.facts.get("restart").and_then(|r| r.as_str()).unwrap_or("no").to_owned(),
    };
    let own = observed.networks.iter().filter(|(_, n)| n.project.as_deref() == Some(project));
    StoredRequest {
        version: 1,
        services: match &policy.selection {
            Selection::All => None,
            Selection::Only(names) => Some(names.clone()),
        },
        force: policy.force.clone(),
        remove_orphans: policy.remove_orphans,
        remove_volumes: policy.remove_volumes,
        secrets: assembled.secrets.clone(),
        approved_by: None,
        order: None,
        revision: None,
        group: None,
        before: StoredBefore {
            containers: observed.containers.iter().map(container).collect(),
            networks: own.map(|(name, _)| name.clone()).collect(),
        },
    }
}

/// What a restart replaces: a job only if it was named, since what has ended cannot be restarted.
fn restarted(selection: &Selection, desired: &Desired) -> BTreeSet<String> {
    let mut services = forced(selection, desired);
    if *selection == Selection::All {
        services.retain(|name| !shiplap_plan::is_waited_for(&desired.compose, name));
    }
    services
}

fn forced(selection: &Selection, desired: &Desired) -> BTreeSet<String> {
    desired.services.keys().filter(|name| selection.contains(name)).cloned().collect()
}

/// The deployment that is current; nothing after the project was taken down.
pub(super) fn newest_done(history: &[Deployment]) -> Option<&Deployment> {
    history.iter().find(|deployment| is_done(deployment)).filter(|d| d.kind != "down")
}

pub(super) fn is_done(deployment: &Deployment) -> bool {
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
pub(super) fn differs(candidate: &Deployment, current: &Deployment) -> bool {
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
            Self::Promote(promotion) => promotion.to.scope(),
            Self::Rollback { scope, .. } | Self::Down { scope, .. } => scope.clone(),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Deploy(_) => "deploy",
            Self::Promote(_) => "promote",
            Self::Rollback { .. } => "rollback",
            Self::Restart(_) => "restart",
            Self::Scale { .. } => "scale",
            Self::Down { .. } => "down",
        }
    }

    fn goal(&self, history: &[Deployment]) -> Goal {
        match self {
            // Which number it is, the other environment's history tells.
            Self::Deploy(_) | Self::Promote(_) => Goal::Deploy,
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
