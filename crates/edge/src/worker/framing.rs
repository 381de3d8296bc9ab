//! How a client's HTTP/1 bytes are framed, judged before anything else reads them.
//!
//! Two servers that read one message in two ways are what request smuggling is made of. So every
//! byte passes this reader first, which knows one way only, that of RFC 9112 without its
//! leniencies: what it refuses, hyper never sees, and what hyper writes to a replica it writes anew.

use super::refusal::Refusal;

/// Limits of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeadLimits {
    /// Of the head, or of the trailers: bytes.
    pub bytes: usize,
    /// Of the head, or of the trailers: lines.
    pub fields: usize,
}

/// A request line, and with it the target, is no longer: what hyper can hold, and then some.
const MAX_REQUEST_LINE: usize = 32 << 10;
/// Empty lines that old clients send after a body.
const MAX_EMPTY_LINES: u8 = 2;
/// Sizes of more digits do not fit into what a length is counted in.
const MAX_CHUNK_DIGITS: usize = 15;
/// Of one chunk. Nobody uses them, and they are not passed on.
const MAX_CHUNK_EXTENSION: usize = 256;

/// Where in a connection the next byte belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Before a message.
    Between,
    /// Within a head.
    Head,
    /// Within a body.
    Body,
}

/// What came of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fed {
    /// So many may be read by others.
    pub good: usize,
    /// Why not the rest.
    pub refused: Option<Refusal>,
}

/// Reads one connection from its first byte.
pub(super) struct Framing {
    limits: HeadLimits,
    state: State,
    /// The start of a line whose end has not come yet.
    line: Vec<u8>,
    head: Head,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    RequestLine { empty: u8 },
    Field,
    Fixed { left: u64 },
    ChunkSize,
    Chunk { left: u64 },
    ChunkEnd { seen_cr: bool },
    Trailer,
}

/// What a head has said so far.
#[derive(Default)]
struct Head {
    bytes: usize,
    fields: usize,
    is_1_1: bool,
    hosts: u32,
    length: Option<u64>,
    chunked: bool,
}

impl Framing {
    pub(super) fn new(limits: HeadLimits) -> Framing {
        let state = State::RequestLine { empty: 0 };
        Framing { limits, state, line: Vec::new(), head: Head::default() }
    }

    pub(super) fn place(&self) -> Place {
        match self.state {
            State::RequestLine { .. } if self.line.is_empty() => Place::Between,
            State::RequestLine { .. } | State::Field => Place::Head,
            State::Fixed { .. }
            | State::ChunkSize
            | State::Chunk { .. }
            | State::ChunkEnd { .. }
            | State::Trailer => Place::Body,
        }
    }

    /// Judges the next bytes. After a refusal, nothing more may be fed.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Fed {
        let (mut at, mut good) = (0, 0);
        while at < bytes.len() {
            let rest = &bytes[at..];
            let in_head = self.place() != Place::Body;
            match self.step(rest) {
                Ok(taken) => at += taken,
                // Of a head that is refused nobody sees anything; a body is good up to there.
                Err(refusal) => {
                    let good = if in_head { good } else { at };
                    return Fed { good, refused: Some(refusal) };
                }
            }
            if self.place() != Place::Head {
                good = at;
            }
        }
        Fed { good: bytes.len(), refused: None }
    }

    /// Takes some bytes; answers how many.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, Refusal> {
        match self.state {
            State::Fixed { left } => {
                let taken = part(left, bytes);
                self.state = match left - taken as u64 {
                    0 => State::RequestLine { empty: 0 },
                    left => State::Fixed { left },
                };
                Ok(taken)
            }
            State::Chunk { left } => {
                let taken = part(left, bytes);
                self.state = match left - taken as u64 {
                    0 => State::ChunkEnd { seen_cr: false },
                    left => State::Chunk { left },
                };
                Ok(taken)
            }
            State::ChunkEnd { seen_cr } => match (seen_cr, bytes[0]) {
                (false, b'\r') => {
                    self.state = State::ChunkEnd { seen_cr: true };
                    Ok(1)
                }
                (true, b'\n') => {
                    self.state = State::ChunkSize;
                    Ok(1)
                }
                _ => Err(Refusal::ChunkEnd),
            },
            State::RequestLine { .. } | State::Field | State::ChunkSize | State::Trailer => {
                self.take_line(bytes)
            }
        }
    }

    fn take_line(&mut self, bytes: &[u8]) -> Result<usize, Refusal> {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(bytes.len(), |end| end + 1);
        if self.line.len() + taken > self.longest_line() {
            return Err(self.too_long());
        }
        if end.is_none() {
            self.line.extend_from_slice(bytes);
            return Ok(taken);
        }
        if self.line.is_empty() {
            self.end_line(&bytes[..taken])?;
        } else {
            let mut line = std::mem::take(&mut self.line);
            line.extend_from_slice(&bytes[..taken]);
            self.end_line(&line)?;
        }
        Ok(taken)
    }

    fn longest_line(&self) -> usize {
        match self.state {
            State::RequestLine { .. } => MAX_REQUEST_LINE.min(self.limits.bytes),
            State::ChunkSize => MAX_CHUNK_DIGITS + MAX_CHUNK_EXTENSION + 2,
            _ => self.limits.bytes.saturating_sub(self.head.bytes),
        }
    }

    fn too_long(&self) -> Refusal {
        match self.state {
            State::RequestLine { .. } => Refusal::TargetTooLong,
            State::ChunkSize => Refusal::ChunkSize,
            _ => Refusal::HeadTooLarge,
        }
    }

    /// A line with its end.
    fn end_line(&mut self, line: &[u8]) -> Result<(), Refusal> {
        // A line ends in both; neither stands anywhere else.
        let Some(line) = line.strip_suffix(b"\r\n") else { return Err(Refusal::BareLineFeed) };
        if line.contains(&b'\r') {
            return Err(Refusal::BareCarriageReturn);
        }
        match self.state {
            State::RequestLine { empty } => self.request_line(line, empty),
            State::Field if line.is_empty() => self.end_head(),
            State::Field => self.field(line),
            State::ChunkSize => self.chunk_size(line),
            State::Trailer if line.is_empty() => {
                self.state = State::RequestLine { empty: 0 };
                Ok(())
            }
            State::Trailer => self.count(line).and_then(|()| split_field(line).map(|_| ())),
            State::Fixed { .. } | State::Chunk { .. } | State::ChunkEnd { .. } => {
                unreachable!("these have no lines")
            }
        }
    }

    fn request_line(&mut self, line: &[u8], empty: u8) -> Result<(), Refusal> {
        if line.is_empty() {
            self.state = State::RequestLine { empty: empty + 1 };
            return if empty < MAX_EMPTY_LINES { Ok(()) } else { Err(Refusal::RequestLine) };
        }
        let mut parts = line.split(|byte| *byte == b' ');
        let (method, target, version) = (parts.next(), parts.next(), parts.next());
        let (Some(method), Some(target), Some(version), None) =
            (method, target, version, parts.next())
        else {
            return Err(Refusal::RequestLine);
        };
        let plain = |byte: &u8| *byte > b' ' && *byte != 0x7f;
        if method.is_empty() || !method.iter().all(is_token) || target.is_empty() {
            return Err(Refusal::RequestLine);
        }
        if !target.iter().all(plain) {
            return Err(Refusal::RequestLine);
        }
        let is_1_1 = match version {
            b"HTTP/1.1" => true,
            b"HTTP/1.0" => false,
            _ => return Err(Refusal::Version),
        };
        self.head = Head { is_1_1, bytes: line.len() + 2, ..Head::default() };
        self.state = State::Field;
        Ok(())
    }

    fn count(&mut self, line: &[u8]) -> Result<(), Refusal> {
        self.head.fields += 1;
        self.head.bytes += line.len() + 2;
        match self.head.fields <= self.limits.fields {
            true => Ok(()),
            false => Err(Refusal::HeadTooLarge),
        }
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Refusal> {
        self.count(line)?;
        let (name, value) = split_field(line)?;
        // By length first: nearly all others fall out here.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.head.hosts += 1,
            14 if is_named(name, b"content-length") => {
                let length = content_length(name, value)?;
                if self.head.length.replace(length).is_some() {
                    return Err(Refusal::ContentLength);
                }
            }
            17 if is_named(name, b"transfer-encoding") => {
                if name.contains(&b'_') || self.head.chunked || !self.head.is_1_1 {
                    return Err(Refusal::TransferEncoding);
                }
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Refusal::TransferCoding);
                }
                self.head.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn end_head(&mut self) -> Result<(), Refusal> {
        let head = &self.head;
        if head.hosts > 1 {
            return Err(Refusal::HostTwice);
        }
        if head.hosts == 0 && head.is_1_1 {
            return Err(Refusal::NoHost);
        }
        self.state = match (head.chunked, head.length) {
            (true, Some(_)) => return Err(Refusal::LengthAndChunked),
            (true, None) => State::ChunkSize,
            (false, None | Some(0)) => State::RequestLine { empty: 0 },
            (false, Some(left)) => State::Fixed { left },
        };
        Ok(())
    }

    fn chunk_size(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (size, extension) = line.split_at(digits);
        let plain = |byte: &u8| *byte == b'\t' || (b' '..0x7f).contains(byte) || *byte >= 0x80;
        let fine = extension.is_empty() || (extension[0] == b';' && extension.iter().all(plain));
        if digits == 0 || digits > MAX_CHUNK_DIGITS || !fine {
            return Err(Refusal::ChunkSize);
        }
        let size =
            std::str::from_utf8(size).ok().and_then(|size| u64::from_str_radix(size, 16).ok());
        self.state = match size.ok_or(Refusal::ChunkSize)? {
            0 => {
                self.head = Head::default();
                State::Trailer
            }
            left => State::Chunk { left },
        };
        Ok(())
    }
}

fn part(left: u64, bytes: &[u8]) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len())
}

/// A name and its value, without the space around it.
fn split_field(line: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Refusal::Folded);
    }
    let Some(colon) = line.iter().position(|byte| *byte == b':') else {
        return Err(Refusal::Field);
    };
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let plain = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
    if name.is_empty() || !name.iter().all(is_token) || !value.iter().all(plain) {
        return Err(Refusal::Field);
    }
    Ok((name, value.trim_ascii()))
}

/// Whether a name is this one, also for those who take an underscore for a dash (CGI, WSGI).
fn is_named(name: &[u8], wanted: &[u8]) -> bool {
    let alike = |(own, other): (&u8, &u8)| {
        own.eq_ignore_ascii_case(other) || (*own == b'_' && *other == b'-')
    };
    name.len() == wanted.len() && name.iter().zip(wanted).all(alike)
}

fn content_length(name: &[u8], value: &[u8]) -> Result<u64, Refusal> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    if name.contains(&b'_') || !digits {
        return Err(Refusal::ContentLength);
    }
    let value = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
    // The very largest numbers mean something else to hyper.
    value.filter(|length| *length < u64::MAX / 2).ok_or(Refusal::ContentLength)
}

fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 1000, fields: 5 };

    fn feed(text: &str) -> (Fed, Place) {
        let mut framing = Framing::new(LIMITS);
        (framing.feed(text.as_bytes()), framing.place())
    }

    /// The verdict does not depend on where the bytes were cut.
    #[test]
    fn cuts_between_reads_change_nothing() {
        let texts = [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: b\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nT: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
        ];
        for text in texts {
            let (whole, place) = feed(text);
            for cut in 0..text.len() {
                let mut framing = Framing::new(LIMITS);
                let first = framing.feed(&text.as_bytes()[..cut]);
                let refused = match first.refused {
                    Some(refused) => Some(refused),
                    None => framing.feed(&text.as_bytes()[cut..]).refused,
                };
                assert_eq!(refused, whole.refused, "{text:?} cut at {cut}");
                if refused.is_none() {
                    assert_eq!(framing.place(), place, "{text:?} cut at {cut}");
                }
            }
        }
    }

    #[test]
    fn what_came_before_a_refused_head_may_still_be_read() {
        let first = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
        let (fed, _) = feed(&format!("{first}GET / HTTP/1.1\r\nHost : b\r\n\r\n"));
        assert_eq!(fed, Fed { good: first.len(), refused: Some(Refusal::Field) });
        let first = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let (fed, _) = feed(&format!("{first}{first}GET / HTTP/1.1\r\nHost : b\r\n\r\n"));
        assert_eq!(fed.good, 2 * first.len());
    }

    #[test]
    fn a_body_that_breaks_off_is_a_body() {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n\r\n";
        assert_eq!(feed(&format!("{head}abc")).1, Place::Body);
        assert_eq!(feed("GET / HT").1, Place::Head);
        assert_eq!(feed("GET / HTTP/1.1\r\nHost: a\r\n\r\n").1, Place::Between);
    }

    #[test]
    fn limits_hold_for_heads_and_trailers() {
        let many = "X: 1\r\n".repeat(5);
        let (fed, _) = feed(&format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"));
        assert_eq!(fed.refused, Some(Refusal::HeadTooLarge));
        let long = "x".repeat(2000);
        let (fed, _) = feed(&format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}"));
        assert_eq!(fed.refused, Some(Refusal::HeadTooLarge));
        assert_eq!(feed(&format!("GET /{long}")).0.refused, Some(Refusal::TargetTooLong));
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n";
        let (fed, _) = feed(&format!("{head}{many}{many}\r\n"));
        assert_eq!(fed.refused, Some(Refusal::HeadTooLarge));
    }
}
