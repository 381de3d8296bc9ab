//! Programs on the deployer's machine.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// How long a program that has to stop may take for it.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// What becomes of what a program prints to its standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Printed {
    /// It is told line by line, as is what goes to standard error.
    Told,
    /// It is kept, up to so many bytes.
    Kept(usize),
}

/// A program that has ended.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub status: ExitStatus,
    /// What it printed, where that was to be kept.
    pub output: Vec<u8>,
}

impl Ended {
    /// How it ended, in words.
    #[must_use]
    pub fn words(&self) -> String {
        match self.status.code() {
            Some(code) => format!("exit code {code}"),
            None => "ended by a signal".to_owned(),
        }
    }
}

/// A program that did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It cannot be started.
    #[error("{0}: {1}")]
    NotStarted(String, io::Error),
    /// What became of it is not known.
    #[error("it was lost: {0}")]
    Lost(io::Error),
    /// It took longer than it may.
    #[error("it took longer than {} s", .0.as_secs())]
    TooLong(Duration),
    /// It printed more than is kept.
    #[error("it printed more than {0} bytes")]
    TooMuch(usize),
}

/// Runs a program to its end, with nothing to read. It gets a group of its own, since Ctrl-C is ours
/// to pass on; dropping the future, or the end of `limit`, stops it and all that it started.
///
/// # Errors
/// When it cannot be started, takes too long or prints too much.
pub async fn run(
    mut command: Command,
    printed: Printed,
    limit: Duration,
    tell: &(dyn Fn(String) + Send + Sync),
) -> Result<Ended, ProgramError> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let child = command.spawn().map_err(|error| {
        let program = command.as_std().get_program().to_string_lossy().into_owned();
        ProgramError::NotStarted(program, error)
    })?;
    let mut group = Group { child };
    let (out, err) = (group.child.stdout.take(), group.child.stderr.take());
    let ended = async {
        let output = async {
            match printed {
                Printed::Told => {
                    lines(out, tell).await;
                    Ok(Vec::new())
                }
                Printed::Kept(most) => kept(out, most).await,
            }
        };
        let errors = async {
            lines(err, tell).await;
            Ok(())
        };
        let ((), output) = tokio::try_join!(errors, output)?;
        let status = group.child.wait().await.map_err(ProgramError::Lost)?;
        Ok(Ended { status, output })
    };
    match tokio::time::timeout(limit, ended).await {
        Ok(ended) => ended,
        Err(_) => {
            group.stop().await;
            Err(ProgramError::TooLong(limit))
        }
    }
}

async fn lines(output: Option<impl AsyncRead + Unpin>, tell: &(dyn Fn(String) + Send + Sync)) {
    let Some(output) = output else { return };
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        tell(line);
    }
}

async fn kept(
    output: Option<impl AsyncRead + Unpin>,
    most: usize,
) -> Result<Vec<u8>, ProgramError> {
    let mut bytes = Vec::new();
    if let Some(output) = output {
        let longer = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
        output.take(longer).read_to_end(&mut bytes).await.map_err(ProgramError::Lost)?;
    }
    if bytes.len() > most { Err(ProgramError::TooMuch(most)) } else { Ok(bytes) }
}

/// A program and all that it started: dropped before its end, they are asked to stop.
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
