//! What `config` prints.

use serde_json::Value as Json;

use crate::context::Environment;
use crate::diagnostic::Diagnostic;
use crate::load::{self, Steps, load_with};
use crate::model::Project;
use crate::reference;
use crate::request::Request;
use crate::sha256;
use crate::source::FileSource;
use crate::yaml_out;

/// How a whole project is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// YAML, as it stands in a Compose file.
    #[default]
    Yaml,
    /// JSON, indented.
    Json,
}

/// What is printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// The whole project.
    #[default]
    Project,
    /// The names of the active services.
    Services,
    /// Their images.
    Images,
    /// The names of the volumes.
    Volumes,
    /// The names of the networks.
    Networks,
    /// All profiles that a service names.
    Profiles,
    /// The variables that interpolation sees.
    Environment,
    /// A hash of each service's configuration; of those named, or of all if none is.
    Hash(Vec<String>),
}

/// How `config` prints.
#[derive(Clone, Debug)]
pub struct ConfigOptions {
    /// How a whole project is printed.
    pub format: Format,
    /// What is printed.
    pub view: View,
    /// Whether variables are replaced; if not, the merged files are shown as they are.
    pub interpolate: bool,
    /// Whether what is implied is added.
    pub normalise: bool,
    /// Whether paths are made absolute.
    pub resolve_paths: bool,
    /// Whether the parts are checked against each other.
    pub check: bool,
    /// Whether `env_file` is read into `environment`.
    pub read_env_files: bool,
}

impl Default for ConfigOptions {
    fn default() -> Self {
        Self {
            format: Format::default(),
            view: View::default(),
            interpolate: true,
            normalise: true,
            resolve_paths: true,
            check: true,
            read_env_files: true,
        }
    }
}

/// What is to be printed.
#[derive(Clone, Debug)]
pub struct Rendered {
    /// The text, with a line break at its end unless it is empty.
    pub text: String,
    /// What deserves a look.
    pub warnings: Vec<Diagnostic>,
}

/// Gives what `config` prints.
///
/// ```
/// use shiplap_compose::{ConfigOptions, MemoryFiles, Request, View, render_config};
///
/// let files = MemoryFiles::from([("/shop/compose.yaml", "services: {web: {image: nginx}}")]);
/// let request = Request { working_dir: "/shop".into(), ..Request::default() };
/// let options = ConfigOptions { view: View::Images, ..ConfigOptions::default() };
/// assert_eq!(render_config(&request, &files, &options).unwrap().text, "nginx\n");
/// ```
///
/// # Errors
/// Every problem in the files, as [`load`](crate::load) gives them.
pub fn render_config(
    request: &Request,
    files: &dyn FileSource,
    options: &ConfigOptions,
) -> Result<Rendered, Vec<Diagnostic>> {
    let steps = Steps {
        interpolate: options.interpolate,
        normalise: options.normalise,
        resolve_paths: options.resolve_paths,
        check: options.check,
        read_env_files: options.read_env_files,
        survey: false,
    };
    if !options.interpolate {
        return render_raw(request, files, options, steps);
    }
    let loaded = load_with(request, files, steps)?;
    let text = match &options.view {
        View::Project => project_text(loaded.canonical, options.format),
        View::Services => listed(loaded.project.services.keys()),
        View::Images => images(&loaded.project),
        View::Volumes => listed(loaded.project.volumes.keys()),
        View::Networks => listed(loaded.project.networks.keys()),
        View::Profiles => listed(&loaded.all_profiles),
        View::Environment => environment_text(&loaded.environment),
        View::Hash(services) => hashes(&loaded.project, services)?,
    };
    Ok(Rendered { text, warnings: loaded.warnings })
}

/// Prints a project that something was changed in after it was loaded; nothing of a view that is
/// not about the project.
///
/// # Errors
/// Services of [`View::Hash`] that there are not.
pub fn render_project(
    project: &Project,
    options: &ConfigOptions,
) -> Result<Option<String>, Vec<Diagnostic>> {
    let text = match &options.view {
        View::Project => {
            let json = serde_json::to_value(project).unwrap_or(Json::Null);
            project_text(json, options.format)
        }
        View::Services => listed(project.services.keys()),
        View::Images => images(project),
        View::Volumes => listed(project.volumes.keys()),
        View::Networks => listed(project.networks.keys()),
        View::Hash(services) => hashes(project, services)?,
        View::Profiles | View::Environment => return Ok(None),
    };
    Ok(Some(text))
}

fn render_raw(
    request: &Request,
    files: &dyn FileSource,
    options: &ConfigOptions,
    steps: Steps,
) -> Result<Rendered, Vec<Diagnostic>> {
    let mut merged = load::merge_files(request, files, steps)?;
    if merged.ctx.has_errors() {
        return Err(merged.ctx.diagnostics);
    }
    let json = load::raw_json(&merged, options.normalise);
    let keys = |section: &str| {
        let section = json.get(section).and_then(Json::as_object);
        listed(section.into_iter().flat_map(|section| section.keys()))
    };
    let services = || json.get("services").and_then(Json::as_object).into_iter().flatten();
    let text = match &options.view {
        View::Project => format_json(&json, options.format),
        View::Services => keys("services"),
        View::Volumes => keys("volumes"),
        View::Networks => keys("networks"),
        View::Images => listed(
            services()
                .filter_map(|(_, service)| service.get("image")?.as_str().map(str::to_string)),
        ),
        View::Profiles => {
            let mut profiles: Vec<&str> = services()
                .filter_map(|(_, service)| service.get("profiles")?.as_array())
                .flatten()
                .filter_map(Json::as_str)
                .collect();
            profiles.sort_unstable();
            profiles.dedup();
            listed(profiles)
        }
        View::Environment => environment_text(&merged.found.environment),
        View::Hash(_) => {
            let message = "a hash needs the values of the variables";
            let help = "leave out `--no-interpolate`";
            return Err(vec![Diagnostic::error("compose/bad-request", message).help(help)]);
        }
    };
    Ok(Rendered { text, warnings: std::mem::take(&mut merged.ctx.diagnostics) })
}

fn listed<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    names.into_iter().map(|name| format!("{}\n", name.as_ref())).collect()
}

/// The image of each service; a service that is built has one of its own name.
fn images(project: &Project) -> String {
    listed(project.services.iter().map(|(name, service)| {
        service.image.clone().unwrap_or_else(|| format!("{}-{name}", project.name))
    }))
}

fn environment_text(environment: &Environment) -> String {
    environment.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
}

fn project_text(mut json: Json, format: Format) -> String {
    if let Json::Object(map) = &mut json {
        // The reference does not print this section; what it prints is what people compare.
        map.shift_remove("models");
    }
    reference::style(&mut json, format == Format::Json);
    escape(&mut json);
    format_json(&json, format)
}

fn format_json(json: &Json, format: Format) -> String {
    match format {
        Format::Json => format!("{json:#}\n"),
        Format::Yaml => yaml_out::print(json),
    }
}

/// A dollar sign is doubled, so that the output can be loaded again.
fn escape(json: &mut Json) {
    match json {
        Json::String(text) if text.contains('$') => *text = text.replace('$', "$$"),
        Json::Array(items) => items.iter_mut().for_each(escape),
        Json::Object(map) => {
            if map.keys().any(|key| key.contains('$')) {
                *map = std::mem::take(map)
                    .into_iter()
                    .map(|(key, value)| (key.replace('$', "$$"), value))
                    .collect();
            }
            map.values_mut().for_each(escape);
        }
        _ => {}
    }
}

/// `NAME HASH` for each service. The hash is of the normal form without what scaling changes; it
/// is ours, not the reference's, which hashes its own memory layout.
fn hashes(project: &Project, wanted: &[String]) -> Result<String, Vec<Diagnostic>> {
    let unknown = wanted.iter().find(|name| *name != "*" && !project.services.contains_key(*name));
    if let Some(unknown) = unknown {
        let message = format!("no such service: `{unknown}`");
        return Err(vec![Diagnostic::error("compose/unknown-service", message)]);
    }
    let all = wanted.is_empty() || wanted.iter().any(|name| name == "*");
    let mut text = String::new();
    for (name, service) in &project.services {
        if !all && !wanted.contains(name) {
            continue;
        }
        let mut service = service.clone();
        service.scale = None;
        service.pull_policy = None;
        if let Some(deploy) = &mut service.deploy {
            deploy.replicas = None;
        }
        let mut json = serde_json::to_value(&service).unwrap_or(Json::Null);
        json.sort_all_objects();
        text += &format!("{name} {}\n", sha256::hex(json.to_string().as_bytes()));
    }
    Ok(text)
}
