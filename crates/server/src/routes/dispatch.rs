//! The dispatch of a workflow, as Forgejo, Gitea and GitHub take it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use shiplap_model::{NewOrder, Scope, TokenAction};
use utoipa::{IntoParams, ToSchema};

use super::answer::{self, WaitParam};
use super::extract::{IdempotencyKey, Json, Params, PathParts};
use crate::audit::Noted;
use crate::caller::Caller;
use crate::catalog::{Catalog, DispatchTrigger, Trigger};
use crate::core::Core;
use crate::names;
use crate::placing::{self, Setting, quoted};
use crate::problem::{Problem, ProblemView};
use crate::view::OrderView;

/// The longest branch or tag of a repository.
const MAX_REF: usize = 255;
/// GitHub takes 25 inputs; nobody needs more than a project has services.
const MAX_INPUTS: usize = 100;

/// What the forges take. Fields that are not here are ignored, as the forges do.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
pub struct DispatchRequest {
    /// A branch or tag. It is compared with the trigger's `refs` and is otherwise for history.
    #[serde(default, rename = "ref")]
    reference: Option<String>,
    /// Tags. One that is empty changes nothing.
    #[serde(default)]
    inputs: Option<BTreeMap<String, Option<String>>>,
    /// Forgejo: answer 201 with a number.
    #[serde(default)]
    return_run_info: Option<bool>,
    /// GitHub and Gitea: answer 200 with a number and addresses.
    #[serde(default)]
    return_run_details: Option<bool>,
}

/// How to answer.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct DispatchParams {
    /// `true`, or for how long at most (`90s`, `10m`): the answer comes with the end. 200 where it
    /// was done, 424 where it failed, 408 where it still goes on then.
    #[param(required = false)]
    wait: Option<String>,
    /// Gitea: answer 200 with a number and addresses.
    #[param(required = false)]
    return_run_details: Option<bool>,
}

/// With `return_run_info`, as Forgejo answers.
#[derive(Debug, Serialize, ToSchema)]
struct RunInfo {
    /// The number of the first order.
    id: u64,
    /// The same.
    run_number: u64,
    /// The environments.
    jobs: Vec<String>,
}

/// With `return_run_details`, as GitHub and Gitea answer.
#[derive(Debug, Serialize, ToSchema)]
struct RunDetails {
    /// The number of the first order.
    workflow_run_id: u64,
    /// Where it is.
    run_url: String,
    /// The same.
    html_url: String,
}

/// With `wait`.
#[derive(Debug, Serialize, ToSchema)]
struct Ended {
    /// The orders with their ends.
    orders: Vec<OrderView>,
}

/// Who dispatches.
pub(crate) struct Sender {
    caller: Caller,
    noted: Noted,
    key: IdempotencyKey,
}

impl FromRequestParts<Arc<Core>> for Sender {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, core: &Arc<Core>) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, core).await?;
        let Ok(noted) = Noted::from_request_parts(parts, core).await;
        let key = IdempotencyKey::from_request_parts(parts, core).await?;
        Ok(Self { caller, noted, key })
    }
}

/// Dispatch a workflow: set the tags that the inputs name, in all environments that the trigger
/// names.
#[utoipa::path(
    post, path = "/api/v1/repos/{owner}/{repo}/actions/workflows/{file}/dispatches", tag = "triggers",
    params(("owner" = String, Path), ("repo" = String, Path), ("file" = String, Path), DispatchParams,
        ("Idempotency-Key" = Option<String>, Header, description = "asked again with the same key, nothing new is ordered")),
    request_body = DispatchRequest,
    responses(
        (status = 204, description = "ordered, or nothing to do; `X-Shiplap-Order` has the numbers"),
        (status = 201, body = RunInfo, description = "with `return_run_info`"),
        (status = 200, body = RunDetails, description = "with `return_run_details`; with `wait` the orders with their ends"),
        (status = 424, body = ProblemView, description = "with `wait`: failed"),
        (status = 408, body = ProblemView, description = "with `wait`: still goes on"),
        (status = "4XX", body = ProblemView), (status = 503, body = ProblemView),
    ),
)]
pub(crate) async fn dispatch(
    State(core): State<Arc<Core>>,
    Sender { caller, noted, key }: Sender,
    path: PathParts,
    Params(params): Params<DispatchParams>,
    headers: HeaderMap,
    Json(request): Json<DispatchRequest>,
) -> Result<Response, Problem> {
    let wait = WaitParam { wait: params.wait.clone() }.limit(&core)?;
    let catalog = core.works.catalog().await;
    let call = Call::read(&path, &request)?;
    let orders = call.orders(&core, &catalog, &caller, &key)?;
    let mut ids = Vec::with_capacity(orders.len());
    for order in &orders {
        match placing::place(&core, &noted, order).await {
            Ok(placed) => ids.push(placed.id),
            // Those before stay; sent again with the same key, they are not ordered twice.
            Err(problem) => return Ok(answer::with_orders(&ids, problem)),
        }
    }
    let details = request.return_run_details.or(params.return_run_details) == Some(true);
    let answer = match (ids.first(), wait) {
        (Some(_), Some(limit)) => {
            let ended = answer::ends(&core, &ids, limit).await;
            ended.map(|orders| axum::Json(Ended { orders })).into_response()
        }
        (Some(id), None) if details => {
            let run_url = format!("{}/api/v1/orders/{id}", base(&core, &headers));
            let html_url = run_url.clone();
            axum::Json(RunDetails { workflow_run_id: *id, run_url, html_url }).into_response()
        }
        (Some(id), None) if request.return_run_info == Some(true) => {
            let jobs = orders.iter().map(|order| order.scope.to_string()).collect();
            let info = RunInfo { id: *id, run_number: *id, jobs };
            (StatusCode::CREATED, axum::Json(info)).into_response()
        }
        (Some(_), None) | (None, _) => StatusCode::NO_CONTENT.into_response(),
    };
    Ok(answer::with_orders(&ids, answer))
}

/// The same at GitHub's address, for clients that have only the host to set.
#[utoipa::path(
    post, path = "/repos/{owner}/{repo}/actions/workflows/{file}/dispatches", tag = "triggers",
    params(("owner" = String, Path), ("repo" = String, Path), ("file" = String, Path), DispatchParams,
        ("Idempotency-Key" = Option<String>, Header, description = "asked again with the same key, nothing new is ordered")),
    request_body = DispatchRequest,
    responses(
        (status = 204, description = "ordered, or nothing to do; `X-Shiplap-Order` has the numbers"),
        (status = 201, body = RunInfo, description = "with `return_run_info`"),
        (status = 200, body = RunDetails, description = "with `return_run_details`; with `wait` the orders with their ends"),
        (status = 424, body = ProblemView, description = "with `wait`: failed"),
        (status = 408, body = ProblemView, description = "with `wait`: still goes on"),
        (status = "4XX", body = ProblemView), (status = 503, body = ProblemView),
    ),
)]
pub(crate) async fn dispatch_at_github(
    core: State<Arc<Core>>,
    sender: Sender,
    path: PathParts,
    params: Params<DispatchParams>,
    headers: HeaderMap,
    request: Json<DispatchRequest>,
) -> Result<Response, Problem> {
    dispatch(core, sender, path, params, headers, request).await
}

/// A dispatch that could be read.
struct Call<'a> {
    repository: String,
    workflow: &'a str,
    reference: &'a str,
    /// Those that are not empty.
    inputs: BTreeMap<&'a str, &'a str>,
}

impl<'a> Call<'a> {
    fn read(path: &'a PathParts, request: &'a DispatchRequest) -> Result<Self, Problem> {
        let (owner, repo, workflow) = (path.get("owner"), path.get("repo"), path.get("file"));
        if ![owner, repo, workflow].iter().all(|name| names::is_forge_name(name)) {
            return Err(Problem::hidden("such workflow"));
        }
        let reference = request.reference.as_deref().unwrap_or_default();
        if reference.is_empty() {
            return Err(Problem::invalid("no-ref", "`ref` is required: a branch or tag"));
        }
        if reference.len() > MAX_REF || reference.chars().any(char::is_control) {
            return Err(Problem::invalid("bad-ref", "`ref` is not a branch or tag"));
        }
        let inputs = request.inputs.iter().flatten();
        let inputs: BTreeMap<&str, &str> = inputs
            .filter_map(|(name, tag)| Some((name.as_str(), tag.as_deref()?.trim())))
            .filter(|(_, tag)| !tag.is_empty())
            .collect();
        if inputs.len() > MAX_INPUTS {
            return Err(Problem::invalid("too-many-inputs", "there are too many inputs"));
        }
        Ok(Self { repository: format!("{owner}/{repo}"), workflow, reference, inputs })
    }

    /// The orders that it leads to: one for each environment.
    fn orders(
        &self,
        core: &Core,
        catalog: &Catalog,
        caller: &Caller,
        key: &IdempotencyKey,
    ) -> Result<Vec<NewOrder>, Problem> {
        let asked = self.asked(catalog, caller)?;
        let mut orders = Vec::with_capacity(asked.len());
        for (scope, tags) in &asked {
            let entry = catalog.environment(scope).expect("looked up before");
            let setting = Setting { caller: Some(caller), scope, entry };
            let message =
                format!("{} {} at {}", self.repository, self.workflow, quoted(self.reference));
            orders.push(NewOrder {
                scope: scope.clone(),
                wanted: setting.deploy(tags)?,
                who: caller.who.clone(),
                token: caller.token.clone(),
                message: Some(message),
                revision: None,
                idempotency_key: key.0.as_ref().map(|key| format!("{key} {scope}")),
                settle: core.settings.settle,
            });
        }
        Ok(orders)
    }

    /// Tags by service and environment.
    fn asked(&self, catalog: &Catalog, caller: &Caller) -> Result<Tags, Problem> {
        let triggers: Vec<_> = catalog
            .projects
            .iter()
            .flat_map(|(project, entry)| {
                entry.triggers.iter().map(move |trigger| (project, trigger))
            })
            .filter_map(|(project, trigger)| match trigger {
                Trigger::Dispatch(trigger) => Some((project, trigger)),
                Trigger::Registry(_) | Trigger::Push(_) => None,
            })
            .filter(|(project, trigger)| {
                self.is_at(trigger) && is_for(caller, catalog, project, trigger)
            })
            .collect();
        if triggers.is_empty() {
            let what = format!("workflow `{}` of `{}`", self.workflow, self.repository);
            return Err(Problem::hidden(what));
        }
        let of_ref: Vec<_> =
            triggers.into_iter().filter(|(_, trigger)| self.is_of_ref(trigger)).collect();
        if of_ref.is_empty() {
            let message = format!("no ref found for: {}", quoted(self.reference));
            return Err(Problem::invalid("bad-ref", message));
        }
        let mut asked = Tags::new();
        for (name, tag) in &self.inputs {
            let mut is_known = false;
            for (project, trigger) in &of_ref {
                for place in trigger.inputs.get(*name).into_iter().flatten() {
                    let scope = Scope {
                        project: (*project).clone(),
                        environment: place.environment.clone(),
                    };
                    if !may_set(caller, catalog, &scope, &place.service) {
                        return Err(unknown_input(name));
                    }
                    is_known = true;
                    let tags = asked.entry(scope).or_default();
                    let tag = Some((*tag).to_owned());
                    if tags.get(&place.service).is_some_and(|other| *other != tag) {
                        let message =
                            format!("two inputs set `{}` to different tags", place.service);
                        return Err(Problem::invalid("conflicting-tags", message));
                    }
                    tags.insert(place.service.clone(), tag);
                }
            }
            if !is_known {
                return Err(unknown_input(name));
            }
        }
        Ok(asked)
    }

    fn is_at(&self, trigger: &DispatchTrigger) -> bool {
        let same = |named: &Option<String>, given: &str| {
            named.as_ref().is_none_or(|named| named.eq_ignore_ascii_case(given))
        };
        same(&trigger.repository, &self.repository) && same(&trigger.workflow, self.workflow)
    }

    /// Branches and tags may be named in short and in full.
    fn is_of_ref(&self, trigger: &DispatchTrigger) -> bool {
        let short = self.reference.strip_prefix("refs/heads/");
        let short = short.or_else(|| self.reference.strip_prefix("refs/tags/"));
        trigger.refs.is_empty()
            || trigger.refs.iter().any(|pattern| {
                names::matches(pattern, self.reference)
                    || short.is_some_and(|short| names::matches(pattern, short))
            })
    }
}

type Tags = BTreeMap<Scope, BTreeMap<String, Option<String>>>;

fn may_set(caller: &Caller, catalog: &Catalog, scope: &Scope, service: &str) -> bool {
    caller.may(TokenAction::Deploy, scope)
        && catalog.environment(scope).is_some_and(|entry| caller.covers_named(service, entry))
}

/// Whether the caller may set anything at all through this trigger. To others it is not there.
fn is_for(caller: &Caller, catalog: &Catalog, project: &str, trigger: &DispatchTrigger) -> bool {
    trigger.inputs.values().flatten().any(|place| {
        let (project, environment) = (project.to_owned(), place.environment.clone());
        may_set(caller, catalog, &Scope { project, environment }, &place.service)
    })
}

/// The same for an input that is not there and for one that the token is not for.
fn unknown_input(name: &str) -> Problem {
    let message = format!(
        "unexpected input `{}`: the trigger does not know it, or this token is not for it",
        quoted(name)
    );
    Problem::invalid("unknown-input", message)
}

/// The address that the client has used, or that the settings name.
fn base(core: &Core, headers: &HeaderMap) -> String {
    if let Some(url) = &core.settings.url {
        return url.clone();
    }
    let host = headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
    let is_host = |host: &&str| {
        host.len() <= 255
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".:-[]_".contains(&b))
    };
    host.filter(is_host).map_or_else(String::new, |host| format!("http://{host}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_is_meant_in_short_and_in_full() {
        let trigger = |refs: &[&str]| DispatchTrigger {
            refs: refs.iter().map(|name| (*name).to_owned()).collect(),
            ..DispatchTrigger::default()
        };
        let call = |reference| Call {
            repository: "o/r".to_owned(),
            workflow: "deploy.yml",
            reference,
            inputs: BTreeMap::new(),
        };
        for reference in ["main", "refs/heads/main", "refs/tags/main"] {
            assert!(call(reference).is_of_ref(&trigger(&["main"])), "{reference}");
            assert!(call(reference).is_of_ref(&trigger(&[])));
        }
        assert!(call("release/2").is_of_ref(&trigger(&["main", "release/*"])));
        assert!(!call("mainly").is_of_ref(&trigger(&["main"])));
        assert!(!call("refs/heads/main").is_of_ref(&trigger(&["refs/tags/*"])));
    }

    #[test]
    fn a_trigger_may_be_for_every_repository_and_names_have_no_case() {
        let call = Call {
            repository: "Cheapa/API".to_owned(),
            workflow: "deploy.yml",
            reference: "main",
            inputs: BTreeMap::new(),
        };
        let of = |repository: Option<&str>, workflow: Option<&str>| DispatchTrigger {
            repository: repository.map(str::to_owned),
            workflow: workflow.map(str::to_owned),
            ..DispatchTrigger::default()
        };
        assert!(call.is_at(&of(None, None)) && call.is_at(&of(Some("cheapa/api"), None)));
        assert!(call.is_at(&of(Some("cheapa/api"), Some("deploy.yml"))));
        assert!(!call.is_at(&of(Some("cheapa/web"), None)));
        assert!(!call.is_at(&of(None, Some("deploy.yaml"))));
    }
}
