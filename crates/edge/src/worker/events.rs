//! A stream of server-sent events that can be ended between two of them.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// An event that is under way when the stream is to end may take so long to be completed. Clients
/// drop one that is not.
const EVENT_TIME: Duration = Duration::from_secs(1);

type Timer = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The body of a `text/event-stream`.
pub(super) struct EventStream {
    body: Incoming,
    phase: Phase,
    boundary: Boundary,
}

enum Phase {
    /// Until this is over.
    Streaming(Timer),
    /// Until an event ends, or this is over.
    Ending(Timer),
    Ended,
}

impl EventStream {
    pub(super) fn new(body: Incoming, end: impl Future<Output = ()> + Send + 'static) -> Self {
        let phase = Phase::Streaming(Box::pin(end));
        EventStream { body, phase, boundary: Boundary::default() }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    /// As of a body; none also when it was ended by us.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        loop {
            match &mut self.phase {
                Phase::Streaming(over) => {
                    if over.as_mut().poll(cx).is_pending() {
                        return self.poll_body(cx);
                    }
                    self.phase = match self.boundary.is_here() {
                        true => Phase::Ended,
                        false => Phase::Ending(Box::pin(tokio::time::sleep(EVENT_TIME))),
                    };
                }
                Phase::Ending(over) => {
                    if over.as_mut().poll(cx).is_ready() {
                        self.phase = Phase::Ended;
                        continue;
                    }
                    return match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                        Some(Ok(frame)) => Poll::Ready(Some(Ok(self.cut(frame)))),
                        other => Poll::Ready(other),
                    };
                }
                Phase::Ended => return Poll::Ready(None),
            }
        }
    }

    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(bytes) = frame.data_ref()
        {
            self.boundary.pass(bytes);
        }
        Poll::Ready(frame)
    }

    /// The part of a frame up to the end of the first event in it; all of it if none ends there.
    fn cut(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        match frame.into_data() {
            Ok(bytes) => {
                let taken = self.boundary.pass_to_next(&bytes);
                if self.boundary.is_here() {
                    self.phase = Phase::Ended;
                }
                Frame::data(bytes.slice(..taken))
            }
            Err(trailers) => trailers,
        }
    }
}

/// Where events end: after an empty line, whichever way its lines end.
#[derive(Default)]
struct Boundary {
    /// The last bytes, the latest on the right; 0 at the start, which is one too.
    last: u32,
}

impl Boundary {
    fn is_here(&self) -> bool {
        let ends = |end: &[u8]| self.last.to_be_bytes().ends_with(end);
        self.last == 0 || ends(b"\n\n") || ends(b"\r\r") || ends(b"\n\r\n")
    }

    fn pass(&mut self, bytes: &[u8]) {
        let tail = &bytes[bytes.len().saturating_sub(4)..];
        self.last = tail.iter().fold(self.last, |last, byte| (last << 8) | u32::from(*byte));
    }

    /// Passes bytes up to the next boundary; answers how many that are.
    fn pass_to_next(&mut self, bytes: &[u8]) -> usize {
        for (index, byte) in bytes.iter().enumerate() {
            self.last = (self.last << 8) | u32::from(*byte);
            if self.is_here() {
                return index + 1;
            }
        }
        bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_end_after_an_empty_line() {
        let check = |text: &str| {
            let mut boundary = Boundary::default();
            boundary.pass(text.as_bytes());
            boundary.is_here()
        };
        assert!(check("") && check("data: 1\n\n") && check("data: 1\r\n\r\n") && check("d\r\r"));
        assert!(
            !check("data: 1") && !check("data: 1\n") && !check("data: 1\r\n") && !check("\n\ndata")
        );
        let mut boundary = Boundary::default();
        boundary.pass(b"data: 1\nda");
        assert_eq!(boundary.pass_to_next(b"ta: 2\n\ndata: 3\n\n"), 7);
        assert!(boundary.is_here());
    }
}
