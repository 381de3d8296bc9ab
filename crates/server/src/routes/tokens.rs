//! Tokens, for those who may do everything.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CACHE_CONTROL;
use http::{HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use shiplap_model::{Token, TokenAction, TokenScope};
use utoipa::ToSchema;

use super::extract::{Json as Body, PathParts};
use crate::audit::Noted;
use crate::caller::Caller;
use crate::core::Core;
use crate::credential::NewToken;
use crate::names;
use crate::placing::{printable, quoted};
use crate::problem::{Problem, ProblemView};

/// The longest name of a token, in bytes.
const MAX_NAME: usize = 100;
/// Entries of one list of a token.
const MAX_LIST: usize = 100;

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ActionView {
    /// See what runs and what happened.
    Read,
    /// Deploy and promote.
    Deploy,
    /// Go back.
    Rollback,
    /// Everything.
    Admin,
}

impl From<ActionView> for TokenAction {
    fn from(view: ActionView) -> Self {
        match view {
            ActionView::Read => Self::Read,
            ActionView::Deploy => Self::Deploy,
            ActionView::Rollback => Self::Rollback,
            ActionView::Admin => Self::Admin,
        }
    }
}

impl From<TokenAction> for ActionView {
    fn from(action: TokenAction) -> Self {
        match action {
            TokenAction::Read => Self::Read,
            TokenAction::Deploy => Self::Deploy,
            TokenAction::Rollback => Self::Rollback,
            TokenAction::Admin => Self::Admin,
        }
    }
}

/// What a token is good for. A list that is empty allows all there is, but for `actions`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TokenScopeView {
    /// What it may do.
    pub actions: BTreeSet<ActionView>,
    /// Projects.
    pub projects: BTreeSet<String>,
    /// Environments.
    pub environments: BTreeSet<String>,
    /// Services.
    pub services: BTreeSet<String>,
    /// Image repositories without a tag: only services with such an image, only tags of it.
    pub images: BTreeSet<String>,
}

/// A token that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// A name for people, and for history.
    pub name: String,
    /// What it is good for.
    pub scope: TokenScopeView,
    /// Until when it works, milliseconds since 1970; for ever where absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires_ms: Option<i64>,
}

/// A token without what proves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// Its public part.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it is good for.
    pub scope: TokenScopeView,
    /// Who made it.
    pub made_by: String,
    /// When, milliseconds since 1970.
    pub made_ms: i64,
    /// Until when it works.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires_ms: Option<i64>,
    /// When it was used last, to the minute.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub used_ms: Option<i64>,
    /// Since when it does not work any more.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub revoked_ms: Option<i64>,
}

/// A token that was just made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewTokenView {
    /// What its holder gets. It is shown this once.
    pub token: String,
    /// What is kept of it.
    #[serde(flatten)]
    pub kept: TokenView,
}

impl From<Token> for TokenView {
    fn from(token: Token) -> Self {
        let TokenScope { actions, projects, environments, services, images } = token.scope;
        let actions = actions.into_iter().map(ActionView::from).collect();
        Self {
            id: token.id,
            name: token.name,
            scope: TokenScopeView { actions, projects, environments, services, images },
            made_by: token.made_by,
            made_ms: token.made_ms,
            expires_ms: token.expires_ms,
            used_ms: token.used_ms,
            revoked_ms: token.revoked_ms,
        }
    }
}

impl TokenRequest {
    /// What it is good for, checked: a typing error in a list must not make it good for nothing, or
    /// for all.
    fn scope(self) -> Result<TokenScope, Problem> {
        let TokenScopeView { actions, projects, environments, services, images } = self.scope;
        if actions.is_empty() {
            return Err(Problem::invalid("no-actions", "a token needs at least one action"));
        }
        let names = projects.iter().chain(&environments).chain(&services);
        let bad = names.into_iter().find(|name| !names::is_name(name));
        let bad = bad.or_else(|| images.iter().find(|image| !names::is_repository(image)));
        if let Some(bad) = bad {
            let message = format!("`{}` is not a name, or not an image without a tag", quoted(bad));
            return Err(Problem::invalid("bad-name", message));
        }
        if [&projects, &environments, &services, &images].iter().any(|list| list.len() > MAX_LIST) {
            let message = format!("a list has more than {MAX_LIST} entries");
            return Err(Problem::invalid("too-long", message));
        }
        let actions = actions.into_iter().map(TokenAction::from).collect();
        Ok(TokenScope { actions, projects, environments, services, images })
    }
}

fn check_admin(caller: &Caller) -> Result<(), Problem> {
    // Who may not do everything could otherwise make a token that may.
    let may = caller.may_everywhere(TokenAction::Admin);
    may.then_some(()).ok_or_else(|| Problem::hidden("such address"))
}

/// All tokens, the oldest first.
#[utoipa::path(
    get, path = "/api/v1/tokens", tag = "tokens",
    responses((status = 200, body = [TokenView]), (status = "4XX", body = ProblemView),
        (status = 503, body = ProblemView)),
)]
pub(crate) async fn list(
    State(core): State<Arc<Core>>,
    caller: Caller,
) -> Result<Json<Vec<TokenView>>, Problem> {
    check_admin(&caller)?;
    let tokens = core.health.seen(core.tokens.tokens().await)?;
    Ok(Json(tokens.into_iter().map(TokenView::from).collect()))
}

/// Make a token.
#[utoipa::path(
    post, path = "/api/v1/tokens", tag = "tokens", request_body = TokenRequest,
    responses((status = 201, body = NewTokenView), (status = "4XX", body = ProblemView),
        (status = 503, body = ProblemView)),
)]
pub(crate) async fn make(
    State(core): State<Arc<Core>>,
    caller: Caller,
    noted: Noted,
    Body(request): Body<TokenRequest>,
) -> Result<Response, Problem> {
    check_admin(&caller)?;
    let name = printable(&request.name);
    if name.is_empty() || name.len() > MAX_NAME {
        let message = format!("`name` has 1 to {MAX_NAME} bytes");
        return Err(Problem::invalid("bad-name", message));
    }
    let (expires_ms, now_ms) = (request.expires_ms, core.now_ms());
    if expires_ms.is_some_and(|end| end <= now_ms) {
        return Err(Problem::invalid("bad-time", "`expires_ms` is not in the future"));
    }
    let made = NewToken::make(&name, request.scope()?, &caller.who, now_ms, expires_ms);
    let made = made.map_err(|_| Problem::away("the system has no randomness right now"))?;
    core.health.seen(core.tokens.add_token(&made.token).await)?;
    noted.did(format!("made token {} ({name})", made.token.id));
    let view = NewTokenView { token: made.shown.expose().clone(), kept: made.token.into() };
    let headers = [(CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((StatusCode::CREATED, headers, Json(view)).into_response())
}

/// Make a token not work any more.
#[utoipa::path(
    delete, path = "/api/v1/tokens/{id}", tag = "tokens", params(("id" = String, Path)),
    responses((status = 204, description = "it does not work any more"),
        (status = "4XX", body = ProblemView), (status = 503, body = ProblemView)),
)]
pub(crate) async fn revoke(
    State(core): State<Arc<Core>>,
    caller: Caller,
    noted: Noted,
    path: PathParts,
) -> Result<StatusCode, Problem> {
    check_admin(&caller)?;
    let id = path.name("id")?;
    if !core.health.seen(core.tokens.revoke_token(id, core.now_ms()).await)? {
        return Err(Problem::hidden(format_args!("token `{}` that works", quoted(id))));
    }
    noted.did(format!("revoked token {id}"));
    Ok(StatusCode::NO_CONTENT)
}
