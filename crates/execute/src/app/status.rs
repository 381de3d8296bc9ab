//! What is running.

use shiplap_model::{Deployment, LeaseHeld, ObservedContainer, ReplicaName, RouterState, Standing};

use super::{App, AppError, Source, Unfinished};

/// One service.
#[derive(Debug, Clone)]
pub struct ServiceStatus {
    /// Its name.
    pub service: String,
    /// Its containers that are meant to run, in order of name.
    pub replicas: Vec<ObservedContainer>,
    /// How many are wanted; nothing for a service that is not in the files.
    pub wanted: Option<u32>,
    /// Containers kept for a rollback or for a look.
    pub aside: Vec<ObservedContainer>,
}

/// An environment.
#[derive(Debug, Clone)]
pub struct Status {
    /// Its services, in order of name.
    pub services: Vec<ServiceStatus>,
    /// What the edge does for it.
    pub router: Option<RouterState>,
    /// The deployment that is current.
    pub current: Option<Deployment>,
    /// The newest deployment, however it went.
    pub newest: Option<Deployment>,
    /// The deployment that did not end, if there is one.
    pub unfinished: Option<Unfinished>,
    /// Who is deploying.
    pub holder: Option<LeaseHeld>,
}

impl App {
    /// Looks at an environment.
    ///
    /// # Errors
    /// See [`AppError`].
    pub async fn status(&self, source: &Source) -> Result<Status, AppError> {
        let scope = source.scope();
        let owner = scope.to_string();
        let (observed, router) =
            tokio::join!(self.engine.observe(&scope.project, None), self.router.state(&owner));
        let observed = observed?;
        let history = self.ledger.deployments(&scope, 100).await?;
        let project = &source.loaded.project;
        let mut names: Vec<String> = project.services.keys().cloned().collect();
        names.extend(observed.containers.iter().map(|c| c.service.clone()));
        names.sort();
        names.dedup();
        let current = super::deploy::current(&history);
        let services = names
            .into_iter()
            .map(|service| {
                let mine = observed.containers.iter().filter(|c| c.service == service);
                let (replicas, aside) =
                    mine.cloned().partition(|c| ReplicaName::parse(&c.name).1 == Standing::Live);
                let released = current
                    .and_then(|(_, release)| release.services.get(&service))
                    .map(|service| service.replicas);
                let wanted =
                    released.or_else(|| project.services.get(&service).map(|s| s.replicas()));
                ServiceStatus { service, replicas, wanted, aside }
            })
            .collect();
        Ok(Status {
            services,
            router: router?,
            current: current.map(|(deployment, _)| deployment.clone()),
            newest: history.first().cloned(),
            unfinished: self.unfinished(&scope).await?,
            holder: self.ledger.holder(&scope).await?,
        })
    }
}
