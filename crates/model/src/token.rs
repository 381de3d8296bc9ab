//! Tokens: who may ask a control server for what.

use std::collections::BTreeSet;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{LedgerError, Scope};

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenAction {
    /// See what runs, what is planned and what happened.
    Read,
    /// Deploy, promote, restart and scale.
    Deploy,
    /// Go back to an earlier deployment.
    Rollback,
    /// Everything.
    Admin,
}

/// What a token is good for. A list that is empty allows all there is, but for `actions`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TokenScope {
    /// What it may do. `Admin` includes the others.
    pub actions: BTreeSet<TokenAction>,
    /// Projects.
    pub projects: BTreeSet<String>,
    /// Environments.
    pub environments: BTreeSet<String>,
    /// Services.
    pub services: BTreeSet<String>,
    /// Image repositories without a tag, such as `ghcr.io/cheapa/api`: it can set only services
    /// whose image is one of these, and only to tags of the same repository.
    pub images: BTreeSet<String>,
}

impl TokenScope {
    /// Whether it may do this, anywhere.
    #[must_use]
    pub fn may(&self, action: TokenAction) -> bool {
        self.actions.contains(&TokenAction::Admin) || self.actions.contains(&action)
    }

    /// Whether it is good for this environment.
    #[must_use]
    pub fn covers(&self, scope: &Scope) -> bool {
        allows(&self.projects, &scope.project) && allows(&self.environments, &scope.environment)
    }

    /// Whether it is good for this service.
    #[must_use]
    pub fn covers_service(&self, service: &str) -> bool {
        allows(&self.services, service)
    }

    /// Whether it may name a tag of this image repository.
    #[must_use]
    pub fn covers_image(&self, repository: &str) -> bool {
        allows(&self.images, repository)
    }

    /// Whether it is good for all services, whatever their images.
    #[must_use]
    pub fn covers_all_services(&self) -> bool {
        self.services.is_empty() && self.images.is_empty()
    }
}

fn allows(list: &BTreeSet<String>, name: &str) -> bool {
    list.is_empty() || list.contains(name)
}

/// A token, without what proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its public part, by which it is found and revoked.
    pub id: String,
    /// A name for people, and for history.
    pub name: String,
    /// The BLAKE3 hash of its secret part, which is 32 random bytes: nothing that a slow hash would
    /// protect better.
    pub hash: [u8; 32],
    /// What it is good for.
    pub scope: TokenScope,
    /// Who made it.
    pub made_by: String,
    /// When, milliseconds since 1970.
    pub made_ms: i64,
    /// Until when it works, milliseconds since 1970.
    pub expires_ms: Option<i64>,
    /// When it was used last, milliseconds since 1970, to the minute.
    pub used_ms: Option<i64>,
    /// Since when it does not work any more, milliseconds since 1970.
    pub revoked_ms: Option<i64>,
}

impl Token {
    /// Whether it works at this time, milliseconds since 1970.
    #[must_use]
    pub fn works(&self, at_ms: i64) -> bool {
        self.revoked_ms.is_none() && self.expires_ms.is_none_or(|expires| at_ms < expires)
    }
}

/// The minute of a time, as [`Token::used_ms`] keeps it.
#[must_use]
pub const fn minute_of(at_ms: i64) -> i64 {
    at_ms - at_ms.rem_euclid(60_000)
}

/// Where tokens are kept.
#[async_trait]
pub trait Tokens: Send + Sync {
    /// Keeps a new one. One whose id is there is refused with [`LedgerError::Storage`], and the one
    /// that is there stays as it is.
    async fn add_token(&self, token: &Token) -> Result<(), LedgerError>;
    /// The token with this id.
    async fn token(&self, id: &str) -> Result<Option<Token>, LedgerError>;
    /// All, in the order in which they were added, also those that do not work any more.
    async fn tokens(&self) -> Result<Vec<Token>, LedgerError>;
    /// Writes down that it was used: the minute, and only where it is later than what is there. A
    /// token that is not there is no error.
    async fn token_used(&self, id: &str, at_ms: i64) -> Result<(), LedgerError>;
    /// Makes it not work any more. False, and nothing is changed, where there is none or it did not
    /// work before: it was revoked, or had expired by `at_ms`.
    async fn revoke_token(&self, id: &str, at_ms: i64) -> Result<bool, LedgerError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_list_that_is_empty_allows_all_but_no_action() {
        let scope = TokenScope::default();
        let prod = Scope { project: "shop".into(), environment: "prod".into() };
        assert!(scope.covers(&prod) && scope.covers_service("api") && scope.covers_image("x/y"));
        assert!(!scope.may(TokenAction::Read));
    }

    #[test]
    fn what_is_listed_is_all_that_is_allowed() {
        let scope = TokenScope {
            actions: [TokenAction::Deploy].into(),
            projects: set(&["shop"]),
            environments: set(&["prod"]),
            services: set(&["api"]),
            images: set(&["registry/shop/api"]),
        };
        let at = |project: &str, environment: &str| {
            scope.covers(&Scope { project: project.into(), environment: environment.into() })
        };
        assert!(at("shop", "prod") && !at("shop", "dev") && !at("other", "prod"));
        assert!(scope.covers_service("api") && !scope.covers_service("web"));
        assert!(scope.covers_image("registry/shop/api") && !scope.covers_image("registry/shop"));
        assert!(!scope.may(TokenAction::Rollback) && !scope.covers_all_services());
    }

    #[test]
    fn admin_may_do_everything() {
        let scope = TokenScope { actions: [TokenAction::Admin].into(), ..TokenScope::default() };
        assert!(scope.may(TokenAction::Rollback) && scope.may(TokenAction::Read));
    }
}
