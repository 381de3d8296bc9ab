//! Keeping requests away from an environment by hand: maintenance, and a pause.
//!
//! Nothing of a deployment changes by that, so history does not tell of it; the edge does, and
//! [`App::status`](super::App::status) shows it.

use std::collections::BTreeSet;

use shiplap_model::{
    Limits, MaintenanceChange, PoolKey, PoolSpec, PoolStatus, Refusal, RouteChange, RouteTo,
    RouterState, Scope,
};

use super::{App, AppError};
use crate::holding::Last;

impl App {
    /// Puts an environment into maintenance, or takes it out. A deployment leaves it as it is.
    ///
    /// # Errors
    /// See [`AppError`]; refused where the edge answers nothing for the environment.
    pub async fn maintain(
        &self,
        scope: &Scope,
        change: MaintenanceChange,
        limits: &Limits,
    ) -> Result<(), AppError> {
        let change = RouteChange { maintenance: change, ..RouteChange::default() };
        self.change_routes(scope, limits, async |_, state| {
            if reached(state, scope).is_empty() && state.table.routes.is_empty() {
                return Err(nothing_routed(scope));
            }
            Ok(Some(change))
        })
        .await?;
        Ok(())
    }

    /// Holds what comes from outside: requests wait, for as long as the limit `hold` says and then
    /// get 503, and those that replicas have go on. Returns how many pools are held.
    ///
    /// # Errors
    /// See [`AppError`]; refused where the edge answers nothing for the environment, and while a
    /// deployment has not ended, which may hold requests itself.
    pub async fn pause(&self, scope: &Scope, limits: &Limits) -> Result<usize, AppError> {
        self.change_routes(scope, limits, async |app, state| {
            if let Some(unfinished) = app.unfinished(scope).await? {
                let number = unfinished.number();
                return Err(AppError::Refused(vec![Refusal {
                    code: "unfinished",
                    service: None,
                    path: Vec::new(),
                    message: format!("deployment {number} of {scope} has not ended"),
                    help: Some("`shiplap resume` ends it first".to_owned()),
                }]));
            }
            let keys = reached(state, scope);
            if keys.is_empty() {
                return Err(nothing_routed(scope));
            }
            let pools = state.pools.iter().filter(|(key, _)| keys.contains(key));
            Ok(Some(RouteChange {
                pools: pools.map(|(key, pool)| spec(key, pool, Hold::On)).collect(),
                ..RouteChange::default()
            }))
        })
        .await
    }

    /// Lets requests go on that a pause holds. Returns how many pools were held.
    ///
    /// # Errors
    /// See [`AppError`].
    pub async fn unpause(&self, scope: &Scope, limits: &Limits) -> Result<usize, AppError> {
        // Mostly there is nothing to do. Then nobody is kept out.
        let state = self.router.state(&scope.to_string()).await?.unwrap_or_default();
        if state.pools.values().all(|pool| !pool.held) {
            return Ok(0);
        }
        self.change_routes(scope, limits, async |app, state| {
            // What a deployment holds is let go by whoever ends it.
            if app.unfinished(scope).await?.is_some() {
                return Ok(None);
            }
            let held = state.pools.iter().filter(|(_, pool)| pool.held);
            Ok(Some(RouteChange {
                pools: held.map(|(key, pool)| spec(key, pool, Hold::Off)).collect(),
                ..RouteChange::default()
            }))
        })
        .await
    }

    /// Changes an environment's part of the edge's table under its lease, which keeps deployments
    /// from changing it at the same time. Returns how many pools are in the change.
    async fn change_routes(
        &self,
        scope: &Scope,
        limits: &Limits,
        change: impl AsyncFnOnce(&Self, &RouterState) -> Result<Option<RouteChange>, AppError>,
    ) -> Result<usize, AppError> {
        let owner = scope.to_string();
        self.with_lease(scope, limits, async |app, holding| {
            let state = app.router.state(&owner).await?;
            holding.claim(state.as_ref().map_or(0, |state| state.lease), false).await?;
            // Whoever had the lease before may have changed something meanwhile.
            let Some(state) = app.router.state(&owner).await? else {
                return Err(nothing_routed(scope));
            };
            let Some(change) = change(app, &state).await? else {
                return Ok((0, Last::AsBefore));
            };
            app.router.apply(&owner, &change).await?;
            Ok((change.pools.len(), Last::AsBefore))
        })
        .await
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    On,
    Off,
}

/// The pool as it is, but for that.
fn spec(key: &PoolKey, pool: &PoolStatus, hold: Hold) -> PoolSpec {
    PoolSpec {
        key: key.clone(),
        protocol: pool.protocol,
        held: hold == Hold::On,
        replicas: pool.replicas.iter().map(|(replica, _, _)| replica.clone()).collect(),
    }
}

/// The pools that are reached from outside: by routes, and by host ports. Those that only the
/// environment itself calls go on, so that what is in flight can end.
fn reached(state: &RouterState, scope: &Scope) -> BTreeSet<PoolKey> {
    let listeners = state.listeners.iter().map(|listener| listener.pool.clone());
    let routes = state.table.routes.iter().filter_map(|route| match &route.to {
        RouteTo::Service { service, port } => Some(PoolKey {
            project: scope.project.clone(),
            environment: scope.environment.clone(),
            service: service.clone(),
            port: *port,
        }),
        RouteTo::Redirect { .. } => None,
    });
    listeners.chain(routes).collect()
}

fn nothing_routed(scope: &Scope) -> AppError {
    AppError::Refused(vec![Refusal {
        code: "nothing-routed",
        service: None,
        path: Vec::new(),
        message: format!("no request of {scope} passes the edge"),
        help: Some("`shiplap deploy` brings its routes and published ports there".to_owned()),
    }])
}
