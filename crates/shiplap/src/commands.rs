//! One function per command.

pub mod build;
mod carry;
pub mod certificates;
mod check;
pub mod ci;
mod config;
pub mod data;
mod edge;
pub mod env;
mod exec;
mod group;
mod htpasswd;
pub mod init;
mod logs;
mod look;
pub mod maintenance;
mod promote;
mod prune;
pub mod push;
mod retire;
mod schema;
pub mod secrets;
pub mod serve;
pub mod token;
mod top;
mod unsupported;
pub mod verify;

use std::collections::{BTreeMap, BTreeSet};

use shiplap_compose::{Diagnostic, Severity};
use shiplap_config::Settings;
use shiplap_execute::Silent;
use shiplap_execute::app::{App, AppError, Source};
use shiplap_model::{Limits, Requirement, Scope};

use crate::cli::{Cli, Command, LimitArgs, ProjectArgs, Selected};
use crate::exit::Exit;
use crate::load::{DEFAULT_ENVIRONMENT, Opened};
use crate::output::errors;
use crate::secrets::Missing;
use crate::world::{Place, World};

/// Whether a person or a program reads the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// Runs the command.
pub async fn run(cli: Cli) -> Exit {
    let format = if cli.json { Format::Json } else { Format::Text };
    let project = cli.project;
    if let Some(exit) = group::run(&project, &cli.command, format).await {
        return exit;
    }
    match cli.command {
        Command::Plan(args) => look::plan(&project, &args, format).await,
        Command::Deploy(args) => carry::deploy(&project, &args, format).await,
        Command::Promote(args) => promote::promote(&project, &args, format).await,
        Command::Rollback(args) => carry::rollback(&project, &args, format).await,
        Command::Resume(args) => carry::resume(&project, &args, format).await,
        Command::Status => look::status(&project, format).await,
        Command::Top(args) => top::top(&project, &args, format).await,
        Command::History(args) => look::history(&project, &args, format).await,
        Command::Retire { containers, after } => retire::retire(&project, &containers, after).await,
        Command::Show { number } => look::show(&project, number, format).await,
        Command::Logs(args) => logs::logs(&project, &args, format).await,
        Command::Exec(args) => exec::exec(&project, &args).await,
        Command::Restart(args) => carry::restart(&project, &args, format).await,
        Command::Scale(args) => carry::scale(&project, &args, format).await,
        Command::Down(args) => carry::down(&project, &args, format).await,
        Command::Build(args) => build::build(&project, &args, format).await,
        Command::Push(args) => push::push(&project, &args, format).await,
        Command::Prune(args) => prune::prune(&project, &args, format).await,
        Command::Config(args) => config::config(&project, &args, cli.json).await,
        Command::Check(args) => check::check(&project, &args, format).await,
        Command::Maintenance(command) => maintenance::maintenance(&project, &command, format).await,
        Command::Pause(limits) => maintenance::pause(&project, &limits, format).await,
        Command::Secrets(command) => secrets::secrets(&project, &command, format).await,
        Command::Data(command) => data::data(&command, format).await,
        Command::Env(command) => env::env(&project, &command, format).await,
        Command::Edge(command) => edge::edge(&project, &command, format).await,
        Command::Link { .. } => unreachable!("it has become another program"),
        Command::Init(args) => init::init(&project, &args).await,
        Command::Serve(args) => serve::serve(&args).await,
        Command::Token(command) => token::token(&command, format).await,
        Command::Ci(command) => ci::ci(&project, &command),
        Command::Schema => schema::schema(),
        Command::Htpasswd { name } => htpasswd::htpasswd(&name),
    }
}

/// Loads the project, or says all that is wrong with its files; and where it is deployed.
async fn source(project: &ProjectArgs) -> Result<(Source, Place), Exit> {
    placed(opened(project, Missing::Pretend).await?)
}

/// The same for a command that deploys it: what has to be generated is generated.
async fn source_to_deploy(project: &ProjectArgs) -> Result<(Source, Place), Exit> {
    placed(opened(project, Missing::Make).await?)
}

fn placed(opened: Opened) -> Result<(Source, Place), Exit> {
    let place = opened.place().map_err(|error| refuse(&error, None))?;
    Ok((opened.source, place))
}

/// The same, with what its environment says.
async fn opened(project: &ProjectArgs, missing: Missing) -> Result<Opened, Exit> {
    told_or(crate::load::open(project, missing).await)
}

/// Says what is worth a warning, or all that is wrong.
fn told_or(opened: Result<Opened, Vec<Diagnostic>>) -> Result<Opened, Exit> {
    match opened {
        Ok(opened) => {
            for warning in &opened.source.loaded.warnings {
                eprintln!("{warning}");
            }
            Ok(opened)
        }
        Err(diagnostics) => {
            show_diagnostics(&diagnostics);
            Err(Exit::Failed)
        }
    }
}

/// A project with other tags for some services.
struct Chosen {
    opened: Opened,
    /// What is left to be asked for by services.
    selected: Selected,
    /// Variables of the environment's versions file that have another value now.
    versions: BTreeMap<String, String>,
}

/// Loads the project as it is with the tags of the command line: where the environment keeps its
/// versions in a file, as if they stood there already, so that everything that is made of them
/// follows.
async fn chosen(
    project: &ProjectArgs,
    selected: &Selected,
    missing: Missing,
) -> Result<Chosen, Exit> {
    let told = |diagnostics: Vec<Diagnostic>| {
        show_diagnostics(&diagnostics);
        Exit::Failed
    };
    let mut settings = crate::load::settings(project).map_err(told)?;
    let mut selected = selected.clone();
    let mut versions = BTreeMap::new();
    if let Some(settings) = settings.as_mut().filter(|settings| settings.versions.is_some())
        && !selected.set.is_empty()
    {
        let tags = crate::load::tags(project, settings).map_err(told)?;
        let mut by_image = Vec::new();
        for (service, tag) in pairs(&selected.set, "SERVICE=TAG")? {
            let variable = tags.value(&service, &tag);
            let Some((name, value)) =
                variable.filter(|(name, _)| !settings.variables.contains_key(name))
            else {
                by_image.push(format!("{service}={tag}"));
                continue;
            };
            if versions.get(&name).is_some_and(|other| *other != value) {
                eprintln!(
                    "error[usage]: `{name}` decides the tag of several services, and they differ"
                );
                return Err(Exit::Usage);
            }
            selected.services.extend(tags.services_of(&name).map(str::to_owned));
            versions.insert(name, value);
        }
        selected.set = by_image;
        settings.variables.extend(versions.clone());
    }
    let opened = told_or(crate::load::open_as(project, settings, missing).await)?;
    Ok(Chosen { opened, selected, versions })
}

fn show_diagnostics(diagnostics: &[Diagnostic]) {
    for diagnostic in diagnostics {
        eprintln!("{diagnostic}");
    }
    let count = diagnostics.iter().filter(|d| d.severity == Severity::Error).count();
    if count > 1 {
        eprintln!("{count} errors; nothing was changed");
    }
}

/// What to act on.
struct Found {
    scope: Scope,
    /// Nothing where the files are gone or broken.
    source: Option<Source>,
    place: Place,
}

/// What to act on. With an environment, or a project name on the command line, the Compose files may
/// be gone or broken: going back must work at the very moment when they are.
async fn found(project: &ProjectArgs) -> Result<Found, Exit> {
    let found = |scope, source: Option<Source>, place: Result<Place, AppError>| match place {
        Ok(place) => Ok(Found { scope, source, place }),
        Err(error) => Err(refuse(&error, source.as_ref())),
    };
    let diagnostics = match crate::load::open(project, Missing::Pretend).await {
        Ok(opened) => {
            let place = opened.place();
            return found(opened.source.scope(), Some(opened.source), place);
        }
        Err(diagnostics) => diagnostics,
    };
    if let Some(scope) = named_scope(project) {
        return found(scope, None, Place::usual());
    }
    if let Ok(Some(settings)) = crate::load::settings(project) {
        let place = Place::of(Some(&settings));
        return found(crate::load::scope_of(&settings).await, None, place);
    }
    show_diagnostics(&diagnostics);
    eprintln!("  = help: with `-p PROJECT` this command needs no files");
    Err(Exit::Failed)
}

/// The scope that the command line names by itself.
fn named_scope(project: &ProjectArgs) -> Option<Scope> {
    let environment = project.environment.clone().unwrap_or(DEFAULT_ENVIRONMENT.to_owned());
    Some(Scope { project: project.project_name.clone()?, environment })
}

/// The adapters, for commands that only look: limits are those of the environment.
async fn app(place: &Place, source: Option<&Source>) -> Result<(App, World), Exit> {
    let limits = crate::limits::from_environment()?;
    let world = place.reach(&limits).await.map_err(|error| refuse(&error, source))?;
    let app = world.app(std::sync::Arc::new(Silent), &limits).await;
    Ok((app.map_err(|error| refuse(&error, source))?, world))
}

/// The machine that a command acts on as a whole, such as its edge: that of the environment which is
/// named, or of all that shiplap.yaml declares.
fn machine(project: &ProjectArgs) -> Result<Place, Exit> {
    let said = |diagnostics: Vec<Diagnostic>| {
        show_diagnostics(&diagnostics);
        Exit::Failed
    };
    let refused = |error: AppError| refuse(&error, None);
    if crate::load::wanted(project).is_some() {
        let settings = crate::load::settings(project).map_err(said)?;
        return Place::of(settings.as_ref()).map_err(refused);
    }
    let declared = crate::load::environments(project).map_err(said)?;
    let declared = declared.map(|(_, declared)| declared).unwrap_or_default();
    let mut all = declared.iter().filter_map(|one| one.settings.as_ref());
    let Some(first) = all.next() else { return Place::usual().map_err(refused) };
    match all.find(|other| other.target != first.target) {
        None => Place::of(Some(first)).map_err(refused),
        Some(other) => {
            let (first, other) = (&first.name, &other.name);
            eprintln!("error[usage]: which machine? `{first}` and `{other}` are on different ones");
            eprintln!("  = help: `-e {first}` means that of `{first}`");
            Err(Exit::Usage)
        }
    }
}

/// The same, reached.
async fn machine_reached(project: &ProjectArgs) -> Result<World, Exit> {
    let limits = crate::limits::from_environment()?;
    machine(project)?.reach(&limits).await.map_err(|error| refuse(&error, None))
}

/// Says why a command did not begin.
fn refuse(error: &AppError, source: Option<&Source>) -> Exit {
    errors::show(error, source);
    Exit::Failed
}

/// `SERVICE=VALUE` pairs.
fn pairs(words: &[String], what: &str) -> Result<Vec<(String, String)>, Exit> {
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some((name, value)) if !name.is_empty() && !value.is_empty() => {
                Ok((name.to_owned(), value.to_owned()))
            }
            _ => {
                eprintln!("error[usage]: `{word}` is not of the form {what}");
                Err(Exit::Usage)
            }
        })
        .collect()
}

/// The limits, with the flags that are short for some of them.
fn limits(selected: &Selected, limits: &LimitArgs) -> Result<Limits, Exit> {
    let given = crate::limits::with(limits)?;
    Ok(Limits {
        gate: selected.gate.unwrap_or(given.gate),
        watch: selected.watch.unwrap_or(given.watch),
        drain: selected.drain.unwrap_or(given.drain),
        ..given
    })
}

/// What must hold before a deployment of an environment changes anything.
fn requirements(settings: Option<&Settings>) -> Result<Vec<Requirement>, Exit> {
    let Some(settings) = settings else { return Ok(Vec::new()) };
    crate::gates::requirements(settings).map_err(|diagnostics| {
        show_diagnostics(&diagnostics);
        Exit::Failed
    })
}

/// What the selection on the command line asks for, in an environment.
fn request(
    selected: &Selected,
    given: &LimitArgs,
    settings: Option<&Settings>,
) -> Result<shiplap_execute::app::Request, Exit> {
    use shiplap_execute::app::{Images, Request};
    let mut services: BTreeSet<String> = selected.services.iter().cloned().collect();
    let mut set: BTreeMap<String, String> =
        pairs(&selected.set, "SERVICE=TAG")?.into_iter().collect();
    for job in settings.into_iter().flat_map(|settings| &settings.jobs) {
        // A job is run in its service's image: the new one of both.
        if let Some(tag) = set.get(&job.service).cloned() {
            set.insert(job.name.clone(), tag);
        }
        if services.contains(&job.service) {
            services.insert(job.name.clone());
        }
    }
    let mut limits = limits(selected, given)?;
    if let Some(settings) = settings {
        let watch = settings.watch.filter(|_| selected.watch.is_none());
        limits.watch = watch.unwrap_or(limits.watch);
        let longest = settings.jobs.iter().filter_map(|job| job.timeout).max();
        limits.job = longest.unwrap_or(limits.job);
    }
    Ok(Request {
        services,
        set,
        images: match (selected.pull, selected.build) {
            (true, _) => Images::Pull,
            (_, true) => Images::Build,
            (false, false) => Images::AsTheFileSays,
        },
        remove_orphans: selected.remove_orphans,
        force: selected.force_recreate,
        limits,
        ..Request::default()
    })
}
