//! `shiplap-load`: constant-rate HTTP load that counts what a deployment drops.

use clap::Parser;
use shiplap_load::{Config, Connections, Load, Report, Running, Url, raise_open_file_limit};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

const UNTIL_POLL: Duration = Duration::from_millis(50);
const LIVE_TERMINAL: Duration = Duration::from_millis(200);
const LIVE_PLAIN: Duration = Duration::from_secs(1);

/// Sends HTTP requests at a constant rate and counts what is dropped.
///
/// A server that stalls does not slow the sender. Latency counts from when a request was due. The
/// exit code is 0 if at most --max-drops requests were dropped, else 1.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Where to send, such as http://127.0.0.1:8088/version
    url: Url,
    /// Requests per second
    #[arg(short, long, default_value_t = 500.0, value_parser = above_zero)]
    rate: f64,
    /// Seconds to send for [default: 10, or no end with --until]
    #[arg(short, long, value_parser = above_zero)]
    duration: Option<f64>,
    /// Stop when this file appears
    #[arg(long, value_name = "FILE")]
    until: Option<PathBuf>,
    /// Open a new connection for every request
    #[arg(long)]
    new_conn: bool,
    /// Request method
    #[arg(long, default_value = "GET")]
    method: String,
    /// Length of the request body
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    body: usize,
    /// A further request header
    #[arg(long, value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<(String, String)>,
    /// Count answers by the value of this response header, such as x-version
    #[arg(long, value_name = "HEADER")]
    tag: Option<String>,
    /// Seconds one request may take
    #[arg(long, default_value_t = 30.0, value_parser = above_zero)]
    timeout: f64,
    /// Most requests in flight
    #[arg(long, value_name = "NUMBER", default_value_t = 8000)]
    max_conns: usize,
    /// Drops that still count as success
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    max_drops: u64,
    /// Print the result as one line of JSON
    #[arg(long)]
    json: bool,
    /// Show a status line on standard error
    #[arg(long)]
    live: bool,
}

fn above_zero(text: &str) -> Result<f64, String> {
    // The upper bound keeps times and counts far from overflow.
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value <= 1e6 => Ok(value),
        Ok(_) | Err(_) => Err("not a number above zero and up to a million".into()),
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("not of the form `name: value`")?;
    Ok((name.trim().into(), value.trim().into()))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    raise_open_file_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.and_then(|runtime| runtime.block_on(run(&arguments)));
    match result {
        Ok(report) => {
            let json = report.to_json();
            if arguments.json {
                println!("{json}")
            } else {
                println!("{json:#}")
            }
            ExitCode::from(u8::from(report.dropped() > arguments.max_drops))
        }
        Err(error) => {
            eprintln!("error: starting the load failed: {error}");
            ExitCode::from(1)
        }
    }
}

async fn run(arguments: &Arguments) -> std::io::Result<Report> {
    let mut config = Config::new(arguments.url.clone(), arguments.rate);
    let default_duration = arguments.until.is_none().then_some(10.0);
    config.duration = arguments.duration.or(default_duration).map(Duration::from_secs_f64);
    if arguments.new_conn {
        config.connections = Connections::PerRequest;
    }
    config.method = arguments.method.to_ascii_uppercase();
    config.body_bytes = arguments.body;
    config.headers = arguments.header.clone();
    config.tag = arguments.tag.clone();
    config.timeout = Duration::from_secs_f64(arguments.timeout);
    config.max_in_flight = arguments.max_conns;

    let mut running = Load::start(config)?;
    let mut until = tokio::time::interval(UNTIL_POLL);
    let mut live = tokio::time::interval(live_interval());
    loop {
        tokio::select! {
            () = running.wait() => break,
            _ = tokio::signal::ctrl_c() => running.end(),
            _ = until.tick() => {
                if arguments.until.as_deref().is_some_and(Path::exists) {
                    running.end();
                }
            }
            _ = live.tick(), if arguments.live => show(&running),
        }
    }
    if arguments.live && std::io::stderr().is_terminal() {
        eprintln!();
    }
    Ok(running.cut())
}

fn live_interval() -> Duration {
    if std::io::stderr().is_terminal() { LIVE_TERMINAL } else { LIVE_PLAIN }
}

fn show(running: &Running) {
    let now = running.snapshot();
    let line = format!(
        "sent {}  failed {}  in flight {}  longest gap {} ms  answering {}",
        now.sent,
        now.failed,
        now.in_flight,
        now.max_gap.as_millis(),
        now.latest_tag.as_deref().unwrap_or("-")
    );
    let mut stderr = std::io::stderr();
    // A status line that cannot be written is not worth failing for.
    let _ = if stderr.is_terminal() {
        write!(stderr, "\r{line}\x1b[K")
    } else {
        writeln!(stderr, "{line}")
    };
}
