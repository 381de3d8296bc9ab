//! Who asks, and what they may.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;
use shiplap_model::{Scope, TokenAction, TokenScope};

use crate::audit::Noted;
use crate::catalog::{EnvironmentEntry, ServiceEntry};
use crate::commands::CommandCaller;
use crate::core::Core;
use crate::credential::Presented;
use crate::problem::Problem;
use crate::signature;

/// Where a request comes from.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    /// Over the network.
    Address(IpAddr),
    /// Over the Unix socket, from this user.
    Local {
        /// The user's name, or number.
        user: String,
        /// Whether they are the server's own user, or root.
        is_admin: bool,
    },
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Local { user, .. } => write!(f, "unix:{user}"),
        }
    }
}

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The token's name, or user and host.
    pub who: String,
    /// The token's id.
    pub token: Option<String>,
    scope: TokenScope,
}

impl Caller {
    /// Finds out who it is: by a token where one is sent, else by the Unix socket's other end.
    async fn authenticate(
        core: &Core,
        headers: &HeaderMap,
        origin: &Origin,
    ) -> Result<Self, Problem> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let caller = match (values.next(), values.next(), origin) {
            (None, _, Origin::Local { user, is_admin: true }) => {
                let scope =
                    TokenScope { actions: [TokenAction::Admin].into(), ..Default::default() };
                Some(Self { who: format!("{user}@{}", core.settings.host), token: None, scope })
            }
            (Some(value), None, _) => match value.to_str().ok().and_then(presented) {
                Some(presented) => Self::by_token(core, &presented).await?,
                None => None,
            },
            (None | Some(_), _, _) => None,
        };
        match caller {
            Some(caller) => Ok(caller),
            None => Err(core.rates.failed(origin).err().unwrap_or_else(Problem::unauthorized)),
        }
    }

    async fn by_token(core: &Core, presented: &Presented) -> Result<Option<Self>, Problem> {
        let token = core.health.seen(core.tokens.token(&presented.id).await)?;
        let now_ms = core.now_ms();
        let is_proved = presented.proves(token.as_ref(), now_ms);
        let Some(token) = token.filter(|_| is_proved) else { return Ok(None) };
        core.rates.used(&token.id)?;
        core.note_use(&token, now_ms);
        Ok(Some(Self { who: token.name, token: Some(token.id), scope: token.scope }))
    }

    /// Who they are to whoever runs commands.
    pub(crate) fn for_commands(&self) -> CommandCaller<'_> {
        CommandCaller { who: &self.who, scope: &self.scope }
    }

    /// Whether they may do this in this environment, at least for some services.
    pub(crate) fn may(&self, action: TokenAction, scope: &Scope) -> bool {
        self.scope.may(action) && self.scope.covers(scope)
    }

    /// Whether they may do this in every environment and with every service.
    pub(crate) fn may_everywhere(&self, action: TokenAction) -> bool {
        let scope = &self.scope;
        scope.may(action)
            && scope.projects.is_empty()
            && scope.environments.is_empty()
            && scope.covers_all_services()
    }

    /// Whether they are good for this service: by its name, and by the image that it has.
    pub(crate) fn covers(&self, service: &str, entry: &ServiceEntry) -> bool {
        self.scope.covers_service(service) && self.scope.covers_image(&entry.repository)
    }

    /// Whether they are good for this service of an environment, where it has one of that name.
    pub(crate) fn covers_named(&self, service: &str, environment: &EnvironmentEntry) -> bool {
        environment.services.get(service).is_some_and(|entry| self.covers(service, entry))
    }

    /// Whether they are good for all services, also those that are not there yet.
    pub(crate) fn covers_all_services(&self) -> bool {
        self.scope.covers_all_services()
    }
}

/// What `Authorization` says: `Bearer T`, `token T`, or basic authentication with the token as
/// password, or as user without one, as Forgejo, Gitea and GitHub take it.
fn presented(value: &str) -> Option<Presented> {
    if let Some((user, password)) = signature::basic(value) {
        let is_name_only = password.is_empty() || password == "x-oauth-basic";
        return Presented::parse(if is_name_only { &user } else { &password });
    }
    let (scheme, token) = value.split_once(' ')?;
    let is_known = scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("token");
    is_known.then(|| Presented::parse(token.trim()))?
}

impl FromRequestParts<Arc<Core>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, core: &Arc<Core>) -> Result<Self, Problem> {
        let origin = parts.extensions.get::<Origin>().cloned();
        let origin = origin.ok_or_else(Problem::unauthorized)?;
        let caller = Self::authenticate(core, &parts.headers, &origin).await?;
        if let Some(noted) = parts.extensions.get::<Noted>() {
            noted.who(&caller.who, caller.token.as_deref());
        }
        Ok(caller)
    }
}

impl FromRequestParts<Arc<Core>> for Origin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Core>) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(Problem::unauthorized)
    }
}
