use crate::api::{health, milliseconds};
use crate::client::Pool;
use crate::http::{Handler, Reply, Request};
use crate::settings::Settings;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// The front: a page, and `/api/*` passed on to the service `api`.
pub struct Web {
    settings: Arc<Settings>,
    api: Pool,
}

impl Web {
    pub fn new(settings: Arc<Settings>) -> Web {
        let api = Pool::new(&settings.api);
        Web { settings, api }
    }

    fn page(&self) -> Reply {
        let body = include_str!("page.html").replace("{{version}}", &self.settings.version);
        Reply::Full { status: 200, content_type: "text/html; charset=utf-8", body: body.into() }
    }

    async fn pass_on(&self, path: &str, request: &Request) -> Reply {
        let mut target = path.to_owned();
        if !request.query.is_empty() {
            target = format!("{path}?{}", request.query);
        }
        match self.api.request(&request.method, &target, &request.body).await {
            Ok(answer) => Reply::Full {
                status: answer.status,
                content_type: "application/json",
                body: answer.body,
            },
            Err(error) => Reply::json(502, json!({ "error": format!("api: {error}") })),
        }
    }
}

impl Web {
    /// Asks the api, and once more after a while.
    async fn ask_twice(&self, request: &Request) -> Reply {
        let ms = match milliseconds(request) {
            Ok(ms) => ms,
            Err(refusal) => return refusal,
        };
        let asked = Request { method: "GET".to_owned(), query: String::new(), ..request.clone() };
        let first = self.pass_on("/version", &asked).await;
        if !matches!(first, Reply::Full { status: 200, .. }) {
            return first;
        }
        tokio::time::sleep(Duration::from_millis(ms)).await;
        self.pass_on("/version", &asked).await
    }
}

impl Handler for Web {
    async fn handle(&self, request: Request) -> Reply {
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/") => self.page(),
            ("GET", "/version") => Reply::json(200, json!({ "version": self.settings.version })),
            ("GET", "/health") => health(&self.settings),
            ("GET", "/twice") => self.ask_twice(&request).await,
            // A stream never ends, and answers are passed on whole.
            (_, "/api/stream") => Reply::not_found(&request),
            (_, path) => match path.strip_prefix("/api") {
                Some(rest) if rest.starts_with('/') => self.pass_on(rest, &request).await,
                Some(_) | None => Reply::not_found(&request),
            },
        }
    }
}
