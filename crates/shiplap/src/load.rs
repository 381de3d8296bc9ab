//! Loading the project that the command line names.

use shiplap_compose::{Diagnostic, OsFiles, Request, Tolerance};
use shiplap_execute::app::Source;
use shiplap_model::Scope;
use shiplap_secrets::magic::{Place, Scheme};

use crate::cli::ProjectArgs;
use crate::secrets::{self, Missing, Supply};

/// The environment that a folder without further configuration is deployed as.
pub const DEFAULT_ENVIRONMENT: &str = "default";

/// Loads the project with the secrets of its environment.
///
/// # Errors
/// Every problem in the files.
pub fn load(args: &ProjectArgs, missing: Missing) -> Result<Source, Vec<Diagnostic>> {
    let mut request = request(args)?;
    let environment = DEFAULT_ENVIRONMENT.to_owned();
    // What is wrong with files that cannot even be surveyed, loading says better.
    let Ok(survey) = shiplap_compose::survey(&request, &OsFiles) else {
        let loaded = shiplap_compose::load(&request, &OsFiles)?;
        return Ok(Source { loaded, environment, secrets: Default::default() });
    };
    let scope = Scope { project: survey.project.clone(), environment };
    let place = Place { scope: &scope, domain: None, scheme: Scheme::Http };
    let store = secrets::store();
    let mut supply = Supply::find(&store, &place, &survey, missing)?;
    request.environment.extend(supply.variables(&survey)?);
    let hidden = |supply: &Supply, mut problems: Vec<Diagnostic>| {
        supply.blank(&mut problems);
        problems
    };
    let loaded = shiplap_compose::load(&request, &OsFiles);
    let mut loaded = loaded.map_err(|problems| hidden(&supply, problems))?;
    let finished = supply.finish(&mut loaded, &survey, (&store, &scope));
    finished.map_err(|problems| hidden(&supply, problems))?;
    Ok(Source { loaded, environment: scope.environment, secrets: supply.into_used() })
}

/// What to ask of the loader for showing the project: values of secrets are blanked out.
///
/// # Errors
/// When there is no current folder, or the store cannot be read.
pub fn request_to_show(args: &ProjectArgs) -> Result<Request, Vec<Diagnostic>> {
    let mut request = request(args)?;
    if let Ok(survey) = shiplap_compose::survey(&request, &OsFiles) {
        let environment = DEFAULT_ENVIRONMENT.to_owned();
        let scope = Scope { project: survey.project.clone(), environment };
        let place = Place { scope: &scope, domain: None, scheme: Scheme::Http };
        let blank = secrets::blank_variables(&secrets::store(), &place, &survey)?;
        request.environment.extend(blank);
    }
    Ok(request)
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
