//! `config`: the normalised project, as `docker compose config` prints it; with an environment, what
//! that makes of it.

use shiplap_compose::{ConfigOptions, Format, OsFiles, View, render_config, render_project};

use super::{Exit, show_diagnostics};
use crate::cli::{ConfigArgs, ConfigFormat, ProjectArgs};

pub async fn config(project: &ProjectArgs, args: &ConfigArgs, json: bool) -> Exit {
    let options = options(project, args, json);
    if is_of_the_environment(args)
        && let Some(exit) = environment(project, args, &options).await
    {
        return exit;
    }
    let mut request = match crate::load::request_to_show(project).await {
        Ok(request) => request,
        Err(diagnostics) => {
            show_diagnostics(&diagnostics);
            return Exit::Failed;
        }
    };
    request.services.clone_from(&args.only);
    match render_config(&request, &OsFiles, &options) {
        Ok(rendered) => {
            for warning in &rendered.warnings {
                eprintln!("{warning}");
            }
            if !args.quiet {
                print!("{}", rendered.text);
            }
            Exit::Done
        }
        Err(diagnostics) => {
            show_diagnostics(&diagnostics);
            Exit::Failed
        }
    }
}

/// Whether what is asked for is the project as it is deployed, rather than as it is written.
fn is_of_the_environment(args: &ConfigArgs) -> bool {
    let as_written = args.no_interpolate
        || args.no_normalize
        || args.no_path_resolution
        || args.no_consistency
        || args.no_env_resolution;
    !as_written && args.only.is_empty()
}

/// The project with the names, ports, limits and jobs of its environment; nothing where there is
/// none, or what is asked for is not of the project.
async fn environment(
    project: &ProjectArgs,
    args: &ConfigArgs,
    options: &ConfigOptions,
) -> Option<Exit> {
    let (shown, warnings) = match crate::load::project_to_show(project).await {
        Ok(found) => found?,
        Err(diagnostics) => {
            show_diagnostics(&diagnostics);
            return Some(Exit::Failed);
        }
    };
    for warning in &warnings {
        eprintln!("{warning}");
    }
    match render_project(&shown, options) {
        Ok(text) => {
            let text = text?;
            if !args.quiet {
                print!("{text}");
            }
            Some(Exit::Done)
        }
        Err(diagnostics) => {
            show_diagnostics(&diagnostics);
            Some(Exit::Failed)
        }
    }
}

fn options(project: &ProjectArgs, args: &ConfigArgs, json: bool) -> ConfigOptions {
    let views = [
        (args.services, View::Services),
        (args.images, View::Images),
        (args.volumes, View::Volumes),
        (args.networks, View::Networks),
        (args.list_profiles, View::Profiles),
        (project.environment.as_deref() == Some(""), View::Environment),
    ];
    let mut options = ConfigOptions::default();
    if json || args.format == ConfigFormat::Json {
        options.format = Format::Json;
    }
    if let Some((_, view)) = views.into_iter().find(|(asked, _)| *asked) {
        options.view = view;
    }
    if let Some(services) = &args.hash {
        options.view = View::Hash(services.split(',').map(str::to_owned).collect());
    }
    options.interpolate = !args.no_interpolate;
    options.normalise = !args.no_normalize;
    options.resolve_paths = !args.no_path_resolution;
    options.check = !args.no_consistency;
    options.read_env_files = !args.no_env_resolution;
    options
}
