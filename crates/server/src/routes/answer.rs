//! Answering those who asked for something: at once, or when it has come to its end.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::LOCATION;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::core::Core;
use crate::problem::Problem;
use crate::view::OrderView;
use crate::waiting;

/// The numbers of the orders that a request led to.
const ORDER: HeaderName = HeaderName::from_static("x-shiplap-order");

/// Whether to wait.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct WaitParam {
    /// `true`, or for how long at most (`90s`, `10m`): the answer comes with the end. 200 where it
    /// was done, 424 where it failed, 408 where it still goes on then.
    #[param(required = false)]
    pub wait: Option<String>,
}

impl WaitParam {
    /// How long to wait, if at all.
    pub(crate) fn limit(&self, core: &Core) -> Result<Option<Duration>, Problem> {
        let most = core.settings.max_wait;
        match self.wait.as_deref() {
            None | Some("false" | "0") => Ok(None),
            Some("true" | "") => Ok(Some(most)),
            Some(text) => match waiting::time(text) {
                Some(time) => Ok(Some(time.min(most))),
                None => {
                    Err(Problem::malformed("`wait` is `true` or a time such as `90s` or `10m`"))
                }
            },
        }
    }
}

/// The orders as they are now, in the order of `ids`.
pub(crate) async fn views(core: &Core, ids: &[u64]) -> Result<Vec<OrderView>, Problem> {
    let mut views = Vec::with_capacity(ids.len());
    for id in ids {
        let order = core.health.seen(core.orders.order(*id).await)?;
        let doing = waiting::doing(core, *id).await?;
        views.extend(order.zip(doing).map(|(order, doing)| OrderView::new(&order, &doing)));
    }
    Ok(views)
}

/// Waits for the end of all, and says what it came to: an error where one failed or still goes on.
pub(crate) async fn ends(
    core: &Core,
    ids: &[u64],
    limit: Duration,
) -> Result<Vec<OrderView>, Problem> {
    waiting::all_ended(core, ids, limit).await;
    let views = views(core, ids).await?;
    let names = |open: &dyn Fn(&OrderView) -> bool| {
        let found = views.iter().filter(|view| open(view)).map(|view| view.id.to_string());
        found.collect::<Vec<_>>().join(", ")
    };
    let (open, failed) =
        (names(&|view| view.end.is_none()), names(&|view| view.end.is_some() && !view.succeeded()));
    if !failed.is_empty() {
        let summaries = views.iter().filter(|view| !view.succeeded());
        let summaries: Vec<&str> = summaries
            .filter_map(|view| view.end.as_ref())
            .map(|end| end.summary.as_str())
            .collect();
        let message = format!("order {failed} failed: {}", summaries.join("; "));
        let problem = Problem::new(StatusCode::FAILED_DEPENDENCY, "failed", message);
        return Err(Problem { orders: views, ..problem });
    }
    if !open.is_empty() {
        let message = format!(
            "order {open} still goes on; GET /api/v1/orders/{}?wait=true waits for it again",
            open.split(',').next().unwrap_or_default()
        );
        let problem = Problem::new(StatusCode::REQUEST_TIMEOUT, "still-running", message);
        return Err(Problem { orders: views, ..problem });
    }
    Ok(views)
}

/// With the numbers of the orders in its headers.
pub(crate) fn with_orders(ids: &[u64], answer: impl IntoResponse) -> Response {
    let mut response = answer.into_response();
    let headers = response.headers_mut();
    if let Some(first) = ids.first() {
        let location = format!("/api/v1/orders/{first}");
        let numbers = ids.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        let value = |text: &str| HeaderValue::from_str(text).expect("digits, blanks and commas");
        headers.insert(LOCATION, value(&location));
        headers.insert(ORDER, value(&numbers));
    }
    response
}

/// The answer to a request for one order: 202 with the order as it is now, or with its end.
pub(crate) async fn one_order(core: &Core, id: u64, wait: Option<Duration>) -> Response {
    let answer = match wait {
        None => views(core, &[id]).await.map(|views| (StatusCode::ACCEPTED, views)),
        Some(limit) => ends(core, &[id], limit).await.map(|views| (StatusCode::OK, views)),
    };
    let answer = answer.and_then(|(status, mut views)| match views.pop() {
        Some(view) => Ok((status, axum::Json(view))),
        None => Err(Problem::hidden(format_args!("order {id}"))),
    });
    with_orders(&[id], answer)
}
