//! Where an engine is, and the adapters for it.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use shiplap_config::{Settings, Target};
use shiplap_edge::{Client, Way};
use shiplap_engine::{Address, DockerEngine, Link, LinkOptions};
use shiplap_execute::app::{App, AppError};
use shiplap_execute::{Cancel, Reporter};
use shiplap_model::Limits;

use crate::delivery::{Deliveries, Files};
use crate::edge::EdgeRouter;
use crate::serve::WHO_VARIABLE;

/// Where history is kept instead of the default.
const STATE_VARIABLE: &str = "SHIPLAP_STATE_DIR";
/// The hidden command that becomes the `ssh` of a link.
pub const LINK_COMMAND: &str = "link";

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

/// A machine with an engine, by its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    address: Address,
    /// What has to be there before containers are made that mount it.
    files: Arc<Deliveries>,
}

impl Place {
    /// Where `docker` would go from here.
    ///
    /// # Errors
    /// When `DOCKER_HOST` or the current context names an address that is not supported.
    pub fn usual() -> Result<Self, AppError> {
        Ok(Self { address: Address::from_environment()?, files: Arc::default() })
    }

    /// Where an environment is deployed: its target, else as [`Place::usual`].
    ///
    /// # Errors
    /// As there.
    pub fn of(settings: Option<&Settings>) -> Result<Self, AppError> {
        match settings.map(|settings| &settings.target) {
            None | Some(Target::Here) => Self::usual(),
            Some(Target::At(address)) => {
                Ok(Self { address: Address::parse(address)?, files: Arc::default() })
            }
        }
    }

    /// At an address of an engine.
    ///
    /// # Errors
    /// When it is of no form that is supported.
    pub fn at(address: &str) -> Result<Self, AppError> {
        Ok(Self { address: Address::parse(address)?, files: Arc::default() })
    }

    /// Whether it is surely this machine.
    pub const fn is_here(&self) -> bool {
        match self.address {
            Address::Unix(_) => true,
            Address::Tcp(_) | Address::Ssh(_) => false,
        }
    }

    /// Whether it is reached by ssh, so that the project's files are not there.
    pub const fn is_behind_ssh(&self) -> bool {
        match self.address {
            Address::Ssh(_) => true,
            Address::Unix(_) | Address::Tcp(_) => false,
        }
    }

    /// The same, with files that have to be there.
    pub fn with_files(self, files: Arc<Deliveries>) -> Self {
        Self { files, ..self }
    }

    /// The folder of what is kept here about this machine alone: another machine has another one.
    pub fn state_dir(&self) -> PathBuf {
        match &self.address {
            Address::Unix(_) | Address::Tcp(_) => state_dir(),
            Address::Ssh(address) => {
                let hash = blake3::hash(self.address.to_string().as_bytes()).to_hex();
                let host: String = address.host.chars().filter(|c| *c != ':').take(40).collect();
                state_dir().join("targets").join(format!("{host}-{}", &hash[..8]))
            }
        }
    }

    /// Connects to the engine and asks who it is.
    ///
    /// # Errors
    /// When nobody is there, or will not let us in.
    pub async fn reach(&self, limits: &Limits) -> Result<World, AppError> {
        let edge = crate::edge::socket();
        let endpoint = self.address.open(link_to(vec![edge.clone()])).await?;
        let mut docker = DockerEngine::connect(&endpoint)?
            .with_limits(limits)
            .with_keyring(crate::registries::keyring());
        if self.is_behind_ssh() {
            docker = docker.with_supply(Arc::new(Files::new(self.files.clone())));
        }
        docker.reach().await?;
        Ok(World { docker, edge })
    }

    /// The use cases there, once it is reached.
    ///
    /// # Errors
    /// As with [`Place::reach`] and [`World::app`].
    pub async fn app(&self, reporter: Arc<dyn Reporter>, limits: &Limits) -> Result<App, AppError> {
        self.reach(limits).await?.app(reporter, limits).await
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// What a link is to be that leads to these sockets too.
pub fn link_to(sockets: Vec<PathBuf>) -> LinkOptions {
    // Ourselves first, so that no ssh outlives us however we end.
    let program: Vec<OsString> =
        vec!["/proc/self/exe".into(), LINK_COMMAND.into(), std::process::id().to_string().into()];
    LinkOptions { program, sockets }
}

/// A machine that was reached.
#[derive(Debug, Clone)]
pub struct World {
    /// Its engine.
    pub docker: DockerEngine,
    /// The admin socket of its edge, there.
    edge: PathBuf,
}

impl World {
    /// Its edge, whether or not it runs.
    pub fn edge(&self) -> Client {
        let Some(link) = self.docker.endpoint().link() else {
            return Client::new(self.edge.clone());
        };
        let here = link.socket(&self.edge).expect("the link was made with it");
        let way = EdgeWay { link: link.clone(), socket: self.edge.clone() };
        Client::new(here).over(Arc::new(way))
    }

    /// The use cases there.
    ///
    /// # Errors
    /// When the ledger cannot be opened.
    pub async fn app(&self, reporter: Arc<dyn Reporter>, limits: &Limits) -> Result<App, AppError> {
        let ledger = crate::ledger::open().await?;
        Ok(App {
            engine: Arc::new(self.docker.clone()),
            router: Arc::new(EdgeRouter::new(self, limits)),
            ledger,
            reporter,
            cancel: Cancel::default(),
            who: who(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }
}

/// The way to the edge of another machine.
#[derive(Debug)]
struct EdgeWay {
    link: Link,
    socket: PathBuf,
}

impl Way for EdgeWay {
    fn why_down(&self) -> Option<io::Error> {
        self.link.why_down()
    }

    fn why_refused(&self) -> Option<io::Error> {
        self.link.why_refused(&self.socket)
    }
}

/// Becomes the `ssh` of a link, which ends when the process that wants it does, also when that is
/// killed. The words are the id of that process, and those for ssh.
///
/// Returns only where it cannot.
pub fn become_ssh(words: &[OsString]) -> io::Error {
    use std::os::unix::process::CommandExt as _;
    let Some((parent, words)) = words.split_first() else {
        return io::Error::from(io::ErrorKind::InvalidInput);
    };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::TERM)) {
        return error.into();
    }
    // It may have ended before it could be seen to end.
    let parent = parent.to_str().and_then(|id| id.parse().ok()).and_then(Pid::from_raw);
    if parent.is_none() || getppid() != parent {
        return io::Error::from(io::ErrorKind::NotFound);
    }
    std::process::Command::new("ssh").args(words).exec()
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

/// User, host and process; or whom a control server says that it acts for.
pub fn who() -> String {
    if let Some(who) = std::env::var(WHO_VARIABLE).ok().filter(|who| !who.is_empty()) {
        return who;
    }
    let user = std::env::var("SUDO_USER")
        .or_else(|_| std::env::var("USER"))
        .unwrap_or_else(|_| own_name());
    let name = rustix::system::uname();
    let host = name.nodename().to_string_lossy();
    format!("{user}@{host} (process {})", std::process::id())
}
