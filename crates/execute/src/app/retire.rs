//! The end of a standby: frozen replicas of the release before are stopped.

use std::time::Duration;

use shiplap_model::{ContainerState, ReplicaName, Scope, Standing};

use super::deploy::LEASE_TTL;
use super::{App, AppError};

/// How long a frozen replica may take to end once it is stopped, where nothing else is known.
const GRACE: Option<Duration> = None;

impl App {
    /// Stops the replicas that wait, frozen, for a rollback to the release before deployment
    /// `number`, if that one is still the newest. They are kept, stopped. Returns their names.
    ///
    /// # Errors
    /// See [`AppError`].
    pub async fn retire(&self, scope: &Scope, number: u64) -> Result<Vec<String>, AppError> {
        let lease = self.ledger.acquire(scope, &self.who, LEASE_TTL).await??.key;
        let result = self.stop_frozen(scope, number).await;
        self.ledger.release(&lease).await?;
        result
    }

    async fn stop_frozen(&self, scope: &Scope, number: u64) -> Result<Vec<String>, AppError> {
        let newest = self.ledger.deployments(scope, 1).await?;
        if newest.first().is_some_and(|newest| newest.number != number) {
            return Ok(Vec::new());
        }
        let observed = self.engine.observe(&scope.project, None).await?;
        let mut stopped = Vec::new();
        for container in observed.containers {
            let aside = ReplicaName::parse(&container.name).1 == Standing::Aside;
            if aside && container.state == ContainerState::Paused {
                self.engine.stop(&container.name, GRACE).await?;
                stopped.push(container.name);
            }
        }
        Ok(stopped)
    }
}
