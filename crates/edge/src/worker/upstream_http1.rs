//! HTTP/1 to replicas: connections that carry one request at a time, and are kept for the next.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use tokio::sync::OwnedSemaphorePermit;

use super::body::RequestBody;
use super::replica::Replica;
use super::stream::SharedStream;
use super::upstream::{Choice, connect};

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
    sender: SendRequest<RequestBody>,
    /// It has carried a request before, so the replica may be about to close it.
    pub used: bool,
    stream: SharedStream,
    replica: Arc<Replica>,
    epoch: u64,
    /// Of a new one, until it has been answered on, or long enough has passed.
    settling: Option<OwnedSemaphorePermit>,
}

/// A new connection that has not been answered on for so long has left the replica's accept queue.
const SETTLING: Duration = Duration::from_millis(50);

impl Connection {
    /// An idle one, or a new one; none if the replica was found to be out of reach meanwhile.
    pub(super) async fn get(
        replica: &Arc<Replica>,
        choice: Choice,
    ) -> io::Result<Option<Connection>> {
        if let Some(connection) = Connection::idle(replica, choice) {
            return Ok(Some(connection));
        }
        // Boxed: requests that find one have no room for making one.
        Box::pin(Connection::make(replica, choice)).await
    }

    async fn make(replica: &Arc<Replica>, choice: Choice) -> io::Result<Option<Connection>> {
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

    pub(super) async fn send(
        &mut self,
        mut request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        // It is about one connection, and on this one nobody looks for trailers.
        request.headers_mut().remove(header::TE);
        let sending = self.sender.try_send_request(request);
        let Some(settling) = self.settling.take() else { return sending.await };
        Box::pin(settle(sending, settling)).await
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

/// Waits for the first answer on a new connection, which keeps its permit until it has settled.
async fn settle<T>(sending: impl Future<Output = T>, settling: OwnedSemaphorePermit) -> T {
    let mut sending = std::pin::pin!(sending);
    match tokio::time::timeout(SETTLING, sending.as_mut()).await {
        Ok(sent) => sent,
        Err(_) => {
            drop(settling);
            sending.await
        }
    }
}
