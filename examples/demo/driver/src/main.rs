//! The demo: a small project is deployed, updated under load, broken, healed and rolled back,
//! while every request to it is counted.

mod act;
mod engine;
mod folder;
mod live;
mod show;
mod table;
mod tarball;
mod tool;
mod traffic;

use act::Done;
use clap::Parser;
use engine::Engine;
use folder::Folder;
use live::View;
use show::Show;
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tool::{Program, Tool};
use traffic::Traffic;

/// How long the program may take to end after an interruption.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Deploys a small project, updates it under load, deploys a broken release that is undone, and
/// rolls back, while every request is counted.
///
/// The exit code is 0 if no request failed and every act ended as it must. With --peer it is 0 if
/// the acts could be played: what the peer loses is in the table.
#[derive(Parser)]
#[command(name = "demo", version)]
struct Arguments {
    /// The shiplap binary
    #[arg(long, value_name = "FILE", required_unless_present = "peer")]
    shiplap: Option<PathBuf>,
    /// The statically linked binary of the demo's application
    #[arg(long, value_name = "FILE")]
    app: PathBuf,
    /// Show another program instead, such as "docker compose"
    #[arg(long, value_name = "WORDS", conflicts_with = "shiplap")]
    peer: Option<String>,
    /// Requests per second to each of the three services
    #[arg(long, default_value_t = 100.0, value_parser = rate)]
    rate: f64,
    /// The first of three published ports; the next free ones if it is taken
    #[arg(long, default_value_t = 8088)]
    port: u16,
    /// What is requested from web; /api/version goes on to the api inside the network
    #[arg(long, value_name = "PATH", default_value = "/")]
    web_path: String,
    /// Leave the project, its images and the folder
    #[arg(long)]
    keep: bool,
    /// Print the result as one line of JSON
    #[arg(long)]
    json: bool,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.1..=10_000.0).contains(&rate) => Ok(rate),
        Ok(_) | Err(_) => Err("not a number from 0.1 to 10000".into()),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    shiplap_load::raise_open_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = runtime
        .map_err(|error| format!("starting failed: {error}"))
        .and_then(|runtime| runtime.block_on(run(&arguments)));
    result.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}

async fn run(arguments: &Arguments) -> Result<ExitCode, String> {
    let tool = tool(arguments)?;
    let engine = Engine::connect().await?;
    let mut interrupt = Interrupt::new()?;
    let folder = Folder::create(&arguments.app, arguments.port)?;
    let traffic = Traffic::new(&folder, arguments.rate, &arguments.web_path);
    let show = Show { engine, tool, folder, traffic, view: View::new() };
    let [web, api, store] = show.folder.ports;
    show.view.say(&format!(
        "{} on the project {}: web {web}, api {api}, store {store}; {} requests per second each",
        show.tool.name(),
        show.folder.project,
        arguments.rate
    ));

    let mut done = Vec::new();
    let played = until_interrupted(&show, &mut done, &mut interrupt).await;
    if arguments.keep {
        let path = show.folder.path.display();
        show.view.say(&format!("kept: the project in {path} and the images shiplap-demo/app"));
    } else {
        let removed = tokio::select! {
            removed = show.remove() => removed,
            // The second time, everything is removed without the help of the program.
            () = interrupt.requested() => Err("interrupted".into()),
        };
        match removed {
            Ok(removed) => done.push(removed),
            Err(error) => show.view.say(&format!("warning: removing the project: {error}")),
        }
        show.clean_up().await;
    }
    print(arguments, &done);
    match played {
        None => Ok(ExitCode::from(130)),
        Some(Err(error)) => Err(error),
        Some(Ok(())) => {
            let as_it_must = done.iter().all(|act| act.problems.is_empty());
            let is_peer = arguments.peer.is_some();
            Ok(if as_it_must || is_peer { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

/// Plays the acts; `None` if that was interrupted.
async fn until_interrupted(
    show: &Show,
    done: &mut Vec<Done>,
    interrupt: &mut Interrupt,
) -> Option<Result<(), String>> {
    let mut play = pin!(show.play(done));
    tokio::select! {
        played = &mut play => return Some(played),
        () = interrupt.requested() => show.view.say("interrupted"),
    }
    tokio::select! {
        _ = play => {}
        () = show.tool.stop() => {}
        () = interrupt.requested() => {}
        () = tokio::time::sleep(STOP_TIMEOUT) => {}
    }
    None
}

fn tool(arguments: &Arguments) -> Result<Tool, String> {
    let exists = |path: &PathBuf| {
        // The program is run in another folder, so a relative path would lead elsewhere.
        path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))
    };
    exists(&arguments.app)?;
    match (&arguments.peer, &arguments.shiplap) {
        (Some(peer), _) => {
            let words: Vec<String> = peer.split_whitespace().map(String::from).collect();
            if words.is_empty() {
                Err("--peer names no program".into())
            } else {
                Ok(Tool::new(Program::Peer(words)))
            }
        }
        (None, Some(shiplap)) => Ok(Tool::new(Program::Shiplap(exists(shiplap)?))),
        (None, None) => unreachable!("one of the two is required"),
    }
}

fn print(arguments: &Arguments, done: &[Done]) {
    if arguments.json {
        println!("{}", table::to_json(done));
        return;
    }
    println!("\n{}", table::table(done));
    for act in done {
        let ended_badly = act.exit != Some(act.expected_exit);
        // The act that must fail is the one whose reason everybody wants to read.
        if act.expected_exit != 0 || ended_badly {
            println!("\n{}, in its own words:\n{}", act.title, table::tail(&act.output));
        }
    }
}

/// Ctrl-C or SIGTERM.
struct Interrupt {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Interrupt {
    fn new() -> Result<Interrupt, String> {
        let listen = |kind| signal(kind).map_err(|error| format!("no signals: {error}"));
        Ok(Interrupt {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn requested(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
