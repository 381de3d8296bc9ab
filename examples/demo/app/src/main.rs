//! The application that the demo deploys.
//!
//! One static binary that an image `FROM scratch` holds alone. The first argument chooses the
//! role: `web`, `api`, `store` or `worker`; `migrate`, a job that ends; or `health PORT`, the container
//! health check. `VERSION` is told in every answer, and `FAULT` breaks a release on purpose.

mod api;
mod client;
mod http;
mod migrate;
mod settings;
mod shutdown;
mod store;
mod web;
mod worker;

use settings::{Fault, Settings};
use shutdown::Shutdown;
use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

const USAGE: &str = "usage: app web | api | store | worker | migrate | health PORT";
/// Long enough for every health check and every patience to end.
const SLOW_START: Duration = Duration::from_secs(20);
const EXIT_LATER: Duration = Duration::from_secs(3);
/// Shorter than any usual interval of a health check.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("starting failed: {error}")),
    };
    let exit = runtime.block_on(async {
        match words[..] {
            ["health", port] => health(port).await,
            ["migrate"] => match migrate().await {
                Ok(()) => ExitCode::SUCCESS,
                Err(message) => failed(&message),
            },
            [role @ ("web" | "api" | "store" | "worker")] => match serve_role(role).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(message) => failed(&message),
            },
            _ => {
                eprintln!("{USAGE}");
                ExitCode::from(2)
            }
        }
    });
    // A name that is still being looked up, on a thread, is not worth waiting for.
    runtime.shutdown_background();
    exit
}

fn failed(message: &str) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::FAILURE
}

/// Asks the service in the same container how it is.
async fn health(port: &str) -> ExitCode {
    let address = format!("127.0.0.1:{port}");
    let answer = client::get_once(&address, "/health");
    match tokio::time::timeout(HEALTH_TIMEOUT, answer).await {
        Ok(Ok(answer)) if answer.status == 200 => ExitCode::SUCCESS,
        Ok(Ok(answer)) => {
            failed(&format!("{address} answered {}: {}", answer.status, answer.text()))
        }
        Ok(Err(error)) => failed(&format!("{address} did not answer: {error}")),
        Err(_) => failed(&format!("{address} did not answer in {HEALTH_TIMEOUT:?}")),
    }
}

/// Does the job that a release needs done once.
async fn migrate() -> Result<(), String> {
    let settings = Settings::from_environment()?;
    start_fault(&settings).await?;
    migrate::run(&settings).await
}

/// Runs a role until it is told to stop.
async fn serve_role(role: &str) -> Result<(), String> {
    // First of all: as process 1 of a container we get no default handling of signals.
    let shutdown = Shutdown::on_signals().map_err(|error| format!("no signals: {error}"))?;
    let settings = Arc::new(Settings::from_environment()?);
    log(role, &format!("{} starts", settings.version));
    let work = async {
        start_fault(&settings).await?;
        match role {
            "web" => serve(web::Web::new(settings.clone()), 8080, &settings, &shutdown).await,
            "api" => serve(api::Api::new(settings.clone()), 9000, &settings, &shutdown).await,
            "store" => {
                let store = store::Store::open(settings.clone()).await?;
                serve(store, 8000, &settings, &shutdown).await
            }
            _ => worker::run(&settings, &shutdown).await,
        }
    };
    tokio::select! {
        result = work => result?,
        () = shutdown.before_ready() => {}
        message = later_fault(settings.fault) => return Err(message),
    }
    log(role, "stopped");
    Ok(())
}

async fn serve<H: http::Handler>(
    handler: H,
    default_port: u16,
    settings: &Settings,
    shutdown: &Shutdown,
) -> Result<(), String> {
    let port = settings.port.unwrap_or(default_port);
    let listener = TcpListener::bind(("0.0.0.0", port))
        .await
        .map_err(|error| format!("listening on port {port} failed: {error}"))?;
    log("http", &format!("listening on port {port}"));
    shutdown.ready();
    http::serve(listener, Arc::new(handler), settings.clone(), shutdown).await;
    Ok(())
}

/// What a broken release does before it listens.
async fn start_fault(settings: &Settings) -> Result<(), String> {
    match settings.fault {
        Fault::Crash => Err("this release crashes at its start (FAULT=crash)".into()),
        Fault::Slow => {
            tokio::time::sleep(SLOW_START).await;
            Ok(())
        }
        Fault::None | Fault::Health | Fault::ExitLater => Ok(()),
    }
}

/// What a broken release does while it runs.
async fn later_fault(fault: Fault) -> String {
    match fault {
        Fault::ExitLater => {
            tokio::time::sleep(EXIT_LATER).await;
            "this release gives up after a while (FAULT=exit-later)".into()
        }
        Fault::None | Fault::Health | Fault::Crash | Fault::Slow => std::future::pending().await,
    }
}

fn log(role: &str, text: &str) {
    println!("{role}: {text}");
}

/// The handler of a role, for the server.
fn ready<T: Send>(value: T) -> impl Future<Output = T> + Send {
    std::future::ready(value)
}
