//! What runs, and what happened.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use shiplap_model::{Scope, TokenAction};
use utoipa::{IntoParams, ToSchema};

use super::extract::{At, Params, PathParts};
use crate::caller::Caller;
use crate::catalog::{Catalog, EnvironmentEntry};
use crate::core::Core;
use crate::problem::{Problem, ProblemView};
use crate::view::{DeploymentDetail, DeploymentView, EnvironmentState};
use crate::works::WorksError;

/// Entries of a list, where the caller does not say.
const LIMIT: u32 = 20;
/// The most.
const MAX_LIMIT: u32 = 200;

/// An environment of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnvironmentView {
    /// Its project.
    pub project: String,
    /// Its name.
    pub environment: String,
    /// Where it runs, as the file names it.
    pub target: String,
    /// The images that the files say right now, by service.
    pub services: BTreeMap<String, String>,
    /// Why it cannot be deployed right now.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub problem: Option<String>,
}

/// How much of a list.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageParams {
    /// At most so many, up to 200; 20 where absent.
    #[param(required = false)]
    limit: Option<u32>,
    /// Only numbers below this one.
    #[param(required = false)]
    before: Option<u64>,
}

impl PageParams {
    pub(crate) fn limit(&self) -> u32 {
        self.limit.unwrap_or(LIMIT).clamp(1, MAX_LIMIT)
    }
}

impl From<WorksError> for Problem {
    fn from(error: WorksError) -> Self {
        match error {
            WorksError::NoSuchEnvironment(scope) => Self::no_environment(&scope),
            WorksError::Away(why) => Self::away(why),
        }
    }
}

/// The environment, where it is there and the caller may look at it.
pub(crate) fn readable<'a>(
    catalog: &'a Catalog,
    caller: &Caller,
    scope: &Scope,
) -> Result<&'a EnvironmentEntry, Problem> {
    let entry = catalog.environment(scope).filter(|_| caller.may(TokenAction::Read, scope));
    entry.ok_or_else(|| Problem::no_environment(scope))
}

/// All environments that the token is for.
#[utoipa::path(
    get, path = "/api/v1/environments", tag = "environments",
    responses((status = 200, body = [EnvironmentView]), (status = "4XX", body = ProblemView),
        (status = 503, body = ProblemView)),
)]
pub(crate) async fn list(
    State(core): State<Arc<Core>>,
    caller: Caller,
) -> Json<Vec<EnvironmentView>> {
    let catalog = core.works.catalog().await;
    let readable = catalog.environments().filter(|(scope, _)| caller.may(TokenAction::Read, scope));
    let views = readable.map(|(scope, entry)| EnvironmentView {
        services: entry
            .services
            .iter()
            .filter(|(name, service)| caller.covers(name, service))
            .map(|(name, service)| (name.clone(), service.image.clone()))
            .collect(),
        problem: catalog
            .projects
            .get(&scope.project)
            .and_then(|project| project.problem.clone())
            .or_else(|| entry.problem.clone()),
        target: entry.target.clone(),
        project: scope.project,
        environment: scope.environment,
    });
    Json(views.collect())
}

/// What runs, what the files say and what the ledger says.
#[utoipa::path(
    get, path = "/api/v1/environments/{project}/{environment}", tag = "environments",
    params(("project" = String, Path), ("environment" = String, Path)),
    responses((status = 200, body = EnvironmentState), (status = "4XX", body = ProblemView),
        (status = 503, body = ProblemView)),
)]
pub(crate) async fn show(
    State(core): State<Arc<Core>>,
    caller: Caller,
    At(scope): At,
) -> Result<Json<EnvironmentState>, Problem> {
    let catalog = core.works.catalog().await;
    let entry = readable(&catalog, &caller, &scope)?;
    let mut state = core.works.state(&scope).await?;
    if !caller.covers_all_services() {
        state.services.retain(|service, _| caller.covers_named(service, entry));
        // Those lines may speak of any service; each service has its own.
        state.drift = state.services.values().flat_map(|service| service.drift.clone()).collect();
    }
    Ok(Json(state))
}

/// History, newest first.
#[utoipa::path(
    get, path = "/api/v1/environments/{project}/{environment}/deployments", tag = "deployments",
    params(("project" = String, Path), ("environment" = String, Path), PageParams),
    responses((status = 200, body = [DeploymentView]), (status = "4XX", body = ProblemView),
        (status = 503, body = ProblemView)),
)]
pub(crate) async fn history(
    State(core): State<Arc<Core>>,
    caller: Caller,
    At(scope): At,
    Params(page): Params<PageParams>,
) -> Result<Json<Vec<DeploymentView>>, Problem> {
    let catalog = core.works.catalog().await;
    let entry = readable(&catalog, &caller, &scope)?;
    let before = page.before.filter(|before| i64::try_from(*before).is_ok());
    let mut deployments = core.works.history(&scope, before, page.limit()).await?;
    for deployment in &mut deployments {
        hide(&caller, entry, deployment);
    }
    Ok(Json(deployments))
}

/// One deployment, with what happened.
#[utoipa::path(
    get, path = "/api/v1/environments/{project}/{environment}/deployments/{number}", tag = "deployments",
    params(("project" = String, Path), ("environment" = String, Path), ("number" = u64, Path)),
    responses((status = 200, body = DeploymentDetail), (status = "4XX", body = ProblemView),
        (status = 503, body = ProblemView)),
)]
pub(crate) async fn deployment(
    State(core): State<Arc<Core>>,
    caller: Caller,
    At(scope): At,
    path: PathParts,
) -> Result<Json<DeploymentDetail>, Problem> {
    let catalog = core.works.catalog().await;
    let entry = readable(&catalog, &caller, &scope)?;
    let number = path.number("number")?;
    let detail = core.works.deployment(&scope, number).await?;
    let mut detail =
        detail.ok_or_else(|| Problem::hidden(format_args!("deployment {number} of {scope}")))?;
    hide(&caller, entry, &mut detail.deployment);
    if !caller.covers_all_services() {
        detail.journal.clear();
    }
    Ok(Json(detail))
}

/// Takes out what the caller is not good for: other services, and reasons that name them.
fn hide(caller: &Caller, entry: &EnvironmentEntry, deployment: &mut DeploymentView) {
    if caller.covers_all_services() {
        return;
    }
    deployment.services.retain(|service, _| caller.covers_named(service, entry));
    if deployment.services.is_empty() {
        deployment.reason = None;
        deployment.message = None;
    }
}
