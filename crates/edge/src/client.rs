//! The admin client.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

use crate::api::{
    Drain, DrainRequest, Failure, Ports, PortsRequest, Probe, ProbeKind, ProbeRequest, Status,
    StoredCertificate, Unbindable,
};
use crate::table::{Table, TableError};

/// For one call: sockets are bound and files are synced meanwhile, on a loaded machine.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// No answer is larger: a table with a thousand pools is below 1 MiB.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// So often [`Client::update_table`] starts again when others are changing the table too.
const MAX_CONFLICTS: u32 = 20;

/// Talks to one edge over its Unix socket. Cheap to clone; every call makes its own connection.
#[derive(Debug, Clone)]
pub struct Client {
    socket: Arc<PathBuf>,
    call_timeout: Duration,
    way: Option<Arc<dyn Way>>,
}

/// What leads to a socket of another machine. Whoever forwards takes every connection here, also
/// where nobody takes it over there, and knows why.
pub trait Way: std::fmt::Debug + Send + Sync {
    /// Why nobody listens at the socket here.
    fn why_down(&self) -> Option<io::Error>;
    /// Why a connection ended before anything had come over it, where nobody took it over there.
    fn why_refused(&self) -> Option<io::Error>;
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No edge answers on the socket. Trying again is safe.
    #[error("the edge at {} cannot be reached", socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No answer in time. A table may or may not be in force: read it before trying again.
    #[error("the edge did not answer within {} s", after.as_secs())]
    Timeout {
        /// How long it was given.
        after: Duration,
    },
    /// The connection broke. As with `Timeout`, read the table before trying again.
    #[error("the connection to the edge broke")]
    Broken(#[source] hyper::Error),
    /// Somebody else has changed the table since it was read. Nothing was changed.
    #[error("the edge's table has changed meanwhile: it is at generation {current}")]
    Conflict {
        /// The generation in force.
        current: u64,
    },
    /// A deployer with a newer lease has changed what the table's owner has. Nothing was changed.
    #[error("the edge follows a newer deployer: {message}")]
    Overtaken {
        /// The edge's words.
        message: String,
        /// The generation of that deployer's lease.
        lease: u64,
    },
    /// Listeners of the table could not be opened. Nothing was changed.
    #[error("the edge cannot listen on {}", places(.0))]
    Unbindable(Vec<Unbindable>),
    /// The edge said no for another reason. Nothing was changed.
    #[error("the edge refused: {message} (status {status})")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The edge's words.
        message: String,
    },
    /// The answer does not make sense, or is of a later version.
    #[error("the edge's answer cannot be read: {0}")]
    Malformed(String),
}

fn places(unbindable: &[Unbindable]) -> String {
    let places: Vec<String> =
        unbindable.iter().map(|one| format!("{}: {}", one.listener.place(), one.reason)).collect();
    places.join(", ")
}

impl Client {
    /// A client for the edge whose admin socket is at this path. Does not connect yet.
    pub fn new(socket: impl Into<PathBuf>) -> Client {
        Client { socket: Arc::new(socket.into()), call_timeout: CALL_TIMEOUT, way: None }
    }

    /// The same with another limit on a call; one that waits on purpose (probe, drain) may take
    /// as much longer as it waits.
    #[must_use]
    pub fn with_call_timeout(self, call_timeout: Duration) -> Client {
        Client { call_timeout, ..self }
    }

    /// The same, where the socket leads to one of another machine.
    #[must_use]
    pub fn over(self, way: Arc<dyn Way>) -> Client {
        Client { way: Some(way), ..self }
    }

    /// The path of the socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// How the edge is.
    pub async fn status(&self) -> Result<Status, ClientError> {
        let answer =
            self.call(Method::GET, "/v1/status", None, Bytes::new(), self.call_timeout).await?;
        read(&answer)
    }

    /// The table in force.
    pub async fn table(&self) -> Result<Table, ClientError> {
        let answer =
            self.call(Method::GET, "/v1/table", None, Bytes::new(), self.call_timeout).await?;
        read_table(&answer)
    }

    /// Replaces the table, if it still is at `table.generation`. Answers the table as accepted:
    /// with the next generation, and with the ports that were taken for listeners with port 0.
    ///
    /// When this returns, the new sockets listen, the table is on disk, and every request from
    /// now on is routed by it.
    ///
    /// # Errors
    /// `Conflict` and `Unbindable` change nothing.
    pub async fn put_table(&self, table: &Table) -> Result<Table, ClientError> {
        let body = Bytes::from(table.to_json());
        let expected = Some(table.generation);
        let answer = self.call(Method::PUT, "/v1/table", expected, body, self.call_timeout).await?;
        read_table(&answer)
    }

    /// Reads the table, lets `change` alter it, and puts it back; again from the start if somebody
    /// else was faster. `change` may be called several times, each time on a fresh table.
    pub async fn update_table(
        &self,
        mut change: impl FnMut(&mut Table),
    ) -> Result<Table, ClientError> {
        let mut conflicts = 0;
        loop {
            let mut table = self.table().await?;
            change(&mut table);
            match self.put_table(&table).await {
                Err(ClientError::Conflict { .. }) if conflicts < MAX_CONFLICTS => conflicts += 1,
                answer => return answer,
            }
        }
    }

    /// Gives the edge a certificate: its chain and its key, as PEM. It is shown to nobody until a
    /// table names it, for which there is an hour.
    ///
    /// # Errors
    /// `Refused`, if the two do not fit together or cannot be read.
    pub async fn put_certificate(&self, pem: Bytes) -> Result<StoredCertificate, ClientError> {
        let path = "/v1/certificates";
        read(&self.call(Method::POST, path, None, pem, self.call_timeout).await?)
    }

    /// Looks from the edge whether something answers there; see [`ProbeKind`].
    pub async fn probe(&self, probe: &ProbeRequest) -> Result<Probe, ClientError> {
        let timeout = Duration::from_millis(probe.timeout_ms) + self.call_timeout;
        self.post("/v1/probe", probe, timeout).await
    }

    /// As [`Client::probe`], for a plain TCP connection.
    pub async fn probe_tcp(
        &self,
        address: std::net::SocketAddr,
        timeout: Duration,
    ) -> Result<Probe, ClientError> {
        self.probe(&ProbeRequest {
            address: address.ip(),
            port: address.port(),
            kind: ProbeKind::Tcp,
            path: "/".to_owned(),
            timeout_ms: timeout.as_millis() as u64,
        })
        .await
    }

    /// Waits until these replicas of a pool have no request in flight, or the timeout passes.
    pub async fn drain(
        &self,
        pool: &str,
        replicas: &[String],
        timeout: Duration,
    ) -> Result<Drain, ClientError> {
        self.drain_with(pool, replicas, false, timeout).await
    }

    /// The same for replicas that are not to leave: their streams go on and are not waited for.
    pub async fn settle(
        &self,
        pool: &str,
        replicas: &[String],
        timeout: Duration,
    ) -> Result<Drain, ClientError> {
        self.drain_with(pool, replicas, true, timeout).await
    }

    async fn drain_with(
        &self,
        pool: &str,
        replicas: &[String],
        streams_stay: bool,
        timeout: Duration,
    ) -> Result<Drain, ClientError> {
        let request = DrainRequest {
            pool: pool.to_owned(),
            replicas: replicas.to_vec(),
            streams_stay,
            timeout_ms: timeout.as_millis() as u64,
        };
        self.post("/v1/drain", &request, timeout + self.call_timeout).await
    }

    /// The TCP ports that listen inside a container's network namespace.
    pub async fn ports(&self, container: &str) -> Result<Ports, ClientError> {
        let request = PortsRequest { container: container.to_owned() };
        self.post("/v1/ports", &request, self.call_timeout).await
    }

    async fn post<A: Serialize, B: for<'a> Deserialize<'a>>(
        &self,
        path: &str,
        request: &A,
        timeout: Duration,
    ) -> Result<B, ClientError> {
        let body = serde_json::to_vec(request).expect("requests have only text keys");
        read(&self.call(Method::POST, path, None, body.into(), timeout).await?)
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        if_match: Option<u64>,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, ClientError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "edge")
            .header("connection", "close");
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        if let Some(generation) = if_match {
            request = request.header("if-match", generation);
        }
        let request = request.body(Full::new(body)).expect("paths and headers are plain");
        match tokio::time::timeout(timeout, self.exchange(request)).await {
            Err(_) => Err(ClientError::Timeout { after: timeout }),
            Ok(Err(error)) => Err(error),
            Ok(Ok((status, answer))) if status.is_success() => Ok(answer),
            Ok(Ok((status, answer))) => Err(failure(status, &answer)),
        }
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let unreachable =
            |source| ClientError::Unreachable { socket: self.socket.to_path_buf(), source };
        let way = self.way.as_ref();
        let stream = UnixStream::connect(&*self.socket)
            .await
            .map_err(|error| unreachable(way.and_then(|way| way.why_down()).unwrap_or(error)))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(ClientError::Broken)?;
        let connection = tokio::spawn(connection);
        let answer = async {
            let answer = sender.send_request(request).await.map_err(|error| {
                let refused = way.and_then(|way| way.why_refused());
                refused.map_or(ClientError::Broken(error), unreachable)
            })?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
            let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
                Ok(broken) => ClientError::Broken(*broken),
                Err(other) => ClientError::Malformed(other.to_string()),
            })?;
            Ok((status, body.to_bytes()))
        }
        .await;
        connection.abort();
        answer
    }
}

fn read<T: for<'a> Deserialize<'a>>(answer: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(answer).map_err(|error| ClientError::Malformed(error.to_string()))
}

fn read_table(answer: &[u8]) -> Result<Table, ClientError> {
    Table::from_json(answer).map_err(|error: TableError| ClientError::Malformed(error.to_string()))
}

fn failure(status: StatusCode, answer: &[u8]) -> ClientError {
    let failure: Failure = match serde_json::from_slice(answer) {
        Ok(failure) => failure,
        Err(_) => {
            let message = String::from_utf8_lossy(answer).into_owned();
            return ClientError::Refused { status: status.as_u16(), message };
        }
    };
    match (status, failure.current) {
        (StatusCode::CONFLICT, Some(current)) => ClientError::Conflict { current },
        (StatusCode::PRECONDITION_FAILED, _) if failure.lease.is_some() => ClientError::Overtaken {
            message: failure.error,
            lease: failure.lease.unwrap_or_default(),
        },
        (StatusCode::UNPROCESSABLE_ENTITY, _) if !failure.unbindable.is_empty() => {
            ClientError::Unbindable(failure.unbindable)
        }
        _ => ClientError::Refused { status: status.as_u16(), message: failure.error },
    }
}
