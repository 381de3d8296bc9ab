//! A small HTTP/1.1 client with a pool of connections.

use crate::http::{invalid, read_chunks, read_exactly, read_head};
use std::io::{ErrorKind, Result};
use std::sync::Mutex;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// For the name and the connection. The engine asks outside for a service that is gone, which can
/// take longer than we are given to stop.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A whole answer.
pub struct Answer {
    pub status: u16,
    pub version: String,
    pub body: Vec<u8>,
    keep_alive: bool,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim().to_owned()
    }
}

/// One GET over a connection of its own.
pub async fn get_once(address: &str, path: &str) -> Result<Answer> {
    Pool::new(address).request("GET", path, &[]).await
}

/// Keeps connections to one service, as most applications do, and resolves its name again for
/// each new one.
pub struct Pool {
    address: String,
    idle: Mutex<Vec<BufReader<TcpStream>>>,
}

impl Pool {
    pub fn new(address: &str) -> Pool {
        Pool { address: address.into(), idle: Mutex::new(Vec::new()) }
    }

    /// Sends a request; one that may be repeated is tried again if a kept connection was closed.
    pub async fn request(&self, method: &str, path: &str, body: &[u8]) -> Result<Answer> {
        while let Some(mut connection) = self.take() {
            // Whoever was closed while idle is readable; anyone else would have nothing to read.
            match connection.get_ref().try_read(&mut [0]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Ok(_) | Err(_) => continue,
            }
            let result = exchange(&mut connection, &self.address, method, path, body).await;
            if result.is_ok() || method != "GET" {
                return self.keep(connection, result);
            }
        }
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(&self.address));
        let stream = connecting.await.map_err(|_| ErrorKind::TimedOut)??;
        stream.set_nodelay(true)?;
        let mut connection = BufReader::new(stream);
        let result = exchange(&mut connection, &self.address, method, path, body).await;
        self.keep(connection, result)
    }

    fn take(&self) -> Option<BufReader<TcpStream>> {
        self.idle.lock().expect("no holder of the pool panics").pop()
    }

    fn keep(&self, connection: BufReader<TcpStream>, result: Result<Answer>) -> Result<Answer> {
        if result.as_ref().is_ok_and(|answer| answer.keep_alive) {
            self.idle.lock().expect("no holder of the pool panics").push(connection);
        }
        result
    }
}

async fn exchange(
    connection: &mut BufReader<TcpStream>,
    address: &str,
    method: &str,
    path: &str,
    body: &[u8],
) -> Result<Answer> {
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    connection.get_mut().write_all(&bytes).await?;

    let head = read_head(connection).await?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let status = status.ok_or_else(|| invalid("not a status line"))?;
    let mut answer = Answer { status, version: String::new(), body: Vec::new(), keep_alive: true };
    let (mut length, mut chunked) = (None, false);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = Some(value.parse().map_err(|_| invalid("a length"))?),
            "transfer-encoding" => chunked = true,
            "connection" => answer.keep_alive = !value.eq_ignore_ascii_case("close"),
            "x-version" => answer.version = value.into(),
            _ => {}
        }
    }
    match length {
        _ if chunked => read_chunks(connection, &mut answer.body).await?,
        Some(length) => read_exactly(connection, &mut answer.body, length).await?,
        None => {
            answer.keep_alive = false;
            connection.read_to_end(&mut answer.body).await?;
        }
    }
    Ok(answer)
}
