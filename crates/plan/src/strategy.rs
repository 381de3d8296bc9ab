//! Start-first or stop-first, and why.

use shiplap_compose::model::{Mount, MountKind, Project, Service, UpdateOrder};
use shiplap_model::{Refusal, ServiceSpec, Strategy};

/// Paths of the host that containers share by nature: writing there is no second writer of data.
const SHARED_BY_NATURE: &[&str] = &[
    "/var/run/docker.sock",
    "/run/docker.sock",
    "/etc/localtime",
    "/etc/timezone",
    "/dev",
    "/sys",
    "/proc",
    "/lib/modules",
];

/// Images of which two on one volume destroy each other's data.
const ONE_WRITER: &[&str] = &[
    "postgres",
    "postgis",
    "timescaledb",
    "pgvector",
    "mysql",
    "mariadb",
    "percona",
    "mongo",
    "redis",
    "valkey",
    "rabbitmq",
    "elasticsearch",
    "opensearch",
    "clickhouse",
    "influxdb",
    "eclipse-mosquitto",
    "minio",
    "etcd",
    "meilisearch",
    "couchdb",
    "neo4j",
];

/// Decides how replicas of a service are replaced, with the reason that the plan shows.
///
/// # Errors
/// `two-writers` where the file asks for start-first and two replicas would write to one volume
/// of a known database.
pub(crate) fn strategy(
    project: &Project,
    spec: &ServiceSpec,
    anonymous: bool,
) -> Result<(Strategy, String), Refusal> {
    let service = &spec.service;
    let writes = written(project, service);
    let order = service.deploy.as_ref().and_then(|d| d.update_config.as_ref()?.order);
    if let Some(order) = order {
        let reason = "update_config.order".to_owned();
        return match order {
            UpdateOrder::StopFirst => Ok((Strategy::StopFirst, reason)),
            UpdateOrder::StartFirst => match (&writes, database(&spec.image.reference)) {
                (Some(what), Some(database)) => Err(two_writers(&spec.name, what, database)),
                _ => Ok((Strategy::StartFirst, reason)),
            },
        };
    }
    let reason = writes
        .or_else(|| host_port(service))
        .or_else(|| fixed_address(service))
        .or_else(|| anonymous.then(|| "keeps an anonymous volume".to_owned()))
        .or_else(|| (!service.devices.is_empty()).then(|| "uses a device of the host".to_owned()));
    Ok(match reason {
        Some(reason) => (Strategy::StopFirst, reason),
        None => (Strategy::StartFirst, untied(project, service)),
    })
}

fn untied(project: &Project, service: &Service) -> String {
    let shared = service.volumes.iter().find(|m| !m.read_only && has_many_writers(project, m));
    match shared.and_then(|mount| mount.source.as_deref()) {
        Some(source) => format!("others write to {source} beside it already"),
        None => "nothing ties it to one replica".to_owned(),
    }
}

/// The first thing that the service writes to and that a second replica would write to as well.
fn written(project: &Project, service: &Service) -> Option<String> {
    let mount = service
        .volumes
        .iter()
        .find(|mount| !mount.read_only && is_shared(mount) && !has_many_writers(project, mount));
    if let Some(mount) = mount {
        let source = mount.source.as_deref().unwrap_or_default();
        return Some(match mount.kind {
            MountKind::Bind => format!("writes to {source}"),
            _ if project.volumes.contains_key(source) => format!("writes to volume {source}"),
            _ => "writes to a volume".to_owned(),
        });
    }
    let from = service.volumes_from.iter().find(|from| !from.ends_with(":ro"))?;
    Some(format!("writes to the volumes of {from}"))
}

fn is_shared(mount: &Mount) -> bool {
    let source = mount.source.as_deref().unwrap_or_default();
    match mount.kind {
        MountKind::Volume | MountKind::Cluster => !source.is_empty(),
        MountKind::Bind => !SHARED_BY_NATURE
            .iter()
            .any(|path| source == *path || source.starts_with(&format!("{path}/"))),
        MountKind::Tmpfs | MountKind::Npipe | MountKind::Image => false,
    }
}

/// Whether several services write to a folder of the host side by side, as to a store of uploads that
/// an API fills and a worker reads and marks. Then a second replica of one of them is nothing new to
/// it. A folder of a database is not taken for one: a program that looks after it beside the database
/// writes there as well, and two databases would destroy it.
fn has_many_writers(project: &Project, mount: &Mount) -> bool {
    let Some(source) = mount.source.as_deref().filter(|_| mount.kind == MountKind::Bind) else {
        return false;
    };
    let mut writers = 0;
    for (name, service) in &project.services {
        // A job ends, and is no writer beside those that stay.
        if crate::service::is_waited_for(project, name) {
            continue;
        }
        let own = |m: &&Mount| {
            m.kind == MountKind::Bind && !m.read_only && m.source.as_deref() == Some(source)
        };
        let Some(mount) = service.volumes.iter().find(own) else { continue };
        let image = service.image.as_deref().unwrap_or_default();
        let target = mount.target.as_deref().unwrap_or_default();
        if database(image).is_some() || target.starts_with("/var/lib/") {
            return false;
        }
        writers += 1;
    }
    writers > 1
}

fn host_port(service: &Service) -> Option<String> {
    if service.network_mode.as_deref() == Some("host") {
        return Some("uses the host's network".to_owned());
    }
    let port = service.ports.iter().find(|port| {
        port.protocol.as_deref().is_some_and(|p| p != "tcp")
            && port.published.as_deref().is_some_and(|p| !p.is_empty())
    })?;
    let protocol = port.protocol.as_deref().unwrap_or("udp");
    let published = port.published.as_deref().unwrap_or_default();
    Some(format!("host port {published}/{protocol} is fixed and stays with the engine"))
}

fn fixed_address(service: &Service) -> Option<String> {
    if let Some(mode) = service.network_mode.as_deref()
        && (mode.starts_with("service:") || mode.starts_with("container:"))
    {
        return Some(format!("lives in the network of {mode}"));
    }
    let fixed = service.networks.values().flatten().find_map(|attachment| {
        attachment
            .ipv4_address
            .as_ref()
            .or(attachment.ipv6_address.as_ref())
            .or(attachment.mac_address.as_ref())
    });
    fixed.or(service.mac_address.as_ref()).map(|address| format!("has the fixed address {address}"))
}

fn database(reference: &str) -> Option<&'static str> {
    let name = reference.rsplit('/').next().unwrap_or(reference);
    let name = name.split([':', '@']).next().unwrap_or(name);
    ONE_WRITER.iter().find(|known| name.contains(*known)).copied()
}

fn two_writers(service: &str, what: &str, database: &str) -> Refusal {
    Refusal {
        code: "two-writers",
        service: Some(service.to_owned()),
        path: ["services", service, "deploy", "update_config", "order"].map(str::to_owned).into(),
        message: format!(
            "`{service}` asks for start-first, but it {what}: two {database} processes on one \
             volume destroy the data"
        ),
        help: Some("write `order: stop-first`; requests are held while it restarts".to_owned()),
    }
}
