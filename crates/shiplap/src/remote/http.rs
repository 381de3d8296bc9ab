//! HTTP to a control server: one connection per request.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};
use serde_json::Value;
use shiplap_engine::Link;
use shiplap_model::Secret;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::ServerAddress;

/// To be connected, and to get the head of an answer.
const LIMIT: Duration = Duration::from_secs(30);
/// An answer that is no stream.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// A file with certificates of authorities to believe besides Mozilla's.
const ROOTS_VARIABLE: &str = "SHIPLAP_SERVER_CA";

/// Why a server could not be used.
#[derive(Debug)]
pub struct Failure {
    /// What happened.
    pub message: String,
    /// What to type.
    pub help: Option<String>,
}

impl Failure {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None }
    }

    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

/// A stream of bytes, of whatever kind.
trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// A control server that is spoken to.
pub struct Server {
    address: ServerAddress,
    /// What stands for it in messages.
    name: String,
    token: Option<Secret<String>>,
    tls: Option<Arc<ClientConfig>>,
    /// Over ssh: the way there, and its end here.
    link: Option<(Link, PathBuf)>,
}

impl Server {
    /// Prepares to speak to one, over ssh where it is; connects with the first request.
    ///
    /// # Errors
    /// Certificates of authorities that cannot be read, and why ssh did not get there.
    pub async fn open(
        address: &ServerAddress,
        token: Option<Secret<String>>,
    ) -> Result<Self, Failure> {
        let (name, tls) = match address {
            ServerAddress::Unix(path) => (format!("unix://{}", path.display()), None),
            ServerAddress::Ssh(there) => (format!("ssh://{}", there.host), None),
            ServerAddress::Tcp { host, port, tls: false } => (format!("{host}:{port}"), None),
            ServerAddress::Tcp { host, port, tls: true } => {
                (format!("{host}:{port}"), Some(Arc::new(config()?)))
            }
        };
        let link = match address {
            ServerAddress::Ssh(there) => {
                let link = Link::open(there, crate::world::link_to(Vec::new())).await;
                let link = link.map_err(|error| Failure {
                    message: error.to_string(),
                    help: error.help.clone(),
                })?;
                let here = link.socket(&there.socket).expect("the link was made for it");
                let here = here.to_path_buf();
                Some((link, here))
            }
            ServerAddress::Unix(_) | ServerAddress::Tcp { .. } => None,
        };
        Ok(Self { address: address.clone(), name, token, tls, link })
    }

    /// Sends JSON, and answers JSON.
    ///
    /// # Errors
    /// When nobody answers, and what the server says where it refuses.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let answer = self.exchange(path, body).await?;
        let body = Limited::new(answer, MAX_ANSWER_BYTES).collect();
        let body = body.await.map_err(|error| self.broken(&error.to_string()))?.to_bytes();
        Ok(serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// Sends JSON, and answers lines as they come.
    ///
    /// # Errors
    /// As [`Server::post`].
    pub async fn post_lines(&self, path: &str, body: &Value) -> Result<Lines, Failure> {
        let body = self.exchange(path, body).await?;
        Ok(Lines { body, rest: Vec::new(), name: self.name.clone() })
    }

    async fn exchange(&self, path: &str, body: &Value) -> Result<Incoming, Failure> {
        let asked = async {
            let wire = self.connect().await?;
            let handshake = http1::handshake(TokioIo::new(wire)).await;
            let (mut sender, connection) =
                handshake.map_err(|error| self.broken(&error.to_string()))?;
            // It carries the answer's body too, and ends with it.
            tokio::spawn(connection);
            sender
                .send_request(self.request(path, body)?)
                .await
                .map_err(|error| self.broken(&error.to_string()))
        };
        let answer = tokio::time::timeout(LIMIT, asked).await.unwrap_or_else(|_| {
            Err(Failure::new(format!("{} does not answer within {} s", self.name, LIMIT.as_secs())))
        })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer.into_body());
        }
        let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        Err(self.refused(status, &body))
    }

    fn request(&self, path: &str, body: &Value) -> Result<Request<Full<Bytes>>, Failure> {
        let host = match &self.address {
            ServerAddress::Tcp { host, port, .. } if host.contains(':') => {
                format!("[{host}]:{port}")
            }
            ServerAddress::Tcp { host, port, .. } => format!("{host}:{port}"),
            ServerAddress::Unix(_) | ServerAddress::Ssh(_) => "localhost".to_owned(),
        };
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, host)
            .header(CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            let value = HeaderValue::from_str(&format!("Bearer {}", token.expose()));
            let mut value =
                value.map_err(|_| Failure::new("the token is not of the right form"))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let request = request.body(Full::from(body.to_string()));
        request.map_err(|error| Failure::new(format!("{path} cannot be asked for: {error}")))
    }

    async fn connect(&self) -> Result<Box<dyn Wire>, Failure> {
        let refused = |error: std::io::Error| {
            Failure::new(format!("{} cannot be reached: {error}", self.name))
                .help("`shiplap serve` runs a control server")
        };
        match &self.address {
            ServerAddress::Unix(path) => {
                Ok(Box::new(UnixStream::connect(path).await.map_err(refused)?))
            }
            ServerAddress::Ssh(_) => {
                let (_, here) = self.link.as_ref().expect("it was opened");
                Ok(Box::new(UnixStream::connect(here).await.map_err(refused)?))
            }
            ServerAddress::Tcp { host, port, .. } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(refused)?;
                let _ = stream.set_nodelay(true);
                let Some(config) = &self.tls else { return Ok(Box::new(stream)) };
                let name = ServerName::try_from(host.clone())
                    .map_err(|_| Failure::new(format!("`{host}` is no name of a host")))?;
                let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await;
                Ok(Box::new(stream.map_err(|error| {
                    Failure::new(format!("{} is not trusted: {error}", self.name)).help(format!(
                        "{ROOTS_VARIABLE} names a file with the authority's certificate"
                    ))
                })?))
            }
        }
    }

    fn broken(&self, why: &str) -> Failure {
        Failure::new(format!("the connection to {} broke: {why}", self.name))
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> Failure {
        let said: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let said = said["message"].as_str().unwrap_or_default();
        let name = &self.name;
        match status {
            StatusCode::UNAUTHORIZED => Failure::new(format!("{name} does not know the token"))
                .help("SHIPLAP_TOKEN, or --token-file FILE; `shiplap token create` makes one"),
            _ if said.is_empty() => Failure::new(format!("{name} refuses ({status})")),
            _ => Failure::new(format!("{name}: {said}")),
        }
    }
}

fn config() -> Result<ClientConfig, Failure> {
    let mut store = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = std::env::var_os(ROOTS_VARIABLE) {
        let shown = std::path::Path::new(&path).display().to_string();
        let wrong = |why: String| Failure::new(format!("{ROOTS_VARIABLE}: {shown}: {why}"));
        let text = std::fs::read(&path).map_err(|error| wrong(error.to_string()))?;
        for certificate in CertificateDer::pem_slice_iter(&text) {
            let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
            store.add(certificate).map_err(|error| wrong(error.to_string()))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has what TLS 1.2 and 1.3 need")
        .with_root_certificates(store)
        .with_no_client_auth())
}

/// Lines of an answer.
pub struct Lines {
    body: Incoming,
    rest: Vec<u8>,
    name: String,
}

impl Lines {
    /// The next one, without its end; nothing after the last.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn next(&mut self) -> Result<Option<String>, Failure> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Ok(Some(String::from_utf8_lossy(&line[..end]).into_owned()));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.rest.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => {
                    let message = format!("the connection to {} broke: {error}", self.name);
                    return Err(Failure::new(message)
                        .help("what it does there goes on: look at `status` when it is back"));
                }
            }
        }
    }
}
