//! What is mounted, and what becomes of data.

use indexmap::IndexMap;

use super::{Advice, is_database, program};
use crate::model::{MountKind, Service};

/// Folders in which images keep their program.
const CODE: &[&str] =
    &["/app", "/code", "/src", "/usr/src/app", "/usr/src", "/srv", "/var/www/html", "/workspace"];

/// Databases that are often used without keeping anything.
const MEMORIES: &[&str] = &["redis", "valkey", "memcached", "rabbitmq", "etcd"];

impl Advice<'_> {
    pub(super) fn mounts(&mut self, name: &str, service: &Service) {
        for (index, mount) in service.volumes.iter().enumerate() {
            let (Some(source), Some(target)) = (&mount.source, &mount.target) else { continue };
            if mount.kind != MountKind::Bind {
                continue;
            }
            let index = index.to_string();
            let path = ["services", name, "volumes", &index];
            let inside = std::path::Path::new(source).starts_with(&self.loaded.project_directory);
            let code =
                CODE.contains(&target.as_str()) || service.working_dir.as_ref() == Some(target);
            if inside && code {
                let text = format!("`{name}` runs code of the host instead of the image's");
                let help = "leave the mount to development: `develop.watch` or an override file";
                self.push("compose/mounted-code", &path, (text, "hides the image's own"), help);
            }
            if source.ends_with("/docker.sock") {
                let text =
                    format!("`{name}` can do everything on this host: it has the engine's socket");
                let help = "put a socket proxy that allows only what is needed in between";
                self.push("compose/engine-socket", &path, (text, "the same as root"), help);
            }
        }
    }

    pub(super) fn kept_data(&mut self, name: &str, service: &Service) {
        let path = ["services", name];
        for (index, mount) in service.volumes.iter().enumerate() {
            let unnamed = mount.source.as_deref().is_none_or(str::is_empty);
            if mount.kind == MountKind::Volume && unnamed && is_database(service) {
                let text = format!("what `{name}` keeps is lost when its container is removed");
                let help = "give the volume a name: `data:/path`, and `volumes: {data: }`";
                let path = ["services", name, "volumes", &index.to_string()];
                self.push("compose/anonymous-volume", &path, (text, "has no name"), help);
            }
        }
        if !is_database(service) {
            return;
        }
        let memory = MEMORIES.iter().any(|memory| program(service).contains(memory));
        let kept = !service.volumes.is_empty()
            || !service.tmpfs.is_empty()
            || !service.volumes_from.is_empty();
        if !memory && !kept {
            let text = format!("what `{name}` keeps goes with its container");
            let help = "mount a named volume where the image keeps its data";
            self.push("compose/lost-data", &path, (text, "no volume"), help);
        }
        let writes = service.volumes.iter().any(|mount| !mount.read_only);
        if service.replicas() > 1 && writes {
            let replicas = service.replicas();
            let text = format!("{replicas} replicas of `{name}` write the same files");
            let help = "run one; a database is replicated by its own means";
            let deploys = service.deploy.as_ref().is_some_and(|deploy| deploy.replicas.is_some());
            let key = if deploys && service.scale.is_none() { "deploy" } else { "scale" };
            let path = ["services", name, key];
            self.push("compose/replicated-data", &path, (text, "one volume for all"), help);
        }
    }

    /// Named volumes that several services write to.
    pub(super) fn shared_volumes(&mut self) {
        let mut writers: IndexMap<&str, Vec<(&str, usize)>> = IndexMap::new();
        for (name, service) in &self.loaded.project.services {
            for (index, mount) in service.volumes.iter().enumerate() {
                let source = mount.source.as_deref().filter(|source| !source.is_empty());
                let Some(source) = source else { continue };
                if mount.kind == MountKind::Volume && !mount.read_only {
                    writers.entry(source).or_default().push((name, index));
                }
            }
        }
        for (volume, writers) in writers {
            let (first, _) = writers[0];
            let Some((name, index)) = writers.iter().find(|(name, _)| *name != first) else {
                continue;
            };
            let text = format!("`{first}` and `{name}` both write to the volume `{volume}`");
            let help = "mount it with `:ro` where it is only read, or give each its own";
            let path = ["services", name, "volumes", &index.to_string()];
            self.push("compose/shared-volume", &path, (text, "a second writer"), help);
        }
    }
}
