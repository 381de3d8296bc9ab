//! Connections to replicas: made, kept, given back, and tried again when they cannot be made.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use super::Core;
use super::body::RequestBody;
use super::replica::Replica;
use super::stream::SharedStream;
use crate::channel::{Ask, Reply};
use crate::containers;
use crate::log::event;

/// Not the system's default: an address that has vanished swallows packets for minutes.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a replica that refuses is tried again, at first and in the end.
const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_LONGEST: Duration = Duration::from_millis(150);
/// How often to ask meanwhile whether its addresses have changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Servers close idle connections after 2 s (gunicorn), 5 s (node, uvicorn) or more. A request
/// that may be repeated can run into that; one that may not uses only what was used just now.
const FRESH: Duration = Duration::from_millis(1000);
/// Not used for so long: closed.
const IDLE_LONGEST: Duration = Duration::from_secs(60);
/// Idle connections to keep, per replica and thread.
const MAX_IDLE: usize = 256;

/// A connection that waits for its next request.
pub(super) struct Idle {
    sender: SendRequest<RequestBody>,
    stream: SharedStream,
    since: Instant,
}

impl Idle {
    pub(super) fn is_usable(&self) -> bool {
        !self.sender.is_closed() && self.since.elapsed() < IDLE_LONGEST
    }
}

/// A connection in use.
pub(super) struct Connection {
    pub sender: SendRequest<RequestBody>,
    /// It has carried a request before, so the replica may be about to close it.
    pub used: bool,
    stream: SharedStream,
    replica: Arc<Replica>,
    epoch: u64,
    /// Of a new one, until it has been answered on, or long enough has passed.
    pub settling: Option<OwnedSemaphorePermit>,
}

/// A new connection that has not been answered on for so long has left the replica's accept queue.
pub(super) const SETTLING: Duration = Duration::from_millis(50);

/// Which connections a request may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// Any: it may be sent again.
    Any,
    /// One that was used just now, or a new one: it may not be sent again.
    Fresh,
    /// A new one: it was on another that broke, and when a replica dies, all kept ones do.
    New,
}

impl Connection {
    /// An idle one, or a new one; none if the replica was found to be out of reach meanwhile.
    pub(super) async fn get(
        replica: &Arc<Replica>,
        choice: Choice,
    ) -> io::Result<Option<Connection>> {
        if let Some(connection) = Connection::idle(replica, choice) {
            return Ok(Some(connection));
        }
        let settling = replica.connecting.clone().acquire_owned().await.expect("never closed");
        // While waiting for the permit, others may have finished.
        if let Some(connection) = Connection::idle(replica, choice) {
            return Ok(Some(connection));
        }
        // Or have failed.
        if !replica.is_up() {
            return Ok(None);
        }
        let epoch = replica.epoch();
        let stream = SharedStream::new(connect(replica).await?);
        let io = TokioIo::new(stream.clone());
        let (sender, connection) =
            http1::Builder::new().handshake(io).await.map_err(io::Error::other)?;
        // Its errors are seen by the request that it carries.
        tokio::spawn(async move { connection.with_upgrades().await.unwrap_or_default() });
        let (replica, settling) = (replica.clone(), Some(settling));
        Ok(Some(Connection { sender, used: false, stream, replica, epoch, settling }))
    }

    fn idle(replica: &Arc<Replica>, choice: Choice) -> Option<Connection> {
        if choice == Choice::New {
            return None;
        }
        let epoch = replica.epoch();
        let mut idle = replica.idle().lock().expect("no panic while held");
        while let Some(one) = idle.pop() {
            if !one.sender.is_ready() || !one.is_usable() {
                continue;
            }
            if choice == Choice::Fresh && one.since.elapsed() > FRESH {
                // The most recent is on top: all others are older.
                idle.push(one);
                return None;
            }
            // It may have been closed, and hyper not have come to see it.
            if choice == Choice::Fresh && !one.stream.is_quiet() {
                continue;
            }
            return Some(Connection {
                sender: one.sender,
                stream: one.stream,
                used: true,
                replica: replica.clone(),
                epoch,
                settling: None,
            });
        }
        None
    }

    /// Its answer has been read to the end.
    pub(super) fn give_back(mut self) {
        if self.sender.is_closed() {
            return;
        }
        if self.sender.is_ready() {
            self.keep();
            return;
        }
        // Still sending the request's body, or about to say that it is ready.
        tokio::spawn(async move {
            if self.sender.ready().await.is_ok() {
                self.keep();
            }
        });
    }

    fn keep(self) {
        let mut idle = self.replica.idle().lock().expect("no panic while held");
        let current = self.epoch == self.replica.epoch() && self.replica.is_routed();
        if current && idle.len() < MAX_IDLE {
            let (sender, stream) = (self.sender, self.stream);
            idle.push(Idle { sender, stream, since: Instant::now() });
        }
    }
}

/// A new TCP connection to where the replica is now.
pub(super) async fn connect(replica: &Replica) -> io::Result<TcpStream> {
    let connecting = TcpStream::connect(replica.address());
    let stream = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(stream) => stream?,
        Err(_) => return Err(io::ErrorKind::TimedOut.into()),
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Core {
    /// A replica could not be reached: nothing more is sent to it until one task has reached it.
    pub(super) fn suspect(self: &Arc<Self>, replica: &Arc<Replica>, error: &io::Error) {
        let text = format!("connecting to {}: {error}", replica.address());
        if replica.mark_suspect(&text) {
            event("worker", "replica-unreachable", &[("id", &replica.id), ("error", &text)]);
            tokio::spawn(self.clone().reach(replica.clone()));
        }
    }

    async fn reach(self: Arc<Self>, replica: Arc<Replica>) {
        let since = Instant::now();
        let mut wait = RETRY_FIRST;
        let mut looked: Option<Instant> = None;
        while replica.is_routed() {
            let due = looked.is_none_or(|looked| looked.elapsed() > LOOK_EVERY);
            if due && containers::is_container_id(&replica.id) {
                looked = Some(Instant::now());
                self.look(&replica).await;
            }
            if replica.is_present() {
                match connect(&replica).await {
                    Ok(_) => {
                        let after = since.elapsed().as_millis();
                        event("worker", "replica-reached", &[("id", &replica.id), ("ms", &after)]);
                        break;
                    }
                    Err(error) => {
                        replica.failed(&format!("connecting to {}: {error}", replica.address()));
                    }
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_LONGEST);
        }
        replica.clear_suspect();
    }

    /// Asks where a replica's container is.
    async fn look(&self, replica: &Replica) {
        let ask = Ask::Look(replica.id.clone());
        if let Ok((Reply::Sightings(sightings), _)) = self.link.ask(ask).await {
            for sighting in sightings {
                replica.sighted(&sighting.seen);
            }
        }
    }
}
