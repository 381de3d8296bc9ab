//! What the API shows: version 1 of its forms, for servers and for clients in Rust.
//!
//! Fields are added, never changed; clients ignore those that they do not know.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
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
