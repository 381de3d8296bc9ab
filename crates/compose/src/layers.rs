//! One project from several files: interpolation, `extends`, `include`, merging.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::canonical;
use crate::context::{Context, Environment, Marks, clean, nearest};
use crate::diagnostic::Diagnostic;
use crate::dotenv;
use crate::interpolate::{self, Problem};
use crate::merge;
use crate::node::{Map, Mark, Node, Path as Place, Span, Value};
use crate::paths;
use crate::unique;
use crate::validate;
use crate::yaml;

/// `include` nests this deep at most.
const MAX_INCLUDES: usize = 32;
/// So many files are included in all.
const MAX_INCLUDED: usize = 1_000;
/// `extends` chains are this long at most.
const MAX_EXTENDS: usize = 64;

/// Where a set of files stands.
#[derive(Clone)]
pub(crate) struct Scope {
    /// What relative paths start from.
    pub directory: PathBuf,
    /// What variables are taken from.
    pub environment: Rc<Environment>,
}

/// Loads files on top of each other and makes their paths absolute.
pub(crate) fn load_files(
    files: &[PathBuf],
    scope: &Scope,
    including: &[PathBuf],
    ctx: &mut Context<'_>,
) -> Node {
    let mut project = Node::new(Value::Map(Map::new()), Span::default());
    for file in files {
        for document in take_documents(file, ctx) {
            let marks = prepare(document, file, scope, ctx);
            let Some((mut layer, marks)) = marks else { continue };
            apply_extends(&mut layer, file, scope, &marks, ctx);
            for mark in &marks {
                remove(&mut project, mark);
            }
            let mut including = including.to_vec();
            including.push(file.clone());
            apply_include(&mut layer, scope, &including, ctx);
            project = merge::merge(project, layer, &mut Vec::new(), ctx);
            unique::project(&mut project, ctx);
            validate::project(&mut project, ctx);
            drop_version(&mut project, ctx);
            canonical::expand(&mut project, ctx);
            // A range may have become what an earlier item says.
            unique::project(&mut project, ctx);
        }
    }
    canonical::defaults(&mut project);
    if ctx.resolve_paths || !including.is_empty() {
        paths::resolve(&mut project, &scope.directory, ctx);
    }
    if ctx.mentioned.is_none() {
        resolve_environment(&mut project, &scope.environment);
    }
    project
}

/// The documents of a file, in order; read once.
pub(crate) fn read_documents(file: &Path, ctx: &mut Context<'_>) -> Rc<Vec<Node>> {
    if let Some(documents) = ctx.documents.get(file) {
        return documents.clone();
    }
    let (text, source) = match ctx.read_source(file) {
        Ok(read) => read,
        Err(error) => {
            let name = ctx.display(file);
            let message = format!("cannot read `{}`: {error}", name.display());
            ctx.error(error.code(), message, Span::default(), "");
            ctx.incomplete = true;
            return Rc::default();
        }
    };
    let documents = match yaml::parse(&text, source, &mut ctx.budget) {
        Ok(documents) => Rc::new(documents),
        Err(error) => {
            ctx.yaml_error(error);
            ctx.incomplete = true;
            Rc::default()
        }
    };
    ctx.documents.insert(file.to_path_buf(), documents.clone());
    documents
}

/// The documents of a file, for good: whoever wants them next reads them again.
fn take_documents(file: &Path, ctx: &mut Context<'_>) -> Vec<Node> {
    let documents = read_documents(file, ctx);
    ctx.documents.remove(file);
    Rc::try_unwrap(documents).unwrap_or_else(|shared| (*shared).clone())
}

/// Takes the marks off and replaces the variables. `None` if the document is no mapping.
fn prepare(
    mut layer: Node,
    file: &Path,
    scope: &Scope,
    ctx: &mut Context<'_>,
) -> Option<(Node, Marks)> {
    let name = ctx.display(file);
    match &layer.value {
        Value::Map(_) => {}
        Value::Null => {
            let message = format!("`{}` is empty", name.display());
            ctx.error("compose/empty-file", message, layer.span, "");
            return None;
        }
        _ => {
            let message = format!("`{}` must be a mapping", name.display());
            ctx.error("compose/wrong-type", message, layer.span, "this is no mapping");
            return None;
        }
    }
    let mut marks = Marks::new();
    take_marks(&mut layer, &mut Vec::new(), true, &mut marks);
    if ctx.interpolate {
        interpolate_node(&mut layer, &mut Place::default(), &scope.environment, ctx);
    }
    Some((layer, marks))
}

/// Removes what is marked `!reset` and notes the places of all marks. Places inside of lists only
/// lose their value.
fn take_marks(node: &mut Node, path: &mut Vec<String>, named: bool, marks: &mut Marks) {
    match &mut node.value {
        Value::Map(map) => map.retain(|key, value| {
            path.push(key.clone());
            if named && value.mark.is_some() {
                marks.push(path.clone());
            }
            let keep = value.mark != Some(Mark::Reset);
            value.mark = None;
            if keep {
                take_marks(value, path, named, marks);
            }
            path.pop();
            keep
        }),
        Value::List(items) => {
            items.retain(|item| item.mark != Some(Mark::Reset));
            for item in items {
                item.mark = None;
                take_marks(item, path, false, marks);
            }
        }
        _ => {}
    }
}

fn remove(node: &mut Node, path: &[String]) {
    let Some((last, parents)) = path.split_last() else { return };
    let mut node = node;
    for key in parents {
        match node.get_mut(key) {
            Some(child) => node = child,
            None => return,
        }
    }
    if let Some(map) = node.as_map_mut() {
        map.shift_remove(last);
    }
}

/// Replaces the variables of every text.
fn interpolate_node(
    node: &mut Node,
    path: &mut Place,
    environment: &Environment,
    ctx: &mut Context<'_>,
) {
    match &mut node.value {
        Value::Map(map) => {
            for (key, value) in map {
                let before = path.enter_key(key);
                interpolate_node(value, path, environment, ctx);
                path.leave(before);
            }
        }
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                let before = path.enter_item(index);
                interpolate_node(item, path, environment, ctx);
                path.leave(before);
            }
        }
        Value::Text(text) if text.contains('$') => {
            if let Some(replaced) = interpolate_text(text, &path.text, node.span, environment, ctx)
            {
                node.interpolated = replaced != *text;
                *text = replaced;
            }
        }
        _ => {}
    }
}

/// Replaces the variables of one text; a text with errors becomes `None`.
pub(crate) fn interpolate_text(
    text: &str,
    path: &str,
    span: Span,
    environment: &Environment,
    ctx: &mut Context<'_>,
) -> Option<String> {
    if ctx.mentioned.is_some() {
        interpolate::mention(text, &mut |name| ctx.mention(name));
    }
    let lookup = |name: &str| environment.get(name).cloned();
    match interpolate::substitute(text, &lookup) {
        Ok(replaced) => {
            for name in replaced.unset {
                if !ctx.first_unset(&name) {
                    continue;
                }
                let mut diagnostic = Diagnostic::warning(
                    "compose/unset-variable",
                    format!("the variable `{name}` is not set: it becomes nothing"),
                )
                .at(ctx.at(span), "used here");
                if let Some(known) = nearest(&name, environment.keys().map(String::as_str)) {
                    diagnostic = diagnostic.help(format!("did you mean `{known}`?"));
                }
                ctx.push(diagnostic);
            }
            if !ctx.budget.take(0, replaced.text.len()) {
                ctx.error("compose/too-big", "the variables make too much text", span, "no room");
                return None;
            }
            Some(replaced.text)
        }
        Err(Problem::Invalid) => {
            let diagnostic = Diagnostic::error(
                "compose/bad-interpolation",
                format!("`{path}` holds no form of `${{…}}` that Compose knows"),
            )
            .at(ctx.at(span), "in this text")
            .help("write `$$` for a dollar sign that is meant as one");
            ctx.push(diagnostic);
            None
        }
        Err(Problem::Missing { name, message }) => {
            let told = if message.is_empty() { String::new() } else { format!(": {message}") };
            let mut diagnostic = Diagnostic::error(
                "compose/required-variable",
                format!("`{path}` requires the variable `{name}`, which has no value{told}"),
            )
            .at(ctx.at(span), "required here");
            diagnostic = match nearest(&name, environment.keys().map(String::as_str)) {
                Some(known) if known != name => diagnostic.help(format!("did you mean `{known}`?")),
                _ => diagnostic.help(format!("set it in the environment or in `.env`: `{name}=…`")),
            };
            ctx.push(diagnostic);
            None
        }
        Err(Problem::TooLong) => {
            let message = format!("the values make `{path}` too long");
            ctx.error("compose/too-big", message, span, "in this text");
            None
        }
        Err(Problem::TooDeep) => {
            let message = format!("`{path}` nests too many defaults");
            ctx.error("compose/too-deep", message, span, "in this text");
            None
        }
    }
}

fn drop_version(project: &mut Node, ctx: &mut Context<'_>) {
    let Some(map) = project.as_map_mut() else { return };
    if let Some(version) = map.shift_remove("version") {
        let diagnostic = Diagnostic::warning(
            "compose/obsolete-version",
            "the attribute `version` is obsolete and has no effect",
        )
        .at(ctx.at(version.key_place()), "not used")
        .help("remove this line");
        ctx.push(diagnostic);
    }
}

/// Variables that are named without a value take it from outside.
fn resolve_environment(project: &mut Node, environment: &Environment) {
    let services = project.get_mut("services").and_then(Node::as_map_mut);
    for service in services.into_iter().flat_map(|services| services.values_mut()) {
        let Some(variables) = service.get_mut("environment") else { continue };
        match &mut variables.value {
            Value::Map(map) => {
                for (name, value) in map {
                    if let (Value::Null, Some(found)) = (&value.value, environment.get(name)) {
                        value.value = Value::Text(found.clone());
                        value.interpolated = true;
                    }
                }
            }
            Value::List(items) => {
                for item in items {
                    let Some(found) = item.as_text().and_then(|name| environment.get(name)) else {
                        continue;
                    };
                    let line = format!("{}={found}", item.as_text().unwrap_or_default());
                    item.value = Value::Text(line);
                    item.interpolated = true;
                }
            }
            _ => {}
        }
    }
}

/// One step of a chain of `extends`.
#[derive(Clone, PartialEq)]
struct Step {
    file: PathBuf,
    service: String,
    place: Span,
}

/// Puts every service of the layer on top of what it extends.
fn apply_extends(
    layer: &mut Node,
    file: &Path,
    scope: &Scope,
    marks: &Marks,
    ctx: &mut Context<'_>,
) {
    let Some(services) = layer.get_mut("services").and_then(Node::as_map_mut) else { return };
    let names: Vec<String> = services.keys().cloned().collect();
    let mut chain = Vec::new();
    for name in names {
        extend_service(&name, services, file, &scope.directory, scope, marks, &mut chain, ctx);
        chain.clear();
    }
}

#[allow(clippy::too_many_arguments)]
fn extend_service(
    name: &str,
    services: &mut Map,
    file: &Path,
    directory: &Path,
    scope: &Scope,
    marks: &Marks,
    chain: &mut Vec<Step>,
    ctx: &mut Context<'_>,
) {
    let Some(service) = services.get(name) else { return };
    let Some(extends) = service.get("extends") else { return };
    let place = extends.key_place();
    let named = extends.get("service").unwrap_or(extends).span;
    let file_named = extends.get("file").map_or(place, |file| file.span);
    let (wanted, from) = match &extends.value {
        Value::Text(wanted) => (wanted.clone(), None),
        Value::Map(map) => match map.get("service").and_then(Node::as_text) {
            Some(wanted) => {
                (wanted.to_string(), map.get("file").and_then(Node::as_text).map(str::to_string))
            }
            // The schema says what is wrong.
            None => return,
        },
        _ => return,
    };
    let step = Step { file: file.to_path_buf(), service: name.to_string(), place };
    let repeated =
        chain.iter().any(|other| other.file == step.file && other.service == step.service);
    chain.push(step);
    if repeated || chain.len() > MAX_EXTENDS {
        report_cycle(chain, ctx);
        drop_extends(services, name);
        return;
    }
    let base = match from {
        Some(from) => {
            let path = clean(&directory.join(&from));
            base_from_file(&wanted, &path, (named, file_named), scope, chain, ctx)
        }
        None if !services.contains_key(&wanted) => {
            let mut diagnostic = Diagnostic::error(
                "compose/unknown-extends",
                format!(
                    "`{name}` extends `{}`, which this file does not define",
                    ctx.shown(&wanted, named)
                ),
            )
            .at(ctx.at(named), "no such service");
            if let Some(known) = nearest(&wanted, services.keys().map(String::as_str)) {
                diagnostic = diagnostic.help(format!("did you mean `{known}`?"));
            }
            ctx.push(diagnostic);
            drop_extends(services, name);
            return;
        }
        None => {
            extend_service(&wanted, services, file, directory, scope, marks, chain, ctx);
            services.get(&wanted).cloned()
        }
    };
    chain.pop();
    let Some(mut base) = base else {
        drop_extends(services, name);
        return;
    };
    if base.is_null() {
        return;
    }
    if !ctx.budget.take(base.size(), 0) {
        ctx.error("compose/too-big", "too many services extend too much", place, "no room");
        ctx.incomplete = true;
        return;
    }
    for mark in marks {
        if let [section, marked, rest @ ..] = mark.as_slice()
            && section == "services"
            && marked == name
        {
            remove(&mut base, rest);
        }
    }
    let Some(over) = services.get(name).cloned() else { return };
    let (key, span) = (over.key, over.span);
    let mut path = vec!["services".to_string(), "x".to_string()];
    let mut merged = merge::merge(base, over, &mut path, ctx);
    (merged.key, merged.span) = (key, span);
    if let Some(map) = merged.as_map_mut() {
        map.shift_remove("extends");
    }
    services.insert(name.to_string(), merged);
}

fn drop_extends(services: &mut Map, name: &str) {
    if let Some(map) = services.get_mut(name).and_then(Node::as_map_mut) {
        map.shift_remove("extends");
    }
}

fn report_cycle(chain: &[Step], ctx: &mut Context<'_>) {
    let names: Vec<String> = chain.iter().map(|step| format!("`{}`", step.service)).collect();
    let Some(last) = chain.last() else { return };
    let mut diagnostic = Diagnostic::error(
        "compose/extends-cycle",
        format!("services extend each other in a circle: {}", names.join(" → ")),
    )
    .at(ctx.at(last.place), "closes the circle");
    for step in chain.iter().take(chain.len() - 1).take(8) {
        diagnostic = diagnostic.related(format!("`{}` extends", step.service), ctx.at(step.place));
    }
    // The same circle is found from each of its services.
    let known = ctx.diagnostics.iter().any(|other| {
        other.code == diagnostic.code && other.message.len() == diagnostic.message.len()
    });
    if !known {
        ctx.push(diagnostic);
    }
}

/// The service `wanted` of another file, with what it extends itself.
fn base_from_file(
    wanted: &str,
    path: &Path,
    (named, place): (Span, Span),
    scope: &Scope,
    chain: &mut Vec<Step>,
    ctx: &mut Context<'_>,
) -> Option<Node> {
    let shown = ctx.shown_path(path, place);
    let directory = path.parent().unwrap_or(path).to_path_buf();
    let key = (path.to_path_buf(), Rc::as_ptr(&scope.environment) as usize);
    let (mut file, marks) = match ctx.extended.remove(&key) {
        Some(known) => known,
        None => {
            if let Err(error) = ctx.read(path) {
                let message = format!("cannot read `{shown}`: {error}");
                ctx.error(error.code(), message, place, "named here");
                ctx.incomplete = true;
                return None;
            }
            read_extended(path, scope, ctx)?
        }
    };
    let base =
        extended_service(&mut file, wanted, path, (&shown, named), scope, &marks, chain, ctx);
    ctx.extended.insert(key, (file, marks));
    let base = base?;
    let mut alone = Node::new(Value::Map(Map::new()), Span::default());
    let mut section = Map::new();
    section.insert(wanted.to_string(), base);
    if let Some(map) = alone.as_map_mut() {
        map.insert("services".into(), Node::new(Value::Map(section), Span::default()));
    }
    paths::resolve(&mut alone, &directory, ctx);
    alone.get("services")?.get(wanted).cloned()
}

/// The services of a file, interpolated and in long syntax.
fn read_extended(path: &Path, scope: &Scope, ctx: &mut Context<'_>) -> Option<(Node, Marks)> {
    let mut file = Node::new(Value::Map(Map::new()), Span::default());
    let mut marks = Marks::new();
    for document in take_documents(path, ctx) {
        let (layer, more) = prepare(document, path, scope, ctx)?;
        for mark in &more {
            remove(&mut file, mark);
        }
        marks.extend(more);
        file = merge::merge(file, layer, &mut Vec::new(), ctx);
        unique::project(&mut file, ctx);
        canonical::expand(&mut file, ctx);
        unique::project(&mut file, ctx);
    }
    Some((file, marks))
}

#[allow(clippy::too_many_arguments)]
fn extended_service(
    file: &mut Node,
    wanted: &str,
    path: &Path,
    (shown, place): (&str, Span),
    scope: &Scope,
    marks: &Marks,
    chain: &mut Vec<Step>,
    ctx: &mut Context<'_>,
) -> Option<Node> {
    let Some(services) = file.get_mut("services").and_then(Node::as_map_mut) else {
        let message = format!("`{shown}` defines no services");
        ctx.error("compose/unknown-extends", message, place, "extends from here");
        return None;
    };
    if !services.contains_key(wanted) {
        let mut diagnostic = Diagnostic::error(
            "compose/unknown-extends",
            format!("`{shown}` does not define the service `{}`", ctx.shown(wanted, place)),
        )
        .at(ctx.at(place), "extends from here");
        if let Some(known) = nearest(wanted, services.keys().map(String::as_str)) {
            diagnostic = diagnostic.help(format!("did you mean `{known}`?"));
        }
        ctx.push(diagnostic);
        return None;
    }
    let directory = path.parent().unwrap_or(path);
    extend_service(wanted, services, path, directory, scope, marks, chain, ctx);
    services.get(wanted).cloned()
}

/// Reads what the layer includes and adds it.
fn apply_include(layer: &mut Node, scope: &Scope, including: &[PathBuf], ctx: &mut Context<'_>) {
    let Some(include) = layer.as_map_mut().and_then(|map| map.shift_remove("include")) else {
        return;
    };
    // Checked here, for it is gone when the project is.
    let mut alone = Map::new();
    alone.insert("include".into(), include);
    let mut alone = Node::new(Value::Map(alone), Span::default());
    validate::project(&mut alone, ctx);
    let Some(Value::List(entries)) =
        alone.as_map_mut().and_then(|map| map.shift_remove("include")).map(|node| node.value)
    else {
        return;
    };
    for entry in entries {
        if let Some(included) = load_include(&entry, scope, including, ctx) {
            import(included, layer, ctx);
        }
    }
}

fn texts(node: Option<&Node>) -> Vec<&Node> {
    match node {
        Some(node) => match &node.value {
            Value::List(items) => items.iter().collect(),
            Value::Text(_) => vec![node],
            _ => Vec::new(),
        },
        None => Vec::new(),
    }
}

fn load_include(
    entry: &Node,
    scope: &Scope,
    including: &[PathBuf],
    ctx: &mut Context<'_>,
) -> Option<Node> {
    let paths = if entry.as_text().is_some() { vec![entry] } else { texts(entry.get("path")) };
    let files: Vec<PathBuf> = paths
        .iter()
        .filter_map(|path| path.as_text())
        .map(|path| clean(&scope.directory.join(path)))
        .collect();
    let main = files.first()?.clone();
    let place = paths.first()?.place();
    ctx.includes += 1;
    if ctx.includes > MAX_INCLUDED {
        ctx.error("compose/too-big", "too many files are included", place, "one too many");
        ctx.incomplete = true;
        return None;
    }
    if including.contains(&main) || including.len() > MAX_INCLUDES {
        let circle: Vec<String> = including
            .iter()
            .map(|path| format!("`{}`", ctx.display(path).display()))
            .chain([format!("`{}`", ctx.shown_path(&main, place))])
            .collect();
        let message = format!("files include each other in a circle: {}", circle.join(" → "));
        ctx.error("compose/include-cycle", message, place, "closes the circle");
        ctx.incomplete = true;
        return None;
    }
    for (file, path) in files.iter().zip(&paths) {
        if let Err(error) = ctx.read(file) {
            let shown = ctx.shown_path(file, path.place());
            let message = format!("cannot read `{shown}`: {error}");
            ctx.error(error.code(), message, path.place(), "included here");
            ctx.incomplete = true;
            return None;
        }
    }
    let directory = match entry.text_at("project_directory") {
        Some(directory) if !directory.is_empty() => clean(&scope.directory.join(directory)),
        _ => main.parent().unwrap_or(&main).to_path_buf(),
    };
    let environment = include_environment(entry, &directory, scope, ctx)?;
    // A project directory that is none counts as a file: then its folder is meant.
    let directory = match directory.parent() {
        Some(parent) if !ctx.files.is_dir(&directory) => parent.to_path_buf(),
        _ => directory,
    };
    let inner = Scope { directory, environment: Rc::new(environment) };
    Some(load_files(&files, &inner, including, ctx))
}

/// The variables of an included project: those outside, then its own files'.
fn include_environment(
    entry: &Node,
    directory: &Path,
    scope: &Scope,
    ctx: &mut Context<'_>,
) -> Option<Environment> {
    let mut environment = (*scope.environment).clone();
    let listed = texts(entry.get("env_file"));
    let mut files: Vec<(PathBuf, Span)> = Vec::new();
    if listed.is_empty() {
        let default = directory.join(".env");
        if ctx.files.exists(&default) && !ctx.files.is_dir(&default) {
            files.push((default, entry.place()));
        }
    }
    for node in listed {
        match node.as_text() {
            Some("/dev/null") | None => {}
            Some(path) => files.push((clean(&scope.directory.join(path)), node.place())),
        }
    }
    let mut variables = dotenv::Variables::new();
    for (file, place) in files {
        read_variables(&file, place, &scope.environment, &mut variables, ctx)?;
    }
    for (name, value) in variables {
        environment.entry(name).or_insert(value);
    }
    Some(environment)
}

/// Adds the variables of a file; `None` if it was reported as unreadable.
pub(crate) fn read_variables(
    file: &Path,
    place: Span,
    outside: &Environment,
    variables: &mut dotenv::Variables,
    ctx: &mut Context<'_>,
) -> Option<()> {
    let shown = ctx.shown_path(file, place);
    let text = match ctx.read(file) {
        Ok(text) => text,
        Err(error) => {
            let message = format!("cannot read `{shown}`: {error}");
            ctx.error(error.code(), message, place, "named here");
            return None;
        }
    };
    let lookup = |name: &str| outside.get(name).cloned();
    match dotenv::parse(&text, variables, &lookup) {
        Ok(()) => Some(()),
        Err(error) => {
            dotenv_error(&shown, &error, place, ctx);
            None
        }
    }
}

/// Reports a file of variables that is not of the form, without showing a line of it.
pub(crate) fn dotenv_error(
    shown: &str,
    error: &dotenv::DotenvError,
    place: Span,
    ctx: &mut Context<'_>,
) {
    let message = format!("`{shown}` line {}: {}", error.line, error.message);
    ctx.error("compose/bad-env-file", message, place, "named here");
}

/// Adds an included project; a second definition must be the same.
fn import(mut included: Node, layer: &mut Node, ctx: &mut Context<'_>) {
    for section in ["services", "volumes", "networks", "secrets", "configs", "models"] {
        let Some(map) = included.as_map_mut() else { return };
        let Some(Value::Map(entries)) = map.shift_remove(section).map(|node| node.value) else {
            continue;
        };
        let Some(target) = layer.as_map_mut() else { return };
        let target = target
            .entry(section.to_string())
            .or_insert_with(|| Node::new(Value::Map(Map::new()), Span::default()));
        if target.is_null() {
            target.value = Value::Map(Map::new());
        }
        let Some(target) = target.as_map_mut() else { continue };
        for (name, entry) in entries {
            match target.get(&name) {
                Some(there) if !there.same(&entry) => {
                    let there = there.key_place();
                    let diagnostic = Diagnostic::error(
                        "compose/include-conflict",
                        format!("`{section}.{name}` is defined here and in an included file"),
                    )
                    .at(ctx.at(there), "defined here")
                    .related("and in an included file", ctx.at(entry.key_place()));
                    ctx.push(diagnostic);
                }
                Some(_) => {}
                None => {
                    target.insert(name, entry);
                }
            }
        }
    }
}
