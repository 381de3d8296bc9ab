//! What the API shows: version 1 of its forms, for servers and for clients in Rust.
//!
//! Fields are added, never changed; clients ignore those that they do not know.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use shiplap_model::{Order, OrderEnd, OrderState, Wanted};
use utoipa::ToSchema;

/// An environment: what runs, what the files say, what the ledger says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct EnvironmentState {
    /// Where it runs, as the file names it.
    pub target: String,
    /// When it was looked at, milliseconds since 1970.
    pub looked_at_ms: i64,
    /// Why it could not be looked at since then, such as a target that does not answer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub problem: Option<String>,
    /// The deployment that is current.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub deployment: Option<u64>,
    /// One that has not ended, or is stuck.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unfinished: Option<u64>,
    /// The services by name.
    pub services: BTreeMap<String, ServiceState>,
    /// In what these differ, a line each; empty where all three agree.
    #[serde(default)]
    pub drift: Vec<String>,
}

/// A service of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct ServiceState {
    /// What its containers run; more than one in the middle of a deployment or with drift.
    #[serde(default)]
    pub runs: Vec<ImageState>,
    /// What the files say right now.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub file: Option<ImageState>,
    /// What the current deployment says.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ledger: Option<ImageState>,
    /// Replicas that run.
    pub running: u32,
    /// Replicas that there should be.
    pub wanted: u32,
    /// In what this service differs, a line each.
    #[serde(default)]
    pub drift: Vec<String>,
}

/// An image as one of the three names it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct ImageState {
    /// The name with its tag.
    pub reference: String,
    /// The registry's digest, or the image's id where it has none: `sha256:…`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub digest: Option<String>,
}

/// A deployment of an environment's history.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct DeploymentView {
    /// Its number in the environment.
    pub number: u64,
    /// What for: `deploy`, `rollback`, `promote` …
    pub kind: String,
    /// Who asked.
    pub who: String,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message: Option<String>,
    /// The commit that it comes from.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub revision: Option<String>,
    /// The order that led to it, where it came through a server.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub order: Option<u64>,
    /// When it began, milliseconds since 1970.
    pub started_ms: i64,
    /// When it ended, milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended_ms: Option<i64>,
    /// `done`, `failed`, `rolled back`, `stuck`, `interrupted`; absent while it goes on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub outcome: Option<String>,
    /// The reason, where it was not done.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// What changed, by service.
    #[serde(default)]
    pub services: BTreeMap<String, ServiceChange>,
}

/// A service that a deployment changed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct ServiceChange {
    /// Before; absent where the service was new.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub from: Option<ImageState>,
    /// After; absent where it was removed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub to: Option<ImageState>,
}

/// A deployment with its journal.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct DeploymentDetail {
    /// What it is.
    #[serde(flatten)]
    pub deployment: DeploymentView,
    /// What happened, in order.
    pub journal: Vec<JournalLine>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct JournalLine {
    /// When, milliseconds since 1970.
    pub at_ms: i64,
    /// The number of the step.
    pub step: u32,
    /// The step as the plan words it.
    pub what: String,
    /// `started`, `finished`, `failed` …
    pub state: String,
    /// More, such as the reason of a failure.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum WantedView {
    /// What the files say, with other tags for some services.
    Deploy {
        /// Tags by service.
        #[serde(default)]
        tags: BTreeMap<String, String>,
        /// Services that may be touched besides; all where both are empty.
        #[serde(default)]
        services: BTreeSet<String>,
    },
    /// What an earlier deployment had.
    Rollback {
        /// Services; all where empty.
        #[serde(default)]
        services: BTreeSet<String>,
        /// The deployment to go back to; the one before the current one where absent.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        to: Option<u64>,
    },
    /// The release of another environment.
    Promote {
        /// That environment.
        from: String,
        /// Its deployment; the current one where absent.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        deployment: Option<u64>,
    },
}

impl From<&Wanted> for WantedView {
    fn from(wanted: &Wanted) -> Self {
        match wanted.clone() {
            Wanted::Deploy { tags, services } => Self::Deploy { tags, services },
            Wanted::Rollback { services, to } => Self::Rollback { services, to },
            Wanted::Promote { from, deployment } => Self::Promote { from, deployment },
        }
    }
}

/// An order: something that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderView {
    /// Its number.
    pub id: u64,
    /// Where.
    pub project: String,
    /// Where.
    pub environment: String,
    /// What.
    pub wanted: WantedView,
    /// Who: a token's name, or user and host.
    pub who: String,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message: Option<String>,
    /// The commit that it comes from.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub revision: Option<String>,
    /// When it came, milliseconds since 1970.
    pub at_ms: i64,
    /// What became of it.
    pub state: OrderStateView,
    /// When it is due, milliseconds since 1970, while it waits.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub due_ms: Option<i64>,
    /// The server that is at it, while it runs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub server: Option<String>,
    /// The later order that does what it asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub merged_into: Option<u64>,
    /// How it ended, or the one that it was merged into.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub end: Option<EndView>,
}

/// What became of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OrderStateView {
    /// Nobody has begun.
    Waiting,
    /// A server is at it.
    Running,
    /// A later one does it.
    Merged,
    /// It came to its end.
    Ended,
}

/// How an order ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EndView {
    /// When, milliseconds since 1970.
    pub at_ms: i64,
    /// The exit code that the command would have had: 0 is success (docs/exit-codes.md).
    pub exit: u8,
    /// The deployment's number, where it came to one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub deployment: Option<u64>,
    /// What happened in a line.
    pub summary: String,
}

impl From<&OrderEnd> for EndView {
    fn from(end: &OrderEnd) -> Self {
        let OrderEnd { at_ms, exit, deployment, summary } = end.clone();
        Self { at_ms, exit, deployment, summary }
    }
}

impl OrderView {
    /// An order as it is shown; `doing` is the one that does what it asked for.
    pub(crate) fn new(order: &Order, doing: &Order) -> Self {
        let mut view = Self {
            id: order.id,
            project: order.new.scope.project.clone(),
            environment: order.new.scope.environment.clone(),
            wanted: WantedView::from(&order.new.wanted),
            who: order.new.who.clone(),
            message: order.new.message.clone(),
            revision: order.new.revision.clone(),
            at_ms: order.at_ms,
            state: OrderStateView::Waiting,
            due_ms: None,
            server: None,
            merged_into: None,
            end: None,
        };
        match &order.state {
            OrderState::Waiting { due_ms } => view.due_ms = Some(*due_ms),
            OrderState::Running { server, .. } => {
                view.state = OrderStateView::Running;
                view.server = Some(server.clone());
            }
            OrderState::Merged { into } => {
                view.state = OrderStateView::Merged;
                view.merged_into = Some(*into);
            }
            OrderState::Ended(_) => view.state = OrderStateView::Ended,
        }
        if let OrderState::Ended(end) = &doing.state {
            view.end = Some(EndView::from(end));
        }
        view
    }

    /// Whether it came to its end, and to a good one.
    pub(crate) fn succeeded(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end.exit == 0)
    }
}
