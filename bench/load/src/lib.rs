//! Constant-rate HTTP/1.1 load that counts what a deployment drops.
//!
//! Requests are sent at a fixed rate whatever the server does: a server that stalls does not slow
//! the sender, so a stall shows as latency, a gap or a timeout instead of hiding in fewer requests.
//! Each request ends in exactly one way ([`Outcome`]); latency counts from the moment a request
//! was due, not from when it was sent.
//!
//! A test runs it beside what it tests:
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use shiplap_load::{Config, Load};
//!
//! let config = Config::new("http://127.0.0.1:8088/version".parse().unwrap(), 500.0);
//! let running = Load::start(config)?;
//! // … deploy …
//! let report = running.stop().await;
//! assert_eq!(report.failed(), 0, "{}", report.to_json());
//! # Ok(())
//! # }
//! ```

mod config;
mod connection;
mod first_answer;
mod histogram;
mod report;
mod response;
mod run;

pub use config::{Config, Connections, Url, UrlError};
pub use connection::Answer;
pub use first_answer::{NoAnswer, first_answer, get};
pub use report::{DropKind, Latency, Outcome, Report, Snapshot, Tag};
pub use run::{Load, Running};

/// Raises this process's limit of open files as far as it is allowed to.
///
/// At 500 requests per second a server that holds its answers for two seconds occupies 1,000
/// sockets, and 1,024 is the usual limit. Call it once at the start of a program.
pub fn raise_open_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Without the right to raise it the load still runs; too many sockets show as `other`.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
