//! Whether the server works, and how much there is to do.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize};
use shiplap_model::{OrderState, TokenAction};
use utoipa::ToSchema;

use crate::caller::Caller;
use crate::core::Core;
use crate::problem::{Problem, ProblemView};

/// So many of the newest orders are counted.
const COUNTED: u32 = 1000;

/// Whether the server works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealthView {
    /// `ok`, or `away` where it does not work.
    pub status: String,
    /// What is away, and for how long. Anybody may ask, so this names no host and no path; the log
    /// does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why: Option<String>,
}

/// Whether the server works. Needs no token.
#[utoipa::path(
    get, path = "/healthz", tag = "health", security(()),
    responses((status = 200, body = HealthView), (status = 503, body = HealthView)),
)]
pub(crate) async fn health(State(core): State<Arc<Core>>) -> Response {
    match core.health.away_since() {
        None => Json(HealthView { status: "ok".to_owned(), why: None }).into_response(),
        Some(since) => {
            let why = format!("the ledger does not answer since {} s", since.elapsed().as_secs());
            let view = HealthView { status: "away".to_owned(), why: Some(why) };
            (StatusCode::SERVICE_UNAVAILABLE, Json(view)).into_response()
        }
    }
}

/// Figures for Prometheus. Needs a token that may read everything.
#[utoipa::path(
    get, path = "/metrics", tag = "health",
    responses((status = 200, content_type = "text/plain", body = String),
        (status = "4XX", body = ProblemView), (status = 503, body = ProblemView)),
)]
pub(crate) async fn metrics(
    State(core): State<Arc<Core>>,
    caller: Caller,
) -> Result<Response, Problem> {
    if !caller.may_everywhere(TokenAction::Read) {
        return Err(Problem::hidden("such address"));
    }
    let orders = core.health.seen(core.orders.orders(None, COUNTED).await)?;
    let count =
        |is: fn(&OrderState) -> bool| orders.iter().filter(|order| is(&order.state)).count();
    let catalog = core.works.catalog().await;
    let broken = catalog.environments().filter(|(_, entry)| entry.problem.is_some()).count();
    let figures = [
        (
            "shiplap_orders_waiting",
            "Orders that wait.",
            count(|state| matches!(state, OrderState::Waiting { .. })),
        ),
        (
            "shiplap_orders_running",
            "Orders that are carried out, by any server.",
            count(|state| matches!(state, OrderState::Running { .. })),
        ),
        (
            "shiplap_orders_running_here",
            "Orders that this server carries out.",
            core.running().len(),
        ),
        ("shiplap_environments", "Environments.", catalog.environments().count()),
        ("shiplap_environments_broken", "Environments that cannot be deployed.", broken),
    ];
    let mut text = String::new();
    for (name, help, value) in figures {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
    }
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}
