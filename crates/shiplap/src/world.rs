//! Puts the adapters together.

use std::path::PathBuf;
use std::sync::Arc;

use shiplap_engine::{DockerEngine, Endpoint};
use shiplap_execute::app::{App, AppError};
use shiplap_execute::{Cancel, Reporter};
use shiplap_ledger::SqliteLedger;
use shiplap_model::Limits;

use crate::edge::EdgeRouter;

/// Where history is kept instead of the default.
const STATE_VARIABLE: &str = "SHIPLAP_STATE_DIR";

/// `/var/lib/shiplap` for root, else the user's own state folder.
pub fn state_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os(STATE_VARIABLE) {
        return dir.into();
    }
    if rustix::process::geteuid().is_root() {
        return "/var/lib/shiplap".into();
    }
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from);
    std::env::var_os("XDG_STATE_HOME")
        .map_or_else(|| home.join(".local/state"), PathBuf::from)
        .join("shiplap")
}

/// Connects to the engine and asks who it is.
pub async fn engine(limits: &Limits) -> Result<DockerEngine, AppError> {
    let docker = DockerEngine::connect(&Endpoint::from_environment()?)?
        .with_limits(limits)
        .with_keyring(crate::registries::keyring());
    docker.reach().await?;
    Ok(docker)
}

/// The use cases over the engine of this machine.
pub async fn app(
    reporter: Arc<dyn Reporter>,
    limits: &Limits,
) -> Result<(App, DockerEngine), AppError> {
    let docker = engine(limits).await?;
    let ledger = SqliteLedger::open(&state_dir())?;
    let app = App {
        engine: Arc::new(docker.clone()),
        router: Arc::new(EdgeRouter::new(docker.clone(), limits)),
        ledger: Arc::new(ledger),
        reporter,
        cancel: Cancel::default(),
        who: who(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    Ok((app, docker))
}

/// The name of our user id, where the machine knows it.
fn own_name() -> String {
    let id = rustix::process::getuid().as_raw().to_string();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == id).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("uid {id}"))
}

/// User, host and process.
pub fn who() -> String {
    let user = std::env::var("SUDO_USER")
        .or_else(|_| std::env::var("USER"))
        .unwrap_or_else(|_| own_name());
    let name = rustix::system::uname();
    let host = name.nodename().to_string_lossy();
    format!("{user}@{host} (process {})", std::process::id())
}
