//! What there is to deploy, read from the projects' files and kept until they change.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use shiplap_compose::{Diagnostic, OsFiles};
use shiplap_config::{Config, GitHost, Settings, Target, TriggerSettings};
use shiplap_model::{Scope, Secret};
use shiplap_server::{
    Catalog, DispatchTrigger, EnvironmentEntry, ImageTrigger, Place, ProjectEntry, PushProvider,
    PushTrigger, RegistryTrigger, ServiceEntry, Trigger,
};

use crate::cli::ProjectArgs;
use crate::load::{self, Declared};
use crate::secrets::Missing;

/// What files include is looked at again this often, even if those that name it did not change.
const OLDEST: Duration = Duration::from_secs(60);

/// The projects of a control server: folders with a `shiplap.yaml` each.
pub struct Projects {
    configs: Vec<PathBuf>,
    known: Mutex<Known>,
    /// Only one reads at a time; others take what is known.
    reading: tokio::sync::Mutex<()>,
}

/// What is known of them.
#[derive(Default)]
struct Known {
    catalog: Arc<Catalog>,
    places: BTreeMap<Scope, Arc<EnvironmentPlace>>,
    seals: Vec<(PathBuf, Seal)>,
    at: Option<Instant>,
}

/// Where an environment's files are, and what it is called where it runs.
#[derive(Debug)]
pub struct EnvironmentPlace {
    /// The configuration.
    pub config: PathBuf,
    /// What it says of the environment.
    pub settings: Settings,
    /// Its name for the ledger, the engine and the edge.
    pub scope: Scope,
}

/// By this a file is taken for unchanged.
type Seal = Option<(SystemTime, u64)>;

impl Projects {
    /// Projects by their folders or their `shiplap.yaml`.
    ///
    /// # Errors
    /// One that has none, and two of the same name.
    pub fn new(folders: &[PathBuf]) -> Result<Self, Vec<Diagnostic>> {
        let mut configs = Vec::new();
        let mut names: BTreeMap<String, PathBuf> = BTreeMap::new();
        for folder in folders {
            let whole = std::path::absolute(folder).unwrap_or_else(|_| folder.clone());
            let found = if whole.is_dir() { in_folder(&whole) } else { Some(whole.clone()) };
            let Some(path) = found else {
                let message = format!("there is no shiplap.yaml in `{}`", folder.display());
                return Err(vec![
                    Diagnostic::error("serve/no-project", message)
                        .help("`shiplap init` there writes one for what is in the folder"),
                ]);
            };
            // Files with mistakes are served as such: they are mended while we run.
            if let Ok(config) = Config::read(&path, &OsFiles)
                && let Ok(name) = load::project_name(&arguments(&path), &config)
                && let Some(other) = names.insert(name.clone(), path.clone())
            {
                let message = format!(
                    "`{}` and `{}` are both the project `{name}`",
                    other.display(),
                    path.display()
                );
                return Err(vec![
                    Diagnostic::error("serve/same-project", message)
                        .help("write another `project:` in one of them"),
                ]);
            }
            configs.push(path);
        }
        Ok(Self { configs, known: Mutex::default(), reading: tokio::sync::Mutex::default() })
    }

    /// What there is to deploy right now.
    pub async fn catalog(&self) -> Arc<Catalog> {
        if let Some(catalog) = self.fresh() {
            return catalog;
        }
        let _alone = self.reading.lock().await;
        if let Some(catalog) = self.fresh() {
            return catalog;
        }
        let before = Arc::clone(&self.known().catalog);
        let read = self.read(&before).await;
        let catalog = Arc::clone(&read.catalog);
        *self.known() = read;
        catalog
    }

    /// The configuration of a project.
    pub fn config_of(&self, project: &str) -> Option<PathBuf> {
        let known = self.known();
        let mut of = known.places.iter().filter(|(scope, _)| scope.project == project);
        of.next().map(|(_, place)| place.config.clone())
    }

    /// Where an environment is.
    pub async fn place(&self, scope: &Scope) -> Option<Arc<EnvironmentPlace>> {
        self.catalog().await;
        self.known().places.get(scope).cloned()
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known, if the files are as they were.
    fn fresh(&self) -> Option<Arc<Catalog>> {
        let known = self.known();
        let is_young = known.at.is_some_and(|at| at.elapsed() < OLDEST);
        let unchanged = || known.seals.iter().all(|(path, was)| seal(path) == *was);
        (is_young && unchanged()).then(|| Arc::clone(&known.catalog))
    }

    async fn read(&self, before: &Catalog) -> Known {
        let mut known = Known { at: Some(Instant::now()), ..Known::default() };
        let mut catalog = Catalog::default();
        for path in &self.configs {
            // Sealed before they are read: what changes meanwhile is read again.
            known.seals.push((path.clone(), seal(path)));
            let args = arguments(path);
            let declared = match load::environments(&args) {
                Ok(Some(declared)) => declared,
                Ok(None) => continue,
                Err(problems) => {
                    keep_known(before, path, &first(&problems), &mut catalog, &mut known, self);
                    continue;
                }
            };
            let (project, environments) = declared;
            let mut entry = ProjectEntry::default();
            for Declared { settings, .. } in environments {
                let Some(settings) = settings else { continue };
                known.seals.extend(files_of(&settings).map(|path| (path.clone(), seal(&path))));
                let scope = Scope { project: project.clone(), environment: settings.name.clone() };
                let old = before.environment(&scope);
                let read = environment(&args, &settings, old).await;
                entry.environments.insert(settings.name.clone(), read);
                let place = EnvironmentPlace {
                    config: path.clone(),
                    scope: load::scope_of(&settings).await,
                    settings,
                };
                known.places.insert(scope, Arc::new(place));
            }
            match Config::read(path, &OsFiles) {
                Ok(config) => match triggers(&config.triggers()) {
                    Ok(triggers) => entry.triggers = triggers,
                    Err(problem) => entry.problem = Some(problem),
                },
                Err(problems) => entry.problem = Some(first(&problems)),
            }
            catalog.projects.insert(project, entry);
        }
        known.catalog = Arc::new(catalog);
        known
    }
}

/// A project whose configuration cannot be read stays as it was known, with the problem.
fn keep_known(
    before: &Catalog,
    path: &Path,
    problem: &str,
    catalog: &mut Catalog,
    known: &mut Known,
    projects: &Projects,
) {
    let places = &projects.known().places;
    for (scope, place) in places.iter().filter(|(_, place)| place.config == path) {
        known.places.insert(scope.clone(), Arc::clone(place));
        let Some(entry) = before.projects.get(&scope.project) else { continue };
        let mut entry = entry.clone();
        entry.problem = Some(problem.to_owned());
        catalog.projects.insert(scope.project.clone(), entry);
    }
}

/// A command line that names a configuration and nothing else.
pub fn arguments(config: &Path) -> ProjectArgs {
    ProjectArgs { config: Some(config.to_path_buf()), ..ProjectArgs::default() }
}

fn in_folder(folder: &Path) -> Option<PathBuf> {
    shiplap_config::FILE_NAMES.iter().map(|name| folder.join(name)).find(|path| path.is_file())
}

fn seal(path: &Path) -> Seal {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

/// The files that an environment's settings name, or that belong to it by their names.
fn files_of(settings: &Settings) -> impl Iterator<Item = PathBuf> + use<> {
    let folder = settings.folder().to_path_buf();
    let usual = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];
    let mut files = settings.files.clone();
    files.extend(usual.map(|name| folder.join(name)));
    let beside = settings.files.first().and_then(|file| file.parent()).unwrap_or(&folder);
    files.push(beside.join(".env"));
    files.extend(settings.env_files.clone());
    files.extend(settings.versions.clone());
    files.into_iter()
}

async fn environment(
    args: &ProjectArgs,
    settings: &Settings,
    old: Option<&EnvironmentEntry>,
) -> EnvironmentEntry {
    let target = match &settings.target {
        Target::Here => "local".to_owned(),
        Target::At(address) => address.clone(),
    };
    let args = load::with_environment(args, &settings.name);
    let opened = load::open_as(&args, Some(settings.clone()), Missing::Pretend).await;
    let opened = match opened {
        Ok(opened) => opened,
        Err(problems) => {
            let services = old.map(|old| old.services.clone()).unwrap_or_default();
            return EnvironmentEntry { target, services, problem: Some(first(&problems)) };
        }
    };
    let tags = load::tags(&args, settings).unwrap_or_default();
    let is_job = |name: &str| settings.jobs.iter().any(|job| job.name == name);
    let mut services = BTreeMap::new();
    for (name, service) in &opened.source.loaded.project.services {
        if is_job(name) {
            continue;
        }
        let image = service.image.clone().unwrap_or_default();
        let (repository, tag) = split(&image);
        let variable = tags.value(name, "latest").map(|(variable, _)| variable);
        let fixed = match (&variable, &settings.versions) {
            _ if image.is_empty() => Some("it is built, and has no image to set".to_owned()),
            (None, Some(_)) => Some("its tag is no variable of the files".to_owned()),
            (Some(variable), Some(_)) if settings.variables.contains_key(variable) => {
                Some(format!("shiplap.yaml gives {variable} its value"))
            }
            _ => None,
        };
        let (repository, tag) = (repository.to_owned(), tag.map(str::to_owned));
        let entry = ServiceEntry { repository, tag, variable, fixed, image };
        services.insert(name.clone(), entry);
    }
    EnvironmentEntry { target, services, problem: None }
}

/// `ghcr.io/shop/api:v1@sha256:…` is `ghcr.io/shop/api` with the tag `v1`.
pub fn split(reference: &str) -> (&str, Option<&str>) {
    let named = reference.split('@').next().unwrap_or(reference);
    match named.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (named, None),
    }
}

fn first(problems: &[Diagnostic]) -> String {
    problems.first().map_or_else(String::new, |problem| match &problem.location {
        Some(at) => format!("{}:{}: {}", at.file.display(), at.line, problem.message),
        None => problem.message.clone(),
    })
}

fn triggers(settings: &TriggerSettings) -> Result<Vec<Trigger>, String> {
    let places = |places: &[shiplap_config::Place]| -> Vec<Place> {
        let place = |place: &shiplap_config::Place| Place {
            environment: place.environment.clone(),
            service: place.service.clone(),
        };
        places.iter().map(place).collect()
    };
    let mut all = Vec::new();
    for given in &settings.dispatch {
        let inputs = given.inputs.iter().map(|(name, to)| (name.clone(), places(to))).collect();
        all.push(Trigger::Dispatch(DispatchTrigger {
            repository: given.repository.clone(),
            workflow: given.workflow.clone(),
            refs: given.refs.clone(),
            inputs,
        }));
    }
    for given in &settings.registry {
        let images = given.images.iter().map(|image| ImageTrigger {
            repository: image.repository.clone(),
            tags: image.tags.clone(),
            places: places(&image.places),
        });
        let (secret, images) = (secret(&given.secret_file)?, images.collect());
        all.push(Trigger::Registry(RegistryTrigger { secret, images }));
    }
    for given in &settings.push {
        all.push(Trigger::Push(PushTrigger {
            provider: match given.from {
                GitHost::Forgejo => PushProvider::Forgejo,
                GitHost::Gitea => PushProvider::Gitea,
                GitHost::Github => PushProvider::GitHub,
                GitHost::Gitlab => PushProvider::GitLab,
            },
            secret: secret(&given.secret_file)?,
            repository: given.repository.clone(),
            branches: given.branches.clone(),
        }));
    }
    Ok(all)
}

/// What a file holds, without the line break at its end.
fn secret(path: &Path) -> Result<Secret<String>, String> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        Err(format!("{shown}: it is empty"))
    } else {
        Ok(Secret::new(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_a_repository_and_maybe_a_tag() {
        assert_eq!(split("postgres"), ("postgres", None));
        assert_eq!(split("host:5000/shop/api"), ("host:5000/shop/api", None));
        assert_eq!(split("host:5000/shop/api:v1@sha256:ab"), ("host:5000/shop/api", Some("v1")));
        assert_eq!(split("shop/api@sha256:ab"), ("shop/api", None));
    }

    #[tokio::test]
    async fn files_are_read_again_when_they_change_and_mistakes_forget_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).expect("written");
        };
        write(
            "compose.yaml",
            "services: {api: {image: 'r/shop/api:${API_TAG:-v0}'}, db: {image: postgres}}",
        );
        write(".env.versions", "API_TAG=v1\n");
        write(
            "shiplap.yaml",
            "project: shop\nenvironments: {prod: {versions: .env.versions}}\n\
             triggers: {dispatch: [{inputs: {api: prod/api}}]}\n",
        );
        let projects = Projects::new(&[folder.path().to_path_buf()]).expect("a project");
        let scope = Scope { project: "shop".into(), environment: "prod".into() };
        let api = async || {
            let catalog = projects.catalog().await;
            catalog.environment(&scope).expect("prod").services["api"].clone()
        };
        let seen = api().await;
        assert_eq!(
            (seen.repository.as_str(), seen.tag.as_deref(), seen.variable.as_deref(), seen.fixed),
            ("r/shop/api", Some("v1"), Some("API_TAG"), None)
        );
        let catalog = projects.catalog().await;
        assert!(catalog.projects["shop"].environments["prod"].services["db"].fixed.is_some());
        assert_eq!(catalog.projects["shop"].triggers.len(), 1);

        write(".env.versions", "API_TAG=v2-by-hand\n");
        assert_eq!(api().await.tag.as_deref(), Some("v2-by-hand"));

        write("shiplap.yaml", "project: shop\nenvironments: {prod: {version: x}}\n");
        let catalog = projects.catalog().await;
        assert!(catalog.projects["shop"].problem.is_some());
        assert_eq!(api().await.tag.as_deref(), Some("v2-by-hand"));
    }
}
