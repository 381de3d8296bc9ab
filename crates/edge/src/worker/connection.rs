//! One client's connection: what it speaks, its requests one after the other, and its end.
//!
//! While nothing is under way, hyper is not there either: its buffers, 16 KiB, are made when the
//! first byte of a request comes, and a moment after the last answer they are gone. So an open
//! connection that is silent costs little more than its socket.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::Response;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;

use super::Core;
use super::body::AnswerBody;
use super::client::{Client, Doing};
use super::framing::HeadLimits;
use super::refusal::Refusal;
use super::watched::{Replayed, Watched};

/// What a client and we have agreed to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Negotiated {
    /// Nothing: HTTP/2 if the client begins with its preface, else HTTP/1.
    Nothing,
    /// HTTP/1, by ALPN.
    Http1,
    /// HTTP/2, by ALPN.
    Http2,
}

/// What every HTTP/2 connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// So much is read before it is known what the client speaks; hyper then gets it first.
const FIRST_BYTES: usize = 4 << 10;
/// After the last answer, hyper is kept for the next request for so long.
const KEEP_HYPER: Duration = Duration::from_millis(250);
/// How often a busy connection is looked at.
const BUSY_LOOK: Duration = Duration::from_secs(2);
/// What a client still sends after we have said our last is read for so long, and to this amount:
/// closing at once would reset the connection, and take our answer with it.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 1 << 20;
/// A silent HTTP/2 connection is asked whether it is still there.
const HTTP2_PING: Duration = Duration::from_secs(30);
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(20);
/// What one stream, and one connection, may have under way: enough for 100 Mbit/s over 40 ms.
const HTTP2_STREAM_WINDOW: u32 = 512 << 10;
const HTTP2_CONNECTION_WINDOW: u32 = 2 << 20;
const HTTP2_SEND_BUFFER: usize = 64 << 10;

type Answer = Pin<Box<dyn Future<Output = Result<Response<AnswerBody>, Infallible>> + Send>>;

/// Serves one connection to its end. Whoever takes TLS off a stream passes it on with what was
/// negotiated.
pub(super) async fn serve<S>(
    core: Arc<Core>,
    listener: u64,
    stream: S,
    client: Arc<Client>,
    negotiated: Negotiated,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let closing = core.closing.subscribe();
    let mut serving = Serving { core, listener, client, closing };
    let mut stream = stream;
    loop {
        let first = match serving.first_bytes(&mut stream, negotiated).await {
            Some(first) => first,
            None => return say_goodbye(&mut stream).await,
        };
        let is_http2 = match negotiated {
            Negotiated::Nothing => first.starts_with(PREFACE),
            Negotiated::Http1 => false,
            Negotiated::Http2 => true,
        };
        if is_http2 {
            return serving.http2(Replayed { stream, first }).await;
        }
        match serving.http1(stream, first).await {
            Some(parked) => stream = parked,
            None => return,
        }
    }
}

struct Serving {
    core: Arc<Core>,
    listener: u64,
    client: Arc<Client>,
    closing: watch::Receiver<bool>,
}

impl Serving {
    /// Waits for a request to begin; none when the connection is to end.
    async fn first_bytes<S>(&mut self, stream: &mut S, negotiated: Negotiated) -> Option<Bytes>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let idle = Duration::from_millis(self.client.limits.idle_timeout_ms);
        let mut first = tokio::select! {
            first = read_some(stream) => first?,
            () = tokio::time::sleep(idle) => return None,
            _ = self.closing.wait_for(|closing| *closing) => return None,
        };
        if negotiated != Negotiated::Nothing {
            return Some(first);
        }
        // `P` may become POST as well as the preface of HTTP/2.
        let head = tokio::time::sleep(Duration::from_millis(self.client.limits.head_timeout_ms));
        let mut head = std::pin::pin!(head);
        while first.len() < PREFACE.len() && PREFACE.starts_with(&first) {
            tokio::select! {
                more = read_some(stream) => first = [first, more?].concat().into(),
                () = head.as_mut() => return None,
            }
        }
        Some(first)
    }

    /// Serves HTTP/1 until the connection has been idle for a moment, which answers the stream,
    /// or to its end.
    async fn http1<S>(&mut self, stream: S, first: Bytes) -> Option<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let fields = usize::from(self.client.limits.head_fields);
        let head = HeadLimits { bytes: self.client.limits.head_bytes as usize, fields };
        let watched = Watched::new(stream, first, self.client.clone(), head);
        let mut builder = http1::Builder::new();
        builder.header_read_timeout(None).max_header_size(head.bytes);
        if head.fields > 100 {
            // hyper's own limit, up to which it needs no memory for it.
            builder.max_headers(head.fields);
        }
        let service = service_fn(|request| self.answer(request));
        let mut connection = builder.serve_connection(TokioIo::new(watched), service);
        let mut closing = self.closing.clone();
        let mut ending = false;
        let timer = tokio::time::sleep(KEEP_HYPER);
        let mut timer = std::pin::pin!(timer);
        let parked = loop {
            tokio::select! {
                // An error is the client's doing, or has been seen on the replica's side.
                _ = &mut connection => break false,
                () = timer.as_mut() => match look(&self.client) {
                    Look::Again(_) if ending && !self.client.is_busy() => break false,
                    Look::Again(wait) => {
                        timer.as_mut().reset(tokio::time::Instant::now() + wait);
                    }
                    Look::Park => break true,
                    Look::TooSlow => {
                        self.client.refuse(Refusal::HeadTooSlow);
                        break false;
                    }
                    Look::Cut => return None,
                },
                _ = closing.wait_for(|closing| *closing), if !ending => {
                    ending = true;
                    Pin::new(&mut connection).graceful_shutdown();
                }
            }
        };
        let parts = connection.into_parts();
        let (watched, rest) = (parts.io.into_inner(), parts.read_buf);
        if let Some(upgrade) = self.client.take_upgrade() {
            upgrade.run(watched.into_stream(), rest).await;
            return None;
        }
        let clean = watched.is_clean() && rest.is_empty();
        let mut stream = watched.into_stream();
        if parked && clean && !ending {
            return Some(stream);
        }
        if self.client.refused() == Some(Refusal::HeadTooSlow) {
            let _ = stream.write_all(&Refusal::HeadTooSlow.as_http1()).await;
        }
        if !clean {
            linger(stream).await;
        }
        None
    }

    /// Serves HTTP/2 to the connection's end.
    async fn http2<S>(&mut self, stream: Replayed<S>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.client.limits.http2_streams)
            .max_header_list_size(self.client.limits.head_bytes)
            .initial_stream_window_size(HTTP2_STREAM_WINDOW)
            .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
            .max_send_buf_size(HTTP2_SEND_BUFFER)
            .keep_alive_interval(HTTP2_PING)
            .keep_alive_timeout(HTTP2_PING_TIMEOUT);
        let service = service_fn(|request| self.answer(request));
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let mut closing = self.closing.clone();
        let mut ending = false;
        let timer = tokio::time::sleep(BUSY_LOOK);
        let mut timer = std::pin::pin!(timer);
        let idle = Duration::from_millis(self.client.limits.idle_timeout_ms);
        loop {
            tokio::select! {
                _ = connection.as_mut() => return,
                () = timer.as_mut() => {
                    if let Doing::Idle(since) = self.client.doing()
                        && since >= idle
                    {
                        if ending {
                            return;
                        }
                        ending = true;
                        connection.as_mut().graceful_shutdown();
                    }
                    timer.as_mut().reset(tokio::time::Instant::now() + BUSY_LOOK);
                }
                _ = closing.wait_for(|closing| *closing), if !ending => {
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }

    /// Boxed, so that a connection without a request has no room for one.
    fn answer(&self, request: hyper::Request<Incoming>) -> Answer {
        let (core, client) = (self.core.clone(), self.client.clone());
        client.request_began();
        let listener = self.listener;
        Box::pin(async move { Ok(core.answer(listener, request, client).await) })
    }
}

/// What to do about the time it takes.
enum Look {
    Again(Duration),
    Park,
    TooSlow,
    Cut,
}

fn look(client: &Client) -> Look {
    let limits = &client.limits;
    match client.doing() {
        Doing::Busy => Look::Again(BUSY_LOOK),
        Doing::Idle(since) if since >= KEEP_HYPER => Look::Park,
        Doing::Idle(since) => Look::Again(KEEP_HYPER - since),
        Doing::Head(since) => {
            match Duration::from_millis(limits.head_timeout_ms).checked_sub(since) {
                Some(left) => Look::Again(left.max(Duration::from_millis(10))),
                None => Look::TooSlow,
            }
        }
        Doing::Stalled(since) => {
            match Duration::from_millis(limits.send_timeout_ms).checked_sub(since) {
                Some(left) => Look::Again(left.clamp(Duration::from_millis(10), BUSY_LOOK)),
                None => Look::Cut,
            }
        }
    }
}

/// Some bytes, in memory of just their size; none at the end.
async fn read_some<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Bytes> {
    let read = poll_fn(|cx| {
        let mut space = [std::mem::MaybeUninit::uninit(); FIRST_BYTES];
        let mut buffer = ReadBuf::uninit(&mut space);
        let read = Pin::new(&mut *stream).poll_read(cx, &mut buffer);
        read.map(|read: io::Result<()>| read.map(|()| Bytes::copy_from_slice(buffer.filled())))
    });
    read.await.ok().filter(|bytes| !bytes.is_empty())
}

/// Ends a stream so that the client sees that it is not cut: TLS has words for that.
async fn say_goodbye<S: AsyncWrite + Unpin>(stream: &mut S) {
    // A client that takes nothing is not waited for.
    let _ = tokio::time::timeout(LINGER, stream.shutdown()).await;
}

/// Lets a client that is still sending hear what we have said.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let rest = async {
        let mut sink = tokio::io::sink();
        tokio::io::copy(&mut (&mut stream).take(LINGER_BYTES), &mut sink).await
    };
    let _ = tokio::time::timeout(LINGER, rest).await;
}
