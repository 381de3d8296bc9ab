//! Routes: from what the file says to what the edge is asked for.

use std::net::IpAddr;
use std::path::Path;

use shiplap_compose::document::{Cursor, nearest_word};
use shiplap_compose::model::{Project, Service};
use shiplap_compose::{Diagnostic, FileSource};
use shiplap_model::{
    BasicAuth, ENTRY_HTTP, ENTRY_HTTPS, EntrySpec, HeaderRules, RateBy, RateLimit, RoutePolicy,
    RouteSpec, RouteTable, RouteTo,
};

use crate::file::{self, Environment, Headers, Plain, Protect, Route, Size};
use crate::settings::{EntryPoint, bytes, duration};
use crate::{Settings, htpasswd};

/// What stands for the environment's name.
const ENVIRONMENT: &str = "{environment}";

/// A route that no file writes down: a Compose file made for Coolify expects it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// The host.
    pub host: String,
    /// The path, `/` for all.
    pub path: String,
    /// The service.
    pub service: String,
    /// Its port.
    pub port: u16,
}

/// The routes of a project without `shiplap.yaml`: those that its file expects, without TLS.
#[must_use]
pub fn plain_routes(generated: &[Generated]) -> RouteTable {
    if generated.is_empty() {
        return RouteTable::default();
    }
    let route = |expected: &Generated| RouteSpec {
        host: Some(expected.host.clone()),
        path: expected.path.clone(),
        entries: vec![ENTRY_HTTP.to_owned()],
        to: RouteTo::Service { service: expected.service.clone(), port: expected.port },
        policy: RoutePolicy::default(),
    };
    let entry = EntrySpec { name: ENTRY_HTTP.to_owned(), address: None, port: 80 };
    RouteTable {
        entries: vec![entry],
        routes: generated.iter().map(route).collect(),
        guard: RoutePolicy::default(),
    }
}

impl Settings {
    /// The environment's routes, and what holds at the ports that its services publish. Generated
    /// ones are added where the file has none for the same requests, under the same protection.
    ///
    /// # Errors
    /// Services and ports that the project does not have, and files with passwords that cannot be
    /// read.
    pub fn routes(
        &self,
        project: &Project,
        generated: &[Generated],
        files: &dyn FileSource,
    ) -> Result<RouteTable, Vec<Diagnostic>> {
        let mut problems = Vec::new();
        let given = self.given();
        let guard = self.protection(&given.protect, &["protect"], files, &mut problems);
        let mut routes: Vec<RouteSpec> = Vec::new();
        for (index, route) in given.routes.iter().enumerate() {
            let index = index.to_string();
            let protect = match &route.protect {
                // Where to go instead is no secret, and asking for a password twice helps nobody.
                None if route.redirect.is_some() => {
                    RoutePolicy { noindex: guard.noindex, ..RoutePolicy::default() }
                }
                None => guard.clone(),
                Some(own) => {
                    let path = ["routes", &index, "protect"];
                    self.protection(own, &path, files, &mut problems)
                }
            };
            if route.host.is_none() && self.is_derived() {
                // Requests for any host are those of the environment that it is made from.
                continue;
            }
            let to = match self.target(route, &index, project) {
                Ok(to) => to,
                Err(problem) => {
                    problems.push(*problem);
                    continue;
                }
            };
            let route = self.route(route, to, protect);
            if routes.iter().any(|other| other.host == route.host && other.path == route.path) {
                let at = self.at(&["routes", &index]);
                let message = format!("two routes are about {route}");
                problems.push(at.error("config/same-route", message, "the second one"));
            }
            routes.push(route);
        }
        for expected in generated {
            let given = Route {
                host: Some(expected.host.clone()),
                path: Some(expected.path.clone()),
                ..Route::default()
            };
            let (service, port) = (expected.service.clone(), expected.port);
            let route = self.route(&given, RouteTo::Service { service, port }, guard.clone());
            if project.services.contains_key(&expected.service)
                && !routes.iter().any(|known| known.collides(&route))
            {
                routes.push(route);
            }
        }
        let entry = |name: &str, point: EntryPoint| EntrySpec {
            name: name.to_owned(),
            address: point.address,
            port: point.port,
        };
        let entries = vec![entry(ENTRY_HTTP, self.http), entry(ENTRY_HTTPS, self.https)];
        if problems.is_empty() { Ok(RouteTable { entries, routes, guard }) } else { Err(problems) }
    }

    fn route(&self, given: &Route, to: RouteTo, protect: RoutePolicy) -> RouteSpec {
        let tls = self.tls.as_ref();
        let entries = if tls.is_some() { vec![ENTRY_HTTP, ENTRY_HTTPS] } else { vec![ENTRY_HTTP] };
        let redirects = tls.is_some() && given.plain == Plain::Redirect;
        let policy = RoutePolicy {
            https_port: redirects.then_some(self.https.port),
            hsts_s: tls.and_then(|tls| tls.hsts).map(|time| time.as_secs()),
            rate: given.rate.as_ref().map(rate),
            body_bytes: given.body.as_ref().and_then(bytes),
            strip_path: given.strip_path,
            request_headers: headers(&given.request_headers),
            response_headers: headers(&given.response_headers),
            ..protect
        };
        RouteSpec {
            host: given.host.as_ref().map(|host| self.own_host(host)),
            path: given.path.clone().unwrap_or_else(|| "/".to_owned()),
            entries: entries.into_iter().map(str::to_owned).collect(),
            to,
            policy,
        }
    }

    fn target(
        &self,
        given: &Route,
        index: &str,
        project: &Project,
    ) -> Result<RouteTo, Box<Diagnostic>> {
        if let Some(to) = &given.redirect {
            let status = given.status.unwrap_or(308);
            return Ok(RouteTo::Redirect { to: self.own_address(to), exact: false, status });
        }
        let name = given.service.as_deref().unwrap_or_default();
        let at = self.at(&["routes", index, "service"]);
        let Some(service) = project.services.get(name) else {
            let message = format!("environment `{}` has no service `{name}`", self.name);
            let diagnostic = at.error("config/unknown-service", message, "no such service");
            let known = project.services.keys().map(String::as_str);
            return Err(Box::new(match nearest_word(name, known.clone()) {
                Some(near) => diagnostic.help(format!("did you mean `{near}`?")),
                None => diagnostic.help(format!("it has {}", known.collect::<Vec<_>>().join(", "))),
            }));
        };
        if let Some(port) = given.port {
            return Ok(RouteTo::Service { service: name.to_owned(), port });
        }
        match declared_ports(service).as_slice() {
            [port] => Ok(RouteTo::Service { service: name.to_owned(), port: *port }),
            [] => {
                let message = format!("which port of `{name}` answers, no file says");
                let problem = at.error("config/no-port", message, "no port is known");
                Err(Box::new(problem.help("`port: 8000`")))
            }
            several => {
                let list: Vec<String> = several.iter().map(u16::to_string).collect();
                let message = format!("`{name}` has the ports {}", list.join(", "));
                let problem = at.error("config/no-port", message, "one of them must be named");
                Err(Box::new(problem.help(format!("`port: {}`", list[0]))))
            }
        }
    }

    /// A host of the file, as it is called here: an environment that is made from another one puts
    /// its name in front, unless the file says where it belongs.
    fn own_host(&self, host: &str) -> String {
        let filled = self.fill(host).to_ascii_lowercase();
        if !self.is_derived() || host.contains(ENVIRONMENT) {
            return filled;
        }
        match filled.strip_prefix("*.") {
            Some(below) => format!("*.{}.{below}", self.name),
            None => format!("{}.{filled}", self.name),
        }
    }

    /// Where a redirect leads: one to a host of the environment's own stays with it.
    fn own_address(&self, to: &str) -> String {
        let filled = self.fill(to);
        let hosts = self.given().routes.iter().filter_map(|route| route.host.as_deref());
        for host in hosts.filter(|host| !host.contains(ENVIRONMENT)) {
            for scheme in ["https://", "http://"] {
                let rest = filled.strip_prefix(scheme).and_then(|rest| rest.strip_prefix(host));
                if let Some(rest) = rest.filter(|r| r.is_empty() || r.starts_with(['/', ':'])) {
                    return format!("{scheme}{}{rest}", self.own_host(host));
                }
            }
        }
        filled
    }

    /// Routes of the file that an environment made from another one goes without: requests for
    /// every host can be answered by one only.
    #[must_use]
    pub fn left_out_routes(&self) -> Vec<String> {
        let routes = self.given().routes.iter().filter(|route| route.host.is_none());
        let path = |route: &Route| format!("*{}", route.path.as_deref().unwrap_or("/"));
        routes.filter(|_| self.is_derived()).map(path).collect()
    }

    fn protection(
        &self,
        given: &Protect,
        path: &[&str],
        files: &dyn FileSource,
        problems: &mut Vec<Diagnostic>,
    ) -> RoutePolicy {
        let mut policy = RoutePolicy {
            allow: given.allow.iter().map(|block| with_length(block)).collect(),
            noindex: given.noindex,
            ..RoutePolicy::default()
        };
        if let Some(file) = &given.basic_auth {
            let whole: Vec<&str> = path.iter().copied().chain(["basic_auth"]).collect();
            let named = self.at(&whole).location();
            match htpasswd::read(&self.config.folder().join(Path::new(file)), named, files) {
                Ok(users) => {
                    let realm = format!("{} {}", self.project, self.name);
                    policy.basic_auth = Some(BasicAuth { realm, users });
                }
                Err(problem) => problems.push(*problem),
            }
        }
        policy
    }
}

/// The TCP ports that a service declares, by publishing or exposing them, in order.
fn declared_ports(service: &Service) -> Vec<u16> {
    let published = service
        .ports
        .iter()
        .filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "tcp"))
        .map(|port| port.target);
    let exposed = service.expose.iter().filter_map(|port| match port.split_once('/') {
        None => port.parse().ok(),
        Some((port, "tcp")) => port.parse().ok(),
        Some(_) => None,
    });
    let mut ports: Vec<u16> = published.chain(exposed).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn rate(given: &file::Rate) -> RateLimit {
    let per = given.per.as_deref().and_then(duration).map_or(1000, |per| per.as_millis());
    RateLimit {
        requests: given.requests,
        per_ms: u64::try_from(per).unwrap_or(u64::MAX),
        burst: given.burst.unwrap_or(given.requests),
        by: match given.by {
            file::RateBy::Client => RateBy::Client,
            file::RateBy::Route => RateBy::Route,
        },
    }
}

fn headers(given: &Headers) -> HeaderRules {
    HeaderRules { remove: given.remove.clone(), set: given.set.clone() }
}

/// An address is a block of one.
fn with_length(block: &str) -> String {
    match block.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => format!("{block}/32"),
        Ok(IpAddr::V6(_)) => format!("{block}/128"),
        Err(_) => block.to_owned(),
    }
}

/// An address or a block of addresses as a block; nothing for another text.
///
/// ```text
/// 192.0.2.7 -> 192.0.2.7/32
/// ```
#[must_use]
pub fn address_block(text: &str) -> Option<String> {
    let whole = with_length(text);
    let (address, length) = whole.split_once('/')?;
    let most = match address.parse::<IpAddr>().ok()? {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    };
    (length.parse::<u8>().ok()? <= most).then_some(whole)
}

/// What the schema cannot say of routes.
pub(crate) fn check(here: &Cursor<'_>, given: &Environment, problems: &mut Vec<Diagnostic>) {
    protect(&here.nearest(&["protect"]), &given.protect, problems);
    for (index, route) in given.routes.iter().enumerate() {
        let at = here.nearest(&["routes", &index.to_string()]);
        if let Some(own) = &route.protect {
            protect(&at.nearest(&["protect"]), own, problems);
        }
        let mut say = |path: &[&str], message: String, help: &str| {
            let at = at.nearest(path);
            problems.push(at.error("config/wrong-value", message, "this one").help(help));
        };
        match (&route.service, &route.redirect) {
            (Some(_), None) | (None, Some(_)) => {}
            (None, None) => say(&[], "a route leads nowhere".to_owned(), "`service: NAME`"),
            (Some(_), Some(_)) => say(
                &["redirect"],
                "a route leads to a service or is a redirect, not both".to_owned(),
                "leave one of them out",
            ),
        }
        if let Some(status) = route.status
            && !matches!(status, 301 | 302 | 303 | 307 | 308)
        {
            say(&["status"], format!("{status} is no redirect"), "301, 302, 303, 307 or 308");
        }
        if let Some(host) = &route.host
            && !is_host(host)
        {
            say(
                &["host"],
                format!("`{host}` is no host name"),
                "such as shop.example, or *.shop.example; without scheme, port and path",
            );
        }
        if let Some(Size::Text(text)) = &route.body
            && bytes(&Size::Text(text.clone())).is_none()
        {
            say(&["body"], format!("`{text}` is no size"), "such as 64MiB");
        }
        if let Some(rate) = &route.rate {
            if rate.requests == 0 {
                say(&["rate"], "a rate says how many requests".to_owned(), "`requests: 10`");
            }
            if let Some(per) = &rate.per
                && duration(per).is_none_or(|per| per.is_zero())
            {
                say(&["rate", "per"], format!("`{per}` is no length of time"), "such as 1s or 1m");
            }
        }
    }
}

fn protect(at: &Cursor<'_>, given: &Protect, problems: &mut Vec<Diagnostic>) {
    for (index, block) in given.allow.iter().enumerate() {
        if address_block(block).is_none() {
            let at = at.nearest(&["allow", &index.to_string()]);
            let message = format!("`{block}` is no block of addresses");
            problems.push(
                at.error("config/wrong-value", message, "no block of addresses")
                    .help("such as 192.0.2.0/24 or 2001:db8::/32"),
            );
        }
    }
}

fn is_host(host: &str) -> bool {
    let host = host.replace("{environment}", "e").replace("{project}", "p");
    let host = host.strip_prefix("*.").unwrap_or(&host);
    let label = |label: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        !label.is_empty()
            && label.len() <= 63
            && label.chars().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.len() <= 253 && host.split('.').all(label)
}
