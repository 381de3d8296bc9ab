//! An edge of two real processes, and upstreams and clients inside the test.

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use shiplap_edge::api::Status;
use shiplap_edge::{Client, Listener, Pool, Protocol, Replica, Table};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What no wait in a test takes, unless something is broken.
pub const LONG: Duration = Duration::from_secs(20);
pub const OWNER: &str = "test/default";
pub const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// A supervisor and its worker.
pub struct Edge {
    pub folder: tempfile::TempDir,
    pub client: Client,
    pub supervisor: Child,
}

impl Drop for Edge {
    fn drop(&mut self) {
        // Its worker sees the channel end, and ends.
        let _ = self.supervisor.kill();
        let _ = self.supervisor.wait();
    }
}

impl Edge {
    pub async fn start() -> Edge {
        Edge::start_in(tempfile::tempdir().unwrap()).await
    }

    pub async fn start_in(folder: tempfile::TempDir) -> Edge {
        let supervisor = spawn_supervisor(&folder.path().join("state"), &socket(&folder));
        let client = Client::new(socket(&folder));
        let edge = Edge { folder, client, supervisor };
        edge.wait(|_| true).await;
        edge
    }

    pub fn state(&self, file: &str) -> PathBuf {
        self.folder.path().join("state").join(file)
    }

    /// Waits until the status is as wanted.
    pub async fn wait(&self, wanted: impl Fn(&Status) -> bool) -> Status {
        let began = Instant::now();
        loop {
            match self.client.status().await {
                Ok(status) if wanted(&status) => return status,
                other => assert!(began.elapsed() < LONG, "still {other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A pool with these replicas behind a listener; answers where it listens.
    pub async fn serve(&self, name: &str, pool: Pool) -> SocketAddr {
        let listener = listener(name, 0);
        let table = self
            .client
            .update_table(|table| {
                table.pools.insert(name.to_owned(), pool.clone());
                table.listeners.push(listener.clone());
            })
            .await
            .unwrap();
        let listener =
            table.listeners.iter().find(|listener| listener.pool.as_deref() == Some(name)).unwrap();
        assert_ne!(listener.port, 0);
        SocketAddr::new(listener.address, listener.port)
    }

    pub async fn change(&self, name: &str, change: impl Fn(&mut Pool)) -> Table {
        self.client.update_table(|table| change(table.pools.get_mut(name).unwrap())).await.unwrap()
    }

    pub async fn switch(&self, name: &str, replicas: Vec<Replica>) -> Table {
        self.change(name, |pool| pool.replicas = replicas.clone()).await
    }
}

pub fn socket(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("edge.sock")
}

pub fn spawn_supervisor(state: &std::path::Path, socket: &std::path::Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_edge-harness"))
        .arg("supervisor")
        .arg(state)
        .arg(socket)
        .spawn()
        .unwrap()
}

pub fn listener(pool: &str, port: u16) -> Listener {
    Listener::new(OWNER, LOCALHOST, port, pool)
}

pub fn pool(protocol: Protocol, replicas: Vec<Replica>) -> Pool {
    Pool { replicas, ..Pool::new(OWNER, "api", protocol) }
}

pub fn http(replicas: Vec<Replica>) -> Pool {
    pool(Protocol::Http, replicas)
}

pub fn replica(id: &str, address: SocketAddr) -> Replica {
    Replica::new(id, address.ip(), address.port())
}

/// An address where nobody listens, for now.
pub fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// What an [`Upstream`] of HTTP/2 takes at once on one connection.
pub const MAX_STREAMS: u32 = 20;

#[derive(Clone, Copy)]
enum Speech {
    Http1,
    Http2,
}

fn executor() -> hyper_util::rt::TokioExecutor {
    hyper_util::rt::TokioExecutor::new()
}

type Reply = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// An HTTP server inside the test.
pub struct Upstream {
    pub address: SocketAddr,
    pub requests: Arc<AtomicU64>,
    pub connections: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Upstream {
    /// Answers everything by this, after reading the request's body.
    pub async fn named(name: &'static str) -> Upstream {
        Upstream::start(move |request| async move {
            let length = request.into_body().collect().await.map(|body| body.to_bytes().len());
            text(&format!("{name} {}", length.unwrap_or(usize::MAX)))
        })
        .await
    }

    pub async fn start<F, R>(handler: F) -> Upstream
    where
        F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        Upstream::start_at("127.0.0.1:0".parse().unwrap(), handler).await
    }

    pub async fn start_at<F, R>(address: SocketAddr, handler: F) -> Upstream
    where
        F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        Upstream::speaking(address, Speech::Http1, handler).await
    }

    /// Speaks HTTP/2 only, from the first byte on.
    pub async fn start_http2<F, R>(handler: F) -> Upstream
    where
        F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        Upstream::speaking("127.0.0.1:0".parse().unwrap(), Speech::Http2, handler).await
    }

    async fn speaking<F, R>(address: SocketAddr, speech: Speech, handler: F) -> Upstream
    where
        F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let handler: Arc<dyn Fn(Request<Incoming>) -> Reply + Send + Sync> =
            Arc::new(move |request| Box::pin(handler(request)));
        let (requests, connections) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (counted, connected) = (requests.clone(), connections.clone());
        let task = tokio::spawn(async move {
            let mut all = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                connected.fetch_add(1, Ordering::SeqCst);
                let (handler, counted) = (handler.clone(), counted.clone());
                let service = service_fn(move |request| {
                    counted.fetch_add(1, Ordering::SeqCst);
                    let reply = handler(request);
                    async move { Ok::<_, Infallible>(reply.await) }
                });
                let io = TokioIo::new(stream);
                match speech {
                    Speech::Http1 => all.spawn(async move {
                        let builder = hyper::server::conn::http1::Builder::new();
                        let _ = builder.serve_connection(io, service).with_upgrades().await;
                    }),
                    Speech::Http2 => all.spawn(async move {
                        let mut builder = hyper::server::conn::http2::Builder::new(executor());
                        builder.max_concurrent_streams(MAX_STREAMS);
                        let _ = builder.serve_connection(io, service).await;
                    }),
                };
            }
        });
        Upstream { address, requests, connections, task }
    }

    pub fn replica(&self, id: &str) -> Replica {
        replica(id, self.address)
    }

    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }
}

pub fn body(content: impl Into<Bytes>) -> Body {
    Full::new(content.into()).map_err(|never| match never {}).boxed_unsync()
}

pub fn text(content: &str) -> Response<Body> {
    Response::new(body(content.to_owned()))
}

/// One client connection.
pub struct Http {
    sender: hyper::client::conn::http1::SendRequest<Body>,
}

impl Http {
    pub async fn connect(address: SocketAddr) -> std::io::Result<Http> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let io = TokioIo::new(stream);
        let (sender, connection) =
            hyper::client::conn::http1::handshake(io).await.map_err(std::io::Error::other)?;
        tokio::spawn(connection.with_upgrades());
        Ok(Http { sender })
    }

    pub async fn send(&mut self, request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        self.sender.ready().await?;
        self.sender.send_request(request).await
    }

    pub async fn get(&mut self, path: &str) -> hyper::Result<(StatusCode, String)> {
        read(self.send(request(Method::GET, path, "")).await?).await
    }

    pub async fn post(&mut self, path: &str, content: &str) -> hyper::Result<(StatusCode, String)> {
        read(self.send(request(Method::POST, path, content)).await?).await
    }
}

/// One client connection that speaks HTTP/2 from its first byte on.
#[derive(Clone)]
pub struct Http2 {
    sender: hyper::client::conn::http2::SendRequest<Body>,
}

impl Http2 {
    pub async fn connect(address: SocketAddr) -> Http2 {
        Http2::over(TcpStream::connect(address).await.unwrap()).await
    }

    pub async fn over<S>(stream: S) -> Http2
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(stream);
        let (sender, connection) =
            hyper::client::conn::http2::handshake(executor(), io).await.unwrap();
        tokio::spawn(connection);
        Http2 { sender }
    }

    pub async fn send(&mut self, request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        self.sender.ready().await?;
        self.sender.send_request(request).await
    }

    pub async fn get(&mut self, path: &str) -> hyper::Result<(StatusCode, String)> {
        read(self.send(request2(Method::GET, path, "")).await?).await
    }
}

/// As HTTP/2 has it: the host is in the target.
pub fn request2(method: Method, path: &str, content: &str) -> Request<Body> {
    let body = if content.is_empty() {
        http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync()
    } else {
        body(content.to_owned())
    };
    let uri = format!("http://shop.example{path}");
    Request::builder().method(method).uri(uri).body(body).unwrap()
}

pub fn request(method: Method, path: &str, content: &str) -> Request<Body> {
    let body = body(content.to_owned());
    Request::builder().method(method).uri(path).header("host", "shop.example").body(body).unwrap()
}

pub async fn read(response: Response<Incoming>) -> hyper::Result<(StatusCode, String)> {
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

pub async fn get(address: SocketAddr, path: &str) -> (StatusCode, String) {
    Http::connect(address).await.unwrap().get(path).await.unwrap()
}

pub async fn post(address: SocketAddr, content: &str) -> (StatusCode, String) {
    Http::connect(address).await.unwrap().post("/", content).await.unwrap()
}

/// Sends bytes, answers all that comes back.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    // A reset, before or after the answer, is an answer too.
    let mut stream = match TcpStream::connect(address).await {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return String::new(),
        connected => connected.unwrap(),
    };
    let mut answer = Vec::new();
    let _ = stream.write_all(bytes).await;
    let _ = tokio::time::timeout(LONG, stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Accepts one connection after the other, reads a request's head, and does this.
pub async fn raw_server<F, R>(serve: F) -> SocketAddr
where
    F: Fn(TcpStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_until(&mut stream, b"\r\n\r\n").await;
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// Reads up to and with these bytes; panics when they do not come.
pub async fn read_until(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    let reading = async {
        while !all.ends_with(end) {
            all.push(stream.read_u8().await.unwrap());
        }
    };
    let read = tokio::time::timeout(LONG, reading).await;
    assert!(read.is_ok(), "only {:?} came", String::from_utf8_lossy(&all));
    all
}

/// Reads to the end, or to a reset.
pub async fn read_rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(LONG, stream.read_to_end(&mut rest)).await.expect("it ends");
    rest
}

/// Waits until something becomes true.
pub async fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_true() {
        assert!(began.elapsed() < LONG, "{what} never happened");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Clients of three kinds that send one request after the other until told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    pub done: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Load {
    pub fn start(address: SocketAddr) -> Load {
        let mut load = Load { stop: Arc::default(), done: Arc::default(), tasks: Vec::new() };
        for number in 0..9 {
            let (stop, done) = (load.stop.clone(), load.done.clone());
            load.tasks.push(tokio::spawn(async move {
                let mut failures = Vec::new();
                let mut kept: Option<Http> = None;
                while !stop.load(Ordering::Relaxed) {
                    let result = one(address, number % 3, &mut kept).await;
                    match result {
                        Ok(()) => _ = done.fetch_add(1, Ordering::SeqCst),
                        Err(failure) => failures.push(failure),
                    }
                }
                failures
            }));
        }
        load
    }

    /// Waits until so many more requests have been answered.
    pub async fn more(&self, count: u64) {
        let goal = self.done.load(Ordering::SeqCst) + count;
        until("enough requests", || self.done.load(Ordering::SeqCst) >= goal).await;
    }

    /// Stops, and answers what failed.
    pub async fn failures(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for task in self.tasks {
            all.extend(task.await.unwrap());
        }
        all
    }
}

/// One request: 0 keeps its connection, 1 makes a new one, 2 keeps it and sends a body.
async fn one(address: SocketAddr, kind: u64, kept: &mut Option<Http>) -> Result<(), String> {
    let mut client = match kept.take().filter(|_| kind != 1) {
        Some(client) => client,
        None => Http::connect(address).await.map_err(|error| format!("connect: {error}"))?,
    };
    let sent = match kind {
        2 => client.send(request(Method::POST, "/", &"x".repeat(2000))).await,
        _ => client.send(request(Method::GET, "/", "")).await,
    };
    let failed = |error: hyper::Error| format!("kind {kind}: {error:?}");
    let answer = sent.map_err(failed)?;
    let close = answer.headers().get("connection").is_some_and(|value| value == "close");
    let (status, text) = read(answer).await.map_err(failed)?;
    if status != StatusCode::OK {
        return Err(format!("kind {kind}: {status} {text}"));
    }
    *kept = (!close).then_some(client);
    Ok(())
}
