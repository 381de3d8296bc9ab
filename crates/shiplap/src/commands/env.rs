//! `env`: environments of a project.

mod clone;
mod create;
mod diff;
mod list;
pub mod prune;
mod remove;
mod show;

use clap::Subcommand;

use super::{Exit, Format, verify};
use crate::cli::ProjectArgs;

pub use list::overview;

/// `env`.
#[derive(Debug, Clone, Subcommand)]
pub enum EnvCommand {
    /// Show all environments: what runs, what was deployed last, where they are reached
    List,
    /// Show all that makes an environment what it is, and no value of a variable or a secret
    Show {
        /// Its name
        name: String,
    },
    /// Show in what two environments differ, and no value of a variable or a secret
    Diff {
        /// The one
        one: String,
        /// The other
        other: String,
    },
    /// Make an environment that is in no file from one that is, say for a pull request; `deploy`
    /// fills it
    Create(create::CreateArgs),
    /// The same, and deploy the very images that the other one runs; data is not copied
    Clone(clone::CloneArgs),
    /// Take an environment down, and forget it if it is in no file
    Remove(remove::RemoveArgs),
    /// Remove environments whose time is over, with their volumes
    Prune(prune::PruneArgs),
    /// Test that environments on one engine are separate: look at what they share, and try to get
    /// from one to the other
    Verify(verify::VerifyArgs),
    /// Try what the words say (the containers of `verify` run this)
    #[command(hide = true)]
    Probe {
        /// `connect:ADDRESS:PORT` and `name:NAME`
        words: Vec<String>,
    },
}

pub async fn env(project: &ProjectArgs, command: &EnvCommand, format: Format) -> Exit {
    match command {
        EnvCommand::List => list::list(project, format).await,
        EnvCommand::Show { name } => show::show(project, name, format).await,
        EnvCommand::Diff { one, other } => diff::diff(project, one, other, format).await,
        EnvCommand::Create(args) => create::create(project, args, format).await,
        EnvCommand::Clone(args) => clone::clone(project, args, format).await,
        EnvCommand::Remove(args) => remove::remove(project, args, format).await,
        EnvCommand::Prune(args) => prune::prune(args, format).await,
        EnvCommand::Verify(args) => verify::verify(project, args, format).await,
        EnvCommand::Probe { words } => verify::probe(words).await,
    }
}

/// Says that there is no configuration, where a command makes no sense without one.
fn no_config() -> Exit {
    eprintln!("error[config/no-config]: there is no shiplap.yaml here, nor in a folder above");
    eprintln!("  = help: `shiplap init` writes one for what is in this folder");
    Exit::Failed
}
