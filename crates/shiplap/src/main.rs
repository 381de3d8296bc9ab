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
mod limits;
mod load;
mod output;
mod overview;
mod registries;
mod secrets;
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
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("threads and timers are to be had");
    let ran = AssertUnwindSafe(|| runtime.block_on(commands::run(cli)));
    let exit = std::panic::catch_unwind(ran).unwrap_or(Exit::OurBug);
    // A prompt that still reads the terminal must not keep us.
    runtime.shutdown_background();
    exit.into()
}
