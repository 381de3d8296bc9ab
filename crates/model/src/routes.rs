//! Which requests an environment answers at the shared entries, and what holds for them.
//!
//! These are written into bindings, so that a rollback restores them: what is at its default is not
//! written, and what is not written is at its default.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The entry for requests without TLS, port 80 unless the edge was told another.
pub const ENTRY_HTTP: &str = "http";
/// The entry for requests with TLS, port 443 unless the edge was told another.
pub const ENTRY_HTTPS: &str = "https";

/// Where the edge listens for routes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntrySpec {
    /// The name that routes call it by.
    pub name: String,
    /// Address on the host; nothing for all, IPv4 and IPv6.
    #[serde(default, skip_serializing_if = "is_default")]
    pub address: Option<IpAddr>,
    /// Port on the host.
    pub port: u16,
}

/// Everything that an environment says about requests from outside.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteTable {
    /// Where the edge should listen for them, where it does not listen for that entry yet: entries
    /// belong to the machine, and whoever needs one first opens it.
    #[serde(skip_serializing_if = "is_default")]
    pub entries: Vec<EntrySpec>,
    /// Its routes at the shared entries.
    #[serde(skip_serializing_if = "is_default")]
    pub routes: Vec<RouteSpec>,
    /// What holds for requests at the host ports that its services publish.
    #[serde(skip_serializing_if = "is_default")]
    pub guard: RoutePolicy,
}

impl RouteTable {
    /// Whether two ask for the same of requests. Where the edge listens is not a part of that.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        self.routes == other.routes && self.guard == other.guard
    }

    /// The ports of a service that routes lead to.
    #[must_use]
    pub fn ports_of(&self, service: &str) -> BTreeSet<u16> {
        let led = self.routes.iter().filter_map(|route| match &route.to {
            RouteTo::Service { service: name, port } if name == service => Some(*port),
            RouteTo::Service { .. } | RouteTo::Redirect { .. } => None,
        });
        led.collect()
    }
}

/// Requests for one host and below one path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteSpec {
    /// `shop.example`, `*.shop.example` (any name below it), or none: every host.
    #[serde(default, skip_serializing_if = "is_default")]
    pub host: Option<String>,
    /// Starts with `/`; a prefix of whole segments.
    pub path: String,
    /// Names of the entries that it is about.
    pub entries: Vec<String>,
    /// Who answers.
    #[serde(flatten)]
    pub to: RouteTo,
    /// What holds for the requests on the way.
    #[serde(default, skip_serializing_if = "is_default")]
    pub policy: RoutePolicy,
}

impl RouteSpec {
    /// Whether two are about the same requests, so that only one of them can be there.
    #[must_use]
    pub fn collides(&self, other: &Self) -> bool {
        self.host == other.host
            && self.path == other.path
            && self.entries.iter().any(|entry| other.entries.contains(entry))
    }
}

impl fmt::Display for RouteSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.entries.as_slice() {
            [only] => format!("{only}://"),
            _ => String::new(),
        };
        let path = if self.path == "/" { "" } else { &self.path };
        write!(f, "{scheme}{}{path}", self.host.as_deref().unwrap_or("*"))
    }
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouteTo {
    /// A service of the environment.
    Service {
        /// Its name.
        service: String,
        /// The port in the container.
        port: u16,
    },
    /// Somebody else, at another address.
    Redirect {
        /// `https://www.example.com`, or with a path. The request's own path and query come behind
        /// it unless `exact`.
        to: String,
        /// Whether `to` is the whole address.
        #[serde(default, skip_serializing_if = "is_default")]
        exact: bool,
        /// 301, 302, 303, 307 or 308.
        status: u16,
    },
}

impl fmt::Display for RouteTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service { service, port } => write!(f, "{service}:{port}"),
            Self::Redirect { to, status, .. } => write!(f, "{to} ({status})"),
        }
    }
}

/// What holds for requests, whoever answers them. All of it is off by default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RoutePolicy {
    /// A request without TLS is sent to the same address with it, at this port, as soon as there is
    /// a certificate for its host.
    #[serde(skip_serializing_if = "is_default")]
    pub https_port: Option<u16>,
    /// How long browsers are to come with TLS only, in seconds, from each answer on.
    #[serde(skip_serializing_if = "is_default")]
    pub hsts_s: Option<u64>,
    /// Address blocks whose clients are let in; others get 403. Empty: all.
    #[serde(skip_serializing_if = "is_default")]
    pub allow: Vec<String>,
    /// Who is let in by name and password; others get 401.
    #[serde(skip_serializing_if = "is_default")]
    pub basic_auth: Option<BasicAuth>,
    /// How many requests are let in; others get 429.
    #[serde(skip_serializing_if = "is_default")]
    pub rate: Option<RateLimit>,
    /// A larger body gets 413. None: no limit.
    #[serde(skip_serializing_if = "is_default")]
    pub body_bytes: Option<u64>,
    /// Keep away from search engines: `X-Robots-Tag` on every answer, and a `robots.txt`.
    #[serde(skip_serializing_if = "is_default")]
    pub noindex: bool,
    /// The route's path is taken off before the request goes on.
    #[serde(skip_serializing_if = "is_default")]
    pub strip_path: bool,
    /// What is changed in the headers that replicas get.
    #[serde(skip_serializing_if = "is_default")]
    pub request_headers: HeaderRules,
    /// What is changed in the headers that clients get.
    #[serde(skip_serializing_if = "is_default")]
    pub response_headers: HeaderRules,
}

impl RoutePolicy {
    /// What it asks for, in a few words each, without any value that is not for everybody.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let mut say = |holds: bool, what: &str| {
            if holds {
                words.push(what.to_owned());
            }
        };
        say(self.basic_auth.is_some(), "basic auth");
        say(!self.allow.is_empty(), "allow list");
        say(self.noindex, "noindex");
        say(self.https_port.is_some(), "to https");
        say(self.hsts_s.is_some(), "hsts");
        say(self.rate.is_some(), "rate limit");
        say(self.body_bytes.is_some(), "body limit");
        say(self.strip_path, "path taken off");
        let headers = [&self.request_headers, &self.response_headers];
        say(headers.iter().any(|rules| **rules != HeaderRules::default()), "headers");
        words
    }
}

/// Names and passwords.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BasicAuth {
    /// What the client is told to be logging in to.
    pub realm: String,
    /// By name, the bcrypt hash of the password.
    pub users: BTreeMap<String, String>,
}

/// Hashes are not for logs.
impl fmt::Debug for BasicAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let users: Vec<&String> = self.users.keys().collect();
        f.debug_struct("BasicAuth").field("realm", &self.realm).field("users", &users).finish()
    }
}

/// How often, on average and at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    /// So many requests …
    pub requests: u32,
    /// … in this time, on average.
    pub per_ms: u64,
    /// So many may come at once, when there were few before.
    pub burst: u32,
    /// Whose requests are counted together.
    pub by: RateBy,
}

/// Whose requests are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RateBy {
    /// Those of one client address (of IPv6: one /64).
    #[default]
    Client,
    /// All of the route.
    Route,
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

/// Whether an environment is to be used. Switched by hand, apart from deployments, which leave it
/// as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum MaintenanceChange {
    /// As it is.
    #[default]
    Keep,
    /// Everybody gets the page.
    On(Maintenance),
    /// Requests are answered again.
    Off,
}

/// What is said while an environment is not to be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    /// The page.
    pub body: String,
    /// Its `Content-Type`.
    pub content_type: String,
    /// When to come back, in seconds.
    pub retry_after_s: u32,
    /// Address blocks that are served nevertheless.
    pub allow: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_form_of_version_1_is_read() {
        let stored = r#"{"routes":[{"host":"shop.example","path":"/api","entries":["http"],
            "service":{"service":"api","port":8000},"policy":{"noindex":true,"rate":
            {"requests":5,"per_ms":1000,"burst":9,"by":"client"}}},{"path":"/","entries":["http"],
            "redirect":{"to":"https://a","status":308}}],"guard":{"allow":["10.0.0.0/8"]}}"#;
        let table: RouteTable = serde_json::from_str(stored).expect("version 1");
        assert_eq!(table.routes[0].to.to_string(), "api:8000");
        assert!(table.routes[0].policy.noindex);
        assert_eq!(table.routes[1].to_string(), "http://*");
        let written = serde_json::to_string(&table).expect("JSON");
        assert_eq!(serde_json::from_str::<RouteTable>(&written).expect("ours"), table);
    }

    #[test]
    fn printing_a_policy_shows_no_hash() {
        let users = [("ann".to_owned(), "$2y$hash".to_owned())].into();
        let auth = BasicAuth { realm: "dev".to_owned(), users };
        assert!(!format!("{auth:?}").contains("hash"));
    }
}
