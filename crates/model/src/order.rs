//! What a control server was asked to do, before and while it becomes a deployment.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{LedgerError, Scope};

/// What is asked for. Written down as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Wanted {
    /// What the files say, with other tags for some services.
    Deploy {
        /// Tags by service; written to the environment's versions file where it has one.
        #[serde(default)]
        tags: BTreeMap<String, String>,
        /// Services that may be touched besides those of `tags`; all where both are empty.
        #[serde(default)]
        services: BTreeSet<String>,
    },
    /// What an earlier deployment had.
    Rollback {
        /// Services; all where empty.
        #[serde(default)]
        services: BTreeSet<String>,
        /// The deployment to go back to; the one before the current one where absent.
        #[serde(default)]
        to: Option<u64>,
    },
    /// The release of another environment of the project.
    Promote {
        /// That environment.
        from: String,
        /// Its deployment; the current one where absent.
        #[serde(default)]
        deployment: Option<u64>,
    },
}

impl Wanted {
    /// The word for it: `deploy`, `rollback`, `promote`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Deploy { .. } => "deploy",
            Self::Rollback { .. } => "rollback",
            Self::Promote { .. } => "promote",
        }
    }

    /// One that does what this and a later one ask for, the later one winning where both name a
    /// service; nothing where that cannot be said in one. Only deployments that name what they
    /// touch can be: one of everything deploys what the files say when it begins.
    #[must_use]
    pub fn merged(&self, later: &Self) -> Option<Self> {
        let Self::Deploy { tags, services } = self else { return None };
        let Self::Deploy { tags: later_tags, services: later_services } = later else {
            return None;
        };
        let all =
            |tags: &BTreeMap<_, _>, services: &BTreeSet<_>| tags.is_empty() && services.is_empty();
        if all(tags, services) != all(later_tags, later_services) {
            return None;
        }
        let mut tags = tags.clone();
        tags.extend(later_tags.iter().map(|(service, tag)| (service.clone(), tag.clone())));
        Some(Self::Deploy { tags, services: services | later_services })
    }
}

/// Something to be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOrder {
    /// Where.
    pub scope: Scope,
    /// What.
    pub wanted: Wanted,
    /// Who: a token's name, or user and host.
    pub who: String,
    /// The id of the token, where it came with one.
    pub token: Option<String>,
    /// Why, for history.
    pub message: Option<String>,
    /// The commit that it comes from, as the caller names it.
    pub revision: Option<String>,
    /// Whoever asks for the same again (scope, what, why and from where) with the same key and the
    /// same token within [`KEY_LASTS`] gets the order that is there. Those that came without a
    /// token share one.
    pub idempotency_key: Option<String>,
    /// How long it waits for others that it can be merged with. Orders do not overtake each other:
    /// one that waits less makes those before it in its scope wait no longer than itself.
    pub settle: Duration,
}

impl NewOrder {
    /// Whether another one asks for the same, as its idempotency key claims.
    #[must_use]
    pub fn asks_the_same(&self, other: &Self) -> bool {
        (&self.scope, &self.wanted, &self.message, &self.revision)
            == (&other.scope, &other.wanted, &other.message, &other.revision)
    }
}

/// An order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Its number, from 1, over all scopes; later ones are higher.
    pub id: u64,
    /// What was asked for. Of one that others were merged into, what is done for all.
    pub new: NewOrder,
    /// When it came, milliseconds since 1970.
    pub at_ms: i64,
    /// What became of it.
    pub state: OrderState,
}

/// What became of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderState {
    /// Nobody has begun.
    Waiting {
        /// When it is due, milliseconds since 1970.
        due_ms: i64,
    },
    /// A server is at it.
    Running {
        /// Which one.
        server: String,
        /// Since when, milliseconds since 1970.
        since_ms: i64,
    },
    /// It is done for by a later one.
    Merged {
        /// That one.
        into: u64,
    },
    /// It came to its end.
    Ended(OrderEnd),
}

/// How an order ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderEnd {
    /// When, milliseconds since 1970.
    pub at_ms: i64,
    /// The exit code that the command would have had: 0 is success, also where nothing was to do.
    pub exit: u8,
    /// The deployment's number, where it came to one.
    #[serde(default)]
    pub deployment: Option<u64>,
    /// What happened in a line, without any value of the environment.
    #[serde(default)]
    pub summary: String,
}

/// What placing an order came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Its number.
    pub id: u64,
    /// Whether it was there already, by its idempotency key.
    pub repeated: bool,
}

/// Why an order was not taken.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OrderError {
    /// The idempotency key was used for something else.
    #[error("the idempotency key was used for another order ({0})")]
    KeyReused(u64),
    /// Too many are waiting in its scope; nothing was written.
    #[error("{0} orders are waiting already")]
    Full(u32),
    /// Another server has taken it over, so it is not ours to end.
    #[error("another server is at order {0}")]
    Lost(u64),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// A server's work: one order at a time and scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The order, with all that was merged into it.
    pub order: Order,
    /// Whether another server was at it before, whose claim has run out: what that one has begun is
    /// in the ledger, under the order's number.
    pub resumed: bool,
    /// Grows with each claim of this order; [`Orders::keep`] and [`Orders::finish`] name it.
    pub generation: u64,
}

/// The most orders that may wait in one scope.
pub const MAX_WAITING: u32 = 100;

/// How long an idempotency key stands for its order.
pub const KEY_LASTS: Duration = Duration::from_secs(24 * 60 * 60);

/// How long an order is kept after it was merged or has ended; history keeps the deployment.
pub const ORDERS_KEPT: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// The queue of control servers. Several may share one.
///
/// Orders of one scope are done one after the other, in the order in which they came. Those of
/// different scopes know nothing of each other.
#[async_trait]
pub trait Orders: Send + Sync {
    /// Writes an order down; it is on disk when this returns. One with an idempotency key that is
    /// there already is not written again, also where too many are waiting. Forgets orders that
    /// were merged or have ended longer ago than [`ORDERS_KEPT`].
    async fn place(&self, order: &NewOrder) -> Result<Placed, OrderError>;
    /// Takes the oldest order that is due and in whose scope no other one is running, together with
    /// those of its scope that follow it, due or not, up to the first that it cannot be merged
    /// with: they end as `Merged` into the newest of them, which is the one that is returned, with
    /// all that was asked for. One whose claim has run out comes before all others of its scope,
    /// alone. A claim runs out after its `ttl`, or as soon as the process that made it is one of
    /// this machine that is gone. Exactly one caller gets an order.
    async fn claim(&self, server: &str, ttl: Duration) -> Result<Option<Claim>, OrderError>;
    /// Prolongs a claim, also one that has run out and that nobody took; [`OrderError::Lost`] when
    /// somebody else has it by now, or it has ended.
    async fn keep(&self, claim: &Claim, ttl: Duration) -> Result<(), OrderError>;
    /// Writes down how it ended; [`OrderError::Lost`] as above. Who says the same twice is right
    /// twice.
    async fn finish(&self, claim: &Claim, end: &OrderEnd) -> Result<(), OrderError>;
    /// One order.
    async fn order(&self, id: u64) -> Result<Option<Order>, OrderError>;
    /// Orders, newest first, at most `limit`; of one scope where it is given.
    async fn orders(&self, scope: Option<&Scope>, limit: u32) -> Result<Vec<Order>, OrderError>;
    /// A number that is another one when an order was placed, taken or ended since, and the same
    /// when not: whoever waits need not read everything again.
    async fn orders_revision(&self) -> Result<u64, OrderError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deploy(tags: &[(&str, &str)], services: &[&str]) -> Wanted {
        Wanted::Deploy {
            tags: tags.iter().map(|(s, t)| ((*s).to_owned(), (*t).to_owned())).collect(),
            services: services.iter().map(|s| (*s).to_owned()).collect(),
        }
    }

    #[test]
    fn of_several_tags_for_one_service_the_last_one_is_deployed() {
        let merged =
            deploy(&[("api", "1"), ("web", "1")], &[]).merged(&deploy(&[("api", "2")], &["db"]));
        assert_eq!(merged, Some(deploy(&[("api", "2"), ("web", "1")], &["db"])));
    }

    #[test]
    fn what_cannot_be_said_in_one_is_not_merged() {
        let all = deploy(&[], &[]);
        let api = deploy(&[("api", "1")], &[]);
        let back = Wanted::Rollback { services: BTreeSet::new(), to: None };
        assert_eq!(all.merged(&api), None);
        assert_eq!(api.merged(&all), None);
        assert_eq!(api.merged(&back), None);
        assert_eq!(back.merged(&back), None);
        assert_eq!(all.merged(&all), Some(all.clone()));
    }
}
