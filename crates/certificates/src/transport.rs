//! HTTPS to an authority: one connection per request, which are few and hours apart.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderValue, RETRY_AFTER};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// For one request, from looking the name up to the last byte.
const LIMIT: Duration = Duration::from_secs(30);
/// A chain of certificates is below 20 KiB.
const MAX_ANSWER_BYTES: usize = 1 << 20;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Speaks HTTPS, and remembers when it was told to come back.
#[derive(Clone)]
pub(crate) struct Https {
    config: Arc<ClientConfig>,
    come_back: Arc<Mutex<Option<Duration>>>,
}

impl Https {
    /// Believes Mozilla's list of authorities, and the certificates of this file.
    pub(crate) fn new(roots: Option<&Path>) -> Result<Https, String> {
        let mut store = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(path) = roots {
            let wrong = |why: String| format!("reading {}: {why}", path.display());
            let text = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
            for certificate in CertificateDer::pem_slice_iter(&text) {
                let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
                store.add(certificate).map_err(|error| wrong(error.to_string()))?;
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has what TLS 1.2 and 1.3 need")
            .with_root_certificates(store)
            .with_no_client_auth();
        Ok(Https { config: Arc::new(config), come_back: Arc::default() })
    }

    /// How long we were last told to stay away.
    pub(crate) fn come_back(&self) -> Option<Duration> {
        *self.come_back.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn exchange(
        self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Result<BytesResponse, Failure> {
        let (mut parts, body) = request.into_parts();
        let uri = std::mem::take(&mut parts.uri);
        let host = uri.host().ok_or("an address without a host")?;
        if uri.scheme_str() != Some("https") {
            return Err(format!("`{uri}` is not an https:// address").into());
        }
        let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(443))).await?;
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())?;
        let stream = TlsConnector::from(self.config.clone()).connect(name, stream).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let authority = uri.authority().map_or(host, |authority| authority.as_str());
        parts.headers.insert(HOST, HeaderValue::from_str(authority)?);
        parts.uri = Uri::from(uri.path_and_query().cloned().ok_or("an address without a path")?);
        let answered = async {
            let answer = sender.send_request(Request::from_parts(parts, body)).await?;
            let (parts, body) = answer.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?.to_bytes();
            Ok::<_, Failure>(Response::from_parts(parts, Full::new(body)))
        };
        let answer = tokio::select! {
            // The connection carries the answer while it is polled, and ends with it.
            answer = answered => answer?,
            ended = closed(connection) => return Err(ended),
        };
        if matches!(
            answer.status(),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        ) {
            let after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            let after = after.and_then(|value| value.trim().parse().ok());
            *self.come_back.lock().unwrap_or_else(PoisonError::into_inner) =
                after.map(Duration::from_secs);
        }
        Ok(BytesResponse::from(answer))
    }
}

/// Drives a connection; answers why it has ended, if it was not for the better.
async fn closed<F: Future<Output = hyper::Result<()>>>(connection: F) -> Failure {
    match connection.await {
        Err(error) => error.into(),
        // The answer may be waiting to be read.
        Ok(()) => std::future::pending().await,
    }
}

impl HttpClient for Https {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let https = self.clone();
        Box::pin(async move {
            let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer in 30 s");
            let answer = tokio::time::timeout(LIMIT, https.exchange(request)).await;
            answer.unwrap_or_else(|_| Err(late().into())).map_err(Error::Other)
        })
    }
}
