//! What is mounted into a container.

use std::collections::{BTreeMap, BTreeSet};

use bollard::models::{
    Mount as EngineMount, MountBindOptions, MountBindOptionsPropagationEnum as Propagation,
    MountImageOptions, MountTmpfsOptions, MountType, MountVolumeOptions,
};
use shiplap_compose::model::{FileObject, FileReference, Map, Mount, MountKind};

use super::{Conversion, Unfit};
use crate::daemon::ApiVersion;

/// What `use_api_socket` mounts.
const API_SOCKET: &str = "/var/run/docker.sock";

/// Mounts in the engine's two notations.
#[derive(Default)]
pub(super) struct Mounts {
    /// `source:target:options`, which makes missing folders on the host.
    pub(super) binds: Vec<String>,
    pub(super) mounts: Vec<EngineMount>,
}

impl Conversion<'_> {
    pub(super) fn mounts(&self) -> Result<Mounts, Unfit> {
        let service = self.service();
        let mut out = Mounts::default();
        let mut targets: BTreeSet<String> =
            self.spec.files.iter().map(|file| file.target.clone()).collect();
        // By target, and the last one wins, as Compose does it.
        let mut by_target: BTreeMap<&str, &Mount> = BTreeMap::new();
        for mount in &service.volumes {
            by_target.insert(mount.target.as_deref().unwrap_or_default(), mount);
        }
        for (target, mount) in by_target {
            targets.insert(target.to_owned());
            let taken_over = self.anonymous_volumes.get(target);
            match bind_line(mount) {
                Some(line) => out.binds.push(line),
                None => out.mounts.push(self.mount(mount, taken_over)?),
            }
        }
        if service.use_api_socket && targets.insert(API_SOCKET.into()) {
            out.binds.push(format!("{API_SOCKET}:{API_SOCKET}:rw"));
        }
        // What the image itself declares as a volume.
        for (target, volume) in self.anonymous_volumes {
            if targets.insert(target.clone()) {
                out.mounts.push(EngineMount {
                    typ: Some(MountType::VOLUME),
                    source: Some(volume.clone()),
                    target: Some(target.clone()),
                    ..Default::default()
                });
            }
        }
        let secrets = (&service.secrets, &self.desired.compose.secrets, "/run/secrets/");
        let configs = (&service.configs, &self.desired.compose.configs, "/");
        for (references, objects, folder) in [secrets, configs] {
            for reference in references {
                if let Some(mount) = file_mount(reference, objects, folder)?
                    && targets.insert(mount.target.clone().unwrap_or_default())
                {
                    out.mounts.push(mount);
                }
            }
        }
        Ok(out)
    }

    fn mount(&self, mount: &Mount, taken_over: Option<&String>) -> Result<EngineMount, Unfit> {
        let mut out = EngineMount {
            target: mount.target.clone(),
            source: mount.source.clone(),
            read_only: mount.read_only.then_some(true),
            consistency: mount.consistency.clone(),
            ..Default::default()
        };
        match mount.kind {
            MountKind::Bind => {
                out.typ = Some(MountType::BIND);
                out.bind_options = self.bind_options(mount)?;
            }
            MountKind::Volume => {
                out.typ = Some(MountType::VOLUME);
                let named = mount.source.as_deref().map(|key| self.volume_name(key));
                out.source = named.or_else(|| taken_over.cloned());
                out.volume_options = self.volume_options(mount)?;
            }
            MountKind::Tmpfs => {
                out.typ = Some(MountType::TMPFS);
                out.source = None;
                out.tmpfs_options = mount.tmpfs.as_ref().map(|options| MountTmpfsOptions {
                    size_bytes: options.size.map(|size| size.bytes()),
                    mode: options.mode.map(i64::from),
                    options: None,
                });
            }
            MountKind::Image => {
                if self.api < ApiVersion(48) {
                    return Err("mounting an image needs Docker 28 or newer".into());
                }
                out.typ = Some(MountType::IMAGE);
                let subpath = mount.image.as_ref().and_then(|options| options.subpath.clone());
                out.image_options =
                    subpath.map(|subpath| MountImageOptions { subpath: Some(subpath) });
            }
            MountKind::Npipe => out.typ = Some(MountType::NPIPE),
            MountKind::Cluster => out.typ = Some(MountType::CLUSTER),
        }
        Ok(out)
    }

    fn bind_options(&self, mount: &Mount) -> Result<Option<MountBindOptions>, Unfit> {
        let Some(options) = &mount.bind else { return Ok(None) };
        let propagation = match options.propagation.as_deref() {
            None | Some("") => None,
            Some("private") => Some(Propagation::PRIVATE),
            Some("rprivate") => Some(Propagation::RPRIVATE),
            Some("shared") => Some(Propagation::SHARED),
            Some("rshared") => Some(Propagation::RSHARED),
            Some("slave") => Some(Propagation::SLAVE),
            Some("rslave") => Some(Propagation::RSLAVE),
            Some(other) => return Err(format!("unknown propagation of a bind mount: {other}")),
        };
        let recursive = options.recursive.as_deref();
        let creates = options.create_host_path != Some(false) && self.api >= ApiVersion(42);
        Ok(Some(MountBindOptions {
            propagation,
            create_mountpoint: creates.then_some(true),
            non_recursive: (recursive == Some("disabled")).then_some(true),
            read_only_non_recursive: (recursive == Some("writable")).then_some(true),
            read_only_force_recursive: (recursive == Some("readonly")).then_some(true),
        }))
    }

    fn volume_options(&self, mount: &Mount) -> Result<Option<MountVolumeOptions>, Unfit> {
        let Some(options) = &mount.volume else { return Ok(None) };
        if options.subpath.is_some() && self.api < ApiVersion(45) {
            return Err("`subpath` of a volume needs Docker 26 or newer".into());
        }
        Ok(Some(MountVolumeOptions {
            no_copy: options.nocopy.then_some(true),
            subpath: options.subpath.clone(),
            labels: (!options.labels.is_empty())
                .then(|| options.labels.clone().into_iter().collect()),
            driver_config: None,
        }))
    }

    /// The engine's name of a volume.
    fn volume_name(&self, key: &str) -> String {
        let volume = self.desired.compose.volumes.get(key);
        volume.and_then(|volume| volume.name.clone()).unwrap_or_else(|| key.to_owned())
    }
}

/// A bind mount as `source:target:options`, where that notation can say it.
///
/// It is the only one that makes a missing folder on every engine.
fn bind_line(mount: &Mount) -> Option<String> {
    if mount.kind != MountKind::Bind {
        return None;
    }
    let source = mount.source.as_deref().filter(|source| !source.contains(':'))?;
    let target = mount.target.as_deref().filter(|target| !target.contains(':'))?;
    let mut options = vec![if mount.read_only { "ro" } else { "rw" }];
    if let Some(bind) = &mount.bind {
        if bind.create_host_path == Some(false) || bind.recursive.is_some() {
            return None;
        }
        options.extend(bind.selinux.as_deref());
        options.extend(bind.propagation.as_deref().filter(|p| !p.is_empty()));
    }
    Some(format!("{source}:{target}:{}", options.join(",")))
}

/// A secret or config that is a file on the host. Others are copied in before the start.
fn file_mount(
    reference: &FileReference,
    objects: &Map<FileObject>,
    folder: &str,
) -> Result<Option<EngineMount>, Unfit> {
    let source = reference.source.as_deref().unwrap_or_default();
    let object = objects.get(source).ok_or_else(|| format!("`{source}` is not defined"))?;
    let Some(file) = &object.file else { return Ok(None) };
    Ok(Some(EngineMount {
        typ: Some(MountType::BIND),
        source: Some(file.clone()),
        target: Some(file_target(reference, folder)),
        read_only: Some(true),
        ..Default::default()
    }))
}

fn file_target(reference: &FileReference, folder: &str) -> String {
    match reference.target.as_deref() {
        Some(absolute) if absolute.starts_with('/') => absolute.to_owned(),
        Some(relative) if !relative.is_empty() => format!("{folder}{relative}"),
        _ => format!("{folder}{}", reference.source.as_deref().unwrap_or_default()),
    }
}
