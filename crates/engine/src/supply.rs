//! What has to be on the engine's machine before a container is made.

use async_trait::async_trait;
use bytes::Bytes;
use http::Method;
use shiplap_compose::model::MountKind;
use shiplap_model::{EngineError, Limit, ServiceSpec};

use crate::client::{Call, encoded};
use crate::engine::DockerEngine;

/// Sees to it that what containers mount is there.
#[async_trait]
pub trait Supply: Send + Sync + std::fmt::Debug {
    /// Called right before a container is made, with the sources of its bind mounts. Twice with the
    /// same ones does no harm.
    ///
    /// # Errors
    /// Why one cannot be brought there; the container is not made then.
    async fn supply(&self, engine: &DockerEngine, sources: &[&str]) -> Result<(), EngineError>;
}

impl DockerEngine {
    /// Unpacks an archive in a folder of a container, which need not run: what it mounts is written
    /// to as well. May take as long as a pull.
    ///
    /// # Errors
    /// As for every call.
    pub async fn put_archive(
        &self,
        container: &str,
        folder: &str,
        archive: Bytes,
        doing: impl Fn() -> String,
    ) -> Result<(), EngineError> {
        self.api().await?;
        let path = format!("/containers/{}/archive", encoded(container));
        let call = Call::new(Method::PUT, path).query("path", folder).tar(archive);
        let wait = self.client.wait(Limit::Pull);
        self.client.send_within(call, wait, doing).await.map(drop)
    }

    pub(crate) async fn supplied(&self, spec: &ServiceSpec) -> Result<(), EngineError> {
        let Some(supply) = &self.supply else { return Ok(()) };
        let binds = spec.service.volumes.iter().filter(|mount| mount.kind == MountKind::Bind);
        let sources: Vec<&str> = binds.filter_map(|mount| mount.source.as_deref()).collect();
        if sources.is_empty() { Ok(()) } else { supply.supply(self, &sources).await }
    }
}
