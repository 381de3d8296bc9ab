//! A small client, without a pool: each request has its own connection.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Whatever a test waits for comes sooner.
const SOON: Duration = Duration::from_secs(20);

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{:?}", self.body))
    }

    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    pub fn header(&self, name: &str) -> String {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned()
    }

    /// The numbers of the orders.
    pub fn orders(&self) -> Vec<u64> {
        let numbers = self.header("x-shiplap-order");
        numbers.split(", ").filter(|n| !n.is_empty()).map(|n| n.parse().unwrap()).collect()
    }
}

/// A request that is being made.
pub struct Asking {
    address: SocketAddr,
    request: http::request::Builder,
    body: Bytes,
}

impl Asking {
    pub fn new(address: SocketAddr, method: Method, path: &str) -> Self {
        let request = Request::builder().method(method).uri(path).header("host", "shiplap.test");
        Self { address, request, body: Bytes::new() }
    }

    pub fn token(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    pub fn json(self, body: &Value) -> Self {
        self.bytes(body.to_string().as_bytes())
    }

    pub fn bytes(mut self, body: &[u8]) -> Self {
        self.body = Bytes::copy_from_slice(body);
        self
    }

    pub async fn send(self) -> Answer {
        let stream = TcpStream::connect(self.address).await.unwrap();
        self.send_over(stream).await
    }

    pub async fn send_over(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Answer {
        let exchange = async {
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
            let driving = tokio::spawn(connection);
            let request = self.request.body(Full::new(self.body)).unwrap();
            let answer = sender.send_request(request).await.unwrap();
            let (head, body) = answer.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            driving.abort();
            Answer { status: head.status, headers: head.headers, body }
        };
        timeout(SOON, exchange).await.expect("an answer")
    }
}
