//! What can be set, with what it is where nobody sets it.

use std::num::NonZeroU32;
use std::time::Duration;

/// Settings of a server.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of this server, unlike that of any other that shares its queue, such as host and
    /// process.
    pub server: String,
    /// Name of the machine, for `user@host` in history.
    pub host: String,
    /// The address that clients outside use, without a slash at the end, for links in answers. The
    /// `Host` that the client names where absent.
    pub url: Option<String>,
    /// How long an order waits for others that it can be merged with.
    pub settle: Duration,
    /// The longest that a caller may ask it to wait for others.
    pub max_settle: Duration,
    /// The longest that a request with `wait` stays unanswered.
    pub max_wait: Duration,
    /// Orders that are carried out at the same time.
    pub parallel: usize,
    /// How long an order stays ours without a sign of life.
    pub claim_ttl: Duration,
    /// How long a server that leaves waits for those that it carries out.
    pub leave_within: Duration,
    /// How often the queue is looked at for what other servers have done. Each costs a query.
    pub beat: Duration,
    /// What one request and one client may take up.
    pub limits: Limits,
    /// How often one may ask.
    pub rates: Rates,
}

impl Settings {
    /// The defaults.
    #[must_use]
    pub fn new(server: &str, host: &str) -> Self {
        Self {
            server: server.to_owned(),
            host: host.to_owned(),
            url: None,
            settle: Duration::from_secs(10),
            max_settle: Duration::from_secs(600),
            max_wait: Duration::from_secs(3600),
            parallel: 4,
            claim_ttl: Duration::from_secs(30),
            leave_within: Duration::from_secs(60),
            beat: Duration::from_secs(1),
            limits: Limits::default(),
            rates: Rates::default(),
        }
    }
}

/// What one request and one client may take up.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Size of a body. Webhooks of large pushes are the largest: some 100 KiB.
    pub body_bytes: usize,
    /// Size of the head of a request.
    pub head_bytes: usize,
    /// Number of its headers.
    pub headers: usize,
    /// Time for the head, also of the next request of a connection.
    pub head_within: Duration,
    /// Time for the body.
    pub body_within: Duration,
    /// Time for a handshake.
    pub handshake_within: Duration,
    /// Connections in all.
    pub connections: usize,
    /// Connections of one address (of one network of 2^64, for IPv6).
    pub connections_per_address: usize,
    /// Webhooks at the same time. What is in their bodies is proved only after they were read.
    pub hooks: usize,
    /// How long a stream of events goes on; clients come back with `Last-Event-ID`.
    pub stream_for: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 1 << 20,
            head_bytes: 32 << 10,
            headers: 64,
            head_within: Duration::from_secs(15),
            body_within: Duration::from_secs(15),
            handshake_within: Duration::from_secs(10),
            connections: 1024,
            connections_per_address: 128,
            hooks: 32,
            stream_for: Duration::from_secs(3600),
        }
    }
}

/// How often one may ask. Beyond that the answer is 429, with the time to wait.
#[derive(Debug, Clone)]
pub struct Rates {
    /// Requests of one token per second, over time.
    pub token_per_second: NonZeroU32,
    /// Requests of one token at once.
    pub token_burst: NonZeroU32,
    /// Failed authentications of one address per second, over time.
    pub failures_per_second: NonZeroU32,
    /// Failed authentications of one address at once.
    pub failures_burst: NonZeroU32,
}

impl Default for Rates {
    fn default() -> Self {
        let of = |number| NonZeroU32::new(number).expect("is not zero");
        Self {
            token_per_second: of(20),
            token_burst: of(200),
            failures_per_second: of(1),
            failures_burst: of(20),
        }
    }
}
