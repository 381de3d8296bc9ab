//! What the reference leaves out and writes out when it prints a project.

use serde_json::{Map, Value as Json};

/// Mappings from names that the user chose to objects.
const NAMED: &[&str] =
    &["services", "networks", "volumes", "secrets", "configs", "models", "depends_on", "ulimits"];
/// Mappings whose keys and values are the user's.
const FREE: &[&str] = &[
    "environment",
    "labels",
    "annotations",
    "args",
    "options",
    "driver_opts",
    "sysctls",
    "storage_opt",
    "additional_contexts",
    "aux_addresses",
];
/// Attributes for which zero and false differ from nothing.
const KEPT: &[&str] = &[
    "init",
    "attach",
    "enable_ipv4",
    "enable_ipv6",
    "required",
    "retries",
    "replicas",
    "scale",
    "parallelism",
    "max_attempts",
];
/// Sizes, of which zero is nothing.
const SIZES: &[&str] = &[
    "mem_limit",
    "mem_reservation",
    "mem_swappiness",
    "memswap_limit",
    "shm_size",
    "memory",
    "size",
];

/// Makes a project look as the reference prints it. Its JSON has no `x-…` below the top.
pub(crate) fn style(project: &mut Json, json: bool) {
    let Json::Object(sections) = project else { return };
    for (section, value) in sections.iter_mut() {
        if section.starts_with("x-") {
            continue;
        }
        for (_, resource) in value.as_object_mut().into_iter().flatten() {
            if let Json::Object(map) = resource {
                object(map, json);
                write_out(section, map);
            }
        }
    }
}

fn write_out(section: &str, map: &mut Map<String, Json>) {
    let empty = || Json::Object(Map::new());
    match section {
        "services" => {
            // A required file is its path.
            for file in map.get_mut("env_file").and_then(Json::as_array_mut).into_iter().flatten() {
                let required = file.get("required").and_then(Json::as_bool) == Some(true);
                if let (true, None) = (required, file.get("format")) {
                    *file = file["path"].take();
                }
            }
            for key in ["command", "entrypoint"] {
                map.entry(key).or_insert(Json::Null);
            }
            let watches = map
                .get_mut("develop")
                .and_then(|develop| develop.get_mut("watch"))
                .and_then(Json::as_array_mut);
            for watch in watches.into_iter().flatten().filter_map(Json::as_object_mut) {
                if let Json::Object(exec) = watch.entry("exec").or_insert_with(empty) {
                    exec.entry("command").or_insert(Json::Null);
                }
            }
            if let Some(deploy) = map.get_mut("deploy").and_then(Json::as_object_mut) {
                deploy.entry("resources").or_insert_with(empty);
                deploy.entry("placement").or_insert_with(empty);
            }
        }
        "networks" => {
            let ipam = map.entry("ipam").or_insert_with(empty);
            if let Json::Object(ipam) = ipam {
                ipam.shift_remove("options");
            }
        }
        _ => {}
    }
}

fn object(map: &mut Map<String, Json>, json: bool) {
    map.retain(|key, value| {
        if key.starts_with("x-") {
            return !json;
        }
        let nothing = match &*value {
            Json::Bool(value) => !value,
            Json::Number(value) => value.as_f64() == Some(0.0),
            Json::String(text) => text.is_empty() || text == "0" && SIZES.contains(&key.as_str()),
            Json::Null | Json::Array(_) | Json::Object(_) => false,
        };
        !nothing || KEPT.contains(&key.as_str())
    });
    for value in map.values_mut() {
        // 2.0 is printed as 2.
        if let Some(whole) =
            value.as_f64().filter(|value| value.fract() == 0.0 && value.abs() < 1e15)
        {
            *value = Json::from(whole as i64);
        }
    }
    for (key, value) in map.iter_mut() {
        if key.starts_with("x-") || FREE.contains(&key.as_str()) {
            continue;
        }
        let named = NAMED.contains(&key.as_str()) && value.is_object();
        match value {
            Json::Object(names) if named => {
                for inner in names.values_mut().filter_map(Json::as_object_mut) {
                    object(inner, json);
                }
            }
            Json::Object(inner) => object(inner, json),
            Json::Array(items) => {
                items.iter_mut().filter_map(Json::as_object_mut).for_each(|map| object(map, json));
            }
            _ => {}
        }
    }
}
