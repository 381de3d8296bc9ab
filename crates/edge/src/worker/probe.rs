//! Looking whether, and what, something answers.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::api::{Probe, ProbeError, ProbeKind, ProbeRequest};

/// Ports whose servers are not HTTP, and log or block strangers that try it: FTP, SSH, SMTP, DNS,
/// POP3, IMAP, LDAP, MQTT, MS SQL, Oracle, NFS, ZooKeeper, MySQL, PostgreSQL, AMQP, Redis,
/// Cassandra, Kafka, memcached, MongoDB.
const NOT_HTTP: [u16; 28] = [
    21, 22, 25, 53, 110, 143, 389, 465, 587, 636, 993, 995, 1433, 1521, 1883, 2049, 2181, 3306,
    5432, 5671, 5672, 6379, 8883, 9042, 9092, 11211, 27017, 27018,
];
/// A server that speaks first does so within this time, as a rule.
const SPEAKS_FIRST: Duration = Duration::from_millis(100);
/// A server of HTTP/2 sends its settings within this time of the client's, as a rule.
const SETTINGS_TIME: Duration = Duration::from_millis(500);
/// `HTTP/1.1 200`.
const STATUS_BYTES: usize = 12;

/// What was found before the time was over.
#[derive(Default)]
struct Seen {
    connected: bool,
    http_status: Option<u16>,
    http2: bool,
}

pub(super) async fn probe(request: &ProbeRequest) -> Probe {
    let began = Instant::now();
    let mut seen = Seen::default();
    let looking = look(request, &mut seen);
    let timeout = Duration::from_millis(request.timeout_ms);
    let error = match tokio::time::timeout(timeout, looking).await {
        Ok(result) => result.err(),
        Err(_) => Some(ProbeError::Timeout),
    };
    Probe {
        connected: seen.connected,
        http_status: seen.http_status,
        is_http: seen.http_status.is_some(),
        is_http2: seen.http2,
        error,
        duration_ms: began.elapsed().as_millis() as u64,
    }
}

async fn look(request: &ProbeRequest, seen: &mut Seen) -> Result<(), ProbeError> {
    let address = SocketAddr::new(request.address, request.port);
    let mut stream = TcpStream::connect(address).await.map_err(|error| kind(&error))?;
    seen.connected = true;
    match request.kind {
        ProbeKind::Tcp => return Ok(()),
        ProbeKind::Auto if NOT_HTTP.contains(&request.port) => return Ok(()),
        ProbeKind::Auto => {
            // Whatever comes before we have asked for anything is not HTTP.
            let spoken = tokio::time::timeout(SPEAKS_FIRST, stream.peek(&mut [0])).await;
            match spoken {
                Ok(Ok(0)) => return Err(ProbeError::Closed),
                // But some servers of HTTP/2 do not wait for their clients either.
                Ok(Ok(_)) => {
                    seen.http2 = is_settings(&mut stream).await;
                    return Ok(());
                }
                Ok(Err(error)) => return Err(kind(&error)),
                Err(_) => {}
            }
        }
        ProbeKind::H2c => {
            seen.http2 = asks_for_http2(&mut stream).await?;
            return if seen.http2 { Ok(()) } else { Err(ProbeError::NotHttp) };
        }
        ProbeKind::Http => {}
    }
    let answer = get(&mut stream, address, &request.path).await;
    let start = match (answer, request.kind) {
        (Ok(start), _) => start,
        // It was reached, and cut the connection when it saw our request.
        (Err(ProbeError::Closed | ProbeError::Reset), ProbeKind::Auto) => Vec::new(),
        (Err(error), _) => return Err(error),
    };
    seen.http_status = status(&start);
    match (seen.http_status, request.kind) {
        (None, ProbeKind::Http) => Err(ProbeError::NotHttp),
        (None, _) => {
            // Servers of gRPC speak HTTP/2 only, and cut whoever does not.
            let mut stream = TcpStream::connect(address).await.map_err(|error| kind(&error))?;
            seen.http2 = matches!(asks_for_http2(&mut stream).await, Ok(true));
            Ok(())
        }
        (Some(_), _) => Ok(()),
    }
}

/// Begins HTTP/2 (RFC 9113, 3.4); whether the server does so too.
async fn asks_for_http2(stream: &mut TcpStream) -> Result<bool, ProbeError> {
    const BEGIN: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    stream.write_all(BEGIN).await.map_err(|error| kind(&error))?;
    Ok(is_settings(stream).await)
}

/// Whether what comes begins with a SETTINGS frame, as every HTTP/2 connection does: no more than
/// 16 KiB long, of type 4, not an acknowledgement, for the connection.
async fn is_settings(stream: &mut TcpStream) -> bool {
    let mut head = [0; 9];
    let reading = tokio::time::timeout(SETTINGS_TIME, stream.read_exact(&mut head)).await;
    matches!(reading, Ok(Ok(_)))
        && head[0] == 0
        && head[1] < 0x40
        && head[3..] == [4, 0, 0, 0, 0, 0]
}

/// Asks; answers the first bytes that came.
async fn get(stream: &mut TcpStream, host: SocketAddr, path: &str) -> Result<Vec<u8>, ProbeError> {
    let plain = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic());
    let path = if plain { path } else { "/" };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: shiplap-probe\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(|error| kind(&error))?;
    let mut start = Vec::with_capacity(STATUS_BYTES);
    while start.len() < STATUS_BYTES && b"HTTP/".starts_with(&start[..start.len().min(5)]) {
        let mut part = [0; STATUS_BYTES];
        match stream.read(&mut part[..STATUS_BYTES - start.len()]).await {
            Ok(0) if start.is_empty() => return Err(ProbeError::Closed),
            Ok(0) => break,
            Ok(length) => start.extend(&part[..length]),
            Err(error) => return Err(kind(&error)),
        }
    }
    Ok(start)
}

fn status(start: &[u8]) -> Option<u16> {
    let start = std::str::from_utf8(start).ok()?;
    let (version, status) = start.split_once(' ')?;
    version.starts_with("HTTP/").then(|| status.trim().parse().ok()).flatten()
}

fn kind(error: &io::Error) -> ProbeError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ProbeError::Refused,
        io::ErrorKind::TimedOut => ProbeError::Timeout,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            ProbeError::Unreachable
        }
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => ProbeError::Reset,
        _ => ProbeError::Local,
    }
}
