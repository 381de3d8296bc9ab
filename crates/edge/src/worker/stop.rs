//! Closing softly: answers say `Connection: close`, what is in flight ends, then the process does.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::Core;
use crate::log::event;

/// Idle connections may use so long for the request after which they are closed: closing them at
/// once would meet requests that are on their way.
const SOFT: Duration = Duration::from_secs(3);
/// For the last answers to leave.
const FLUSH: Duration = Duration::from_secs(1);
/// For streams to say their goodbyes, which takes two seconds at most.
const STREAMS: Duration = Duration::from_millis(2500);
const LOOK: Duration = Duration::from_millis(20);

/// Starts to stop, or shortens the time that is left.
pub(super) fn begin(core: &Arc<Core>, stop: &mut Option<JoinHandle<()>>, grace_ms: u64) {
    let grace = Duration::from_millis(grace_ms);
    event("worker", "stopping", &[("grace_ms", &grace_ms)]);
    core.stopping.store(true, Ordering::Relaxed);
    if let Some(earlier) = stop.replace(tokio::spawn(end(core.clone(), grace))) {
        earlier.abort();
    }
}

async fn end(core: Arc<Core>, grace: Duration) {
    let began = Instant::now();
    let soft = SOFT.min(grace / 2);
    let connections = || core.connections.load(Ordering::SeqCst);
    // First the idle connections get their chance, then all others until the end of the grace.
    while began.elapsed() < soft && connections() > 0 {
        tokio::time::sleep(LOOK).await;
    }
    let _ = core.closing.send_replace(true);
    core.end_streams(grace.saturating_sub(began.elapsed() + STREAMS));
    while began.elapsed() + FLUSH.min(grace / 4) < grace && connections() > 0 {
        tokio::time::sleep(LOOK).await;
    }
    event("worker", "stopped", &[("cut", &connections())]);
    std::process::exit(0);
}
