//! What flows: logs, commands inside containers, images from archives.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, ResizeExecOptions, StartExecOptions, StartExecResults};
use bollard::query_parameters::LogsOptionsBuilder;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use shiplap_model::{EngineError, EngineErrorKind, ExecResult, Limit};
use tokio::io::AsyncWrite;

use crate::client::Call;
use crate::engine::DockerEngine;
use crate::error::{from_bollard, with_kind};

/// The end of a command's output that is kept.
const OUTPUT_LIMIT: usize = 4 << 10;

/// Which part of a container's output is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Goes on while the container runs.
    pub follow: bool,
    /// Only so many lines from the end.
    pub tail: Option<u32>,
    /// Only what came after this second since 1970.
    pub since_s: Option<i32>,
    /// Puts the engine's time in front of each line.
    pub timestamps: bool,
}

/// A piece of a container's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChunk {
    /// Whether it went to standard error.
    pub is_stderr: bool,
    /// The bytes, at most a line.
    pub bytes: Bytes,
}

/// How a command is run in a container by hand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TerminalExec {
    /// The command, a word each.
    pub command: Vec<String>,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// Whether our input goes to it.
    pub stdin: bool,
    /// As whom it runs, if not as the container's user.
    pub user: Option<String>,
    /// Where it runs, if not in the container's folder.
    pub working_dir: Option<String>,
    /// Further variables, `NAME=value`.
    pub environment: Vec<String>,
    /// Whether it gets all capabilities.
    pub privileged: bool,
}

/// A running command with its streams.
pub struct Terminal {
    /// The engine's id of it, for [`DockerEngine::resize`] and [`DockerEngine::exit_code`].
    pub id: String,
    /// What it prints. With a terminal everything counts as standard output.
    pub output: Pin<Box<dyn Stream<Item = Result<LogChunk, EngineError>> + Send>>,
    /// What it reads.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
}

impl std::fmt::Debug for Terminal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terminal").field("id", &self.id).finish_non_exhaustive()
    }
}

impl DockerEngine {
    /// A container's output.
    ///
    /// # Errors
    /// When the engine cannot be asked; what goes wrong later comes through the stream.
    pub async fn logs(
        &self,
        container: &str,
        options: &LogOptions,
    ) -> Result<impl Stream<Item = Result<LogChunk, EngineError>> + Send + use<>, EngineError> {
        self.api().await?;
        let tail = options.tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string());
        let wanted = LogsOptionsBuilder::new()
            .follow(options.follow)
            .stdout(true)
            .stderr(true)
            .since(options.since_s.unwrap_or(0))
            .timestamps(options.timestamps)
            .tail(&tail)
            .build();
        let doing = format!("reading the logs of {container}");
        let stream = self.raw().logs(container, Some(wanted));
        Ok(stream.map(move |item| match item {
            Ok(output) => Ok(chunk(output)),
            Err(error) => Err(from_bollard(doing.clone(), &error)),
        }))
    }

    /// Runs a command in a container with its streams connected to ours.
    ///
    /// # Errors
    /// When the container does not run or the command cannot be started.
    pub async fn exec_interactive(
        &self,
        container: &str,
        exec: &TerminalExec,
    ) -> Result<Terminal, EngineError> {
        let options = CreateExecOptions {
            attach_stdin: Some(exec.stdin),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(exec.tty),
            cmd: Some(exec.command.clone()),
            env: (!exec.environment.is_empty()).then(|| exec.environment.clone()),
            user: exec.user.clone(),
            working_dir: exec.working_dir.clone(),
            privileged: exec.privileged.then_some(true),
            ..Default::default()
        };
        self.start_exec(container, options).await
    }

    async fn start_exec(
        &self,
        container: &str,
        options: CreateExecOptions<String>,
    ) -> Result<Terminal, EngineError> {
        self.api().await?;
        let doing = format!("running a command in {container}");
        let tty = options.tty == Some(true);
        let wait = self.client.wait(Limit::EngineCall);
        let started = async {
            let created = self.raw().create_exec(container, options).await?;
            let start = StartExecOptions { detach: false, tty, output_capacity: None };
            Ok((created.id.clone(), self.raw().start_exec(&created.id, Some(start)).await?))
        };
        let (id, streams) = match tokio::time::timeout(wait.time, started).await {
            Ok(result) => result.map_err(|e| from_bollard(doing.clone(), &e))?,
            Err(_) => return Err(wait.over(doing, "not done")),
        };
        let StartExecResults::Attached { output, input } = streams else {
            unreachable!("it was not asked to detach");
        };
        let output = output.map(move |item| match item {
            Ok(output) => Ok(chunk(output)),
            Err(error) => Err(from_bollard(doing.clone(), &error)),
        });
        Ok(Terminal { id, output: Box::pin(output), input })
    }

    /// Tells a command's terminal how large ours is.
    ///
    /// # Errors
    /// When the command is gone.
    pub async fn resize(&self, exec_id: &str, width: u16, height: u16) -> Result<(), EngineError> {
        let size = ResizeExecOptions { height, width };
        let doing = "resizing a terminal";
        self.raw().resize_exec(exec_id, size).await.map_err(|e| from_bollard(doing, &e))
    }

    /// The exit code of a command that has ended.
    ///
    /// # Errors
    /// When the engine has forgotten it.
    pub async fn exit_code(&self, exec_id: &str) -> Result<Option<i64>, EngineError> {
        let call = Call::get(format!("/exec/{exec_id}/json"));
        let state = self.client.fetch(call, || "asking for an exit code".into()).await?;
        Ok(state["ExitCode"].as_i64().filter(|_| state["Running"] == false))
    }

    /// Takes images from an archive that `docker save` could have made; returns what the engine
    /// says about it, such as `Loaded image: edge:1`.
    ///
    /// # Errors
    /// When the archive is of no use to the engine.
    pub async fn load_image(&self, archive: Bytes) -> Result<Vec<String>, EngineError> {
        self.api().await?;
        let call = Call::post("/images/load").query("quiet", "1").tar(archive);
        let mut said = Vec::new();
        let doing = || "loading an image".to_owned();
        self.follow(call, Limit::Pull, doing, &AtomicU64::new(0), |event| {
            said.extend(event["stream"].as_str().map(|line| line.trim().to_owned()));
        })
        .await?;
        Ok(said)
    }

    pub(crate) async fn exec_in(
        &self,
        container: &str,
        command: &[String],
        limit: Duration,
    ) -> Result<ExecResult, EngineError> {
        let options = CreateExecOptions {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(command.to_vec()),
            ..Default::default()
        };
        let whole = async {
            // The writing half stays open until the end: closing it may end the connection.
            let Terminal { id, mut output, input: _input } =
                self.start_exec(container, options).await?;
            let mut end: VecDeque<u8> = VecDeque::new();
            while let Some(chunk) = output.next().await {
                end.extend(chunk?.bytes);
                let surplus = end.len().saturating_sub(OUTPUT_LIMIT);
                end.drain(..surplus);
            }
            let exit_code = self.exit_code_soon(&id, container).await?;
            let output = String::from_utf8_lossy(end.make_contiguous()).into_owned();
            Ok(ExecResult { exit_code, output })
        };
        match tokio::time::timeout(limit, whole).await {
            Ok(result) => result,
            Err(_) => Err(late(format!("running a command in {container}"), limit)),
        }
    }

    /// The stream may end a moment before the engine has noted the exit. The caller limits time.
    async fn exit_code_soon(&self, id: &str, container: &str) -> Result<i64, EngineError> {
        const ROUNDS: u32 = 500;
        for _ in 0..ROUNDS {
            if let Some(code) = self.exit_code(id).await? {
                return Ok(code);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let doing = format!("running a command in {container}");
        Err(with_kind(EngineErrorKind::Internal, doing, "its output ended and it did not"))
    }

    pub(crate) async fn last_lines(
        &self,
        container: &str,
        lines: u32,
    ) -> Result<Vec<String>, EngineError> {
        let options = LogOptions { tail: Some(lines), ..Default::default() };
        let wait = self.client.wait(Limit::EngineCall);
        let stream = self.logs(container, &options).await?;
        let whole = async {
            futures_util::pin_mut!(stream);
            let mut text = Vec::new();
            while let Some(chunk) = stream.next().await {
                text.extend_from_slice(&chunk?.bytes);
            }
            Ok(String::from_utf8_lossy(&text).lines().map(str::to_owned).collect())
        };
        match tokio::time::timeout(wait.time, whole).await {
            Ok(result) => result,
            Err(_) => Err(wait.over(format!("reading the logs of {container}"), "not done")),
        }
    }
}

fn chunk(output: LogOutput) -> LogChunk {
    let is_stderr = matches!(output, LogOutput::StdErr { .. });
    LogChunk { is_stderr, bytes: output.into_bytes() }
}

fn late(doing: String, limit: Duration) -> EngineError {
    let message = format!("not done after {} s", limit.as_secs());
    with_kind(EngineErrorKind::Timeout, doing, message)
}
