//! Loading the project, and the environment of it, that the command line names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use shiplap_compose::separate::{self, separate};
use shiplap_compose::{Diagnostic, Loaded, OsFiles, Project, Request, Tolerance};
use shiplap_config::{Config, Generated, Settings, Sharing};
use shiplap_execute::app::{AppError, FilesAt, Source, UsedSecret};
use shiplap_model::{Deployment, DeploymentState, Note, Outcome, Scope, StoredRelease};
use shiplap_secrets::magic::{self, Scheme};

use crate::cli::ProjectArgs;
use crate::delivery::{self, Deliveries};
use crate::ephemeral::{Ephemeral, Store};
use crate::secrets::{self, Missing, Supply};
use crate::tags::Tags;
use crate::world::Place;

/// The environment that a folder without further configuration is deployed as.
pub const DEFAULT_ENVIRONMENT: &str = "default";
/// The environment, where the command line does not name it.
const ENVIRONMENT_VARIABLE: &str = "SHIPLAP_ENVIRONMENT";

/// A project with what its environment says.
#[derive(Debug, Clone)]
pub struct Opened {
    pub source: Source,
    /// What of its files has to be on the engine's machine.
    pub deliveries: Arc<Deliveries>,
    /// Nothing where there is no `shiplap.yaml`, or the command line goes without it.
    pub settings: Option<Settings>,
}

impl Opened {
    /// Where it is deployed.
    ///
    /// # Errors
    /// As with [`Place::of`].
    pub fn place(&self) -> Result<Place, AppError> {
        Ok(Place::of(self.settings.as_ref())?.with_files(self.deliveries.clone()))
    }

    /// Leads what it names in its folder to another machine, if its engine is on one. An address
    /// that cannot be read is somebody else's to tell of.
    fn delivered(mut self) -> Result<Self, Vec<Diagnostic>> {
        if Place::of(self.settings.as_ref()).is_ok_and(|place| place.is_behind_ssh()) {
            let source = &mut self.source;
            source.files = FilesAt::Elsewhere;
            let own = source.loaded.project_directory.clone();
            let folder = self.settings.as_ref().map(|settings| settings.folder().to_path_buf());
            let folders: Vec<PathBuf> = std::iter::once(own).chain(folder).collect();
            let (deliveries, notes) = delivery::prepare(&mut source.loaded, &folders)?;
            source.notes.extend(notes);
            self.deliveries = Arc::new(deliveries);
        }
        Ok(self)
    }
}

/// Loads the project.
///
/// # Errors
/// Every problem in the files.
pub async fn open(args: &ProjectArgs, missing: Missing) -> Result<Opened, Vec<Diagnostic>> {
    open_as(args, settings(args)?, missing).await
}

/// Loads the project as an environment that is known already.
///
/// # Errors
/// As with [`open`].
pub async fn open_as(
    args: &ProjectArgs,
    settings: Option<Settings>,
    missing: Missing,
) -> Result<Opened, Vec<Diagnostic>> {
    match settings {
        None => {
            let environment = plain_environment(args)?;
            let known = Known { environment: &environment, domain: None, scheme: Scheme::Http };
            let (loaded, secrets, generated) = load(request(args)?, &known, missing)?;
            let (routes, notes) = (shiplap_config::plain_routes(&generated), Vec::new());
            let files = FilesAt::default();
            let source = Source { loaded, environment, routes, notes, secrets, files };
            Opened { source, deliveries: Arc::default(), settings: None }.delivered()
        }
        Some(settings) => {
            let source = environment(args, &settings, missing).await?;
            Opened { source, deliveries: Arc::default(), settings: Some(settings) }.delivered()
        }
    }
}

/// What is known of an environment before its files are read.
struct Known<'a> {
    environment: &'a str,
    domain: Option<&'a str>,
    scheme: Scheme,
}

/// A project, the secrets that it uses, and the routes that its file expects.
type WithSecrets = (Loaded, BTreeMap<String, UsedSecret>, Vec<Generated>);

/// Loads a project with the secrets of its environment.
fn load(
    mut request: Request,
    known: &Known<'_>,
    missing: Missing,
) -> Result<WithSecrets, Vec<Diagnostic>> {
    // What is wrong with files that cannot even be surveyed, loading says better.
    let Ok(survey) = shiplap_compose::survey(&request, &OsFiles) else {
        let loaded = shiplap_compose::load(&request, &OsFiles)?;
        return Ok((loaded, BTreeMap::new(), Vec::new()));
    };
    let (project, environment) = (survey.project.clone(), known.environment.to_owned());
    let scope = Scope { project, environment };
    let place = magic::Place { scope: &scope, domain: known.domain, scheme: known.scheme };
    let store = secrets::store();
    let mut supply = Supply::find(&store, &place, &survey, missing)?;
    request.environment.extend(supply.variables(&survey)?);
    if supply.is_for_coolify() {
        // Such files say more than Compose knows.
        request.tolerance = Tolerance::Tolerant;
    }
    let hidden = |supply: &Supply, mut problems: Vec<Diagnostic>| {
        supply.blank(&mut problems);
        problems
    };
    let loaded = shiplap_compose::load(&request, &OsFiles);
    let mut loaded = loaded.map_err(|problems| hidden(&supply, problems))?;
    let finished = supply.finish(&mut loaded, &survey, (&store, &scope));
    finished.map_err(|problems| hidden(&supply, problems))?;
    let generated = supply.routes().iter().map(|route| Generated {
        host: route.host.clone(),
        path: route.path.clone(),
        service: route.service.clone(),
        port: route.port,
    });
    let generated = generated.collect();
    Ok((loaded, supply.into_used(), generated))
}

/// What `shiplap.yaml` says of the environment; nothing where there is none, or where the command
/// line names Compose files or a Compose project instead.
///
/// # Errors
/// Everything that is wrong with it, and an environment that is not in it or not named.
pub fn settings(args: &ProjectArgs) -> Result<Option<Settings>, Vec<Diagnostic>> {
    let Some(config) = config(args)? else { return Ok(None) };
    let names: Vec<&str> = config.environments().collect();
    let name = match (wanted(args), names.as_slice()) {
        (Some(name), _) => name,
        (None, [only]) => (*only).to_owned(),
        (None, []) => {
            let message = format!("`{}` has no environments", config.path().display());
            return Err(vec![
                Diagnostic::error("config/no-environment", message)
                    .help("`environments: { prod: {} }`"),
            ]);
        }
        (None, several) => {
            let message = "which environment?";
            let first = several[0];
            return Err(vec![
                Diagnostic::error("config/no-environment", message)
                    .help(format!("there are {}: `-e {first}`, for one", several.join(", "))),
            ]);
        }
    };
    let project = project_name(args, &config)?;
    named(&config, &project, &name).map(Some)
}

/// An environment of the file, or one that was made from one.
///
/// # Errors
/// Where there is none of that name, or the one that it was made from is gone.
pub fn named(config: &Config, project: &str, name: &str) -> Result<Settings, Vec<Diagnostic>> {
    if config.environments().any(|known| known == name) {
        return config.environment(name, project);
    }
    let store = Store::open();
    match store.find(project, name).map_err(|problem| vec![*problem])? {
        Some(ephemeral) => config.derived(&ephemeral.from, name, project),
        None => config.environment(name, project).map_err(|mut problems| {
            let others = store.of(project).unwrap_or_default();
            if let ([problem], [_, ..]) = (problems.as_mut_slice(), others.as_slice()) {
                let names: Vec<&str> = others.iter().map(|other| other.name.as_str()).collect();
                problem.help.push(format!("and, made by `env create`: {}", names.join(", ")));
            }
            problems
        }),
    }
}

/// The name of the project that a configuration is about.
///
/// # Errors
/// Where its files cannot be found.
pub fn project_name(args: &ProjectArgs, config: &Config) -> Result<String, Vec<Diagnostic>> {
    match config.project() {
        Some(project) => Ok(project.to_owned()),
        None => own_name(args, config),
    }
}

/// The same command line for another environment.
pub fn with_environment(args: &ProjectArgs, name: &str) -> ProjectArgs {
    ProjectArgs { environment: Some(name.to_owned()), ..args.clone() }
}

/// Every environment of the project, those that `env create` made last; nothing where there is no
/// configuration.
///
/// # Errors
/// Everything that is wrong with the configuration, and files of environments that cannot be read.
pub fn environments(
    args: &ProjectArgs,
) -> Result<Option<(String, Vec<Declared>)>, Vec<Diagnostic>> {
    let Some(config) = config(args)? else { return Ok(None) };
    let project = project_name(args, &config)?;
    let mut known = Vec::new();
    for name in config.environments() {
        known.push(Declared {
            settings: Some(config.environment(name, &project)?),
            ephemeral: None,
        });
    }
    for ephemeral in Store::open().of(&project)? {
        // One whose base has left the file still runs, and must be seen to be removed.
        let settings = config.derived(&ephemeral.from, &ephemeral.name, &project).ok();
        known.push(Declared { settings, ephemeral: Some(ephemeral) });
    }
    Ok(Some((project, known)))
}

/// An environment of the project.
#[derive(Debug, Clone)]
pub struct Declared {
    /// What it says; nothing where the one that it was made from is not in the file any more.
    pub settings: Option<Settings>,
    /// How long it is to be, where it is in no file.
    pub ephemeral: Option<Ephemeral>,
}

impl Declared {
    /// Its name, and its Compose project.
    pub fn names(&self) -> (&str, &str) {
        match (&self.settings, &self.ephemeral) {
            (Some(settings), _) => (&settings.name, &settings.project_name),
            (None, Some(ephemeral)) => (&ephemeral.name, &ephemeral.project_name),
            (None, None) => unreachable!("it is in the file, or was made"),
        }
    }
}

/// What `shiplap.yaml` says of several environments, of all where none is named; nothing where
/// there is none.
///
/// # Errors
/// As with [`settings`].
pub fn all_settings(
    args: &ProjectArgs,
    names: &[String],
) -> Result<Vec<Settings>, Vec<Diagnostic>> {
    if names.is_empty() {
        let all = environments(args)?.map(|(_, known)| known).unwrap_or_default();
        return Ok(all.into_iter().filter_map(|known| known.settings).collect());
    }
    let Some(config) = config(args)? else { return Ok(Vec::new()) };
    let project = project_name(args, &config)?;
    names.iter().map(|name| named(&config, &project, name)).collect()
}

/// Everything that was ever deployed from here.
pub async fn deployed() -> Vec<Scope> {
    match crate::ledger::open().await {
        Ok(ledger) => ledger.scopes().await.unwrap_or_default(),
        Err(_) => Vec::new(),
    }
}

/// What a scope's newest deployment that was done has made current.
pub async fn current_release(scope: &Scope) -> Option<StoredRelease> {
    let ledger = crate::ledger::open().await.ok()?;
    let deployments = ledger.deployments(scope, u32::MAX).await.ok()?;
    let done =
        |d: &Deployment| matches!(d.state, DeploymentState::Ended { outcome: Outcome::Done, .. });
    deployments.into_iter().find(done).map(|deployment| deployment.release)
}

/// The configuration, where there is one and the command line does not go without it.
///
/// # Errors
/// Everything that is wrong with it.
pub fn config(args: &ProjectArgs) -> Result<Option<Config>, Vec<Diagnostic>> {
    if args.config.is_none() && (!args.files.is_empty() || args.project_name.is_some()) {
        return Ok(None);
    }
    let here = current_folder()?;
    let start = args.project_directory.as_ref().map_or(here.clone(), |folder| here.join(folder));
    let path = match &args.config {
        Some(path) => Some(here.join(path)),
        None => Config::find(&start, &OsFiles),
    };
    path.map(|path| Config::read(&path, &OsFiles)).transpose()
}

/// The environment that the command line or the shell names.
pub fn wanted(args: &ProjectArgs) -> Option<String> {
    let named = || std::env::var(ENVIRONMENT_VARIABLE).ok().filter(|name| !name.is_empty());
    args.environment.clone().filter(|name| !name.is_empty()).or_else(named)
}

/// Without `shiplap.yaml` there is one environment, unless files are named: then it can have any
/// name.
fn plain_environment(args: &ProjectArgs) -> Result<String, Vec<Diagnostic>> {
    match args.environment.as_ref().filter(|name| !name.is_empty()) {
        None => Ok(DEFAULT_ENVIRONMENT.to_owned()),
        Some(name) if name == DEFAULT_ENVIRONMENT || args.project_name.is_some() => {
            Ok(name.clone())
        }
        Some(name) => {
            let message = match args.files.is_empty() {
                true => format!("there is no shiplap.yaml that could have an environment `{name}`"),
                false => "`-e` reads Compose files from shiplap.yaml, `-f` names others".to_owned(),
            };
            Err(vec![
                Diagnostic::error("config/no-config", message)
                    .help("`shiplap init` writes a shiplap.yaml for what is in this folder"),
            ])
        }
    }
}

/// The project's name, as its Compose files have it.
fn own_name(args: &ProjectArgs, config: &Config) -> Result<String, Vec<Diagnostic>> {
    let Some(first) = config.environments().next() else { return Ok(String::new()) };
    let settings = config.environment(first, "")?;
    let mut request = for_environment(args, &settings)?;
    request.project_name = None;
    // What variables are missing matters later, and for the environment that is meant.
    match shiplap_compose::load(&request, &OsFiles) {
        Ok(loaded) => Ok(loaded.project.name),
        Err(_) => Ok(shiplap_compose::normal_name(
            &config.folder().file_name().unwrap_or_default().to_string_lossy(),
        )),
    }
}

async fn environment(
    args: &ProjectArgs,
    settings: &Settings,
    missing: Missing,
) -> Result<Source, Vec<Diagnostic>> {
    let environment = known_as(settings).await;
    let known = Known {
        environment: &environment,
        domain: settings.domain.as_deref(),
        scheme: if settings.tls.is_some() { Scheme::Https } else { Scheme::Http },
    };
    demand_secrets(settings, &environment)?;
    let scope = Scope { project: settings.project_name.clone(), environment: environment.clone() };
    crate::registries::take(settings, &scope)?;
    let request = for_environment(args, settings)?;
    let (mut loaded, secrets, generated) = load(request, &known, missing)?;
    settings.shape(&mut loaded.project, &loaded.inactive)?;
    let mut notes = separated(args, settings, &mut loaded)?;
    notes.extend(settings.left_out_routes().into_iter().map(|route| Note {
        code: "route-left-out",
        text: format!("route {route} stays with {}: it is about every host", settings.base),
    }));
    let routes = settings.routes(&loaded.project, &generated, &OsFiles)?;
    let files = FilesAt::default();
    Ok(Source { loaded, environment, routes, notes, secrets, files })
}

/// That the store has what the environment says it needs.
fn demand_secrets(settings: &Settings, environment: &str) -> Result<(), Vec<Diagnostic>> {
    if settings.secrets.is_empty() {
        return Ok(());
    }
    let project = settings.project_name.clone();
    let scope = Scope { project, environment: environment.to_owned() };
    let known = secrets::store()
        .versions(&scope)
        .map_err(|error| vec![Diagnostic::error("secrets/store", error.to_string())])?;
    let has = |name: &String| known.keys().any(|known| known.to_string() == *name);
    let missing = settings.secrets.iter().filter(|name| !has(name));
    let problems: Vec<Diagnostic> = missing.map(|name| settings.missing_secret(name)).collect();
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// The project of another environment, for its names alone.
fn shaped(args: &ProjectArgs, settings: &Settings) -> Result<Loaded, Vec<Diagnostic>> {
    let known = Known { environment: &settings.name, domain: None, scheme: Scheme::Http };
    let (mut loaded, _, _) = load(for_environment(args, settings)?, &known, Missing::Pretend)?;
    settings.shape(&mut loaded.project, &loaded.inactive)?;
    Ok(loaded)
}

/// Gives the environment names of its own where one declared before it on the same machine has
/// those of the files. What that one's files say counts only as far as they can be read: they may
/// be for another machine.
fn separated(
    args: &ProjectArgs,
    settings: &Settings,
    loaded: &mut Loaded,
) -> Result<Vec<Note>, Vec<Diagnostic>> {
    let mut others: Vec<(String, Project)> = Vec::new();
    for earlier in settings.earlier() {
        let Ok(mut project) = shaped(args, &earlier).map(|loaded| loaded.project) else { continue };
        let own = own_of(&earlier, &project);
        let _ = separate(&mut project, &earlier.name, &others_of(&others), &own);
        others.push((earlier.name.clone(), project));
    }
    let own = own_of(settings, &loaded.project);
    let separated = match separate(&mut loaded.project, &settings.name, &others_of(&others), &own) {
        Ok(separated) => separated,
        Err(refused) => {
            let diagnostic = |refused: &separate::Refused| {
                let path: Vec<&str> = refused.path.iter().map(String::as_str).collect();
                Diagnostic::error("config/not-separate", refused.message.clone())
                    .at(loaded.span(&path), "shared with another environment")
                    .help(refused.help.clone())
            };
            return Err(refused.iter().map(diagnostic).collect());
        }
    };
    let renamed = separated.rewrites.iter().map(|rewrite| {
        let kind = match rewrite.kind {
            separate::Named::Container => "container",
            separate::Named::Network => "network",
            separate::Named::Volume => "volume",
        };
        let text = format!(
            "{kind} {} is called {} here: {} has that name",
            rewrite.from, rewrite.to, rewrite.because
        );
        Note { code: "renamed", text }
    });
    let shared = separated.shared.iter().map(|shared| Note {
        code: shared.code,
        text: format!("{} (environment {})", shared.text, shared.with),
    });
    Ok(renamed.chain(shared).collect())
}

/// The variables that decide tags in an environment's files.
///
/// # Errors
/// When there is no current folder.
pub fn tags(args: &ProjectArgs, settings: &Settings) -> Result<Tags, Vec<Diagnostic>> {
    Ok(Tags::find(&for_environment(args, settings)?))
}

fn others_of(others: &[(String, Project)]) -> Vec<separate::Other<'_>> {
    let other = |(environment, project)| separate::Other { environment, project };
    others.iter().map(|(environment, project)| (environment.as_str(), project)).map(other).collect()
}

fn own_of(settings: &Settings, project: &Project) -> separate::Own {
    let networks = settings.networks.iter().filter(|(_, sharing)| **sharing == Sharing::Own);
    let volumes = project.volumes.keys();
    separate::Own {
        networks: networks.map(|(key, _)| key.clone()).collect(),
        volumes: volumes
            .filter(|key| settings.sharing_of_volume(key) == Sharing::Own)
            .cloned()
            .collect(),
    }
}

/// Where an environment is deployed: its Compose project, and the name under which it is known.
pub async fn scope_of(settings: &Settings) -> Scope {
    let environment = known_as(settings).await;
    Scope { project: settings.project_name.clone(), environment }
}

async fn known_as(settings: &Settings) -> String {
    known_in(&deployed().await, &settings.name, &settings.project_name)
}

/// The name under which the environment is known to history, the edge and the engine. One that was
/// deployed before it had a name keeps the one from then: nothing is moved, and nothing forgotten.
pub fn known_in(scopes: &[Scope], name: &str, project_name: &str) -> String {
    let own: Vec<&Scope> = scopes.iter().filter(|s| s.project == project_name).collect();
    match own.as_slice() {
        [only] if only.environment == DEFAULT_ENVIRONMENT => only.environment.clone(),
        _ => name.to_owned(),
    }
}

/// What to ask of the loader for an environment.
fn for_environment(args: &ProjectArgs, settings: &Settings) -> Result<Request, Vec<Diagnostic>> {
    let plain = request(args)?;
    let folder = settings.folder();
    let mut files = settings.files.clone();
    if !settings.has_base_files() && !files.is_empty() {
        // Given files come on top of the one that a folder has by itself.
        files.splice(0..0, shiplap_compose::default_file(folder, &OsFiles));
    }
    let mut env_files = settings.env_files.clone();
    if let Some(versions) = &settings.versions {
        let usual = default_env_file(&files, folder);
        if env_files.is_empty() && usual.exists() {
            env_files.push(usual);
        }
        env_files.push(versions.clone());
    }
    let mut profiles = settings.profiles.clone();
    profiles.extend(plain.profiles);
    let mut environment = plain.environment;
    environment.extend(settings.variables.clone());
    Ok(Request {
        files,
        env_files,
        profiles,
        project_name: Some(settings.project_name.clone()),
        working_dir: folder.to_path_buf(),
        project_directory: plain.project_directory.map(|path| plain.working_dir.join(path)),
        environment,
        ..plain
    })
}

fn default_env_file(files: &[PathBuf], folder: &Path) -> PathBuf {
    files.first().and_then(|file| file.parent()).unwrap_or(folder).join(".env")
}

fn current_folder() -> Result<PathBuf, Vec<Diagnostic>> {
    std::env::current_dir().map_err(|error| {
        let message = format!("the current folder cannot be read: {error}");
        vec![Diagnostic::error("compose/no-folder", message)]
    })
}

/// What to ask of the loader, by the command line alone.
///
/// # Errors
/// When there is no current folder.
pub fn request(args: &ProjectArgs) -> Result<Request, Vec<Diagnostic>> {
    Ok(Request {
        files: args.files.clone(),
        env_files: args.env_files.clone(),
        profiles: args.profiles.clone(),
        project_name: args.project_name.clone(),
        project_directory: args.project_directory.clone(),
        working_dir: current_folder()?,
        environment: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
        tolerance: if args.tolerant { Tolerance::Tolerant } else { Tolerance::Strict },
        ..Request::default()
    })
}

/// What to ask of the loader for showing the project: values of secrets are blanked out.
///
/// # Errors
/// When there is no current folder, the environment is not known, or the store cannot be read.
pub async fn request_to_show(args: &ProjectArgs) -> Result<Request, Vec<Diagnostic>> {
    let (mut request, environment, domain) = match settings(args)? {
        Some(settings) => {
            let environment = known_as(&settings).await;
            (for_environment(args, &settings)?, environment, settings.domain)
        }
        None => (request(args)?, plain_environment(args)?, None),
    };
    if let Ok(survey) = shiplap_compose::survey(&request, &OsFiles) {
        let scope = Scope { project: survey.project.clone(), environment };
        let place = magic::Place { scope: &scope, domain: domain.as_deref(), scheme: Scheme::Http };
        let blank = secrets::blank_variables(&secrets::store(), &place, &survey)?;
        request.environment.extend(blank);
    }
    Ok(request)
}

/// The project as its environment makes it, for showing: values of secrets are blanked out. Nothing
/// without an environment.
///
/// # Errors
/// Every problem in the files.
pub async fn project_to_show(
    args: &ProjectArgs,
) -> Result<Option<(Project, Vec<Diagnostic>)>, Vec<Diagnostic>> {
    let Some(settings) = settings(args)? else { return Ok(None) };
    let mut loaded = shiplap_compose::load(&request_to_show(args).await?, &OsFiles)?;
    settings.shape(&mut loaded.project, &loaded.inactive)?;
    separated(args, &settings, &mut loaded)?;
    Ok(Some((loaded.project, loaded.warnings)))
}
