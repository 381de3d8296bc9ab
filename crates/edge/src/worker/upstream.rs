//! Connections to replicas: made, and tried again when they cannot be made. What is spoken on them
//! is [`http1`](super::upstream_http1) or [`http2`](super::upstream_http2).

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::{Request, Response};
use tokio::net::TcpStream;

use super::Core;
use super::body::RequestBody;
use super::replica::Replica;
use super::{upstream_http1 as http1, upstream_http2 as http2};
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

/// A connection in use by one request.
pub(super) enum Connection {
    Http1(http1::Connection),
    Http2(http2::Stream),
}

impl Connection {
    /// An idle one, or a new one; none if the replica was found to be out of reach meanwhile.
    pub(super) async fn get(
        replica: &Arc<Replica>,
        choice: Choice,
    ) -> io::Result<Option<Connection>> {
        if replica.speaks_http2() {
            return Ok(Box::pin(http2::Stream::open(replica)).await?.map(Connection::Http2));
        }
        Ok(http1::Connection::get(replica, choice).await?.map(Connection::Http1))
    }

    /// It has carried a request before, so the replica may be about to close it.
    pub(super) fn is_used(&self) -> bool {
        match self {
            Connection::Http1(connection) => connection.used,
            Connection::Http2(stream) => stream.used,
        }
    }

    /// Sends a request and waits for its answer. A request that was not written comes back.
    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        match self {
            Connection::Http1(connection) => connection.send(request).await,
            Connection::Http2(stream) => Box::pin(stream.send(request)).await,
        }
    }

    /// Its answer has been read to the end.
    pub(super) fn give_back(self) {
        match self {
            Connection::Http1(connection) => connection.give_back(),
            // It is shared, and this was its part of it.
            Connection::Http2(_) => {}
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
