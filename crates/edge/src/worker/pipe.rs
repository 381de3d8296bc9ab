//! Bytes from one end of a connection to the other.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What one read takes. The buffer is the thread's: an open connection that is silent, as most
/// are, needs none.
const BUFFER_BYTES: usize = 32 << 10;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER_BYTES]);
}

/// One way of a connection. Its end is passed on as an end: half-closes are kept.
pub(super) struct Pipe {
    /// Read and not written yet.
    pending: Bytes,
    state: State,
    /// Written, but perhaps kept on the way: TLS takes more than its socket does.
    unflushed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The reader has ended.
    Ending,
    Ended,
}

impl Pipe {
    /// A pipe that begins with bytes that were read before.
    pub(super) fn starting_with(pending: Bytes) -> Pipe {
        Pipe { pending, state: State::Open, unflushed: false }
    }

    /// Puts this behind what is pending, and reads nothing more.
    pub(super) fn end_with(&mut self, last: &[u8]) {
        self.pending = [&self.pending, last].concat().into();
        self.state = State::Ending;
    }

    /// Moves what can be moved; ready when the end has been passed on. `take` sees what was read,
    /// and says how much of it to pass on.
    pub(super) fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        mut from: Pin<&mut R>,
        mut to: Pin<&mut W>,
        mut take: impl FnMut(&[u8]) -> usize,
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead,
        W: AsyncWrite,
    {
        loop {
            ready!(self.poll_flush(cx, to.as_mut()))?;
            match self.state {
                State::Open => {}
                State::Ending => {
                    // That the other end is gone already is an end as well.
                    let _ = ready!(to.as_mut().poll_shutdown(cx));
                    self.state = State::Ended;
                }
                State::Ended => return Poll::Ready(Ok(())),
            }
            if self.state == State::Open {
                let (from, to) = (from.as_mut(), to.as_mut());
                ready!(
                    BUFFER
                        .with_borrow_mut(|buffer| self.move_some(cx, from, to, &mut take, buffer))
                )?;
            }
        }
    }

    /// Writes what is pending, all the way.
    pub(super) fn poll_flush<W: AsyncWrite>(
        &mut self,
        cx: &mut Context<'_>,
        mut to: Pin<&mut W>,
    ) -> Poll<io::Result<()>> {
        while self.pending.has_remaining() {
            match ready!(to.as_mut().poll_write(cx, &self.pending))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.pending.advance(written),
            }
            self.unflushed = true;
        }
        // What was pending is not kept.
        self.pending = Bytes::new();
        if self.unflushed {
            ready!(to.as_mut().poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn move_some<R: AsyncRead, W: AsyncWrite>(
        &mut self,
        cx: &mut Context<'_>,
        from: Pin<&mut R>,
        to: Pin<&mut W>,
        take: &mut impl FnMut(&[u8]) -> usize,
        buffer: &mut [u8],
    ) -> Poll<io::Result<()>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(from.poll_read(cx, &mut buffer))?;
        if buffer.filled().is_empty() {
            self.state = State::Ending;
            return Poll::Ready(Ok(()));
        }
        let taken = take(buffer.filled());
        let bytes = &buffer.filled()[..taken];
        // Most of the time it can be written at once, and is never copied.
        let written = match to.poll_write(cx, bytes) {
            Poll::Ready(written) => written?,
            Poll::Pending => 0,
        };
        self.unflushed |= written > 0;
        if written < bytes.len() {
            self.pending = Bytes::copy_from_slice(&bytes[written..]);
        }
        Poll::Ready(Ok(()))
    }
}
