//! A request's body as it comes in: no larger than it may be, and no slower.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use super::headers;
use super::refusal::Refusal;

/// Why a body is not passed on to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum IntakeError {
    #[error(transparent)]
    Broken(#[from] hyper::Error),
    #[error("the request's body was refused")]
    Refused,
}

/// Why a body was refused, for those who answer its request.
pub(super) type Verdict = Arc<OnceLock<Refusal>>;

pub(super) struct Intake {
    body: Incoming,
    /// So many bytes may still come.
    left: u64,
    pace: Option<Pace>,
    verdict: Verdict,
}

/// How long a client may be waited for. Only that counts: a replica that takes its time does not.
pub(super) struct Pace {
    /// In all, and so much longer for every byte that has come.
    pub patience: Duration,
    pub per_byte: Duration,
    waited: Duration,
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    pub(super) fn new(patience: Duration, per_byte: Duration) -> Pace {
        Pace { patience, per_byte, waited: Duration::ZERO, since: None, timer: None }
    }

    fn came(&mut self, bytes: usize) {
        if let Some(since) = self.since.take() {
            self.waited += since.elapsed();
        }
        self.patience += self.per_byte.saturating_mul(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// Ready when the client has been waited for long enough.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let end = since + self.patience.saturating_sub(self.waited);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
        if timer.deadline() != end {
            timer.as_mut().reset(end);
        }
        timer.as_mut().poll(cx)
    }
}

impl Intake {
    pub(super) fn new(body: Incoming, limit: u64, pace: Option<Pace>) -> (Intake, Verdict) {
        let verdict = Verdict::default();
        (Intake { body, left: limit, pace, verdict: verdict.clone() }, verdict)
    }

    fn refuse(&self, refusal: Refusal) -> Poll<Option<Result<Frame<Bytes>, IntakeError>>> {
        let _ = self.verdict.set(refusal);
        Poll::Ready(Some(Err(IntakeError::Refused)))
    }
}

impl Body for Intake {
    type Data = Bytes;
    type Error = IntakeError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, IntakeError>>> {
        let frame = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                let over = self.pace.as_mut().map(|pace| pace.poll_over(cx));
                return match over {
                    Some(Poll::Ready(())) => self.refuse(Refusal::BodyTooSlow),
                    Some(Poll::Pending) | None => Poll::Pending,
                };
            }
        };
        let mut frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            None => return Poll::Ready(None),
        };
        if let Some(bytes) = frame.data_ref() {
            let length = bytes.len();
            match self.left.checked_sub(length as u64) {
                Some(left) => self.left = left,
                None => return self.refuse(Refusal::BodyTooLarge),
            }
            if let Some(pace) = &mut self.pace {
                pace.came(length);
            }
        }
        if let Some(trailers) = frame.trailers_mut() {
            headers::strip_trailers(trailers);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
