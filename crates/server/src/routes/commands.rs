//! Commands that are run here for somebody elsewhere.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::unfold;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::extract::{Json, PathParts};
use crate::audit::Noted;
use crate::caller::Caller;
use crate::commands::{CommandEvent, CommandRefusal, CommandRequest, RunningCommand};
use crate::core::Core;
use crate::problem::{Problem, ProblemView};

/// Commands that run at the same time.
const MOST: usize = 32;
/// Lines that a client may be behind; then its command's output waits in its file.
const BEHIND: usize = 64;
/// An answer in which nothing happens says so after this, so that proxies keep it open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The most words of a command.
const MAX_WORDS: usize = 1000;

/// The commands that run.
#[derive(Default)]
pub(crate) struct Running {
    last: AtomicU64,
    all: Mutex<HashMap<u64, Entry>>,
}

struct Entry {
    command: Arc<dyn RunningCommand>,
    /// Whoever has it run: others cannot tell it anything.
    who: (String, Option<String>),
}

impl Running {
    fn all(&self) -> MutexGuard<'_, HashMap<u64, Entry>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, path: &PathParts, caller: &Caller) -> Result<Arc<dyn RunningCommand>, Problem> {
        let id = path.number("id")?;
        let who = (caller.who.clone(), caller.token.clone());
        let all = self.all();
        let own = all.get(&id).filter(|entry| entry.who == who);
        own.map(|entry| Arc::clone(&entry.command))
            .ok_or_else(|| Problem::hidden(format_args!("command {id}")))
    }
}

/// Run a command of the command line here. The answer is a stream of lines of JSON: `{"id": "7"}` first,
/// then `{"out": …}` and `{"err": …}`, at last `{"exit": 0}`.
#[utoipa::path(
    post, path = "/api/v1/commands", tag = "commands", request_body = CommandRequest,
    responses(
        (status = 200, body = String, content_type = "application/x-ndjson"),
        (status = "4XX", body = ProblemView), (status = 503, body = ProblemView)),
)]
pub(crate) async fn run(
    State(core): State<Arc<Core>>,
    caller: Caller,
    noted: Noted,
    Json(request): Json<CommandRequest>,
) -> Result<Response, Problem> {
    let Some(commands) = &core.commands else { return Err(Problem::hidden("such address")) };
    if request.words.is_empty() || request.words.len() > MAX_WORDS {
        return Err(Problem::invalid("bad-words", "`words` are what stands behind `shiplap`"));
    }
    if core.running_commands.all().len() >= MOST {
        return Err(Problem::too_many("too many commands are running", Duration::from_secs(5)));
    }
    let started = commands.start(&request, caller.for_commands()).await;
    let command = started.map_err(|refusal| match refusal {
        CommandRefusal::Hidden(what) => Problem::hidden(what),
        CommandRefusal::Usage(message) => Problem::invalid("not-here", message),
        CommandRefusal::Failed(message) => Problem::away(message),
    })?;
    let id = core.running_commands.last.fetch_add(1, Ordering::Relaxed) + 1;
    noted.did(format!("runs command {id}: {}", command.label()));
    let who = (caller.who.clone(), caller.token.clone());
    let entry = Entry { command: Arc::clone(&command), who };
    core.running_commands.all().insert(id, entry);
    let (sender, receiver) = mpsc::channel(BEHIND);
    let _ = sender.try_send(json!({ "id": id.to_string() }).to_string());
    let own = Arc::clone(&core);
    tokio::spawn(async move {
        relay(command.as_ref(), &sender).await;
        own.running_commands.all().remove(&id);
    });
    let lines = unfold(receiver, |mut receiver| async {
        let line = match timeout(KEEP_ALIVE, receiver.recv()).await {
            Ok(line) => line?,
            Err(_) => json!({ "waiting": true }).to_string(),
        };
        Some((Ok::<_, Infallible>(Bytes::from(format!("{line}\n"))), receiver))
    });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

/// Passes on what it does until its end, also if nobody listens any more.
async fn relay(command: &dyn RunningCommand, sender: &mpsc::Sender<String>) {
    let mut is_abandoned = false;
    loop {
        let event = tokio::select! {
            event = command.next() => event,
            () = sender.closed(), if !is_abandoned => {
                is_abandoned = true;
                command.abandoned();
                continue;
            }
        };
        let (line, is_last) = match event {
            CommandEvent::Out(text) => (json!({ "out": text }), false),
            CommandEvent::Err(text) => (json!({ "err": text }), false),
            CommandEvent::Exit(code) => (json!({ "exit": code }), true),
        };
        if !is_abandoned && sender.send(line.to_string()).await.is_err() {
            is_abandoned = true;
            command.abandoned();
        }
        if is_last {
            return;
        }
    }
}

/// What a command is told.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct CommandInput {
    /// What it reads, with line breaks.
    pub input: String,
    /// Whether nothing more will come.
    pub end: bool,
}

/// Tell a command that runs something.
#[utoipa::path(
    post, path = "/api/v1/commands/{id}/input", tag = "commands", params(("id" = u64, Path)),
    request_body = CommandInput,
    responses((status = 204), (status = "4XX", body = ProblemView)),
)]
pub(crate) async fn input(
    State(core): State<Arc<Core>>,
    caller: Caller,
    path: PathParts,
    Json(told): Json<CommandInput>,
) -> Result<StatusCode, Problem> {
    let command = core.running_commands.of(&path, &caller)?;
    if command.input(&told.input, told.end).await {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::invalid("reads-nothing", "the command reads nothing"))
    }
}

/// Interrupt a command that runs: what it has begun is undone, as after Ctrl-C.
#[utoipa::path(
    post, path = "/api/v1/commands/{id}/interrupt", tag = "commands", params(("id" = u64, Path)),
    responses((status = 204), (status = "4XX", body = ProblemView)),
)]
pub(crate) async fn interrupt(
    State(core): State<Arc<Core>>,
    caller: Caller,
    noted: Noted,
    path: PathParts,
) -> Result<StatusCode, Problem> {
    core.running_commands.of(&path, &caller)?.interrupt();
    noted.did(format!("interrupts command {}", path.get("id")));
    Ok(StatusCode::NO_CONTENT)
}
