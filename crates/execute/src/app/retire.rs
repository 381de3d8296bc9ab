//! The end of a standby: frozen replicas of the release before are stopped.

use std::time::Duration;

use shiplap_model::{ContainerState, Limits, ReplicaName, Scope, Standing};

use super::{App, AppError};

/// How long a frozen replica may take to end once it is stopped, where nothing else is known.
const GRACE: Option<Duration> = None;

impl App {
    /// Stops those of these containers that still wait, frozen, for a rollback. They are kept,
    /// stopped. Returns their names.
    ///
    /// # Errors
    /// See [`AppError`].
    pub async fn retire(
        &self,
        scope: &Scope,
        containers: &[String],
    ) -> Result<Vec<String>, AppError> {
        let lease = self.ledger.acquire(scope, &self.who, Limits::default().lease).await??.key;
        let result = self.stop_frozen(containers).await;
        self.ledger.release(&lease).await?;
        result
    }

    async fn stop_frozen(&self, containers: &[String]) -> Result<Vec<String>, AppError> {
        let mut stopped = Vec::new();
        for id in containers {
            let Some(container) = self.engine.container(id).await? else { continue };
            let aside = ReplicaName::parse(&container.name).1 == Standing::Aside;
            if aside && container.state == ContainerState::Paused {
                self.engine.stop(id, GRACE).await?;
                stopped.push(container.name);
            }
        }
        Ok(stopped)
    }
}
