//! The trait behind which the Docker Engine stands.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::{
    Desired, Fields, ImageInfo, Mark, Observed, ObservedContainer, PublishedPort, Scope,
    ServiceSpec,
};

/// Version and nature of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineInfo {
    /// Its version, such as `20.10.24`.
    pub version: String,
    /// The newest API version that both sides speak, such as `1.41`.
    pub api_version: String,
    /// Its host's name.
    pub host_name: String,
    /// An id that stays while the engine's data stays.
    pub id: String,
    /// The folder that holds its data.
    pub data_root: String,
}

/// A container to make.
#[derive(Debug, Clone)]
pub struct CreateReplica {
    /// The service.
    pub service: String,
    /// The container's name.
    pub name: String,
    /// The name that it will have when it is the live replica: an alias on its networks, as with
    /// Compose, besides the service's name and the file's aliases.
    pub base_name: String,
    /// The replica's number, from 1.
    pub number: u32,
    /// Anonymous volumes to take over from the replica before, mount point to volume name, so
    /// that what an image keeps under a `VOLUME` outlives its container.
    pub anonymous_volumes: BTreeMap<String, String>,
    /// All labels of ours and of Compose; those of the service come on top of it.
    pub labels: BTreeMap<String, String>,
    /// Ports that the engine itself publishes, because the edge cannot carry them.
    pub publish: Vec<PublishedPort>,
    /// Who carries the service's names on its networks.
    pub names: Names,
    /// For `network_mode`, `ipc` and `pid` of the form `service:NAME`, and for `volumes_from`:
    /// the name of the container that stands for the service.
    pub peers: BTreeMap<String, String>,
}

/// A container that was asked for, by its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// It was made just now, for whoever asked.
    Made(String),
    /// It was there: made by an earlier call, which may have been somebody else's.
    Found(String),
}

impl Created {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Made(id) | Self::Found(id) => id,
        }
    }
}

/// Who carries a service's names (its own, its aliases, its live containers') on its networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Names {
    /// Its containers, as with Compose: a name appears when a container starts, before it works,
    /// and goes when it has ended.
    #[default]
    Own,
    /// A name holder: an idle container in whose network namespace the edge listens, so that
    /// callers inside the networks are routed like those outside.
    Held,
}

/// What becomes of a removed container's anonymous volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnonymousVolumes {
    /// They stay: what is in them may be missed.
    Keep,
    /// They go with it.
    Remove,
}

/// A network to make.
#[derive(Debug, Clone)]
pub struct EngineNetwork {
    /// Its name on the engine.
    pub name: String,
    /// Its key in the file.
    pub key: String,
    /// What the file says of it.
    pub spec: shiplap_compose::model::Network,
    /// All labels.
    pub labels: BTreeMap<String, String>,
}

/// A volume to make.
#[derive(Debug, Clone)]
pub struct EngineVolume {
    /// Its name on the engine.
    pub name: String,
    /// Its key in the file.
    pub key: String,
    /// What the file says of it.
    pub spec: shiplap_compose::model::Volume,
    /// All labels.
    pub labels: BTreeMap<String, String>,
}

/// An image to build.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// The tag that the image gets.
    pub tag: String,
    /// What the file says of the build.
    pub build: shiplap_compose::model::Build,
    /// `os/architecture`, where the file names one.
    pub platform: Option<String>,
}

/// What a command in a container ended with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecResult {
    /// Its exit code.
    pub exit_code: i64,
    /// The end of what it printed, both streams.
    pub output: String,
}

/// What a registry says of a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryAnswer {
    /// It knows it, under this manifest digest.
    Digest(String),
    /// It has no such tag or digest.
    Missing(String),
    /// It has no such repository.
    NoRepository(String),
    /// It does not let us, or does not show it to us.
    Denied(String),
    /// It was asked too often, and stays with that for longer than we wait.
    RateLimited(String),
    /// It does not answer.
    Unreachable(String),
}

/// Something that happens inside a long call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Bytes of a pull: done, and all that is known to come.
    Bytes {
        /// Bytes done.
        done_bytes: u64,
        /// Bytes in all, as far as known.
        total_bytes: u64,
    },
    /// A line of a build.
    Line(String),
}

/// Where progress goes.
pub type ProgressSink = Arc<dyn Fn(Progress) + Send + Sync>;

/// A Docker Engine, seen from a deployment.
///
/// Calls that make or remove something are safe to repeat: making what exists and removing what
/// is gone succeed.
#[async_trait]
pub trait Engine: Send + Sync {
    /// Asks who it is, and settles on an API version.
    async fn info(&self) -> Result<EngineInfo, EngineError>;

    /// Looks at everything that concerns a project. `compose` names external networks and
    /// volumes to look at, where there is a file. The router's part stays empty.
    ///
    /// [`Engine::facts`] may rest on what this has seen, so it comes first.
    async fn observe(
        &self,
        project: &str,
        compose: Option<&shiplap_compose::model::Project>,
    ) -> Result<Observed, EngineError>;

    /// The configuration that a container of this service would get, in the engine's terms, to
    /// compare with [`ObservedContainer::facts`]. Does not ask the engine anything.
    fn facts(&self, desired: &Desired, service: &ServiceSpec) -> Fields;

    /// An image that the engine holds, by any name.
    async fn image(&self, reference: &str) -> Result<Option<ImageInfo>, EngineError>;
    /// All images that the engine holds.
    async fn images(&self) -> Result<Vec<ImageInfo>, EngineError>;
    /// Ids of images that any container uses, whoever made it.
    async fn images_in_use(&self) -> Result<Vec<String>, EngineError>;
    /// Asks the registry for the digest of a reference, without pulling.
    async fn registry_digest(&self, reference: &str) -> Result<RegistryAnswer, EngineError>;
    /// Pulls `reference` (may be by digest), reports progress, and returns what it got.
    async fn pull(
        &self,
        reference: &str,
        platform: Option<&str>,
        progress: ProgressSink,
    ) -> Result<ImageInfo, EngineError>;
    /// Gives an image a further name.
    async fn tag(&self, image_id: &str, reference: &str) -> Result<(), EngineError>;
    /// Builds an image and returns it.
    async fn build(
        &self,
        request: &BuildRequest,
        progress: ProgressSink,
    ) -> Result<ImageInfo, EngineError>;
    /// Removes an image, or a name of one; what containers use stays, with an error. One that is
    /// gone is no error.
    async fn remove_image(&self, reference: &str) -> Result<(), EngineError>;

    /// Makes a container, with its files, attached to all its networks, not started. An existing
    /// container of that name and the same labels is what was asked for, unless it was made under
    /// another lease and has never run: whoever made it may still remove it, so it is made anew.
    async fn create(
        &self,
        desired: &Desired,
        replica: &CreateReplica,
    ) -> Result<Created, EngineError>;
    /// Starts a container. One that runs is no error; one that has ended runs once more.
    async fn start(&self, container: &str) -> Result<(), EngineError>;
    /// Sends the stop signal, and kills after `grace`. One that does not run is no error.
    async fn stop(&self, container: &str, grace: Option<Duration>) -> Result<(), EngineError>;
    /// Stops and starts a container.
    async fn restart(&self, container: &str, grace: Option<Duration>) -> Result<(), EngineError>;
    /// Freezes a container. One that is frozen is no error; one that does not run is a conflict.
    async fn pause(&self, container: &str) -> Result<(), EngineError>;
    /// Thaws a container. One that runs is no error; one that does not run is a conflict.
    async fn unpause(&self, container: &str) -> Result<(), EngineError>;
    /// Renames a container. It already having the new name is success.
    async fn rename(&self, container: &str, name: &str) -> Result<(), EngineError>;
    /// Removes a container, killing it if need be. One that is gone is no error. An anonymous volume that another container
    /// uses stays in any case.
    async fn remove(
        &self,
        container: &str,
        anonymous_volumes: AnonymousVolumes,
    ) -> Result<(), EngineError>;
    /// Sets when the engine starts a container again by itself, in the words of Compose's
    /// `restart`: `no`, `always`, `unless-stopped`, `on-failure:5`. One that is gone is no error.
    async fn set_restart(&self, container: &str, policy: &str) -> Result<(), EngineError>;
    /// Looks at one container, by name or id.
    async fn container(&self, container: &str) -> Result<Option<ObservedContainer>, EngineError>;
    /// Whether something in a container accepts TCP connections from outside of it. Nothing where
    /// this cannot be seen: on another machine, without the rights, or in a network namespace that
    /// it shares. Does not ask the engine anything.
    fn listens(&self, container: &ObservedContainer) -> Option<bool>;
    /// The health check's command of a container in exec form, from its configuration or its
    /// image, with its timeout; nothing when it has none.
    async fn healthcheck(
        &self,
        container: &str,
    ) -> Result<Option<(Vec<String>, Duration)>, EngineError>;
    /// Runs a command in a container, without a terminal, and waits for it. One that does not run
    /// is a conflict.
    async fn exec(
        &self,
        container: &str,
        command: &[String],
        limit: Duration,
    ) -> Result<ExecResult, EngineError>;
    /// The last lines that a container printed.
    async fn tail(&self, container: &str, lines: u32) -> Result<Vec<String>, EngineError>;

    /// Makes a network. One of that name is what was asked for.
    async fn create_network(&self, network: &EngineNetwork) -> Result<(), EngineError>;
    /// Removes a network. One that is gone is no error; one that is used is a conflict.
    async fn remove_network(&self, name: &str) -> Result<(), EngineError>;
    /// Makes a volume. One of that name is what was asked for.
    async fn create_volume(&self, volume: &EngineVolume) -> Result<(), EngineError>;
    /// Removes a volume. One that is gone is no error.
    async fn remove_volume(&self, name: &str) -> Result<(), EngineError>;

    /// The marks of an environment, the oldest first.
    async fn marks(&self, scope: &Scope) -> Result<Vec<Mark>, EngineError>;
    /// Makes a mark, unless there is one of its number; returns the one that is there then.
    async fn mark(&self, mark: &Mark) -> Result<Mark, EngineError>;
    /// Removes the mark of a number. One that is gone is no error.
    async fn unmark(&self, scope: &Scope, sequence: u64) -> Result<(), EngineError>;
}

/// What kind of trouble an engine reported; decides what a caller does about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineErrorKind {
    /// Nothing listens.
    Unreachable,
    /// The connection broke before the answer had come: whether it was done is not known.
    Broken,
    /// The socket is there and we may not use it.
    Denied,
    /// The key of the machine that it is on is not known, or is another one than before.
    HostKey,
    /// Its API is older than we speak.
    TooOld,
    /// What was asked for does not exist.
    NotFound,
    /// Something stands in the way, such as a name in use.
    Conflict,
    /// A disk is full.
    DiskFull,
    /// No network address, or no subnet for a network, is free.
    NoAddresses,
    /// A host port is taken.
    PortTaken,
    /// The request itself is at fault: a bad option, a bad Dockerfile.
    Invalid,
    /// It took longer than we wait.
    Timeout,
    /// Its own fault.
    Internal,
    /// Not asked any more: another deployer has the lease.
    LeaseLost,
}

/// The engine could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{doing}: {message}")]
pub struct EngineError {
    /// What kind of trouble.
    pub kind: EngineErrorKind,
    /// What we were doing, to what: `starting shop-api-1`.
    pub doing: String,
    /// What the engine said.
    pub message: String,
    /// What the user can type, where we know.
    pub help: Option<String>,
}
