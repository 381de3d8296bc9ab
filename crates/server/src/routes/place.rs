//! Deployments, rollbacks and promotions, as the native API takes them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, State};
use axum::response::Response;
use http::request::Parts;
use serde::{Deserialize, Serialize};
use shiplap_model::{NewOrder, Scope, TokenAction, Wanted};
use utoipa::ToSchema;

use super::answer::{self, WaitParam};
use super::extract::{At, IdempotencyKey, Json, Params};
use crate::audit::Noted;
use crate::caller::Caller;
use crate::catalog::Catalog;
use crate::core::Core;
use crate::names;
use crate::placing::{self, Setting};
use crate::problem::{Problem, ProblemView};
use crate::view::OrderView;

/// A deployment that is asked for. With neither `services` nor `images`, everything is deployed as
/// the files say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeploymentRequest {
    /// Services and their tags: `{"api": "abc123"}`. A service with `null` is deployed as the files
    /// say. A tag may carry the digest that it must have: `abc123@sha256:…`.
    pub services: BTreeMap<String, Option<String>>,
    /// Images, for all services that have them: `["ghcr.io/cheapa/api:abc123"]`.
    pub images: Vec<String>,
    /// Why, for history.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The commit that it comes from, for history.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// How long to wait for other orders that it can be merged with: `0s`, `10s`. The server's
    /// setting where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settle: Option<String>,
}

/// A rollback that is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RollbackRequest {
    /// Services; all where empty.
    pub services: BTreeSet<String>,
    /// The deployment to go back to; the one before the current one where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
    /// Why, for history.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A promotion that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PromotionRequest {
    /// The environment whose release is taken.
    pub from: String,
    /// Its deployment; the current one where absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub deployment: Option<u64>,
    /// Why, for history.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message: Option<String>,
}

/// Who asks, for what place and how.
pub(crate) struct Asking {
    caller: Caller,
    scope: Scope,
    key: Option<String>,
    wait: WaitParam,
    noted: Noted,
}

impl FromRequestParts<Arc<Core>> for Asking {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, core: &Arc<Core>) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, core).await?;
        let At(scope) = At::from_request_parts(parts, core).await?;
        let IdempotencyKey(key) = IdempotencyKey::from_request_parts(parts, core).await?;
        let Params(wait) = Params::from_request_parts(parts, core).await?;
        let Ok(noted) = Noted::from_request_parts(parts, core).await;
        Ok(Self { caller, scope, key, wait, noted })
    }
}

impl Asking {
    /// What they may set, where they may do this here at all.
    fn setting<'a>(
        &'a self,
        catalog: &'a Catalog,
        action: TokenAction,
    ) -> Result<Setting<'a>, Problem> {
        let entry =
            catalog.environment(&self.scope).filter(|_| self.caller.may(action, &self.scope));
        let entry = entry.ok_or_else(|| Problem::no_environment(&self.scope))?;
        Ok(Setting { caller: Some(&self.caller), scope: &self.scope, entry })
    }

    async fn place(
        &self,
        core: &Core,
        wanted: Wanted,
        why: (Option<String>, Option<String>),
        settle: Duration,
    ) -> Result<Response, Problem> {
        let wait = self.wait.limit(core)?;
        let order = NewOrder {
            scope: self.scope.clone(),
            wanted,
            who: self.caller.who.clone(),
            token: self.caller.token.clone(),
            message: placing::message(why.0)?,
            revision: placing::revision(why.1)?,
            idempotency_key: self.key.clone(),
            settle,
        };
        let placed = placing::place(core, &self.noted, &order).await?;
        Ok(answer::one_order(core, placed.id, wait).await)
    }
}

/// Deploy.
#[utoipa::path(
    post, path = "/api/v1/environments/{project}/{environment}/deployments", tag = "deployments",
    params(("project" = String, Path), ("environment" = String, Path), WaitParam,
        ("Idempotency-Key" = Option<String>, Header, description = "asked again with the same key, there is one order")),
    request_body = DeploymentRequest,
    responses(
        (status = 202, body = OrderView, description = "ordered"),
        (status = 200, body = OrderView, description = "with `wait`: done"),
        (status = 424, body = ProblemView, description = "with `wait`: failed"),
        (status = 408, body = ProblemView, description = "with `wait`: still goes on"),
        (status = "4XX", body = ProblemView), (status = 503, body = ProblemView),
    ),
)]
pub(crate) async fn deploy(
    State(core): State<Arc<Core>>,
    asking: Asking,
    Json(request): Json<DeploymentRequest>,
) -> Result<Response, Problem> {
    let catalog = core.works.catalog().await;
    let setting = asking.setting(&catalog, TokenAction::Deploy)?;
    let mut asked = request.services;
    for image in &request.images {
        for (service, tag) in setting.of_image(image)? {
            if asked.get(&service).is_some_and(|other| *other != tag) {
                let message = format!("`{service}` is asked for twice, with different tags");
                return Err(Problem::invalid("conflicting-tags", message));
            }
            asked.insert(service, tag);
        }
    }
    if asked.is_empty() {
        setting.check_all_covered()?;
    }
    let wanted = setting.deploy(&asked)?;
    let settle = placing::settle(&core, request.settle.as_deref())?;
    asking.place(&core, wanted, (request.message, request.revision), settle).await
}

/// Go back.
#[utoipa::path(
    post, path = "/api/v1/environments/{project}/{environment}/rollbacks", tag = "deployments",
    params(("project" = String, Path), ("environment" = String, Path), WaitParam,
        ("Idempotency-Key" = Option<String>, Header, description = "asked again with the same key, there is one order")),
    request_body = RollbackRequest,
    responses(
        (status = 202, body = OrderView, description = "ordered"),
        (status = 200, body = OrderView, description = "with `wait`: done"),
        (status = 424, body = ProblemView, description = "with `wait`: failed"),
        (status = 408, body = ProblemView, description = "with `wait`: still goes on"),
        (status = "4XX", body = ProblemView), (status = 503, body = ProblemView),
    ),
)]
pub(crate) async fn rollback(
    State(core): State<Arc<Core>>,
    asking: Asking,
    Json(request): Json<RollbackRequest>,
) -> Result<Response, Problem> {
    let catalog = core.works.catalog().await;
    // Where the files cannot be read, going back is still possible: it needs none.
    let setting = asking.setting(&catalog, TokenAction::Rollback)?;
    if request.services.is_empty() {
        setting.check_all_covered()?;
    }
    request.services.iter().try_for_each(|service| setting.check_covered(service))?;
    let to = request.to.map(deployment_number).transpose()?;
    let wanted = Wanted::Rollback { services: request.services, to };
    asking.place(&core, wanted, (request.message, None), Duration::ZERO).await
}

/// Make the release of another environment current.
#[utoipa::path(
    post, path = "/api/v1/environments/{project}/{environment}/promotions", tag = "deployments",
    params(("project" = String, Path), ("environment" = String, Path), WaitParam,
        ("Idempotency-Key" = Option<String>, Header, description = "asked again with the same key, there is one order")),
    request_body = PromotionRequest,
    responses(
        (status = 202, body = OrderView, description = "ordered"),
        (status = 200, body = OrderView, description = "with `wait`: done"),
        (status = 424, body = ProblemView, description = "with `wait`: failed"),
        (status = 408, body = ProblemView, description = "with `wait`: still goes on"),
        (status = "4XX", body = ProblemView), (status = 503, body = ProblemView),
    ),
)]
pub(crate) async fn promote(
    State(core): State<Arc<Core>>,
    asking: Asking,
    Json(request): Json<PromotionRequest>,
) -> Result<Response, Problem> {
    let catalog = core.works.catalog().await;
    let setting = asking.setting(&catalog, TokenAction::Deploy)?;
    setting.check_usable()?;
    setting.check_all_covered()?;
    let from = names::scope(&asking.scope.project, &request.from).filter(|from| {
        catalog.environment(from).is_some() && asking.caller.may(TokenAction::Deploy, from)
    });
    let Some(from) = from else {
        let what =
            format!("environment `{}/{}`", asking.scope.project, placing::quoted(&request.from));
        return Err(Problem::hidden(what));
    };
    if from == asking.scope {
        return Err(Problem::invalid("same-environment", "`from` is the environment itself"));
    }
    let deployment = request.deployment.map(deployment_number).transpose()?;
    let wanted = Wanted::Promote { from: from.environment, deployment };
    asking.place(&core, wanted, (request.message, None), Duration::ZERO).await
}

/// Deployments are numbered from 1; ledgers count in signed numbers.
fn deployment_number(number: u64) -> Result<u64, Problem> {
    if number > 0 && i64::try_from(number).is_ok() {
        return Ok(number);
    }
    Err(Problem::invalid("bad-number", "deployments are numbered from 1"))
}
