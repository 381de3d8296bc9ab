//! What is wanted: certificates, and where they come from.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A certificate that somebody wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// `shop.example`, or `*.shop.example`. The first one tells it from others.
    pub names: Vec<String>,
    /// Where it comes from.
    pub source: Source,
}

/// Where a certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Source {
    /// Somebody else puts it, and a newer one later, into these files.
    Files {
        /// PEM: the certificate, then those that lead from it to an authority.
        chain: PathBuf,
        /// PEM. May be the same file.
        key: PathBuf,
    },
    /// An authority of our own, for development: clients must be told to believe it.
    Internal,
    /// An authority that looks at the host by itself (RFC 8555).
    Acme(Acme),
}

/// How to get a certificate from an authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acme {
    /// The address of its directory.
    pub directory: String,
    /// How to prove that a host is ours.
    pub challenge: ChallengeKind,
    /// An address of mail that it may write to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact: Option<String>,
    /// PEM: whom to believe that it is the directory, besides Mozilla's list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roots: Option<PathBuf>,
    /// An account that it knows us by already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_account: Option<ExternalAccount>,
}

/// An account elsewhere, to which the one at the authority is bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalAccount {
    /// The name of its key.
    pub key_id: String,
    /// Holds the key, in base64url. Read once, when the account is made.
    pub key_file: PathBuf,
}

/// How to prove that a host is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChallengeKind {
    /// By a file at port 80.
    #[serde(rename = "http-01")]
    Http01,
    /// By a certificate at port 443.
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
}

/// Why something cannot be wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WantedError {
    /// For nobody.
    #[error("a certificate is for at least one name")]
    NoNames,
    /// More than authorities put into one certificate.
    #[error("a certificate is for at most {MAX_NAMES} names")]
    TooManyNames,
    /// Not a host name.
    #[error("`{0}` is not a host name in lower case, or `*.` and one")]
    Name(String),
    /// Only DNS-01 proves these.
    #[error("`{0}`: neither HTTP-01 nor TLS-ALPN-01 can prove a wildcard; give files")]
    Wildcard(String),
    /// No authority would.
    #[error("`{0}` is not a public name; an authority issues none for it")]
    NotPublic(String),
    /// Keys and accounts travel to it.
    #[error("the directory `{0}` is not an https:// address")]
    Directory(String),
}

/// The limit of Let's Encrypt, and of most.
const MAX_NAMES: usize = 100;

impl Wanted {
    /// What tells it from others.
    pub fn name(&self) -> &str {
        &self.names[0]
    }

    /// Whether it makes sense in itself.
    pub fn check(&self) -> Result<(), WantedError> {
        if self.names.is_empty() {
            return Err(WantedError::NoNames);
        }
        if self.names.len() > MAX_NAMES {
            return Err(WantedError::TooManyNames);
        }
        if let Some(name) = self.names.iter().find(|name| !is_host(name)) {
            return Err(WantedError::Name(name.clone()));
        }
        let Source::Acme(acme) = &self.source else { return Ok(()) };
        if let Some(name) = self.names.iter().find(|name| name.starts_with("*.")) {
            return Err(WantedError::Wildcard(name.clone()));
        }
        if let Some(name) = self.names.iter().find(|name| !name.contains('.')) {
            return Err(WantedError::NotPublic(name.clone()));
        }
        if !acme.directory.starts_with("https://") {
            return Err(WantedError::Directory(acme.directory.clone()));
        }
        Ok(())
    }
}

fn is_host(name: &str) -> bool {
    let name = name.strip_prefix("*.").unwrap_or(name);
    let label = |label: &str| {
        let plain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
        (1..=63).contains(&label.len()) && label.bytes().all(plain)
    };
    // Four numbers would be an address.
    let is_address = name.parse::<std::net::IpAddr>().is_ok();
    name.len() <= 253 && name.split('.').all(label) && !is_address
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(names: &[&str], source: Source) -> Result<(), WantedError> {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Wanted { names, source }.check()
    }

    fn acme(directory: &str) -> Source {
        Source::Acme(Acme {
            directory: directory.to_owned(),
            challenge: ChallengeKind::Http01,
            contact: None,
            roots: None,
            external_account: None,
        })
    }

    #[test]
    fn what_no_source_can_give_is_refused_before_anything_is_asked() {
        assert_eq!(wanted(&["shop.localhost", "*.x", "a_b"], Source::Internal), Ok(()));
        assert_eq!(wanted(&[], Source::Internal), Err(WantedError::NoNames));
        for name in ["Shop.example", "a..b", "", "*", "1.2.3.4", "a/b", "a.*.b"] {
            let error = Err(WantedError::Name(name.to_owned()));
            assert_eq!(wanted(&[name], Source::Internal), error, "{name}");
        }
        let directory = "https://acme.example/directory";
        assert_eq!(wanted(&["shop.example"], acme(directory)), Ok(()));
        let wildcard = "*.shop.example".to_owned();
        let error = Err(WantedError::Wildcard(wildcard));
        assert_eq!(wanted(&["shop.example", "*.shop.example"], acme(directory)), error);
        let error = Err(WantedError::NotPublic("localhost".to_owned()));
        assert_eq!(wanted(&["localhost"], acme(directory)), error);
        let plain = "http://acme.example/directory";
        let error = Err(WantedError::Directory(plain.to_owned()));
        assert_eq!(wanted(&["shop.example"], acme(plain)), error);
    }

    #[test]
    fn what_is_stored_is_read_by_later_versions() {
        let text = r#"{ "names": [ "shop.example" ], "source": { "kind": "acme",
            "directory": "https://acme.example/directory", "challenge": "tls-alpn-01",
            "later": true } }"#;
        let read: Wanted = serde_json::from_str(text).unwrap();
        let Source::Acme(acme) = &read.source else { panic!("{read:?}") };
        assert_eq!(acme.challenge, ChallengeKind::TlsAlpn01);
        let again = serde_json::to_string(&read).unwrap();
        assert_eq!(serde_json::from_str::<Wanted>(&again).unwrap(), read);
        let text =
            r#"{ "names": [ "a" ], "source": { "kind": "files", "chain": "c", "key": "k" } }"#;
        assert!(serde_json::from_str::<Wanted>(text).is_ok());
        let text = r#"{ "names": [ "a" ], "source": { "kind": "internal" } }"#;
        assert!(serde_json::from_str::<Wanted>(text).is_ok());
    }
}
