//! Orders: what became of them, and what happens while they are carried out.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use futures_util::stream::unfold;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use shiplap_model::{Order, OrderState, Scope, TokenAction, Wanted};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use utoipa::IntoParams;

use super::answer::{self, WaitParam};
use super::environments::readable;
use super::extract::{Params, PathParts};
use crate::audit::Noted;
use crate::caller::Caller;
use crate::catalog::Catalog;
use crate::core::Core;
use crate::names;
use crate::problem::{Problem, ProblemView};
use crate::progress::Line;
use crate::stop::StopReason;
use crate::view::OrderView;
use crate::waiting;

/// Orders of a list, where the caller does not say.
const LIMIT: u32 = 20;
/// The most.
const MAX_LIMIT: u32 = 200;
/// Lines that are taken from a log at a time.
const LINES_AT_A_TIME: usize = 100;
/// A stream on which nothing happens says so after this, so that proxies keep it open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The order is looked at again after so long even if nothing was heard.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Whether the caller may look at an order: it is their own, or they may read all that it is about.
fn may_see(catalog: &Catalog, caller: &Caller, order: &Order) -> bool {
    if order.new.token.is_some() && order.new.token == caller.token {
        return true;
    }
    let scope = &order.new.scope;
    if !caller.may(TokenAction::Read, scope) {
        return false;
    }
    let covers = |service: &str| {
        catalog.environment(scope).is_some_and(|entry| caller.covers_named(service, entry))
    };
    caller.covers_all_services()
        || match &order.new.wanted {
            Wanted::Deploy { tags, services } => {
                let mut all = tags.keys().chain(services).peekable();
                all.peek().is_some() && all.all(|service| covers(service))
            }
            Wanted::Rollback { services, to: _ } => {
                !services.is_empty() && services.iter().all(|service| covers(service))
            }
            Wanted::Promote { .. } => false,
        }
}

/// The order of the path, where the caller may look at it.
async fn seen(core: &Core, caller: &Caller, path: &PathParts) -> Result<Order, Problem> {
    let id = path.number("id")?;
    let order = core.health.seen(core.orders.order(id).await)?;
    let catalog = core.works.catalog().await;
    let order = order.filter(|order| may_see(&catalog, caller, order));
    order.ok_or_else(|| Problem::hidden(format_args!("order {id}")))
}

/// Which orders.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// Of this project.
    #[param(required = false)]
    project: Option<String>,
    /// And of this environment of it; both or none.
    #[param(required = false)]
    environment: Option<String>,
    /// At most so many, up to 200; 20 where absent.
    #[param(required = false)]
    limit: Option<u32>,
}

/// Orders, newest first.
#[utoipa::path(
    get, path = "/api/v1/orders", tag = "orders", params(ListParams),
    responses((status = 200, body = [OrderView]), (status = "4XX", body = ProblemView),
        (status = 503, body = ProblemView)),
)]
pub(crate) async fn list(
    State(core): State<Arc<Core>>,
    caller: Caller,
    Params(params): Params<ListParams>,
) -> Result<Json<Vec<OrderView>>, Problem> {
    let catalog = core.works.catalog().await;
    let scope = match (&params.project, &params.environment) {
        (None, None) => None,
        (Some(project), Some(environment)) => {
            let scope = names::scope(project, environment);
            let scope = scope.ok_or_else(|| Problem::hidden("such environment"))?;
            readable(&catalog, &caller, &scope)?;
            Some(scope)
        }
        (Some(_), None) | (None, Some(_)) => {
            return Err(Problem::malformed("`project` and `environment` go together"));
        }
    };
    let limit = params.limit.unwrap_or(LIMIT).clamp(1, MAX_LIMIT);
    let found = core.orders.orders(scope.as_ref(), limit).await;
    let found = core.health.seen(found)?;
    let shown = found.iter().filter(|order| may_see(&catalog, &caller, order));
    Ok(Json(shown.map(|order| OrderView::new(order, order)).collect()))
}

/// One order; with `wait`, when it has come to its end.
#[utoipa::path(
    get, path = "/api/v1/orders/{id}", tag = "orders", params(("id" = u64, Path), WaitParam),
    responses((status = 200, body = OrderView),
        (status = 424, body = ProblemView, description = "with `wait`: failed"),
        (status = 408, body = ProblemView, description = "with `wait`: still goes on"),
        (status = "4XX", body = ProblemView), (status = 503, body = ProblemView)),
)]
pub(crate) async fn show(
    State(core): State<Arc<Core>>,
    caller: Caller,
    path: PathParts,
    Params(wait): Params<WaitParam>,
) -> Result<Json<OrderView>, Problem> {
    let id = seen(&core, &caller, &path).await?.id;
    let mut views = match wait.limit(&core)? {
        None => answer::views(&core, &[id]).await?,
        Some(limit) => answer::ends(&core, &[id], limit).await?,
    };
    views.pop().map(Json).ok_or_else(|| Problem::hidden(format_args!("order {id}")))
}

/// Take an order back that this server carries out: it is undone.
#[utoipa::path(
    delete, path = "/api/v1/orders/{id}", tag = "orders", params(("id" = u64, Path)),
    responses((status = 202, body = OrderView, description = "it is being undone"),
        (status = 409, body = ProblemView, description = "this server is not at it"),
        (status = "4XX", body = ProblemView), (status = 503, body = ProblemView)),
)]
pub(crate) async fn withdraw(
    State(core): State<Arc<Core>>,
    caller: Caller,
    noted: Noted,
    path: PathParts,
) -> Result<Response, Problem> {
    let order = seen(&core, &caller, &path).await?;
    let is_own = order.new.token.is_some() && order.new.token == caller.token;
    let may = is_own || may_withdraw(&*core.works.catalog().await, &caller, &order.new.scope);
    if !may {
        return Err(Problem::hidden(format_args!("order {}", order.id)));
    }
    let stop = core.running().get(&order.id).cloned();
    let Some(stop) = stop else {
        let message = format!("this server is not carrying out order {}", order.id);
        return Err(Problem::new(StatusCode::CONFLICT, "not-running", message));
    };
    stop.ask(StopReason::Withdrawn);
    noted.did(format!("withdrew {} ({})", order.id, order.new.scope));
    Ok((StatusCode::ACCEPTED, Json(OrderView::new(&order, &order))).into_response())
}

fn may_withdraw(catalog: &Catalog, caller: &Caller, scope: &Scope) -> bool {
    catalog.environment(scope).is_some()
        && caller.may(TokenAction::Deploy, scope)
        && caller.covers_all_services()
}

/// What happens while it is carried out, as server-sent events: `state` (the order), `line` (text),
/// `deployment` (its number), `skipped` (so many lines came too fast), and `end` (the order), after
/// which there is no more. `Last-Event-ID` goes on after a line.
#[utoipa::path(
    get, path = "/api/v1/orders/{id}/events", tag = "orders",
    params(("id" = u64, Path), ("Last-Event-ID" = Option<String>, Header)),
    responses((status = 200, content_type = "text/event-stream", body = String),
        (status = "4XX", body = ProblemView), (status = 503, body = ProblemView)),
)]
pub(crate) async fn events(
    State(core): State<Arc<Core>>,
    caller: Caller,
    path: PathParts,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let order = seen(&core, &caller, &path).await?;
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let follow = Follow::new(core, order.id, last.unwrap_or_default().to_owned());
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Ok(Sse::new(follow.stream()).keep_alive(keep_alive).into_response())
}

/// One who watches an order.
struct Follow {
    core: Arc<Core>,
    asked: u64,
    /// The order that does what was asked for: another one after it was merged.
    doing: u64,
    /// The first line that was not seen.
    next: u64,
    last_event_id: String,
    beat: watch::Receiver<u64>,
    ready: VecDeque<Event>,
    shown: Option<OrderView>,
    until: Instant,
    is_over: bool,
}

impl Follow {
    fn new(core: Arc<Core>, id: u64, last_event_id: String) -> Self {
        Self {
            asked: id,
            doing: id,
            next: core.progress.after(id, &last_event_id),
            last_event_id,
            beat: core.beat.listen(),
            ready: VecDeque::new(),
            shown: None,
            until: Instant::now() + core.settings.limits.stream_for,
            is_over: false,
            core,
        }
    }

    fn stream(self) -> impl Stream<Item = Result<Event, Infallible>> + Send {
        unfold(self, |mut follow| async move {
            let event = follow.next().await?;
            Some((Ok(event), follow))
        })
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.is_over {
                return None;
            }
            self.beat.mark_unchanged();
            self.look().await;
            if self.ready.is_empty() && !self.is_over {
                self.wait().await;
            }
        }
    }

    /// Looks at the order first and at its lines then: so none is missed before the end.
    async fn look(&mut self) {
        // With the ledger away there are still lines.
        let found = self.orders().await.ok().flatten();
        if let Some((_, doing)) = &found
            && doing.id != self.doing
        {
            self.doing = doing.id;
            self.next = self.core.progress.after(doing.id, &self.last_event_id);
        }
        if let Some((view, _)) = &found
            && self.shown.as_ref() != Some(view)
            && view.end.is_none()
        {
            self.ready.push_back(json_event("state", view));
        }
        let is_drained = self.take_lines();
        let Some((view, doing)) = found else { return };
        if is_drained && matches!(doing.state, OrderState::Ended(_)) {
            self.ready.push_back(json_event("end", &view));
            self.is_over = true;
        }
        self.shown = Some(view);
    }

    async fn orders(&self) -> Result<Option<(OrderView, Order)>, Problem> {
        let asked = self.core.health.seen(self.core.orders.order(self.asked).await)?;
        let doing = waiting::doing(&self.core, self.asked).await?;
        Ok(asked.zip(doing).map(|(asked, doing)| (OrderView::new(&asked, &doing), doing)))
    }

    /// Takes some lines from the log. False where there are more.
    fn take_lines(&mut self) -> bool {
        let Some(log) = self.core.progress.log(self.doing) else { return true };
        let (first, lines) = log.from(self.next, LINES_AT_A_TIME);
        if first > self.next {
            let skipped = Event::default().event("skipped").data((first - self.next).to_string());
            self.ready.push_back(skipped);
        }
        let is_drained = lines.len() < LINES_AT_A_TIME;
        self.next = first + lines.len() as u64;
        for (number, line) in (first..).zip(lines) {
            let event = Event::default().id(self.core.progress.event_id(self.doing, number));
            self.ready.push_back(match line {
                Line::Text(text) => event.event("line").data(text),
                Line::Deployment(deployment) => {
                    event.event("deployment").data(deployment.to_string())
                }
            });
        }
        is_drained
    }

    async fn wait(&mut self) {
        let log = self.core.progress.log(self.doing);
        let more = async {
            match &log {
                Some(log) => log.reaches(self.next).await,
                None => std::future::pending().await,
            }
        };
        let mut leaving = self.core.leaving.subscribe();
        tokio::select! {
            () = more => {}
            _ = leaving.wait_for(|leaving| *leaving) => self.is_over = true,
            Ok(()) = self.beat.changed() => {}
            () = sleep(LOOK_AGAIN) => {}
            () = sleep_until(self.until) => self.is_over = true,
        }
    }
}

fn json_event(name: &str, view: &OrderView) -> Event {
    let json = serde_json::to_string(view).expect("an order can be written as JSON");
    Event::default().event(name).data(json)
}
