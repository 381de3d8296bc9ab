use std::io;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Tells everything when to stop, and whether there is something to finish first.
pub struct Shutdown {
    stopping: watch::Receiver<bool>,
    ready: watch::Sender<bool>,
}

impl Shutdown {
    /// Stops at SIGTERM or SIGINT.
    pub fn on_signals() -> io::Result<Shutdown> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (sender, stopping) = watch::channel(false);
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            sender.send_replace(true);
            // The sender lives on, so that waiting for a change never ends in an error.
            std::future::pending::<()>().await;
        });
        Ok(Shutdown { stopping, ready: watch::channel(false).0 })
    }

    /// From now on there may be requests to finish.
    pub fn ready(&self) {
        self.ready.send_replace(true);
    }

    /// Waits for a stop before anything was ready: nothing has to be finished.
    pub async fn before_ready(&self) {
        self.requested().await;
        if *self.ready.borrow() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until it is time to stop.
    pub async fn requested(&self) {
        self.watcher().requested().await;
    }

    /// For a task of its own.
    pub fn watcher(&self) -> Stopping {
        Stopping(self.stopping.clone())
    }
}

/// Knows whether it is time to stop.
#[derive(Clone)]
pub struct Stopping(watch::Receiver<bool>);

impl Stopping {
    pub async fn requested(&mut self) {
        // The sender is never dropped while the runtime lives.
        let _ = self.0.wait_for(|stopping| *stopping).await;
    }

    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }
}
