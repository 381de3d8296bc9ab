//! Taking requests apart, with limits, and with answers of our own where they cannot be read.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use bytes::Bytes;
use http::StatusCode;
use http::request::Parts;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::error::Category;
use shiplap_model::Scope;
use tokio::time::timeout;

use crate::audit::Noted;
use crate::core::Core;
use crate::names;
use crate::placing::quoted;
use crate::problem::Problem;

/// The longest idempotency key.
const MAX_KEY: usize = 255;

/// The bytes of a body, of limited size and received in limited time.
pub(crate) struct Raw(pub Bytes);

impl FromRequest<Arc<Core>> for Raw {
    type Rejection = Problem;

    async fn from_request(request: Request, core: &Arc<Core>) -> Result<Self, Problem> {
        let limits = &core.settings.limits;
        let body = Limited::new(request.into_body(), limits.body_bytes).collect();
        match timeout(limits.body_within, body).await {
            Ok(Ok(body)) => Ok(Self(body.to_bytes())),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                let message = format!("the body is larger than {} bytes", limits.body_bytes);
                Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message))
            }
            Ok(Err(_)) => Err(Problem::malformed("the body cannot be read")),
            Err(_) => {
                let message = "the body did not come in time";
                Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "too-slow", message))
            }
        }
    }
}

/// A body of JSON, whatever its `Content-Type` says: nobody but the holder of a token gets this
/// far, so there is nothing to protect browsers from. None at all is `{}`.
pub(crate) struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<Core>> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, core: &Arc<Core>) -> Result<Self, Problem> {
        let Raw(bytes) = Raw::from_request(request, core).await?;
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        parse(text).map(Self)
    }
}

/// Reads a JSON object. How deep it may go is limited by the parser.
pub(crate) fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, Problem> {
    // A list would be taken for the fields in order.
    if text.trim_ascii_start().first() == Some(&b'[') {
        return Err(match serde_json::from_slice::<IgnoredAny>(text) {
            Ok(IgnoredAny) => Problem::invalid("bad-body", "the body is not an object"),
            Err(error) => Problem::malformed(format!("the body: {error}")),
        });
    }
    serde_json::from_slice(text).map_err(|error| {
        let message = format!("the body: {}", quoted(&error.to_string()));
        match error.classify() {
            Category::Data => Problem::invalid("bad-body", message),
            Category::Syntax | Category::Eof | Category::Io => Problem::malformed(message),
        }
    })
}

/// The query.
pub(crate) struct Params<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Arc<Core>> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Core>) -> Result<Self, Problem> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(params)) => Ok(Self(params)),
            Err(error) => Err(Problem::malformed(quoted(&error.body_text()))),
        }
    }
}

/// The variable parts of the path.
pub(crate) struct PathParts(HashMap<String, String>);

impl FromRequestParts<Arc<Core>> for PathParts {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, core: &Arc<Core>) -> Result<Self, Problem> {
        let found = Path::<HashMap<String, String>>::from_request_parts(parts, core).await;
        found.map(|Path(found)| Self(found)).map_err(|_| Problem::hidden("such address"))
    }
}

impl PathParts {
    /// A part of the route's own address.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// A part that can be a name.
    pub(crate) fn name(&self, name: &str) -> Result<&str, Problem> {
        Some(self.get(name)).filter(|text| names::is_name(text)).ok_or_else(|| self.hidden(name))
    }

    /// A part that is a number.
    pub(crate) fn number(&self, name: &str) -> Result<u64, Problem> {
        let text = self.get(name);
        let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|number| is_plain && i64::try_from(*number).is_ok());
        number.ok_or_else(|| self.hidden(name))
    }

    fn hidden(&self, name: &str) -> Problem {
        Problem::hidden(format_args!("{name} `{}`", quoted(self.get(name))))
    }
}

impl FromRequestParts<Arc<Core>> for At {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, core: &Arc<Core>) -> Result<Self, Problem> {
        let path = PathParts::from_request_parts(parts, core).await?;
        let scope = names::scope(path.get("project"), path.get("environment"));
        scope.map(Self).ok_or_else(|| Problem::hidden("such environment"))
    }
}

/// The environment that the path names.
pub(crate) struct At(pub Scope);

/// The header `Idempotency-Key`.
pub(crate) struct IdempotencyKey(pub Option<String>);

impl FromRequestParts<Arc<Core>> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Core>) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get("idempotency-key") else { return Ok(Self(None)) };
        let key = value.to_str().ok().map(str::trim).filter(|key| {
            (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic())
        });
        let key = key.ok_or_else(|| {
            Problem::malformed("`Idempotency-Key` is 1 to 255 characters of ASCII without blanks")
        })?;
        Ok(Self(Some(key.to_owned())))
    }
}

impl FromRequestParts<Arc<Core>> for Noted {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Core>) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}
