//! What the edge answers to a message that it does not take.

use std::sync::atomic::{AtomicU64, Ordering};

use hyper::StatusCode;

/// Why a message is not taken. The connection ends with the answer, because where the next
/// message would begin is not known for sure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Refusal {
    RequestLine,
    TargetTooLong,
    Version,
    BareLineFeed,
    BareCarriageReturn,
    Folded,
    Field,
    HeadTooLarge,
    NoHost,
    HostTwice,
    BadHost,
    HostMismatch,
    BadTarget,
    ContentLength,
    TransferEncoding,
    TransferCoding,
    LengthAndChunked,
    ChunkSize,
    ChunkEnd,
    Method,
    Expectation,
    HeadTooSlow,
    BodyTooSlow,
    BodyTooLarge,
    TooManyConnections,
    NotTls,
}

static COUNTS: [AtomicU64; Refusal::ALL.len()] = [const { AtomicU64::new(0) }; Refusal::ALL.len()];

impl Refusal {
    const ALL: [Refusal; 26] = [
        Refusal::RequestLine,
        Refusal::TargetTooLong,
        Refusal::Version,
        Refusal::BareLineFeed,
        Refusal::BareCarriageReturn,
        Refusal::Folded,
        Refusal::Field,
        Refusal::HeadTooLarge,
        Refusal::NoHost,
        Refusal::HostTwice,
        Refusal::BadHost,
        Refusal::HostMismatch,
        Refusal::BadTarget,
        Refusal::ContentLength,
        Refusal::TransferEncoding,
        Refusal::TransferCoding,
        Refusal::LengthAndChunked,
        Refusal::ChunkSize,
        Refusal::ChunkEnd,
        Refusal::Method,
        Refusal::Expectation,
        Refusal::HeadTooSlow,
        Refusal::BodyTooSlow,
        Refusal::BodyTooLarge,
        Refusal::TooManyConnections,
        Refusal::NotTls,
    ];

    /// Counts that this has been answered.
    pub(super) fn count(self) {
        COUNTS[self as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// What was refused since the start, as far as anything was.
    pub(super) fn counts() -> impl Iterator<Item = (Refusal, u64)> {
        let all = Refusal::ALL.into_iter().zip(&COUNTS);
        all.map(|(refusal, count)| (refusal, count.load(Ordering::Relaxed))).filter(|(_, n)| *n > 0)
    }

    pub(super) fn status(self) -> StatusCode {
        match self {
            Refusal::TargetTooLong => StatusCode::URI_TOO_LONG,
            Refusal::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Refusal::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Refusal::TransferCoding => StatusCode::NOT_IMPLEMENTED,
            Refusal::Method => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::Expectation => StatusCode::EXPECTATION_FAILED,
            Refusal::HeadTooSlow | Refusal::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Refusal::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::TooManyConnections => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::RequestLine
            | Refusal::BareLineFeed
            | Refusal::BareCarriageReturn
            | Refusal::Folded
            | Refusal::Field
            | Refusal::NoHost
            | Refusal::HostTwice
            | Refusal::BadHost
            | Refusal::HostMismatch
            | Refusal::BadTarget
            | Refusal::ContentLength
            | Refusal::TransferEncoding
            | Refusal::LengthAndChunked
            | Refusal::ChunkSize
            | Refusal::ChunkEnd
            | Refusal::NotTls => StatusCode::BAD_REQUEST,
        }
    }

    pub(super) fn text(self) -> &'static str {
        match self {
            Refusal::RequestLine => "the request line is malformed\n",
            Refusal::TargetTooLong => "the target is too long\n",
            Refusal::Version => "only HTTP/1.0, HTTP/1.1 and HTTP/2 are served\n",
            Refusal::BareLineFeed => "a line ends without a carriage return\n",
            Refusal::BareCarriageReturn => "a carriage return stands alone\n",
            Refusal::Folded => "a header is folded over several lines\n",
            Refusal::Field => "a header is malformed\n",
            Refusal::HeadTooLarge => "the headers are too large\n",
            Refusal::NoHost => "no Host header\n",
            Refusal::HostTwice => "more than one Host header\n",
            Refusal::BadHost => "the Host header is malformed\n",
            Refusal::HostMismatch => "the target and the Host header differ\n",
            Refusal::BadTarget => "the target is malformed\n",
            Refusal::ContentLength => "the Content-Length is malformed, or there are several\n",
            Refusal::TransferEncoding => "the Transfer-Encoding is malformed\n",
            Refusal::TransferCoding => "only `Transfer-Encoding: chunked` is served\n",
            Refusal::LengthAndChunked => "both Content-Length and Transfer-Encoding\n",
            Refusal::ChunkSize => "the size of a chunk is malformed\n",
            Refusal::ChunkEnd => "a chunk is longer than it says\n",
            Refusal::Method => "this method is not served here\n",
            Refusal::Expectation => "only `Expect: 100-continue` is served\n",
            Refusal::HeadTooSlow => "the headers did not come in time\n",
            Refusal::BodyTooSlow => "the body did not come in time\n",
            Refusal::BodyTooLarge => "the body is too large\n",
            Refusal::TooManyConnections => "too many connections\n",
            Refusal::NotTls => "this port speaks TLS: come with https://\n",
        }
    }

    /// The whole answer, for a connection on which nothing else is being answered.
    pub(super) fn as_http1(self) -> Vec<u8> {
        self.count();
        let (status, text) = (self.status(), self.text());
        let reason = status.canonical_reason().unwrap_or("Refused");
        format!(
            "HTTP/1.1 {} {reason}\r\ncontent-type: text/plain; charset=utf-8\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{text}",
            status.as_u16(),
            text.len()
        )
        .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_counter_of_its_own() {
        for (index, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, index);
        }
    }
}
