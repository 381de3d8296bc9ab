//! Bodies on their way through.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::http::Activity;
use super::routing::Claim;
use super::upstream::Connection;

/// A request's body, from the client to the replica.
pub(super) enum RequestBody {
    Empty,
    Stream(Incoming),
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            RequestBody::Empty => Poll::Ready(None),
            RequestBody::Stream(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Empty => SizeHint::with_exact(0),
            RequestBody::Stream(body) => body.size_hint(),
        }
    }
}

/// An answer's body: our own words, or the replica's. When it ends, the replica's connection is
/// kept, the claim ends, and the client's connection is idle again.
pub(super) struct AnswerBody {
    content: Content,
    /// Dropped last.
    activity: Option<Arc<Activity>>,
}

enum Content {
    Text(Option<Bytes>),
    Upstream { body: Incoming, _claim: Claim, connection: Connection },
    Ended,
}

impl AnswerBody {
    pub(super) fn text(text: impl Into<Bytes>, activity: Arc<Activity>) -> AnswerBody {
        AnswerBody { content: Content::Text(Some(text.into())), activity: Some(activity) }
    }

    pub(super) fn upstream(
        body: Incoming,
        claim: Claim,
        connection: Connection,
        activity: Arc<Activity>,
    ) -> AnswerBody {
        let content = Content::Upstream { body, _claim: claim, connection };
        let mut body = AnswerBody { content, activity: Some(activity) };
        body.end_if_complete();
        body
    }

    fn end_if_complete(&mut self) {
        let complete = match &self.content {
            Content::Text(text) => text.is_none(),
            Content::Upstream { body, .. } => body.is_end_stream(),
            Content::Ended => false,
        };
        if complete {
            self.end();
        }
    }

    /// The last byte has been read.
    fn end(&mut self) {
        if let Content::Upstream { connection, .. } =
            std::mem::replace(&mut self.content, Content::Ended)
        {
            connection.give_back();
        }
        if let Some(activity) = self.activity.take() {
            activity.idle();
        }
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.end_if_complete();
        if let Some(activity) = self.activity.take() {
            activity.idle();
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = match &mut self.content {
            Content::Text(text) => text.take().map(|text| Ok(Frame::data(text))),
            Content::Upstream { body, .. } => ready!(Pin::new(body).poll_frame(cx)),
            Content::Ended => return Poll::Ready(None),
        };
        match &frame {
            // An error ends nothing well: the connection is dropped with the body, and the client
            // sees a truncated answer.
            Some(Err(_)) => {}
            Some(Ok(_)) => self.end_if_complete(),
            None => self.end(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Text(text) => text.is_none(),
            Content::Upstream { body, .. } => body.is_end_stream(),
            Content::Ended => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Text(Some(text)) => SizeHint::with_exact(text.len() as u64),
            Content::Upstream { body, .. } => body.size_hint(),
            Content::Text(None) | Content::Ended => SizeHint::with_exact(0),
        }
    }
}
