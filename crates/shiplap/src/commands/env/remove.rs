//! `env remove`: an environment is taken down and, if it is in no file, forgotten.

use clap::Args;
use shiplap_model::Scope;

use super::super::{carry, show_diagnostics};
use super::prune::forget_secrets;
use super::{Exit, Format, no_config};
use crate::cli::{Carry, DownArgs, ProjectArgs};
use crate::ephemeral::{Ephemeral, Store};

/// `env remove`.
#[derive(Debug, Clone, Args)]
pub struct RemoveArgs {
    /// Its name
    pub name: String,
    /// Remove its volumes too, and its secrets if it is in no file: their data is lost
    #[arg(short = 'v', long)]
    pub volumes: bool,
    #[command(flatten)]
    pub carry: Carry,
}

pub async fn remove(project: &ProjectArgs, args: &RemoveArgs, format: Format) -> Exit {
    let name = &args.name;
    let failed = |diagnostics: Vec<_>| {
        show_diagnostics(&diagnostics);
        Exit::Failed
    };
    let config = match crate::load::config(project) {
        Ok(Some(config)) => config,
        Ok(None) => return no_config(),
        Err(diagnostics) => return failed(diagnostics),
    };
    let own = match crate::load::project_name(project, &config) {
        Ok(own) => own,
        Err(diagnostics) => return failed(diagnostics),
    };
    let is_in_file = config.environments().any(|known| known == name);
    let ephemeral = match Store::open().find(&own, name) {
        Ok(found) => found.filter(|_| !is_in_file),
        Err(problem) => return failed(vec![*problem]),
    };
    let settings = crate::load::named(&config, &own, name);
    let target = match (&settings, &ephemeral) {
        (Ok(_), _) => crate::load::with_environment(project, name),
        (Err(_), Some(ephemeral)) => without_base(project, ephemeral).await,
        (Err(diagnostics), None) => return failed(diagnostics.clone()),
    };
    let down = DownArgs { volumes: args.volumes, carry: args.carry.clone() };
    let exit = carry::down(&target, &down, format).await;
    if exit != Exit::Done {
        return exit;
    }
    match ephemeral {
        Some(ephemeral) => {
            if args.volumes
                && let Err(error) = secrets_go(&ephemeral).await
            {
                eprintln!("error[secrets/store]: the secrets of `{name}` are still there: {error}");
                return Exit::Failed;
            }
            forget(&ephemeral)
        }
        None => {
            let file = config.path().display();
            eprintln!("`{name}` is still in {file}: delete it there if it is not to come back");
            Exit::Done
        }
    }
}

/// The environment that it was made from has left the file. What was deployed is known all the
/// same.
async fn without_base(project: &ProjectArgs, ephemeral: &Ephemeral) -> ProjectArgs {
    let scopes = crate::load::deployed().await;
    let known = crate::load::known_in(&scopes, &ephemeral.name, &ephemeral.project_name);
    ProjectArgs {
        project_name: Some(ephemeral.project_name.clone()),
        environment: Some(known),
        // Where there is no Compose file of somebody else's.
        project_directory: Some(crate::world::state_dir()),
        config: None,
        files: Vec::new(),
        ..project.clone()
    }
}

/// Takes its secrets out of use: they go with its data.
async fn secrets_go(ephemeral: &Ephemeral) -> Result<(), String> {
    let scopes = crate::load::deployed().await;
    let environment = crate::load::known_in(&scopes, &ephemeral.name, &ephemeral.project_name);
    forget_secrets(&Scope { project: ephemeral.project_name.clone(), environment })
}

fn forget(ephemeral: &Ephemeral) -> Exit {
    match Store::open().forget(ephemeral) {
        Ok(()) => {
            eprintln!("`{}` is forgotten; its history stays", ephemeral.name);
            Exit::Done
        }
        Err(error) => {
            eprintln!("error[state]: `{}` cannot be forgotten: {error}", ephemeral.name);
            Exit::Failed
        }
    }
}
