//! Bodies on their way through.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::client::Client;
use super::events::EventStream;
use super::intake::{Intake, IntakeError};
use super::record::Record;
use super::replica::Claim;
use super::upstream::Connection;

/// A request's body, from the client to the replica.
pub(super) enum RequestBody {
    Empty,
    Stream(Box<Intake>),
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = IntakeError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, IntakeError>>> {
        match &mut *self {
            RequestBody::Empty => Poll::Ready(None),
            RequestBody::Stream(body) => Pin::new(&mut **body).poll_frame(cx),
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
/// kept, the claim ends, and the client's connection has one request less.
pub(super) struct AnswerBody {
    content: Content,
    record: Option<Record>,
    /// Dropped last.
    client: Option<Arc<Client>>,
}

enum Content {
    Text(Option<Bytes>),
    Upstream { body: Incoming, _claim: Claim, connection: Connection },
    Events { stream: Box<EventStream>, _claim: Claim, connection: Connection },
    Ended,
}

impl AnswerBody {
    pub(super) fn text(text: impl Into<Bytes>, client: Arc<Client>) -> AnswerBody {
        let content = Content::Text(Some(text.into()));
        AnswerBody { content, record: None, client: Some(client) }
    }

    pub(super) fn upstream(
        body: Incoming,
        claim: Claim,
        connection: Connection,
        client: Arc<Client>,
    ) -> AnswerBody {
        let content = Content::Upstream { body, _claim: claim, connection };
        AnswerBody::new(content, client)
    }

    /// Of an answer that is a stream of events, and ends when those of its replica do.
    pub(super) fn events(
        body: Incoming,
        claim: Claim,
        connection: Connection,
        client: Arc<Client>,
    ) -> AnswerBody {
        let stream = Box::new(EventStream::new(body, claim.replica().clone().streams_end()));
        AnswerBody::new(Content::Events { stream, _claim: claim, connection }, client)
    }

    fn new(content: Content, client: Arc<Client>) -> AnswerBody {
        AnswerBody { content, record: None, client: Some(client) }
    }

    /// Makes the request's entry in the books when the answer is complete; of a stream, at once.
    pub(super) fn record(&mut self, record: Record) {
        match self.content {
            Content::Events { .. } => record.finish(),
            Content::Text(_) | Content::Upstream { .. } | Content::Ended => {
                self.record = Some(record);
            }
        }
        self.end_if_complete();
    }

    fn end_if_complete(&mut self) {
        let complete = match &self.content {
            Content::Text(text) => text.is_none(),
            Content::Upstream { body, .. } => body.is_end_stream(),
            Content::Events { stream, .. } => stream.is_end_stream(),
            Content::Ended => false,
        };
        if complete {
            self.end();
        }
    }

    /// The last byte has been read.
    fn end(&mut self) {
        match std::mem::replace(&mut self.content, Content::Ended) {
            Content::Upstream { connection, .. } => connection.give_back(),
            Content::Events { stream, connection, .. } if stream.is_end_stream() => {
                connection.give_back();
            }
            // A stream that we have ended goes on at the replica: its connection is closed.
            Content::Events { .. } | Content::Text(_) | Content::Ended => {}
        }
        if let Some(record) = self.record.take() {
            record.finish();
        }
        if let Some(client) = self.client.take() {
            client.request_ended();
        }
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.end_if_complete();
        if let Some(record) = self.record.take() {
            record.finish();
        }
        if let Some(client) = self.client.take() {
            client.request_ended();
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
            Content::Events { stream, .. } => ready!(stream.poll_frame(cx)),
            Content::Ended => return Poll::Ready(None),
        };
        if let (Some(record), Some(Ok(frame))) = (&mut self.record, &frame) {
            record.bytes += frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
        }
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
            Content::Events { stream, .. } => stream.is_end_stream(),
            Content::Ended => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Text(Some(text)) => SizeHint::with_exact(text.len() as u64),
            Content::Upstream { body, .. } => body.size_hint(),
            Content::Events { stream, .. } => stream.size_hint(),
            Content::Text(None) | Content::Ended => SizeHint::with_exact(0),
        }
    }
}
