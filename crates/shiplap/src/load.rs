//! Loading the project that the command line names.

use shiplap_compose::{Diagnostic, OsFiles, Request, Tolerance};
use shiplap_execute::app::Source;

use crate::cli::ProjectArgs;

/// The environment that a folder without further configuration is deployed as.
pub const DEFAULT_ENVIRONMENT: &str = "default";

/// Loads the project.
///
/// # Errors
/// Every problem in the files.
pub fn load(args: &ProjectArgs) -> Result<Source, Vec<Diagnostic>> {
    let loaded = shiplap_compose::load(&request(args)?, &OsFiles)?;
    let environment = DEFAULT_ENVIRONMENT.to_owned();
    Ok(Source { loaded, environment, secrets: Default::default() })
}

/// What to ask of the loader.
///
/// # Errors
/// When there is no current folder.
pub fn request(args: &ProjectArgs) -> Result<Request, Vec<Diagnostic>> {
    let working_dir = std::env::current_dir().map_err(|error| {
        let message = format!("the current folder cannot be read: {error}");
        vec![Diagnostic::error("compose/no-folder", message)]
    })?;
    Ok(Request {
        files: args.files.clone(),
        env_files: args.env_files.clone(),
        profiles: args.profiles.clone(),
        project_name: args.project_name.clone(),
        project_directory: args.project_directory.clone(),
        working_dir,
        environment: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
        tolerance: if args.tolerant { Tolerance::Tolerant } else { Tolerance::Strict },
        ..Request::default()
    })
}
