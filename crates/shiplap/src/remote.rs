//! The same commands on a control server: `shiplap --server URL …`.
//!
//! The words of the command line go there as they are; what the command prints there comes back
//! line by line, and so does its exit code. Questions are asked here.

mod address;
mod http;

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};
use shiplap_model::Secret;

pub use address::ServerAddress;
use http::{Failure, Server};

use crate::exit::Exit;

/// The token for a server.
const TOKEN_VARIABLE: &str = "SHIPLAP_TOKEN";
/// Set for what a control server runs: it acts by itself, whatever its command line says.
pub const INSIDE_VARIABLE: &str = "SHIPLAP_IN_SERVER";
/// Set there where somebody can be asked, by lines on standard input.
pub const ASKS_VARIABLE: &str = "SHIPLAP_ASKS";
/// The form of requests and answers.
const VERSION: u32 = 1;

/// Which control server.
#[derive(Debug, Clone, Default, Args)]
pub struct RemoteArgs {
    /// Act through a control server: https://HOST, unix:///PATH, or ssh://USER@HOST for its socket
    /// there
    #[arg(long, global = true, value_name = "URL", env = "SHIPLAP_SERVER", hide_env = true)]
    pub server: Option<String>,
    /// File with the token for it [default: the variable SHIPLAP_TOKEN]
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Project on it, where it has several
    #[arg(long = "project", global = true, value_name = "NAME")]
    pub project_there: Option<String>,
}

impl RemoteArgs {
    /// The server to act through, if there is one and we are not what it runs.
    pub fn wanted(&self) -> Option<&str> {
        let inside = std::env::var_os(INSIDE_VARIABLE).is_some();
        self.server.as_deref().filter(|url| !url.is_empty() && !inside)
    }
}

/// Whether a question can be asked: on a terminal, or of whoever asked a control server.
pub fn can_ask() -> bool {
    std::io::stdin().is_terminal()
        || std::env::var_os(ASKS_VARIABLE).is_some_and(|asks| !asks.is_empty())
}

/// Runs the command of this process on a server, and ends as it ends there. One that reads what it
/// is given on standard input gets it whole.
pub async fn run(url: &str, args: &RemoteArgs, reads_input: bool) -> Exit {
    let words: Option<Vec<String>> =
        std::env::args_os().skip(1).map(|word| word.into_string().ok()).collect();
    let Some(words) = words else {
        eprintln!("error[usage]: a word of the command line is not UTF-8");
        return Exit::Usage;
    };
    if reads_input && std::io::stdin().is_terminal() {
        eprintln!("error[usage]: what is typed here would be shown on the way to {url}");
        eprintln!("  = help: pipe it in, or name a file by `< FILE`");
        return Exit::Usage;
    }
    match relay(url, args, words).await {
        Ok(exit) => exit,
        Err(Failure { message, help }) => {
            eprintln!("error[server]: {message}");
            if let Some(help) = help {
                eprintln!("  = help: {help}");
            }
            Exit::Failed
        }
    }
}

async fn relay(url: &str, args: &RemoteArgs, words: Vec<String>) -> Result<Exit, Failure> {
    let address = ServerAddress::parse(url)?;
    let server = Arc::new(Server::open(&address, token(args)?).await?);
    let asks = std::io::stdin().is_terminal();
    // What is piped in goes along; a terminal is read line by line, as questions come.
    let input = if asks { String::new() } else { piped().await? };
    let request = json!({
        "version": VERSION,
        "project": args.project_there,
        "words": words,
        "asks": asks,
        "input": input,
    });
    let mut lines = server.post_lines("/api/v1/commands", &request).await?;
    let mut id = None;
    let mut interrupts = Interrupts::listen();
    loop {
        let line = tokio::select! {
            line = lines.next() => line?,
            () = interrupts.next() => {
                let Some(id) = &id else { return Ok(Exit::Failed) };
                if interrupts.seen > 1 {
                    eprintln!("it goes on there; `shiplap --server … status` shows how");
                    return Ok(Exit::Stuck);
                }
                server.post(&format!("/api/v1/commands/{id}/interrupt"), &json!({})).await?;
                continue;
            }
        };
        let Some(line) = line else {
            let message = format!("the connection to {url} ended before the command did");
            return Err(Failure::new(message).help("what it does there goes on: look at `status`"));
        };
        let event: Value = serde_json::from_str(&line)
            .map_err(|error| Failure::new(format!("{url} answers what is no event: {error}")))?;
        if let Some(given) = event["id"].as_str() {
            id = Some(given.to_owned());
            if let Some(id) = id.clone().filter(|_| asks) {
                tokio::spawn(answers(Arc::clone(&server), id));
            }
        }
        if let Some(text) = event["out"].as_str() {
            let _ = std::io::stdout().write_all(text.as_bytes());
            let _ = std::io::stdout().flush();
        }
        if let Some(text) = event["err"].as_str() {
            let _ = std::io::stderr().write_all(text.as_bytes());
        }
        if let Some(code) = event["exit"].as_u64() {
            return Ok(Exit::Of(u8::try_from(code).unwrap_or(70)));
        }
    }
}

fn token(args: &RemoteArgs) -> Result<Option<Secret<String>>, Failure> {
    let text = match &args.token_file {
        Some(path) => Some(std::fs::read_to_string(path).map_err(|error| {
            Failure::new(format!("the token in {} cannot be read: {error}", path.display()))
        })?),
        None => std::env::var(TOKEN_VARIABLE).ok(),
    };
    let text = text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    Ok(text.map(Secret::new))
}

/// All of standard input, where it is no terminal.
async fn piped() -> Result<String, Failure> {
    let read = tokio::task::spawn_blocking(|| std::io::read_to_string(std::io::stdin()));
    match read.await {
        Ok(Ok(text)) => Ok(text),
        Ok(Err(error)) => Err(Failure::new(format!("standard input cannot be read: {error}"))),
        Err(_) => Ok(String::new()),
    }
}

/// Sends lines that are typed here to the command.
async fn answers(server: Arc<Server>, id: String) {
    let path = format!("/api/v1/commands/{id}/input");
    loop {
        let read = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            let length = std::io::stdin().lock().read_line(&mut line);
            length.ok().filter(|length| *length > 0).map(|_| line)
        });
        let Ok(Some(line)) = read.await else { return };
        if server.post(&path, &json!({ "input": line })).await.is_err() {
            return;
        }
    }
}

/// Ctrl-C and SIGTERM.
struct Interrupts {
    signals: Vec<tokio::signal::unix::Signal>,
    seen: u32,
}

impl Interrupts {
    fn listen() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        let kinds = [SignalKind::interrupt(), SignalKind::terminate()];
        Self { signals: kinds.into_iter().filter_map(|kind| signal(kind).ok()).collect(), seen: 0 }
    }

    async fn next(&mut self) {
        let all = self.signals.iter_mut().map(|signal| Box::pin(signal.recv()));
        if all.len() == 0 {
            return std::future::pending().await;
        }
        futures_util::future::select_all(all).await;
        self.seen += 1;
    }
}
