//! `env list`, and `status` of a project with several environments.

use super::super::{refuse, show_diagnostics};
use super::{Exit, Format, no_config};
use crate::cli::ProjectArgs;
use crate::load::Declared;
use crate::output::environments;

pub async fn list(project: &ProjectArgs, format: Format) -> Exit {
    match crate::load::environments(project) {
        Ok(Some((name, known))) => show(name, &known, format).await,
        Ok(None) => no_config(),
        Err(diagnostics) => {
            show_diagnostics(&diagnostics);
            Exit::Failed
        }
    }
}

/// Shows all environments, where there are several and none is named. Nothing elsewhere.
pub async fn overview(project: &ProjectArgs, format: Format) -> Option<Exit> {
    if crate::load::wanted(project).is_some() {
        return None;
    }
    // What is wrong with the files is said by whoever goes on.
    let (name, known) = crate::load::environments(project).ok()??;
    if known.len() < 2 { None } else { Some(show(name, &known, format).await) }
}

async fn show(name: String, known: &[Declared], format: Format) -> Exit {
    let limits = match crate::limits::from_environment() {
        Ok(limits) => limits,
        Err(exit) => return exit,
    };
    match crate::overview::look(name, known, &limits).await {
        Ok(overview) => {
            match format {
                Format::Json => println!("{:#}", environments::json(&overview)),
                Format::Text => {
                    print!("{}", environments::text(&overview, shiplap_execute::now_ms()));
                }
            }
            let is_whole = overview.machines.iter().all(|machine| machine.seen.is_ok());
            if is_whole { Exit::Done } else { Exit::Failed }
        }
        Err(error) => refuse(&error, None),
    }
}
