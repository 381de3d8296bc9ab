//! One request: held, claimed, sent, perhaps sent again, answered.

use std::sync::Arc;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};

use super::Core;
use super::body::{AnswerBody, RequestBody};
use super::client::Client;
use super::headers;
use super::hold::{Patience, Rejection};
use super::refusal::Refusal;
use super::replica::{Claim, Kind};
use super::tunnel::Upgraded;
use super::upstream::{Choice, Connection, SETTLING};

/// So often a request that was written, but not answered, is sent again if it may be.
const MAX_REPEATS: u32 = 2;
/// So often a new connection may break before the request is written on it, until the replica is
/// taken to be unreachable.
const MAX_UNSENT: u32 = 3;

/// A request on its way.
struct Outgoing {
    parts: Parts,
    body: Option<Incoming>,
    repeatable: Repeatable,
}

/// Whether a request may be sent again after it was sent: GET, HEAD or OPTIONS without a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeatable {
    Yes,
    No,
}

/// What one attempt came to.
enum Attempt {
    Answered(Response<Incoming>, Connection),
    /// Nothing was written: it can go elsewhere, whatever it is.
    Unsent(Outgoing, hyper::Error),
    /// It may have been acted on.
    Unanswered(Option<Outgoing>, hyper::Error),
}

impl Core {
    /// Answers one request that came in at this listener.
    pub(super) async fn answer(
        self: Arc<Self>,
        listener: u64,
        request: Request<Incoming>,
        client: Arc<Client>,
    ) -> Response<AnswerBody> {
        let (mut parts, body) = request.into_parts();
        let mut answer = match headers::check(&parts) {
            Err(refusal) => refused(refusal, &client),
            Ok(()) => {
                let upgrade = headers::upgrade(&parts.headers);
                headers::forward(&mut parts, &client, upgrade.as_ref());
                let outgoing = Outgoing::new(parts, body);
                match self.send(listener, outgoing, &client).await {
                    Ok((response, connection, claim)) => {
                        relay(response, connection, claim, upgrade, &client)
                    }
                    Err(answer) => *answer,
                }
            }
        };
        if self.is_stopping() && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            close(&mut answer);
        }
        answer
    }

    /// Sends a request until it is answered.
    async fn send(
        self: &Arc<Self>,
        listener: u64,
        mut outgoing: Outgoing,
        client: &Arc<Client>,
    ) -> Result<(Response<Incoming>, Connection, Claim), Box<Response<AnswerBody>>> {
        let mut patience = Patience::default();
        let (mut repeats, mut unsent) = (0, 0);
        let mut choice = match outgoing.repeatable {
            Repeatable::Yes => Choice::Any,
            Repeatable::No => Choice::Fresh,
        };
        loop {
            let gone = || client.is_gone();
            let claim = match self.claim(listener, &mut patience, gone, || outgoing.compact()).await
            {
                Ok(claim) => claim,
                Err(rejection) => return Err(Box::new(rejected(rejection, client))),
            };
            let replica = claim.replica().clone();
            let connection = match Connection::get(&replica, choice).await {
                Ok(Some(connection)) => connection,
                // Hold it.
                Ok(None) => continue,
                Err(error) => {
                    self.suspect(&replica, &error);
                    continue;
                }
            };
            let used = connection.used;
            choice = Choice::New;
            match outgoing.send(connection).await {
                Attempt::Answered(response, connection) => {
                    return Ok((response, connection, claim));
                }
                Attempt::Unsent(back, error) => {
                    outgoing = back;
                    // A kept connection that the replica has closed says nothing about it.
                    if !used {
                        unsent += 1;
                        replica.failed(&chain(&error));
                    }
                    if unsent >= MAX_UNSENT {
                        unsent = 0;
                        self.suspect(&replica, &std::io::Error::other(error));
                    }
                }
                Attempt::Unanswered(Some(back), error) if repeats < MAX_REPEATS => {
                    outgoing = back;
                    repeats += 1;
                    replica.failed(&chain(&error));
                }
                Attempt::Unanswered(_, error) => {
                    // The request's own body may have been what broke.
                    if let Some(refusal) = client.refused() {
                        return Err(Box::new(refused(refusal, client)));
                    }
                    replica.failed(&chain(&error));
                    let text = "the service closed the connection before it answered\n";
                    return Err(Box::new(text_answer(StatusCode::BAD_GATEWAY, text, client)));
                }
            }
        }
    }
}

/// Passes an answer on to the client.
fn relay(
    mut response: Response<Incoming>,
    connection: Connection,
    claim: Claim,
    upgrade: Option<HeaderValue>,
    client: &Arc<Client>,
) -> Response<AnswerBody> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(protocol) = upgrade else {
            let text = "the service changed the protocol unasked\n";
            return text_answer(StatusCode::BAD_GATEWAY, text, client);
        };
        let web_socket = protocol.as_bytes().eq_ignore_ascii_case(b"websocket");
        let kind = if web_socket { Kind::WebSocket } else { Kind::Tunnel };
        client.upgrade(Upgraded { replica: hyper::upgrade::on(&mut response), claim, kind });
        return response.map(|_| AnswerBody::text(Bytes::new(), client.clone()));
    }
    headers::strip(response.headers_mut());
    if headers::is_event_stream(response.headers()) {
        let claim = claim.into_kind(Kind::EventStream);
        return response.map(|body| AnswerBody::events(body, claim, connection, client.clone()));
    }
    response.map(|body| AnswerBody::upstream(body, claim, connection, client.clone()))
}

/// Says that a request is not taken; nothing more is read from its client.
fn refused(refusal: Refusal, client: &Arc<Client>) -> Response<AnswerBody> {
    let mut answer = text_answer(refusal.status(), refusal.text(), client);
    close(&mut answer);
    answer
}

impl Outgoing {
    fn new(parts: Parts, body: Incoming) -> Outgoing {
        let empty = body.is_end_stream();
        let safe = matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
        let repeatable = if empty && safe { Repeatable::Yes } else { Repeatable::No };
        Outgoing { parts, body: (!empty).then_some(body), repeatable }
    }

    /// Before it waits: what was read came in a buffer of 8 KiB, which the names and values of its
    /// head still hold on to. Copies of their own let it go.
    fn compact(&mut self) {
        for value in self.parts.headers.values_mut() {
            if let Ok(copy) = HeaderValue::from_bytes(value.as_bytes()) {
                *value = copy;
            }
        }
        if let Ok(copy) = self.parts.uri.to_string().parse() {
            self.parts.uri = copy;
        }
    }

    async fn send(self, mut connection: Connection) -> Attempt {
        let Outgoing { parts, body, repeatable } = self;
        let again = (repeatable == Repeatable::Yes).then(|| parts.clone());
        let body = body.map_or(RequestBody::Empty, RequestBody::Stream);
        let request = Request::from_parts(parts, body);
        let sent = {
            let mut sending = std::pin::pin!(connection.sender.try_send_request(request));
            match connection.settling.take() {
                None => sending.await,
                Some(settling) => match tokio::time::timeout(SETTLING, sending.as_mut()).await {
                    Ok(sent) => sent,
                    Err(_) => {
                        drop(settling);
                        sending.await
                    }
                },
            }
        };
        let mut failure = match sent {
            Ok(response) => return Attempt::Answered(response, connection),
            Err(failure) => failure,
        };
        if let Some(request) = failure.take_message() {
            let (parts, body) = request.into_parts();
            let body = match body {
                RequestBody::Empty => None,
                RequestBody::Stream(body) => Some(body),
            };
            return Attempt::Unsent(Outgoing { parts, body, repeatable }, failure.into_error());
        }
        let again = again.map(|parts| Outgoing { parts, body: None, repeatable });
        Attempt::Unanswered(again, failure.into_error())
    }
}

fn rejected(rejection: Rejection, client: &Arc<Client>) -> Response<AnswerBody> {
    let text = match rejection {
        Rejection::TooMany => "too many requests are waiting for the service\n",
        Rejection::TooLong => "the service did not come back in time\n",
        Rejection::Nowhere => "nothing is served here any more\n",
        // Nobody reads it.
        Rejection::ClientGone => "",
    };
    let mut answer = text_answer(StatusCode::SERVICE_UNAVAILABLE, text, client);
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    if matches!(rejection, Rejection::Nowhere | Rejection::ClientGone) {
        close(&mut answer);
    }
    answer
}

fn text_answer(
    status: StatusCode,
    text: &'static str,
    client: &Arc<Client>,
) -> Response<AnswerBody> {
    let body = AnswerBody::text(Bytes::from_static(text.as_bytes()), client.clone());
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

fn close(answer: &mut Response<AnswerBody>) {
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
