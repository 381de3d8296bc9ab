//! The addresses of the API, and the page that describes them.

mod answer;
mod commands;
mod dispatch;
mod environments;
mod extract;
mod health;
mod hooks;
mod orders;
mod place;
mod tokens;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::FutureExt;
use http::{HeaderValue, Method, StatusCode};
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use self::commands::CommandInput;
pub(crate) use self::commands::Running as RunningCommands;
pub use self::dispatch::DispatchRequest;
pub use self::environments::EnvironmentView;
pub use self::health::HealthView;
pub use self::hooks::HookView;
pub use self::place::{DeploymentRequest, PromotionRequest, RollbackRequest};
pub use self::tokens::{ActionView, NewTokenView, TokenRequest, TokenScopeView, TokenView};

use crate::audit::Noted;
use crate::caller::Origin;
use crate::core::Core;
use crate::problem::{Problem, ProblemCode};

/// What the page says besides the routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Shiplap control server",
        description = "Deploys projects of Docker Compose without a failed request. See docs/server.md.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    modifiers(&Security),
    security(("token" = [])),
)]
struct Page;

/// `Authorization: Bearer shiplap_…`.
struct Security;

impl utoipa::Modify for Security {
    fn modify(&self, page: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("shiplap_<id>_<secret>")
            .description(Some("`Authorization: token …` and basic authentication with the token as password do as well"))
            .build();
        let components = page.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

fn described() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::with_openapi(Page::openapi())
        .routes(routes!(health::health))
        .routes(routes!(health::metrics))
        .routes(routes!(environments::list))
        .routes(routes!(environments::show))
        .routes(routes!(environments::history, place::deploy))
        .routes(routes!(environments::deployment))
        .routes(routes!(place::rollback))
        .routes(routes!(place::promote))
        .routes(routes!(orders::list))
        .routes(routes!(orders::show, orders::withdraw))
        .routes(routes!(orders::events))
        .routes(routes!(tokens::list, tokens::make))
        .routes(routes!(tokens::revoke))
        .routes(routes!(dispatch::dispatch))
        .routes(routes!(dispatch::dispatch_at_github))
        .routes(routes!(hooks::hook))
        .routes(routes!(commands::run))
        .routes(routes!(commands::input))
        .routes(routes!(commands::interrupt))
}

/// The description of the API: OpenAPI 3.1, as JSON.
#[must_use]
pub fn openapi() -> String {
    let (_, page) = described().split_for_parts();
    page.to_pretty_json().expect("the page can be written as JSON")
}

/// All routes.
pub(crate) fn router(core: Arc<Core>) -> Router {
    let (router, page) = described().split_for_parts();
    let page: Arc<str> = page.to_json().expect("the page can be written as JSON").into();
    let json = [("content-type", "application/json")];
    router
        .route("/api/v1/openapi.json", get(move || async move { (json, page.to_string()) }))
        .fallback(async || Problem::hidden("such address"))
        .method_not_allowed_fallback(async || {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "bad-method",
                "this address has other methods",
            )
        })
        .layer(from_fn_with_state(core.clone(), audited))
        .with_state(core)
}

/// Writes the audit log, and answers where a handler panics.
async fn audited(State(core): State<Arc<Core>>, mut request: Request, next: Next) -> Response {
    let noted = Noted::default();
    let origin = request.extensions().get::<Origin>();
    let mut audit = Audit {
        from: origin.map_or_else(String::new, ToString::to_string),
        method: request.method().clone(),
        path: request.uri().path().to_owned(),
        noted: noted.clone(),
        core,
        answer: (client_left(), None),
    };
    request.extensions_mut().insert(noted);
    let mut response = match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_) => {
            audit.core.log.trouble(&format!("{} {}: a bug: it panicked", audit.method, audit.path));
            let message = "this is a bug of the server";
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "bug", message).into_response()
        }
    };
    let problem = response.extensions().get::<ProblemCode>().map(|code| code.0);
    audit.answer = (response.status(), problem);
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

/// Nobody was there to be answered, as nginx has it.
fn client_left() -> StatusCode {
    StatusCode::from_u16(499).expect("is a status")
}

/// A request on its way. Written down when it is dropped: also if its client leaves before the
/// answer.
struct Audit {
    core: Arc<Core>,
    noted: Noted,
    from: String,
    method: Method,
    path: String,
    answer: (StatusCode, Option<&'static str>),
}

impl Drop for Audit {
    fn drop(&mut self) {
        let from = std::mem::take(&mut self.from);
        let request = (&self.method, self.path.as_str());
        if let Some(line) = self.noted.line(self.core.now_ms(), from, request, self.answer) {
            self.core.log.audit(&line);
        }
    }
}
