//! What a deployment needs to be made again: the environment's values.
//!
//! Written encrypted by the ledger. The project is kept in the form of the Compose Specification
//! itself, which outlives any type of ours.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use shiplap_compose::FileSource;
use shiplap_compose::OsFiles;
use shiplap_compose::model::Project;
use shiplap_model::{
    Desired, Engine, ImageOrigin, ImagePin, InjectedFile, Refusal, RouteTable, Secret, StoredImage,
    StoredRelease, StoredService,
};

use super::desired::{Assembled, Contents, HostedFile, assemble};
use super::{AppError, images};

/// Version of the stored form.
const VERSION: u32 = 1;

/// The stored form of a deployment's values.
#[derive(Serialize, Deserialize)]
struct StoredBinding {
    version: u32,
    project: serde_json::Value,
    working_dir: String,
    config_files: Vec<String>,
    files: BTreeMap<String, Vec<StoredFile>>,
    /// Absent in bindings from before there were routes.
    #[serde(default, skip_serializing_if = "no_routes")]
    routes: RouteTable,
}

fn no_routes(table: &RouteTable) -> bool {
    *table == RouteTable::default()
}

/// A config or secret with its content.
#[derive(Serialize, Deserialize)]
struct StoredFile {
    target: String,
    content: String,
    /// The host's file that it was mounted from; absent where it was copied in.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    path: Option<String>,
    #[serde(default)]
    uid: u32,
    #[serde(default)]
    gid: u32,
    #[serde(default = "readable")]
    mode: u32,
}

const fn readable() -> u32 {
    0o444
}

/// The release that a desired state is, as far as it is known.
pub(super) fn release(desired: &Desired, images: &BTreeMap<String, String>) -> StoredRelease {
    let services = desired
        .services
        .iter()
        .map(|(name, spec)| {
            let id = spec.image.id.clone().or_else(|| images.get(&spec.image.reference).cloned());
            let image = StoredImage {
                reference: spec.image.reference.clone(),
                id,
                digest: spec.image.digest.clone(),
            };
            (name.clone(), StoredService { image, replicas: spec.replicas })
        })
        .collect();
    StoredRelease { version: VERSION, services }
}

/// The values of a desired state, to be written down.
pub(super) fn write(assembled: &Assembled) -> Secret<Vec<u8>> {
    let desired = &assembled.desired;
    let mut project = desired.compose.clone();
    for (name, spec) in &desired.services {
        if let Some(service) = project.services.get_mut(name) {
            let deploy = service.deploy.get_or_insert_default();
            deploy.replicas = Some(spec.replicas);
            service.scale = None;
        }
    }
    let files = assembled
        .contents
        .iter()
        .map(|(name, contents)| {
            let hosted = contents.hosted.iter().map(|file| StoredFile {
                target: file.target.clone(),
                content: BASE64.encode(file.content.expose()),
                path: Some(file.path.clone()),
                uid: 0,
                gid: 0,
                mode: readable(),
            });
            let injected = contents.injected.iter().map(|file| StoredFile {
                target: file.target.clone(),
                content: BASE64.encode(file.content.expose()),
                path: None,
                uid: file.uid,
                gid: file.gid,
                mode: file.mode,
            });
            (name.clone(), hosted.chain(injected).collect())
        })
        .collect();
    let stored = StoredBinding {
        version: VERSION,
        project: serde_json::to_value(&project).expect("a project is JSON"),
        working_dir: desired.working_dir.clone(),
        config_files: desired.config_files.clone(),
        files,
        routes: desired.routes.clone(),
    };
    Secret::new(serde_json::to_vec(&stored).expect("a binding is JSON"))
}

/// Whether two releases are the same images in the same numbers. What is not known is not the same.
pub(super) fn same_release(one: &StoredRelease, other: &StoredRelease) -> bool {
    let same_image = |a: &StoredImage, b: &StoredImage| {
        let by_id = a.id.is_some() && a.id == b.id;
        let by_digest = a.digest.is_some() && a.digest == b.digest;
        a.reference == b.reference && (by_id || by_digest)
    };
    let same_service = |name: &String, a: &StoredService| {
        let other = other.services.get(name);
        other.is_some_and(|b| a.replicas == b.replicas && same_image(&a.image, &b.image))
    };
    one.services.len() == other.services.len()
        && one.services.iter().all(|(name, service)| same_service(name, service))
}

/// Whether two bindings hold the same values.
pub(super) fn same(one: &Secret<Vec<u8>>, other: &Secret<Vec<u8>>) -> bool {
    let value =
        |bytes: &Secret<Vec<u8>>| serde_json::from_slice::<serde_json::Value>(bytes.expose()).ok();
    value(one).is_some_and(|one| Some(one) == value(other))
}

/// A binding as read: everything of a desired state but the images.
pub(super) struct Read {
    pub project: Project,
    pub place: (String, Vec<String>),
    pub contents: BTreeMap<String, Contents>,
    pub routes: RouteTable,
}

/// Reads a binding of any version.
pub(super) fn read(bytes: &Secret<Vec<u8>>) -> Result<Read, AppError> {
    let unreadable = |why: String| AppError::History {
        message: format!("the values of this deployment cannot be read: {why}"),
        help: "deploy from the Compose files instead".to_owned(),
    };
    let stored: StoredBinding =
        serde_json::from_slice(bytes.expose()).map_err(|_| unreadable("damaged".to_owned()))?;
    if stored.version != VERSION {
        return Err(unreadable(format!("version {} is newer than this program", stored.version)));
    }
    let project: Project = serde_json::from_value(stored.project)
        .map_err(|_| unreadable("its project is not in the known form".to_owned()))?;
    let mut contents = BTreeMap::new();
    for (name, files) in stored.files {
        let mut of_service = Contents::default();
        for file in files {
            let content = BASE64
                .decode(&file.content)
                .map_err(|_| unreadable("a file in it is damaged".to_owned()))?;
            put(&mut of_service, file, content);
        }
        contents.insert(name, of_service);
    }
    let place = (stored.working_dir, stored.config_files);
    Ok(Read { project, place, contents, routes: stored.routes })
}

/// A file of the host that still has the content of then is mounted again; otherwise the content
/// of then is copied in.
fn put(contents: &mut Contents, file: StoredFile, content: Vec<u8>) {
    let now = file.path.as_ref().map(|path| OsFiles.read(path.as_ref(), content.len() as u64));
    match (file.path, now) {
        (Some(path), Some(Ok(now))) if now == content => contents.hosted.push(HostedFile {
            target: file.target,
            path,
            content: Secret::new(content),
        }),
        _ => contents.injected.push(InjectedFile {
            target: file.target,
            content: Secret::new(content),
            uid: file.uid,
            gid: file.gid,
            mode: file.mode,
        }),
    }
}

/// The desired state of a stored deployment, its images found again.
pub(super) async fn restore(
    engine: &dyn Engine,
    environment: &str,
    read: Read,
    release: &StoredRelease,
) -> Result<Assembled, AppError> {
    let mut pins = BTreeMap::new();
    let mut refusals = Vec::new();
    for name in read.project.services.keys() {
        let stored = release.services.get(name).map(|service| &service.image);
        match find(engine, name, stored).await? {
            Ok(pin) => {
                pins.insert(name.clone(), pin);
            }
            Err(refusal) => refusals.push(refusal),
        }
    }
    if !refusals.is_empty() {
        return Err(AppError::Refused(refusals));
    }
    let Read { project, place, contents, routes } = read;
    Ok(assemble(engine, &project, environment, place, &pins, contents, &routes))
}

pub(super) async fn find(
    engine: &dyn Engine,
    name: &str,
    stored: Option<&StoredImage>,
) -> Result<Result<ImagePin, Refusal>, AppError> {
    let Some(stored) = stored else { return Ok(Err(gone(name, "its image was not recorded"))) };
    if let Some(id) = &stored.id
        && let Some(info) = engine.image(id).await?
    {
        let pin = images::here(&stored.reference, info);
        return Ok(Ok(ImagePin { digest: stored.digest.clone().or(pin.digest), ..pin }));
    }
    Ok(match &stored.digest {
        Some(digest) => Ok(ImagePin {
            reference: stored.reference.clone(),
            id: stored.id.clone(),
            digest: Some(digest.clone()),
            origin: ImageOrigin::Pull,
            info: None,
        }),
        None => Err(gone(
            name,
            &format!("{} is not on this engine any more, and no registry has it", stored.reference),
        )),
    })
}

fn gone(name: &str, why: &str) -> Refusal {
    Refusal {
        code: "image-gone",
        service: Some(name.to_owned()),
        path: ["services", name, "image"].map(str::to_owned).into(),
        message: format!("`{name}` cannot be restored: {why}"),
        help: Some("`shiplap history` shows what else there is to go back to".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_is_read() {
        let stored = r#"{"version":1,"project":{"name":"shop","services":{"api":{"image":"api:v1",
            "environment":{"KEY":"x"}}}},"working_dir":"/srv/shop","config_files":["/srv/shop/c.yaml"],
            "files":{"api":[{"target":"/run/secrets/k","content":"c2VjcmV0","mode":288}]}}"#;
        let read = read(&Secret::new(stored.as_bytes().to_vec())).expect("version 1");
        assert_eq!(read.project.services["api"].environment["KEY"].as_deref(), Some("x"));
        assert_eq!(read.contents["api"].injected[0].content.expose(), b"secret");
        assert_eq!(read.contents["api"].injected[0].mode, 0o440);
    }

    #[test]
    fn a_newer_version_is_refused() {
        let stored = r#"{"version":2,"project":{},"working_dir":"","config_files":[],"files":{}}"#;
        assert!(read(&Secret::new(stored.as_bytes().to_vec())).is_err());
    }
}
