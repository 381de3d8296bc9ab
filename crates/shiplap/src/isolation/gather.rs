//! Looking at containers, what they mount, the files in them that may be secrets, and the edge.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use futures_util::{StreamExt as _, stream};
use serde_json::Value;
use shiplap_edge::ClientError;
use shiplap_engine::DockerEngine;
use shiplap_isolation::{
    Backing, Container, HostPort, Instance, Listening, MountKind, Party, Place, Role, SecretFile,
    Snapshot, State, Transport, Untested, files_to_read,
};
use shiplap_model::{COMPOSE_PROJECT, EngineError, OWNER, PoolKey, ROLE, Secret};

use super::probes;
use crate::world::World;

/// Containers whose files are read at once.
const PARALLEL: usize = 8;
/// The longest archive of what may hold secrets: more is data.
const LONGEST_ARCHIVE: usize = 4 << 20;
/// The longest file in a file system in memory that is read.
const LONGEST_FILE: u64 = 64 << 10;
/// Where Compose puts secrets.
const SECRETS_FOLDER: &str = "/run/secrets";

/// All that was seen.
pub struct Seen {
    /// Of each environment.
    pub snapshots: Vec<Snapshot>,
    /// Everything else on the engine, with its project.
    pub strangers: Vec<(String, Container)>,
    /// What could not be read.
    pub untested: Vec<Untested>,
}

/// Looks at all that concerns these environments.
///
/// # Errors
/// When the engine cannot be asked.
pub async fn gather(world: &World, instances: &[Instance]) -> Result<Seen, EngineError> {
    let docker = &world.docker;
    let described = docker.describe_containers().await?;
    let volumes = volumes(&docker.describe_volumes().await?);
    let is_local = docker.endpoint().is_here();
    let mut snapshots: Vec<Snapshot> = instances
        .iter()
        .map(|instance| Snapshot {
            instance: instance.clone(),
            containers: Vec::new(),
            edge_ports: Vec::new(),
        })
        .collect();
    let mut strangers = Vec::new();
    for inspect in &described {
        let labels = &inspect["Config"]["Labels"];
        if labels[ROLE] == probes::PROBE_ROLE || labels[ROLE] == "edge" {
            continue;
        }
        let image = docker.image_configuration(inspect["Image"].as_str().unwrap_or_default());
        let image = image.await?.unwrap_or_default();
        let mut container = Container::read(inspect, &image);
        for mount in &mut container.mounts {
            if let MountKind::Volume(name) = &mount.kind {
                mount.backing = volumes.get(name).cloned();
            }
            if is_local {
                mount.place = mount.place.take().map(|place| located(&place));
                if let Some(Backing::Place(place)) = &mount.backing {
                    mount.backing = Some(Backing::Place(located(place)));
                }
            }
        }
        let project = project_of(labels);
        match snapshots.iter_mut().find(|snapshot| snapshot.instance.project == project) {
            Some(snapshot) => snapshot.containers.push(container),
            None => strangers.push((project.to_owned(), container)),
        }
    }
    let mut untested = Vec::new();
    for snapshot in &mut snapshots {
        let containers = std::mem::take(&mut snapshot.containers);
        let looked: Vec<(Container, Vec<String>)> = stream::iter(containers)
            .map(|container| look_inside(docker, container))
            .buffered(PARALLEL)
            .collect()
            .await;
        for (container, problems) in looked {
            untested.extend(
                problems.into_iter().map(|why| Untested {
                    party: Some(party(&snapshot.instance, &container)),
                    why,
                }),
            );
            snapshot.containers.push(container);
        }
    }
    untested.extend(edge_ports(world, &mut snapshots).await);
    Ok(Seen { snapshots, strangers, untested })
}

fn party(instance: &Instance, container: &Container) -> Party {
    Party {
        environment: instance.environment.clone(),
        project: instance.project.clone(),
        service: container.service.clone(),
        container: Some(container.name.clone()),
    }
}

/// Compose's label; a name holder has only its owner's, `project/environment`.
fn project_of(labels: &Value) -> &str {
    let owner = || labels[OWNER].as_str().and_then(|owner| owner.split('/').next());
    labels[COMPOSE_PROJECT].as_str().or_else(owner).unwrap_or_default()
}

/// What volumes stand on, where that is not the engine's own folder.
fn volumes(described: &[Value]) -> BTreeMap<String, Backing> {
    let backing = |volume: &Value| {
        let options = &volume["Options"];
        let option = |name: &str| options[name].as_str().unwrap_or_default();
        let (kind, device, words) = (option("type"), option("device"), option("o"));
        if device.is_empty() || kind == "tmpfs" {
            return None;
        }
        if words.split(',').any(|word| matches!(word, "bind" | "rbind")) {
            return Some(Backing::Place(Place::at(device)));
        }
        let server = words.split(',').find_map(|word| word.strip_prefix("addr="));
        let remote = format!("{kind}:{}{device}", server.unwrap_or_default());
        Some(Backing::Remote(remote))
    };
    let named = described
        .iter()
        .filter_map(|volume| Some((volume["Name"].as_str()?.to_owned(), backing(volume)?)));
    named.collect()
}

/// The same place with links followed, and with what tells each folder on the way from others.
fn located(place: &Place) -> Place {
    let path = std::fs::canonicalize(&place.path).unwrap_or_else(|_| place.path.clone());
    let mut ways: Vec<&Path> = path.ancestors().collect();
    ways.reverse();
    let identity = |way: &&Path| std::fs::metadata(way).map(|data| (data.dev(), data.ino()));
    // All or nothing: the last one must be the place itself.
    let identities = ways.iter().map(identity).collect::<Result<Vec<_>, _>>().unwrap_or_default();
    Place { path, identities }
}

/// Where something listens in it, and the files that may be secrets; with what could not be read.
async fn look_inside(docker: &DockerEngine, mut container: Container) -> (Container, Vec<String>) {
    let mut problems = Vec::new();
    let pid = container.pid.filter(|_| container.state != State::Stopped);
    if let Some(ports) = pid.and_then(|pid| docker.listening_ports(&container.id, pid)) {
        container.listening = Listening::On(ports);
    }
    if container.role == Role::NameHolder {
        return (container, problems);
    }
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for path in files_to_read(&container) {
        match docker.files(&container.id, &path, LONGEST_ARCHIVE).await {
            Ok(found) => files.extend(found),
            Err(error) => {
                problems.push(format!("{path} in it was not compared: {}", error.message))
            }
        }
    }
    if let Some(pid) = pid {
        let own = docker.local_files(&container.id, pid, SECRETS_FOLDER, LONGEST_FILE);
        files.extend(own.unwrap_or_default());
    }
    container.files = files
        .into_iter()
        .map(|(path, content)| SecretFile { path, content: Secret::new(content) })
        .collect();
    (container, problems)
}

/// Adds the ports on which the edge listens for each of them. No edge, no ports.
async fn edge_ports(world: &World, snapshots: &mut [Snapshot]) -> Option<Untested> {
    use std::io::ErrorKind;
    let status = match world.edge().status().await {
        Ok(status) => status,
        Err(ClientError::Unreachable { source, .. }) if source.kind() == ErrorKind::NotFound => {
            return None;
        }
        // Over there, a socket that is not there is one that nobody listens at.
        Err(ClientError::Unreachable { source, .. })
            if !world.docker.endpoint().is_here()
                && source.kind() == ErrorKind::ConnectionRefused =>
        {
            return None;
        }
        Err(error) => {
            let why = format!("the edge does not say on which ports it listens: {error}");
            return Some(Untested { party: None, why });
        }
    };
    let listeners = status.listeners.iter().map(|status| &status.listener);
    for listener in listeners.filter(|listener| listener.namespace.is_none()) {
        let owner = listener.owner.split('/').next();
        let service = listener.pool.as_deref().and_then(PoolKey::parse).map(|pool| pool.service);
        let snapshot = snapshots.iter_mut().find(|s| Some(s.instance.project.as_str()) == owner);
        if let (Some(snapshot), Some(service)) = (snapshot, service) {
            let address =
                Some(listener.address).filter(|address: &IpAddr| !address.is_unspecified());
            let port = HostPort { address, port: listener.port, protocol: Transport::Tcp };
            snapshot.edge_ports.push((port, service));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn places_are_followed_to_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().join("real");
        std::fs::create_dir_all(real.join("data")).unwrap();
        std::os::unix::fs::symlink(&real, folder.path().join("link")).unwrap();
        let at = |path: &str| located(&Place::at(&format!("{}/{path}", folder.path().display())));
        assert!(at("link").overlaps(&at("real/data")));
        assert!(at("link/data").overlaps(&at("real/../real/data")));
        assert!(!at("real/other").overlaps(&at("link/data")), "not there yet");
    }

    #[test]
    fn volumes_stand_on_paths_and_servers() {
        let of = |options: Value| volumes(&[json!({"Name": "v", "Options": options})]).remove("v");
        let bind = of(json!({"type": "none", "o": "bind,rw", "device": "/srv/data"}));
        assert_eq!(bind, Some(Backing::Place(Place::at("/srv/data"))));
        let nfs = of(json!({"type": "nfs", "o": "rw,addr=10.0.0.5", "device": ":/export"}));
        assert_eq!(nfs, Some(Backing::Remote("nfs:10.0.0.5:/export".to_owned())));
        assert_eq!(of(json!({"type": "tmpfs", "device": "tmpfs"})), None);
        assert_eq!(of(Value::Null), None);
    }
}
