//! Trying, from inside of a container's network namespace.
//!
//! The probe is a container that holds our binary and nothing else; it is told what to try on its
//! command line, and prints one JSON document. It is the same build that asks and that answers, and
//! still the document has a version.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::reach::{Answers, Questions};

/// For one connection. Within a machine it takes a fraction of a millisecond; one lost packet is
/// sent again after a second.
const CONNECT_LIMIT: Duration = Duration::from_millis(1500);
/// For one name. The engine's resolver asks the machine's about names that it does not know.
const LOOKUP_LIMIT: Duration = Duration::from_secs(3);
/// How many are tried at once: most wait until their limit for an answer that never comes.
const AT_ONCE: usize = 256;
/// So for names: each takes a thread.
const LOOKUPS_AT_ONCE: usize = 32;
/// The version of the document.
const VERSION: u32 = 1;

/// The longest that a probe may take: what it was asked, at the limits above.
#[must_use]
pub fn longest(questions: &Questions) -> Duration {
    let rounds =
        |number: usize, at_once| u32::try_from(number.div_ceil(at_once)).unwrap_or(u32::MAX);
    let connecting = CONNECT_LIMIT.saturating_mul(rounds(questions.connect.len(), AT_ONCE));
    let looking = LOOKUP_LIMIT.saturating_mul(rounds(questions.names.len(), LOOKUPS_AT_ONCE));
    connecting.max(looking)
}

/// Words for the command line: a `connect:` or `name:` in front of each.
#[must_use]
pub fn words(questions: &Questions) -> Vec<String> {
    let connect = questions.connect.iter().map(|socket| format!("connect:{socket}"));
    connect.chain(questions.names.iter().map(|name| format!("name:{name}"))).collect()
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    open: BTreeSet<SocketAddr>,
    names: BTreeMap<String, BTreeSet<IpAddr>>,
}

/// Tries what the words say, and returns the document.
///
/// # Errors
/// If a word says neither a connection nor a name.
pub async fn run(words: &[String]) -> Result<String, String> {
    let (mut sockets, mut names) = (Vec::new(), Vec::new());
    for word in words {
        match word.split_once(':') {
            Some(("connect", socket)) => {
                sockets.push(
                    socket.parse().map_err(|_| format!("`{socket}` is no address and port"))?,
                );
            }
            Some(("name", name)) => names.push(name.to_owned()),
            _ => return Err(format!("`{word}` is neither connect:… nor name:…")),
        }
    }
    let open = stream::iter(sockets).map(connects).buffer_unordered(AT_ONCE);
    let known = stream::iter(names).map(addresses).buffer_unordered(LOOKUPS_AT_ONCE);
    let (open, known): (Vec<Option<SocketAddr>>, Vec<_>) =
        futures_util::future::join(open.collect(), known.collect()).await;
    let document = Document {
        version: VERSION,
        open: open.into_iter().flatten().collect(),
        names: known
            .into_iter()
            .filter(|(_, found): &(String, BTreeSet<_>)| !found.is_empty())
            .collect(),
    };
    Ok(serde_json::to_string(&document).expect("numbers and strings are JSON"))
}

async fn connects(socket: SocketAddr) -> Option<SocketAddr> {
    match timeout(CONNECT_LIMIT, TcpStream::connect(socket)).await {
        Ok(Ok(_)) => Some(socket),
        Ok(Err(_)) | Err(_) => None,
    }
}

async fn addresses(name: String) -> (String, BTreeSet<IpAddr>) {
    let found = match timeout(LOOKUP_LIMIT, lookup_host((name.as_str(), 0))).await {
        Ok(Ok(found)) => found.map(|socket| socket.ip()).collect(),
        Ok(Err(_)) | Err(_) => BTreeSet::new(),
    };
    (name, found)
}

/// Reads what a probe has printed.
///
/// # Errors
/// If that is no whole document of this version.
pub fn read(output: &str) -> Result<Answers, String> {
    let document: Document = serde_json::from_str(output.trim())
        .map_err(|error| format!("the probe did not finish: {error}"))?;
    if document.version != VERSION {
        return Err(format!("the probe speaks version {}", document.version));
    }
    Ok(Answers { open: document.open, names: document.names })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_listens_is_open() {
        let listening = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listening.local_addr().unwrap();
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let refused = closed.local_addr().unwrap();
        drop(closed);
        let words =
            [format!("connect:{open}"), format!("connect:{refused}"), "name:localhost".into()];
        let answers = read(&run(&words).await.unwrap()).unwrap();
        assert_eq!(answers.open, BTreeSet::from([open]));
        assert!(answers.names["localhost"].iter().all(IpAddr::is_loopback));
        assert!(run(&["ping:1".to_owned()]).await.is_err());
    }

    #[test]
    fn half_a_document_is_no_answer() {
        assert!(read("").is_err() && read(r#"{"version":1,"open":["1"#).is_err());
        assert!(read(r#"{"version":2,"open":[],"names":{}}"#).is_err());
    }
}
