//! The end of a standby: frozen replicas of the release before are stopped.

use std::time::Duration;

use shiplap_model::{ContainerState, Limits, ObservedContainer, ReplicaName, Scope, Standing};

use super::{App, AppError};
use crate::holding::Last;

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
        self.with_lease(scope, &Limits::default(), async |app, holding| {
            let frozen = app.frozen(containers).await?;
            if frozen.is_empty() {
                return Ok((Vec::new(), Last::AsBefore));
            }
            // A deployer with another ledger may be about to thaw them.
            let edge = app.router.state(&scope.to_string()).await?;
            holding.claim(edge.map_or(0, |edge| edge.lease), false).await?;
            // It may have done so while it was waited for.
            let frozen = app.frozen(containers).await?;
            for container in &frozen {
                app.engine.stop(&container.id, GRACE).await?;
            }
            let names = frozen.into_iter().map(|container| container.name).collect();
            Ok((names, Last::Something))
        })
        .await
    }

    /// Those of these containers that wait.
    async fn frozen(&self, containers: &[String]) -> Result<Vec<ObservedContainer>, AppError> {
        let mut frozen = Vec::new();
        for id in containers {
            let Some(container) = self.engine.container(id).await? else { continue };
            let aside = ReplicaName::parse(&container.name).1 == Standing::Aside;
            if aside && container.state == ContainerState::Paused {
                frozen.push(container);
            }
        }
        Ok(frozen)
    }
}
