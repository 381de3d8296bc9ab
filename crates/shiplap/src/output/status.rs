//! What is running.

use std::fmt::Write as _;

use serde_json::{Value, json};
use shiplap_execute::app::{ServiceStatus, Status};
use shiplap_model::{ContainerState, Health, ObservedContainer, RouterState, Scope};

use super::table::columns;
use super::time;

/// For a person.
pub fn text(scope: &Scope, status: &Status) -> String {
    let mut text = format!("{scope}");
    if let Some(current) = &status.current {
        let _ = write!(
            text,
            "  deployment {} ({}) by {} at {}",
            current.number,
            current.kind,
            current.who,
            time::moment(current.started_ms)
        );
    }
    text.push('\n');
    let mut rows = Vec::new();
    for service in &status.services {
        if service.replicas.is_empty() {
            let what = if service.wanted.is_some() { "not deployed" } else { "gone" };
            rows.push(vec![service.service.clone(), what.to_owned()]);
        }
        for container in &service.replicas {
            rows.push(vec![
                container.name.clone(),
                state(container),
                container.image_reference.clone(),
                short(&container.image_id),
                ports(status.router.as_ref(), service, container),
            ]);
        }
    }
    text.push_str(&columns(&rows));
    for service in &status.services {
        let running = service.replicas.iter().filter(|c| c.state.is_running()).count();
        if let Some(wanted) = service.wanted
            && !service.replicas.is_empty()
            && running < wanted as usize
            && !service.replicas.iter().any(|c| c.state == ContainerState::Exited(0))
        {
            let _ = writeln!(text, "! {}: {running} of {wanted} replicas run", service.service);
        }
        for container in &service.aside {
            let _ = writeln!(text, "  aside: {} ({})", container.name, state(container));
        }
    }
    if let Some(unfinished) = &status.unfinished {
        text.push_str(&super::interrupted::text(unfinished, status.holder.as_ref()));
    } else if let Some(holder) = &status.holder {
        let since = time::moment(holder.since_ms);
        let age = time::span((shiplap_execute::now_ms() - holder.since_ms).max(0));
        let _ = writeln!(text, "! {} is deploying since {since}, for {age}", holder.holder);
    }
    text.push_str(&routing(status));
    match &status.router {
        Some(router) if router.version.is_empty() => {
            text.push_str("! the edge does not answer; `shiplap deploy` starts it\n");
        }
        Some(router) => {
            let _ = writeln!(text, "edge {}, table {}", router.version, router.generation);
        }
        None => text.push_str("no edge\n"),
    }
    text
}

/// Its routes, and whether it is kept from being used.
fn routing(status: &Status) -> String {
    let mut text = String::new();
    let Some(router) = &status.router else { return text };
    let routes = router.table.routes.iter().map(|route| {
        vec![format!("  {route}"), format!("→ {}", route.to), route.policy.words().join(", ")]
    });
    text.push_str(&columns(&routes.collect::<Vec<_>>()));
    let guard = router.table.guard.words();
    if !guard.is_empty() {
        let _ = writeln!(text, "  published ports: {}", guard.join(", "));
    }
    if let Some(page) = &router.maintenance {
        let _ = match page.allow.as_slice() {
            [] => writeln!(text, "! in maintenance: everybody gets the page"),
            allowed => {
                writeln!(text, "! in maintenance: all but {} get the page", allowed.join(", "))
            }
        };
    }
    let held: Vec<_> = router.pools.iter().filter(|(_, pool)| pool.held).collect();
    if !held.is_empty() && status.unfinished.is_none() && status.holder.is_none() {
        let waiting: u64 = held.iter().map(|(_, pool)| pool.waiting).sum();
        let _ =
            writeln!(text, "! requests are held, {waiting} wait: `shiplap resume` lets them go on");
    }
    text
}

fn state(container: &ObservedContainer) -> String {
    let state = match container.state {
        ContainerState::Created => "created".to_owned(),
        ContainerState::Running => match container.started_ms {
            Some(at) => format!("up {}", time::span((shiplap_execute::now_ms() - at).max(0))),
            None => "up".to_owned(),
        },
        ContainerState::Paused => "paused".to_owned(),
        ContainerState::Restarting => "restarting".to_owned(),
        ContainerState::Exited(code) => format!("exited with {code}"),
        ContainerState::Dead => "dead".to_owned(),
    };
    match container.health {
        Some(health) if container.state.is_running() => format!("{state}, {}", word(health)),
        _ => state,
    }
}

const fn word(health: Health) -> &'static str {
    match health {
        Health::Starting => "health not known yet",
        Health::Healthy => "healthy",
        Health::Unhealthy => "UNHEALTHY",
    }
}

fn ports(
    router: Option<&RouterState>,
    service: &ServiceStatus,
    container: &ObservedContainer,
) -> String {
    let mut ports: Vec<String> = router
        .into_iter()
        .flat_map(|router| &router.listeners)
        .filter(|listener| listener.pool.service == service.service)
        .map(|listener| format!("{} → {}", listener.port, listener.pool.port))
        .collect();
    ports.extend(
        container
            .published
            .iter()
            .map(|port| format!("{} → {} (engine)", port.host_port, port.container_port)),
    );
    ports.sort();
    ports.dedup();
    ports.join(", ")
}

fn short(image_id: &str) -> String {
    image_id.trim_start_matches("sha256:").chars().take(12).collect()
}

/// For a program.
pub fn json(scope: &Scope, status: &Status) -> Value {
    json!({
        "version": 1,
        "project": scope.project,
        "environment": scope.environment,
        "deployment": status.current.as_ref().map(|current| current.number),
        "newest": status.newest.as_ref().map(super::history::brief),
        "unfinished": status.unfinished.as_ref().map(super::interrupted::json),
        "deploying": status.holder.as_ref().map(|holder| json!({
            "holder": holder.holder,
            "since": time::stamp(holder.since_ms),
        })),
        "services": status.services.iter().map(|service| json!({
            "service": service.service,
            "wanted": service.wanted,
            "replicas": service.replicas.iter().map(container).collect::<Vec<_>>(),
            "aside": service.aside.iter().map(container).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "edge": status.router.as_ref().map(|router| json!({
            "version": router.version,
            "generation": router.generation,
            "maintenance": router.maintenance.is_some(),
            "routes": router.table.routes.iter().map(|route| json!({
                "host": route.host,
                "path": route.path,
                "entries": route.entries,
                "to": route.to.to_string(),
                "policy": route.policy.words(),
            })).collect::<Vec<_>>(),
            "listeners": router.listeners.iter().map(|listener| json!({
                "address": listener.address.to_string(),
                "port": listener.port,
                "service": listener.pool.service,
                "container_port": listener.pool.port,
            })).collect::<Vec<_>>(),
            "pools": router.pools.iter().map(|(key, pool)| json!({
                "pool": key.to_string(),
                "held": pool.held,
                "waiting": pool.waiting,
                "replicas": pool.replicas.iter().map(|(replica, in_flight, streams)| json!({
                    "container": replica.container_id,
                    "address": replica.address.to_string(),
                    "in_flight": in_flight,
                    "streams": streams,
                })).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
        })),
    })
}

fn container(container: &ObservedContainer) -> Value {
    let state = match container.state {
        ContainerState::Created => "created",
        ContainerState::Running => "running",
        ContainerState::Paused => "paused",
        ContainerState::Restarting => "restarting",
        ContainerState::Exited(_) => "exited",
        ContainerState::Dead => "dead",
    };
    json!({
        "id": container.id,
        "name": container.name,
        "state": state,
        "health": container.health.map(word),
        "image": container.image_reference,
        "image_id": container.image_id,
        "deployment": container.deployment,
        "restarts": container.restarts,
    })
}
