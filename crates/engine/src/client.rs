//! Requests to the engine.
//!
//! bollard carries them: connection, framing, errors. What we send and read is JSON of our own
//! making, because bollard's types follow the newest schema only: on an older engine they lose
//! fields without a word (a container's MAC address, for one).

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard::errors::Error;
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use http::{HeaderValue, Method};
use serde_json::Value;
use shiplap_model::{EngineError, EngineErrorKind, Limit, Limits, Span};

use crate::endpoint::Endpoint;
use crate::{error, link};

/// bollard's own limit on the wait for an answer's head; ours are shorter, and apply first.
const HEAD_LIMIT_S: u64 = 24 * 60 * 60;
/// The largest answer that is kept in memory: a list of 10,000 containers is about 40 MB.
const ANSWER_LIMIT: usize = 256 << 20;

/// A body of a kind that can be sent once only, such as a stream.
type OnceBody = Box<dyn FnOnce(&mut BollardRequest) + Send>;

/// How long a request may take, and under which name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wait {
    pub(crate) limit: Limit,
    pub(crate) time: Duration,
}

impl Wait {
    /// The error of a wait that came to its end.
    pub(crate) fn over(self, doing: impl Into<String>, what: &str) -> EngineError {
        let message = format!("{what} in {} ({})", Span(self.time), self.limit.raise(self.time));
        error::with_kind(EngineErrorKind::Timeout, doing, message)
    }
}

impl std::ops::Add<Duration> for Wait {
    type Output = Self;

    fn add(self, more: Duration) -> Self {
        Self { time: self.time.saturating_add(more), ..self }
    }
}

/// One request.
pub(crate) struct Call {
    method: Method,
    path: String,
    query: String,
    headers: Vec<(&'static str, HeaderValue)>,
    body: Option<Bytes>,
    once: Option<OnceBody>,
}

impl Call {
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        let path = path.into();
        Self { method, path, query: String::new(), headers: vec![], body: None, once: None }
    }

    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub(crate) fn post(path: impl Into<String>) -> Self {
        Self::new(Method::POST, path)
    }

    pub(crate) fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path)
    }

    pub(crate) fn query(mut self, name: &str, value: &str) -> Self {
        self.query.push(if self.query.is_empty() { '?' } else { '&' });
        self.query.push_str(name);
        self.query.push('=');
        self.query.push_str(&encoded(value));
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn json(mut self, body: &Value) -> Self {
        self.body = Some(body.to_string().into());
        self
    }

    pub(crate) fn tar(mut self, body: Bytes) -> Self {
        self.headers.push(("content-type", HeaderValue::from_static("application/x-tar")));
        self.body = Some(body);
        self
    }

    pub(crate) fn tar_stream(
        mut self,
        body: impl Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static,
    ) -> Self {
        self.headers.push(("content-type", HeaderValue::from_static("application/x-tar")));
        self.once = Some(Box::new(|request| *request.body_mut() = bollard::body_try_stream(body)));
        self
    }
}

/// Escapes one part of a path or a query. Slashes stay for names of images.
pub(crate) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z'
            | b'a'..=b'z'
            | b'0'..=b'9'
            | b'-'
            | b'_'
            | b'.'
            | b'~'
            | b'/'
            | b':'
            | b'@' => out.push(byte as char),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A connection to an engine.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    docker: Docker,
    /// The minor number of the API version in use, 0 before it is settled.
    minor: Arc<AtomicU32>,
    limits: Limits,
}

impl Client {
    pub(crate) fn connect(endpoint: &Endpoint) -> Result<Self, EngineError> {
        let docker = match endpoint {
            Endpoint::Unix(path) => {
                let path = path.to_string_lossy();
                Docker::connect_with_unix(&path, HEAD_LIMIT_S, API_DEFAULT_VERSION)
            }
            Endpoint::Tcp(address) => {
                let address = format!("tcp://{address}");
                Docker::connect_with_http(&address, HEAD_LIMIT_S, API_DEFAULT_VERSION)
            }
            Endpoint::Ssh(link) => Docker::connect_with_custom_transport(
                link::transport(link),
                Some("http://docker"),
                HEAD_LIMIT_S,
                API_DEFAULT_VERSION,
            ),
        };
        let docker =
            docker.map_err(|e| error::from_bollard(format!("connecting to {endpoint}"), &e))?;
        let minor = Arc::new(AtomicU32::new(0));
        let settled = Arc::clone(&minor);
        // bollard 0.21.1 drops the version that it puts in front of a path, so that an engine
        // answers in its newest schema. Remove this when it no longer does: the prefix doubles.
        let docker = docker.with_request_modifier(move |mut request| {
            let path = request.uri().path_and_query().map_or("/", |p| p.as_str()).to_owned();
            set_path(&mut request, &versioned(settled.load(Ordering::Relaxed), &path));
            request
        });
        Ok(Self { docker, minor, limits: Limits::default() })
    }

    pub(crate) const fn set_limits(&mut self, limits: &Limits) {
        self.limits = *limits;
    }

    /// How long something may take.
    pub(crate) const fn wait(&self, limit: Limit) -> Wait {
        Wait { limit, time: self.limits.get(limit) }
    }

    /// The client, which speaks the settled version.
    pub(crate) const fn docker(&self) -> &Docker {
        &self.docker
    }

    pub(crate) fn settle(&self, minor: u32) {
        self.minor.store(minor, Ordering::Relaxed);
    }

    /// Sends a request and returns the answer's body as it comes.
    pub(crate) fn stream(&self, call: Call) -> impl Stream<Item = Result<Bytes, Error>> + use<> {
        let minor = self.minor.load(Ordering::Relaxed);
        let Call { method, path, query, headers, body, once } = call;
        let once = Mutex::new(once);
        let docker = self.docker.clone().with_request_modifier(move |mut request| {
            set_path(&mut request, &versioned(minor, &format!("{path}{query}")));
            *request.method_mut() = method.clone();
            for (name, value) in &headers {
                request.headers_mut().insert(*name, value.clone());
            }
            if let Some(body) = &body {
                *request.body_mut() = bollard::body_full(body.clone());
            }
            let once = once.lock().expect("nothing panics while holding it").take();
            if let Some(set_body) = once {
                set_body(&mut request);
            }
            request
        });
        // Any call whose answer bollard hands out untouched would do.
        docker.export_image("any")
    }

    /// Sends a request and returns the whole body, within the limit of an ordinary call.
    pub(crate) async fn send(
        &self,
        call: Call,
        doing: impl Fn() -> String,
    ) -> Result<Bytes, EngineError> {
        self.send_within(call, self.wait(Limit::EngineCall), doing).await
    }

    /// Sends a request and returns the whole body, within a limit of time.
    pub(crate) async fn send_within(
        &self,
        call: Call,
        wait: Wait,
        doing: impl Fn() -> String,
    ) -> Result<Bytes, EngineError> {
        let stream = self.stream(call);
        let whole = async {
            let mut body = BytesMut::new();
            futures_util::pin_mut!(stream);
            while let Some(chunk) = stream.next().await {
                body.extend_from_slice(&chunk.map_err(|e| error::from_bollard(doing(), &e))?);
                if body.len() > ANSWER_LIMIT {
                    let message = "the answer is too long";
                    return Err(error::with_kind(EngineErrorKind::Internal, doing(), message));
                }
            }
            Ok(body.freeze())
        };
        match tokio::time::timeout(wait.time, whole).await {
            Ok(result) => result,
            Err(_) => Err(wait.over(doing(), "no answer")),
        }
    }

    /// Sends a request and reads the answer as JSON.
    pub(crate) async fn fetch(
        &self,
        call: Call,
        doing: impl Fn() -> String,
    ) -> Result<Value, EngineError> {
        let body = self.send(call, &doing).await?;
        serde_json::from_slice(&body).map_err(|e| {
            let message = format!("the answer is not JSON: {e}");
            error::with_kind(EngineErrorKind::Internal, doing(), message)
        })
    }
}

fn versioned(minor: u32, path: &str) -> String {
    if minor == 0 { path.to_owned() } else { format!("/v1.{minor}{path}") }
}

fn set_path(request: &mut BollardRequest, path: &str) {
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = Some(path.parse().expect("an escaped path is a path"));
    *request.uri_mut() = http::Uri::from_parts(parts).expect("only the path changed");
}

/// Takes lines out of a stream's chunks.
#[derive(Default)]
pub(crate) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Adds a chunk and returns the lines that it completes.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(part);
            if part.ends_with(b"\n") {
                lines.push(std::mem::take(&mut self.rest));
            }
        }
        lines
    }

    /// What stands after the last line break.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Answers every request with `{}` and returns the first lines of the requests.
    async fn sniff(socket: &std::path::Path, requests: usize) -> Vec<String> {
        let listener = tokio::net::UnixListener::bind(socket).unwrap();
        let mut seen = Vec::new();
        for _ in 0..requests {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = vec![0; 4096];
            let read = stream.read(&mut buffer).await.unwrap();
            let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
            seen.push(text.lines().next().unwrap().to_owned());
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        seen
    }

    #[tokio::test]
    async fn every_request_carries_the_settled_version() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("d.sock");
        let path = socket.clone();
        let server = tokio::spawn(async move { sniff(&path, 3).await });
        while !socket.exists() {
            tokio::task::yield_now().await;
        }
        let client = Client::connect(&Endpoint::Unix(socket)).unwrap();
        client.fetch(Call::get("/version"), String::new).await.unwrap();
        client.settle(41);
        let call = Call::post("/images/create").query("fromImage", "a/b c").json(&Value::Null);
        client.fetch(call, String::new).await.unwrap();
        client.docker().info().await.unwrap();
        assert_eq!(
            server.await.unwrap(),
            [
                "GET /version HTTP/1.1",
                "POST /v1.41/images/create?fromImage=a/b%20c HTTP/1.1",
                "GET /v1.41/info HTTP/1.1",
            ]
        );
    }

    #[test]
    fn lines_are_put_together_from_chunks() {
        let mut lines = Lines::default();
        assert!(lines.push(b"ab").is_empty());
        assert_eq!(lines.push(b"c\nd\ne"), [b"abc\n".to_vec(), b"d\n".to_vec()]);
        assert_eq!(lines.finish(), b"e");
    }
}
