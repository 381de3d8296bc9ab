//! Certificates, by the names they are shown for, and proofs for authorities that issue them.

use serde::{Deserialize, Serialize};

use super::is_default;

/// Everything about TLS that is not a listener's own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Tls {
    /// What is shown to whom. Two for one name are refused.
    #[serde(skip_serializing_if = "is_default")]
    pub certificates: Vec<Shown>,
    /// What an authority that is about to issue a certificate asks for.
    #[serde(skip_serializing_if = "is_default")]
    pub challenges: Vec<Challenge>,
}

/// A certificate, and the names that it is shown for.
///
/// The table has no keys: what it names was given to the edge before
/// ([`crate::Client::put_certificate`]), which keeps it in a file of its own. A table that names
/// one that the edge does not have, that is broken, that is not valid at the moment or that is for
/// other names is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// `project/environment`, or whoever looks after it.
    pub owner: String,
    /// Of the content: chain and key.
    pub id: String,
    /// `shop.example`, or `*.shop.example` for names with one label more. An exact name goes before
    /// a wildcard.
    pub names: Vec<String>,
}

/// A proof that a host is ours, for one order of a certificate (RFC 8555).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// Who orders.
    pub owner: String,
    /// The host in question.
    pub host: String,
    /// What is asked for.
    #[serde(flatten)]
    pub proof: Proof,
}

/// What an authority asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// HTTP-01: `answer` at `/.well-known/acme-challenge/TOKEN`, at every listener, whatever
    /// routes and policies say.
    Http {
        /// The last segment of the path.
        token: String,
        /// The key authorization; no secret.
        answer: String,
    },
    /// TLS-ALPN-01 (RFC 8737): the certificate of this id, to who speaks `acme-tls/1`.
    Tls {
        /// As [`Shown::id`].
        certificate: String,
    },
}

/// A listener that takes off TLS, 1.2 or 1.3.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ListenerTls {
    /// The name whose certificate is shown to clients that do not say which host they want, such as
    /// those that call an address. None: they are refused, as those are that want a name for which
    /// there is no certificate.
    #[serde(skip_serializing_if = "is_default")]
    pub unnamed: Option<String>,
}

impl Tls {
    /// The ids of all certificates that the table needs.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        let shown = self.certificates.iter().map(|shown| shown.id.as_str());
        shown.chain(self.challenges.iter().filter_map(|challenge| match &challenge.proof {
            Proof::Tls { certificate } => Some(certificate.as_str()),
            Proof::Http { .. } => None,
        }))
    }
}
