//! One client's HTTP connection.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::Core;
use super::stream::SharedStream;

/// A request's head must be complete within this time of its first byte.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection without a request is closed after this time. Longer than what clients keep theirs
/// for (nginx and most libraries 60 s), so that it is the client that closes.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// How often a busy connection is looked at.
const BUSY_LOOK: Duration = Duration::from_secs(30);
/// A head may be so large; more, or more than hyper's 100 headers, is answered by 431.
const MAX_HEAD_BYTES: usize = 64 << 10;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const BUSY: u8 = 2;

/// What a client's connection is doing.
pub(super) struct Activity {
    stream: SharedStream,
    pub peer: SocketAddr,
    phase: AtomicU8,
    /// Since when, in milliseconds since [`START`].
    since_ms: AtomicU64,
    /// The head as it came, as far as it is needed to judge how it is framed.
    head: Mutex<Vec<u8>>,
    /// Bytes came in while busy: the next head may have begun unseen.
    blurred: AtomicBool,
}

impl Activity {
    fn enter(&self, phase: u8) {
        self.since_ms.store(START.elapsed().as_millis() as u64, Ordering::Relaxed);
        self.phase.store(phase, Ordering::Relaxed);
    }

    /// A request's head is complete.
    pub(super) fn busy(&self) {
        self.enter(BUSY);
    }

    /// The answer is complete.
    pub(super) fn idle(&self) {
        self.enter(IDLE);
        self.head.lock().expect("no panic while held").clear();
    }

    /// The request's head as it came, if it is known for sure.
    pub(super) fn raw_head(&self) -> Option<Vec<u8>> {
        if self.blurred.load(Ordering::Relaxed) {
            return None;
        }
        let head = self.head.lock().expect("no panic while held");
        let end = head.windows(4).position(|window| window == b"\r\n\r\n")?;
        Some(head[..end].to_vec())
    }

    /// The client has closed its connection, or its half of it.
    pub(super) fn client_gone(&self) -> bool {
        self.stream.is_closed()
    }

    fn bytes_came(&self, bytes: &[u8]) {
        match self.phase.load(Ordering::Relaxed) {
            BUSY => self.blurred.store(true, Ordering::Relaxed),
            phase => {
                if phase == IDLE {
                    self.enter(HEAD);
                }
                let mut head = self.head.lock().expect("no panic while held");
                let room = MAX_HEAD_BYTES.saturating_sub(head.len());
                head.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
        }
    }

    /// What to do about the time it takes.
    fn look(&self) -> Look {
        let since = Duration::from_millis(self.since_ms.load(Ordering::Relaxed));
        let spent = START.elapsed().saturating_sub(since);
        let (limit, over) = match self.phase.load(Ordering::Relaxed) {
            IDLE => (IDLE_TIMEOUT, Look::EndPolitely),
            HEAD => (HEAD_TIMEOUT, Look::Cut),
            _ => return Look::Again(BUSY_LOOK),
        };
        match limit.checked_sub(spent) {
            // A head may begin at any moment, and has less time.
            Some(left) => Look::Again(left.clamp(Duration::from_millis(10), HEAD_TIMEOUT)),
            None => over,
        }
    }
}

enum Look {
    Again(Duration),
    EndPolitely,
    Cut,
}

/// Counts an open connection or tunnel.
pub(super) struct Counted(Arc<Core>);

impl Counted {
    pub(super) fn new(core: &Arc<Core>) -> Counted {
        core.connections.fetch_add(1, Ordering::SeqCst);
        Counted(core.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Serves one connection to its end.
pub(super) async fn serve(core: Arc<Core>, listener: u64, stream: TcpStream, peer: SocketAddr) {
    let _counted = Counted::new(&core);
    let stream = SharedStream::new(stream);
    let activity = Arc::new(Activity {
        stream: stream.clone(),
        peer,
        phase: AtomicU8::new(IDLE),
        since_ms: AtomicU64::new(START.elapsed().as_millis() as u64),
        head: Mutex::default(),
        blurred: AtomicBool::new(false),
    });
    let io = TokioIo::new(Watched { stream, activity: activity.clone() });
    let service = {
        let (core, activity) = (core.clone(), activity.clone());
        service_fn(move |request| {
            let (core, activity) = (core.clone(), activity.clone());
            async move {
                activity.busy();
                Ok::<_, Infallible>(core.answer(listener, request, activity).await)
            }
        })
    };
    let connection = http1::Builder::new()
        .max_header_size(MAX_HEAD_BYTES)
        .serve_connection(io, service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let mut closing = core.closing.subscribe();
    let mut ending = false;
    let timer = tokio::time::sleep(HEAD_TIMEOUT);
    let mut timer = std::pin::pin!(timer);
    loop {
        tokio::select! {
            // An error is the client's doing, or has been seen on the replica's side.
            _ = connection.as_mut() => return,
            () = timer.as_mut() => match activity.look() {
                Look::Cut => return,
                Look::EndPolitely if ending => return,
                Look::EndPolitely => {
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                    timer.as_mut().reset(tokio::time::Instant::now() + Duration::from_secs(1));
                }
                Look::Again(wait) => timer.as_mut().reset(tokio::time::Instant::now() + wait),
            },
            _ = closing.wait_for(|closing| *closing), if !ending => {
                ending = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// A client's stream that notes what comes in on it.
struct Watched {
    stream: SharedStream,
    activity: Arc<Activity>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.activity.bytes_came(&buffer.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Copies between a client and a replica whose protocol has been upgraded.
pub(super) fn tunnel(
    core: &Arc<Core>,
    client: hyper::upgrade::OnUpgrade,
    replica: hyper::upgrade::OnUpgrade,
    claim: super::routing::Claim,
) -> impl Future<Output = ()> + use<> {
    let counted = Counted::new(core);
    async move {
        let _counted = counted;
        let _claim = claim.into_stream();
        if let (Ok(client), Ok(replica)) = tokio::join!(client, replica) {
            let (mut client, mut replica) = (TokioIo::new(client), TokioIo::new(replica));
            // A broken end is seen by the other as the end of its stream.
            let _ = tokio::io::copy_bidirectional(&mut client, &mut replica).await;
        }
    }
}
