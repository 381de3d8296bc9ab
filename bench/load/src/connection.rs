//! One connection, one request at a time.

use crate::config::Url;
use crate::report::DropKind;
use crate::response::{Progress, ResponseReader};
use std::io::{Error, ErrorKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const READ_BUFFER_BYTES: usize = 16 * 1024;

/// A complete response.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status code.
    pub status: u16,
    /// The value of the header that was asked for.
    pub tag: Option<String>,
    /// Its body, where one was asked for.
    pub body: Vec<u8>,
}

pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    age: Age,
    reusable: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Age {
    New,
    Used,
}

impl Connection {
    pub async fn open(url: &Url) -> Result<Connection, DropKind> {
        let addresses = tokio::net::lookup_host((url.host.as_str(), url.port))
            .await
            .map_err(|_| DropKind::Dns)?;
        let mut kind = DropKind::Dns;
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    // Not fatal: it costs latency, not answers.
                    let _ = stream.set_nodelay(true);
                    let buffer = Vec::with_capacity(READ_BUFFER_BYTES);
                    return Ok(Connection { stream, buffer, age: Age::New, reusable: false });
                }
                Err(error) => kind = connect_failure(&error),
            }
        }
        Err(kind)
    }

    /// Whether another request may be sent: the server left it open and has not closed it since.
    pub fn is_reusable(&self) -> bool {
        let closed_or_talking = || match self.stream.try_read(&mut [0]) {
            Ok(_) => true,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        };
        self.reusable && self.buffer.is_empty() && !closed_or_talking()
    }

    /// Sends one request and reads its whole response.
    pub async fn exchange(
        &mut self,
        wire: &[u8],
        mut reader: ResponseReader<'_>,
    ) -> Result<Answer, DropKind> {
        self.reusable = false;
        let written = self.stream.write_all(wire).await;
        // A server may answer before it has read the body, then close: look for the answer even
        // if sending failed.
        self.read(&mut reader).await?;
        let body = reader.take_body();
        let head = reader.head.expect("a complete response has a head");
        self.reusable = head.keep_alive && written.is_ok();
        self.age = Age::Used;
        Ok(Answer { status: head.status, tag: head.tag, body })
    }

    async fn read(&mut self, reader: &mut ResponseReader<'_>) -> Result<(), DropKind> {
        let mut silent = true;
        loop {
            let end = match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) if reader.ends_with_connection() => return Ok(()),
                Ok(0) => End::Closed,
                Err(_) => End::Reset,
                Ok(_) => {
                    silent = false;
                    match reader.advance(&mut self.buffer).map_err(|_| DropKind::Other)? {
                        Progress::Complete => return Ok(()),
                        Progress::More => continue,
                    }
                }
            };
            return Err(match (silent, self.age, end) {
                (false, _, _) => DropKind::Truncated,
                (true, Age::Used, _) => DropKind::Stale,
                (true, Age::New, End::Closed) => DropKind::Eof,
                (true, Age::New, End::Reset) => DropKind::Reset,
            });
        }
    }
}

enum End {
    Closed,
    Reset,
}

fn connect_failure(error: &Error) -> DropKind {
    match error.kind() {
        ErrorKind::ConnectionRefused => DropKind::Refused,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => DropKind::Unreachable,
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => DropKind::Reset,
        ErrorKind::TimedOut => DropKind::Timeout,
        _ => DropKind::Other,
    }
}
