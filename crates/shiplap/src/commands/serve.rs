//! `serve`: the control server.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::Args;
use shiplap_model::Scope;
use shiplap_server::{AuditLine, Listener, Log, Parts, Server, Settings, TlsKeys, Works as _};
use tokio::net::TcpListener;

use super::{Exit, show_diagnostics};
use crate::serve::{Local, Projects, Shell, notifier};

/// How often all environments are looked at; whoever asks for one gets it as it is then.
const LOOK_AT_ENVIRONMENTS: Duration = Duration::from_secs(60);
/// How often it is looked whether the certificate's files have changed.
const LOOK_AT_CERTIFICATE: Duration = Duration::from_secs(60);

/// `serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Folders with a shiplap.yaml, or such files; may be repeated [default: the current folder]
    #[arg(value_name = "FOLDER")]
    pub projects: Vec<PathBuf>,
    /// Where to listen besides the Unix socket: ADDRESS:PORT; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Vec<SocketAddr>,
    /// File with the certificate and those that lead to an authority, in PEM. Read again when it
    /// changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_certificate: Option<PathBuf>,
    /// File with its key, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub tls_key: Option<PathBuf>,
    /// Listen without TLS on more than this machine's loopback: a proxy in front has it
    #[arg(long)]
    pub without_tls: bool,
    /// The Unix socket [default: serve.sock in the state folder]
    #[arg(long, value_name = "FILE")]
    pub socket: Option<PathBuf>,
    /// The address by which others reach it, for links: https://deploy.shop.example
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// How long a trigger waits for others that it can be deployed with
    #[arg(long, value_name = "DURATION", value_parser = crate::cli::duration, default_value = "10s")]
    pub settle: Duration,
    /// How many deployments at the same time, in different environments
    #[arg(long, value_name = "NUMBER", default_value_t = 4)]
    pub parallel: usize,
    /// File that says whom to tell how deployments end; see docs/server.md
    #[arg(long, value_name = "FILE")]
    pub notify: Option<PathBuf>,
}

pub async fn serve(args: &ServeArgs) -> Exit {
    match run(args).await {
        Ok(()) => Exit::Done,
        Err(Failed::Told) => Exit::Failed,
        Err(Failed::Because(why, help)) => {
            eprintln!("error[serve]: {why}");
            if let Some(help) = help {
                eprintln!("  = help: {help}");
            }
            Exit::Failed
        }
    }
}

/// Why it does not run.
enum Failed {
    /// It was said already.
    Told,
    /// A reason, and what to type.
    Because(String, Option<&'static str>),
}

impl Failed {
    fn because(why: impl Into<String>) -> Self {
        Self::Because(why.into(), None)
    }
}

async fn run(args: &ServeArgs) -> Result<(), Failed> {
    let here = [PathBuf::from(".")];
    let folders = if args.projects.is_empty() { &here } else { args.projects.as_slice() };
    let projects = Projects::new(folders).map_err(|diagnostics| {
        show_diagnostics(&diagnostics);
        Failed::Told
    })?;
    let notifier = notifier(args.notify.as_deref()).map_err(|diagnostics| {
        show_diagnostics(&diagnostics);
        Failed::Told
    })?;
    let limits = crate::limits::from_environment().map_err(|_| Failed::Told)?;
    let state = crate::world::state_dir();
    let store = crate::ledger::open().await.map_err(|e| Failed::because(e.to_string()))?;
    let local = Local::new(projects, store.clone(), limits, &state);
    let local = Arc::new(local.map_err(|error| cannot("keep orders", &state, &error))?);
    let watching = tokio::spawn(watch(Arc::clone(&local)));
    let shell = Shell::new(state.join("commands"), Arc::clone(&local));
    let shell = shell.map_err(|error| cannot("run commands", &state, &error))?;
    let (listeners, words) = listeners(args, &state).await?;
    let name = rustix::system::uname();
    let host = name.nodename().to_string_lossy().into_owned();
    let server = format!("{host} (process {})", std::process::id());
    let settings = Settings {
        url: args.url.as_ref().map(|url| url.trim_end_matches('/').to_owned()),
        settle: args.settle,
        parallel: args.parallel.max(1),
        ..Settings::new(&server, &host)
    };
    let parts = Parts {
        works: local,
        orders: store.clone(),
        tokens: store,
        log: Arc::new(Lines),
        notifier,
        settings,
    };
    eprintln!("shiplap {} serves at {}", env!("CARGO_PKG_VERSION"), words.join(" and "));
    Server::new(parts).with_commands(Arc::new(shell)).run(listeners, asked_to_leave()).await;
    watching.abort();
    eprintln!("left; what was being deployed goes on by itself");
    Ok(())
}

fn cannot(what: &str, place: &Path, error: &io::Error) -> Failed {
    Failed::because(format!("cannot {what} in {}: {error}", place.display()))
}

async fn listeners(args: &ServeArgs, state: &Path) -> Result<(Vec<Listener>, Vec<String>), Failed> {
    let socket = args.socket.clone().unwrap_or_else(|| state.join("serve.sock"));
    let unix = Listener::unix(&socket).map_err(|error| cannot("listen", &socket, &error))?;
    let (mut all, mut words) = (vec![unix], vec![format!("unix://{}", socket.display())]);
    let keys = match (&args.tls_certificate, &args.tls_key) {
        (Some(certificate), Some(key)) => Some(tls(certificate.clone(), key.clone())?),
        _ => None,
    };
    for address in &args.listen {
        if keys.is_none() && !args.without_tls && !is_loopback(address.ip()) {
            return Err(Failed::Because(
                format!(
                    "{address} is reached from outside, and tokens must not travel in the clear"
                ),
                Some(
                    "--tls-certificate FILE --tls-key FILE; or --without-tls behind a proxy that has TLS",
                ),
            ));
        }
        let listener = TcpListener::bind(address).await;
        let listener = listener
            .map_err(|error| Failed::because(format!("cannot listen at {address}: {error}")))?;
        let address = listener.local_addr().unwrap_or(*address);
        match &keys {
            Some(keys) => {
                words.push(format!("https://{address}"));
                all.push(Listener::Tls(listener, keys.clone()));
            }
            None => {
                words.push(format!("http://{address}"));
                all.push(Listener::Tcp(listener));
            }
        }
    }
    Ok((all, words))
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Reads the certificate, and again whenever its files change.
fn tls(certificate: PathBuf, key: PathBuf) -> Result<TlsKeys, Failed> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| cannot("read", path, &error));
    let keys = TlsKeys::from_pem(&read(&certificate)?, &read(&key)?)
        .map_err(|error| Failed::because(format!("{}: {error}", certificate.display())))?;
    let shared = keys.clone();
    tokio::spawn(async move {
        let changed = |path: &Path| -> Option<SystemTime> {
            std::fs::metadata(path).and_then(|meta| meta.modified()).ok()
        };
        let look = || (changed(&certificate), changed(&key));
        let mut known = look();
        loop {
            tokio::time::sleep(LOOK_AT_CERTIFICATE).await;
            if look() == known {
                continue;
            }
            let (Ok(chain), Ok(secret)) = (std::fs::read(&certificate), std::fs::read(&key)) else {
                continue;
            };
            // Half of a renewal may be there: what does not fit together is looked at again.
            match shared.replace(&chain, &secret) {
                Ok(()) => known = look(),
                Err(error) => Lines.trouble(&format!("{}: {error}", certificate.display())),
            }
        }
    });
    Ok(keys)
}

/// Looks at all environments now and then, and says when what runs, what the files say and what the
/// ledger says begin or cease to differ.
async fn watch(local: Arc<Local>) {
    let mut known: BTreeMap<Scope, Vec<String>> = BTreeMap::new();
    loop {
        let catalog = local.catalog().await;
        let scopes: Vec<Scope> = catalog.environments().map(|(scope, _)| scope).collect();
        known.retain(|scope, _| scopes.contains(scope));
        for scope in scopes {
            // A deployment that is under way differs from everything for a while.
            let Ok(state) = local.state(&scope).await else { continue };
            if state.unfinished.is_some() || state.problem.is_some() {
                continue;
            }
            let before = known.insert(scope.clone(), state.drift.clone()).unwrap_or_default();
            if before != state.drift {
                let line = serde_json::json!({
                    "at_ms": shiplap_execute::now_ms(),
                    "environment": scope.to_string(),
                    "drift": state.drift,
                });
                eprintln!("{line}");
            }
        }
        tokio::time::sleep(LOOK_AT_ENVIRONMENTS).await;
    }
}

/// SIGTERM or Ctrl-C.
async fn asked_to_leave() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// Lines of JSON on standard error.
struct Lines;

impl Log for Lines {
    fn audit(&self, line: &AuditLine) {
        eprintln!("{}", line.to_json());
    }

    fn trouble(&self, text: &str) {
        let line = serde_json::json!({ "at_ms": shiplap_execute::now_ms(), "trouble": text });
        eprintln!("{line}");
    }
}
