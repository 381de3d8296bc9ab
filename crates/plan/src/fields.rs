//! Which attributes of a service make its containers what they are.

use serde_json::Value;
use shiplap_compose::model::{Project, Service};
use shiplap_model::{Fields, InjectedFile};

/// Attributes that say how a service is deployed, not what its containers are. A change of these
/// alone replaces nothing: the image is compared by its id, ports belong to the edge, and the
/// rest is read afresh by each deployment.
const NOT_OF_THE_CONTAINER: &[&str] = &[
    "attach",
    "build",
    "configs",
    "depends_on",
    "deploy",
    "develop",
    "env_file",
    "expose",
    "extends",
    "image",
    "label_file",
    "ports",
    "post_start",
    "pre_stop",
    "profiles",
    "pull_policy",
    "scale",
    "secrets",
    "stop_grace_period",
];

/// Maps whose entries are fields of their own, so that a plan can name the one that changed.
const BY_ENTRY: &[(&str, &str)] = &[
    ("environment", "environment"),
    ("labels", "label"),
    ("sysctls", "sysctls"),
    ("ulimits", "ulimits"),
    ("annotations", "annotations"),
];

/// The fields of a service. `files` are those that get copied into its containers, and `hosted`
/// the contents of the files that its configs and secrets mount from the host, by target.
///
/// # Panics
/// If a service cannot be written as JSON, which its own types rule out.
#[must_use]
pub fn fields_of(
    project: &Project,
    service: &Service,
    files: &[InjectedFile],
    hosted: &[(String, Vec<u8>)],
) -> Fields {
    let mut fields = Fields::new();
    let Value::Object(attributes) = serde_json::to_value(service).expect("a service is JSON")
    else {
        unreachable!("a service is a map")
    };
    for (name, value) in attributes {
        if NOT_OF_THE_CONTAINER.contains(&name.as_str()) || name.starts_with("x-") {
            continue;
        }
        match (name.as_str(), value) {
            ("volumes", Value::Array(mounts)) => volumes(&mut fields, project, mounts),
            ("networks", Value::Object(map)) => networks(&mut fields, project, map),
            (name, Value::Object(map)) if by_entry(name).is_some() => {
                let prefix = by_entry(name).expect("just asked");
                for (key, value) in map {
                    fields.set(format!("{prefix}.{key}"), value);
                }
            }
            (name, value) => fields.set(name, value),
        }
    }
    deploy(&mut fields, service);
    ports_of_the_engine(&mut fields, service);
    for file in files {
        let digest = file.content.expose();
        fields.set(
            format!("file {}", file.target),
            serde_json::json!([file.uid, file.gid, file.mode, String::from_utf8_lossy(digest)]),
        );
    }
    for (target, content) in hosted {
        fields.set(format!("file {target}"), String::from_utf8_lossy(content).into_owned());
    }
    fields
}

fn by_entry(name: &str) -> Option<&'static str> {
    BY_ENTRY.iter().find(|(key, _)| *key == name).map(|(_, prefix)| *prefix)
}

fn volumes(fields: &mut Fields, project: &Project, mounts: Vec<Value>) {
    for mut mount in mounts {
        let target = mount["target"].as_str().unwrap_or_default().to_owned();
        if mount["type"] == "volume" {
            let named = mount["source"].as_str().and_then(|key| project.volumes.get(key));
            if let Some(name) = named.and_then(|volume| volume.name.clone()) {
                mount["source"] = name.into();
            }
        }
        fields.set(format!("volumes.{target}"), mount);
    }
}

fn networks(fields: &mut Fields, project: &Project, map: serde_json::Map<String, Value>) {
    for (key, attachment) in map {
        let name = project.networks.get(&key).and_then(|n| n.name.clone()).unwrap_or_default();
        fields.set(format!("networks.{key}"), serde_json::json!([name, attachment]));
    }
}

/// Of `deploy` only what ends in the container: resources and the restart policy.
fn deploy(fields: &mut Fields, service: &Service) {
    let Some(deploy) = &service.deploy else { return };
    for (name, value) in [
        ("resources", serde_json::to_value(&deploy.resources)),
        ("restart_policy", serde_json::to_value(&deploy.restart_policy)),
    ] {
        let value = value.expect("plain values are JSON");
        if !value.is_null() {
            fields.set(name, value);
        }
    }
}

/// Published ports that only the engine can carry are part of the container.
fn ports_of_the_engine(fields: &mut Fields, service: &Service) {
    for port in &service.ports {
        let protocol = port.protocol.as_deref().unwrap_or("tcp");
        if protocol != "tcp" {
            let host = (&port.host_ip, &port.published);
            fields.set(
                format!("ports.{}/{protocol}", port.target),
                serde_json::to_value(host).expect("strings are JSON"),
            );
        }
    }
}
