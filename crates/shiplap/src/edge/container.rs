//! The edge's container on an engine.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use bollard::errors::Error as DockerError;
use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig,
    RestartPolicy, RestartPolicyNameEnum,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, RenameContainerOptionsBuilder,
    StartContainerOptions, StopContainerOptionsBuilder,
};
use shiplap_edge::api::Status;
use shiplap_edge::{Client, ClientError};
use shiplap_engine::DockerEngine;
use shiplap_model::{AnonymousVolumes, Engine as _, EngineError, ROLE, RouterError};

use super::image::{self, EdgeImage};
use super::{BUILD_VARIABLE, DIR_VARIABLE, ENGINE_VARIABLE, GID_VARIABLE, dir};
use crate::world::World;

/// How long an edge may take until it answers: it starts in a tenth of a second.
const START_LIMIT: Duration = Duration::from_secs(15);
/// How often it is asked meanwhile.
const START_POLL: Duration = Duration::from_millis(10);
/// How long the old edge may take to finish in an upgrade.
const UPGRADE_LIMIT: Duration = Duration::from_secs(90);
/// How long an edge that is upgraded may finish what it has, in seconds.
const UPGRADED_GRACE_S: i32 = 60;
/// And one that is replaced because it did not answer: a hung one holds its ports until it ends.
const REPLACED_GRACE_S: i32 = 15;

/// Binding low ports, giving the worker another user, entering network namespaces and looking
/// up processes in them, and stopping the worker: nothing else.
const CAPABILITIES: &[&str] =
    &["NET_BIND_SERVICE", "SETUID", "SETGID", "SYS_ADMIN", "SYS_PTRACE", "KILL", "CHOWN"];

/// Makes sure that an edge runs.
pub struct EdgeContainer<'a> {
    docker: &'a DockerEngine,
    client: &'a Client,
}

impl<'a> EdgeContainer<'a> {
    pub const fn new(docker: &'a DockerEngine, client: &'a Client) -> Self {
        Self { docker, client }
    }

    /// Starts the edge if none answers.
    pub async fn ensure(&self) -> Result<(), RouterError> {
        match self.client.status().await {
            Ok(_) => return Ok(()),
            Err(error) if is_denied(&error) => {
                return Err(super::router::router(error));
            }
            Err(_) => {}
        }
        // The engine starts it by itself after a crash or a restart; give it a moment.
        let name = container_name();
        let existing = self.docker.container(&name).await?;
        match existing {
            Some(found) if found.state.is_running() => {
                if self.answers().await.is_ok() {
                    return Ok(());
                }
                // It may serve nevertheless, say where its admin socket was deleted: another one
                // takes its sockets over, and nobody is refused meanwhile.
                let image = load(self.docker).await?;
                return self.replace(&image, REPLACED_GRACE_S, |_| true).await;
            }
            Some(_) => match self.docker.start(&name).await {
                Ok(()) => {}
                Err(_) => {
                    self.docker.remove(&name, AnonymousVolumes::Remove).await?;
                    self.create().await?;
                }
            },
            None => self.create().await?,
        }
        self.answers().await
    }

    async fn create(&self) -> Result<(), RouterError> {
        let image = load(self.docker).await?;
        self.run(&image, &container_name()).await
    }

    /// Starts another edge, which takes over the sockets of the one that runs; that one finishes
    /// what it has and goes.
    ///
    /// # Errors
    /// When the new one does not come up; the old one goes on then.
    async fn replace(
        &self,
        image: &EdgeImage,
        grace_s: i32,
        is_new: impl Fn(&Status) -> bool,
    ) -> Result<(), RouterError> {
        let (docker, name) = (self.docker, container_name());
        let aside = format!("{name}.old");
        let _ = docker.remove(&aside, AnonymousVolumes::Remove).await;
        let rename = RenameContainerOptionsBuilder::default().name(&aside).build();
        docker
            .raw()
            .rename_container(&name, rename)
            .await
            .map_err(|error| engine("renaming the edge", &error))?;
        // It ends once it has handed over, and must not be started again: it would take over in
        // turn.
        docker.set_restart(&aside, "no").await?;
        let came = async {
            self.run(image, &name).await?;
            let began = Instant::now();
            while !self.client.status().await.is_ok_and(|now| is_new(&now)) {
                if began.elapsed() > UPGRADE_LIMIT {
                    let text = "the new edge does not take over".to_owned();
                    return Err(RouterError::Unreachable(text));
                }
                tokio::time::sleep(START_POLL).await;
            }
            Ok(())
        };
        if let Err(error) = came.await {
            let _ = docker.remove(&name, AnonymousVolumes::Remove).await;
            let _ = docker.set_restart(&aside, "always").await;
            let _ = docker.rename(&aside, &name).await;
            let _ = docker.start(&name).await;
            return Err(error);
        }
        // It has handed its sockets over and ends by itself once its last request is done.
        let stop = StopContainerOptionsBuilder::default().t(grace_s).build();
        let _ = docker.raw().stop_container(&aside, Some(stop)).await;
        let gone = RemoveContainerOptionsBuilder::default().force(true).build();
        let _ = docker.raw().remove_container(&aside, Some(gone)).await;
        Ok(())
    }

    async fn run(&self, image: &EdgeImage, name: &str) -> Result<(), RouterError> {
        let raw = self.docker.raw();
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        let began = Instant::now();
        loop {
            let create = raw.create_container(Some(options.clone()), body(self.docker, image));
            let is_others = match create.await {
                Ok(_) => false,
                // Another deployer was faster.
                Err(DockerError::DockerResponseServerError { status_code: 409, .. }) => true,
                Err(error) => return Err(engine("creating the edge", &error).into()),
            };
            match raw.start_container(name, None::<StartContainerOptions>).await {
                Ok(()) => return Ok(()),
                // The engine takes the name at once, and knows the container only when it is made;
                // where that fails it is ours to make.
                Err(DockerError::DockerResponseServerError { status_code: 404, .. })
                    if is_others && began.elapsed() < START_LIMIT =>
                {
                    tokio::time::sleep(START_POLL).await;
                }
                Err(error) => return Err(engine("starting the edge", &error).into()),
            }
        }
    }

    async fn answers(&self) -> Result<(), RouterError> {
        let began = Instant::now();
        loop {
            match self.client.status().await {
                Ok(_) => return Ok(()),
                Err(error) if began.elapsed() >= START_LIMIT => {
                    let tail = self.docker.tail(&container_name(), 10).await.unwrap_or_default();
                    return Err(RouterError::Unreachable(format!(
                        "{error}; its last lines: {}",
                        tail.join(" | ")
                    )));
                }
                Err(_) => tokio::time::sleep(START_POLL).await,
            }
        }
    }
}

/// Whether the edge is there and we may not ask it.
fn is_denied(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { source, .. } => {
            source.kind() == std::io::ErrorKind::PermissionDenied
        }
        _ => false,
    }
}

/// `shiplap-edge`; another folder makes another edge.
fn container_name() -> String {
    let folder = dir();
    if folder == std::path::Path::new(super::DEFAULT_DIR) {
        return "shiplap-edge".to_owned();
    }
    let hash = blake3::hash(folder.as_os_str().as_encoded_bytes()).to_hex();
    format!("shiplap-edge-{}", &hash[..8])
}

fn body(docker: &DockerEngine, image: &EdgeImage) -> ContainerCreateBody {
    let folder = dir().display().to_string();
    let mut environment =
        vec![format!("{DIR_VARIABLE}={folder}"), format!("{BUILD_VARIABLE}={}", image.build)];
    // Whoever may use the engine may use the edge.
    match docker.endpoint().link() {
        // This machine's groups have other numbers: the edge looks by itself.
        Some(link) => {
            let socket = link.address().socket.display();
            environment.push(format!("{ENGINE_VARIABLE}={socket}"));
        }
        None => {
            if let Ok(socket) = std::fs::metadata("/var/run/docker.sock") {
                environment.push(format!("{GID_VARIABLE}={}", socket.gid()));
            }
        }
    }
    let log_options = [("max-size", "10m"), ("max-file", "3")];
    ContainerCreateBody {
        image: Some(image.tag.clone()),
        env: Some(environment),
        labels: Some(HashMap::from([(ROLE.to_owned(), "edge".to_owned())])),
        stop_timeout: Some(60),
        host_config: Some(HostConfig {
            network_mode: Some("host".to_owned()),
            pid_mode: Some("host".to_owned()),
            cgroupns_mode: Some(HostConfigCgroupnsModeEnum::HOST),
            readonly_rootfs: Some(true),
            binds: Some(vec![format!("{folder}:{folder}")]),
            cap_drop: Some(vec!["ALL".to_owned()]),
            cap_add: Some(CAPABILITIES.iter().map(|c| (*c).to_owned()).collect()),
            security_opt: Some(vec![
                "no-new-privileges".to_owned(),
                "apparmor=unconfined".to_owned(),
            ]),
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::ALWAYS),
                maximum_retry_count: None,
            }),
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".to_owned()),
                config: Some(
                    log_options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
                ),
            }),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

/// Replaces the edge by this version: the new one takes over the sockets of the old one, which
/// finishes what it has and goes.
///
/// # Errors
/// When the new one does not come up; the old one goes on then.
pub async fn upgrade(world: &World) -> Result<String, RouterError> {
    let (docker, client) = (&world.docker, world.edge());
    let edge = EdgeContainer::new(docker, &client);
    let Ok(before) = client.status().await else {
        edge.ensure().await?;
        return Ok("started; none was running".to_owned());
    };
    let image = load(docker).await?;
    if before.build == image.build {
        return Ok(format!("already at build {}", image.build));
    }
    edge.replace(&image, UPGRADED_GRACE_S, |now| now.build == image.build).await?;
    Ok(format!("{} → {}", before.build, image.build))
}

/// Removes the edge.
pub async fn remove(docker: &DockerEngine) -> Result<(), EngineError> {
    let name = container_name();
    let _ = docker.stop(&name, Some(Duration::from_secs(10))).await;
    docker.remove(&name, AnonymousVolumes::Remove).await
}

/// Makes this binary's image and loads it, if the engine does not hold it yet.
pub(super) async fn load(docker: &DockerEngine) -> Result<EdgeImage, RouterError> {
    let unreadable = |error: std::io::Error| {
        RouterError::Unreachable(format!("its image cannot be made: {error}"))
    };
    let image = EdgeImage::of_this_binary().map_err(unreadable)?;
    if docker.image(&image.tag).await?.is_none() {
        let version = docker.raw().version().await;
        let version = version.map_err(|error| engine("asking the engine what it runs", &error))?;
        if let Some(other) = version.arch.filter(|arch| arch != image::architecture()) {
            let own = image::architecture();
            let text = format!("its machine is {other}, and this program runs on {own} only");
            return Err(RouterError::Refused(text));
        }
        docker.load_image(image.archive().map_err(unreadable)?).await?;
    }
    Ok(image)
}

pub(super) fn engine(doing: &str, error: &DockerError) -> EngineError {
    shiplap_engine::from_bollard(doing, error)
}
