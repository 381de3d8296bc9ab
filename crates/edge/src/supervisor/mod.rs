//! The supervisor: holds every listening socket, keeps a worker running, and looks up containers.
//!
//! It reads nothing that comes from the network, so traffic cannot crash it. When the worker dies,
//! a new one gets the same sockets; connections made meanwhile wait in their queues.

mod handover;
mod session;
mod store;
mod watch;

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::Resource;
use tokio::io::unix::AsyncFd;
use tokio::process::Child;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::channel::Place;
use crate::log::event;
use crate::sockets;
use crate::tickets::Seed;
use session::End;
use store::Store;
use watch::Watch;

/// A worker that has not served for so long is taken to be unable to; restarts then slow down. One
/// that has is started again at once, however often: connections are waiting.
const HEALTHY_AFTER: Duration = Duration::from_millis(250);
/// The wait before the second restart in a row; it doubles with each.
const BACK_OFF_FIRST: Duration = Duration::from_millis(100);
/// And its limit: an edge that cannot run is tried again for ever, at little cost.
const BACK_OFF_LONGEST: Duration = Duration::from_secs(5);
/// Sockets we would like to be able to have; the kernel's default hard limit is often lower.
const WANTED_FILES: u64 = 1 << 20;

/// What a supervisor needs to know.
#[derive(Debug, Clone)]
pub struct SupervisorConfig {
    /// Where the table is kept. Only the supervisor needs to be able to write there. Starting a
    /// second supervisor with the same directory takes the sockets over from the first, which
    /// then closes softly and exits with 0: that is how an edge is upgraded. Take away the restart
    /// policy of the first before, or it comes back and takes the sockets over again.
    pub state_dir: PathBuf,
    /// Where the admin API listens (mode 0660).
    pub socket_path: PathBuf,
    /// The group that may use the admin API; none leaves it to the process's own group.
    pub socket_gid: Option<u32>,
    /// The program and arguments that run [`crate::worker::run`]. The program must be of the same
    /// build also after an upgrade has replaced the file: `/proc/self/exe` always is.
    pub worker_command: Vec<OsString>,
    /// The user the worker runs as, when the supervisor is root.
    pub worker_uid: u32,
    /// The group the worker runs as, when the supervisor is root.
    pub worker_gid: u32,
    /// After SIGTERM: how long requests in flight may take to end. Keep it below the time after
    /// which the service manager kills.
    pub stop_grace: Duration,
    /// After another supervisor has taken over: how long requests and streams may take to end.
    pub handover_grace: Duration,
}

impl SupervisorConfig {
    /// With the defaults: worker user and group 65534, 8 s to stop (an engine kills after 10), an
    /// hour for what is still open at an upgrade.
    pub fn new(
        state_dir: impl Into<PathBuf>,
        socket_path: impl Into<PathBuf>,
        worker_command: Vec<OsString>,
    ) -> SupervisorConfig {
        SupervisorConfig {
            state_dir: state_dir.into(),
            socket_path: socket_path.into(),
            socket_gid: None,
            worker_command,
            worker_uid: 65534,
            worker_gid: 65534,
            stop_grace: Duration::from_secs(8),
            handover_grace: Duration::from_secs(3600),
        }
    }
}

/// Runs a supervisor until SIGTERM or SIGINT. Makes its own async runtime: call it from a plain
/// thread, before the process has others.
///
/// # Errors
/// When the state directory or the admin socket cannot be made, or the worker cannot be started
/// at all. A worker that dies is not an error; it is started again.
pub fn run(config: SupervisorConfig) -> io::Result<()> {
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { Supervisor::new(config)?.run().await })
}

struct Supervisor {
    config: SupervisorConfig,
    started: Instant,
    restarts: u64,
    admin: UnixListener,
    store: Store,
    /// For session tickets.
    seed: Seed,
    held: HashMap<Place, Held>,
    /// The places this worker has asked for.
    asked: HashSet<Place>,
    /// Since when this worker serves.
    serves_since: Option<Instant>,
    watch: Watch,
    stopping: bool,
    /// Told when our worker serves: the supervisor we take over from.
    predecessor: Option<handover::Predecessor>,
    successors: tokio::net::UnixListener,
}

/// A listening socket.
struct Held {
    socket: OwnedFd,
    /// Of a socket inside a container: its network namespace.
    namespace: Option<(u64, u64)>,
}

impl Supervisor {
    fn new(config: SupervisorConfig) -> io::Result<Supervisor> {
        let store = Store::open(&config.state_dir)?;
        let mut held = HashMap::new();
        let predecessor = handover::take(&config.state_dir, &mut held);
        let handed = predecessor.as_ref().and_then(|predecessor| predecessor.seed.clone());
        let seed = handed.map_or_else(Seed::new, Ok)?;
        let admin = match sockets::listen_unix(&config.socket_path, config.socket_gid) {
            Err(error) if config.socket_gid.is_some() => {
                // Giving a file to a group takes CAP_CHOWN or being in it. Root can still use it.
                event("supervisor", "admin-socket-group-failed", &[("error", &error)]);
                sockets::listen_unix(&config.socket_path, None)?
            }
            result => result?,
        };
        let successors = handover::listen(&config.state_dir)?;
        Ok(Supervisor {
            config,
            started: Instant::now(),
            restarts: 0,
            admin,
            store,
            seed,
            held,
            asked: HashSet::new(),
            serves_since: None,
            watch: Watch::new(),
            stopping: false,
            predecessor,
            successors,
        })
    }

    async fn run(mut self) -> io::Result<()> {
        let mut signals = Signals {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        };
        // Aborted by its drop, when we end.
        let mut naming = tokio::task::JoinSet::new();
        naming.spawn(sockets::keep_named(self.config.socket_path.clone()));
        let mut failures = 0;
        loop {
            self.serves_since = None;
            let (mut child, channel) = match self.start_worker() {
                Ok(worker) => worker,
                Err(error) if self.restarts == 0 => return Err(error),
                Err(error) => {
                    // Out of memory or processes, perhaps. The sockets are worth waiting with.
                    event("supervisor", "worker-start-failed", &[("error", &error)]);
                    failures += 1;
                    if signals.within(back_off(failures.max(2))).await {
                        return Ok(());
                    }
                    continue;
                }
            };
            let pid = child.id().unwrap_or(0);
            event("supervisor", "worker-started", &[("pid", &pid)]);
            let end = self.session(&mut child, &channel, &mut signals).await;
            self.watch.clear();
            self.asked.clear();
            let status = match end {
                End::Exited(status) => status,
                End::Broken(reason) => {
                    event("supervisor", "worker-killed", &[("pid", &pid), ("reason", &reason)]);
                    let _ = child.start_kill();
                    child.wait().await.map_or_else(|e| e.to_string(), |status| status.to_string())
                }
            };
            if self.stopping {
                event("supervisor", "stopped", &[]);
                return Ok(());
            }
            self.restarts += 1;
            let served = self.serves_since.is_some_and(|since| since.elapsed() >= HEALTHY_AFTER);
            failures = if served { 0 } else { failures + 1 };
            let wait = back_off(failures);
            event(
                "supervisor",
                "worker-died",
                &[("pid", &pid), ("status", &status), ("restart_in_ms", &wait.as_millis())],
            );
            if signals.within(wait).await {
                return Ok(());
            }
        }
    }

    fn start_worker(&self) -> io::Result<(Child, AsyncFd<OwnedFd>)> {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        let (program, arguments) = self
            .config
            .worker_command
            .split_first()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no worker command"))?;
        let mut command = std::process::Command::new(program);
        command.args(arguments).stdin(Stdio::from(theirs)).process_group(0);
        if rustix::process::geteuid().is_root() {
            // Giving up root gives up every capability, and all supplementary groups.
            command.uid(self.config.worker_uid).gid(self.config.worker_gid);
        }
        let child = tokio::process::Command::from(command).spawn()?;
        Ok((child, sockets::watched(ours)?))
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => (),
            _ = self.int.recv() => (),
        }
    }

    /// Whether one comes within this time.
    async fn within(&mut self, wait: Duration) -> bool {
        tokio::time::timeout(wait, self.next()).await.is_ok()
    }
}

/// None after the first early death, then 100 ms, 200 ms, … 5 s.
fn back_off(failures: u32) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        more => (BACK_OFF_FIRST * 2_u32.pow((more - 2).min(10))).min(BACK_OFF_LONGEST),
    }
}

fn raise_file_limit() {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    let hard = limit.maximum;
    limit.current = Some(WANTED_FILES);
    limit.maximum = Some(hard.unwrap_or(WANTED_FILES).max(WANTED_FILES));
    if rustix::process::setrlimit(Resource::Nofile, limit).is_err() {
        // Not allowed to raise the hard limit: as far as it goes.
        limit.maximum = hard;
        limit.current = hard;
        let _ = rustix::process::setrlimit(Resource::Nofile, limit);
    }
}
