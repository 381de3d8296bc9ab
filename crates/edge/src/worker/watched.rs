//! A client's stream as hyper sees it: only what is framed without doubt comes through.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::client::Client;
use super::framing::{Framing, HeadLimits, Place};

pub(super) struct Watched<S> {
    stream: S,
    client: Arc<Client>,
    framing: Framing,
    /// Read before, while it was not known what the client speaks.
    first: Bytes,
    refused: Option<Refused>,
}

/// What is left to say to a client whose message is not taken.
struct Refused {
    /// Of a body: its request is being answered, which says what is to be said.
    place: Place,
    answer: Bytes,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, first: Bytes, client: Arc<Client>, limits: HeadLimits) -> Self {
        Watched { stream, client, framing: Framing::new(limits), first, refused: None }
    }

    /// Between two messages, with nothing to say: another may take the stream over.
    pub(super) fn is_clean(&self) -> bool {
        self.framing.place() == Place::Between && self.first.is_empty() && self.refused.is_none()
    }

    pub(super) fn into_stream(self) -> S {
        self.stream
    }

    /// Judges what was read; answers how much of it may be seen.
    fn judge(&mut self, bytes: &[u8]) -> usize {
        if self.client.is_upgraded() {
            return bytes.len();
        }
        let fed = self.framing.feed(bytes);
        let place = self.framing.place();
        self.client.is_at(place);
        if let Some(refusal) = fed.refused {
            self.client.refuse(refusal);
            let answer = match place {
                Place::Body => Bytes::new(),
                Place::Between | Place::Head => refusal.as_http1().into(),
            };
            self.refused = Some(Refused { place, answer });
        }
        fed.good
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Watched<S> {
    /// Nothing more is read. What is being answered is answered first.
    fn poll_refuse(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(refused) = &mut self.refused else { return Poll::Ready(Ok(())) };
        if refused.place == Place::Body {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        if self.client.is_busy() {
            // hyper reads again when the answer is complete.
            return Poll::Pending;
        }
        while refused.answer.has_remaining() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &refused.answer))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => refused.answer.advance(written),
            }
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.refused.is_some() {
            // Then it is the end.
            return this.poll_refuse(cx);
        }
        let before = buffer.filled().len();
        if this.first.is_empty() {
            ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        } else {
            let taken = this.first.len().min(buffer.remaining());
            buffer.put_slice(&this.first.split_to(taken));
        }
        let length = buffer.filled().len() - before;
        if length == 0 {
            return Poll::Ready(Ok(()));
        }
        let good = this.judge(&buffer.filled()[before..]);
        buffer.set_filled(before + good);
        if good == 0 { this.poll_refuse(cx) } else { Poll::Ready(Ok(())) }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.client.takes(written.is_ready());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.client.takes(written.is_ready());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // TLS takes what the socket does not take yet: it is written by this.
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.client.takes(flushed.is_ready());
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A stream of which something was read before.
pub(super) struct Replayed<S> {
    pub stream: S,
    pub first: Bytes,
}

impl<S: AsyncRead + Unpin> AsyncRead for Replayed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let taken = self.first.len().min(buffer.remaining());
        buffer.put_slice(&self.first.split_to(taken));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Replayed<S> {
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
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
