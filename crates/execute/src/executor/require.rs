//! What must hold before anything is changed: commands on this machine, and in containers made for
//! them.

use std::process::{ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use shiplap_model::{
    AnonymousVolumes, ContainerState, CreateReplica, Desired, Requirement, RequirementRun, StepId,
};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::{Learned, Run, StepError};
use crate::Event;

/// How often a container is looked at that has to end.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Lines of its log that are told.
const TAIL_LINES: u32 = 40;
/// How long a command that has to stop may take for it.
const STOP_WITHIN: Duration = Duration::from_secs(10);

pub(super) async fn require(
    run: &Run,
    step: StepId,
    requirement: &Requirement,
    learned: &Mutex<Learned>,
) -> Result<(), StepError> {
    match &requirement.run {
        RequirementRun::Command { words, folder } => {
            let words = filled(run, requirement, words, learned);
            let mut command = Command::new(&words[0]);
            command
                .args(&words[1..])
                .current_dir(folder)
                .env("SHIPLAP_PROJECT", &run.desired.project)
                .env("SHIPLAP_ENVIRONMENT", &run.desired.environment)
                .env("SHIPLAP_DEPLOYMENT", run.number.to_string());
            on_this_machine(run, step, requirement, command).await
        }
        RequirementRun::Container { desired, replica } => {
            in_a_container(run, step, requirement, desired, replica).await
        }
    }
}

/// The command's words with the image filled in: the id that the deployment will run, whatever its
/// tag says by now.
fn filled(
    run: &Run,
    requirement: &Requirement,
    words: &[String],
    learned: &Mutex<Learned>,
) -> Vec<String> {
    let Some(reference) = &requirement.image else { return words.to_vec() };
    let made = learned.lock().expect("no step panics").images.get(reference).cloned();
    let pin = run.desired.services.values().map(|s| &s.image).find(|i| i.reference == *reference);
    let id = made.or_else(|| pin?.id.clone()).unwrap_or_else(|| reference.clone());
    let exact = pin.and_then(shiplap_model::ImagePin::by_digest).unwrap_or_else(|| id.clone());
    words.iter().map(|word| word.replace("{image}", &exact).replace("{id}", &id)).collect()
}

async fn on_this_machine(
    run: &Run,
    step: StepId,
    requirement: &Requirement,
    mut command: Command,
) -> Result<(), StepError> {
    let kind = requirement.kind.word();
    // A group of its own: Ctrl-C is ours to pass on, and what it started is stopped with it.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let child = command.spawn().map_err(|error| {
        let program = command.as_std().get_program().to_string_lossy().into_owned();
        StepError::Gate(format!("{kind} cannot be asked for: {program}: {error}"))
    })?;
    let mut group = Group { child };
    let (out, err) = (group.child.stdout.take(), group.child.stderr.take());
    let ended = async {
        let told = tokio::join!(tell(run, step, out), tell(run, step, err));
        let ((), ()) = told;
        group.child.wait().await
    };
    match tokio::time::timeout(requirement.limit, ended).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(StepError::Gate(format!("{requirement} failed: {}", words(status)))),
        Ok(Err(error)) => Err(StepError::Gate(format!("{requirement} was lost: {error}"))),
        Err(_) => {
            group.stop().await;
            Err(StepError::Gate(too_long(requirement)))
        }
    }
}

fn too_long(requirement: &Requirement) -> String {
    let seconds = requirement.limit.as_secs();
    format!(
        "{requirement} took longer than {seconds} s (`timeout` of gates.{} in shiplap.yaml)",
        requirement.kind.word()
    )
}

fn words(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("exit code {code}"),
        None => "ended by a signal".to_owned(),
    }
}

/// What a command says is for whoever watches. It is the user's, and not written to history.
async fn tell(run: &Run, step: StepId, output: Option<impl AsyncRead + Unpin>) {
    let Some(output) = output else { return };
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        run.reporter.event(Event::Output { step, line });
    }
}

/// A command and all that it started: dropped before its end, they are asked to stop.
struct Group {
    child: Child,
}

impl Group {
    fn ask(&self) {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(group) = id.and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::TERM);
        }
    }

    async fn stop(&mut self) {
        self.ask();
        if tokio::time::timeout(STOP_WITHIN, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.ask();
    }
}

/// Runs a container to its end, and removes it whatever came of it.
async fn in_a_container(
    run: &Run,
    step: StepId,
    requirement: &Requirement,
    desired: &Desired,
    replica: &CreateReplica,
) -> Result<(), StepError> {
    let name = replica.name.as_str();
    // One that an interrupted deployment left.
    run.engine.remove(name, AnonymousVolumes::Remove).await?;
    run.engine.create(desired, replica).await?;
    let ended = to_its_end(run, requirement, name).await;
    for line in run.engine.tail(name, TAIL_LINES).await.unwrap_or_default() {
        run.reporter.event(Event::Output { step, line });
    }
    run.engine.remove(name, AnonymousVolumes::Remove).await?;
    ended
}

async fn to_its_end(run: &Run, requirement: &Requirement, name: &str) -> Result<(), StepError> {
    run.engine.start(name).await?;
    let began = Instant::now();
    loop {
        let state = run.engine.container(name).await?.map(|container| container.state);
        match state {
            Some(ContainerState::Exited(0)) => return Ok(()),
            Some(ContainerState::Exited(code)) => {
                return Err(StepError::Gate(format!("{requirement} failed: exit code {code}")));
            }
            None => return Err(StepError::Gate(format!("{name} was removed while it ran"))),
            Some(ContainerState::Dead) => {
                return Err(StepError::Gate(format!("{requirement} failed: {name} is dead")));
            }
            Some(
                ContainerState::Created
                | ContainerState::Running
                | ContainerState::Restarting
                | ContainerState::Paused,
            ) => {}
        }
        if let Some(reason) = run.cancel.reason() {
            return Err(StepError::Cancelled(reason));
        }
        if began.elapsed() >= requirement.limit {
            return Err(StepError::Gate(too_long(requirement)));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
