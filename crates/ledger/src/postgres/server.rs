//! Which server, as whom, and how the way to it is protected. Its password is never shown.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use shiplap_model::LedgerError;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

/// How long a server may take to answer a new connection.
const CONNECT: Duration = Duration::from_secs(10);
/// A connection that says nothing for so long is asked whether anybody is there.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVES: u32 = 3;
/// How long something sent may stay without an answer of the other machine.
const UNANSWERED: Duration = Duration::from_secs(15);

/// How the way to a server is protected, as in libpq.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Protection {
    /// `disable`
    Plain,
    /// `prefer`, the default: encrypted where the server can, whoever it is.
    IfItCan,
    /// `require`: encrypted, whoever it is.
    Encrypted,
    /// `verify-full`: encrypted, and the server's certificate is for its name and signed by one of
    /// these authorities, a file of PEM; by those of the web where there is none.
    Verified(Option<PathBuf>),
}

/// A database, and how to get to it.
#[derive(Clone)]
pub struct Server {
    config: Config,
    pub(crate) protection: Protection,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({self})")
    }
}

impl fmt::Display for Server {
    /// `shop on db.example:5432`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.config.get_dbname().expect("checked when it was read");
        match &self.config.get_hosts()[0] {
            Host::Tcp(host) => write!(f, "{name} on {host}")?,
            Host::Unix(path) => write!(f, "{name} on {}", path.display())?,
        }
        match self.config.get_ports() {
            [port, ..] => write!(f, ":{port}"),
            [] => Ok(()),
        }
    }
}

impl Server {
    /// Reads `postgres://user:password@host:port/database?sslmode=…&sslrootcert=…`.
    ///
    /// # Errors
    /// `Storage`, without a part of the URL: it may hold a password.
    pub fn parse(url: &str) -> Result<Self, LedgerError> {
        let wrong = |what: &str| LedgerError::Storage(format!("its URL {what}"));
        let (base, query) = url.trim().split_once('?').unwrap_or((url.trim(), ""));
        let (ours, theirs): (Vec<&str>, Vec<&str>) = query
            .split('&')
            .filter(|one| !one.is_empty())
            .partition(|one| one.starts_with("sslmode=") || one.starts_with("sslrootcert="));
        let url = if theirs.is_empty() {
            base.to_owned()
        } else {
            format!("{base}?{}", theirs.join("&"))
        };
        // The library's message could repeat a part of the URL.
        let mut config: Config =
            url.parse().map_err(|_| wrong("is not of the form postgres://user@host/database"))?;
        if config.get_dbname().is_none() {
            return Err(wrong("names no database"));
        }
        if config.get_hosts().is_empty() {
            return Err(wrong("names no host"));
        }
        let protection = protection(&ours).map_err(|what| wrong(&what))?;
        config
            .application_name("shiplap")
            .connect_timeout(CONNECT)
            .keepalives_idle(KEEPALIVE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVES)
            .tcp_user_timeout(UNANSWERED)
            .ssl_mode(match protection {
                Protection::Plain => SslMode::Disable,
                Protection::IfItCan => SslMode::Prefer,
                Protection::Encrypted | Protection::Verified(_) => SslMode::Require,
            });
        Ok(Self { config, protection })
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Whether its URL holds a password.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.config.get_password().is_some()
    }
}

fn protection(parameters: &[&str]) -> Result<Protection, String> {
    let last = |name: &str| {
        let value = parameters.iter().rev().find_map(|one| one.strip_prefix(name));
        value.map(percent_decoded)
    };
    let authorities = last("sslrootcert=").map(PathBuf::from);
    match (last("sslmode=").as_deref(), authorities) {
        (Some("disable"), None) => Ok(Protection::Plain),
        (None | Some("prefer"), None) => Ok(Protection::IfItCan),
        (Some("require"), None) => Ok(Protection::Encrypted),
        (Some("verify-full"), authorities) => Ok(Protection::Verified(authorities)),
        (Some("disable" | "prefer" | "require") | None, Some(_)) => {
            Err("has `sslrootcert`, which is for `sslmode=verify-full`".to_owned())
        }
        (Some(_), _) => {
            Err("has an unknown `sslmode`; these are: disable, prefer, require, verify-full"
                .to_owned())
        }
    }
}

/// `%2F` is `/`; what is no such code stays.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = match tail {
            [a, b, ..] if *first == b'%' => {
                let hex = std::str::from_utf8(&[*a, *b]).ok().map(str::to_owned);
                hex.and_then(|hex| u8::from_str_radix(&hex, 16).ok())
            }
            _ => None,
        };
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let server = Server::parse("postgres://me:s3cret@db.example:5433/shop").unwrap();
        assert_eq!(server.to_string(), "shop on db.example:5433");
        assert!(server.has_password());
        assert!(!format!("{server:?}").contains("s3cret"));
        for wrong in [
            "postgres://me:s3cret@db.example:x/shop",
            "postgres://me:s3cret@db.example",
            "postgres://me:s3cret@db.example/shop?sslmode=s3cret",
            "postgres:///shop?password=s3cret&sslrootcert=s3cret",
            "s3cret",
        ] {
            let error = Server::parse(wrong).unwrap_err().to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
        assert!(Server::parse("postgres://me@h/shop?password=x").unwrap().has_password());
        assert!(!Server::parse("postgres://me@h/shop").unwrap().has_password());
    }

    #[test]
    fn the_way_is_protected_as_asked_for() {
        let read = |query: &str| {
            Server::parse(&format!("postgres://me@db.example/shop{query}")).map(|s| s.protection)
        };
        assert_eq!(read("").unwrap(), Protection::IfItCan);
        assert_eq!(read("?sslmode=disable").unwrap(), Protection::Plain);
        assert_eq!(read("?sslmode=require&keepalives=1").unwrap(), Protection::Encrypted);
        assert_eq!(read("?sslmode=verify-full").unwrap(), Protection::Verified(None));
        let file = Protection::Verified(Some("/a b/ca.pem".into()));
        assert_eq!(read("?sslrootcert=%2Fa%20b/ca.pem&sslmode=verify-full").unwrap(), file);
        for refused in ["?sslmode=verify-ca", "?sslmode=require&sslrootcert=/x", "?sslmode="] {
            assert!(read(refused).is_err(), "{refused}: silently less than asked for");
        }
    }
}
