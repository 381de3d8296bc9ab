//! One request: held, claimed, sent, perhaps sent again, answered.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Version};

use super::Core;
use super::access_log::{Line, Log};
use super::body::{AnswerBody, RequestBody};
use super::canary::Wish;
use super::client::Client;
use super::headers;
use super::hold::{Patience, Rejection};
use super::intake::{Intake, Pace, Verdict};
use super::policy::{Asker, Own, host_of, strip_path, target, without_port};
use super::record::Record;
use super::refusal::Refusal;
use super::replica::{Claim, Kind};
use super::rules::{Address, Rule};
use super::tunnel::Upgraded;
use super::upstream::{Choice, Connection};

/// So often a request that was written, but not answered, is sent again if it may be.
const MAX_REPEATS: u32 = 2;
/// So often a new connection may break before the request is written on it, until the replica is
/// taken to be unreachable.
const MAX_UNSENT: u32 = 3;

/// A request on its way.
struct Outgoing {
    parts: Parts,
    body: Option<Box<Intake>>,
    /// What is found out about the body while it is sent.
    verdict: Verdict,
    repeatable: Repeatable,
}

/// A request, and what holds for it.
struct Arrival {
    rule: Arc<Rule>,
    address: Address,
    asker: Asker,
    wish: Option<Wish>,
}

/// Why a request comes to nothing.
enum Stop {
    Refused(Refusal),
    /// The listener has left the table.
    Nowhere,
    /// No route is about it.
    NotFound,
    /// An authority asks, and gets this.
    Proof(String),
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
        let (parts, body) = request.into_parts();
        let mut record = Record::new(&self, Instant::now());
        let mut answer = match self.arrive(listener, &parts, &client, &mut record) {
            Err(Stop::Refused(refusal)) => refused(refusal, &client),
            Err(Stop::Nowhere) => rejected(Rejection::Nowhere, &client),
            Err(Stop::Proof(text)) => own_answer(Own::proof(text), &client),
            Err(Stop::NotFound) => {
                let text = "nothing is served here under this name and path\n";
                text_answer(StatusCode::NOT_FOUND, text, &client)
            }
            Ok(arrival) => {
                let answer = self.serve(&arrival, parts, body, &client, &mut record).await;
                let mut answer = match answer {
                    Ok(answer) => answer,
                    Err(own) => own_answer(*own, &client),
                };
                if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                    let scheme = arrival.asker.scheme;
                    arrival.rule.policy.change_response(answer.headers_mut(), scheme);
                }
                answer
            }
        };
        if self.is_stopping() && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            close(&mut answer);
        }
        record.status = answer.status().as_u16();
        answer.body_mut().record(record);
        answer
    }

    /// Finds out what a request is about.
    fn arrive(
        &self,
        listener: u64,
        parts: &Parts,
        client: &Client,
        record: &mut Record,
    ) -> Result<Arrival, Stop> {
        let routing = self.routing.load();
        let asker = headers::asker(&parts.headers, client, &routing.trusted);
        if let Some(log) = &routing.log {
            record.set_line(line(log, parts, &asker));
        }
        headers::check(parts).map_err(Stop::Refused)?;
        let host = || host_of(parts).map(without_port).unwrap_or_default();
        if let Some(answer) = routing.tls.answer(host, parts.uri.path()) {
            return Err(Stop::Proof(answer.to_owned()));
        }
        let front = routing.fronts.get(&listener).ok_or(Stop::Nowhere)?;
        let mut address = front.rules.address(listener, parts).map_err(Stop::Refused)?;
        let rule = front.rules.find(&address).ok_or(Stop::NotFound)?.clone();
        record.set_rule(rule.clone());
        let wish = rule.canary().map(|canary| canary.wish(&parts.headers));
        address.group = wish.map(|wish| wish.group);
        Ok(Arrival { rule, address, asker, wish })
    }

    /// Answers a request as its rule says; the error is an answer of our own.
    async fn serve(
        self: &Arc<Self>,
        arrival: &Arrival,
        mut parts: Parts,
        body: Incoming,
        client: &Arc<Client>,
        record: &mut Record,
    ) -> Result<Response<AnswerBody>, Box<Own>> {
        let Arrival { rule, address, asker, wish } = arrival;
        rule.policy.admit(&parts, asker, &rule.shared.meter)?;
        rule.policy.log_in(&mut parts.headers).await?;
        rule.pool(&parts)?;
        let upgrade = headers::upgrade(&parts.headers);
        headers::forward(&mut parts, client, asker, upgrade.as_ref());
        if rule.policy.strip_path {
            match strip_path(&parts.uri, &rule.path) {
                Ok(uri) => parts.uri = uri,
                Err(refusal) => return Ok(refused(refusal, client)),
            }
            headers::prefix(&mut parts.headers, &rule.path);
        }
        rule.policy.change_request(&mut parts.headers);
        let outgoing = Outgoing::new(parts, body, rule.policy.body_limit(), client);
        let (mut response, connection, claim) =
            match self.send(address, outgoing, client, record).await {
                Ok(answered) => answered,
                Err(answer) => return Ok(*answer),
            };
        record.replica = Some(claim.replica().clone());
        if response.status().is_server_error() {
            self.answer_failed(claim.replica());
        } else {
            claim.replica().health.succeeded();
        }
        if let (Some(canary), Some(wish)) = (rule.canary(), wish) {
            canary.tell(response.headers_mut(), *wish);
        }
        Ok(relay(response, connection, claim, upgrade, client))
    }

    /// Sends a request until it is answered.
    async fn send(
        self: &Arc<Self>,
        address: &Address,
        mut outgoing: Outgoing,
        client: &Arc<Client>,
        record: &Record,
    ) -> Result<(Response<Incoming>, Connection, Claim), Box<Response<AnswerBody>>> {
        let verdict = outgoing.verdict.clone();
        let mut patience = Patience::default();
        let (mut repeats, mut unsent) = (0, 0);
        let mut choice = match outgoing.repeatable {
            Repeatable::Yes => Choice::Any,
            Repeatable::No => Choice::Fresh,
        };
        loop {
            let gone = || client.is_gone();
            let claim = match self.claim(address, &mut patience, gone, || outgoing.compact()).await
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
            let used = connection.is_used();
            choice = Choice::New;
            match outgoing.send(connection).await {
                Attempt::Answered(response, connection) => {
                    return Ok((response, connection, claim));
                }
                Attempt::Unsent(back, error) => {
                    outgoing = back;
                    replica.shared.retried.fetch_add(1, Ordering::Relaxed);
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
                    replica.shared.retried.fetch_add(1, Ordering::Relaxed);
                    replica.failed(&chain(&error));
                    replica.count(0, record.elapsed());
                    self.answer_failed(&replica);
                }
                Attempt::Unanswered(_, error) => {
                    // The request's own body may have been what broke.
                    if let Some(refusal) = verdict.get().copied().or(client.refused()) {
                        return Err(Box::new(refused(refusal, client)));
                    }
                    replica.failed(&chain(&error));
                    replica.count(0, record.elapsed());
                    self.answer_failed(&replica);
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
    // Clients are told in their own.
    *response.version_mut() = Version::HTTP_11;
    if headers::is_event_stream(response.headers()) {
        let claim = claim.into_kind(Kind::EventStream);
        return response.map(|body| AnswerBody::events(body, claim, connection, client.clone()));
    }
    response.map(|body| AnswerBody::upstream(body, claim, connection, client.clone()))
}

/// Says that a request is not taken; nothing more is read from its client.
fn refused(refusal: Refusal, client: &Arc<Client>) -> Response<AnswerBody> {
    refusal.count();
    let mut answer = text_answer(refusal.status(), refusal.text(), client);
    close(&mut answer);
    answer
}

impl Outgoing {
    fn new(parts: Parts, body: Incoming, limit: u64, client: &Client) -> Outgoing {
        let empty = body.is_end_stream();
        let safe = matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
        let repeatable = if empty && safe { Repeatable::Yes } else { Repeatable::No };
        if empty {
            return Outgoing { parts, body: None, verdict: Verdict::default(), repeatable };
        }
        let pace = (!headers::is_grpc(&parts.headers)).then(|| {
            let patience = Duration::from_millis(client.limits.body_timeout_ms);
            Pace::new(patience, Duration::from_secs(1) / client.limits.body_bytes_per_s.max(1))
        });
        let (body, verdict) = Intake::new(body, limit, pace);
        Outgoing { parts, body: Some(Box::new(body)), verdict, repeatable }
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
        let Outgoing { parts, body, verdict, repeatable } = self;
        let again = (repeatable == Repeatable::Yes).then(|| parts.clone());
        let body = body.map_or(RequestBody::Empty, RequestBody::Stream);
        let request = Request::from_parts(parts, body);
        let sent = connection.send(request).await;
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
            let back = Outgoing { parts, body, verdict, repeatable };
            return Attempt::Unsent(back, failure.into_error());
        }
        let again = again.map(|parts| Outgoing { parts, body: None, verdict, repeatable });
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

/// What the access log says of a request.
fn line(log: &Arc<Log>, parts: &Parts, asker: &Asker) -> Line {
    let text = |name| {
        let value = parts.headers.get(name).map(HeaderValue::as_bytes).unwrap_or_default();
        String::from_utf8_lossy(value).into_owned()
    };
    let version = match parts.version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    };
    Line {
        log: log.clone(),
        client: asker.address.to_string(),
        method: parts.method.to_string(),
        host: host_of(parts).unwrap_or_default().to_owned(),
        target: if log.with_query() { target(parts) } else { parts.uri.path() }.to_owned(),
        version,
        referer: without_query(text(header::REFERER), log),
        agent: text(header::USER_AGENT),
    }
}

/// Referrers carry queries as well.
fn without_query(mut referer: String, log: &Log) -> String {
    if !log.with_query()
        && let Some(query) = referer.find('?')
    {
        referer.truncate(query);
    }
    referer
}

fn own_answer(own: Own, client: &Arc<Client>) -> Response<AnswerBody> {
    let mut answer = Response::new(AnswerBody::text(own.text, client.clone()));
    *answer.status_mut() = own.status;
    answer.headers_mut().extend(own.headers);
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
