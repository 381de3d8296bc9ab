//! The one request whose answer's head matters.
//!
//! bollard hands out bodies only, so this one is sent by hyper itself.

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use shiplap_model::EngineError;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::client::Wait;
use crate::endpoint::Endpoint;
use crate::error;

/// What an engine's answer to a ping tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pong {
    /// The newest version of the API that it speaks, such as `1.41`.
    pub api_version: Option<String>,
}

/// Pings the engine on a connection of its own.
pub(crate) async fn ping(
    endpoint: &Endpoint,
    wait: Wait,
    doing: impl Fn() -> String,
) -> Result<Pong, EngineError> {
    let pinging = async {
        match endpoint {
            Endpoint::Unix(path) => match UnixStream::connect(path).await {
                Ok(stream) => ask(stream).await,
                Err(error) => Err(error.into()),
            },
            Endpoint::Tcp(address) => match TcpStream::connect(address).await {
                Ok(stream) => ask(stream).await,
                Err(error) => Err(error.into()),
            },
            Endpoint::Ssh(link) => match link.connect().await {
                Ok(stream) => ask(stream).await.map_err(|error| {
                    link.why_refused(&link.address().socket).map_or(error, Into::into)
                }),
                Err(error) => Err(error.into()),
            },
        }
    };
    match tokio::time::timeout(wait.time, pinging).await {
        Ok(answer) => answer.map_err(|error| error::from_bollard(doing(), &error)),
        Err(_) => Err(wait.over(doing(), "no answer")),
    }
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<Pong, bollard::errors::Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::head("/_ping").header("host", "docker").body(Empty::<Bytes>::new())?;
    let answer = async {
        let answer = sender.send_request(request).await;
        drop(sender);
        answer
    };
    let (answer, _) = futures_util::future::join(answer, connection).await;
    let version = answer?.headers().get("api-version").cloned();
    let api_version = version.and_then(|value| value.to_str().map(str::to_owned).ok());
    Ok(Pong { api_version })
}
