//! `config`: the normalised project, as `docker compose config` prints it.

use shiplap_compose::{ConfigOptions, Format, OsFiles, View, render_config};

use super::{Exit, show_diagnostics};
use crate::cli::{ConfigArgs, ConfigFormat, ProjectArgs};

pub async fn config(project: &ProjectArgs, args: &ConfigArgs, json: bool) -> Exit {
    let mut request = match crate::load::request_to_show(project).await {
        Ok(request) => request,
        Err(diagnostics) => {
            show_diagnostics(&diagnostics);
            return Exit::Failed;
        }
    };
    request.services.clone_from(&args.only);
    match render_config(&request, &OsFiles, &options(project, args, json)) {
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
