//! A small HTTP/1.1 server that finishes what it has begun.

use crate::settings::Settings;
use crate::shutdown::{Shutdown, Stopping};
use std::future::Future;
use std::io::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const MAX_HEAD_BYTES: u64 = 32 * 1024;
const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;
/// A second less than the stop_grace_period of the demo's Compose file.
const FINISH_WITHIN: Duration = Duration::from_secs(9);
const EVENT_INTERVAL: Duration = Duration::from_millis(500);

/// A request with its whole body.
#[derive(Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
    pub body: Vec<u8>,
}

/// What to answer.
pub enum Reply {
    Full {
        status: u16,
        content_type: &'static str,
        body: Vec<u8>,
    },
    /// Server-sent events until the client or the server stops.
    Events,
}

impl Reply {
    pub fn json(status: u16, value: serde_json::Value) -> Reply {
        let body = format!("{value}\n").into_bytes();
        Reply::Full { status, content_type: "application/json", body }
    }

    pub fn not_found(request: &Request) -> Reply {
        let what = format!("no {} {}", request.method, request.path);
        Reply::json(404, serde_json::json!({ "error": what }))
    }
}

/// Answers requests; several at the same time.
pub trait Handler: Send + Sync + 'static {
    fn handle(&self, request: Request) -> impl Future<Output = Reply> + Send;
}

/// Serves until it is time to stop, then ends what has begun and answers what has arrived.
pub async fn serve<H: Handler>(
    listener: TcpListener,
    handler: Arc<H>,
    settings: Settings,
    shutdown: &Shutdown,
) {
    let version: Arc<str> = settings.version.into();
    let mut connections = JoinSet::new();
    let mut accept = |stream: TcpStream| {
        let (handler, version) = (handler.clone(), version.clone());
        let stopping = shutdown.watcher();
        connections.spawn(async move {
            // A client that went away is none of our business.
            let _ = connection(stream, &*handler, &version, stopping).await;
        });
    };
    loop {
        tokio::select! {
            () = shutdown.requested() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => accept(stream),
                // No file descriptors left: some come back when connections end.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }
    // Whoever has connected already would be reset when the listener goes.
    let arrived = Duration::from_millis(1);
    while let Ok(Ok((stream, _))) = tokio::time::timeout(arrived, listener.accept()).await {
        accept(stream);
    }
    drop(listener);
    let finish = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(FINISH_WITHIN, finish).await.is_err() {
        eprintln!("http: requests were cut off after {FINISH_WITHIN:?}");
    }
}

async fn connection<H: Handler>(
    stream: TcpStream,
    handler: &H,
    version: &str,
    mut stopping: Stopping,
) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    loop {
        // What has been sent is read even when stopping: `biased` looks for it first.
        tokio::select! {
            biased;
            begun = stream.fill_buf() => if begun?.is_empty() { return Ok(()) },
            () = stopping.requested() => return Ok(()),
        }
        let (request, keep_alive) = match read_request(&mut stream).await {
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                let reply = Reply::json(400, serde_json::json!({ "error": error.to_string() }));
                return write_reply(&mut stream, reply, version, "close", &mut stopping).await;
            }
            result => result?,
        };
        let reply = handler.handle(request).await;
        let keep_alive = keep_alive && !stopping.is_requested();
        let connection = if keep_alive { "keep-alive" } else { "close" };
        write_reply(&mut stream, reply, version, connection, &mut stopping).await?;
        if !keep_alive {
            return Ok(());
        }
    }
}

/// The next request, and whether the client keeps the connection.
async fn read_request(stream: &mut BufReader<TcpStream>) -> Result<(Request, bool)> {
    let head = read_head(stream).await?;
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next())
    else {
        return Err(invalid("not a request line"));
    };
    let (mut length, mut chunked, mut keep_alive) = (0, false, version == "HTTP/1.1");
    let mut expects_continue = false;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim().to_ascii_lowercase();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().map_err(|_| invalid("content-length"))?,
            "transfer-encoding" => chunked = value.contains("chunked"),
            "connection" => keep_alive = value.contains("keep-alive") || !value.contains("close"),
            "expect" => expects_continue = value.contains("100-continue"),
            _ => {}
        }
    }
    if expects_continue {
        stream.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    let mut body = Vec::new();
    if chunked {
        read_chunks(stream, &mut body).await?;
    } else {
        read_exactly(stream, &mut body, length).await?;
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok((
        Request { method: method.into(), path: path.into(), query: query.into(), body },
        keep_alive,
    ))
}

/// The lines up to the empty one.
pub async fn read_head(stream: &mut BufReader<TcpStream>) -> Result<String> {
    let mut head = Vec::new();
    let mut limited = stream.take(MAX_HEAD_BYTES);
    loop {
        let before = head.len();
        limited.read_until(b'\n', &mut head).await?;
        if !head.ends_with(b"\n") {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if matches!(&head[before..], b"\r\n" | b"\n") {
            return String::from_utf8(head).map_err(|_| invalid("not UTF-8"));
        }
    }
}

pub async fn read_chunks(stream: &mut BufReader<TcpStream>, body: &mut Vec<u8>) -> Result<()> {
    loop {
        let mut line = String::new();
        (&mut *stream).take(MAX_HEAD_BYTES).read_line(&mut line).await?;
        let size = line.trim_end().split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size, 16).map_err(|_| invalid("not a chunk size"))?;
        if size == 0 {
            // Trailers end with an empty line, as a head does.
            return read_head(stream).await.map(drop);
        }
        read_exactly(stream, body, size).await?;
        stream.read_exact(&mut [0; 2]).await?;
    }
}

pub async fn read_exactly(
    stream: &mut BufReader<TcpStream>,
    body: &mut Vec<u8>,
    length: usize,
) -> Result<()> {
    let before = body.len();
    if length > MAX_BODY_BYTES - before.min(MAX_BODY_BYTES) {
        return Err(invalid("the body is too large"));
    }
    stream.take(length as u64).read_to_end(body).await?;
    if body.len() - before < length { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

pub fn invalid(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what.to_owned())
}

async fn write_reply(
    stream: &mut BufReader<TcpStream>,
    reply: Reply,
    version: &str,
    connection: &str,
    stopping: &mut Stopping,
) -> Result<()> {
    let stream = stream.get_mut();
    let (status, content_type, length) = match &reply {
        Reply::Full { status, content_type, body } => {
            (*status, *content_type, format!("Content-Length: {}", body.len()))
        }
        Reply::Events => (200, "text/event-stream", "Transfer-Encoding: chunked".into()),
    };
    let mut bytes = format!(
        "HTTP/1.1 {status} {}\r\nX-Version: {version}\r\nContent-Type: {content_type}\r\n\
         {length}\r\nConnection: {connection}\r\n\r\n",
        reason(status)
    )
    .into_bytes();
    match reply {
        Reply::Full { body, .. } => {
            bytes.extend(body);
            stream.write_all(&bytes).await
        }
        Reply::Events => {
            stream.write_all(&bytes).await?;
            write_events(stream, version, stopping).await
        }
    }
}

async fn write_events(
    stream: &mut TcpStream,
    version: &str,
    stopping: &mut Stopping,
) -> Result<()> {
    let mut interval = tokio::time::interval(EVENT_INTERVAL);
    for number in 0u64.. {
        tokio::select! {
            () = stopping.requested() => break,
            _ = interval.tick() => {}
        }
        let event = format!("id: {number}\ndata: {version}\n\n");
        stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await?;
    }
    // The last chunk tells the client that the stream has ended and was not cut.
    stream.write_all(b"0\r\n\r\n").await
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        400 => "Bad Request",
        404 => "Not Found",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "Status",
    }
}
