//! Asking whoever carries an order out to stop.

use std::sync::Arc;

use tokio::sync::watch;

/// Why to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// This server leaves. Finish if it takes seconds, or leave the order to others:
    /// [`crate::CarriedOut::Left`].
    Leaving,
    /// Another server has taken the order over: change nothing any more, at once. What is returned
    /// is not written down.
    Lost,
    /// Somebody has taken the order back: undo it.
    Withdrawn,
}

/// A request to stop. Clones share it.
#[derive(Debug, Clone)]
pub struct Stop {
    sender: Arc<watch::Sender<Option<StopReason>>>,
}

impl Default for Stop {
    fn default() -> Self {
        Self { sender: Arc::new(watch::channel(None).0) }
    }
}

impl Stop {
    /// Asks. A later reason replaces an earlier one, except that [`StopReason::Lost`] stays:
    /// nothing may be changed after that.
    pub fn ask(&self, reason: StopReason) {
        self.sender.send_if_modified(|current| {
            let changes = *current != Some(StopReason::Lost) && *current != Some(reason);
            if changes {
                *current = Some(reason);
            }
            changes
        });
    }

    /// The reason, once asked.
    #[must_use]
    pub fn reason(&self) -> Option<StopReason> {
        *self.sender.borrow()
    }

    /// Waits until asked.
    pub async fn asked(&self) -> StopReason {
        self.other_than(None).await
    }

    /// Waits until there is another reason than `seen`: whoever leaves slowly may lose the order
    /// too.
    pub async fn other_than(&self, seen: Option<StopReason>) -> StopReason {
        let mut receiver = self.sender.subscribe();
        let reason = receiver.wait_for(|now| now.is_some() && *now != seen).await.map(|now| *now);
        match reason {
            Ok(Some(reason)) => reason,
            // The sender lives in `self`: the channel cannot close while we wait.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_order_that_was_lost_stays_lost() {
        let stop = Stop::default();
        assert_eq!(stop.reason(), None);
        stop.ask(StopReason::Leaving);
        assert_eq!(stop.asked().await, StopReason::Leaving);
        stop.ask(StopReason::Lost);
        stop.ask(StopReason::Withdrawn);
        assert_eq!(stop.other_than(Some(StopReason::Leaving)).await, StopReason::Lost);
    }
}
