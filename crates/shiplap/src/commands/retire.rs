//! `retire`: what a deployment leaves running behind it, to end its standby in time.

use std::process::{Command, Stdio};
use std::time::Duration;

use shiplap_execute::app::AppError;
use shiplap_model::Scope;

use super::Exit;
use crate::cli::ProjectArgs;
use crate::world::Place;

/// How often it is tried while somebody else holds the lease.
const TRIES: u32 = 10;
/// Between two tries.
const TRY_AGAIN: Duration = Duration::from_secs(30);

/// Waits, then stops the frozen replicas.
pub async fn retire(project: &ProjectArgs, containers: &[String], after: Duration) -> Exit {
    // A session of its own: the terminal it was started from may close.
    let _ = rustix::process::setsid();
    tokio::time::sleep(after).await;
    let Some(scope) = super::named_scope(project) else { return Exit::Usage };
    for _ in 0..TRIES {
        let Ok(place) = Place::usual() else { return Exit::Failed };
        let Ok((app, _)) = super::app(&place, None).await else { return Exit::Failed };
        match app.retire(&scope, containers).await {
            Err(AppError::LeaseHeld(_)) => tokio::time::sleep(TRY_AGAIN).await,
            Ok(_) => return Exit::Done,
            Err(_) => return Exit::Failed,
        }
    }
    Exit::Failed
}

/// Starts that in the background. Where it cannot be started, or is killed, the frozen replicas
/// stay until the next deployment: they use memory and nothing else.
pub fn in_background(place: &Place, scope: &Scope, containers: &[String], after: Duration) {
    let Ok(own) = std::env::current_exe() else { return };
    let mut command = Command::new(own);
    command
        .args(["-p", &scope.project, "-e", &scope.environment, "retire", "--after"])
        .arg(format!("{}s", after.as_secs().max(1)))
        .args(containers)
        // With a project's name it reads no shiplap.yaml, which may say another target by then.
        .env("DOCKER_HOST", place.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/");
    crate::ledger::hand_over(&mut command);
    {
        use std::os::unix::process::CommandExt as _;
        // Not in the terminal's group: closing it, or Ctrl-C, is not meant for it.
        command.process_group(0);
    }
    let _ = command.spawn();
}
