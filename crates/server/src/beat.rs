//! Telling those who wait that something happened in the queue.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::core::Core;

/// Beats when an order was placed, taken or ended, by this server or by another.
pub(crate) struct Beat {
    count: watch::Sender<u64>,
    /// When orders that were placed here are due. By our own clock: the ledger's may be another
    /// one.
    dues: Mutex<BTreeSet<Instant>>,
}

/// The ledger counts in milliseconds; after these more an order is due for it too.
const ROUNDING: Duration = Duration::from_millis(5);

impl Default for Beat {
    fn default() -> Self {
        Self { count: watch::channel(0).0, dues: Mutex::default() }
    }
}

impl Beat {
    /// This server did something.
    pub(crate) fn now(&self) {
        self.count.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// This server placed an order that is due after this time.
    pub(crate) fn placed(&self, settle: Duration) {
        let due = Instant::now() + settle + ROUNDING;
        self.dues.lock().unwrap_or_else(PoisonError::into_inner).insert(due);
        self.now();
    }

    /// How long until the next order is due that was placed here. Forgets those that are.
    pub(crate) fn until_due(&self) -> Option<Duration> {
        let mut dues = self.dues.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        *dues = dues.split_off(&now);
        dues.first().map(|due| *due - now)
    }

    /// To wait for the next one.
    pub(crate) fn listen(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }
}

/// Beats for what other servers do. Never ends.
pub(crate) async fn follow_others(core: Arc<Core>) {
    let mut known = None;
    loop {
        // An error is in the health, and tried again with the next one.
        if let Ok(revision) = core.health.seen(core.orders.orders_revision().await) {
            if known.is_some_and(|known| known != revision) {
                core.beat.now();
            }
            known = Some(revision);
        }
        sleep(core.settings.beat).await;
    }
}
