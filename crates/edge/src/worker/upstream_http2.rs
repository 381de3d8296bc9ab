//! HTTP/2 without TLS to replicas: few connections, each with many streams.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::header::{self, HeaderValue};
use hyper::http::uri::{Authority, Scheme, Uri};
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use super::body::RequestBody;
use super::replica::Replica;
use super::upstream::connect;

/// Connections per replica and thread. When all their streams are taken, requests wait for one.
const MAX_LINKS: usize = 16;
/// Until the replica says how many streams it takes, it is this: a number that none says.
const UNTOLD: usize = 97;
/// It is waited for so long, and looked for so often: streams that a connection has no room for
/// would have to wait, while another connection has.
const TOLD_TIME: Duration = Duration::from_millis(200);
const TOLD_LOOK: Duration = Duration::from_millis(1);
/// A connection with streams is asked whether it is still there; see the client's side.
const PING: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// What one stream, and one connection, may have under way towards us: what a client does not
/// take is held back at the replica beyond that.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// This thread's connections to one replica.
#[derive(Default)]
pub(super) struct Links {
    open: Mutex<Vec<Arc<Link>>>,
    /// One is made at a time, for all that wait for it.
    making: tokio::sync::Mutex<()>,
}

struct Link {
    sender: SendRequest<RequestBody>,
    streams: AtomicUsize,
    /// As the replica says; it may change its mind.
    max_streams: Arc<AtomicUsize>,
}

/// One stream of a connection.
pub(super) struct Stream {
    link: Arc<Link>,
    replica: Arc<Replica>,
    pub used: bool,
}

impl Links {
    /// Lets go of all; what is under way on them ends by itself.
    pub(super) fn forget(&self) {
        self.open.lock().expect("no panic while held").clear();
    }

    fn drop_link(&self, gone: &Arc<Link>) {
        let mut open = self.open.lock().expect("no panic while held");
        open.retain(|link| !Arc::ptr_eq(link, gone));
    }

    /// The one with the fewest streams, if it has room or there may be no other.
    fn pick(&self) -> Option<Arc<Link>> {
        let mut open = self.open.lock().expect("no panic while held");
        open.retain(|link| !link.sender.is_closed());
        let least = open.iter().min_by_key(|link| link.streams.load(Ordering::Relaxed))?;
        let room =
            least.streams.load(Ordering::Relaxed) < least.max_streams.load(Ordering::Relaxed);
        (room || open.len() >= MAX_LINKS).then(|| least.clone())
    }
}

impl Stream {
    /// A stream of a connection that is there, or of a new one; none if the replica was found to
    /// be out of reach meanwhile.
    pub(super) async fn open(replica: &Arc<Replica>) -> io::Result<Option<Stream>> {
        let links = replica.links();
        if let Some(link) = links.pick() {
            return Ok(Some(Stream::on(link, replica, true)));
        }
        let _making = links.making.lock().await;
        if let Some(link) = links.pick() {
            return Ok(Some(Stream::on(link, replica, true)));
        }
        if !replica.is_up() {
            return Ok(None);
        }
        let epoch = replica.epoch();
        let link = Arc::new(Link::make(replica).await?);
        if epoch == replica.epoch() && replica.is_routed() {
            links.open.lock().expect("no panic while held").push(link.clone());
        }
        Ok(Some(Stream::on(link, replica, false)))
    }

    fn on(link: Arc<Link>, replica: &Arc<Replica>, used: bool) -> Stream {
        link.streams.fetch_add(1, Ordering::Relaxed);
        Stream { link, replica: replica.clone(), used }
    }

    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        let address = self.replica.address().to_string();
        let request = addressed(request, &address);
        let sent = self.link.sender.clone().try_send_request(request).await;
        // One stream that broke says nothing about the others, unless nothing can be written any more.
        if sent.as_ref().is_err_and(|failure| failure.message().is_some()) {
            self.replica.links().drop_link(&self.link);
        }
        sent
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.link.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Link {
    async fn make(replica: &Arc<Replica>) -> io::Result<Link> {
        let stream = connect(replica).await?;
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_max_send_streams(UNTOLD)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING_TIMEOUT);
        let made = builder.handshake(TokioIo::new(stream)).await;
        let (sender, mut connection) = made.map_err(io::Error::other)?;
        let telling = async {
            while connection.current_max_send_streams() == UNTOLD {
                tokio::time::sleep(TOLD_LOOK).await;
            }
        };
        let _ = tokio::time::timeout(TOLD_TIME, telling).await;
        let max_streams = Arc::new(AtomicUsize::new(connection.current_max_send_streams()));
        let told = max_streams.clone();
        // Its errors are seen by the requests that it carries.
        tokio::spawn(poll_fn(move |cx| {
            let polled = Pin::new(&mut connection).poll(cx);
            told.store(connection.current_max_send_streams(), Ordering::Relaxed);
            polled.map(|_| ())
        }));
        Ok(Link { sender, streams: AtomicUsize::new(0), max_streams })
    }
}

/// With its host where HTTP/2 has it.
fn addressed(request: Request<RequestBody>, address: &str) -> Request<RequestBody> {
    let (mut parts, body) = request.into_parts();
    let host = parts.headers.remove(header::HOST);
    let named = host.as_ref().map(HeaderValue::as_bytes).map(Authority::try_from);
    let authority = match named {
        Some(Ok(authority)) => authority,
        // HTTP/1.0 need not say.
        Some(Err(_)) | None => address.parse().expect("a socket address is an authority"),
    };
    let mut uri = parts.uri.into_parts();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(authority);
    parts.uri = Uri::from_parts(uri).unwrap_or_else(|_| Uri::from_static("/"));
    parts.version = Version::HTTP_2;
    Request::from_parts(parts, body)
}
