//! The worker: proxies, and serves the admin API. It has no privileges; what it needs of the
//! system it asks of the supervisor.

mod accept;
mod access_log;
mod admin;
mod auth;
mod body;
mod canary;
mod certificates;
mod client;
mod connection;
mod control;
mod disk;
mod doors;
mod events;
mod forward;
mod framing;
mod headers;
mod health;
mod hold;
mod intake;
mod link;
mod live;
mod metrics;
mod paths;
mod pipe;
mod policy;
mod probe;
mod proxied;
mod rate;
mod record;
mod refusal;
mod replica;
mod routing;
mod rules;
mod stop;
mod stream;
mod tally;
mod tcp;
mod tls;
mod tunnel;
mod upstream;
mod upstream_http1;
mod upstream_http2;
mod watched;
mod websocket;

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use arc_swap::ArcSwap;
use rustls::server::ProducesTickets;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::channel::{Ask, Notice, Reply};
use crate::log::event;
use crate::tickets::Tickets;
use control::Control;
use link::Link;
use replica::Replica;
use routing::Routing;
use tally::Tally;
use tls::Handshakes;

/// The first ones tell the most; the log has all.
const MAX_PROBLEMS: usize = 20;

/// What a worker needs to know.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Names the build in the status, to see whether an upgrade has arrived.
    pub build: String,
    /// Threads that proxy; 0 is one per core.
    pub threads: usize,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        WorkerConfig { build: env!("CARGO_PKG_VERSION").to_owned(), threads: 0 }
    }
}

/// Runs a worker whose standard input is its channel to the supervisor that started it. Call it
/// from a plain thread, before the process has others.
///
/// # Errors
/// When the standard input is not such a channel. Otherwise it ends the process itself: when the
/// supervisor says so, or is gone.
pub fn run(config: WorkerConfig) -> io::Result<()> {
    // Inherited by every thread made later.
    rustix::thread::set_no_new_privs(true)?;
    let channel = io::stdin().as_fd().try_clone_to_owned()?;
    let (link, notices) = Link::start(channel)?;
    let shards = start_shards(config.threads)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(config, link, notices, shards))
}

/// What all parts of the worker share.
struct Core {
    build: String,
    started: Instant,
    supervisor: SupervisorInfo,
    link: Link,
    shards: Vec<Handle>,
    routing: ArcSwap<Routing>,
    /// Replicas that left the table with something still open.
    retired: Mutex<Vec<(String, Arc<Replica>)>>,
    problems: Mutex<Vec<String>>,
    /// Answers carry `Connection: close` from now on.
    stopping: AtomicBool,
    /// Connections are closed as soon as they have nothing in flight.
    closing: watch::Sender<bool>,
    /// Open client connections and tunnels.
    connections: AtomicU64,
    /// Requests that no route and no pool was about.
    unrouted: Tally,
    handshakes: Handshakes,
    tickets: Arc<dyn ProducesTickets>,
}

struct SupervisorInfo {
    pid: u32,
    started: Instant,
    worker_restarts: u64,
}

impl Core {
    fn problem(&self, text: String) {
        event("worker", "problem", &[("what", &text)]);
        let mut problems = self.problems.lock().expect("no panic while held");
        if problems.len() < MAX_PROBLEMS {
            problems.push(text);
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

/// One single-threaded runtime per thread: a connection and its upstream stay on one core.
fn start_shards(threads: usize) -> io::Result<Vec<Handle>> {
    let threads = match threads {
        0 => std::thread::available_parallelism().map_or(1, |cores| cores.get()),
        given => given,
    };
    let start = |number: usize| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let thread = std::thread::Builder::new().name(format!("shard-{number}"));
        thread.spawn(move || {
            replica::enter_shard(number);
            runtime.block_on(std::future::pending::<()>());
        })?;
        Ok(handle)
    };
    (0..threads).map(start).collect()
}

async fn serve(
    config: WorkerConfig,
    link: Link,
    mut notices: link::Notices,
    shards: Vec<Handle>,
) -> io::Result<()> {
    let (reply, fds) = link.ask(Ask::Start).await?;
    let Reply::Start {
        supervisor_pid,
        supervisor_uptime_ms,
        worker_restarts,
        has_table,
        has_previous,
        seed,
    } = reply
    else {
        return Err(io::Error::other("the supervisor's first answer is not `Start`"));
    };
    let mut fds = fds.into_iter();
    let admin = fds.next().ok_or_else(|| io::Error::other("no admin socket came"))?;
    let table = if has_table { fds.next() } else { None };
    let previous = if has_previous { fds.next() } else { None };
    let uptime = std::time::Duration::from_millis(supervisor_uptime_ms);
    let now = Instant::now();
    let core = Arc::new(Core {
        build: config.build,
        started: now,
        supervisor: SupervisorInfo {
            pid: supervisor_pid,
            started: now.checked_sub(uptime).unwrap_or(now),
            worker_restarts,
        },
        link,
        shards,
        routing: ArcSwap::from_pointee(Routing::default()),
        retired: Mutex::default(),
        problems: Mutex::default(),
        stopping: AtomicBool::new(false),
        closing: watch::Sender::new(false),
        connections: AtomicU64::new(0),
        unrouted: Tally::default(),
        handshakes: Handshakes::default(),
        tickets: Arc::new(Tickets::new(seed)),
    });
    let control = Arc::new(Control::start(core.clone(), table, previous).await?);
    core.link.ask(Ask::Serving).await?;
    let admin =
        tokio::spawn(admin::serve(UnixListener::from(admin), core.clone(), control.clone()));
    tokio::spawn(control.clone().keep_trying());
    tokio::spawn(core.clone().probe_replicas());
    let (mut stop, mut following) = (None, None);
    while let Some((notice, fds)) = notices.recv().await {
        match notice {
            Notice::Sighting(sighting) => core.sighted(&sighting),
            Notice::Reopened(place) => control.reopened(place, fds).await,
            Notice::Stop { grace_ms, accepting } => {
                if !accepting {
                    admin.abort();
                    following.get_or_insert_with(|| tokio::spawn(control.clone().follow()));
                }
                stop::begin(&core, &mut stop, grace_ms);
            }
        }
    }
    // Without a supervisor there is nobody to hold the sockets; a new one will start a new worker.
    event("worker", "supervisor-gone", &[]);
    std::process::exit(1);
}
