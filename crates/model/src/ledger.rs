//! The trait behind which history stands.
//!
//! A ledger records every deployment, step by step, and who may deploy. Its entries are chained
//! by hash. It holds no secret: whatever the user's files say beyond names is handed over as a
//! [`Secret`] and written encrypted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{Journal, JournalFact, Resumption, Secret};

/// One environment of one project.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope {
    /// The project.
    pub project: String,
    /// The environment.
    pub environment: String,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.project, self.environment)
    }
}

/// What a deployment made current, without any value of the environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredRelease {
    /// Version of this form: 1.
    pub version: u32,
    /// The services.
    pub services: BTreeMap<String, StoredService>,
}

/// A service of a stored release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredService {
    /// Its image.
    pub image: StoredImage,
    /// How many replicas.
    pub replicas: u32,
}

/// An image of a stored release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredImage {
    /// The name in the file.
    pub reference: String,
    /// The image's id, `sha256:…`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub id: Option<String>,
    /// The registry's digest, `sha256:…`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub digest: Option<String>,
}

/// What a deployment was asked to do, and what it found: what resuming it needs to know besides
/// its release and its values. Holds no value of the environment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StoredRequest {
    /// Version of this form: 1.
    pub version: u32,
    /// Services that may be touched; all where absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub services: Option<BTreeSet<String>>,
    /// Services whose replicas are replaced even where nothing changed.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", default)]
    pub force: BTreeSet<String>,
    /// Whether services that are not in the file are removed.
    #[serde(default)]
    pub remove_orphans: bool,
    /// Whether volumes are removed.
    #[serde(default)]
    pub remove_volumes: bool,
    /// Which version of which of the environment's secrets its values were made with; their values
    /// are in the binding alone.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub secrets: BTreeMap<String, u32>,
    /// Who said yes to the plan, where somebody had to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub approved_by: Option<String>,
    /// The order of a control server that it carries out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub order: Option<u64>,
    /// The commit that it comes from, as whoever asked for it named it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub revision: Option<String>,
    /// The group whose environments were deployed together, where it was one of them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub group: Option<StoredGroup>,
    /// What was there before.
    #[serde(default)]
    pub before: StoredBefore,
}

/// Environments that were deployed together.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StoredGroup {
    /// The group's name in `shiplap.yaml`.
    pub name: String,
    /// The same in all deployments that belong together, and in no others.
    pub id: String,
    /// Names of the environments that had something to do. Each of them has, or was to have, a
    /// deployment with this id.
    pub members: BTreeSet<String>,
}

/// What was there when a deployment began.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StoredBefore {
    /// The project's containers.
    #[serde(default)]
    pub containers: Vec<StoredContainer>,
    /// The project's networks, by engine name.
    #[serde(default)]
    pub networks: BTreeSet<String>,
}

/// A container that was there when a deployment began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredContainer {
    /// The engine's id.
    pub id: String,
    /// Its name then.
    pub name: String,
    /// The service.
    pub service: String,
    /// Whether it ran.
    pub running: bool,
    /// When the engine started it again by itself, in the words of Compose's `restart`.
    pub restart: String,
}

/// A deployment about to begin.
#[derive(Debug, Clone)]
pub struct NewDeployment {
    /// Where.
    pub scope: Scope,
    /// What for: `deploy`, `rollback`, `scale`, `restart`, `down`.
    pub kind: String,
    /// Who: user and host, or a token's name.
    pub who: String,
    /// Why, where the user said so.
    pub message: Option<String>,
    /// What should become current.
    pub release: StoredRelease,
    /// The environment's values, in the form of the use case that writes and reads them.
    pub binding: Secret<Vec<u8>>,
    /// The plan as shown, as JSON, without values.
    pub plan: serde_json::Value,
    /// What it was asked to do.
    pub request: StoredRequest,
    /// The lease under which it runs.
    pub lease: LeaseKey,
    /// The highest number that the target knows of: names of containers hold it, and a deployer
    /// with another ledger may have given it out. This one gets a higher one.
    pub after: u64,
}

/// A deployment as history knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployment {
    /// Where.
    pub scope: Scope,
    /// Its number, from 1, counted per environment.
    pub number: u64,
    /// What for.
    pub kind: String,
    /// Who.
    pub who: String,
    /// Why.
    pub message: Option<String>,
    /// What it should make current.
    pub release: StoredRelease,
    /// The plan as shown.
    pub plan: serde_json::Value,
    /// What it was asked to do; nothing where it began before that was written down.
    pub request: Option<StoredRequest>,
    /// When it began, milliseconds since 1970.
    pub started_ms: i64,
    /// How it went.
    pub state: DeploymentState,
}

/// How a deployment went; derived from its journal, never stored by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeploymentState {
    /// Begun or resumed, and not ended. Whether somebody is at it, the lease tells.
    Unfinished,
    /// Ended.
    Ended {
        /// When, milliseconds since 1970.
        at_ms: i64,
        /// How.
        outcome: Outcome,
        /// The reason, where it was not done.
        reason: Option<String>,
    },
}

/// How a deployment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is current.
    Done,
    /// It failed before anything was changed.
    Failed,
    /// It failed and was undone.
    RolledBack,
    /// It failed and could not be undone. It can be resumed.
    Stuck,
    /// Its deployer died, and it was neither finished nor undone: another one took over, or a
    /// person left it as it was.
    Interrupted,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::RolledBack => "rolled back",
            Self::Stuck => "stuck",
            Self::Interrupted => "interrupted",
        })
    }
}

/// What happened to a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepState {
    /// About to act.
    Started,
    /// Acted, and the effect was seen.
    Finished,
    /// Did not succeed.
    Failed,
    /// About to undo.
    UndoStarted,
    /// Undone.
    Undone,
    /// Could not be undone.
    UndoFailed,
}

/// One line of a deployment's journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// Number of the step in the plan.
    pub step: u32,
    /// The step as the plan words it.
    pub what: String,
    /// What happened.
    pub state: StepState,
    /// When, milliseconds since 1970.
    pub at_ms: i64,
    /// More, such as the reason of a failure. Holds no value of the environment.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
    /// The image that a finished step pulled or built.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub made: Option<StoredImage>,
}

/// Proof that one holds a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseKey {
    /// Where.
    pub scope: Scope,
    /// Grows with each holder of this scope.
    pub generation: u64,
}

/// A lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The proof.
    pub key: LeaseKey,
    /// When it ends unless renewed, milliseconds since 1970.
    pub expires_ms: i64,
}

/// Somebody else holds the lease.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{holder} is deploying {scope}")]
pub struct LeaseHeld {
    /// Where.
    pub scope: Scope,
    /// Who: user, host and process.
    pub holder: String,
    /// Since when, milliseconds since 1970.
    pub since_ms: i64,
    /// When it ends unless renewed, milliseconds since 1970.
    pub expires_ms: i64,
}

/// Where history is kept.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Takes the lease of a scope for `ttl`. A lease that has expired, or whose holder is a
    /// process of this machine that is gone, is taken over.
    async fn acquire(
        &self,
        scope: &Scope,
        holder: &str,
        ttl: Duration,
    ) -> Result<Result<Lease, LeaseHeld>, LedgerError>;
    /// Goes on with a lease under a generation of at least `generation`: the target knows a higher
    /// one than this ledger, say because another ledger was there before.
    async fn raise(&self, key: &LeaseKey, generation: u64) -> Result<Lease, LedgerError>;
    /// Prolongs a lease; [`LedgerError::LeaseLost`] when somebody else has it by now.
    async fn renew(&self, key: &LeaseKey, ttl: Duration) -> Result<Lease, LedgerError>;
    /// Gives a lease back. One that is not held any more is no error.
    async fn release(&self, key: &LeaseKey) -> Result<(), LedgerError>;
    /// Who holds the lease of a scope, if anybody.
    async fn holder(&self, scope: &Scope) -> Result<Option<LeaseHeld>, LedgerError>;

    /// Writes down that a deployment begins, and numbers it. Refused without the lease.
    async fn begin(&self, deployment: &NewDeployment) -> Result<u64, LedgerError>;
    /// Adds a line to a deployment's journal, on disk when this returns. Refused without the
    /// lease, and where it cannot follow what is there ([`crate::JournalState`]).
    async fn record(
        &self,
        lease: &LeaseKey,
        number: u64,
        entry: &JournalEntry,
    ) -> Result<(), LedgerError>;
    /// Writes down that a deployment which has not ended, or is stuck, is taken up again. Refused
    /// without the lease.
    async fn resume(
        &self,
        lease: &LeaseKey,
        number: u64,
        resumption: &Resumption,
    ) -> Result<(), LedgerError>;
    /// Writes down how a deployment ended, with the release as it turned out (images that were
    /// built have their ids by now). Refused without the lease.
    async fn end(
        &self,
        lease: &LeaseKey,
        number: u64,
        outcome: Outcome,
        reason: Option<&str>,
        release: &StoredRelease,
    ) -> Result<(), LedgerError>;

    /// Deployments of a scope, newest first, at most `limit`.
    async fn deployments(&self, scope: &Scope, limit: u32) -> Result<Vec<Deployment>, LedgerError>;
    /// One deployment.
    async fn deployment(
        &self,
        scope: &Scope,
        number: u64,
    ) -> Result<Option<Deployment>, LedgerError>;
    /// All that happened to a deployment, the oldest first.
    async fn facts(&self, scope: &Scope, number: u64) -> Result<Journal, LedgerError>;
    /// A deployment's lines about steps, of all attempts, oldest line first.
    async fn journal(&self, scope: &Scope, number: u64) -> Result<Vec<JournalEntry>, LedgerError> {
        let facts = self.facts(scope, number).await?.facts;
        let steps = facts.into_iter().filter_map(|fact| match fact {
            JournalFact::Step(entry) => Some(entry),
            JournalFact::Resumed(_) | JournalFact::Ended(_) => None,
        });
        Ok(steps.collect())
    }
    /// A deployment's values, decrypted.
    async fn binding(&self, scope: &Scope, number: u64) -> Result<Secret<Vec<u8>>, LedgerError>;
    /// All scopes that have a deployment.
    async fn scopes(&self) -> Result<Vec<Scope>, LedgerError>;
    /// A text that no other ledger has.
    fn id(&self) -> String;
    /// Checks the hash chain; returns how many entries it holds.
    async fn verify(&self) -> Result<u64, LedgerError>;
}

/// History could not be read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LedgerError {
    /// The lease is somebody else's by now; nothing was written.
    #[error("the lease of {0} is not ours any more")]
    LeaseLost(Scope),
    /// There is no such deployment.
    #[error("{0} has no deployment {1}")]
    NoSuchDeployment(Scope, u64),
    /// What should be added to a deployment cannot follow what is there; nothing was written.
    #[error("deployment {number} of {scope}: {reason}")]
    Illegal {
        /// Where.
        scope: Scope,
        /// Its number.
        number: u64,
        /// Why not.
        reason: String,
    },
    /// An entry does not fit the hash chain, or cannot be read.
    #[error("the ledger is damaged: {0}")]
    Damaged(String),
    /// Written by a newer version.
    #[error("the ledger has schema {found}, this version reads up to {known}")]
    TooNew {
        /// Its schema.
        found: i64,
        /// The newest that we read.
        known: i64,
    },
    /// The disk it is on is full.
    #[error("no space is left for the ledger: {0}")]
    DiskFull(String),
    /// The database does not answer, and was waited for. Trying again later is safe.
    #[error("the ledger cannot be reached: {0}")]
    Unreachable(String),
    /// The file system or the database refused.
    #[error("the ledger cannot be used: {0}")]
    Storage(String),
}
