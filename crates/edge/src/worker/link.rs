//! The worker's end of the channel to the supervisor.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::channel::{self, Ask, FromSupervisor, Notice, Reply, Request};
use crate::log::event;

/// The supervisor answers in milliseconds; syncing a table on a slow disk takes longest.
const TIMEOUT: Duration = Duration::from_secs(20);

type Answer = (Reply, Vec<OwnedFd>);
type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Answer>>>>;

/// What the supervisor says unasked; ends when it is gone.
pub(super) type Notices = mpsc::UnboundedReceiver<(Notice, Vec<OwnedFd>)>;

#[derive(Clone)]
pub(super) struct Link {
    channel: Arc<OwnedFd>,
    next: Arc<AtomicU64>,
    waiting: Waiting,
}

impl Link {
    pub(super) fn start(channel: OwnedFd) -> io::Result<(Link, Notices)> {
        let link =
            Link { channel: Arc::new(channel), next: Arc::default(), waiting: Waiting::default() };
        let (notices, receiver) = mpsc::unbounded_channel();
        let (channel, waiting) = (link.channel.clone(), link.waiting.clone());
        let reader = std::thread::Builder::new().name("supervisor".to_owned());
        reader.spawn(move || read(&channel, &waiting, &notices))?;
        Ok((link, receiver))
    }

    pub(super) async fn ask(&self, ask: Ask) -> io::Result<Answer> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().expect("no panic while held").insert(id, sender);
        let answer = match channel::send(&*self.channel, &Request { id, ask }, &[]) {
            Ok(()) => tokio::time::timeout(TIMEOUT, receiver).await,
            Err(error) => {
                self.forget(id);
                return Err(error);
            }
        };
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(io::Error::other("the supervisor is gone")),
            Err(_) => {
                self.forget(id);
                Err(io::Error::other("the supervisor does not answer"))
            }
        }
    }

    fn forget(&self, id: u64) {
        self.waiting.lock().expect("no panic while held").remove(&id);
    }
}

fn read(
    channel: &OwnedFd,
    waiting: &Waiting,
    notices: &mpsc::UnboundedSender<(Notice, Vec<OwnedFd>)>,
) {
    loop {
        match channel::receive(channel) {
            Ok(Some((FromSupervisor::Reply { id, reply }, fds))) => {
                let waiter = waiting.lock().expect("no panic while held").remove(&id);
                if let Some(waiter) = waiter {
                    let _ = waiter.send((reply, fds));
                }
            }
            Ok(Some((FromSupervisor::Notice(notice), fds))) => {
                if notices.send((notice, fds)).is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(error) => {
                event("worker", "channel-failed", &[("error", &error)]);
                return;
            }
        }
    }
}

/// The words for an answer that is not the one hoped for.
pub(super) fn refusal(what: &str, reply: Reply) -> String {
    match reply {
        Reply::Failed(error) => format!("{what}: {error}"),
        other => format!("{what}: the supervisor answered {other:?}"),
    }
}
