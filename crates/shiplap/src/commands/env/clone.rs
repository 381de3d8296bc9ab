//! `env clone`: an environment for a while that runs what another one runs.

use std::time::Duration;

use clap::Args;

use super::create::{CreateArgs, make};
use crate::cli::{Carry, ProjectArgs, PromoteArgs, duration};
use crate::commands::{Exit, Format, promote};

/// `env clone`.
#[derive(Debug, Clone, Args)]
pub struct CloneArgs {
    /// The environment of shiplap.yaml that it is made from, and whose images it gets
    pub from: String,
    /// Its name: lower-case letters, digits, `-` and `_`
    pub name: String,
    /// How long it is to be, such as 12h or 3d: then it is removed with its volumes, all data in
    /// them is lost. Without it, it stays until it is removed
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub ttl: Option<Duration>,
    #[command(flatten)]
    pub carry: Carry,
}

/// Makes it, and gives it the very images that the other one runs. Data is not copied.
pub async fn clone(project: &ProjectArgs, args: &CloneArgs, format: Format) -> Exit {
    let (name, from) = (args.name.clone(), args.from.clone());
    if let Err(exit) = make(project, &CreateArgs { name, from, ttl: args.ttl }).await {
        return exit;
    }
    let promoted = PromoteArgs {
        from: args.from.clone(),
        to: args.name.clone(),
        deployment: None,
        plan: false,
        steps: false,
        approve: None,
        carry: args.carry.clone(),
    };
    promote::promote(project, &promoted, format).await
}
