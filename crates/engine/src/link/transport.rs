//! Requests over a link.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bollard::BollardRequest;
use bollard::errors::Error;
use http::Uri;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tower_service::Service;

use super::Link;

/// Connects to the engine's socket, wherever a request says that it goes.
#[derive(Debug, Clone)]
struct Connector(Link);

impl Service<Uri> for Connector {
    type Response = TokioIo<UnixStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let link = self.0.clone();
        Box::pin(async move { Ok(TokioIo::new(link.connect().await?)) })
    }
}

/// What carries bollard's requests over the link.
pub(crate) fn transport(link: &Link) -> impl Fn(BollardRequest) -> Answer + Send + Sync + use<> {
    let client = Client::builder(TokioExecutor::new()).build(Connector(link.clone()));
    let client = Arc::new(client);
    let link = link.clone();
    move |request| {
        let (client, link) = (Arc::clone(&client), link.clone());
        Box::pin(async move {
            let answer = client.request(request).await;
            answer.map_err(|error| match link.why_refused(&link.address().socket) {
                Some(why) if !error.is_connect() => Error::IOError { err: why },
                Some(_) | None => error.into(),
            })
        })
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Incoming>, Error>> + Send>>;
