//! One turn: what it took of time, of the server's processors and of the client's.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

/// Ticks in a second, in `/proc`: the same on every Linux that we run on (`USER_HZ`).
const TICKS: f64 = 100.0;
/// A server counts a session's time when it has ended; that is after its client has.
const SESSIONS_END: Duration = Duration::from_secs(1);

/// What one turn took.
#[derive(Clone, Debug)]
pub struct Turn {
    pub wall_seconds: f64,
    /// Of all sessions that ended meanwhile.
    pub server_cpu_seconds: f64,
    /// Of the programs that were run.
    pub client_cpu_seconds: f64,
    /// What the last program printed.
    pub output: String,
}

impl Turn {
    pub fn cpu_seconds(&self) -> f64 {
        self.server_cpu_seconds + self.client_cpu_seconds
    }
}

/// Runs programs, each reading what the one before writes, and measures them and the server whose
/// first process this is.
pub fn run(server: u32, programs: Vec<Command>) -> anyhow::Result<Turn> {
    let before = (ticks_of(server)?, ticks_of_children()?);
    let begun = Instant::now();
    let mut running: Vec<Child> = Vec::new();
    for mut program in programs {
        let input = match running.last_mut().and_then(|child| child.stdout.take()) {
            Some(pipe) => Stdio::from(pipe),
            None => Stdio::null(),
        };
        let started = program.stdin(input).stdout(Stdio::piped()).spawn();
        running.push(started.with_context(|| format!("starting {program:?}"))?);
    }
    let last = running.pop().context("a turn runs at least one program")?;
    let output = last.wait_with_output()?;
    for mut child in running {
        ensure!(child.wait()?.success(), "a program of the turn failed");
    }
    ensure!(output.status.success(), "the last program of the turn failed");
    let wall_seconds = begun.elapsed().as_secs_f64();
    std::thread::sleep(SESSIONS_END);
    Ok(Turn {
        wall_seconds,
        server_cpu_seconds: (ticks_of(server)? - before.0) / TICKS,
        client_cpu_seconds: (ticks_of_children()? - before.1) / TICKS,
        output: String::from_utf8(output.stdout)?,
    })
}

/// Of a process and all of its children that have ended.
fn ticks_of(process: u32) -> anyhow::Result<f64> {
    let [own, children] = stat(&process.to_string())?;
    Ok(own + children)
}

fn ticks_of_children() -> anyhow::Result<f64> {
    Ok(stat("self")?[1])
}

/// Its own ticks, and those of its children, from `/proc/PID/stat`.
fn stat(process: &str) -> anyhow::Result<[f64; 2]> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The program's name, in brackets, may hold spaces; fields are counted from behind it.
    let after = text.rsplit_once(')').context("/proc has another form")?.1;
    let fields: Vec<f64> =
        after.split_whitespace().skip(11).take(4).map(str::parse).collect::<Result<_, _>>()?;
    ensure!(fields.len() == 4, "/proc has another form");
    Ok([fields[0] + fields[1], fields[2] + fields[3]])
}

/// The most memory that this process has held.
pub fn peak_memory_bytes() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next());
    Ok(kilobytes.context("/proc has another form")?.parse::<u64>()? * 1024)
}
