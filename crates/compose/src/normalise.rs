//! What a project means without saying it: names, the default network, dependencies.

use std::collections::HashSet;

use indexmap::IndexMap;

use crate::context::Environment;
use crate::model::{Condition, Dependency, Extensions, Project, Service};

/// Adds what is implied.
pub(crate) fn project(project: &mut Project, environment: &Environment) {
    networks(project);
    for service in project.services.values_mut() {
        normalise_service(service, environment);
    }
    names(project);
}

fn networks(project: &mut Project) {
    let mut uses_default = false;
    for service in project.services.values_mut() {
        if service.network_mode.is_some()
            || service.provider.is_some() && service.networks.is_empty()
        {
            continue;
        }
        if service.networks.is_empty() {
            service.networks.insert("default".into(), None);
        }
        uses_default |= service.networks.contains_key("default");
    }
    if uses_default {
        project.networks.entry("default".into()).or_default();
    }
}

fn normalise_service(service: &mut Service, environment: &Environment) {
    if service.pull_policy.as_deref() == Some("if_not_present") {
        service.pull_policy = Some("missing".into());
    }
    if let Some(build) = &mut service.build {
        if build.context.is_none() {
            build.context = Some(".".into());
        }
        if build.dockerfile.is_none() && build.dockerfile_inline.is_none() {
            build.dockerfile = Some("Dockerfile".into());
        }
        build.args.retain(|name, value| {
            if value.is_none() {
                *value = environment.get(name).cloned();
            }
            value.is_some()
        });
    }
    for (name, value) in &mut service.environment {
        if value.is_none() {
            *value = environment.get(name).cloned();
        }
    }
    implied_dependencies(service);
}

fn implied_dependencies(service: &mut Service) {
    let links = service.links.iter().map(|link| {
        let parts: Vec<&str> = link.split(':').collect();
        (if parts.len() == 2 { parts[0] } else { link.as_str() }, true)
    });
    let modes = [&service.network_mode, &service.ipc, &service.pid, &service.uts, &service.cgroup];
    let modes = modes
        .into_iter()
        .filter_map(|mode| mode.as_deref()?.strip_prefix("service:"))
        .map(|name| (name, true));
    let volumes_from = service
        .volumes_from
        .iter()
        .filter(|from| !from.starts_with("container:"))
        .map(|from| (from.split(':').next().unwrap_or(from), false));
    let implied: Vec<(String, bool)> = links
        .chain(modes)
        .chain(volumes_from)
        .map(|(name, restart)| (name.to_string(), restart))
        .collect();
    for (name, restart) in implied {
        service.depends_on.entry(name).or_insert_with(|| Dependency {
            condition: Condition::Started,
            restart,
            required: true,
            extensions: Extensions::new(),
        });
    }
}

/// Resources without a name are named after the project and their key.
fn names(project: &mut Project) {
    let prefix = project.name.clone();
    let full = |key: &str, external: bool| {
        if external { key.to_string() } else { format!("{prefix}_{key}") }
    };
    for (key, network) in &mut project.networks {
        network.name.get_or_insert_with(|| full(key, network.external));
    }
    for (key, volume) in &mut project.volumes {
        volume.name.get_or_insert_with(|| full(key, volume.external));
    }
    for objects in [&mut project.secrets, &mut project.configs] {
        for (key, object) in objects {
            object.name.get_or_insert_with(|| full(key, object.external));
        }
    }
}

/// Whether a service is asked for by the active profiles.
pub(crate) fn is_active(service: &Service, profiles: &[String]) -> bool {
    service.profiles.is_empty()
        || profiles.iter().any(|profile| profile == "*" || service.profiles.contains(profile))
}

/// Leaves these services, what they depend on, and the resources of all these.
pub(crate) fn select(project: &mut Project, wanted: &[String]) {
    let mut selected: HashSet<String> = HashSet::new();
    let mut open: Vec<String> = wanted.to_vec();
    while let Some(name) = open.pop() {
        if let Some(service) = project.services.get(&name)
            && selected.insert(name)
        {
            open.extend(service.depends_on.keys().cloned());
        }
    }
    project.services.retain(|name, _| selected.contains(name));
    prune(project);
}

/// Drops the resources that no service uses.
pub(crate) fn prune(project: &mut Project) {
    let mut networks = HashSet::new();
    let (mut volumes, mut models) = (HashSet::new(), HashSet::new());
    let (mut secrets, mut configs) = (HashSet::new(), HashSet::new());
    for service in project.services.values() {
        networks.extend(service.networks.keys());
        models.extend(service.models.keys());
        volumes.extend(service.volumes.iter().filter_map(|mount| mount.source.as_ref()));
        let built = service.build.iter().flat_map(|build| &build.secrets);
        secrets.extend(service.secrets.iter().chain(built).filter_map(|used| used.source.as_ref()));
        configs.extend(service.configs.iter().filter_map(|used| used.source.as_ref()));
    }
    project.networks.retain(|name, _| networks.contains(name));
    project.volumes.retain(|name, _| volumes.contains(name));
    project.secrets.retain(|name, _| secrets.contains(name));
    project.configs.retain(|name, _| configs.contains(name));
    project.models.retain(|name, _| models.contains(name));
}

/// Puts the variables of files below those of the service.
pub(crate) fn join_variables(
    files: IndexMap<String, String>,
    service: &mut IndexMap<String, Option<String>>,
) {
    let mut joined: IndexMap<String, Option<String>> =
        files.into_iter().map(|(name, value)| (name, Some(value))).collect();
    joined.extend(std::mem::take(service));
    *service = joined;
}
