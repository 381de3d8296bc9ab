//! The benchmark: Shiplap and Docker Compose v2 do the same, in turns, on the same engine.

mod contest;
mod measure;
mod projects;

use clap::Parser;
use contest::{Contest, Goal};
use measure::Bench;
use shiplap_scenarios::{Lab, peer};
use std::path::PathBuf;
use std::process::ExitCode;

/// Measures Shiplap against Docker Compose v2 in the same run.
///
/// Each act is done by both in turns, after one turn that does not count. Printed are the medians,
/// and the median of the ratios of the turns with the least and the greatest of them. Requests
/// that failed are counted for both.
#[derive(Parser)]
#[command(name = "shiplap-bench", version)]
struct Arguments {
    /// Turns of each act
    #[arg(long, default_value_t = 7)]
    turns: usize,
    /// Only these acts: nothing, update, rollback, from-nothing
    #[arg(long, value_name = "ACT")]
    only: Vec<String>,
    /// Where to write the result as JSON
    #[arg(long, value_name = "FILE", default_value = "target/bench.json")]
    json: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (Some(ours), Some(theirs)) = (Lab::new("bench-ours"), Lab::new("bench-theirs")) else {
        return ExitCode::SUCCESS;
    };
    let Some(peer) = peer(&theirs) else { return ExitCode::SUCCESS };
    println!("Shiplap and Docker Compose {}, {} turns each\n", peer.version, arguments.turns);
    let bench = Bench { ours, theirs, peer };
    let is_wanted =
        |act: &str| arguments.only.is_empty() || arguments.only.iter().any(|only| only == act);
    let mut contests: Vec<Contest> = Vec::new();
    let mut add = |contest: Contest| {
        println!("{}", contest.line());
        contests.push(contest);
    };
    println!("{}", Contest::heading());
    if is_wanted("nothing") {
        add(Contest::new(
            "nothing to do, 10 services",
            Goal::ratio(0.5),
            arguments.turns,
            |turn| bench.nothing(turn),
        ));
    }
    if is_wanted("update") {
        add(Contest::new("update until it serves", Goal::ratio(1.0), arguments.turns, |turn| {
            bench.update(turn)
        }));
    }
    if is_wanted("rollback") {
        let goal = Goal::ratio(0.4).within_seconds(1.0);
        add(Contest::new("rollback until it serves", goal, arguments.turns, |turn| {
            bench.rollback(turn)
        }));
    }
    if is_wanted("from-nothing") {
        add(Contest::new("30 services from nothing", Goal::ratio(1.0), arguments.turns, |turn| {
            bench.start_from_nothing(turn)
        }));
    }
    let document = contest::json(&bench.peer.version, &contests);
    if let Some(folder) = arguments.json.parent() {
        // Where that fails, writing says so.
        let _ = std::fs::create_dir_all(folder);
    }
    if let Err(error) = std::fs::write(&arguments.json, format!("{document:#}\n")) {
        eprintln!("error: {}: {error}", arguments.json.display());
        return ExitCode::FAILURE;
    }
    println!("\nwritten to {}", arguments.json.display());
    ExitCode::SUCCESS
}
