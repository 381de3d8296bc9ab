//! What registries say when they do not give what was asked for.

use std::time::Duration;

/// What kind of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistryErrorKind {
    /// The repository has nothing of that tag or digest.
    NoSuchTag,
    /// There is no such repository, or it is not shown to us.
    NoSuchRepository,
    /// We may not.
    Denied,
    /// We ask too often; it said when to come back, or nothing.
    RateLimited(Option<Duration>),
    /// Nobody answers.
    Unreachable,
    /// It is at fault itself.
    Failing,
    /// What it sent is not what it should be.
    Garbled,
}

impl RegistryErrorKind {
    /// What the user can do about it.
    #[must_use]
    pub fn help(self, host: &str) -> Option<String> {
        match self {
            Self::NoSuchTag => Some("check the tag; was it pushed?".to_owned()),
            Self::NoSuchRepository => {
                Some(format!("check the name; a private one needs `docker login {host}`"))
            }
            Self::Denied => Some(format!(
                "`docker login {host}`, or `registries:` in shiplap.yaml with a secret of the store"
            )),
            Self::RateLimited(_) => {
                Some(format!("wait, or `docker login {host}`, which has a higher limit"))
            }
            Self::Unreachable | Self::Failing | Self::Garbled => None,
        }
    }
}

/// A registry did not give what it was asked for.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{doing}: {message}")]
pub struct RegistryError {
    /// What kind of trouble.
    pub kind: RegistryErrorKind,
    /// What we were doing: `asking ghcr.io for team/api:v1`.
    pub doing: String,
    /// What was said.
    pub message: String,
}
