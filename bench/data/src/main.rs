//! What a sample costs, against dump and restore of the whole database, in turns on one server.

mod cost;
mod files;
mod turn;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use shiplap_data::app::{self, Event, Job};
use shiplap_data::config::Config;
use shiplap_data::postgres::{KEYS_AT_ONCE, Server};

/// A key for measuring, no secret at all.
const KEY: &[u8] = b"a key for measuring, no secret at all";

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Act,
}

#[derive(Subcommand)]
enum Act {
    /// Take one sample, in this process; what a turn runs.
    Sample(SampleArgs),
    /// Measure samples against dump and restore, in turns.
    Cost(CostArgs),
    /// Measure a vault's files against rsync, in turns.
    Files(FilesArgs),
}

/// Where, and what.
#[derive(Args)]
struct SampleArgs {
    /// The database that is sampled: `host=… port=… user=… dbname=…`
    #[arg(long)]
    source: String,
    /// The name of the one that is filled, on the same server
    #[arg(long, default_value = "shiplap_bench_dev")]
    target: String,
    /// What to take
    #[arg(long)]
    config: PathBuf,
    /// Sessions on each side
    #[arg(long, default_value_t = 2)]
    sessions: usize,
}

/// How often, and where figures go.
#[derive(Args)]
struct CostArgs {
    #[command(flatten)]
    sample: SampleArgs,
    /// Turns that count; one before them does not
    #[arg(long, default_value_t = 3)]
    turns: usize,
    /// Every figure, as JSON
    #[arg(long, default_value = "target/bench-data.json")]
    json: PathBuf,
}

/// How many files, and where.
#[derive(Args)]
struct FilesArgs {
    /// A folder with room for them, which is made
    #[arg(long)]
    folder: PathBuf,
    /// Files that are copied; twice as many more are there
    #[arg(long, default_value_t = 21_344)]
    files: usize,
    /// Turns that count; one before them does not
    #[arg(long, default_value_t = 3)]
    turns: usize,
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Act::Sample(args) => sample(&args),
        Act::Cost(args) => cost::measure(&args),
        Act::Files(args) => files::measure(&args),
    }
}

#[tokio::main]
async fn sample(args: &SampleArgs) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(&args.config).context("reading the configuration")?;
    let config = Config::parse(&text).map_err(|problem| anyhow::anyhow!("{}", problem.message))?;
    let source = Server::parse(&args.source)?;
    let target = source.with_database(&args.target);
    let begun = std::time::Instant::now();
    let listener = |event: Event| {
        if let Event::Begins(stage) = event {
            eprintln!("{:6.1} s  {}", begun.elapsed().as_secs_f64(), stage.words());
        }
    };
    let job = Job {
        source: &source,
        config: &config,
        secret: KEY,
        sessions: args.sessions,
        keys_at_once: KEYS_AT_ONCE,
        listener: &listener,
    };
    let sampled = app::sample(&job, &target).await;
    let report = sampled.map_err(|problem| anyhow::anyhow!("the sample failed: {problem:?}"))?;
    let peak = turn::peak_memory_bytes()?;
    println!("{}", serde_json::json!({ "rows": report.rows, "peak_memory_bytes": peak }));
    Ok(())
}
