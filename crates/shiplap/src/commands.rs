//! One function per command.

mod carry;
pub mod certificates;
mod check;
mod config;
pub mod data;
mod edge;
mod exec;
mod logs;
mod look;
mod prune;
mod retire;
pub mod secrets;
mod top;
mod unsupported;

use shiplap_compose::{Diagnostic, Severity};
use shiplap_engine::DockerEngine;
use shiplap_execute::Silent;
use shiplap_execute::app::{App, AppError, Source};
use shiplap_model::{Limits, Scope};

use crate::cli::{Cli, Command, LimitArgs, ProjectArgs, Selected};
use crate::exit::Exit;
use crate::load::DEFAULT_ENVIRONMENT;
use crate::output::errors;
use crate::secrets::Missing;

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
    match cli.command {
        Command::Plan(args) => look::plan(&project, &args, format).await,
        Command::Deploy(args) => carry::deploy(&project, &args, format).await,
        Command::Rollback(args) => carry::rollback(&project, &args, format).await,
        Command::Resume(args) => carry::resume(&project, &args, format).await,
        Command::Status => look::status(&project, format).await,
        Command::Top(args) => top::top(project.project_name.as_deref(), &args, format).await,
        Command::History(args) => look::history(&project, &args, format).await,
        Command::Retire { containers, after } => retire::retire(&project, &containers, after).await,
        Command::Show { number } => look::show(&project, number, format).await,
        Command::Logs(args) => logs::logs(&project, &args, format).await,
        Command::Exec(args) => exec::exec(&project, &args).await,
        Command::Restart(args) => carry::restart(&project, &args, format).await,
        Command::Scale(args) => carry::scale(&project, &args, format).await,
        Command::Down(args) => carry::down(&project, &args, format).await,
        Command::Prune(args) => prune::prune(&args, format).await,
        Command::Config(args) => config::config(&project, &args, cli.json),
        Command::Check(args) => check::check(&project, &args, format),
        Command::Secrets(command) => secrets::secrets(&project, &command, format).await,
        Command::Data(command) => data::data(&command, format).await,
        Command::Edge(command) => edge::edge(&command, format).await,
    }
}

/// Loads the project, or says all that is wrong with its files.
fn source(project: &ProjectArgs) -> Result<Source, Exit> {
    source_with(project, Missing::Pretend)
}

/// The same for a command that deploys it: what has to be generated is generated.
fn source_to_deploy(project: &ProjectArgs) -> Result<Source, Exit> {
    source_with(project, Missing::Make)
}

fn source_with(project: &ProjectArgs, missing: Missing) -> Result<Source, Exit> {
    match crate::load::load(project, missing) {
        Ok(source) => {
            for warning in &source.loaded.warnings {
                eprintln!("{warning}");
            }
            Ok(source)
        }
        Err(diagnostics) => {
            show_diagnostics(&diagnostics);
            Err(Exit::Failed)
        }
    }
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

/// Where to act. With a project name on the command line the files may be gone or broken: going
/// back must work at the very moment when they are.
fn scope(project: &ProjectArgs) -> Result<(Scope, Option<Source>), Exit> {
    match (crate::load::load(project, Missing::Pretend), &project.project_name) {
        (Ok(source), _) => Ok((source.scope(), Some(source))),
        (Err(_), Some(name)) => {
            let environment = DEFAULT_ENVIRONMENT.to_owned();
            Ok((Scope { project: name.clone(), environment }, None))
        }
        (Err(diagnostics), None) => {
            show_diagnostics(&diagnostics);
            eprintln!("  = help: with `-p PROJECT` this command needs no files");
            Err(Exit::Failed)
        }
    }
}

/// The adapters, for commands that only look: limits are those of the environment.
async fn world(source: Option<&Source>) -> Result<(App, DockerEngine), Exit> {
    let limits = crate::limits::from_environment()?;
    let app = crate::world::app(std::sync::Arc::new(Silent), &limits).await;
    app.map_err(|error| refuse(&error, source))
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

/// What the selection on the command line asks for.
fn request(selected: &Selected, given: &LimitArgs) -> Result<shiplap_execute::app::Request, Exit> {
    use shiplap_execute::app::{Images, Request};
    Ok(Request {
        services: selected.services.iter().cloned().collect(),
        set: pairs(&selected.set, "SERVICE=TAG")?.into_iter().collect(),
        images: match (selected.pull, selected.build) {
            (true, _) => Images::Pull,
            (_, true) => Images::Build,
            (false, false) => Images::AsTheFileSays,
        },
        remove_orphans: selected.remove_orphans,
        force: selected.force_recreate,
        limits: limits(selected, given)?,
        ..Request::default()
    })
}
