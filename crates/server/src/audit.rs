//! One line for each request that changes something or is refused.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

/// Longer paths are cut: they are a caller's own.
const MAX_PATH: usize = 300;

/// Where a server writes what it did. Never blocks for long.
pub trait Log: Send + Sync {
    /// A request that was answered.
    fn audit(&self, line: &AuditLine);
    /// Something that those who run the server should know, such as a ledger that does not answer.
    fn trouble(&self, text: &str);
}

/// A request that changed something or was refused. Holds no secret: neither a header nor a body
/// nor a query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditLine {
    /// When it was answered, milliseconds since 1970.
    pub at_ms: i64,
    /// The token's name, user and host, or the sender of a webhook; nothing where nobody was
    /// authenticated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// The token's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The address, or `unix:` and the user.
    pub from: String,
    /// The method.
    pub method: String,
    /// The path.
    pub path: String,
    /// The status of the answer.
    pub status: u16,
    /// What it came to: a problem's word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What was done: `ordered 12 (shop/prod: api=abc123)`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub did: Vec<String>,
}

impl AuditLine {
    /// As a line of JSON, without its end.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a line of the audit log can be written as JSON")
    }
}

/// What handlers tell of a request while they answer it. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Noted(Arc<Mutex<Notes>>);

#[derive(Debug, Default)]
struct Notes {
    who: Option<String>,
    token: Option<String>,
    did: Vec<String>,
}

impl Noted {
    fn with<T>(&self, change: impl FnOnce(&mut Notes) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn who(&self, who: &str, token: Option<&str>) {
        self.with(|notes| {
            notes.who = Some(who.to_owned());
            notes.token = token.map(str::to_owned);
        });
    }

    pub(crate) fn did(&self, what: String) {
        self.with(|notes| notes.did.push(what));
    }

    /// The line, where there is one to write.
    pub(crate) fn line(
        &self,
        at_ms: i64,
        from: String,
        request: (&http::Method, &str),
        answer: (http::StatusCode, Option<&'static str>),
    ) -> Option<AuditLine> {
        let ((method, path), (status, problem)) = (request, answer);
        let changes = !method.is_safe();
        if !changes && !status.is_client_error() && !status.is_server_error() {
            return None;
        }
        let cut = path.char_indices().nth(MAX_PATH).map_or(path.len(), |(at, _)| at);
        self.with(|notes| {
            Some(AuditLine {
                at_ms,
                who: notes.who.take(),
                token: notes.token.take(),
                from,
                method: method.to_string(),
                path: path[..cut].to_owned(),
                status: status.as_u16(),
                problem: problem.map(str::to_owned),
                did: std::mem::take(&mut notes.did),
            })
        })
    }
}
