//! What a control server takes as a request to deploy.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use shiplap_compose::Diagnostic;
use shiplap_compose::document::{Cursor, nearest_word};

use crate::Config;
use crate::file::{GitHost, Places};

/// All of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TriggerSettings {
    /// Dispatches of a workflow.
    pub dispatch: Vec<DispatchTrigger>,
    /// Notifications of registries.
    pub registry: Vec<RegistryTrigger>,
    /// Webhooks about commits.
    pub push: Vec<PushTrigger>,
}

/// A service of an environment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The environment.
    pub environment: String,
    /// The service.
    pub service: String,
}

/// The dispatch of a workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DispatchTrigger {
    /// `owner/name`; any, where absent.
    pub repository: Option<String>,
    /// The workflow's file; any, where absent.
    pub workflow: Option<String>,
    /// Branches and tags, `*` for any text; all, where empty.
    pub refs: Vec<String>,
    /// Inputs that are tags, and whose.
    pub inputs: BTreeMap<String, Vec<Place>>,
}

/// Notifications of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryTrigger {
    /// The file with the secret that they carry.
    pub secret_file: PathBuf,
    /// What is taken from them.
    pub images: Vec<ImageTrigger>,
}

/// An image that was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageTrigger {
    /// The repository without the registry's host.
    pub repository: String,
    /// Tags, `*` for any text.
    pub tags: String,
    /// What gets the tag.
    pub places: Vec<Place>,
}

/// Webhooks about commits that were pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushTrigger {
    /// Who sends them.
    pub from: GitHost,
    /// The file with the secret by which they are signed.
    pub secret_file: PathBuf,
    /// `owner/name`; any, where absent.
    pub repository: Option<String>,
    /// Environments by branch, `*` for any text.
    pub branches: BTreeMap<String, BTreeSet<String>>,
    /// Whether the folder is brought up to date first.
    pub pull: bool,
}

impl Config {
    /// What a control server takes as a request to deploy.
    #[must_use]
    pub fn triggers(&self) -> TriggerSettings {
        let given = &self.file.triggers;
        let whole = |path: &String| self.folder.join(path);
        let dispatch = given.dispatch.iter().map(|dispatch| DispatchTrigger {
            repository: dispatch.repository.clone(),
            workflow: dispatch.workflow.clone(),
            refs: dispatch.refs.clone(),
            inputs: dispatch.inputs.iter().map(|(name, to)| (name.clone(), places(to))).collect(),
        });
        let registry = given.registry.iter().map(|registry| RegistryTrigger {
            secret_file: whole(&registry.secret_file),
            images: registry
                .images
                .iter()
                .map(|(repository, image)| ImageTrigger {
                    repository: repository.clone(),
                    tags: image.tags.clone(),
                    places: places(&image.to),
                })
                .collect(),
        });
        let push = given.push.iter().map(|push| PushTrigger {
            from: push.from,
            secret_file: whole(&push.secret_file),
            repository: push.repository.clone(),
            branches: push
                .branches
                .iter()
                .map(|(branch, names)| (branch.clone(), names.iter().cloned().collect()))
                .collect(),
            pull: push.pull,
        });
        TriggerSettings {
            dispatch: dispatch.collect(),
            registry: registry.collect(),
            push: push.collect(),
        }
    }
}

fn texts(places: &Places) -> &[String] {
    match places {
        Places::One(one) => std::slice::from_ref(one),
        Places::Several(several) => several,
    }
}

/// Those that are of the form; [`check`] has refused all others.
fn places(places: &Places) -> Vec<Place> {
    texts(places).iter().filter_map(|text| place(text)).collect()
}

fn place(text: &str) -> Option<Place> {
    let (environment, service) = text.split_once('/')?;
    let fits = !environment.is_empty() && !service.is_empty() && !service.contains('/');
    let place = || Place { environment: environment.to_owned(), service: service.to_owned() };
    fits.then(place)
}

/// That triggers name environments that there are. Whether those have the services, their Compose
/// files say.
pub(crate) fn check(config: &Config, problems: &mut Vec<Diagnostic>) {
    let given = &config.file.triggers;
    for (index, dispatch) in given.dispatch.iter().enumerate() {
        for (input, to) in &dispatch.inputs {
            let at = config.at(&["triggers", "dispatch", &index.to_string(), "inputs", input]);
            check_places(config, &at, to, problems);
        }
    }
    for (index, registry) in given.registry.iter().enumerate() {
        for (repository, image) in &registry.images {
            let index = index.to_string();
            let at = config.at(&["triggers", "registry", &index, "images", repository, "to"]);
            check_places(config, &at, &image.to, problems);
        }
    }
    for (index, push) in given.push.iter().enumerate() {
        for (branch, names) in &push.branches {
            for (place, name) in names.iter().enumerate() {
                let (index, place) = (index.to_string(), place.to_string());
                let at = config.at(&["triggers", "push", &index, "branches", branch, &place]);
                check_environment(config, &at, name, problems);
            }
        }
    }
}

fn check_places(config: &Config, at: &Cursor<'_>, places: &Places, problems: &mut Vec<Diagnostic>) {
    for (index, text) in texts(places).iter().enumerate() {
        let at = match places {
            Places::One(_) => at.nearest(&[]),
            Places::Several(_) => at.nearest(&[&index.to_string()]),
        };
        match place(text) {
            Some(place) => check_environment(config, &at, &place.environment, problems),
            None => {
                let message = format!("`{}` cannot be `{text}`", at.path());
                let problem = at.error("config/wrong-value", message, "not ENVIRONMENT/SERVICE");
                problems.push(problem.help("such as `prod/api`"));
            }
        }
    }
}

fn check_environment(config: &Config, at: &Cursor<'_>, name: &str, problems: &mut Vec<Diagnostic>) {
    if config.environments().any(|known| known == name) {
        return;
    }
    let message = format!("there is no environment `{name}`");
    let problem = at.error("config/unknown-environment", message, "no such environment");
    let known: Vec<&str> = config.environments().collect();
    problems.push(match nearest_word(name, known.iter().copied()) {
        Some(near) => problem.help(format!("did you mean `{near}`?")),
        None if known.is_empty() => problem.help("`environments: { prod: {} }`"),
        None => problem.help(format!("there are {}", known.join(", "))),
    });
}
