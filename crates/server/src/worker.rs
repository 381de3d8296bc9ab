//! Takes orders from the queue and has them carried out.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use shiplap_model::{Claim, OrderEnd, OrderError};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::core::Core;
use crate::stop::{Stop, StopReason};
use crate::works::CarriedOut;

/// The queue is looked at so often even if nothing happens: for claims that have run out, and for
/// orders that are due and were placed before this server began.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The first wait after an error of the ledger, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// The exit code of a command whose own promise was broken.
const OUR_BUG: u8 = 70;

/// Takes orders and has them carried out until `leave` ends; then waits for those that are under
/// way, for as long as the settings say.
pub(crate) async fn work(core: Arc<Core>, leave: impl Future<Output = ()>) {
    let mut leave = pin!(leave);
    let mut running = JoinSet::new();
    let mut beat = core.beat.listen();
    let mut backoff = BACKOFF.0;
    loop {
        beat.mark_unchanged();
        // Before the queue is looked at: what becomes due meanwhile is looked for again.
        let until_due = core.beat.until_due();
        let wake = match take(&core, &mut running).await {
            Ok(()) => {
                backoff = BACKOFF.0;
                until_due.unwrap_or(LOOK_EVERY).min(LOOK_EVERY)
            }
            Err(_) => {
                let wait = backoff;
                backoff = (backoff * 2).min(BACKOFF.1);
                wait
            }
        };
        let wake = sleep(wake);
        tokio::select! {
            () = &mut leave => break,
            Some(_) = running.join_next() => {}
            Ok(()) = beat.changed() => {}
            () = wake => {}
        }
    }
    for stop in core.running().values() {
        stop.ask(StopReason::Leaving);
    }
    let all = async { while running.join_next().await.is_some() {} };
    if timeout(core.settings.leave_within, all).await.is_err() {
        core.log
            .trouble("orders are left to other servers, or to the next start: they take too long");
    }
}

/// Takes all that is due and fits.
async fn take(core: &Arc<Core>, running: &mut JoinSet<()>) -> Result<(), OrderError> {
    while running.len() < core.settings.parallel {
        let claim = core.orders.claim(&core.settings.server, core.settings.claim_ttl).await;
        match core.health.seen(claim)? {
            Some(claim) => {
                core.beat.now();
                let stop = Stop::default();
                core.running().insert(claim.order.id, stop.clone());
                running.spawn(carry(core.clone(), claim, stop));
            }
            None => break,
        }
    }
    Ok(())
}

/// Has one order carried out, to its end or until it is somebody else's.
async fn carry(core: Arc<Core>, claim: Claim, stop: Stop) {
    let id = claim.order.id;
    let log = core.progress.open(id);
    {
        let keep = keep(&core, &claim, &stop);
        let through = through(&core, &claim, &stop, &log);
        tokio::select! {
            () = keep => {}
            () = through => {}
        }
    }
    core.running().remove(&id);
    core.beat.now();
}

async fn through(core: &Arc<Core>, claim: &Claim, stop: &Stop, log: &crate::progress::OrderLog) {
    let carried = AssertUnwindSafe(core.works.carry_out(claim, log, stop)).catch_unwind().await;
    let end = match carried {
        Ok(CarriedOut::Ended(end)) => end,
        Ok(CarriedOut::Left) => return,
        // Left to others it would be tried for ever.
        Err(_) => {
            let summary = "the server failed in the middle of it; this is a bug".to_owned();
            core.log.trouble(&format!("order {}: {summary}", claim.order.id));
            OrderEnd { at_ms: core.now_ms(), exit: OUR_BUG, deployment: None, summary }
        }
    };
    if stop.reason() == Some(StopReason::Lost) {
        return;
    }
    if write_end(core, claim, &end).await {
        core.notifier.tell(core, &claim.order, &end);
    }
}

/// Writes down how it ended, as soon as the ledger takes it. False where it is another server's by
/// now.
async fn write_end(core: &Core, claim: &Claim, end: &OrderEnd) -> bool {
    let mut backoff = BACKOFF.0;
    loop {
        match core.health.seen(core.orders.finish(claim, end).await) {
            Ok(()) => return true,
            Err(OrderError::Ledger(_)) => {
                sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF.1);
            }
            Err(OrderError::Lost(_) | OrderError::KeyReused(_) | OrderError::Full(_)) => {
                return false;
            }
        }
    }
}

/// Keeps the order ours. While the ledger does not answer nothing is stopped: whoever carries the
/// order out holds the environment's lease as well, and that is what forbids two writers. Ends
/// never.
async fn keep(core: &Core, claim: &Claim, stop: &Stop) {
    let every = core.settings.claim_ttl / 3;
    let mut next = Instant::now() + every;
    loop {
        tokio::time::sleep_until(next).await;
        match core.health.seen(core.orders.keep(claim, core.settings.claim_ttl).await) {
            Ok(()) => next = Instant::now() + every,
            Err(OrderError::Ledger(_)) => next = Instant::now() + every.min(BACKOFF.0),
            Err(OrderError::Lost(_) | OrderError::KeyReused(_) | OrderError::Full(_)) => {
                stop.ask(StopReason::Lost);
                return std::future::pending().await;
            }
        }
    }
}
