//! The adapter itself: the trait's calls, one line each.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bollard::Docker;
use serde_json::Value;
use shiplap_compose::model::Project;
use shiplap_model::{
    AnonymousVolumes, BuildRequest, CreateReplica, Created, Desired, Engine, EngineError,
    EngineInfo, EngineNetwork, EngineVolume, ExecResult, Fields, ImageInfo, Limits, Mark, Observed,
    ObservedContainer, ProgressSink, RegistryAnswer, Scope, ServiceSpec,
};
use shiplap_registry::Keyring;
use tokio::sync::OnceCell;

use crate::client::Client;
use crate::containers::Lasting;
use crate::daemon::{self, ApiVersion, Daemon};
use crate::endpoint::Endpoint;
use crate::listening;
use crate::supply::Supply;

/// Images of which the configuration is remembered; each takes a few kilobytes.
const REMEMBERED_IMAGES: usize = 1000;
/// Containers of which something is remembered; each takes some hundred bytes.
const REMEMBERED_CONTAINERS: usize = 10_000;

/// A Docker Engine, 20.10 or newer.
#[derive(Clone)]
pub struct DockerEngine {
    pub(crate) client: Client,
    endpoint: Endpoint,
    pub(crate) keyring: Arc<Keyring>,
    api: Arc<OnceCell<ApiVersion>>,
    daemon: Arc<OnceCell<Daemon>>,
    /// Configurations by image id. An id is a digest, so what is remembered stays true.
    images: Arc<Mutex<HashMap<String, Arc<Value>>>>,
    /// What cannot change while a container exists, by its id: it need not be asked for while
    /// requests are held.
    containers: Arc<Mutex<HashMap<String, Lasting>>>,
    pub(crate) supply: Option<Arc<dyn Supply>>,
}

impl DockerEngine {
    /// Prepares a connection. Nothing is sent yet.
    ///
    /// # Errors
    /// When there is no socket at the endpoint.
    pub fn connect(endpoint: &Endpoint) -> Result<Self, EngineError> {
        Ok(Self {
            client: Client::connect(endpoint)?,
            endpoint: endpoint.clone(),
            keyring: Arc::new(Keyring::of_this_user()),
            api: Arc::default(),
            daemon: Arc::default(),
            images: Arc::default(),
            containers: Arc::default(),
            supply: None,
        })
    }

    /// The same with other limits on how long calls may take.
    #[must_use]
    pub fn with_limits(mut self, limits: &Limits) -> Self {
        self.client.set_limits(limits);
        self
    }

    /// The same with other logins for registries than the user's own.
    #[must_use]
    pub fn with_keyring(mut self, keyring: Arc<Keyring>) -> Self {
        self.keyring = keyring;
        self
    }

    /// The same, where somebody sees to what containers mount.
    #[must_use]
    pub fn with_supply(self, supply: Arc<dyn Supply>) -> Self {
        Self { supply: Some(supply), ..self }
    }

    /// The underlying client, for what this type does not offer. It speaks the settled version
    /// once any call of ours has been made.
    #[must_use]
    pub const fn raw(&self) -> &Docker {
        self.client.docker()
    }

    /// Where the engine listens.
    #[must_use]
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Asks whether the engine is there, and settles on an API version. Done once, by the first
    /// call of any kind.
    ///
    /// # Errors
    /// As for every call; `TooOld` when there is no version that both sides speak.
    pub async fn reach(&self) -> Result<(), EngineError> {
        self.api().await.map(drop)
    }

    /// The API version in use; settled once.
    pub(crate) async fn api(&self) -> Result<ApiVersion, EngineError> {
        let settling = self.api.get_or_try_init(|| daemon::settle(&self.client, &self.endpoint));
        settling.await.copied()
    }

    /// Who the engine is; asked once.
    pub(crate) async fn daemon(&self) -> Result<&Daemon, EngineError> {
        let api = self.api().await?;
        let meeting = || Daemon::meet(&self.client, &self.endpoint, api);
        self.daemon.get_or_try_init(meeting).await
    }

    /// Who the engine is, as far as known without asking.
    pub(crate) fn known_daemon(&self) -> Daemon {
        self.daemon.get().cloned().unwrap_or_default()
    }

    /// The API version in use, as far as known without asking.
    pub(crate) fn known_api(&self) -> ApiVersion {
        self.api.get().copied().unwrap_or(daemon::OLDEST)
    }

    pub(crate) fn remember_image(&self, id: &str, config: Value) -> Arc<Value> {
        let config = Arc::new(config);
        let mut images = self.images.lock().expect("nothing panics while holding it");
        if images.len() >= REMEMBERED_IMAGES {
            images.clear();
        }
        images.insert(id.to_owned(), Arc::clone(&config));
        config
    }

    pub(crate) fn remember_container(&self, id: &str, lasting: Lasting) {
        let mut containers = self.containers.lock().expect("nothing panics while holding it");
        if containers.len() >= REMEMBERED_CONTAINERS {
            containers.clear();
        }
        containers.insert(id.to_owned(), lasting);
    }

    pub(crate) fn remembered_container(&self, id: &str) -> Option<Lasting> {
        self.containers.lock().expect("nothing panics while holding it").get(id).cloned()
    }

    pub(crate) fn remembered_image(&self, id: &str) -> Option<Arc<Value>> {
        self.images.lock().expect("nothing panics while holding it").get(id).cloned()
    }
}

impl fmt::Debug for DockerEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DockerEngine").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

#[async_trait]
impl Engine for DockerEngine {
    async fn info(&self) -> Result<EngineInfo, EngineError> {
        Ok(self.daemon().await?.info.clone())
    }

    async fn observe(
        &self,
        project: &str,
        compose: Option<&Project>,
    ) -> Result<Observed, EngineError> {
        self.observe_project(project, compose).await
    }

    fn facts(&self, desired: &Desired, service: &ServiceSpec) -> Fields {
        self.desired_facts(desired, service)
    }

    async fn image(&self, reference: &str) -> Result<Option<ImageInfo>, EngineError> {
        self.inspect_image(reference).await
    }

    async fn images(&self) -> Result<Vec<ImageInfo>, EngineError> {
        self.all_images().await
    }

    async fn images_in_use(&self) -> Result<Vec<String>, EngineError> {
        self.used_images().await
    }

    async fn registry_digest(&self, reference: &str) -> Result<RegistryAnswer, EngineError> {
        self.ask_registry(reference).await
    }

    async fn pull(
        &self,
        reference: &str,
        platform: Option<&str>,
        progress: ProgressSink,
    ) -> Result<ImageInfo, EngineError> {
        self.pull_image(reference, platform, &progress).await
    }

    async fn tag(&self, image_id: &str, reference: &str) -> Result<(), EngineError> {
        self.tag_image(image_id, reference).await
    }

    async fn build(
        &self,
        request: &BuildRequest,
        progress: ProgressSink,
    ) -> Result<ImageInfo, EngineError> {
        self.build_image(request, &progress).await
    }

    async fn remove_image(&self, reference: &str) -> Result<(), EngineError> {
        self.untag_image(reference).await
    }

    async fn create(
        &self,
        desired: &Desired,
        replica: &CreateReplica,
    ) -> Result<Created, EngineError> {
        self.create_container(desired, replica).await
    }

    async fn start(&self, container: &str) -> Result<(), EngineError> {
        self.start_container(container).await
    }

    async fn stop(&self, container: &str, grace: Option<Duration>) -> Result<(), EngineError> {
        self.stop_container(container, grace).await
    }

    async fn restart(&self, container: &str, grace: Option<Duration>) -> Result<(), EngineError> {
        self.restart_container(container, grace).await
    }

    async fn pause(&self, container: &str) -> Result<(), EngineError> {
        self.pause_container(container).await
    }

    async fn unpause(&self, container: &str) -> Result<(), EngineError> {
        self.unpause_container(container).await
    }

    async fn rename(&self, container: &str, name: &str) -> Result<(), EngineError> {
        self.rename_container(container, name).await
    }

    async fn remove(
        &self,
        container: &str,
        anonymous_volumes: AnonymousVolumes,
    ) -> Result<(), EngineError> {
        self.remove_container(container, anonymous_volumes).await
    }

    async fn set_restart(&self, container: &str, policy: &str) -> Result<(), EngineError> {
        self.set_restart_policy(container, policy).await
    }

    async fn container(&self, container: &str) -> Result<Option<ObservedContainer>, EngineError> {
        self.observe_container(container).await
    }

    fn listens(&self, container: &ObservedContainer) -> Option<bool> {
        if !self.endpoint.is_here() {
            return None;
        }
        listening::listens(&container.id, container.pid?)
    }

    async fn healthcheck(
        &self,
        container: &str,
    ) -> Result<Option<(Vec<String>, Duration)>, EngineError> {
        self.container_healthcheck(container).await
    }

    async fn exec(
        &self,
        container: &str,
        command: &[String],
        limit: Duration,
    ) -> Result<ExecResult, EngineError> {
        self.exec_in(container, command, limit).await
    }

    async fn tail(&self, container: &str, lines: u32) -> Result<Vec<String>, EngineError> {
        self.last_lines(container, lines).await
    }

    async fn create_network(&self, network: &EngineNetwork) -> Result<(), EngineError> {
        self.make_network(network).await
    }

    async fn remove_network(&self, name: &str) -> Result<(), EngineError> {
        self.drop_network(name).await
    }

    async fn create_volume(&self, volume: &EngineVolume) -> Result<(), EngineError> {
        self.make_volume(volume).await
    }

    async fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        self.drop_volume(name).await
    }

    async fn marks(&self, scope: &Scope) -> Result<Vec<Mark>, EngineError> {
        self.list_marks(scope).await
    }

    async fn mark(&self, mark: &Mark) -> Result<Mark, EngineError> {
        self.make_mark(mark).await
    }

    async fn unmark(&self, scope: &Scope, sequence: u64) -> Result<(), EngineError> {
        self.drop_mark(scope, sequence).await
    }
}
