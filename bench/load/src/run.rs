//! Sending at a constant rate, on a thread of its own.

use crate::config::{Config, Connections};
use crate::connection::{Answer, Connection};
use crate::report::{DropKind, Outcome, Recorder, Report, Snapshot};
use crate::response::ResponseReader;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;

/// Load to be started.
pub struct Load;

impl Load {
    /// Starts sending.
    ///
    /// The load has a thread and a runtime of its own, so what the caller's runtime does, or fails
    /// to do, does not disturb the rate.
    ///
    /// # Errors
    /// If the thread or its runtime cannot be made.
    ///
    /// # Panics
    /// If the rate is not above zero.
    pub fn start(config: Config) -> io::Result<Running> {
        assert!(config.rate > 0.0, "a rate is above zero: {}", config.rate);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::new(Shared {
            wire: config.wire(),
            config,
            recorder: Mutex::new(Recorder::new(Instant::now())),
            idle: Mutex::new(Vec::new()),
            stop: Notify::new(),
        });
        let (done_sender, done) = oneshot::channel();
        let of_thread = shared.clone();
        std::thread::Builder::new().name("load".into()).spawn(move || {
            runtime.block_on(send(of_thread));
            // Nobody listens if the load was dropped.
            let _ = done_sender.send(());
        })?;
        Ok(Running { shared, done })
    }
}

/// Load that is being sent. Dropping it ends it.
pub struct Running {
    shared: Arc<Shared>,
    done: oneshot::Receiver<()>,
}

impl Running {
    /// The figures since the start or the latest cut.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.recorder().snapshot(Instant::now())
    }

    /// Reports what ended since the start or the latest cut, and begins a new report; the load
    /// goes on. A request belongs to the report in which it ends.
    pub fn cut(&self) -> Report {
        self.shared.recorder().cut(Instant::now())
    }

    /// Sends no more, waits for the requests in flight (each bounded by the timeout) and reports.
    pub async fn stop(self) -> Report {
        self.shared.stop.notify_one();
        self.finished().await
    }

    /// Waits for the configured end and reports.
    pub async fn finished(mut self) -> Report {
        self.wait().await;
        self.cut()
    }

    /// Waits for the configured end and for the requests in flight.
    pub async fn wait(&mut self) {
        (&mut self.done).await.expect("the thread of a load does not panic");
    }

    /// Sends no more.
    pub fn end(&self) {
        self.shared.stop.notify_one();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

struct Shared {
    config: Config,
    wire: Vec<u8>,
    recorder: Mutex<Recorder>,
    idle: Mutex<Vec<Connection>>,
    stop: Notify,
}

impl Shared {
    fn recorder(&self) -> MutexGuard<'_, Recorder> {
        self.recorder.lock().expect("no holder of the recorder panics")
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().expect("no holder of the idle connections panics")
    }

    /// A connection that may be used again, the most recently used first.
    fn idle_connection(&self) -> Option<Connection> {
        let mut idle = self.idle();
        std::iter::from_fn(|| idle.pop()).find(Connection::is_reusable)
    }
}

async fn send(shared: Arc<Shared>) {
    let config = &shared.config;
    let start = Instant::now();
    let mut requests = JoinSet::new();
    for index in 0u64.. {
        let offset = Duration::from_secs_f64(index as f64 / config.rate);
        if config.duration.is_some_and(|duration| offset >= duration) {
            break;
        }
        let due = start + offset;
        tokio::select! {
            biased;
            () = shared.stop.notified() => break,
            () = tokio::time::sleep_until(due.into()) => {}
        }
        while requests.try_join_next().is_some() {}
        let mut recorder = shared.recorder();
        if recorder.in_flight() >= config.max_in_flight {
            recorder.overrun(due);
        } else {
            recorder.started();
            requests.spawn(one(shared.clone(), due));
        }
    }
    while requests.join_next().await.is_some() {}
}

async fn one(shared: Arc<Shared>, due: Instant) {
    let result = tokio::time::timeout(shared.config.timeout, attempt(&shared))
        .await
        .unwrap_or(Err(DropKind::Timeout));
    let mut recorder = shared.recorder();
    // Read under the lock, so that successes are recorded in the order of their times.
    let now = Instant::now();
    match result {
        Ok(answer) => {
            let tag = shared.config.tag.as_ref().map(|_| answer.tag.unwrap_or_else(|| "-".into()));
            recorder.answered(due, now, answer.status, tag);
        }
        Err(kind) => recorder.ended(due, now, Outcome::Drop(kind)),
    }
}

async fn attempt(shared: &Shared) -> Result<Answer, DropKind> {
    let config = &shared.config;
    let mut connection = match shared.idle_connection() {
        Some(connection) => connection,
        None => {
            let connection = Connection::open(&config.url).await?;
            shared.recorder().connected();
            connection
        }
    };
    let reader = ResponseReader::new(&config.method, config.tag.as_deref());
    let answer = connection.exchange(&shared.wire, reader).await?;
    match config.connections {
        Connections::Reused => shared.idle().push(connection),
        Connections::PerRequest => {}
    }
    Ok(answer)
}
