//! From what the engine answers to what a caller can act on.

use std::io;

use bollard::errors::Error;
use shiplap_model::{EngineError, EngineErrorKind};

use crate::link::Trouble;

/// Shorter values are no secrets, and blanking them out would garble messages.
const SHORTEST_SECRET: usize = 3;

/// Makes an error from what bollard reports, for those who use [`raw`](crate::DockerEngine::raw).
pub fn from_bollard(doing: impl Into<String>, error: &Error) -> EngineError {
    if let Some(trouble) = trouble_of_the_link(error) {
        return trouble.during(doing);
    }
    let (kind, message) = match error {
        Error::DockerResponseServerError { status_code, message } => {
            (kind_of_answer(*status_code, message), message.trim().to_owned())
        }
        Error::DockerStreamError { error } => (kind_of_answer(500, error), error.trim().to_owned()),
        Error::RequestTimeoutError => (EngineErrorKind::Timeout, "no answer in time".to_owned()),
        Error::SocketNotFoundError(path) => {
            (EngineErrorKind::Unreachable, format!("there is no socket: {path}"))
        }
        Error::UnsupportedURISchemeError { uri } => {
            (EngineErrorKind::Invalid, format!("an address of this form is not supported: {uri}"))
        }
        other => kind_of_transport(other),
    };
    with_kind(kind, doing, message)
}

/// Makes an error of a kind, with the help that belongs to the kind.
pub(crate) fn with_kind(
    kind: EngineErrorKind,
    doing: impl Into<String>,
    message: impl Into<String>,
) -> EngineError {
    let help = match kind {
        EngineErrorKind::Unreachable => {
            Some("is docker running? `sudo systemctl start docker`".to_owned())
        }
        EngineErrorKind::Denied => Some(
            "use `sudo`, or join the group: `sudo usermod -aG docker $USER`, then log in again"
                .to_owned(),
        ),
        EngineErrorKind::DiskFull => {
            Some("make room: `docker system df`, then `docker image prune`".to_owned())
        }
        EngineErrorKind::NoAddresses => Some(
            "remove networks that nobody uses: `docker network prune`; or give the engine more \
             with `default-address-pools` in /etc/docker/daemon.json"
                .to_owned(),
        ),
        EngineErrorKind::Broken
        | EngineErrorKind::TooOld
        | EngineErrorKind::NotFound
        | EngineErrorKind::Conflict
        | EngineErrorKind::PortTaken
        | EngineErrorKind::Invalid
        | EngineErrorKind::Timeout
        | EngineErrorKind::Internal
        | EngineErrorKind::HostKey
        | EngineErrorKind::LeaseLost => None,
    };
    EngineError { kind, doing: doing.into(), message: message.into(), help }
}

/// A request that is at fault itself.
pub(crate) fn invalid(doing: impl Into<String>, message: impl Into<String>) -> EngineError {
    with_kind(EngineErrorKind::Invalid, doing, message)
}

/// Blanks out secrets that the engine quoted back to us.
pub(crate) fn scrubbed<'a>(
    mut error: EngineError,
    secrets: impl IntoIterator<Item = &'a str>,
) -> EngineError {
    let mut secrets: Vec<&str> =
        secrets.into_iter().filter(|secret| secret.len() >= SHORTEST_SECRET).collect();
    // The longest first: one secret may contain another.
    secrets.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.len()));
    for secret in secrets {
        if error.message.contains(secret) {
            error.message = error.message.replace(secret, "***");
        }
    }
    error
}

/// What engines say when their address pools, or those of a network, are used up.
const NO_ADDRESSES: &[&str] = &[
    "non-overlapping IPv4 address pool",
    "all predefined address pools have been fully subnetted",
    "no available IPv4 addresses",
];

fn kind_of_answer(status: u16, message: &str) -> EngineErrorKind {
    let has = |needle: &str| message.contains(needle);
    if has("no space left on device") || has("disk quota exceeded") {
        return EngineErrorKind::DiskFull;
    }
    if NO_ADDRESSES.iter().any(|words| has(words)) {
        return EngineErrorKind::NoAddresses;
    }
    if has("port is already allocated") || has("address already in use") {
        return EngineErrorKind::PortTaken;
    }
    match status {
        400 => EngineErrorKind::Invalid,
        401 => EngineErrorKind::Denied,
        403 if has("denied") || has("unauthorized") => EngineErrorKind::Denied,
        // The engine also forbids what stands in the way, such as removing a network in use.
        403 => EngineErrorKind::Conflict,
        404 => EngineErrorKind::NotFound,
        409 => EngineErrorKind::Conflict,
        408 | 504 => EngineErrorKind::Timeout,
        _ => EngineErrorKind::Internal,
    }
}

fn kind_of_transport(error: &Error) -> (EngineErrorKind, String) {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = match error {
        // A transparent one hides itself from the chain of causes.
        Error::IOError { err } => Some(err),
        Error::HyperResponseError { err } => Some(err),
        other => Some(other),
    };
    while let Some(current) = cause {
        if let Some(io) = current.downcast_ref::<io::Error>() {
            let kind = match io.kind() {
                io::ErrorKind::PermissionDenied => EngineErrorKind::Denied,
                io::ErrorKind::TimedOut => EngineErrorKind::Timeout,
                io::ErrorKind::StorageFull => EngineErrorKind::DiskFull,
                io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof => EngineErrorKind::Broken,
                _ => EngineErrorKind::Unreachable,
            };
            return (kind, io.to_string());
        }
        cause = current.source();
    }
    match error {
        Error::HyperLegacyError { err } if err.is_connect() => {
            (EngineErrorKind::Unreachable, error.to_string())
        }
        Error::HyperLegacyError { .. }
        | Error::HyperResponseError { .. }
        | Error::IOError { .. } => (EngineErrorKind::Broken, "the connection broke".to_owned()),
        _ => (EngineErrorKind::Internal, error.to_string()),
    }
}

/// What a link said that is behind an error.
fn trouble_of_the_link(error: &Error) -> Option<Trouble> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = match error {
        // A transparent one hides itself from the chain of causes.
        Error::IOError { err } => Some(err),
        other => Some(other),
    };
    while let Some(current) = cause {
        let inner = current.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(trouble) = inner.and_then(|inner| inner.downcast_ref::<Trouble>()) {
            return Some(trouble.clone());
        }
        cause = current.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status_code: u16, message: &str) -> EngineErrorKind {
        let error = Error::DockerResponseServerError { status_code, message: message.into() };
        from_bollard("x", &error).kind
    }

    #[test]
    fn answers_are_told_apart() {
        assert_eq!(answer(404, "No such container: x"), EngineErrorKind::NotFound);
        assert_eq!(answer(409, "in use"), EngineErrorKind::Conflict);
        assert_eq!(answer(400, "bad"), EngineErrorKind::Invalid);
        assert_eq!(answer(500, "write /x: no space left on device"), EngineErrorKind::DiskFull);
        let taken = "Bind for 0.0.0.0:80 failed: port is already allocated";
        assert_eq!(answer(500, taken), EngineErrorKind::PortTaken);
        assert_eq!(answer(500, "boom"), EngineErrorKind::Internal);
        let full = "could not find an available, non-overlapping IPv4 address pool among the \
                    defaults to assign to the network";
        assert_eq!(answer(500, full), EngineErrorKind::NoAddresses);
        let full = "all predefined address pools have been fully subnetted";
        assert_eq!(answer(404, full), EngineErrorKind::NoAddresses);
    }

    #[test]
    fn a_quoted_secret_is_blanked_out() {
        let error = invalid("creating x", "invalid environment variable: =hunter22");
        let error = scrubbed(error, ["hunter2", "hunter22", "1"]);
        assert_eq!(error.message, "invalid environment variable: =***");
    }

    #[test]
    fn trouble_on_the_way_says_what_to_do() {
        let denied = Error::from(io::Error::from(io::ErrorKind::PermissionDenied));
        let error = from_bollard("x", &denied);
        assert_eq!(error.kind, EngineErrorKind::Denied);
        assert!(error.help.unwrap().contains("usermod"));
        let refused = Error::from(io::Error::from(io::ErrorKind::ConnectionRefused));
        assert_eq!(from_bollard("x", &refused).kind, EngineErrorKind::Unreachable);
        let reset = Error::from(io::Error::from(io::ErrorKind::ConnectionReset));
        assert_eq!(from_bollard("x", &reset).kind, EngineErrorKind::Broken);
    }
}
