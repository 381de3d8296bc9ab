//! `env create`: an environment that is in no file.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use shiplap_config::{Config, Settings, is_name};
use shiplap_model::Limits;

use super::super::show_diagnostics;
use super::{Exit, Format, no_config};
use crate::cli::{ProjectArgs, duration};
use crate::ephemeral::{Ephemeral, Store};
use crate::output::time;
use crate::world::Place;

/// `env create`.
#[derive(Debug, Clone, Args)]
pub struct CreateArgs {
    /// Its name: lower-case letters, digits, `-` and `_`
    pub name: String,
    /// The environment of shiplap.yaml that it is made from
    #[arg(long, value_name = "NAME")]
    pub from: String,
    /// How long it is to be, such as 12h or 3d: then it is removed with its volumes, all data in
    /// them is lost. Without it, it stays until it is removed
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub ttl: Option<Duration>,
}

pub async fn create(project: &ProjectArgs, args: &CreateArgs, format: Format) -> Exit {
    match make(project, args).await {
        Ok((made, settings, is_prolonged)) => {
            tell(&made, &settings, is_prolonged, format);
            Exit::Done
        }
        Err(exit) => exit,
    }
}

/// Makes it, and says whether it was there and got more time.
pub async fn make(
    project: &ProjectArgs,
    args: &CreateArgs,
) -> Result<(Ephemeral, Settings, bool), Exit> {
    if !is_name(&args.name) {
        eprintln!("error[usage]: an environment cannot be called `{}`", args.name);
        eprintln!(
            "  = help: lower-case letters, digits, `-` and `_`, the first a letter or a digit"
        );
        return Err(Exit::Usage);
    }
    let (config, settings) = match derived(project, args) {
        Ok(Some(found)) => found,
        Ok(None) => return Err(no_config()),
        Err(exit) => return Err(exit),
    };
    let store = Store::open();
    let before = match store.find(&settings.project, &args.name) {
        Ok(before) => before,
        Err(problem) => {
            show_diagnostics(&[*problem]);
            return Err(Exit::Failed);
        }
    };
    if let Some(other) = before.as_ref().filter(|before| before.from != args.from) {
        let (name, from) = (&args.name, &other.from);
        eprintln!("error[environment-exists]: `{name}` is there, and was made from `{from}`");
        eprintln!("  = help: `shiplap env remove {name}` first");
        return Err(Exit::Failed);
    }
    if before.is_none()
        && let Some(stranger) = stranger(&settings).await
    {
        let name = &settings.project_name;
        eprintln!("error[name-taken]: {stranger} is of a Compose project `{name}` already");
        eprintln!("  = help: another name for the environment, or `docker compose -p {name} down`");
        return Err(Exit::Failed);
    }
    let now_ms = shiplap_execute::now_ms();
    let until = args
        .ttl
        .map(|ttl| now_ms.saturating_add(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX)));
    let made = Ephemeral {
        project: settings.project.clone(),
        name: args.name.clone(),
        from: args.from.clone(),
        project_name: settings.project_name.clone(),
        config: absolute(config.path()),
        by: before.as_ref().map_or_else(crate::world::who, |before| before.by.clone()),
        created_ms: before.as_ref().map_or(now_ms, |before| before.created_ms),
        expires_ms: until,
    };
    if let Err(error) = store.write(&made) {
        eprintln!("error[state]: the environment cannot be written down: {error}");
        eprintln!("  = help: SHIPLAP_STATE_DIR names another folder");
        return Err(Exit::Failed);
    }
    Ok((made, settings, before.is_some()))
}

fn derived(project: &ProjectArgs, args: &CreateArgs) -> Result<Option<(Config, Settings)>, Exit> {
    let failed = |diagnostics: Vec<_>| {
        show_diagnostics(&diagnostics);
        Exit::Failed
    };
    let Some(config) = crate::load::config(project).map_err(failed)? else { return Ok(None) };
    let own = crate::load::project_name(project, &config).map_err(failed)?;
    let settings = config.derived(&args.from, &args.name, &own).map_err(failed)?;
    if config.group(&args.name).is_some() {
        let file = config.path().display();
        eprintln!("error[environment-exists]: `{}` is a group in {file}", args.name);
        return Err(Exit::Failed);
    }
    for name in config.environments() {
        let other = config.environment(name, &own).map_err(failed)?;
        if other.name == args.name || other.project_name == settings.project_name {
            let file = config.path().display();
            eprintln!("error[environment-exists]: `{name}` of {file} has this name already");
            return Err(Exit::Failed);
        }
    }
    Ok(Some((config, settings)))
}

/// A container of a Compose project of this name that was never deployed from here: it would be
/// taken over. Where no engine answers, nobody can be in the way yet.
async fn stranger(settings: &Settings) -> Option<String> {
    let scopes = crate::load::deployed().await;
    if scopes.iter().any(|scope| scope.project == settings.project_name) {
        return None;
    }
    let world = Place::of(Some(settings)).ok()?.reach(&Limits::default()).await.ok()?;
    let all = world.docker.summaries().await.ok()?;
    all.into_iter().find(|one| one.project == settings.project_name).map(|one| one.name)
}

fn absolute(path: &Path) -> std::path::PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

fn tell(made: &Ephemeral, settings: &Settings, was_there: bool, format: Format) {
    if format == Format::Json {
        let document = json!({
            "version": 1,
            "environment": made.name,
            "from": made.from,
            "project": made.project_name,
            "created": !was_there,
            "expires": made.expires_ms.map(time::stamp),
            "secrets": settings.secrets,
        });
        println!("{document:#}");
        return;
    }
    let (name, from) = (&made.name, &made.from);
    match was_there {
        true => println!("{name} was there already, made from {from}"),
        false => println!("{name} is made from {from}, as Compose project {}", made.project_name),
    }
    match made.expires_ms {
        Some(expires) => println!(
            "its time is over at {}: then it is removed with its volumes, and their data is lost",
            time::moment(expires)
        ),
        None => println!("it stays until `shiplap env remove {name}`"),
    }
    if !was_there {
        if !settings.secrets.is_empty() {
            let names = settings.secrets.join(", ");
            println!("its secrets are its own, and not there yet: {names}");
        }
        println!("`shiplap -e {name} deploy` fills it");
    }
}
