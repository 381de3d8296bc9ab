//! Answers that are no success, in one form for all routes.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use shiplap_model::{LedgerError, OrderError, Scope};
use utoipa::ToSchema;

use crate::view::OrderView;

/// Where it is described; Gitea's and Forgejo's clients read `url`.
const PAGE: &str = "/api/v1/openapi.json";

/// The word for an idempotency key that stands for another order.
pub(crate) const KEY_REUSED: &str = "key-reused";

/// An answer that is no success. `message` and `url` are what clients of Gitea, Forgejo and GitHub
/// show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProblemView {
    /// What is wrong, for people.
    pub message: String,
    /// A word for it, for programs; see docs/server.md.
    pub code: String,
    /// Where the API is described.
    pub url: String,
    /// The orders that it is about, with `wait`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub orders: Vec<OrderView>,
}

/// Such an answer, on its way.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
    pub retry_after: Option<Duration>,
    pub orders: Vec<OrderView>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry_after: None, orders: Vec::new() }
    }

    /// The same for every token that does not work, whatever the reason.
    pub(crate) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "a token that works is needed")
    }

    /// The same for what is not there and for what a token is not good for.
    pub(crate) fn hidden(what: impl std::fmt::Display) -> Self {
        let message = format!("there is no {what}, or this token is not for it");
        Self::new(StatusCode::NOT_FOUND, "not-found", message)
    }

    pub(crate) fn no_environment(scope: &Scope) -> Self {
        Self::hidden(format_args!("environment `{scope}`"))
    }

    /// The request can be read and asks for something that cannot be.
    pub(crate) fn invalid(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
    }

    /// The request cannot be read.
    pub(crate) fn malformed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", message)
    }

    pub(crate) fn too_many(message: impl Into<String>, after: Duration) -> Self {
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many", message);
        Self { retry_after: Some(after), ..problem }
    }

    /// The ledger or a target is away: nothing that the caller did.
    pub(crate) fn away(message: impl Into<String>) -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "away", message);
        Self { retry_after: Some(Duration::from_secs(5)), ..problem }
    }
}

/// Callers are not told more of the ledger than that it is away: its texts name hosts and paths.
impl From<LedgerError> for Problem {
    fn from(_: LedgerError) -> Self {
        Self::away("the ledger cannot be used right now; trying again is safe")
    }
}

impl From<OrderError> for Problem {
    fn from(error: OrderError) -> Self {
        match error {
            OrderError::KeyReused(_) => Self::invalid(
                KEY_REUSED,
                "the idempotency key was used for another order; use a new one",
            ),
            OrderError::Full(waiting) => {
                let message = format!("{waiting} orders are waiting for this environment already");
                Self::too_many(message, Duration::from_secs(10))
            }
            OrderError::Lost(id) => {
                Self::new(StatusCode::CONFLICT, "lost", format!("another server is at order {id}"))
            }
            OrderError::Ledger(error) => error.into(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let view = ProblemView {
            message: self.message,
            code: self.code.to_owned(),
            url: PAGE.to_owned(),
            orders: self.orders,
        };
        let body = serde_json::to_string(&view).expect("a problem can be written as JSON");
        let json = HeaderValue::from_static("application/json");
        let mut response = (self.status, [(CONTENT_TYPE, json)], body).into_response();
        let headers = response.headers_mut();
        if let Some(after) = self.retry_after {
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"shiplap\""));
        }
        response.extensions_mut().insert(ProblemCode(self.code));
        response
    }
}

/// The word of a problem, for the audit log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProblemCode(pub &'static str);
