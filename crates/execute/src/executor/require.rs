//! What must hold before anything is changed: commands on this machine, and in containers made for
//! them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use shiplap_model::{
    AnonymousVolumes, CheckedImage, ContainerState, CreateReplica, Desired, ImageCheck,
    Requirement, RequirementRun, StepId, Tell,
};
use tokio::process::Command;
use tokio::time::Instant;

use super::{Learned, Run, StepError};
use crate::Event;
use crate::program::{self, Printed, ProgramError};

/// How often a container is looked at that has to end.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Lines of its log that are told.
const TAIL_LINES: u32 = 40;

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
        RequirementRun::Check(check) => {
            by_check(run, step, requirement, check.as_ref(), learned).await
        }
        RequirementRun::Container { desired, replica } => {
            in_a_container(run, step, requirement, desired, replica).await
        }
    }
}

/// The command's words with the image filled in.
fn filled(
    run: &Run,
    requirement: &Requirement,
    words: &[String],
    learned: &Mutex<Learned>,
) -> Vec<String> {
    let Some(image) = image(run, requirement, learned) else { return words.to_vec() };
    let exact = image.exact();
    words.iter().map(|word| word.replace("{image}", &exact).replace("{id}", &image.id)).collect()
}

/// The image that is asked about: the one that the deployment will run, whatever its tag says by
/// now.
fn image(run: &Run, requirement: &Requirement, learned: &Mutex<Learned>) -> Option<CheckedImage> {
    let reference = requirement.image.clone()?;
    let made = learned.lock().expect("no step panics").images.get(&reference).cloned();
    let pin = run.desired.services.values().map(|s| &s.image).find(|i| i.reference == reference);
    let id = made.or_else(|| pin?.id.clone()).unwrap_or_else(|| reference.clone());
    Some(CheckedImage { reference, digest: pin.and_then(|pin| pin.digest.clone()), id })
}

/// Asks code of our own, and keeps what it found for the journal.
async fn by_check(
    run: &Run,
    step: StepId,
    requirement: &Requirement,
    check: &dyn ImageCheck,
    learned: &Mutex<Learned>,
) -> Result<(), StepError> {
    let Some(image) = image(run, requirement, learned) else {
        return Err(StepError::Gate(format!("{requirement} is asked about no image")));
    };
    let reporter = Arc::clone(&run.reporter);
    let tell: Tell = Arc::new(move |line| reporter.event(Event::Output { step, line }));
    match tokio::time::timeout(requirement.limit, check.check(&image, Arc::clone(&tell))).await {
        Ok(Ok(found)) => {
            tell(found.clone());
            learned.lock().expect("no step panics").answers.insert(step, found);
            Ok(())
        }
        Ok(Err(why)) => Err(StepError::Gate(format!("{requirement} failed: {why}"))),
        Err(_) => Err(StepError::Gate(too_long(requirement))),
    }
}

async fn on_this_machine(
    run: &Run,
    step: StepId,
    requirement: &Requirement,
    command: Command,
) -> Result<(), StepError> {
    // What a command says is for whoever watches. It is the user's, and not written to history.
    let tell = |line| run.reporter.event(Event::Output { step, line });
    let kind = requirement.kind.word();
    match program::run(command, Printed::Told, requirement.limit, &tell).await {
        Ok(ended) if ended.status.success() => Ok(()),
        Ok(ended) => Err(StepError::Gate(format!("{requirement} failed: {}", ended.words()))),
        Err(ProgramError::TooLong(_)) => Err(StepError::Gate(too_long(requirement))),
        Err(error @ ProgramError::NotStarted(..)) => {
            Err(StepError::Gate(format!("{kind} cannot be asked for: {error}")))
        }
        Err(error) => Err(StepError::Gate(format!("{requirement}: {error}"))),
    }
}

fn too_long(requirement: &Requirement) -> String {
    let seconds = requirement.limit.as_secs();
    format!(
        "{requirement} took longer than {seconds} s (`timeout` of gates.{} in shiplap.yaml)",
        requirement.kind.word()
    )
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
