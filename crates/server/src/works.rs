//! What stands behind the API: the files, and whoever carries orders out.

use std::sync::Arc;

use async_trait::async_trait;
use shiplap_model::{Claim, OrderEnd, Scope};

use crate::catalog::Catalog;
use crate::stop::Stop;
use crate::view::{DeploymentDetail, DeploymentView, EnvironmentState};

/// What the server needs of the world. All of it may be called at the same time.
#[async_trait]
pub trait Works: Send + Sync {
    /// What there is to deploy. Called for every request, so an implementation keeps it and looks
    /// at the files again when they change.
    async fn catalog(&self) -> Arc<Catalog>;

    /// Carries an order out, to its end. Called for one order of a scope at a time, by one of the
    /// servers that share the queue; for one with `claim.resumed`, what another server has begun is
    /// in the ledger and may still be under way.
    ///
    /// Progress goes to `events`. When `stop` asks, the way to the end is the implementation's to
    /// choose, by the reason: see [`crate::StopReason`]. The future is never dropped before it is
    /// done, but for a server that leaves and has waited for as long as it may.
    async fn carry_out(&self, claim: &Claim, events: &dyn EventSink, stop: &Stop) -> CarriedOut;

    /// What runs, what the files say and what the ledger says. May be a snapshot of some seconds
    /// ago; says of when.
    async fn state(&self, scope: &Scope) -> Result<EnvironmentState, WorksError>;

    /// Deployments, newest first, at most `limit`, with numbers below `before` where it is given.
    async fn history(
        &self,
        scope: &Scope,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<DeploymentView>, WorksError>;

    /// One deployment with its journal.
    async fn deployment(
        &self,
        scope: &Scope,
        number: u64,
    ) -> Result<Option<DeploymentDetail>, WorksError>;
}

/// What became of an order that was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CarriedOut {
    /// It came to its end, which the server writes down.
    Ended(OrderEnd),
    /// It did not, because `stop` asked: nobody here is at it any more, and another server (or this
    /// one after it was started again) takes it up when the claim has run out.
    Left,
}

/// Where progress goes. Never blocks: whoever reads too slowly misses lines, not the end.
pub trait EventSink: Send + Sync {
    /// A line for people, without any value of the environment. Longer ones than 4 KiB are cut.
    fn line(&self, text: &str);
    /// The number of the deployment that it came to, as soon as it is known.
    fn deployment(&self, number: u64);
}

/// Why something could not be looked up.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WorksError {
    /// There is no such environment (any more).
    #[error("there is no environment {0}")]
    NoSuchEnvironment(Scope),
    /// The ledger, the target or its engine does not answer. Trying again is safe. The text is for
    /// callers and holds no value of the environment.
    #[error("{0}")]
    Away(String),
}
