//! Which requests go where, by host and path, and what holds for them on the way.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::is_default;

/// Requests for one host and below one path.
///
/// An exact host goes before `*.example.com`, and that before none; among those of one host the
/// longest path wins. A path is a prefix of whole segments: `/api` is about `/api` and `/api/x`,
/// not about `/apix`. Paths are compared as a server reads them: decoded, and with `.`, `..` and
/// empty segments taken out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// `project/environment`: whose route this is.
    pub owner: String,
    /// `shop.example`, `*.shop.example` (any name below it), or none: every host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Starts with `/`.
    #[serde(default = "root")]
    pub path: String,
    /// The names of the listeners (see [`super::Listener::entry`]) that it is about.
    #[serde(default = "usual_entries")]
    pub entries: Vec<String>,
    /// What becomes of the requests.
    #[serde(flatten)]
    pub target: Target,
    /// What holds for them on the way.
    #[serde(default, skip_serializing_if = "is_default")]
    pub policy: Policy,
}

fn root() -> String {
    "/".to_owned()
}

fn usual_entries() -> Vec<String> {
    vec!["http".to_owned(), "https".to_owned()]
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The pool of this name answers.
    Pool(String),
    /// Somewhere else does.
    Redirect(Redirect),
}

/// Where to go instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirect {
    /// `https://www.example.com`, or with a path. The request's own path and query come behind it
    /// unless `exact`.
    pub to: String,
    /// `to` is the whole address.
    #[serde(default, skip_serializing_if = "is_default")]
    pub exact: bool,
    /// 301, 302, 303, 307 or 308.
    #[serde(default = "permanent")]
    pub status: u16,
}

fn permanent() -> u16 {
    308
}

/// What holds for requests, whoever answers them. All of it is off by default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// A request that came without TLS is sent to the same address with it, at this port.
    #[serde(skip_serializing_if = "is_default")]
    pub https_port: Option<u16>,
    /// Not before the table has a certificate for the route's host: until an authority has been
    /// there, clients would be sent where nobody can answer them.
    #[serde(skip_serializing_if = "is_default")]
    pub https_needs_certificate: bool,
    /// Browsers are told to come with TLS only, from now on (`Strict-Transport-Security`), in
    /// answers to requests that came so.
    #[serde(skip_serializing_if = "is_default")]
    pub hsts: Option<Hsts>,
    /// Address blocks whose clients are let in; others get 403. Empty: all.
    #[serde(skip_serializing_if = "is_default")]
    pub allow: Vec<String>,
    /// Who is let in by name and password; others get 401.
    #[serde(skip_serializing_if = "is_default")]
    pub basic_auth: Option<BasicAuth>,
    /// How many requests are let in; others get 429.
    #[serde(skip_serializing_if = "is_default")]
    pub rate: Option<Rate>,
    /// A larger body gets 413. None: no limit; bodies are streamed, and cost no memory.
    #[serde(skip_serializing_if = "is_default")]
    pub body_bytes: Option<u64>,
    /// What is said instead of an answer.
    #[serde(skip_serializing_if = "is_default")]
    pub maintenance: Option<Maintenance>,
    /// Keep away from search engines: `X-Robots-Tag` on every answer, and a `robots.txt`.
    #[serde(skip_serializing_if = "is_default")]
    pub noindex: bool,
    /// The route's path is taken off before the request goes on; `X-Forwarded-Prefix` names it.
    #[serde(skip_serializing_if = "is_default")]
    pub strip_path: bool,
    /// What is changed in the headers that replicas get.
    #[serde(skip_serializing_if = "is_default")]
    pub request_headers: HeaderRules,
    /// What is changed in the headers that clients get.
    #[serde(skip_serializing_if = "is_default")]
    pub response_headers: HeaderRules,
}

/// For how long, and for which names, browsers are to come with TLS only. There is no way back
/// before that time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hsts {
    /// From the last answer that said so.
    pub max_age_s: u64,
    /// All names below the host too.
    #[serde(default, skip_serializing_if = "is_default")]
    pub include_subdomains: bool,
    /// Browsers may have it built in. Their makers ask for a year, and for names below too.
    #[serde(default, skip_serializing_if = "is_default")]
    pub preload: bool,
}

/// Names and passwords.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BasicAuth {
    /// What the client is told to be logging in to.
    pub realm: String,
    /// By name, the hash of the password: bcrypt, as `htpasswd -B` writes it (`$2y$…`).
    pub users: BTreeMap<String, String>,
}

/// Hashes are not for logs.
impl std::fmt::Debug for BasicAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let users: Vec<&String> = self.users.keys().collect();
        f.debug_struct("BasicAuth").field("realm", &self.realm).field("users", &users).finish()
    }
}

/// How often, on average and at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// So many requests …
    pub requests: u32,
    /// … in this time, on average.
    pub per_ms: u64,
    /// So many may come at once, when there were few before.
    pub burst: u32,
    /// Whose requests are counted together.
    pub by: RateKey,
}

/// Whose requests are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RateKey {
    /// Those of one client address (of IPv6: one /64).
    Client,
    /// All of the route.
    Route,
}

/// What is said while a service is not to be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Maintenance {
    /// 503 unless given.
    pub status: u16,
    /// `Content-Type` of `body`.
    pub content_type: String,
    /// The page.
    pub body: String,
    /// When to come back.
    pub retry_after_s: u32,
    /// Address blocks that are served nevertheless.
    pub allow: Vec<String>,
}

impl Default for Maintenance {
    fn default() -> Self {
        Maintenance {
            status: 503,
            content_type: "text/plain; charset=utf-8".to_owned(),
            body: "back in a few minutes\n".to_owned(),
            retry_after_s: 120,
            allow: Vec::new(),
        }
    }
}

/// Changes to headers: first `remove`, then `set`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HeaderRules {
    /// Names that are taken out.
    #[serde(skip_serializing_if = "is_default")]
    pub remove: Vec<String>,
    /// Names and the value that each has then, whatever it had.
    #[serde(skip_serializing_if = "is_default")]
    pub set: BTreeMap<String, String>,
}
