//! Taking up a deployment that did not end: on, back, or leaving it.
//!
//! Nothing is replayed. What the deployment was to bring about, or what was current before it, is
//! planned for anew, from what is there now; the containers that it made have names of its own and
//! are found again. All of it goes on under the deployment's number.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;

use shiplap_model::{
    Action, Deployment, Direction, Goal, LeaseKey, Limits, Observed, Outcome, Plan, Resumption,
    Scope, StoredBefore, StoredRequest,
};
use shiplap_plan::{Policy, Selection, Undo};

use super::deploy::{LOOK_BACK, frozen, is_done};
use super::desired::Assembled;
use super::interrupted::Unfinished;
use super::{App, AppError, Planned, Report, Request, binding};
use crate::holding::{Claimed, Holding, Last};
use crate::{Cancel, Event, Execution, Run, execute, now_ms, probe_gates};

/// What becomes of a deployment that did not end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnInterrupted {
    /// On, if every new replica is there and works, or has taken over already; else back.
    #[default]
    Auto,
    /// On.
    Forward,
    /// Back.
    Back,
}

/// What the user wants done with a deployment that did not end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// On, or back.
    Settle(OnInterrupted),
    /// It is left as it is.
    Abandon,
}

/// A way to end a deployment that did not.
struct Course {
    direction: Direction,
    /// Why this one, in words.
    because: String,
    assembled: Assembled,
    planned: Planned,
}

/// All that a way is carried out with.
struct Crew<'a> {
    unfinished: &'a Unfinished,
    request: &'a Request,
    lease: &'a LeaseKey,
    found: Vec<String>,
}

impl App {
    /// Takes up the deployment that did not end; `None` where there is none.
    ///
    /// # Errors
    /// See [`AppError`]. What goes wrong once it has begun is in the [`Report`].
    pub async fn resume<F>(
        &self,
        scope: &Scope,
        choice: Choice,
        request: &Request,
        approve: impl Fn(&Plan) -> F,
    ) -> Result<Option<Report>, AppError>
    where
        F: Future<Output = bool>,
    {
        let began = now_ms();
        self.with_lease(scope, &request.limits, async |app, holding| {
            let Some(unfinished) = app.unfinished(scope).await? else {
                // A deployer that died before it wrote anything may have left its mark.
                if holding.found_leftovers() {
                    let observed = app.look(scope).await?;
                    let edge = observed.router.as_ref().map_or(0, |router| router.lease);
                    holding.claim(edge, observed.containers.is_empty()).await?;
                }
                return Ok((None, Last::AsBefore));
            };
            let settling = app.settle(&unfinished, choice, request, &approve, holding, began);
            let report = settling.await?;
            let last = app.what_remains(scope, &report).await;
            Ok((Some(report), last))
        })
        .await
    }

    /// Which way the deployment that did not end would be taken by itself, and why; nothing where
    /// there is none. Changes nothing.
    ///
    /// # Errors
    /// See [`AppError`]; [`AppError::LeaseHeld`] while somebody is at it.
    pub(super) async fn way(
        &self,
        scope: &Scope,
        request: &Request,
    ) -> Result<Option<(Direction, String)>, AppError> {
        if let Some(held) = self.ledger.holder(scope).await? {
            return Err(held.into());
        }
        let Some(unfinished) = self.unfinished(scope).await? else { return Ok(None) };
        let course = Box::pin(self.course(&unfinished, OnInterrupted::Auto, request)).await?;
        Ok(Some((course.direction, course.because)))
    }

    /// Ends a deployment one way or the other.
    pub(super) async fn settle<F>(
        &self,
        unfinished: &Unfinished,
        choice: Choice,
        request: &Request,
        approve: &impl Fn(&Plan) -> F,
        holding: &Holding,
        began: i64,
    ) -> Result<Report, AppError>
    where
        F: Future<Output = bool>,
    {
        let number = unfinished.number();
        let scope = &unfinished.deployment.scope;
        let mut observed = self.look(scope).await?;
        let edge = observed.router.as_ref().map_or(0, |router| router.lease);
        if holding.claim(edge, observed.containers.is_empty()).await? == Claimed::LookAgain {
            observed = self.look(scope).await?;
        }
        let lease = &holding.key();
        let found = unfinished.probe(&observed);
        self.tell(unfinished, &found);
        let course = match choice {
            Choice::Settle(policy) => Box::pin(self.course(unfinished, policy, request)).await?,
            Choice::Abandon => self.abandoning(unfinished, observed),
        };
        let plan = course.planned.plan.clone();
        let mut report = Report {
            number: Some(number),
            resumed: Some((choice, course.direction)),
            ..Report::nothing(began, plan.clone())
        };
        let ends_history_only = plan.is_empty() && course.direction != Direction::Abandon;
        self.reporter.event(Event::Notice(course.because.clone()));
        if !ends_history_only && !approve(&plan).await {
            return Ok(Report { declined: true, outcome: Outcome::Failed, ..report });
        }
        self.close_older(lease, number, &format!("taken over by deployment {number}")).await?;
        let crew = Crew { unfinished, request, lease, found };
        report.frozen = frozen(&plan, &course.planned.observed);
        let ended = Box::pin(self.go(&crew, course)).await?;
        Ok(Report {
            outcome: ended.outcome,
            reason: ended.reason,
            left: ended.left,
            took_ms: now_ms() - began,
            resumed: Some((choice, ended.direction)),
            taken_over_by: holding.lost_to(),
            ..report
        })
    }

    /// Goes that way, and back if it turns out not to lead on.
    async fn go(&self, crew: &Crew<'_>, course: Course) -> Result<Ended, AppError> {
        let direction = course.direction;
        let execution = self.attempt(crew, &course, self.cancel.clone()).await?;
        let ended =
            |outcome, reason: Option<String>, left| Ended { direction, outcome, reason, left };
        if execution.lost_lease {
            return Ok(ended(Outcome::Stuck, execution.reason, execution.left));
        }
        let clean = execution.outcome == Outcome::Done && execution.left.is_empty();
        let end = match direction {
            Direction::Forward if execution.outcome == Outcome::Done => {
                ended(Outcome::Done, None, execution.left.clone())
            }
            Direction::Forward => return self.back_after_all(crew, &execution).await,
            Direction::Back if clean => {
                ended(Outcome::RolledBack, Some(self.why_back(crew)), Vec::new())
            }
            Direction::Back => {
                let reason = execution.reason.clone();
                let reason = reason.or_else(|| Some("going back left something undone".to_owned()));
                ended(Outcome::Stuck, reason, execution.left.clone())
            }
            Direction::Abandon => {
                let reason = format!("left as it is by {}", self.who);
                let notes = course.planned.plan.notes.iter().map(|note| note.text.clone());
                let left = notes.chain(execution.left.clone()).collect();
                ended(Outcome::Interrupted, Some(reason), left)
            }
        };
        Ok(self.end(crew, end, &course.assembled, &execution).await)
    }

    /// A deployment that does not work is undone, also when it was taken up again.
    async fn back_after_all(&self, crew: &Crew<'_>, failed: &Execution) -> Result<Ended, AppError> {
        let reason = failed.reason.clone().unwrap_or_default();
        self.reporter.event(Event::Unwinding { reason: reason.clone() });
        let stuck = |why: String, left: Vec<String>| Ended {
            direction: Direction::Back,
            outcome: Outcome::Stuck,
            reason: Some(why),
            left,
        };
        let course = match self.back(crew.unfinished, crew.request).await {
            Ok(course) => course,
            Err(error) => {
                let why = format!("{reason}; and there is no way back: {error}");
                let end = stuck(why, failed.left.clone());
                let release = crew.unfinished.release();
                return Ok(self.write_end(crew, end, &release).await);
            }
        };
        // Whoever interrupted the way forward wants to be back.
        let execution = self.attempt(crew, &course, Cancel::default()).await?;
        let clean = execution.outcome == Outcome::Done && execution.left.is_empty();
        let end = if clean {
            let (direction, outcome) = (Direction::Back, Outcome::RolledBack);
            Ended { direction, outcome, reason: Some(reason), left: Vec::new() }
        } else {
            let more = execution.reason.clone();
            let why = more.map_or(reason.clone(), |more| format!("{reason}; going back: {more}"));
            stuck(why, execution.left.clone())
        };
        if execution.lost_lease {
            return Ok(end);
        }
        Ok(self.end(crew, end, &course.assembled, &execution).await)
    }

    /// One more go under the deployment's number.
    async fn attempt(
        &self,
        crew: &Crew<'_>,
        course: &Course,
        cancel: Cancel,
    ) -> Result<Execution, AppError> {
        let plan = &course.planned.plan;
        // The lease may be the one of the attempt before, whose way led nowhere.
        let resumption = Resumption {
            who: self.who.clone(),
            message: crew.request.message.clone(),
            generation: crew.lease.generation,
            direction: course.direction,
            found: crew.found.clone(),
            plan: shiplap_plan::to_json(plan),
            at_ms: now_ms(),
        };
        self.ledger.resume(crew.lease, crew.unfinished.number(), &resumption).await?;
        let run = self.run(
            crew.lease,
            crew.unfinished.number(),
            course.assembled.desired.clone(),
            &crew.request.limits,
        );
        let keep_failed = crew.request.keep_failed;
        let run = Run { cancel, keep_failed, meeting: crew.request.meeting(), ..run };
        Ok(execute(&run, plan).await)
    }

    async fn end(
        &self,
        crew: &Crew<'_>,
        end: Ended,
        assembled: &Assembled,
        execution: &Execution,
    ) -> Ended {
        let release = match end.outcome {
            Outcome::Done => binding::release(&assembled.desired, &execution.images),
            Outcome::Failed | Outcome::RolledBack | Outcome::Stuck | Outcome::Interrupted => {
                crew.unfinished.release()
            }
        };
        self.write_end(crew, end, &release).await
    }

    async fn write_end(
        &self,
        crew: &Crew<'_>,
        mut end: Ended,
        release: &shiplap_model::StoredRelease,
    ) -> Ended {
        let number = crew.unfinished.number();
        let reason = end.reason.as_deref();
        let written = self.ledger.end(crew.lease, number, end.outcome, reason, release).await;
        if let Err(error) = written {
            end.left.push(format!("history could not be written: {error}"));
        }
        end
    }

    fn why_back(&self, crew: &Crew<'_>) -> String {
        let number = crew.unfinished.number();
        format!("deployment {number} did not end; {} went back", self.who)
    }

    /// Says what was found, before anything is asked.
    fn tell(&self, unfinished: &Unfinished, found: &[String]) {
        let number = unfinished.number();
        let stuck = match unfinished.state.end() {
            Some(_) => "is stuck",
            None => "was interrupted",
        };
        let what = match found {
            [] => unfinished.last_words(),
            found => found.join("; "),
        };
        self.reporter.event(Event::Notice(format!(
            "deployment {number} ({} by {}) {stuck}: {what}",
            unfinished.deployment.kind, unfinished.who
        )));
    }

    async fn course(
        &self,
        unfinished: &Unfinished,
        policy: OnInterrupted,
        request: &Request,
    ) -> Result<Course, AppError> {
        match policy {
            OnInterrupted::Forward => match unfinished.open_requirements() {
                [] => self.forward(unfinished, request).await,
                [open, ..] => Err(AppError::History {
                    message: format!(
                        "deployment {} cannot go on: `{open}` had to hold before it changed \
                         anything, and did not yet",
                        unfinished.number()
                    ),
                    help: "`shiplap resume --back`, or deploy again, which asks for it".to_owned(),
                }),
            },
            OnInterrupted::Back => self.back(unfinished, request).await,
            OnInterrupted::Auto => self.decide(unfinished, request).await,
        }
    }

    /// On, if every new replica is there and works; else back.
    async fn decide(&self, unfinished: &Unfinished, request: &Request) -> Result<Course, AppError> {
        let because = |why: &str| format!("going back, since {why}");
        let forward = self.forward(unfinished, request).await;
        let why_not = if unfinished.state.goes_back() {
            Some(because("it was going back already"))
        } else if let Some(open) = unfinished.open_requirements().first() {
            Some(because(&format!("`{open}` had to hold before, and did not yet")))
        } else if unfinished.lacks_an_image() && unfinished.deployment.kind != "down" {
            Some(because("an image that it needs is not built yet"))
        } else {
            match &forward {
                Err(error) => Some(because(&format!("going on is not possible: {error}"))),
                Ok(course) => self.why_not_on(unfinished, course).await.map(|why| because(&why)),
            }
        };
        let Some(why) = why_not else {
            let on = forward?;
            return Ok(Course { because: "going on: all that it started works".to_owned(), ..on });
        };
        match (self.back(unfinished, request).await, forward) {
            (Ok(back), _) => Ok(Course { because: why, ..back }),
            // A way on that may fail is better than none.
            (Err(AppError::Refused(_) | AppError::History { .. }), Ok(forward)) => Ok(forward),
            (Err(error), _) => Err(error),
        }
    }

    /// What is missing for going on by itself, if anything is.
    async fn why_not_on(&self, unfinished: &Unfinished, course: &Course) -> Option<String> {
        let plan = &course.planned.plan;
        let missing = plan.steps.iter().find(|step| match step.action {
            Action::Pull { .. }
            | Action::Build { .. }
            | Action::Create(_)
            | Action::Start { .. }
            | Action::Thaw { .. } => true,
            Action::Require(_)
            | Action::EnsureEdge
            | Action::EnsureHolder(_)
            | Action::RemoveHolder { .. }
            | Action::CreateNetwork(_)
            | Action::CreateVolume(_)
            | Action::Gate { .. }
            | Action::Route { .. }
            | Action::Drain { .. }
            | Action::Stop { .. }
            | Action::Freeze { .. }
            | Action::Watch { .. }
            | Action::Meet { .. }
            | Action::Rename { .. }
            | Action::Remove { .. }
            | Action::RemoveNetwork { .. }
            | Action::RemoveVolume { .. } => false,
        });
        if let Some(step) = missing {
            return Some(format!("`{}` is still to be done", step.action));
        }
        // Under no lease of a generation of its own: gates only look.
        let lease = LeaseKey { scope: unfinished.deployment.scope.clone(), generation: 0 };
        let desired = course.assembled.desired.clone();
        let run = self.run(&lease, unfinished.number(), desired, &Limits::default());
        probe_gates(&run, plan).await.err()
    }

    /// To what the deployment was to make current.
    async fn forward(
        &self,
        unfinished: &Unfinished,
        request: &Request,
    ) -> Result<Course, AppError> {
        let deployment = &unfinished.deployment;
        let scope = &deployment.scope;
        let read = self.read_binding(deployment).await?;
        let assembled = if deployment.kind == "down" {
            self.bare(read.project, scope)
        } else {
            let (engine, release) = (self.engine.as_ref(), unfinished.release());
            binding::restore(engine, &scope.environment, read, &release).await?
        };
        let history = self.ledger.deployments(scope, LOOK_BACK).await?;
        let stored = stored_request(deployment, &assembled);
        let aftermath = self.aftermath(&history).await?;
        let policy = Policy {
            goal: goal_of(deployment),
            selection: stored.services.map_or(Selection::All, Selection::Only),
            force: stored.force,
            remove_orphans: stored.remove_orphans,
            remove_volumes: stored.remove_volumes,
            limits: request.limits,
            standby: request.standby,
            version: self.version.clone(),
            unfinished: aftermath.unfinished,
            trusted_jobs: aftermath.trusted_jobs,
            meet: request.others(),
            ..Policy::deploy(deployment.number)
        };
        let observed = self.observed(scope, &assembled.desired.compose).await?;
        let plan = shiplap_plan::plan(&assembled.desired, &observed, &policy)
            .map_err(AppError::Refused)?;
        let because = "going on".to_owned();
        let planned = Planned { plan, observed, resumes: Some(deployment.number) };
        Ok(Course { direction: Direction::Forward, because, assembled, planned })
    }

    /// To what was current before the deployment.
    async fn back(&self, unfinished: &Unfinished, request: &Request) -> Result<Course, AppError> {
        let deployment = &unfinished.deployment;
        let scope = &deployment.scope;
        let history = self.ledger.deployments(scope, LOOK_BACK).await?;
        let aftermath = self.aftermath(&history).await?;
        if let Some(before) = aftermath.abandoned.iter().find(|n| **n != deployment.number) {
            return Err(AppError::History {
                message: format!(
                    "deployment {before} of {scope} was left as it was, so there is no release \
                     before deployment {} to go back to",
                    deployment.number
                ),
                help: "`shiplap resume --forward`, or `shiplap rollback --to NUMBER`".to_owned(),
            });
        }
        let mut gone: BTreeSet<u64> = aftermath.unfinished.clone();
        gone.insert(deployment.number);
        let first = history.iter().rev().find(|d| gone.contains(&d.number)).unwrap_or(deployment);
        let before = first.request.as_ref().map(|request| request.before.clone());
        let networks = before.as_ref().map(|before| before.networks.clone());
        let containers = || before.iter().flat_map(|before| &before.containers);
        let there = containers().map(|c| c.id.clone()).collect();
        let rested = containers().filter(|c| !c.running).map(|c| c.id.clone()).collect();
        let project = self.read_binding(deployment).await?.project;
        let ports = project.services.iter().map(|(name, service)| (name.clone(), tcp(service)));
        let ports = ports.collect();
        let policy = Policy {
            limits: request.limits,
            standby: request.standby,
            version: self.version.clone(),
            unfinished: aftermath.unfinished,
            undo: Some(Undo { deployments: gone, networks, there, rested, ports }),
            ..Policy::deploy(deployment.number)
        };
        let done = history.iter().find(|d| d.number < deployment.number && is_done(d));
        let because = "going back".to_owned();
        let (assembled, planned) = match done.filter(|done| done.kind != "down") {
            Some(target) => self.back_to(target, deployment, policy).await?,
            None => self.back_to_nothing(deployment, &before.unwrap_or_default(), policy).await?,
        };
        Ok(Course { direction: Direction::Back, because, assembled, planned })
    }

    async fn back_to(
        &self,
        target: &Deployment,
        deployment: &Deployment,
        policy: Policy,
    ) -> Result<(Assembled, Planned), AppError> {
        let scope = &target.scope;
        let read = self.read_binding(target).await?;
        let engine = self.engine.as_ref();
        let assembled = binding::restore(engine, &scope.environment, read, &target.release).await?;
        let observed = self.observed(scope, &assembled.desired.compose).await?;
        let policy = Policy {
            goal: Goal::Rollback { to: target.number },
            // Replicas of the release before that must be made again are its own.
            deployment: target.number,
            selection: touched(deployment, &observed, &assembled, &policy),
            ..policy
        };
        let plan = shiplap_plan::plan(&assembled.desired, &observed, &policy)
            .map_err(AppError::Refused)?;
        Ok((assembled, Planned { plan, observed, resumes: Some(deployment.number) }))
    }

    async fn back_to_nothing(
        &self,
        deployment: &Deployment,
        before: &StoredBefore,
        policy: Policy,
    ) -> Result<(Assembled, Planned), AppError> {
        let scope = &deployment.scope;
        let read = self.read_binding(deployment).await?;
        let assembled = self.bare(read.project, scope);
        let observed = self.observed(scope, &assembled.desired.compose).await?;
        let plan = shiplap_plan::withdraw(&assembled.desired, &observed, before, &policy);
        Ok((assembled, Planned { plan, observed, resumes: Some(deployment.number) }))
    }

    fn abandoning(&self, unfinished: &Unfinished, observed: Observed) -> Course {
        let scope = &unfinished.deployment.scope;
        let numbers = BTreeSet::from([unfinished.number()]);
        let plan = shiplap_plan::abandon(scope, &observed, &numbers);
        let assembled = self.bare(Default::default(), scope);
        let planned = Planned { plan, observed, resumes: Some(unfinished.number()) };
        let because = "leaving it as it is; only what it holds is released".to_owned();
        Course { direction: Direction::Abandon, because, assembled, planned }
    }

    /// What is, without knowing what should be.
    async fn look(&self, scope: &Scope) -> Result<Observed, AppError> {
        let owner = scope.to_string();
        let (engine, router) =
            tokio::join!(self.engine.observe(&scope.project, None), self.router.state(&owner));
        let mut observed = engine?;
        observed.router = router?;
        Ok(observed)
    }

    /// The plan that settling a deployment would begin with.
    pub(super) async fn plan_to_settle(
        &self,
        unfinished: &Unfinished,
        choice: Choice,
        request: &Request,
    ) -> Result<Planned, AppError> {
        let course = match choice {
            Choice::Settle(policy) => Box::pin(self.course(unfinished, policy, request)).await?,
            Choice::Abandon => {
                let observed = self.look(&unfinished.deployment.scope).await?;
                self.abandoning(unfinished, observed)
            }
        };
        Ok(course.planned)
    }

    pub(super) fn run(
        &self,
        lease: &LeaseKey,
        number: u64,
        desired: shiplap_model::Desired,
        limits: &Limits,
    ) -> Run {
        Run {
            engine: self.engine.clone(),
            router: self.router.clone(),
            ledger: self.ledger.clone(),
            reporter: self.reporter.clone(),
            cancel: self.cancel.clone(),
            lease: lease.clone(),
            number,
            desired: Arc::new(desired),
            keep_failed: crate::KeepFailed::No,
            limits: *limits,
            before: BTreeSet::new(),
            meeting: None,
        }
    }
}

/// How it ended.
struct Ended {
    direction: Direction,
    outcome: Outcome,
    reason: Option<String>,
    left: Vec<String>,
}

/// TCP ports that a service publishes or exposes.
fn tcp(service: &shiplap_compose::model::Service) -> BTreeSet<u16> {
    let published = service.ports.iter();
    let published = published.filter(|port| port.protocol.as_deref().is_none_or(|p| p == "tcp"));
    let exposed = service.expose.iter().filter_map(|text| text.split('/').next()?.parse().ok());
    published.map(|port| port.target).chain(exposed).collect()
}

/// Services that going back may touch: those that the deployment might, and what it has left.
fn touched(
    deployment: &Deployment,
    observed: &Observed,
    target: &Assembled,
    policy: &Policy,
) -> Selection {
    let chosen = deployment.request.as_ref().and_then(|request| request.services.clone());
    let (Some(mut services), Some(undo)) = (chosen, &policy.undo) else { return Selection::All };
    let made = observed
        .containers
        .iter()
        .filter(|c| c.deployment.is_some_and(|number| undo.deployments.contains(&number)));
    services.extend(made.map(|c| c.service.clone()));
    services.retain(|service| target.desired.services.contains_key(service));
    Selection::Only(services)
}

fn goal_of(deployment: &Deployment) -> Goal {
    match deployment.kind.as_str() {
        "rollback" => Goal::Rollback { to: deployment.plan["rollback_to"].as_u64().unwrap_or(0) },
        "restart" => Goal::Restart,
        "scale" => Goal::Scale,
        "down" => Goal::Down,
        _ => Goal::Deploy,
    }
}

/// What it was asked to do. Where that was not written down yet, its kind tells most of it.
fn stored_request(deployment: &Deployment, assembled: &Assembled) -> StoredRequest {
    deployment.request.clone().unwrap_or_else(|| StoredRequest {
        force: match deployment.kind.as_str() {
            "restart" => assembled.desired.services.keys().cloned().collect(),
            _ => BTreeSet::new(),
        },
        ..StoredRequest::default()
    })
}
