//! The edge, seen from the command line: its two processes, its image, its container, and the
//! adapter behind [`shiplap_model::Router`].

mod container;
mod holder;
mod image;
mod router;
mod routes;

use std::path::PathBuf;
use std::process::ExitCode;

use shiplap_edge::supervisor::{self, SupervisorConfig};
use shiplap_edge::worker::{self, WorkerConfig};

use crate::cli::{Command, EdgeCommand};

pub use container::{remove, upgrade};
pub use router::{EdgeRouter, router as error};

/// Where the edge keeps its table and its socket, on the engine's host and in its container. Not
/// below the ledger's folder, which is closed to everybody else: whoever may use the engine must
/// reach the socket.
const DEFAULT_DIR: &str = "/var/lib/shiplap-edge";
/// Name of the admin socket in that folder.
const SOCKET: &str = "admin.sock";
/// Another folder, for a second edge on one machine.
const DIR_VARIABLE: &str = "SHIPLAP_EDGE_DIR";
/// Group that may use the admin socket.
const GID_VARIABLE: &str = "SHIPLAP_EDGE_GID";
/// The engine's socket, outside of the edge's container: whoever may use it may use the admin
/// socket.
const ENGINE_VARIABLE: &str = "SHIPLAP_EDGE_ENGINE";
/// Names the build, in the edge's status.
const BUILD_VARIABLE: &str = "SHIPLAP_EDGE_BUILD";

/// The edge's folder.
pub fn dir() -> PathBuf {
    std::env::var_os(DIR_VARIABLE).map_or_else(|| DEFAULT_DIR.into(), PathBuf::from)
}

/// The edge's admin socket.
pub fn socket() -> PathBuf {
    dir().join(SOCKET)
}

/// Name of the image of this very binary.
pub fn own_image() -> Option<String> {
    image::EdgeImage::of_this_binary().ok().map(|image| image.tag)
}

/// Makes sure that the engine has the image of this very binary, and returns its name.
///
/// # Errors
/// When the binary cannot be read or the engine does not take it.
pub async fn load_image(
    docker: &shiplap_engine::DockerEngine,
) -> Result<String, shiplap_model::RouterError> {
    Ok(container::load(docker).await?.tag)
}

/// Runs as the supervisor or as the worker, until told to stop.
pub fn role(command: &Command) -> ExitCode {
    let result = match command {
        Command::Edge(EdgeCommand::Supervise) => supervise(),
        Command::Edge(EdgeCommand::Work) => {
            let build = std::env::var(BUILD_VARIABLE).unwrap_or_default();
            worker::run(WorkerConfig { build, threads: 0 })
        }
        Command::Edge(EdgeCommand::HoldNames) => loop {
            // Being there is all there is to it: its network namespace is what counts.
            std::thread::park();
        },
        _ => unreachable!("only the edge's own roles come here"),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error[edge]: {error}");
            ExitCode::FAILURE
        }
    }
}

fn supervise() -> std::io::Result<()> {
    let own = std::env::current_exe()?;
    let command = vec![own.into_os_string(), "edge".into(), "work".into()];
    let mut config = SupervisorConfig::new(dir(), socket(), command);
    let given = std::env::var(GID_VARIABLE).ok().and_then(|gid| gid.parse().ok());
    let found = || group_outside(std::env::var_os(ENGINE_VARIABLE)?.as_ref());
    config.socket_gid = given.or_else(found);
    supervisor::run(config)
}

/// The group of a file outside of our container, which shares the processes of its machine.
fn group_outside(path: &std::path::Path) -> Option<u32> {
    use rustix::fs::{Mode, OFlags, ResolveFlags, fstat, open, openat2};
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = open("/proc/1/root", flags | OFlags::DIRECTORY, Mode::empty()).ok()?;
    // `/var/run` is a link to `/run`, which is to lead to the one outside.
    let file = openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT).ok()?;
    Some(fstat(file).ok()?.st_gid)
}
