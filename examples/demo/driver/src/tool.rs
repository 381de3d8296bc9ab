//! The program that is shown: Shiplap, or the peer in its place.

use crate::folder::Folder;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::Command;
use tokio::sync::watch;

/// Well above the slowest act; a program that hangs must not hang the demo.
pub const RUN_TIMEOUT: Duration = Duration::from_secs(180);

/// The program, and the run of it that is going on.
pub struct Tool {
    program: Program,
    running: watch::Sender<Option<Pid>>,
}

/// Who deploys.
pub enum Program {
    /// The `shiplap` binary.
    Shiplap(PathBuf),
    /// Docker Compose, as the words that start it.
    Peer(Vec<String>),
}

/// What it is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Make the release with this tag current.
    Deploy(&'static str),
    /// Go back to the first deployment, which had this tag.
    RollBack(&'static str),
    /// Remove the project and its data.
    Down,
}

/// How a run of the program ended.
pub struct Run {
    /// Its exit code; `None` if a signal or the time limit ended it.
    pub exit: Option<i32>,
    /// From its start to its end.
    pub took: Duration,
    /// What it printed, standard output and standard error together.
    pub output: String,
}

impl Tool {
    /// A tool that does nothing yet.
    pub fn new(program: Program) -> Tool {
        Tool { program, running: watch::channel(None).0 }
    }

    /// The program's name, for people.
    pub fn name(&self) -> String {
        match &self.program {
            Program::Shiplap(_) => "shiplap".into(),
            Program::Peer(words) => {
                let program = words[0].rsplit('/').next().unwrap_or_default();
                [&[program.to_owned()], &words[1..]].concat().join(" ")
            }
        }
    }

    /// Tells the program to end, if it runs, and waits until it has.
    ///
    /// Killed outright it could leave its lease behind, and then refuse to remove the project.
    pub async fn stop(&self) {
        let pid = *self.running.borrow();
        if let Some(pid) = pid {
            // It may have ended just now.
            let _ = kill_process(pid, Signal::TERM);
            // The sender is ours, so waiting for it cannot fail.
            let _ = self.running.subscribe().wait_for(Option::is_none).await;
        }
    }

    /// Runs the program in the folder and waits for it.
    pub async fn run(&self, order: Order, folder: &Folder) -> Result<Run, String> {
        let mut words = self.words(order).into_iter();
        let program = words.next().expect("a program has a name");
        let log_path = folder.path.join(format!("{}.log", folder.next_number()));
        let failed = |error| format!("starting `{program}` failed: {error}");
        // One file for both streams keeps their order and cannot fill up as a pipe does.
        let log = File::create(&log_path).map_err(failed)?;
        let mut command = Command::new(&program);
        command
            .args(words)
            .current_dir(&folder.path)
            .env("NO_COLOR", "1")
            .envs(folder.variables())
            .env("TAG", self.tag(order))
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .kill_on_drop(true);
        let start = Instant::now();
        let mut child = command.spawn().map_err(failed)?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
        self.running.send_replace(pid);
        let waited = tokio::time::timeout(RUN_TIMEOUT, child.wait()).await;
        self.running.send_replace(None);
        let took = start.elapsed();
        let exit = match waited {
            Ok(status) => status.map_err(failed)?.code(),
            Err(_) => {
                // It may have ended just now.
                let _ = child.kill().await;
                None
            }
        };
        let output = std::fs::read(&log_path).map_err(failed)?;
        Ok(Run { exit, took, output: String::from_utf8_lossy(&output).into_owned() })
    }

    /// The tag that the Compose file reads from the environment.
    fn tag(&self, order: Order) -> &'static str {
        match (&self.program, order) {
            (_, Order::Deploy(tag)) | (Program::Peer(_), Order::RollBack(tag)) => tag,
            // As in the shell of someone who has just tried v3: the ledger decides, not this.
            (Program::Shiplap(_), Order::RollBack(_)) => "v3",
            (_, Order::Down) => "v1",
        }
    }

    fn words(&self, order: Order) -> Vec<String> {
        let (mut words, arguments): (Vec<String>, &[&str]) = match (&self.program, order) {
            (Program::Shiplap(path), order) => (
                vec![path.to_string_lossy().into_owned()],
                match order {
                    Order::Deploy(_) => &["deploy", "--yes"],
                    Order::RollBack(_) => &["rollback", "--to", "1", "--yes"],
                    Order::Down => &["down", "--volumes", "--yes"],
                },
            ),
            (Program::Peer(peer), order) => (
                peer.clone(),
                match order {
                    // The peer has no rollback: it deploys the old tag again.
                    Order::Deploy(_) | Order::RollBack(_) => &["up", "-d"],
                    Order::Down => &["down", "--volumes"],
                },
            ),
        };
        words.extend(arguments.iter().map(|word| (*word).into()));
        words
    }
}
