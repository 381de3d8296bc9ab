//! Notifications of registries, and webhooks about pushed commits.
//!
//! They carry no token: a secret of the trigger proves them. What they may do stands in the file.
//! Nothing that is not proved is looked at, and one that is sent again changes nothing: its body is
//! the key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use shiplap_model::{NewOrder, Scope, Wanted};
use tokio::sync::OwnedSemaphorePermit;
use utoipa::ToSchema;

use super::answer;
use super::extract::{PathParts, Raw, parse};
use crate::audit::Noted;
use crate::caller::Origin;
use crate::catalog::{Catalog, ProjectEntry, PushProvider, PushTrigger, RegistryTrigger, Trigger};
use crate::core::Core;
use crate::names;
use crate::placing::{self, Setting, printable, quoted};
use crate::problem::{KEY_REUSED, Problem, ProblemView};
use crate::signature;

/// Events of one notification.
const MAX_EVENTS: usize = 1000;
/// The first line of a commit's message, for history.
const MAX_TITLE: usize = 200;

/// What became of a webhook.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HookView {
    /// The orders that it led to; none where it is about something else.
    pub orders: Vec<u64>,
    /// What could not be ordered, and why. Sending it again would not help.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub ignored: Vec<String>,
}

/// Room for the body of one webhook. Until it was read nobody knows who sent it, so what such
/// bodies may take up together is limited.
pub(crate) struct Room(#[expect(dead_code, reason = "held until the answer")] OwnedSemaphorePermit);

impl FromRequestParts<Arc<Core>> for Room {
    type Rejection = Problem;

    async fn from_request_parts(_: &mut Parts, core: &Arc<Core>) -> Result<Self, Problem> {
        let room = core.hooks.clone().try_acquire_owned();
        room.map(Self).map_err(|_| {
            Problem::too_many("too many webhooks at the same time", Duration::from_secs(5))
        })
    }
}

/// Take a webhook: `kind` is `registry`, `github`, `gitea`, `forgejo` or `gitlab`.
#[utoipa::path(
    post, path = "/api/v1/projects/{project}/hooks/{kind}", tag = "triggers", security(()),
    params(("project" = String, Path), ("kind" = String, Path)),
    request_body = serde_json::Value,
    responses(
        (status = 202, body = HookView, description = "ordered"),
        (status = 200, body = HookView, description = "nothing to do"),
        (status = "4XX", body = ProblemView), (status = 503, body = ProblemView),
    ),
)]
pub(crate) async fn hook(
    State(core): State<Arc<Core>>,
    origin: Origin,
    noted: Noted,
    path: PathParts,
    headers: HeaderMap,
    _room: Room,
    Raw(body): Raw,
) -> Result<Response, Problem> {
    let catalog = core.works.catalog().await;
    let project = path.get("project");
    let entry = catalog.projects.get(project);
    let kind = path.get("kind");
    let found = match kind {
        "registry" => registry(entry, &headers, &body)?,
        "github" => pushed(&core, entry, PushProvider::GitHub, &headers, &body)?,
        "gitea" => pushed(&core, entry, PushProvider::Gitea, &headers, &body)?,
        "forgejo" => pushed(&core, entry, PushProvider::Forgejo, &headers, &body)?,
        "gitlab" => pushed(&core, entry, PushProvider::GitLab, &headers, &body)?,
        _ => None,
    };
    // An unknown project, an unknown kind and a wrong secret are the same.
    let Some(found) = found else {
        return Err(core.rates.failed(&origin).err().unwrap_or_else(|| {
            let message = "the signature or the secret is not right";
            Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
        }));
    };
    let who = found.who.clone().unwrap_or_else(|| kind.to_owned());
    noted.who(&who, None);
    let digest = blake3::hash(&body).to_hex();
    let key = format!("hook {kind} {project} {digest}");
    let view = found.order(&core, &catalog, &noted, project, &who, &key).await?;
    let status = if view.orders.is_empty() { StatusCode::OK } else { StatusCode::ACCEPTED };
    let orders = view.orders.clone();
    Ok(answer::with_orders(&orders, (status, axum::Json(view)).into_response()))
}

/// What a webhook asks for.
#[derive(Debug, Default)]
struct Found {
    /// Services and their tags, by environment; all services where there are none.
    environments: BTreeMap<String, BTreeMap<String, Option<String>>>,
    who: Option<String>,
    message: Option<String>,
    revision: Option<String>,
}

impl Found {
    async fn order(
        self,
        core: &Core,
        catalog: &Catalog,
        noted: &Noted,
        project: &str,
        who: &str,
        key: &str,
    ) -> Result<HookView, Problem> {
        let mut view = HookView::default();
        for (environment, asked) in &self.environments {
            let scope = Scope { project: project.to_owned(), environment: environment.clone() };
            let wanted = catalog
                .environment(&scope)
                .ok_or_else(|| Problem::no_environment(&scope))
                .and_then(|entry| Setting { caller: None, scope: &scope, entry }.deploy(asked));
            let wanted = match wanted {
                Ok(wanted) => wanted,
                Err(problem) => {
                    noted.did(format!("ignored {scope}: {}", problem.message));
                    view.ignored.push(problem.message);
                    continue;
                }
            };
            let order = self.new_order(core, scope, wanted, who, key);
            match placing::place(core, noted, &order).await {
                Ok(placed) => view.orders.push(placed.id),
                // The same body once more, and the files say something else by now: it was done
                // then.
                Err(problem) if problem.code == KEY_REUSED => view.ignored.push(problem.message),
                Err(problem) => return Err(problem),
            }
        }
        Ok(view)
    }

    fn new_order(
        &self,
        core: &Core,
        scope: Scope,
        wanted: Wanted,
        who: &str,
        key: &str,
    ) -> NewOrder {
        NewOrder {
            idempotency_key: Some(format!("{key} {scope}")),
            scope,
            wanted,
            who: who.to_owned(),
            token: None,
            message: self.message.clone(),
            revision: self.revision.clone(),
            settle: core.settings.settle,
        }
    }
}

/// The envelope of Docker Distribution, as far as it matters.
#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    events: Vec<RegistryEvent>,
}

#[derive(Deserialize)]
struct RegistryEvent {
    #[serde(default)]
    action: String,
    #[serde(default)]
    target: RegistryTarget,
    #[serde(default)]
    actor: RegistryActor,
}

#[derive(Default, Deserialize)]
struct RegistryTarget {
    #[serde(default)]
    repository: String,
    /// Only there for manifests that were pushed by a tag.
    #[serde(default)]
    tag: String,
}

#[derive(Default, Deserialize)]
struct RegistryActor {
    #[serde(default)]
    name: String,
}

fn registry(
    project: Option<&ProjectEntry>,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Option<Found>, Problem> {
    let triggers = project.into_iter().flat_map(|project| &project.triggers);
    let triggers: Vec<&RegistryTrigger> = triggers
        .filter_map(|trigger| match trigger {
            Trigger::Registry(trigger) => Some(trigger),
            Trigger::Dispatch(_) | Trigger::Push(_) => None,
        })
        .filter(|trigger| signature::is_authorized(trigger.secret.expose(), headers))
        .collect();
    if triggers.is_empty() {
        return Ok(None);
    }
    let envelope: Envelope = parse(body)?;
    if envelope.events.len() > MAX_EVENTS {
        return Err(Problem::invalid("too-many-events", "there are too many events"));
    }
    let mut found = Found::default();
    for event in envelope.events.iter().filter(|event| event.action == "push") {
        let RegistryTarget { repository, tag } = &event.target;
        let images = triggers.iter().flat_map(|trigger| &trigger.images);
        let images = images.filter(|image| {
            !tag.is_empty() && image.repository == *repository && names::matches(&image.tags, tag)
        });
        for place in images.flat_map(|image| &image.places) {
            let asked = found.environments.entry(place.environment.clone()).or_default();
            // Events come in order: the last tag of a service is the one.
            asked.insert(place.service.clone(), Some(tag.clone()));
            found.message = Some(format!("{}:{} was pushed", quoted(repository), quoted(tag)));
            let actor = Some(&event.actor.name).filter(|name| !name.is_empty());
            found.who = Some(match actor {
                Some(actor) => format!("registry ({})", quoted(actor)),
                None => "registry".to_owned(),
            });
        }
    }
    Ok(Some(found))
}

/// A push, as far as all four agree or differ in a name.
#[derive(Deserialize)]
struct Pushed {
    #[serde(default, rename = "ref")]
    reference: String,
    #[serde(default)]
    after: String,
    #[serde(default)]
    deleted: bool,
    #[serde(default)]
    repository: PushedRepository,
    /// GitLab's.
    #[serde(default)]
    project: PushedRepository,
    #[serde(default)]
    head_commit: Option<PushedCommit>,
    #[serde(default)]
    commits: Vec<PushedCommit>,
    #[serde(default)]
    pusher: Option<Pusher>,
    /// GitLab's.
    #[serde(default)]
    user_username: Option<String>,
}

#[derive(Default, Deserialize)]
struct PushedRepository {
    #[serde(default, alias = "path_with_namespace")]
    full_name: Option<String>,
}

#[derive(Deserialize)]
struct PushedCommit {
    #[serde(default)]
    id: String,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Pusher {
    /// GitHub's.
    #[serde(default)]
    name: Option<String>,
    /// Gitea's and Forgejo's.
    #[serde(default)]
    login: Option<String>,
}

impl Pushed {
    fn repository(&self) -> Option<&str> {
        self.repository.full_name.as_deref().or(self.project.full_name.as_deref())
    }

    /// The branch that has commits now. Tags, and branches that were deleted, are none.
    fn branch(&self) -> Option<&str> {
        let is_gone = self.deleted || self.after.bytes().all(|byte| byte == b'0');
        self.reference.strip_prefix("refs/heads/").filter(|_| !is_gone)
    }

    fn title(&self) -> Option<String> {
        let head = self.head_commit.as_ref();
        let head = head.or_else(|| self.commits.iter().find(|commit| commit.id == self.after));
        let line = printable(head?.message.lines().next()?);
        let cut = line.char_indices().nth(MAX_TITLE).map_or(line.len(), |(at, _)| at);
        Some(line[..cut].to_owned()).filter(|line| !line.is_empty())
    }

    fn pusher(&self) -> Option<&str> {
        let pusher = self.pusher.as_ref();
        let name = pusher.and_then(|pusher| pusher.login.as_deref().or(pusher.name.as_deref()));
        name.or(self.user_username.as_deref()).filter(|name| !name.is_empty())
    }
}

fn pushed(
    core: &Core,
    project: Option<&ProjectEntry>,
    provider: PushProvider,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Option<Found>, Problem> {
    let now_ms = core.now_ms();
    let triggers = project.into_iter().flat_map(|project| &project.triggers);
    let triggers: Vec<&PushTrigger> = triggers
        .filter_map(|trigger| match trigger {
            Trigger::Push(trigger) => Some(trigger),
            Trigger::Dispatch(_) | Trigger::Registry(_) => None,
        })
        .filter(|trigger| trigger.provider == provider)
        .filter(|trigger| {
            signature::is_signed(provider, trigger.secret.expose(), headers, body, now_ms)
        })
        .collect();
    if triggers.is_empty() {
        return Ok(None);
    }
    // Which event it is stands in a header that nobody signs; what it is about in the body.
    let pushed: Pushed = parse(body)?;
    let Some(branch) = pushed.branch() else { return Ok(Some(Found::default())) };
    let of_repository = |trigger: &&&PushTrigger| match (&trigger.repository, pushed.repository()) {
        (None, _) => true,
        (Some(wanted), Some(found)) => wanted.eq_ignore_ascii_case(found),
        (Some(_), None) => false,
    };
    let environments: BTreeSet<&String> = triggers
        .iter()
        .filter(of_repository)
        .flat_map(|trigger| &trigger.branches)
        .filter(|(pattern, _)| names::matches(pattern, branch))
        .flat_map(|(_, environments)| environments)
        .collect();
    let word = word(provider);
    Ok(Some(Found {
        environments: environments
            .into_iter()
            .map(|name| (name.clone(), BTreeMap::new()))
            .collect(),
        who: Some(match pushed.pusher() {
            Some(pusher) => format!("{word} ({})", quoted(pusher)),
            None => word.to_owned(),
        }),
        message: pushed.title().or_else(|| Some(format!("push to {}", quoted(branch)))),
        revision: Some(quoted(&pushed.after)),
    }))
}

fn word(provider: PushProvider) -> &'static str {
    match provider {
        PushProvider::GitHub => "github",
        PushProvider::Gitea => "gitea",
        PushProvider::Forgejo => "forgejo",
        PushProvider::GitLab => "gitlab",
    }
}
