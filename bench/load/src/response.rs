//! Reading one HTTP/1.1 response as its bytes arrive.

/// The longest response head or chunk line accepted.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// What is known of a response once its head has arrived.
#[derive(Debug)]
pub(crate) struct Head {
    pub status: u16,
    pub tag: Option<String>,
    /// Whether the server leaves the connection open.
    pub keep_alive: bool,
}

/// Whether a response is complete.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    More,
    Complete,
}

/// The bytes are not an HTTP/1.1 response.
#[derive(Debug)]
pub(crate) struct Malformed;

/// Reads one response; body bytes are dropped unless asked for.
pub(crate) struct ResponseReader<'a> {
    head_request: bool,
    tag: Option<&'a str>,
    pub head: Option<Head>,
    rest: Rest,
    body: Option<Vec<u8>>,
}

/// What is still to come after the head.
#[derive(Debug)]
enum Rest {
    Bytes(usize),
    ChunkSize,
    /// The bytes of a chunk and its line end.
    Chunk {
        data: usize,
        line_end: usize,
    },
    Trailer,
    UntilClosed,
}

impl<'a> ResponseReader<'a> {
    pub fn new(method: &str, tag: Option<&'a str>) -> Self {
        let head_request = method == "HEAD";
        ResponseReader { head_request, tag, head: None, rest: Rest::Bytes(0), body: None }
    }

    /// Keeps the body, which [`ResponseReader::take_body`] gives.
    pub fn keep_body(mut self) -> Self {
        self.body = Some(Vec::new());
        self
    }

    pub fn take_body(&mut self) -> Vec<u8> {
        self.body.take().unwrap_or_default()
    }

    /// Whether the end of the connection is the end of the response.
    pub fn ends_with_connection(&self) -> bool {
        self.head.is_some() && matches!(self.rest, Rest::UntilClosed)
    }

    /// Takes what it understands from the front of `buffer`.
    pub fn advance(&mut self, buffer: &mut Vec<u8>) -> Result<Progress, Malformed> {
        while self.head.is_none() {
            let Some(end) = find(buffer, b"\r\n\r\n") else {
                return within_limit(buffer);
            };
            let text: Vec<u8> = buffer.drain(..end + 4).collect();
            self.read_head(&String::from_utf8_lossy(&text[..end]))?;
        }
        self.read_body(buffer)
    }

    fn read_head(&mut self, text: &str) -> Result<(), Malformed> {
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default();
        let mut words = first.split(' ');
        let version = words.next().unwrap_or_default();
        let status = words.next().and_then(|word| word.parse::<u16>().ok());
        let Some(status) = status.filter(|_| version.starts_with("HTTP/1.")) else {
            return Err(Malformed);
        };
        let (mut length, mut chunked, mut close) = (None, false, version != "HTTP/1.1");
        let mut tag = None;
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(value.parse().map_err(|_| Malformed)?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                chunked = value.to_ascii_lowercase().contains("chunked");
            } else if name.eq_ignore_ascii_case("connection") {
                close |= value.to_ascii_lowercase().contains("close");
            }
            if self.tag.is_some_and(|wanted| name.eq_ignore_ascii_case(wanted)) {
                tag = Some(value.to_owned());
            }
        }
        // An interim response (100, 103) precedes the real one.
        if (100..200).contains(&status) && status != 101 {
            return Ok(());
        }
        self.rest = match length {
            _ if self.head_request || status == 204 || status == 304 => Rest::Bytes(0),
            _ if chunked => Rest::ChunkSize,
            Some(bytes) => Rest::Bytes(bytes),
            None => Rest::UntilClosed,
        };
        let keep_alive = !close && !matches!(self.rest, Rest::UntilClosed);
        self.head = Some(Head { status, tag, keep_alive });
        Ok(())
    }

    fn read_body(&mut self, buffer: &mut Vec<u8>) -> Result<Progress, Malformed> {
        loop {
            match &mut self.rest {
                Rest::Bytes(left) => {
                    *left -= take(buffer, *left, &mut self.body);
                    return Ok(if *left == 0 { Progress::Complete } else { Progress::More });
                }
                Rest::UntilClosed => {
                    take(buffer, usize::MAX, &mut self.body);
                    return Ok(Progress::More);
                }
                Rest::ChunkSize => {
                    let Some(end) = find(buffer, b"\r\n") else { return within_limit(buffer) };
                    let line: Vec<u8> = buffer.drain(..end + 2).collect();
                    let text = String::from_utf8_lossy(&line[..end]);
                    let size = text.split(';').next().unwrap_or_default().trim();
                    let data = usize::from_str_radix(size, 16).map_err(|_| Malformed)?;
                    self.rest = match data {
                        0 => Rest::Trailer,
                        data => Rest::Chunk { data, line_end: 2 },
                    };
                }
                Rest::Chunk { data, line_end } => {
                    *data -= take(buffer, *data, &mut self.body);
                    if *data == 0 {
                        *line_end -= take(buffer, *line_end, &mut None);
                    }
                    if *data > 0 || *line_end > 0 {
                        return Ok(Progress::More);
                    }
                    self.rest = Rest::ChunkSize;
                }
                Rest::Trailer => {
                    let Some(end) = find(buffer, b"\r\n") else { return within_limit(buffer) };
                    buffer.drain(..end + 2);
                    if end == 0 {
                        return Ok(Progress::Complete);
                    }
                }
            }
        }
    }
}

/// Moves up to `count` bytes off the front of `buffer` and says how many.
fn take(buffer: &mut Vec<u8>, count: usize, into: &mut Option<Vec<u8>>) -> usize {
    let count = count.min(buffer.len());
    let bytes = buffer.drain(..count);
    if let Some(body) = into {
        body.extend(bytes);
    }
    count
}

fn within_limit(buffer: &[u8]) -> Result<Progress, Malformed> {
    if buffer.len() > MAX_LINE_BYTES { Err(Malformed) } else { Ok(Progress::More) }
}

fn find(buffer: &[u8], pattern: &[u8]) -> Option<usize> {
    buffer.windows(pattern.len()).position(|window| window == pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds a response in pieces of `step` bytes: status, tag, keep-alive, body and what is left.
    fn read(text: &str, step: usize) -> Option<(u16, Option<String>, bool, String, usize)> {
        let mut reader = ResponseReader::new("GET", Some("x-version")).keep_body();
        let mut buffer = Vec::new();
        for piece in text.as_bytes().chunks(step) {
            buffer.extend_from_slice(piece);
            if reader.advance(&mut buffer).unwrap() == Progress::Complete {
                let body = String::from_utf8(reader.take_body()).unwrap();
                let head = reader.head.unwrap();
                return Some((head.status, head.tag, head.keep_alive, body, buffer.len()));
            }
        }
        None
    }

    #[test]
    fn a_response_is_complete_however_its_bytes_arrive() {
        let plain = "HTTP/1.1 200 OK\r\nX-Version: v1\r\nContent-Length: 5\r\n\r\nhello";
        let chunked = "HTTP/1.1 503 No\r\ntransfer-encoding: chunked\r\nConnection: close\r\n\r\n\
                       3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nTrailer: t\r\n\r\n";
        let interim = format!("HTTP/1.1 100 Continue\r\n\r\n{plain}");
        for step in [1, 2, 3, 7, 4096] {
            let v1 = Some("v1".to_owned());
            assert_eq!(read(plain, step), Some((200, v1.clone(), true, "hello".into(), 0)));
            assert_eq!(read(chunked, step), Some((503, None, false, "hello".into(), 0)));
            assert_eq!(read(&interim, step), Some((200, v1, true, "hello".into(), 0)));
        }
    }

    #[test]
    fn a_cut_response_is_not_complete() {
        assert_eq!(read("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", 4096), None);
        assert_eq!(read("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", 1), None);
        assert_eq!(read("HTTP/1.1 200 OK\r\nContent-Le", 4096), None);
    }

    #[test]
    fn bytes_that_are_not_http_are_malformed() {
        let mut reader = ResponseReader::new("GET", None);
        assert!(reader.advance(&mut b"SSH-2.0-x\r\n\r\n\r\n".to_vec()).is_err());
    }
}
