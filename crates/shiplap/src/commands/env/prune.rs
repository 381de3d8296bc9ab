//! `env prune`: environments whose time is over go.

use std::io::{BufRead as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;

use clap::Args;
use serde_json::json;
use shiplap_compose::OsFiles;
use shiplap_config::Config;
use shiplap_execute::app::{App, AppError, Intent, Request};
use shiplap_model::{Limits, Outcome, Scope};

use super::super::show_diagnostics;
use super::{Exit, Format};
use crate::ephemeral::{Ephemeral, Store};
use crate::output::progress::Printer;
use crate::world::{Place, World};

/// `env prune`.
#[derive(Debug, Clone, Args)]
pub struct PruneArgs {
    /// Do not ask
    #[arg(short = 'y', long)]
    pub yes: bool,
}

/// What became of one.
struct Pruned {
    environment: Ephemeral,
    /// Why it is still there, where it is.
    kept: Option<String>,
}

pub async fn prune(args: &PruneArgs, format: Format) -> Exit {
    let over = match Store::open().all() {
        Ok(all) => over(all),
        Err(diagnostics) => {
            show_diagnostics(&diagnostics);
            return Exit::Failed;
        }
    };
    if format == Format::Text {
        print!("{}", describe(&over));
    }
    let mut pruned = Vec::new();
    if !over.is_empty() && (args.yes || ask()) {
        let limits = match crate::limits::from_environment() {
            Ok(limits) => limits,
            Err(exit) => return exit,
        };
        for environment in over {
            let kept = remove(&environment, limits).await.err();
            pruned.push(Pruned { environment, kept });
        }
    }
    tell(&pruned, format);
    if pruned.iter().all(|one| one.kept.is_none()) { Exit::Done } else { Exit::Failed }
}

fn over(all: Vec<Ephemeral>) -> Vec<Ephemeral> {
    let now_ms = shiplap_execute::now_ms();
    all.into_iter().filter(|one| one.is_over(now_ms)).collect()
}

/// Takes one down with its volumes, and forgets it; else says why it stays.
async fn remove(environment: &Ephemeral, limits: Limits) -> Result<(), String> {
    let store = Store::open();
    let found = store.find(&environment.project, &environment.name);
    // It may have been given more time meanwhile.
    match found.map_err(|problem| problem.message)? {
        Some(now) if now == *environment => {}
        Some(_) => return Err("it was given more time".to_owned()),
        None => return Ok(()),
    }
    let place = place(environment).map_err(|error| error.to_string())?;
    let world = place.reach(&limits).await.map_err(|error| error.to_string())?;
    let app =
        world.app(Arc::new(Printer::new()), &limits).await.map_err(|error| error.to_string())?;
    let project = &environment.project_name;
    let scopes = app.ledger.scopes().await.map_err(|error| error.to_string())?;
    let known = crate::load::known_in(&scopes, &environment.name, project);
    let scope = Scope { project: project.clone(), environment: known };
    if is_elsewhere(&app, &world, &scope).await.map_err(|error| error.to_string())? {
        let name = &environment.name;
        return Err(format!(
            "it was deployed, and not to {place}; `shiplap env remove {name}` forgets it"
        ));
    }
    let intent = Intent::Down { scope: scope.clone(), source: None, volumes: true };
    let request =
        Request { limits, message: Some("its time was over".to_owned()), ..Request::default() };
    let report = app.carry_out(&intent, &request, |_| std::future::ready(true)).await;
    match report {
        Ok(report) if report.outcome == Outcome::Done && report.left.is_empty() => {
            forget_secrets(&scope)?;
            store.forget(environment).map_err(|error| error.to_string())
        }
        Ok(report) => {
            let reason = report.reason.into_iter().chain(report.left).collect::<Vec<_>>();
            Err(format!("{}: {}", report.outcome, reason.join("; ")))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Where it was deployed: as the file says that it was made with. Where that does not name the
/// environment any more that it was made from, as this shell says.
fn place(environment: &Ephemeral) -> Result<Place, AppError> {
    let config = Config::read(&environment.config, &OsFiles).ok();
    let settings = config.and_then(|config| {
        config.derived(&environment.from, &environment.name, &environment.project).ok()
    });
    Place::of(settings.as_ref())
}

/// Takes the secrets of an environment out of use that is gone with its data.
///
/// # Errors
/// When the store cannot be read or written.
pub fn forget_secrets(scope: &Scope) -> Result<(), String> {
    let store = crate::secrets::store();
    let used = store.versions(scope).map_err(|error| error.to_string())?;
    for name in used.keys() {
        store.remove(scope, name).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Whether it runs according to history while this engine has nothing of it: `DOCKER_HOST` was
/// another one then.
async fn is_elsewhere(app: &App, world: &World, scope: &Scope) -> Result<bool, AppError> {
    let here = world.docker.summaries().await?.iter().any(|one| one.project == scope.project);
    if here {
        return Ok(false);
    }
    Ok(crate::overview::release(app.ledger.as_ref(), scope).await?.is_some())
}

fn describe(over: &[Ephemeral]) -> String {
    if over.is_empty() {
        return "nothing to remove: no environment's time is over\n".to_owned();
    }
    let line = |one: &Ephemeral| {
        format!("- {} of {} ({}), with its volumes\n", one.name, one.project, one.project_name)
    };
    over.iter().map(line).collect()
}

fn tell(pruned: &[Pruned], format: Format) {
    if format == Format::Json {
        let one = |pruned: &Pruned| {
            json!({
                "project": pruned.environment.project,
                "environment": pruned.environment.name,
                "kept": pruned.kept,
            })
        };
        let all: Vec<serde_json::Value> = pruned.iter().map(one).collect();
        println!("{:#}", json!({"version": 1, "environments": all}));
        return;
    }
    for Pruned { environment, kept } in pruned {
        match kept {
            None => eprintln!("{} is gone", environment.name),
            Some(reason) => eprintln!("{} stays: {reason}", environment.name),
        }
    }
}

fn ask() -> bool {
    if !crate::remote::can_ask() {
        eprintln!("--yes removes it");
        return false;
    }
    eprint!("remove it, and the data in its volumes? [y/N] ");
    let _ = std::io::stderr().flush();
    let mut line = String::new();
    let _ = std::io::stdin().lock().read_line(&mut line);
    matches!(line.trim(), "y" | "Y" | "yes")
}

/// Starts it in the background, where there is something to remove. What cannot be removed now is
/// tried again by the next deployment.
pub fn in_background() {
    let is_due = Store::open().all().is_ok_and(|all| !over(all).is_empty());
    let Some(own) = std::env::current_exe().ok().filter(|_| is_due) else { return };
    let mut command = Command::new(own);
    command
        .args(["env", "prune", "--yes"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/");
    crate::ledger::hand_over(&mut command);
    {
        use std::os::unix::process::CommandExt as _;
        // Not in the terminal's group: closing it, or Ctrl-C, is not meant for it.
        command.process_group(0);
    }
    let _ = command.spawn();
}
