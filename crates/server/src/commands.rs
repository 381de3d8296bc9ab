//! Commands that are run here for somebody elsewhere: what the command line can do, by its own words.

use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;
use shiplap_model::TokenScope;
use utoipa::ToSchema;

/// A command to be run here.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct CommandRequest {
    /// The form of the request: 1.
    pub version: u32,
    /// The project, where there are several.
    pub project: Option<String>,
    /// The words behind `shiplap`.
    pub words: Vec<String>,
    /// Whether questions are answered, by `…/input`.
    pub asks: bool,
    /// What it reads on standard input, where questions are not answered.
    pub input: String,
}

/// Who wants it run.
#[derive(Debug, Clone, Copy)]
pub struct CommandCaller<'a> {
    /// The token's name, or user and host.
    pub who: &'a str,
    /// What they may do.
    pub scope: &'a TokenScope,
}

/// What a command does, as it does it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandEvent {
    /// It printed on standard output.
    Out(String),
    /// It printed on standard error.
    Err(String),
    /// It ended with this exit code. Nothing follows.
    Exit(u8),
}

/// Why a command is not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandRefusal {
    /// There is no such project or environment, or the token is not good for it. The text is the same
    /// for both.
    #[error("there is no {0}, or this token is not for it")]
    Hidden(String),
    /// It cannot be run here, whoever asks.
    #[error("{0}")]
    Usage(String),
    /// It could not be started.
    #[error("{0}")]
    Failed(String),
}

/// Runs commands.
#[async_trait]
pub trait Commands: Send + Sync {
    /// Starts one, if the caller may have it run.
    async fn start(
        &self,
        request: &CommandRequest,
        caller: CommandCaller<'_>,
    ) -> Result<Arc<dyn RunningCommand>, CommandRefusal>;
}

/// A command that runs.
#[async_trait]
pub trait RunningCommand: Send + Sync {
    /// What it is, for the audit log: `deploy -e prod`. Holds no value.
    fn label(&self) -> &str;
    /// What it does next; the last one is [`CommandEvent::Exit`]. One at a time asks.
    async fn next(&self) -> CommandEvent;
    /// Gives it something to read, and says whether more will come. False where it reads nothing.
    async fn input(&self, text: &str, is_last: bool) -> bool;
    /// Asks it to undo what it has begun, and to end.
    fn interrupt(&self);
    /// Nobody reads what it prints any more.
    fn abandoned(&self);
}
