//! What `config --no-interpolate` shows: the merged files with their variables, before any value
//! has a type.

use serde_json::{Map, Value as Json, json};

use crate::context::Environment;

type Object = Map<String, Json>;

/// Adds what is implied, as far as it can be told without the variables' values.
pub(crate) fn normalise(project: &mut Object, environment: &Environment) {
    let mut uses_default = false;
    for (_, service) in
        project.get_mut("services").and_then(Json::as_object_mut).into_iter().flatten()
    {
        let Json::Object(service) = service else { continue };
        uses_default |= default_network(service);
        normalise_service(service, environment);
    }
    if uses_default {
        let networks = project.entry("networks").or_insert_with(|| json!({}));
        if let Json::Object(networks) = networks {
            networks.entry("default").or_insert(Json::Null);
        }
    }
    let name = project.get("name").and_then(Json::as_str).unwrap_or_default().to_string();
    for section in ["networks", "volumes", "configs", "secrets"] {
        for (key, resource) in
            project.get_mut(section).and_then(Json::as_object_mut).into_iter().flatten()
        {
            if resource.is_null() {
                *resource = json!({});
            }
            let Json::Object(resource) = resource else { continue };
            let external = resource.get("external").is_some_and(is_true);
            let full = if external { key.clone() } else { format!("{name}_{key}") };
            resource.entry("name").or_insert_with(|| Json::String(full));
        }
    }
}

fn is_true(value: &Json) -> bool {
    value.as_bool() == Some(true) || matches!(value.as_str(), Some("true" | "True" | "TRUE" | "1"))
}

/// Attaches a service without networks to the default one; true if it is attached.
fn default_network(service: &mut Object) -> bool {
    if service.contains_key("network_mode") {
        return false;
    }
    let networks = service.entry("networks").or_insert_with(|| json!({}));
    let Json::Object(networks) = networks else { return false };
    if networks.is_empty() {
        networks.insert("default".into(), Json::Null);
    }
    networks.contains_key("default")
}

fn normalise_service(service: &mut Object, environment: &Environment) {
    if service.get("pull_policy").and_then(Json::as_str) == Some("if_not_present") {
        service.insert("pull_policy".into(), "missing".into());
    }
    if let Some(build) = service.get_mut("build").and_then(Json::as_object_mut) {
        if !build.contains_key("dockerfile") && !build.contains_key("dockerfile_inline") {
            build.insert("dockerfile".into(), "Dockerfile".into());
        }
        if let Some(arguments) = build.get_mut("args") {
            inherit(arguments, environment, false);
        }
    }
    if let Some(variables) = service.get_mut("environment") {
        inherit(variables, environment, true);
    }
    let mut implied: Vec<(String, bool)> = Vec::new();
    for link in texts(service.get("links")) {
        let parts: Vec<&str> = link.split(':').collect();
        implied.push(((if parts.len() == 2 { parts[0] } else { link }).to_string(), true));
    }
    for mode in ["network_mode", "ipc", "pid", "uts", "cgroup"] {
        let other =
            service.get(mode).and_then(Json::as_str).and_then(|mode| mode.strip_prefix("service:"));
        implied.extend(other.map(|name| (name.to_string(), true)));
    }
    for from in texts(service.get("volumes_from")) {
        if !from.starts_with("container:") {
            implied.push((from.split(':').next().unwrap_or(from).to_string(), false));
        }
    }
    if implied.is_empty() {
        return;
    }
    let dependencies = service.entry("depends_on").or_insert_with(|| json!({}));
    for (name, restart) in implied {
        if let Json::Object(dependencies) = dependencies {
            dependencies.entry(name).or_insert_with(
                || json!({"condition": "service_started", "restart": restart, "required": true}),
            );
        }
    }
}

fn texts(list: Option<&Json>) -> impl Iterator<Item = &str> {
    list.and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str)
}

/// Gives bare names the value they have outside; others are kept or dropped.
fn inherit(variables: &mut Json, environment: &Environment, keep: bool) {
    match variables {
        Json::Object(map) => map.retain(|name, value| {
            if let (Json::Null, Some(found)) = (&*value, environment.get(name)) {
                *value = Json::String(found.clone());
            }
            keep || !value.is_null()
        }),
        Json::Array(lines) => lines.retain_mut(|line| {
            let bare = line.as_str().filter(|line| !line.contains('=')).map(str::to_string);
            let Some(name) = bare else { return true };
            match environment.get(&name) {
                Some(found) => {
                    *line = Json::String(format!("{name}={found}"));
                    true
                }
                None => keep,
            }
        }),
        _ => {}
    }
}
