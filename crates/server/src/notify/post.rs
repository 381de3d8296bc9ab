//! Notices as webhooks: JSON that is posted to an address, as chats take it.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderName, HeaderValue, Request, Uri};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use shiplap_model::Secret;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Channel, Notice, OnlyFailures};

/// A webhook.
pub struct Webhook {
    name: String,
    /// Chats put the secret into the address.
    url: Secret<String>,
    headers: Vec<(HeaderName, Secret<String>)>,
    template: Value,
    only_failures: OnlyFailures,
    tls: Arc<ClientConfig>,
}

impl Webhook {
    /// `template` is JSON whose texts hold words such as `{summary}`: [`Notice::fill`]. `roots` are
    /// the authorities that are believed.
    #[must_use]
    pub fn new(
        name: &str,
        url: Secret<String>,
        headers: Vec<(HeaderName, Secret<String>)>,
        template: Value,
        only_failures: OnlyFailures,
        roots: RootCertStore,
    ) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has what TLS 1.2 and 1.3 need")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (name, tls) = (name.to_owned(), Arc::new(tls));
        Self { name, url, headers, template, only_failures, tls }
    }

    async fn post(&self, notice: &Notice) -> Result<(), String> {
        let body = serde_json::to_vec(&self.notice_body(notice)).map_err(|e| e.to_string())?;
        let uri: Uri = self.url.expose().parse().map_err(|_| "the address is none".to_owned())?;
        let host = uri.host().ok_or("the address has no host")?.to_owned();
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            Some(_) | None => return Err("the address is not http:// or https://".to_owned()),
        };
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let text = |error: io::Error| error.to_string();
        // Errors of the system name the address at most, not the path, where chats have the secret.
        let bare = host.trim_matches(['[', ']']).to_owned();
        let stream = TcpStream::connect((bare.as_str(), port)).await.map_err(text)?;
        let request = self.request(&uri, &host, body)?;
        if is_tls {
            let name = ServerName::try_from(bare).map_err(|e| e.to_string())?;
            let stream = TlsConnector::from(self.tls.clone()).connect(name, stream).await;
            exchange(stream.map_err(text)?, request).await
        } else {
            exchange(stream, request).await
        }
    }

    fn notice_body(&self, notice: &Notice) -> Value {
        notice.fill(&self.template)
    }

    fn request(
        &self,
        uri: &Uri,
        host: &str,
        body: Vec<u8>,
    ) -> Result<Request<Full<Bytes>>, String> {
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let authority = match uri.port_u16() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let mut request = Request::post(path)
            .header(HOST, authority)
            .header(CONTENT_TYPE, "application/json")
            .header(CONTENT_LENGTH, body.len())
            .header("user-agent", "shiplap");
        for (name, value) in &self.headers {
            let mut value = HeaderValue::from_str(value.expose())
                .map_err(|_| format!("the value of `{name}` cannot be sent"))?;
            value.set_sensitive(true);
            request = request.header(name, value);
        }
        request.body(Full::new(Bytes::from(body))).map_err(|e| e.to_string())
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(), String> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let answered = async {
        let answer = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let status = answer.status();
        if status.is_success() { Ok(()) } else { Err(format!("it answered {status}")) }
    };
    // The answer comes only while the connection is driven; its body is of no interest.
    tokio::select! {
        answered = answered => answered,
        ended = connection => Err(ended.err().map_or("it hung up".to_owned(), |e| e.to_string())),
    }
}

#[async_trait]
impl Channel for Webhook {
    fn name(&self) -> &str {
        &self.name
    }

    fn wants(&self, notice: &Notice) -> bool {
        self.only_failures.wants(notice)
    }

    async fn send(&self, notice: &Notice) -> Result<(), String> {
        self.post(notice).await
    }
}
