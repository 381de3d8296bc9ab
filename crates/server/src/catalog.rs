//! What there is to deploy, as the files say at this moment.

use std::collections::{BTreeMap, BTreeSet};

use shiplap_model::{Scope, Secret};

/// All projects of a server.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// By name.
    pub projects: BTreeMap<String, ProjectEntry>,
}

impl Catalog {
    /// The environment, where there is one.
    #[must_use]
    pub fn environment(&self, scope: &Scope) -> Option<&EnvironmentEntry> {
        self.projects.get(&scope.project)?.environments.get(&scope.environment)
    }

    /// All environments, in order.
    pub fn environments(&self) -> impl Iterator<Item = (Scope, &EnvironmentEntry)> {
        self.projects.iter().flat_map(|(project, entry)| {
            entry.environments.iter().map(|(environment, entry)| {
                let scope = Scope { project: project.clone(), environment: environment.clone() };
                (scope, entry)
            })
        })
    }
}

/// A project.
#[derive(Debug, Clone, Default)]
pub struct ProjectEntry {
    /// Its environments by name.
    pub environments: BTreeMap<String, EnvironmentEntry>,
    /// What others may ask for by their own forms of request.
    pub triggers: Vec<Trigger>,
    /// Why its files cannot be used right now. What is known from before stays in the entry, so
    /// that a typing error in a file does not turn known names into unknown ones.
    pub problem: Option<String>,
}

/// An environment.
#[derive(Debug, Clone, Default)]
pub struct EnvironmentEntry {
    /// Where it runs, as the file names it.
    pub target: String,
    /// Its services by name.
    pub services: BTreeMap<String, ServiceEntry>,
    /// Why it cannot be deployed right now, such as a file that does not parse. Orders for it are
    /// refused.
    pub problem: Option<String>,
}

/// A service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceEntry {
    /// The reference of its image, as the files say right now; empty where it is only built.
    pub image: String,
    /// That without tag and digest: `ghcr.io/cheapa/api`. As written: nothing is added to short
    /// names, so tokens and triggers name it the same way as the Compose file.
    pub repository: String,
    /// The tag, where the reference has one.
    pub tag: Option<String>,
    /// The variable that is the tag, such as `API_IMAGE_TAG`. Services with the same one always
    /// have the same tag: whoever sets one of them sets all.
    pub variable: Option<String>,
    /// Why no tag can be set, where none can: `the file names the tag itself`.
    pub fixed: Option<String>,
}

/// A service of an environment of the trigger's project.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The environment.
    pub environment: String,
    /// The service.
    pub service: String,
}

/// A form of request that others know, and what it is good for.
#[derive(Debug, Clone)]
pub enum Trigger {
    /// The dispatch of a workflow, as Forgejo, Gitea and GitHub take it. Allowed by a token.
    Dispatch(DispatchTrigger),
    /// Notifications of a registry about images that were pushed. Allowed by a shared secret.
    Registry(RegistryTrigger),
    /// Webhooks about commits that were pushed. Allowed by a signature.
    Push(PushTrigger),
}

/// The dispatch of a workflow.
#[derive(Debug, Clone, Default)]
pub struct DispatchTrigger {
    /// `owner/name` of the address; every one where absent.
    pub repository: Option<String>,
    /// The workflow's file in the address, such as `deploy.yml`; every one where absent.
    pub workflow: Option<String>,
    /// Branches and tags that `ref` may name, `*` standing for any characters; all where empty.
    /// `main` also means `refs/heads/main` and `refs/tags/main`.
    pub refs: Vec<String>,
    /// Inputs that are tags, and the services that they are for. Inputs that are not here are
    /// refused, unless they are empty.
    pub inputs: BTreeMap<String, Vec<Place>>,
}

/// Notifications of a registry (the envelope of Docker Distribution).
#[derive(Debug, Clone)]
pub struct RegistryTrigger {
    /// What the header `Authorization` must be: as it stands there, behind `Bearer `, or as the
    /// password of basic authentication. Not empty.
    pub secret: Secret<String>,
    /// What is taken from them.
    pub images: Vec<ImageTrigger>,
}

/// An image that was pushed.
#[derive(Debug, Clone, Default)]
pub struct ImageTrigger {
    /// The repository as the notification names it, without the registry's host: `cheapa/api`.
    pub repository: String,
    /// Tags, `*` standing for any characters: `*`, `v*`.
    pub tags: String,
    /// What gets the tag.
    pub places: Vec<Place>,
}

/// Webhooks about pushed commits.
#[derive(Debug, Clone)]
pub struct PushTrigger {
    /// Who sends them.
    pub provider: PushProvider,
    /// The key of the signature (for GitLab also the token). Not empty.
    pub secret: Secret<String>,
    /// `owner/name` that the payload must name; every one where absent.
    pub repository: Option<String>,
    /// Branches, `*` standing for any characters, and the environments that are deployed as the
    /// files say. Where several match, all are.
    pub branches: BTreeMap<String, BTreeSet<String>>,
}

/// Who sends a push webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PushProvider {
    /// `X-Hub-Signature-256`.
    GitHub,
    /// `X-Gitea-Signature`.
    Gitea,
    /// `X-Forgejo-Signature`.
    Forgejo,
    /// `X-Gitlab-Token`, or the signature of Standard Webhooks.
    GitLab,
}
