//! `shiplap`: one binary for every role.

mod ci;
mod cli;
mod commands;
mod delivery;
mod edge;
mod ephemeral;
mod exit;
mod gates;
mod init;
mod isolation;
mod ledger;
mod limits;
mod load;
mod output;
mod overview;
mod registries;
mod remote;
mod secrets;
mod serve;
mod tags;
mod versions;
mod world;

use std::panic::AssertUnwindSafe;

use clap::Parser;
use cli::{Cli, Command, EdgeCommand};
use exit::Exit;

fn main() -> std::process::ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    // The edge brings its own runtimes, and its worker must be alone in its process at first.
    if let Command::Edge(EdgeCommand::Supervise | EdgeCommand::Work | EdgeCommand::HoldNames) =
        &cli.command
    {
        return edge::role(&cli.command);
    }
    if let Command::Link { words } = &cli.command {
        let error = world::become_ssh(words);
        eprintln!("{error}");
        return Exit::Failed.into();
    }
    if let Err(unusable) = ledger::choose(&cli.ledger) {
        return output::errors::unusable(&unusable).into();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("threads and timers are to be had");
    let ran = AssertUnwindSafe(|| runtime.block_on(run(cli)));
    let exit = std::panic::catch_unwind(ran).unwrap_or(Exit::OurBug);
    // A prompt that still reads the terminal must not keep us.
    runtime.shutdown_background();
    exit.into()
}

/// Runs the command here, or on the control server that was named.
async fn run(cli: Cli) -> Exit {
    let is_for_here = matches!(
        cli.command,
        Command::Init(_)
            | Command::Ci(_)
            | Command::Schema
            | Command::Htpasswd { .. }
            | Command::Serve(_)
    );
    match cli.remote.wanted().filter(|_| !is_for_here).map(str::to_owned) {
        None => commands::run(cli).await,
        Some(url) => {
            let reads_input = matches!(cli.command, Command::Secrets(_));
            remote::run(&url, &cli.remote, reads_input).await
        }
    }
}
