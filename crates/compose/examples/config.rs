//! `docker compose config`, with this library: a driver for conformance tests.
//!
//! ```text
//! config [-f FILE].. [--env-file FILE].. [--profile NAME].. [-p NAME] [--project-directory DIR]
//!        config [--format json|yaml] [--services|--images|--volumes|--networks|--profiles|
//!        --environment|--hash SERVICES] [--no-interpolate] [--no-normalize]
//!        [--no-path-resolution] [--no-consistency] [--no-env-resolution] [--tolerant]
//!        [--untrusted] [--quiet] [SERVICE]..
//! ```

use std::process::ExitCode;

use shiplap_compose::{
    ConfigOptions, Format, OsFiles, Request, Tolerance, Trust, View, render_config,
};

fn main() -> ExitCode {
    let (request, options, quiet) = match arguments() {
        Ok(arguments) => arguments,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    match render_config(&request, &OsFiles, &options) {
        Ok(rendered) => {
            for warning in &rendered.warnings {
                eprintln!("{warning}");
            }
            if !quiet {
                print!("{}", rendered.text);
            }
            ExitCode::SUCCESS
        }
        Err(diagnostics) => {
            for diagnostic in &diagnostics {
                eprintln!("{diagnostic}");
            }
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<(Request, ConfigOptions, bool), String> {
    let mut request = Request {
        working_dir: std::env::current_dir().map_err(|error| error.to_string())?,
        environment: std::env::vars().collect(),
        ..Request::default()
    };
    let mut options = ConfigOptions::default();
    let mut quiet = false;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "config" => {}
            "-f" | "--file" => request.files.push(value()?.into()),
            "--env-file" => request.env_files.push(value()?.into()),
            "--profile" => request.profiles.push(value()?),
            "-p" | "--project-name" => request.project_name = Some(value()?),
            "--project-directory" => request.project_directory = Some(value()?.into()),
            "--format" => {
                options.format = match value()?.as_str() {
                    "json" => Format::Json,
                    "yaml" => Format::Yaml,
                    other => return Err(format!("unknown format: {other}")),
                }
            }
            "--services" => options.view = View::Services,
            "--images" => options.view = View::Images,
            "--volumes" => options.view = View::Volumes,
            "--networks" => options.view = View::Networks,
            "--profiles" => options.view = View::Profiles,
            "--environment" => options.view = View::Environment,
            "--hash" => {
                options.view = View::Hash(value()?.split(',').map(str::to_string).collect());
            }
            "--no-interpolate" => options.interpolate = false,
            "--no-normalize" => options.normalise = false,
            "--no-path-resolution" => options.resolve_paths = false,
            "--no-consistency" => options.check = false,
            "--no-env-resolution" => options.read_env_files = false,
            "--tolerant" => request.tolerance = Tolerance::Tolerant,
            "--untrusted" => request.trust = Trust::Untrusted,
            "-q" | "--quiet" => quiet = true,
            other if !other.starts_with('-') => request.services.push(other.to_string()),
            other => return Err(format!("unknown argument: {other}")),
        }
    }
    Ok((request, options, quiet))
}
