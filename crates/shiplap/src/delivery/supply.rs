//! Brings files to another machine, right before a container is made that mounts them.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bollard::errors::Error as DockerError;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::CreateContainerOptionsBuilder;
use shiplap_engine::{DockerEngine, Supply};
use shiplap_model::{AnonymousVolumes, Engine as _, EngineError, EngineErrorKind, ROLE};
use tokio::sync::Mutex;

use super::{Deliveries, KEPT, ROOT, SAME, archive};

/// What the helper's label says.
const FILES_ROLE: &str = "files";
/// Where a helper sees the folder of a project.
const INSIDE: &str = "/files";
/// The name of the file that says that all of a delivery is there.
const WHOLE: &str = ".whole";
/// The folder of these for what is kept, where names are those of folders of the project.
const MADE: &str = ".made";

/// The files of one command.
#[derive(Debug, Default)]
pub struct Files {
    deliveries: Arc<Deliveries>,
    /// Paths that are there for sure. Replicas are made side by side: one at a time looks.
    there: Mutex<BTreeSet<String>>,
}

impl Files {
    /// Of these.
    pub fn new(deliveries: Arc<Deliveries>) -> Self {
        Self { deliveries, there: Mutex::default() }
    }

    /// Brings one there, unless it is.
    async fn bring(&self, helper: &Helper<'_>, path: &str) -> Result<(), EngineError> {
        let inside = path.strip_prefix(&helper.outside).unwrap_or(path).trim_start_matches('/');
        let last = last_of(inside);
        let doing = || format!("delivering {path}");
        if helper.has(&last).await? {
            return Ok(());
        }
        let Some(delivery) = self.deliveries.all.get(path) else {
            return Err(EngineError {
                kind: EngineErrorKind::NotFound,
                doing: doing(),
                message: "it is not on that machine any more".to_owned(),
                help: Some("`shiplap deploy` brings it there from the project's folder".to_owned()),
            });
        };
        let failed = |error: std::io::Error| EngineError {
            kind: EngineErrorKind::Invalid,
            doing: doing(),
            message: error.to_string(),
            help: None,
        };
        if let Some(hash) = &delivery.hash
            && archive::hash(&delivery.source).map_err(failed)? != *hash
        {
            let message = format!("{} has changed since it was planned", delivery.source.display());
            return Err(failed(std::io::Error::other(message)));
        }
        let archive = archive::archive(&delivery.source, Path::new(inside), &last);
        let archive = archive.map_err(failed)?;
        helper.docker.put_archive(&helper.id, INSIDE, archive, &doing).await
    }
}

/// What says that something is there.
fn last_of(inside: &str) -> PathBuf {
    match inside.strip_prefix(&format!("{SAME}/")) {
        Some(rest) => {
            let hash = rest.split('/').next().unwrap_or_default();
            Path::new(SAME).join(hash).join(WHOLE)
        }
        None => {
            // Folders may lie in each other, and their names hold anything.
            let hash = blake3::hash(inside.as_bytes()).to_hex();
            Path::new(KEPT).join(MADE).join(&hash[..32])
        }
    }
}

#[async_trait]
impl Supply for Files {
    async fn supply(&self, docker: &DockerEngine, sources: &[&str]) -> Result<(), EngineError> {
        let mut there = self.there.lock().await;
        let wanted: BTreeSet<&str> = sources
            .iter()
            .copied()
            .filter(|source| Path::new(source).starts_with(ROOT) && !there.contains(*source))
            .collect();
        for path in wanted {
            let helper = Helper::make(docker, path).await?;
            let brought = self.bring(&helper, path).await;
            helper.remove().await;
            brought?;
            there.insert(path.to_owned());
        }
        Ok(())
    }
}

/// A container that is never started: through it the engine writes to a folder of its machine.
struct Helper<'a> {
    docker: &'a DockerEngine,
    id: String,
    /// The folder of the project.
    outside: String,
}

impl<'a> Helper<'a> {
    /// One that sees the folder of the project that a path belongs to.
    async fn make(docker: &'a DockerEngine, path: &str) -> Result<Self, EngineError> {
        let rest = path.strip_prefix(ROOT).unwrap_or_default().trim_start_matches('/');
        let project = rest.split('/').next().unwrap_or_default();
        let outside = format!("{ROOT}/{project}");
        let name = format!("{project}.files");
        let image = crate::edge::load_image(docker).await.map_err(|error| EngineError {
            kind: EngineErrorKind::Internal,
            doing: format!("making {name}"),
            message: error.to_string(),
            help: None,
        })?;
        let body = || ContainerCreateBody {
            image: Some(image.clone()),
            labels: Some(HashMap::from([(ROLE.to_owned(), FILES_ROLE.to_owned())])),
            network_disabled: Some(true),
            host_config: Some(HostConfig {
                network_mode: Some("none".to_owned()),
                binds: Some(vec![format!("{outside}:{INSIDE}")]),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let create = || {
            let options = CreateContainerOptionsBuilder::default().name(&name).build();
            docker.raw().create_container(Some(options), body())
        };
        let made = match create().await {
            // Left by a deployer that was killed; whoever has the lease is alone with it.
            Err(DockerError::DockerResponseServerError { status_code: 409, .. }) => {
                docker.remove(&name, AnonymousVolumes::Remove).await?;
                create().await
            }
            made => made,
        };
        let made = made.map_err(|e| shiplap_engine::from_bollard(format!("making {name}"), &e))?;
        Ok(Self { docker, id: made.id, outside })
    }

    /// Whether a file is in the folder.
    async fn has(&self, file: &Path) -> Result<bool, EngineError> {
        let path = format!("{INSIDE}/{}", file.display());
        // A byte, and what an archive has around it.
        Ok(!self.docker.files(&self.id, &path, 64 << 10).await?.is_empty())
    }

    async fn remove(self) {
        // The next one takes it away.
        let _ = self.docker.remove(&self.id, AnonymousVolumes::Remove).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_whole_is_said_beside_it_and_never_in_a_folder_that_is_mounted() {
        assert_eq!(last_of("same/ab/site"), Path::new("same/ab/.whole"));
        let (outer, inner) = (last_of("kept/data"), last_of("kept/data/more"));
        assert!(outer.starts_with("kept/.made") && inner.starts_with("kept/.made"));
        assert_ne!(outer, inner);
    }
}
