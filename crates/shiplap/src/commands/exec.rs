//! `exec`: a command in a running service, with our terminal.

use std::io::{IsTerminal as _, Write as _};

use futures_util::StreamExt as _;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use shiplap_engine::TerminalExec;
use shiplap_model::{Engine as _, ReplicaName, Standing};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::signal::unix::{SignalKind, signal};

use super::{Exit, app, refuse, source};
use crate::cli::{ExecArgs, ProjectArgs};

pub async fn exec(project: &ProjectArgs, args: &ExecArgs) -> Exit {
    let (source, place) = match source(project).await {
        Ok(found) => found,
        Err(exit) => return exit,
    };
    let docker = match app(&place, Some(&source)).await {
        Ok((_, world)) => world.docker,
        Err(exit) => return exit,
    };
    let observed = match docker.observe(&source.scope().project, None).await {
        Ok(observed) => observed,
        Err(error) => return refuse(&error.into(), Some(&source)),
    };
    let container = observed.containers.iter().find(|c| {
        c.service == args.service
            && c.number == args.index
            && c.state.is_running()
            && ReplicaName::parse(&c.name).1 == Standing::Live
    });
    let Some(container) = container else {
        eprintln!("error[exec]: replica {} of `{}` is not running", args.index, args.service);
        eprintln!("  = help: `shiplap status` shows what is");
        return Exit::Failed;
    };
    let tty = !args.no_tty && std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let command = TerminalExec {
        command: args.command.clone(),
        tty,
        stdin: true,
        user: args.user.clone(),
        working_dir: args.workdir.clone(),
        environment: args.variables.clone(),
        privileged: false,
    };
    let terminal = match docker.exec_interactive(&container.id, &command).await {
        Ok(terminal) => terminal,
        Err(error) => return refuse(&error.into(), Some(&source)),
    };
    let raw = tty.then(Raw::enter).flatten();
    if tty {
        tokio::spawn(follow_size(docker.clone(), terminal.id.clone()));
    }
    let mut input = terminal.input;
    tokio::spawn(async move {
        let mut stdin = tokio::io::stdin();
        let mut buffer = vec![0; 4096];
        while let Ok(count) = stdin.read(&mut buffer).await {
            if count == 0 || input.write_all(&buffer[..count]).await.is_err() {
                break;
            }
            let _ = input.flush().await;
        }
        let _ = input.shutdown().await;
    });
    let mut output = terminal.output;
    while let Some(item) = output.next().await {
        let Ok(chunk) = item else { break };
        let written = if chunk.is_stderr {
            std::io::stderr().write_all(&chunk.bytes)
        } else {
            let mut out = std::io::stdout();
            out.write_all(&chunk.bytes).and_then(|()| out.flush())
        };
        if written.is_err() {
            break;
        }
    }
    drop(raw);
    match docker.exit_code(&terminal.id).await {
        Ok(Some(code)) => Exit::Of(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
        Ok(None) => Exit::Done,
        Err(error) => refuse(&error.into(), Some(&source)),
    }
}

/// The terminal in raw mode, until dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> Option<Self> {
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Keeps the command's terminal as large as ours.
async fn follow_size(docker: shiplap_engine::DockerEngine, id: String) {
    let Ok(mut resized) = signal(SignalKind::window_change()) else { return };
    loop {
        if let Ok(size) = tcgetwinsize(std::io::stdout()) {
            let _ = docker.resize(&id, size.ws_col, size.ws_row).await;
        }
        if resized.recv().await.is_none() {
            return;
        }
    }
}
