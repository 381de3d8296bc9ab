//! The whole way: from a request to a project.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde_json::Value as Json;

use crate::check::{self, Subject};
use crate::context::{Context, Environment, nearest};
use crate::diagnostic::Diagnostic;
use crate::discover::{self, Found, normal_name};
use crate::dotenv;
use crate::finish;
use crate::layers::{self, Scope};
use crate::model::{Project, Service, Volume};
use crate::node::{Node, Sources, Span};
use crate::normalise;
use crate::raw;
use crate::request::{Loaded, Request, Tolerance};
use crate::source::FileSource;
use crate::spans::{Spans, find};
use crate::yaml::Budget;

/// Steps that `config` can leave out.
#[derive(Clone, Copy)]
pub(crate) struct Steps {
    pub interpolate: bool,
    pub normalise: bool,
    pub resolve_paths: bool,
    pub check: bool,
    pub read_env_files: bool,
    /// Not a load: what is mentioned is noted, and stays as it stands.
    pub survey: bool,
}

impl Default for Steps {
    fn default() -> Self {
        Self {
            interpolate: true,
            normalise: true,
            resolve_paths: true,
            check: true,
            read_env_files: true,
            survey: false,
        }
    }
}

/// The merged files, before they get their types.
pub(crate) struct Merged<'a> {
    pub tree: Node,
    pub name: String,
    pub found: Found,
    pub ctx: Context<'a>,
}

/// Loads a project.
///
/// ```
/// use shiplap_compose::{MemoryFiles, Request, load};
///
/// let files = MemoryFiles::from([(
///     "/shop/compose.yaml",
///     "services:\n  web:\n    image: nginx:${TAG:-1.27}\n    ports: ['8080:80']\n",
/// )]);
/// let request = Request { working_dir: "/shop".into(), ..Request::default() };
/// let loaded = load(&request, &files).unwrap();
///
/// let web = &loaded.project.services["web"];
/// assert_eq!(web.image.as_deref(), Some("nginx:1.27"));
/// assert_eq!(web.ports[0].published.as_deref(), Some("8080"));
/// let place = loaded.span(&["services", "web", "image"]).unwrap();
/// assert_eq!(place.to_string(), "compose.yaml:3:12");
/// ```
///
/// # Errors
/// Every problem in the files, at least one of them of severity error.
///
/// ```
/// use shiplap_compose::{MemoryFiles, Request, load};
///
/// let files = MemoryFiles::from([("/shop/compose.yaml", "services: {web: {imago: nginx}}")]);
/// let request = Request { working_dir: "/shop".into(), ..Request::default() };
/// let problems = load(&request, &files).unwrap_err();
/// assert_eq!(problems[0].code, "compose/unknown-key");
/// assert_eq!(problems[0].help, ["did you mean `image`?"]);
/// ```
pub fn load(request: &Request, files: &dyn FileSource) -> Result<Loaded, Vec<Diagnostic>> {
    load_with(request, files, Steps::default())
}

/// Finds, reads and merges the files.
pub(crate) fn merge_files<'a>(
    request: &Request,
    files: &'a dyn FileSource,
    steps: Steps,
) -> Result<Merged<'a>, Vec<Diagnostic>> {
    let mut ctx = Context {
        files,
        sources: Sources::default(),
        diagnostics: Vec::new(),
        budget: Budget::default(),
        tolerance: request.tolerance,
        trust: request.trust,
        interpolate: steps.interpolate,
        resolve_paths: steps.resolve_paths,
        incomplete: false,
        includes: 0,
        documents: HashMap::new(),
        extended: HashMap::new(),
        root: request.working_dir.clone(),
        given: Vec::new(),
        working_dir: request.working_dir.clone(),
        unset: HashSet::new(),
        mentioned: steps.survey.then(BTreeSet::new),
        home: request.environment.get("HOME").cloned(),
    };
    let Some(mut found) = discover::find(request, &mut ctx) else {
        return Err(ctx.diagnostics);
    };
    let name = project_name(request, &found, &mut ctx);
    found.environment.insert("COMPOSE_PROJECT_NAME".into(), name.clone());
    let scope = Scope {
        directory: found.directory.clone(),
        environment: Rc::new(found.environment.clone()),
    };
    let tree = layers::load_files(&found.files, &scope, &[], &mut ctx);
    if tree.as_map().is_none_or(|map| map.is_empty()) && !ctx.has_errors() {
        let message = "the Compose files are empty";
        ctx.error("compose/empty-file", message, Span::default(), "");
    }
    Ok(Merged { tree, name, found, ctx })
}

pub(crate) fn load_with(
    request: &Request,
    files: &dyn FileSource,
    steps: Steps,
) -> Result<Loaded, Vec<Diagnostic>> {
    let Merged { tree, name, mut found, mut ctx } = merge_files(request, files, steps)?;
    let mut json = finish::project(&tree, &mut ctx);
    if let Json::Object(map) = &mut json {
        map.insert("name".into(), Json::String(name));
        for transient in ["include", "version"] {
            map.shift_remove(transient);
        }
        for section in ["networks", "volumes"] {
            // A bare name is a resource without attributes.
            let resources = map.get_mut(section).and_then(Json::as_object_mut);
            for resource in resources.into_iter().flat_map(|resources| resources.values_mut()) {
                if resource.is_null() {
                    *resource = Json::Object(serde_json::Map::new());
                }
            }
        }
        block_device_names(map);
    }
    let mut project: Project = match serde_json::from_value(json) {
        Ok(project) => project,
        Err(_) => {
            // The error may hold values, so it is not shown. The shapes let nothing come here.
            if !ctx.has_errors() {
                let message = "the project does not fit its model";
                ctx.error("compose/bad-value", message, Span::default(), "");
            }
            return Err(sorted(ctx.diagnostics));
        }
    };
    let mut all_profiles: Vec<String> =
        project.services.values().flat_map(|service| service.profiles.iter().cloned()).collect();
    all_profiles.sort();
    all_profiles.dedup();
    if let Some(unknown) =
        request.services.iter().find(|name| !project.services.contains_key(*name))
    {
        let mut diagnostic =
            Diagnostic::error("compose/unknown-service", format!("no such service: `{unknown}`"));
        if let Some(near) = nearest(unknown, project.services.keys().map(String::as_str)) {
            diagnostic = diagnostic.help(format!("did you mean `{near}`?"));
        }
        ctx.push(diagnostic);
    }
    for name in &request.services {
        // Who names a service asks for its profiles.
        let service = project.services.get(name);
        if service.is_some_and(|service| !normalise::is_active(service, &found.profiles)) {
            found.profiles.extend(service.into_iter().flat_map(|s| s.profiles.iter().cloned()));
        }
    }
    let inactive = settle(&mut project, &tree, &found, steps, &mut ctx);
    if !request.services.is_empty() {
        normalise::select(&mut project, &request.services);
    }
    if ctx.has_errors() {
        return Err(sorted(ctx.diagnostics));
    }
    let canonical = serde_json::to_value(&project).unwrap_or(Json::Null);
    let mut read: Vec<PathBuf> = found.files.clone();
    for path in ctx.sources.paths() {
        let path = request.working_dir.join(path);
        if !read.contains(&path) {
            read.push(path);
        }
    }
    Ok(Loaded {
        project,
        canonical,
        warnings: sorted(ctx.diagnostics),
        inactive,
        files: read,
        project_directory: found.directory,
        environment: found.environment,
        profiles: found.profiles,
        all_profiles,
        spans: Spans::new(tree, ctx.sources),
    })
}

/// The worst first, then in the order of the files.
fn sorted(mut diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    diagnostics.sort_by_cached_key(|diagnostic| {
        let place = diagnostic.location.as_ref();
        (diagnostic.severity, place.map(|at| (at.file.clone(), at.line, at.column)))
    });
    diagnostics
}

/// Checks the project, adds what is implied, and leaves the active part.
fn settle(
    project: &mut Project,
    tree: &Node,
    found: &Found,
    steps: Steps,
    ctx: &mut Context<'_>,
) -> Vec<String> {
    check::everything(project, tree, ctx);
    if steps.normalise {
        normalise::project(project, &found.environment);
    }
    let mut inactive: HashMap<String, Service> = HashMap::new();
    let mut names = Vec::new();
    let services = std::mem::take(&mut project.services);
    for (name, service) in services {
        if normalise::is_active(&service, &found.profiles) {
            project.services.insert(name, service);
        } else {
            names.push(name.clone());
            inactive.insert(name, service);
        }
    }
    if ctx.tolerance == Tolerance::Tolerant {
        declare_volumes(project, tree, ctx);
    }
    if steps.check && !ctx.incomplete {
        let subject = Subject { project, inactive: &inactive, tree };
        check::consistency(&subject, ctx);
    }
    for (name, service) in &mut project.services {
        if let (Some(scale), Some(deploy)) = (service.scale, &mut service.deploy) {
            deploy.replicas = Some(scale);
        }
        if steps.read_env_files {
            read_env_files(name, service, tree, &found.environment, ctx);
        }
        read_label_files(name, service, tree, &found.environment, ctx);
    }
    normalise::prune(project);
    names
}

/// A volume that nobody declared is declared, as Coolify and Dokploy do it.
fn declare_volumes(project: &mut Project, tree: &Node, ctx: &mut Context<'_>) {
    for (name, service) in &project.services {
        for (index, mount) in service.volumes.iter().enumerate() {
            let Some(source) = mount.source.as_ref() else { continue };
            let declared = project.volumes.contains_key(source);
            if mount.kind != crate::model::MountKind::Volume || declared || source.is_empty() {
                continue;
            }
            let span = find(tree, &["services", name, "volumes", &index.to_string()]);
            ctx.warn(
                "compose/unknown-volume",
                format!(
                    "the volume `{}` is not declared: it is added",
                    ctx.shown(source, span.unwrap_or_default())
                ),
                span.unwrap_or_default(),
                "used here",
            );
            let name = Some(format!("{}_{source}", project.name));
            project.volumes.insert(source.clone(), Volume { name, ..Volume::default() });
        }
    }
}

/// `-p`, then `COMPOSE_PROJECT_NAME`, then the last `name:`, then the folder's name.
fn project_name(request: &Request, found: &Found, ctx: &mut Context<'_>) -> String {
    let from_environment =
        found.environment.get("COMPOSE_PROJECT_NAME").filter(|name| !name.is_empty());
    if let Some(name) = request.project_name.as_ref().or(from_environment) {
        if normal_name(name) != *name || name.is_empty() {
            let diagnostic = Diagnostic::error(
                "compose/project-name",
                format!(
                    "`{name}` is no project name: lower case letters, digits, `-` and `_`, \
                         starting with a letter or a digit"
                ),
            )
            .help(match normal_name(name) {
                normal if normal.is_empty() => "choose another".to_string(),
                normal => format!("`{normal}` would do"),
            });
            ctx.push(diagnostic);
        }
        return name.clone();
    }
    let mut named: Option<(String, Span)> = None;
    for file in &found.files {
        for document in layers::read_documents(file, ctx).iter() {
            if let Some(node) = document.get("name")
                && let Some(name) = node.as_text().filter(|name| !name.is_empty())
            {
                named = Some((name.to_string(), node.span));
            }
        }
    }
    let from_file = named.and_then(|(name, span)| {
        if !ctx.interpolate {
            return Some(name);
        }
        layers::interpolate_text(&name, "name", span, &found.environment, ctx)
    });
    let from_file = from_file.map(|name| normal_name(&name)).filter(|name| !name.is_empty());
    from_file.unwrap_or_else(|| {
        let resolved = ctx.files.resolve(&found.directory).unwrap_or(found.directory.clone());
        let folder = resolved.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = normal_name(&folder.unwrap_or_default());
        if name.is_empty() {
            let diagnostic = Diagnostic::error(
                "compose/project-name",
                "the project has no name: its folder's name holds no letter and no digit",
            )
            .help("give one with `-p NAME` or `name: …`");
            ctx.push(diagnostic);
        }
        name
    })
}

/// The reference writes these two attributes with capital letters.
fn block_device_names(project: &mut serde_json::Map<String, Json>) {
    let services = project.get_mut("services").and_then(Json::as_object_mut);
    for service in services.into_iter().flat_map(|services| services.values_mut()) {
        let Some(blkio) = service.get_mut("blkio_config").and_then(Json::as_object_mut) else {
            continue;
        };
        for devices in blkio.values_mut().filter_map(Json::as_array_mut) {
            for device in devices.iter_mut().filter_map(Json::as_object_mut) {
                for (old, new) in [("path", "Path"), ("rate", "Rate"), ("weight", "Weight")] {
                    if let Some(value) = device.shift_remove(old) {
                        device.insert(new.into(), value);
                    }
                }
            }
        }
    }
}

fn read_env_files(
    name: &str,
    service: &mut Service,
    tree: &Node,
    environment: &Environment,
    ctx: &mut Context<'_>,
) {
    let mut variables = dotenv::Variables::new();
    for (index, file) in std::mem::take(&mut service.env_file).into_iter().enumerate() {
        let span = find(tree, &["services", name, "env_file", &index.to_string(), "path"]);
        let span = span.unwrap_or_default();
        let path = Path::new(&file.path);
        let shown = ctx.shown_path(path, span);
        let text = match ctx.read(path) {
            Ok(text) => text,
            Err(error) if error.is_missing() && !file.required => continue,
            Err(error) => {
                let message = format!("cannot read `{shown}`: {error}");
                let mut diagnostic =
                    Diagnostic::error(error.code(), message).at(ctx.at(span), "named here");
                if error.is_missing() {
                    diagnostic =
                        diagnostic.help("create it, or write `{path: …, required: false}`");
                }
                ctx.push(diagnostic);
                continue;
            }
        };
        let lookup = |name: &str| {
            let own = || service.environment.get(name).cloned().flatten();
            environment.get(name).cloned().or_else(own)
        };
        let result = match file.format.as_deref() {
            None | Some("") => dotenv::parse(&text, &mut variables, &lookup),
            Some("raw") => dotenv::parse_raw(&text, &mut variables, &lookup),
            Some(_) => {
                let message = "the format of an `env_file` can only be `raw`";
                ctx.error("compose/unknown-word", message, span, "of this file");
                continue;
            }
        };
        if let Err(error) = result {
            layers::dotenv_error(&shown, &error, span, ctx);
        }
    }
    normalise::join_variables(variables, &mut service.environment);
}

fn read_label_files(
    name: &str,
    service: &mut Service,
    tree: &Node,
    environment: &Environment,
    ctx: &mut Context<'_>,
) {
    let mut labels = dotenv::Variables::new();
    for (index, file) in std::mem::take(&mut service.label_file).into_iter().enumerate() {
        let span = find(tree, &["services", name, "label_file", &index.to_string()]);
        let path = Path::new(&file);
        layers::read_variables(path, span.unwrap_or_default(), environment, &mut labels, ctx);
    }
    labels.extend(std::mem::take(&mut service.labels));
    service.labels = labels;
}

/// The merged tree as JSON, without types: what `--no-interpolate` shows.
pub(crate) fn raw_json(merged: &Merged<'_>, normalise: bool) -> Json {
    let mut json = finish::plain(&merged.tree);
    if let Json::Object(map) = &mut json {
        map.insert("name".into(), Json::String(merged.name.clone()));
        if normalise {
            raw::normalise(map, &merged.found.environment);
        }
    }
    json
}
