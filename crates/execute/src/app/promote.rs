//! Promotion: the release of one environment, with the values of another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use shiplap_compose::model::Project;
use shiplap_model::{
    COMPOSE_NUMBER, COMPOSE_ONEOFF, COMPOSE_PROJECT, COMPOSE_SERVICE, CreateReplica, DEPLOYMENT,
    Deployment, Desired, ENVIRONMENT, ImagePin, Names, Note, Plan, Requirement, RequirementKind,
    RequirementRun, Scope,
};

use super::deploy::{LOOK_BACK, newest_done};
use super::desired::{assemble, contents};
use super::images::reference;
use super::{App, AppError, Request, Source, binding, images};

/// What is promoted where.
#[derive(Debug, Clone)]
pub struct Promotion<'a> {
    /// The environment that has the release.
    pub from: &'a Source,
    /// The number of its deployment; the current one where none is given.
    pub number: Option<u64>,
    /// The environment that gets it, with its values.
    pub to: &'a Source,
    /// What the release must pass before, in the environment that it comes from.
    pub tests: Option<Tests>,
}

/// A command in a container of the environment that a release comes from.
#[derive(Debug, Clone)]
pub struct Tests {
    /// The service in that environment's project that stands for the container. It is in no release.
    pub service: String,
    /// How long it may take.
    pub limit: Duration,
}

impl Promotion<'_> {
    /// The deployment whose release is promoted.
    pub(super) async fn deployment(&self, app: &App) -> Result<Deployment, AppError> {
        let scope = self.from.scope();
        let history = app.ledger.deployments(&scope, LOOK_BACK).await?;
        let found = match self.number {
            None => newest_done(&history),
            Some(number) => {
                let mut done = history.iter().filter(|d| super::deploy::is_done(d));
                done.find(|deployment| deployment.number == number && deployment.kind != "down")
            }
        };
        found.cloned().ok_or_else(|| AppError::History {
            message: match self.number {
                None => format!("{scope} has no deployment that could be promoted"),
                Some(number) => format!("deployment {number} of {scope} was never current"),
            },
            help: format!("deploy {} first, or look at its `shiplap history`", scope.environment),
        })
    }
}

impl App {
    /// The images of a project, as another environment's release has them. What that release does
    /// not have is pinned as in a deployment.
    pub(super) async fn promoted_pins(
        &self,
        project: &Project,
        promoted: &Deployment,
        request: &Request,
    ) -> Result<BTreeMap<String, ImagePin>, AppError> {
        let engine = self.engine.as_ref();
        let stored = &promoted.release.services;
        // A service that only this environment has runs the image of the one that it is made like.
        let like = |name: &String| {
            let own = reference(project, name, &project.services[name]);
            let mut services = project.services.iter();
            let same = services.find(|(other, s)| {
                stored.contains_key(*other) && reference(project, other, s) == own
            });
            same.map(|(other, _)| other.clone())
        };
        let mut pins = BTreeMap::new();
        let mut refusals = Vec::new();
        let mut others = BTreeSet::new();
        for (name, service) in &project.services {
            let from = if stored.contains_key(name) { Some(name.clone()) } else { like(name) };
            let Some(image) = from.and_then(|from| stored.get(&from)).map(|s| &s.image) else {
                others.insert(name.clone());
                continue;
            };
            match binding::find(engine, name, Some(image)).await? {
                Ok(pin) => {
                    // What is built is called after its project; what is pulled, after its registry.
                    let reference = if service.build.is_some() {
                        reference(project, name, service)
                    } else {
                        pin.reference.clone()
                    };
                    pins.insert(name.clone(), ImagePin { reference, ..pin });
                }
                Err(refusal) => refusals.push(refusal),
            }
        }
        if !refusals.is_empty() {
            return Err(AppError::Refused(refusals));
        }
        if !others.is_empty() {
            let mut rest = project.clone();
            rest.services.retain(|name, _| others.contains(name));
            let selection = shiplap_plan::Selection::All;
            pins.extend(images::pin_all(engine, &rest, &selection, request.images).await?);
        }
        Ok(pins)
    }

    /// The tests as the plan asks for them: a container in the environment that the release comes
    /// from, with that release's image and that environment's values.
    pub(super) async fn tests(
        &self,
        promotion: &Promotion<'_>,
        promoted: &Deployment,
        request: &Request,
    ) -> Result<Option<Requirement>, AppError> {
        let Some(tests) = &promotion.tests else { return Ok(None) };
        let source = promotion.from;
        let project = &source.loaded.project;
        let pins = self.promoted_pins(project, promoted, request).await?;
        let contents = contents(source).map_err(AppError::Refused)?;
        let place = (source.loaded.project_directory.display().to_string(), Vec::new());
        let engine = self.engine.as_ref();
        let assembled =
            assemble(engine, project, &source.environment, place, &pins, contents, &source.routes);
        let replica = one_off(&promotion.to.scope(), &assembled.desired, &tests.service);
        Ok(Some(Requirement {
            kind: RequirementKind::Tests,
            repositories: Vec::new(),
            image: None,
            run: RequirementRun::Container {
                desired: Arc::new(assembled.desired),
                replica: Box::new(replica),
            },
            limit: tests.limit,
        }))
    }

    /// What the plan should say besides: what is promoted, and in what the environments differ.
    pub(super) async fn promotion_notes(
        &self,
        promotion: &Promotion<'_>,
        promoted: &Deployment,
        desired: &Desired,
    ) -> Vec<Note> {
        let from = &promotion.from.environment;
        let mut notes = vec![Note {
            code: "promotes",
            text: format!(
                "the images of deployment {} of {from}; values, routes and limits stay those of {}",
                promoted.number, desired.environment
            ),
        }];
        let other = &promotion.from.loaded.project;
        for (name, spec) in &desired.services {
            let Some(service) = other.services.get(name) else {
                notes.push(Note {
                    code: "promotes",
                    text: format!("{name} is not in {from}: its image is the one in the files"),
                });
                continue;
            };
            let theirs = shiplap_plan::fields_of(other, service, &[], &[]);
            let ours = shiplap_plan::fields_of(&desired.compose, &spec.service, &[], &[]);
            let differing = ours.differing(&theirs);
            if !differing.is_empty() {
                let text = format!("{name} differs from {from} in {}", differing.join(", "));
                notes.push(Note { code: "differs", text });
            }
        }
        let missing = promoted.release.services.keys().filter(|name| {
            !desired.services.contains_key(*name) && other.services.contains_key(*name)
        });
        for name in missing {
            let text = format!("{name} of {from} is not in {}", desired.environment);
            notes.push(Note { code: "promotes", text });
        }
        notes
    }

    /// Gives promoted images that were built the names under which a later deployment from the files
    /// looks for them. That one would otherwise go back to what was built here before.
    pub(super) async fn name_promoted(&self, desired: &Desired) -> Vec<String> {
        let mut left = Vec::new();
        for spec in desired.services.values() {
            let Some(id) = &spec.image.id else { continue };
            if spec.service.build.is_none() {
                continue;
            }
            if let Err(error) = self.engine.tag(id, &spec.image.reference).await {
                left.push(format!("{} was not given its name: {error}", spec.image.reference));
            }
        }
        left
    }
}

/// The container of tests: it is nobody's replica, answers to no name, and is called after the
/// environment that asks for it, so that two of them do not meet.
fn one_off(asks: &Scope, desired: &Desired, service: &str) -> CreateReplica {
    let name = format!("{}-{service}-for-{}", desired.project, asks.environment);
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    CreateReplica {
        service: service.to_owned(),
        base_name: name.clone(),
        name,
        number: 1,
        anonymous_volumes: BTreeMap::new(),
        labels: BTreeMap::from([
            label(COMPOSE_PROJECT, &desired.project),
            label(COMPOSE_SERVICE, service),
            label(COMPOSE_NUMBER, "1"),
            label(COMPOSE_ONEOFF, "True"),
            label(ENVIRONMENT, &desired.environment),
            label(DEPLOYMENT, "0"),
        ]),
        publish: Vec::new(),
        names: Names::Own,
        peers: BTreeMap::new(),
    }
}

/// What became of the jobs of a plan: what they have changed in data stays, whatever becomes of the
/// deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobEnd {
    /// It did not begin.
    NotRun,
    /// It began, and did not end well.
    Failed,
    /// It ended well.
    Done,
}

/// The jobs that a plan runs, by service, and how far each came: `began` and `finished` tell of
/// steps by number.
pub(super) fn jobs(
    plan: &Plan,
    compose: &Project,
    began: &BTreeSet<u32>,
    finished: &BTreeSet<u32>,
) -> BTreeMap<String, JobEnd> {
    use shiplap_model::Action;
    let mut jobs = BTreeMap::new();
    for step in &plan.steps {
        let Some(service) = &step.service else { continue };
        if !shiplap_plan::is_waited_for(compose, service) {
            continue;
        }
        let end = match &step.action {
            Action::Start { .. } if began.contains(&step.id.0) => JobEnd::Failed,
            Action::Gate { .. } if finished.contains(&step.id.0) => JobEnd::Done,
            Action::Start { .. } | Action::Gate { .. } => JobEnd::NotRun,
            _ => continue,
        };
        let known = jobs.entry(service.clone()).or_insert(end);
        if *known != JobEnd::Done && end != JobEnd::NotRun {
            *known = end;
        }
    }
    jobs
}
