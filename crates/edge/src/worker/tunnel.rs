//! Connections that are passed through: upgraded ones, and TCP.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::pipe::Pipe;
use super::replica::{Claim, Kind, Replica};
use super::stream::SharedStream;
use super::websocket::{CLOSE_RESTART, Frames};

/// A frame that is under way when a WebSocket is to end may take so long to be completed.
const FRAME_TIME: Duration = Duration::from_secs(1);
/// The client may take so long to answer our close frame.
const CLOSE_TIME: Duration = Duration::from_secs(1);

/// What an upgraded connection leads to.
pub(super) struct Upgraded {
    pub replica: OnUpgrade,
    pub claim: Claim,
    /// [`Kind::WebSocket`] or [`Kind::Tunnel`].
    pub kind: Kind,
}

impl Upgraded {
    /// Copies both ways to the end. `first` came from the client already.
    pub(super) async fn run<S>(self, client: S, first: Bytes)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let claim = self.claim.into_kind(self.kind);
        // The replica's connection broke in this very moment: the client sees its own break.
        let Ok(replica) = self.replica.await else { return };
        let Ok(parts) = replica.downcast::<TokioIo<SharedStream>>() else {
            unreachable!("replicas are connected to by `upstream`")
        };
        let (replica, early) = (parts.io.into_inner(), parts.read_buf);
        let mut tunnel = Tunnel {
            to_client: Pipe::starting_with(early.clone()),
            to_replica: Pipe::starting_with(first.clone()),
            client,
            replica,
        };
        match self.kind {
            Kind::WebSocket => {
                let mut socket = WebSocket {
                    tunnel,
                    from_client: Frames::default(),
                    from_replica: Frames::default(),
                };
                socket.from_client.follow(&first);
                socket.from_replica.follow(&early);
                let _ = socket.run(claim.replica()).await;
            }
            Kind::Tunnel | Kind::EventStream | Kind::Request => {
                let _ = tunnel.run().await;
            }
        }
    }
}

/// Two ends, and a pipe each way.
pub(super) struct Tunnel<A, B> {
    pub to_client: Pipe,
    pub to_replica: Pipe,
    pub client: A,
    pub replica: B,
}

impl<A, B> Tunnel<A, B>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    pub(super) fn new(client: A, replica: B) -> Tunnel<A, B> {
        let (to_client, to_replica) =
            (Pipe::starting_with(Bytes::new()), Pipe::starting_with(Bytes::new()));
        Tunnel { to_client, to_replica, client, replica }
    }

    /// Copies both ways until both have ended.
    ///
    /// # Errors
    /// When either breaks.
    pub(super) async fn run(&mut self) -> io::Result<()> {
        poll_fn(|cx| {
            let up = self.poll_to_replica(cx, <[u8]>::len)?;
            let down = self.poll_to_client(cx, <[u8]>::len)?;
            if up.is_ready() && down.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
        })
        .await
    }

    fn poll_to_replica(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnMut(&[u8]) -> usize,
    ) -> Poll<io::Result<()>> {
        let (from, to) = (Pin::new(&mut self.client), Pin::new(&mut self.replica));
        self.to_replica.poll(cx, from, to, take)
    }

    fn poll_to_client(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnMut(&[u8]) -> usize,
    ) -> Poll<io::Result<()>> {
        let (from, to) = (Pin::new(&mut self.replica), Pin::new(&mut self.client));
        self.to_client.poll(cx, from, to, take)
    }
}

/// A tunnel whose ends can be said goodbye to.
struct WebSocket<A, B> {
    tunnel: Tunnel<A, B>,
    from_client: Frames,
    from_replica: Frames,
}

impl<A, B> WebSocket<A, B>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    async fn run(mut self, replica: &Arc<Replica>) -> io::Result<()> {
        {
            let over = replica.clone().streams_end();
            let mut over = std::pin::pin!(over);
            let ended = poll_fn(|cx| {
                use std::future::Future as _;
                match self.poll_both(cx) {
                    Poll::Ready(ended) => Poll::Ready(Some(ended)),
                    Poll::Pending => over.as_mut().poll(cx).map(|()| None),
                }
            });
            if let Some(ended) = ended.await {
                return ended;
            }
        }
        self.close().await
    }

    fn poll_both(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (from_client, from_replica) = (&mut self.from_client, &mut self.from_replica);
        let up = self.tunnel.poll_to_replica(cx, |bytes| {
            from_client.follow(bytes);
            bytes.len()
        })?;
        let down = self.tunnel.poll_to_client(cx, |bytes| {
            from_replica.follow(bytes);
            bytes.len()
        })?;
        if up.is_ready() && down.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Says `Close 1012` to the client, between two frames of the replica. The client's answer
    /// goes to the replica, which so sees a client that closes.
    async fn close(mut self) -> io::Result<()> {
        if !self.from_replica.has_closed() {
            let finished = tokio::time::timeout(FRAME_TIME, poll_fn(|cx| self.poll_to_between(cx)));
            // A frame that is not completed stays a fragment: nothing can follow it.
            finished.await??;
            self.tunnel.to_client.end_with(&CLOSE_RESTART);
        }
        let answered = poll_fn(|cx| self.poll_answer(cx));
        tokio::time::timeout(CLOSE_TIME, answered).await??;
        self.tunnel.client.shutdown().await
    }

    /// Passes on the rest of the frame that is under way.
    fn poll_to_between(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let from_client = &mut self.from_client;
        let _ = self.tunnel.poll_to_replica(cx, |bytes| {
            from_client.follow(bytes);
            bytes.len()
        })?;
        if self.from_replica.is_between() {
            return Poll::Ready(Ok(()));
        }
        // What comes after it in the same read is dropped: the client is about to come back.
        let mut stop = false;
        let frames = &mut self.from_replica;
        let moved = self.tunnel.poll_to_client(cx, |bytes| {
            if stop {
                return 0;
            }
            let taken = frames.follow_to_between(bytes);
            stop = frames.is_between();
            taken
        })?;
        if stop {
            return Poll::Ready(Ok(()));
        }
        moved.map(|()| Err(io::ErrorKind::UnexpectedEof.into()))
    }

    /// Waits for the client's close frame to reach the replica, or for the client to leave.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let client = Pin::new(&mut self.tunnel.client);
        let told = self.tunnel.to_client.poll_flush(cx, client)?;
        let from_client = &mut self.from_client;
        let gone = self.tunnel.poll_to_replica(cx, |bytes| {
            from_client.follow(bytes);
            bytes.len()
        })?;
        let replica = Pin::new(&mut self.tunnel.replica);
        let passed = self.tunnel.to_replica.poll_flush(cx, replica)?;
        let answered = self.from_client.has_closed() && passed.is_ready();
        if told.is_ready() && (gone.is_ready() || answered) {
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }
}
