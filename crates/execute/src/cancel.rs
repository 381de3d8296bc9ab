//! Stopping a deployment from outside.

use std::sync::Arc;

use tokio::sync::watch;

/// Asks a running deployment to undo what it did. Clones share the request.
#[derive(Debug, Clone)]
pub struct Cancel {
    sender: Arc<watch::Sender<Option<String>>>,
}

impl Default for Cancel {
    fn default() -> Self {
        Self { sender: Arc::new(watch::channel(None).0) }
    }
}

impl Cancel {
    /// Asks, with the reason that history will show. The first reason stays.
    pub fn cancel(&self, reason: &str) {
        self.sender.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                *current = Some(reason.to_owned());
            }
            first
        });
    }

    /// The reason, once asked.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        self.sender.borrow().clone()
    }

    /// Waits until asked.
    pub async fn cancelled(&self) -> String {
        let mut receiver = self.sender.subscribe();
        let reason = receiver.wait_for(Option::is_some).await.map(|reason| reason.clone());
        match reason {
            Ok(Some(reason)) => reason,
            // The sender lives in `self`: the channel cannot close while we wait.
            _ => std::future::pending().await,
        }
    }
}
