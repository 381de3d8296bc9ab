//! From a loaded project to the planner's left hand.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use shiplap_compose::model::{FileObject, FileReference, Project, Service};
use shiplap_compose::{FileSource, OsFiles};
use shiplap_model::{
    Desired, Engine, Fields, ImagePin, InjectedFile, Refusal, RouteTable, Secret, ServiceSpec,
};

use super::{FilesAt, Source};

/// The largest config or secret whose content is compared and kept: the engine's own limit for
/// configs is half a megabyte.
const LARGEST_FILE: u64 = 1 << 20;

/// A file of the host that a config or secret mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostedFile {
    pub target: String,
    pub path: String,
    pub content: Secret<Vec<u8>>,
}

/// Contents of a service's configs and secrets.
#[derive(Debug, Clone, Default)]
pub(super) struct Contents {
    pub injected: Vec<InjectedFile>,
    pub hosted: Vec<HostedFile>,
}

/// A desired state, and the contents that it was made with, for the binding.
pub(super) struct Assembled {
    pub desired: Desired,
    pub contents: BTreeMap<String, Contents>,
    /// Which versions of the environment's secrets its values were made with.
    pub secrets: BTreeMap<String, u32>,
}

/// Reads the contents of all configs and secrets.
///
/// # Errors
/// `secret-missing` for files that cannot be read and variables that are not set.
pub(super) fn contents(source: &Source) -> Result<BTreeMap<String, Contents>, Vec<Refusal>> {
    let project = &source.loaded.project;
    let mut all = BTreeMap::new();
    let mut refusals = Vec::new();
    for (name, service) in &project.services {
        let mut contents = Contents::default();
        let secrets = service.secrets.iter().map(|r| (r, &project.secrets, "secrets"));
        let configs = service.configs.iter().map(|r| (r, &project.configs, "configs"));
        for (reference, objects, section) in secrets.chain(configs) {
            let key = reference.source.clone().unwrap_or_default();
            let Some(object) = objects.get(&key) else { continue };
            match content(source, &key, object, section) {
                Ok(Some(Content::Hosted(path, content))) => contents.hosted.push(HostedFile {
                    target: target(reference, &key, section),
                    path,
                    content,
                }),
                Ok(Some(Content::Given(content))) => contents.injected.push(InjectedFile {
                    target: target(reference, &key, section),
                    content,
                    uid: number(reference.uid.as_deref()),
                    gid: number(reference.gid.as_deref()),
                    mode: reference
                        .mode
                        .and_then(|mode| u32::try_from(mode.bits()).ok())
                        .unwrap_or(0o444),
                }),
                Ok(None) => {}
                Err(Missing { message, help }) => refusals.push(Refusal {
                    code: "secret-missing",
                    service: Some(name.clone()),
                    path: vec![section.to_owned(), key.clone()],
                    message: format!("`{key}` of `{name}`: {message}"),
                    help,
                }),
            }
        }
        all.insert(name.clone(), contents);
    }
    if refusals.is_empty() { Ok(all) } else { Err(refusals) }
}

enum Content {
    Hosted(String, Secret<Vec<u8>>),
    Given(Secret<Vec<u8>>),
}

/// Why there is no content.
struct Missing {
    message: String,
    help: Option<String>,
}

impl From<String> for Missing {
    fn from(message: String) -> Self {
        Self { message, help: None }
    }
}

fn content(
    source: &Source,
    key: &str,
    object: &FileObject,
    section: &str,
) -> Result<Option<Content>, Missing> {
    if object.external {
        return external(source, object.name.as_deref().unwrap_or(key), section);
    }
    if let Some(path) = &object.file {
        let file = Path::new(path);
        if OsFiles.is_dir(file) {
            return Ok(None);
        }
        let content = OsFiles
            .read(file, LARGEST_FILE)
            .map_err(|error| format!("{path} cannot be read: {error}"))?;
        let content = Secret::new(content);
        return Ok(Some(match source.files {
            FilesAt::Engine => Content::Hosted(path.clone(), content),
            FilesAt::Elsewhere => Content::Given(content),
        }));
    }
    if let Some(variable) = &object.environment {
        let value = source
            .loaded
            .environment
            .get(variable)
            .ok_or_else(|| format!("the variable {variable} is not set"))?;
        return Ok(Some(Content::Given(Secret::new(value.clone().into_bytes()))));
    }
    let text = object.content.as_ref();
    Ok(text.map(|text| Content::Given(Secret::new(text.clone().into_bytes()))))
}

/// What stands outside of the files: secrets in the environment's store, configs nowhere.
fn external(source: &Source, name: &str, section: &str) -> Result<Option<Content>, Missing> {
    if section == "configs" {
        let why = "it is external, which only a Swarm has; name a file or a variable";
        return Err(why.to_owned().into());
    }
    match source.secrets.get(name) {
        Some(secret) => Ok(Some(Content::Given(secret.content.clone()))),
        None => Err(Missing {
            message: format!("it is external, and {} has no secret `{name}`", source.scope()),
            help: Some(format!("`shiplap secrets set {name}` reads its value from standard input")),
        }),
    }
}

fn target(reference: &FileReference, key: &str, section: &str) -> String {
    match (&reference.target, section) {
        (Some(target), _) if target.starts_with('/') => target.clone(),
        (Some(target), "secrets") => format!("/run/secrets/{target}"),
        (None, "secrets") => format!("/run/secrets/{key}"),
        (Some(target), _) => format!("/{target}"),
        (None, _) => format!("/{key}"),
    }
}

fn number(id: Option<&str>) -> u32 {
    id.and_then(|id| id.parse().ok()).unwrap_or(0)
}

/// Puts a desired state together.
pub(super) fn assemble(
    engine: &dyn Engine,
    project: &Project,
    environment: &str,
    (working_dir, config_files): (String, Vec<String>),
    pins: &BTreeMap<String, ImagePin>,
    contents: BTreeMap<String, Contents>,
    routes: &RouteTable,
) -> Assembled {
    let mut desired = Desired {
        project: project.name.clone(),
        environment: environment.to_owned(),
        working_dir,
        config_files,
        compose: project.clone(),
        services: BTreeMap::new(),
        routes: routes.clone(),
    };
    for (name, service) in &project.services {
        let mut spec = spec(project, name, service, &pins[name], contents.get(name));
        spec.routed = routes.ports_of(name);
        desired.services.insert(name.clone(), spec);
    }
    let facts: Vec<(String, Fields)> = desired
        .services
        .iter()
        .map(|(name, spec)| (name.clone(), engine.facts(&desired, spec)))
        .collect();
    for (name, facts) in facts {
        desired.services.get_mut(&name).expect("just listed").facts = facts;
    }
    Assembled { desired, contents, secrets: BTreeMap::new() }
}

fn spec(
    project: &Project,
    name: &str,
    service: &Service,
    image: &ImagePin,
    contents: Option<&Contents>,
) -> ServiceSpec {
    let injected = contents.map(|c| c.injected.clone()).unwrap_or_default();
    let hosted: Vec<(String, Vec<u8>)> = contents
        .iter()
        .flat_map(|contents| &contents.hosted)
        .map(|file| (file.target.clone(), file.content.expose().clone()))
        .collect();
    ServiceSpec {
        name: name.to_owned(),
        service: service.clone(),
        replicas: service.replicas(),
        routed: BTreeSet::new(),
        image: image.clone(),
        fields: shiplap_plan::fields_of(project, service, &injected, &hosted),
        facts: Fields::new(),
        files: injected,
    }
}
