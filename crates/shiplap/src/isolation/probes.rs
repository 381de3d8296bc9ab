//! Probes: containers that hold this binary and nothing else, have no rights, live in the network
//! namespace of one that is asked about, try what they are told, and are gone.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::container::LogOutput;
use bollard::errors::Error as DockerError;
use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, ListContainersOptionsBuilder,
};
use futures_util::{StreamExt as _, stream};
use shiplap_engine::DockerEngine;
use shiplap_isolation::probe;
use shiplap_isolation::reach::{Answers, Questions};
use shiplap_model::{AnonymousVolumes, ContainerState, Engine as _, EngineError, ROLE};

use tokio::signal::unix::{SignalKind, signal};

use super::VerifyError;

/// The role of a probe.
pub const PROBE_ROLE: &str = "probe";
/// What the name of a probe begins with; what follows is the container whose namespace it is in.
const NAME: &str = "shiplap-probe-";
/// Probes that run at once. Each waits most of its time.
const PARALLEL: usize = 6;
/// For making, starting and ending one, on a busy machine.
const AROUND: Duration = Duration::from_secs(30);
/// A probe that was made and not started for so long belongs to nobody any more.
const ABANDONED: Duration = Duration::from_secs(20);
/// How long an engine may take to remove one.
const REMOVAL_LIMIT: Duration = Duration::from_secs(10);
/// How often it is asked meanwhile.
const REMOVAL_POLL: Duration = Duration::from_millis(20);
/// How often a name is asked for that another verification has at the moment.
const NAME_POLL: Duration = Duration::from_millis(200);
/// The longest answer: a line for a name is some 50 bytes.
const LONGEST_ANSWER: usize = 8 << 20;

/// Asks all of it. What is left of probes is removed, on Ctrl-C and SIGTERM too, and so is what an
/// earlier run left that was killed.
///
/// # Errors
/// When the engine cannot be asked, or on Ctrl-C.
pub async fn ask(
    docker: &DockerEngine,
    questions: Vec<Questions>,
) -> Result<Vec<(Questions, Result<Answers, String>)>, VerifyError> {
    remove_abandoned(docker).await?;
    let image =
        crate::edge::load_image(docker).await.map_err(|error| VerifyError::World(error.into()))?;
    // By id: under a name there may be a later one, of another verification.
    let made: Mutex<Vec<String>> = Mutex::default();
    let asking = stream::iter(questions)
        .map(|questions| async {
            let answers = one(docker, &image, &questions, &made).await;
            (questions, answers)
        })
        .buffered(PARALLEL)
        .collect::<Vec<_>>();
    tokio::select! {
        asked = asking => Ok(asked),
        () = told_to_stop() => {
            let ids = std::mem::take(&mut *made.lock().expect("no holder panics"));
            for id in &ids {
                remove(docker, id).await;
            }
            Err(VerifyError::Stopped)
        }
    }
}

/// Returns on Ctrl-C or SIGTERM.
async fn told_to_stop() {
    let terminate = async {
        match signal(SignalKind::terminate()) {
            Ok(mut told) => drop(told.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminate => {}
    }
}

fn name(container_id: &str) -> String {
    format!("{NAME}{}", container_id.get(..12).unwrap_or(container_id))
}

/// Runs one probe. The engine removes it when it ends, a moment after it has said its last; it is
/// gone when this returns, however it ended.
async fn one(
    docker: &DockerEngine,
    image: &str,
    questions: &Questions,
    made: &Mutex<Vec<String>>,
) -> Result<Answers, String> {
    if questions.connect.is_empty() && questions.names.is_empty() {
        return Ok(Answers::default());
    }
    let limit = probe::longest(questions) + AROUND;
    let late = || format!("the probe did not end within {} s", limit.as_secs());
    let creating = tokio::time::timeout(limit, create(docker, image, questions)).await;
    let id = creating.map_err(|_| late())?.map_err(|error| error.message)?;
    made.lock().expect("no holder panics").push(id.clone());
    let answers = match tokio::time::timeout(limit, run(docker, &id)).await {
        Ok(Ok(output)) => probe::read(&output),
        Ok(Err(error)) => Err(error.message),
        Err(_) => Err(late()),
    };
    remove(docker, &id).await;
    answers
}

/// Makes sure that a probe is gone; most are already. An engine that is at it by itself says so at
/// once, and takes a moment longer.
async fn remove(docker: &DockerEngine, id: &str) {
    let gone = async {
        let _ = docker.remove(id, AnonymousVolumes::Remove).await;
        while !matches!(docker.container(id).await, Ok(None) | Err(_)) {
            tokio::time::sleep(REMOVAL_POLL).await;
        }
    };
    // It holds nothing and ends by itself: no reason to wait for ever.
    let _ = tokio::time::timeout(REMOVAL_LIMIT, gone).await;
}

async fn run(docker: &DockerEngine, id: &str) -> Result<String, EngineError> {
    let options = AttachContainerOptionsBuilder::default()
        .stdout(true)
        .stderr(true)
        .stream(true)
        .logs(false)
        .build();
    // Attached before it starts: nothing it says is missed, and nothing is kept on disk.
    let attached = docker.raw().attach_container(id, Some(options)).await;
    let mut output = attached.map_err(|error| engine(id, "attaching to", &error))?.output;
    docker.start(id).await?;
    let mut said = Vec::new();
    while let Some(chunk) = output.next().await {
        match chunk.map_err(|error| engine(id, "reading", &error))? {
            LogOutput::StdOut { message } | LogOutput::Console { message } => {
                said.extend_from_slice(&message);
            }
            LogOutput::StdErr { .. } | LogOutput::StdIn { .. } => {}
        }
        if said.len() > LONGEST_ANSWER {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&said).into_owned())
}

fn engine(name: &str, doing: &str, error: &DockerError) -> EngineError {
    shiplap_engine::from_bollard(format!("{doing} {name}"), error)
}

/// Another verification may have a probe in the same namespace: then its end is waited for, within
/// the limit of the whole.
async fn create(
    docker: &DockerEngine,
    image: &str,
    questions: &Questions,
) -> Result<String, EngineError> {
    let name = name(&questions.container_id);
    loop {
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let made = docker.raw().create_container(Some(options), body(image, questions)).await;
        match made {
            Ok(created) => return Ok(created.id),
            Err(DockerError::DockerResponseServerError { status_code: 409, .. }) => {
                remove_abandoned(docker).await?;
                tokio::time::sleep(NAME_POLL).await;
            }
            Err(error) => return Err(engine(&name, "creating", &error)),
        }
    }
}

fn body(image: &str, questions: &Questions) -> ContainerCreateBody {
    let mut command = vec!["env".to_owned(), "probe".to_owned()];
    command.extend(probe::words(questions));
    ContainerCreateBody {
        image: Some(image.to_owned()),
        cmd: Some(command),
        user: Some("65534:65534".to_owned()),
        labels: Some(HashMap::from([(ROLE.to_owned(), PROBE_ROLE.to_owned())])),
        // The first process of a container does not hear SIGTERM unasked.
        stop_signal: Some("SIGKILL".to_owned()),
        host_config: Some(HostConfig {
            network_mode: Some(format!("container:{}", questions.container_id)),
            readonly_rootfs: Some(true),
            auto_remove: Some(true),
            cap_drop: Some(vec!["ALL".to_owned()]),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            // What it says is read as it comes, and belongs into no log.
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

/// A probe removes itself when it ends. Only one that never started stays, if whoever made it was
/// killed just then.
async fn remove_abandoned(docker: &DockerEngine) -> Result<(), EngineError> {
    let filters = HashMap::from([("label".to_owned(), vec![format!("{ROLE}={PROBE_ROLE}")])]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let listed = docker.raw().list_containers(Some(options)).await;
    let listed = listed.map_err(|error| engine("probes", "listing", &error))?;
    for id in listed.into_iter().filter_map(|summary| summary.id) {
        let Some(probe) = docker.container(&id).await? else { continue };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let made = Duration::from_millis(u64::try_from(probe.created_ms).unwrap_or(0));
        let waits = match probe.state {
            ContainerState::Running | ContainerState::Paused | ContainerState::Restarting => false,
            ContainerState::Created | ContainerState::Exited(_) | ContainerState::Dead => true,
        };
        if waits && now.saturating_sub(made) > ABANDONED {
            docker.remove(&id, AnonymousVolumes::Remove).await?;
        }
    }
    Ok(())
}
