//! How long until a version answers.

use crate::config::{Config, Connections, Url};
use crate::connection::{Answer, Connection};
use crate::report::DropKind;
use crate::response::ResponseReader;
use std::fmt;
use std::time::{Duration, Instant};

const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// A request on its way to a replica that went away must not hide the answer of its successor.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);

/// Asks every 5 ms, each time over a new connection, until an answer below 400 carries `value` in
/// the response header `header`, and says how long that took.
///
/// # Errors
/// [`NoAnswer`] if no such answer came within `timeout`.
pub async fn first_answer(
    url: &Url,
    header: &str,
    value: &str,
    timeout: Duration,
) -> Result<Duration, NoAnswer> {
    let start = Instant::now();
    let mut last = "nothing was asked".to_owned();
    while start.elapsed() < timeout {
        let limit = ATTEMPT_TIMEOUT.min(timeout.saturating_sub(start.elapsed()));
        match get(url, Some(header), limit).await {
            Ok(answer) if answer.status < 400 && answer.tag.as_deref() == Some(value) => {
                return Ok(start.elapsed());
            }
            Ok(answer) => {
                let tag = answer.tag.as_deref().unwrap_or("none");
                last = format!("status {} with {header} {tag}", answer.status);
            }
            Err(kind) => last = kind.to_string(),
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Err(NoAnswer { url: url.clone(), wanted: value.into(), last })
}

/// One GET request over a new connection.
///
/// # Errors
/// The way in which the request was dropped; any complete answer is `Ok`.
pub async fn get(url: &Url, header: Option<&str>, timeout: Duration) -> Result<Answer, DropKind> {
    let mut config = Config::new(url.clone(), 1.0);
    config.connections = Connections::PerRequest;
    let exchange = async {
        let reader = ResponseReader::new("GET", header).keep_body();
        Connection::open(url).await?.exchange(&config.wire(), reader).await
    };
    tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(DropKind::Timeout))
}

/// The wanted version did not answer in time.
#[derive(Clone, Debug)]
pub struct NoAnswer {
    url: Url,
    wanted: String,
    last: String,
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` never answered from {}; its last answer: {}",
            self.wanted, self.url, self.last
        )
    }
}

impl std::error::Error for NoAnswer {}
