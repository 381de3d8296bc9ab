//! `config`: the normalised project.

use super::{Exit, show_diagnostics};
use crate::cli::{ConfigArgs, ProjectArgs};

pub fn config(project: &ProjectArgs, args: &ConfigArgs) -> Exit {
    let mut request = match crate::load::request(project) {
        Ok(request) => request,
        Err(diagnostics) => {
            show_diagnostics(&diagnostics);
            return Exit::Failed;
        }
    };
    if args.tolerant {
        request.tolerance = shiplap_compose::Tolerance::Tolerant;
    }
    let loaded = match shiplap_compose::load(&request, &shiplap_compose::OsFiles) {
        Ok(loaded) => loaded,
        Err(diagnostics) => {
            show_diagnostics(&diagnostics);
            return Exit::Failed;
        }
    };
    for warning in &loaded.warnings {
        eprintln!("{warning}");
    }
    println!("{:#}", loaded.canonical);
    Exit::Done
}
