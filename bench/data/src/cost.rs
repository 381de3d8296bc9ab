//! Turns of one and the other, and what their ratios are.

use std::process::Command;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::CostArgs;
use crate::turn::{self, Turn};

/// The database that dump and restore fill.
const WHOLE: &str = "shiplap_bench_whole";

pub fn measure(args: &CostArgs) -> anyhow::Result<()> {
    let server = first_process(args)?;
    let mut turns = Vec::new();
    for number in 0..=args.turns {
        // Who goes first changes, so that nobody always finds the caches warm.
        let (whole, sample) = if number % 2 == 0 {
            let whole = whole(args, server)?;
            (whole, sample(args, server)?)
        } else {
            let sample = sample(args, server)?;
            (whole(args, server)?, sample)
        };
        let load = std::fs::read_to_string("/proc/loadavg")?;
        let load: f64 = load.split_whitespace().next().unwrap_or_default().parse()?;
        let line = |name: &str, turn: &Turn| {
            println!(
                "{number}  {name:18} {:7.1} s  {:6.1} + {:5.1} CPU-s  (load {load:.1})",
                turn.wall_seconds, turn.server_cpu_seconds, turn.client_cpu_seconds
            );
        };
        line("dump and restore", &whole);
        line("sample", &sample);
        if number > 0 {
            turns.push((whole, sample));
        }
    }
    let by = |of: fn(&Turn) -> f64| {
        let mut ratios: Vec<f64> = turns.iter().map(|(w, s)| of(s) / of(w)).collect();
        ratios.sort_by(f64::total_cmp);
        ratios
    };
    let (wall, cpu) = (by(|turn| turn.wall_seconds), by(Turn::cpu_seconds));
    println!("wall {}", spread(&wall));
    println!("CPU  {}", spread(&cpu));
    let told = |turn: &Turn| {
        json!({
            "wall_seconds": turn.wall_seconds,
            "server_cpu_seconds": turn.server_cpu_seconds,
            "client_cpu_seconds": turn.client_cpu_seconds,
            "said": serde_json::from_str::<Value>(&turn.output).unwrap_or(Value::Null),
        })
    };
    let each = turns.iter().map(|(w, s)| json!({ "dump_and_restore": told(w), "sample": told(s) }));
    let document = json!({
        "version": 1, "wall_ratios": wall, "cpu_ratios": cpu, "turns": each.collect::<Vec<_>>(),
    });
    if let Some(peak) =
        turns.last().and_then(|(_, s)| told(s)["said"]["peak_memory_bytes"].as_u64())
    {
        println!("peak memory of the client {:.0} MB", peak as f64 / 1e6);
    }
    std::fs::write(&args.json, format!("{document:#}\n")).context("writing the figures")
}

/// `0.131 ×  (0.120 to 0.140 of 3 turns)`: the middle one, and the ends.
pub fn spread(sorted: &[f64]) -> String {
    let (Some(least), Some(most)) = (sorted.first(), sorted.last()) else {
        return "no turns".to_owned();
    };
    let median = sorted[sorted.len() / 2];
    format!("{median:.3} ×  ({least:.3} to {most:.3} of {} turns)", sorted.len())
}

fn sample(args: &CostArgs, server: u32) -> anyhow::Result<Turn> {
    let mut program = Command::new(std::env::current_exe()?);
    program.arg("sample").args(["--source", &args.sample.source, "--target", &args.sample.target]);
    program.arg("--config").arg(&args.sample.config);
    program.args(["--sessions", &args.sample.sessions.to_string()]);
    let turn = turn::run(server, vec![program])?;
    ask(args, &format!("DROP DATABASE \"{}\"", args.sample.target))?;
    Ok(turn)
}

fn whole(args: &CostArgs, server: u32) -> anyhow::Result<Turn> {
    ask(args, &format!("DROP DATABASE IF EXISTS {WHOLE}"))?;
    ask(args, &format!("CREATE DATABASE {WHOLE} TEMPLATE template0"))?;
    let mut dump = Command::new("pg_dump");
    dump.args(["--format=custom", "--dbname", &args.sample.source]);
    let mut restore = Command::new("pg_restore");
    let target = format!("{} dbname={WHOLE}", args.sample.source);
    restore.args(["--no-owner", "--exit-on-error", "--dbname", &target]);
    let turn = turn::run(server, vec![dump, restore])?;
    ask(args, &format!("DROP DATABASE {WHOLE}"))?;
    Ok(turn)
}

/// The process that starts the server's sessions, which must be one of this machine.
fn first_process(args: &CostArgs) -> anyhow::Result<u32> {
    let folder = ask(args, "SHOW data_directory")?;
    let file = format!("{}/postmaster.pid", folder.trim());
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("{file}: the server must run on this machine"))?;
    Ok(text.lines().next().unwrap_or_default().parse()?)
}

fn ask(args: &CostArgs, sql: &str) -> anyhow::Result<String> {
    let connection = format!("{} dbname=postgres", args.sample.source);
    let mut program = Command::new("psql");
    program.args(["-X", "-At", "-v", "ON_ERROR_STOP=1", "-d", &connection, "-c", sql]);
    let output = program.output().context("psql is not installed")?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
