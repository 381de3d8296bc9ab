//! What holds for requests on their way: who is let in, how often, and what is changed.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode, Uri};

use super::auth::{Auth, Verdict};
use super::client::Scheme;
use super::rate::Meter;
use super::refusal::Refusal;
use super::tls::is_asked_by_authority;
use crate::table::{self, HeaderRules, Hsts, Rate, Subnet};

const ROBOTS_TAG: HeaderName = HeaderName::from_static("x-robots-tag");
const ROBOTS: &str = "User-agent: *\nDisallow: /\n";

/// A [`table::Policy`], ready for use.
pub(super) struct Policy {
    https_port: Option<u16>,
    hsts: Option<HeaderValue>,
    allow: Vec<Subnet>,
    pub auth: Option<Arc<Auth>>,
    rate: Option<Rate>,
    body_bytes: Option<u64>,
    maintenance: Option<Page>,
    noindex: bool,
    pub strip_path: bool,
    request: Rules,
    response: Rules,
}

struct Page {
    status: StatusCode,
    kind: HeaderValue,
    body: Bytes,
    retry_after: HeaderValue,
    allow: Vec<Subnet>,
}

#[derive(Default)]
struct Rules {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, HeaderValue)>,
}

/// An answer of our own.
#[derive(Debug)]
pub(super) struct Own {
    pub status: StatusCode,
    pub text: Bytes,
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Own {
    pub(super) fn plain(status: StatusCode, text: &'static str) -> Own {
        Own::new(status, HeaderValue::from_static("text/plain; charset=utf-8"), text.into())
    }

    fn new(status: StatusCode, kind: HeaderValue, text: Bytes) -> Own {
        Own { status, text, headers: vec![(header::CONTENT_TYPE, kind)] }
    }

    /// What an authority has asked for.
    pub(super) fn proof(answer: String) -> Own {
        let kind = HeaderValue::from_static("application/octet-stream");
        Own::new(StatusCode::OK, kind, answer.into())
    }

    pub(super) fn with(mut self, name: HeaderName, value: impl Into<HeaderValue>) -> Own {
        self.headers.push((name, value.into()));
        self
    }
}

/// Who asks.
pub(super) struct Asker {
    /// The client, also if a trusted proxy speaks for it.
    pub address: IpAddr,
    pub scheme: Scheme,
    /// A trusted proxy asks.
    pub is_believed: bool,
}

impl Policy {
    /// `before` is the one of the same route in the table before.
    pub(super) fn new(given: &table::Policy, before: Option<&Policy>) -> Policy {
        let known = before.and_then(|before| before.auth.as_ref());
        Policy {
            https_port: given.https_port,
            hsts: given.hsts.as_ref().map(hsts),
            allow: blocks(&given.allow),
            auth: given.basic_auth.as_ref().map(|auth| Auth::new(auth, known)),
            rate: given.rate,
            body_bytes: given.body_bytes,
            maintenance: given.maintenance.as_ref().map(Page::new),
            noindex: given.noindex,
            strip_path: given.strip_path,
            request: Rules::new(&given.request_headers),
            response: Rules::new(&given.response_headers),
        }
    }

    /// Whether a request may go on, as far as that is known at once; see also [`Policy::log_in`].
    pub(super) fn admit(
        &self,
        parts: &Parts,
        asker: &Asker,
        meter: &Meter,
    ) -> Result<(), Box<Own>> {
        if let Some(port) = self.https_port
            && asker.scheme == Scheme::Http
            // Who proves that a host is theirs, ours or a service of it, must be asked without.
            && !is_asked_by_authority(parts.uri.path())
        {
            return Err(Box::new(to_https(parts, port)));
        }
        if self.noindex && parts.uri.path() == "/robots.txt" && is_read(&parts.method) {
            return Err(Box::new(Own::plain(StatusCode::OK, ROBOTS)));
        }
        if !self.allow.is_empty() && !inside(&self.allow, asker.address) {
            return Err(Box::new(Own::plain(StatusCode::FORBIDDEN, "not from this address\n")));
        }
        if let Some(rate) = &self.rate
            && let Err(wait) = meter.admit(rate, asker.address)
        {
            return Err(Box::new(too_often(wait)));
        }
        if let Some(page) = &self.maintenance
            && !inside(&page.allow, asker.address)
        {
            return Err(Box::new(page.answer()));
        }
        let length =
            parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        let length = length.and_then(|value| value.parse::<u64>().ok()).unwrap_or(0);
        if length > self.body_limit() {
            let refusal = Refusal::BodyTooLarge;
            return Err(Box::new(Own::plain(refusal.status(), refusal.text())));
        }
        Ok(())
    }

    /// Whether name and password are right, where there must be some. They are the edge's, and
    /// not passed on.
    pub(super) async fn log_in(&self, headers: &mut HeaderMap) -> Result<(), Box<Own>> {
        let Some(auth) = &self.auth else { return Ok(()) };
        let given = headers.remove(header::AUTHORIZATION);
        match Box::pin(auth.clone().judge(given.as_ref())).await {
            Verdict::Right => Ok(()),
            Verdict::Wrong => {
                let answer = Own::plain(StatusCode::UNAUTHORIZED, "name and password, please\n");
                Err(Box::new(answer.with(header::WWW_AUTHENTICATE, auth.challenge())))
            }
            Verdict::Busy => {
                let text = "too many are logging in\n";
                let answer = Own::plain(StatusCode::SERVICE_UNAVAILABLE, text);
                Err(Box::new(answer.with(header::RETRY_AFTER, 5)))
            }
        }
    }

    /// Of a request, in bytes.
    pub(super) fn body_limit(&self) -> u64 {
        self.body_bytes.unwrap_or(u64::MAX)
    }

    pub(super) fn change_request(&self, headers: &mut HeaderMap) {
        self.request.apply(headers);
    }

    pub(super) fn change_response(&self, headers: &mut HeaderMap, scheme: Scheme) {
        if let Some(hsts) = &self.hsts
            && scheme == Scheme::Https
        {
            headers.insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
        if self.noindex {
            headers.insert(ROBOTS_TAG, HeaderValue::from_static("noindex, nofollow"));
        }
        self.response.apply(headers);
    }
}

impl Page {
    fn new(given: &table::Maintenance) -> Page {
        Page {
            status: StatusCode::from_u16(given.status).expect("statuses are checked"),
            kind: HeaderValue::from_str(&given.content_type).expect("types are checked"),
            body: Bytes::from(given.body.clone()),
            retry_after: given.retry_after_s.into(),
            allow: blocks(&given.allow),
        }
    }

    fn answer(&self) -> Own {
        Own::new(self.status, self.kind.clone(), self.body.clone())
            .with(header::RETRY_AFTER, self.retry_after.clone())
            .with(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))
    }
}

impl Rules {
    fn new(given: &HeaderRules) -> Rules {
        let name = |name: &String| name.parse().expect("names are checked");
        let set = given.set.iter().map(|(given, value)| {
            (name(given), HeaderValue::from_str(value).expect("values are checked"))
        });
        Rules { remove: given.remove.iter().map(name).collect(), set: set.collect() }
    }

    fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
    }
}

fn hsts(given: &Hsts) -> HeaderValue {
    let below = if given.include_subdomains { "; includeSubDomains" } else { "" };
    let preload = if given.preload { "; preload" } else { "" };
    let value = format!("max-age={}{below}{preload}", given.max_age_s);
    HeaderValue::try_from(value).expect("digits and words")
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

fn too_often(wait: Duration) -> Own {
    // Whole seconds, and not too soon.
    let seconds = wait.as_millis().div_ceil(1000).max(1) as u64;
    let answer = Own::plain(StatusCode::TOO_MANY_REQUESTS, "too many requests\n");
    answer.with(header::RETRY_AFTER, seconds)
}

/// The same address over TLS.
fn to_https(parts: &Parts, port: u16) -> Own {
    let host = host_of(parts).unwrap_or_default();
    let name = without_port(host);
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    redirect(StatusCode::PERMANENT_REDIRECT, &format!("https://{name}{port}{}", target(parts)))
}

pub(super) fn redirect(status: StatusCode, to: &str) -> Own {
    match HeaderValue::from_str(to) {
        Ok(to) => Own::plain(status, "it is elsewhere\n").with(header::LOCATION, to),
        Err(_) => Own::plain(StatusCode::BAD_REQUEST, Refusal::BadTarget.text()),
    }
}

/// Path and query.
pub(super) fn target(parts: &Parts) -> &str {
    parts.uri.path_and_query().map_or("/", |target| target.as_str())
}

/// The host that a request is for, as it came.
pub(super) fn host_of(parts: &Parts) -> Option<&str> {
    match parts.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => parts.headers.get(header::HOST)?.to_str().ok(),
    }
}

pub(super) fn without_port(host: &str) -> &str {
    match host.rfind(':') {
        Some(colon) if !host.ends_with(']') => &host[..colon],
        Some(_) | None => host,
    }
}

/// Takes a prefix off the path.
pub(super) fn strip_path(uri: &Uri, prefix: &str) -> Result<Uri, Refusal> {
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    // A path that is below the prefix only when it is decoded cannot be cut where it is not.
    let rest = target.strip_prefix(prefix).ok_or(Refusal::BadTarget)?;
    let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
    rest.parse().map_err(|_| Refusal::BadTarget)
}

pub(super) fn blocks(given: &[String]) -> Vec<Subnet> {
    given.iter().filter_map(|block| Subnet::parse_any(block)).collect()
}

pub(super) fn inside(blocks: &[Subnet], address: IpAddr) -> bool {
    blocks.iter().any(|block| block.contains(address))
}
