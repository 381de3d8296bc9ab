//! Whether a table makes sense in itself.

use std::collections::{BTreeMap, BTreeSet};

use hyper::header::{HeaderName, HeaderValue};
use hyper::{StatusCode, Uri};

use super::{
    HeaderRules, Limits, Policy, Pool, Proof, Protocol, Route, SCHEMA, Subnet, Table, Target,
};
use crate::certificate::is_id;

/// Pages are part of the table, which is sent, stored and kept as a whole.
const MAX_PAGE_BYTES: usize = 64 << 10;
/// What hyper takes at most.
const MAX_HEAD_BYTES: u32 = 64 << 10;
const MAX_HEAD_FIELDS: u16 = 1000;
/// Beyond that, two verifications a second would keep a core busy.
const MAX_BCRYPT_COST: u32 = 14;

/// The names of all certificates of two tables fit into one message of the worker.
const MAX_CERTIFICATES: usize = 1500;

/// Headers that frame or address a message are not for rules.
const NOT_FOR_RULES: [&str; 8] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Why a table is not acceptable, whatever the state of the edge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Not JSON, or not of this shape.
    #[error("the table cannot be read: {0}")]
    Malformed(String),
    /// Written by a later version.
    #[error("the table has schema {found}, this edge knows up to {SCHEMA}")]
    Schema {
        /// What it says.
        found: u64,
    },
    /// A listener or route names a pool that is not there.
    #[error("{by} names pool `{pool}`, which the table does not have")]
    UnknownPool {
        /// `listener` and `address:port`, or `route`, host and path.
        by: String,
        /// The name.
        pool: String,
    },
    /// A pool that is forwarded as bytes cannot be behind a route, which is about requests.
    #[error("{route} leads to pool `{pool}`, which does not speak HTTP")]
    NotHttp {
        /// `route`, host and path.
        route: String,
        /// The name of the pool.
        pool: String,
    },
    /// A listener leads nowhere.
    #[error("listener {listener} has neither a pool nor an entry's name")]
    Nowhere {
        /// `address:port`.
        listener: String,
    },
    /// Two listeners on one address and port of one namespace.
    #[error("two listeners on {listener}")]
    DuplicateListener {
        /// `address:port`.
        listener: String,
    },
    /// Two routes for the same requests.
    #[error("two routes for the same requests: {route} at entry `{entry}`")]
    DuplicateRoute {
        /// `route`, host and path.
        route: String,
        /// The entry that both are about.
        entry: String,
    },
    /// Two certificates for one name.
    #[error("two certificates for `{name}`, of {one} and {other}")]
    DuplicateName {
        /// The name.
        name: String,
        /// Whose.
        one: String,
        /// And whose.
        other: String,
    },
    /// Two replicas of one pool with one id.
    #[error("pool `{pool}` has two replicas with the id `{id}`")]
    DuplicateReplica {
        /// The pool's name.
        pool: String,
        /// The id of both.
        id: String,
    },
    /// Not a subnet.
    #[error("replica `{id}`: `{network}` is not a subnet such as 172.18.0.0/16")]
    Network {
        /// The replica.
        id: String,
        /// What it says.
        network: String,
    },
    /// A value that cannot be.
    #[error("{at}: {what}")]
    Value {
        /// Whose.
        at: String,
        /// What is wrong with it.
        what: String,
    },
}

impl Table {
    /// Whether the table makes sense in itself.
    pub fn check(&self) -> Result<(), TableError> {
        if self.schema > SCHEMA {
            return Err(TableError::Schema { found: self.schema.into() });
        }
        blocks("trusted_proxies", &self.trusted_proxies)?;
        for (name, pool) in &self.pools {
            check_pool(name, pool)?;
        }
        self.check_listeners()?;
        self.check_routes()?;
        self.check_tls()
    }

    fn check_listeners(&self) -> Result<(), TableError> {
        let mut places = BTreeSet::new();
        for listener in &self.listeners {
            let at = format!("listener {}", listener.place());
            match (&listener.pool, &listener.entry) {
                (Some(pool), _) if !self.pools.contains_key(pool) => {
                    return Err(TableError::UnknownPool { by: at, pool: pool.clone() });
                }
                (None, None) => return Err(TableError::Nowhere { listener: listener.place() }),
                (Some(_), _) | (None, Some(_)) => {}
            }
            let place = (&listener.namespace, listener.address, listener.port);
            if listener.port != 0 && !places.insert(place) {
                return Err(TableError::DuplicateListener { listener: listener.place() });
            }
            let tcp = |pool: &String| self.pools[pool].protocol == Protocol::Tcp;
            if listener.tls.is_some() && listener.pool.as_ref().is_some_and(tcp) {
                let what = "TLS is taken off for HTTP only".to_owned();
                return Err(TableError::Value { at, what });
            }
            let unnamed = listener.tls.as_ref().and_then(|tls| tls.unnamed.as_ref());
            if let Some(name) = unnamed
                && !self.tls.certificates.iter().any(|shown| shown.names.contains(name))
            {
                let what = format!("there is no certificate for `{name}`");
                return Err(TableError::Value { at, what });
            }
            blocks(&at, &listener.proxy_protocol)?;
            check_limits(&at, &listener.limits)?;
            check_policy(&at, &listener.policy)?;
        }
        Ok(())
    }

    fn check_routes(&self) -> Result<(), TableError> {
        let mut known = BTreeSet::new();
        for route in &self.routes {
            let at = route.name();
            if let Some(host) = &route.host
                && !is_host(host.strip_prefix("*.").unwrap_or(host))
            {
                let what = format!("`{host}` is not a host name in lower case, or `*.` and one");
                return Err(TableError::Value { at, what });
            }
            let plain = route.path.bytes().all(|byte| byte.is_ascii_graphic());
            let odd = ["//", "/./", "/../", "%", "?", "#", ";", "\\"]
                .iter()
                .any(|odd| route.path.contains(odd));
            if !route.path.starts_with('/') || !plain || odd {
                let what = format!("`{}` is not a plain path", route.path);
                return Err(TableError::Value { at, what });
            }
            for entry in &route.entries {
                let path = route.path.trim_end_matches('/');
                if !known.insert((entry, &route.host, path)) {
                    let entry = entry.clone();
                    return Err(TableError::DuplicateRoute { route: at, entry });
                }
            }
            self.check_target(&at, &route.target)?;
            check_policy(&at, &route.policy)?;
        }
        Ok(())
    }

    fn check_tls(&self) -> Result<(), TableError> {
        let value = |at: String, what: String| Err(TableError::Value { at, what });
        if self.tls.certificates.len() + self.tls.challenges.len() > MAX_CERTIFICATES {
            let what = format!("more than {MAX_CERTIFICATES} certificates and challenges");
            return value("tls".to_owned(), what);
        }
        if let Some(id) = self.tls.ids().find(|id| !is_id(id)) {
            return value("tls".to_owned(), format!("`{id}` is not the id of a certificate"));
        }
        let mut known = BTreeMap::new();
        for shown in &self.tls.certificates {
            for name in &shown.names {
                if !is_host(name.strip_prefix("*.").unwrap_or(name)) {
                    let what =
                        format!("`{name}` is not a host name in lower case, or `*.` and one");
                    return value(format!("certificate {}", shown.id), what);
                }
                if let Some(one) = known.insert(name, &shown.owner) {
                    let (one, other) = (one.clone(), shown.owner.clone());
                    return Err(TableError::DuplicateName { name: name.clone(), one, other });
                }
            }
        }
        for challenge in &self.tls.challenges {
            let at = format!("challenge for {}", challenge.host);
            if !is_host(&challenge.host) {
                return value(at, "that is not a host name in lower case".to_owned());
            }
            if let Proof::Http { token, answer } = &challenge.proof
                && !(is_token(token) && answer.bytes().all(|byte| byte.is_ascii_graphic()))
            {
                return value(at, "token or answer have characters that they cannot".to_owned());
            }
        }
        Ok(())
    }

    fn check_target(&self, at: &str, target: &Target) -> Result<(), TableError> {
        let value = |what: String| Err(TableError::Value { at: at.to_owned(), what });
        match target {
            Target::Pool(pool) => match self.pools.get(pool) {
                None => Err(TableError::UnknownPool { by: at.to_owned(), pool: pool.clone() }),
                Some(found) if found.protocol == Protocol::Tcp => {
                    Err(TableError::NotHttp { route: at.to_owned(), pool: pool.clone() })
                }
                Some(_) => Ok(()),
            },
            Target::Redirect(redirect) => {
                if ![301, 302, 303, 307, 308].contains(&redirect.status) {
                    return value(format!("{} is not a redirect", redirect.status));
                }
                let uri = redirect.to.parse::<Uri>().ok();
                let whole = uri.is_some_and(|uri| uri.scheme().is_some() && uri.host().is_some());
                if !whole {
                    return value(format!("`{}` is not an address with a scheme", redirect.to));
                }
                Ok(())
            }
        }
    }
}

impl Route {
    /// `route`, host and path, for messages.
    pub fn name(&self) -> String {
        format!("route {}{}", self.host.as_deref().unwrap_or("*"), self.path)
    }
}

fn check_pool(name: &str, pool: &Pool) -> Result<(), TableError> {
    let mut ids = BTreeSet::new();
    for replica in &pool.replicas {
        if !ids.insert(&replica.id) {
            let id = replica.id.clone();
            return Err(TableError::DuplicateReplica { pool: name.to_owned(), id });
        }
        if let Some(network) = &replica.network
            && Subnet::parse(network).is_none()
        {
            let (id, network) = (replica.id.clone(), network.clone());
            return Err(TableError::Network { id, network });
        }
    }
    let value =
        |what: &str| Err(TableError::Value { at: format!("pool `{name}`"), what: what.to_owned() });
    if let Some(canary) = &pool.canary {
        let header = canary.header.as_ref();
        let known =
            header.is_none_or(|header| HeaderName::from_bytes(header.name.as_bytes()).is_ok());
        let token = |cookie: &String| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            !cookie.is_empty() && cookie.bytes().all(plain)
        };
        if canary.permille > 1000 || !known || !canary.cookie.as_ref().is_none_or(token) {
            return value("a canary's share is of a thousand, its header and cookie have names");
        }
    }
    if pool.probe.as_ref().is_some_and(|probe| probe.interval_ms < 100 || probe.timeout_ms == 0) {
        return value("replicas are probed at most every 100 ms, and given time to answer");
    }
    Ok(())
}

fn check_limits(at: &str, limits: &Limits) -> Result<(), TableError> {
    let fine = (1..=MAX_HEAD_BYTES).contains(&limits.head_bytes)
        && (1..=MAX_HEAD_FIELDS).contains(&limits.head_fields)
        && limits.http2_streams > 0
        && limits.body_bytes_per_s > 0;
    let what = format!(
        "a head has 1 to {MAX_HEAD_BYTES} bytes and 1 to {MAX_HEAD_FIELDS} fields, a connection \
         at least one stream, and a body comes with at least one byte per second"
    );
    if fine { Ok(()) } else { Err(TableError::Value { at: at.to_owned(), what }) }
}

fn check_policy(at: &str, policy: &Policy) -> Result<(), TableError> {
    let value = |what: String| Err(TableError::Value { at: at.to_owned(), what });
    blocks(at, &policy.allow)?;
    check_rules(at, &policy.request_headers)?;
    check_rules(at, &policy.response_headers)?;
    if let Some(auth) = &policy.basic_auth {
        if auth.realm.contains(['"', '\\']) || HeaderValue::from_str(&auth.realm).is_err() {
            return value("the realm has characters that a header cannot".to_owned());
        }
        for (name, hash) in &auth.users {
            if name.contains(':') || !is_bcrypt(hash) {
                let what = format!(
                    "the password of `{name}` is not a bcrypt hash of cost {MAX_BCRYPT_COST} at \
                     most, as `htpasswd -B` makes"
                );
                return value(what);
            }
        }
    }
    if let Some(rate) = &policy.rate
        && (rate.requests == 0 || rate.per_ms == 0 || rate.burst == 0)
    {
        return value("a rate of nothing".to_owned());
    }
    if let Some(page) = &policy.maintenance {
        blocks(at, &page.allow)?;
        if page.body.len() > MAX_PAGE_BYTES {
            return value(format!("the maintenance page has more than {MAX_PAGE_BYTES} bytes"));
        }
        let status = StatusCode::from_u16(page.status).ok();
        let fine = status.is_some_and(|status| !status.is_informational());
        if !fine || HeaderValue::from_str(&page.content_type).is_err() {
            return value("the maintenance page's status or type cannot be".to_owned());
        }
    }
    Ok(())
}

fn check_rules(at: &str, rules: &HeaderRules) -> Result<(), TableError> {
    for name in rules.remove.iter().chain(rules.set.keys()) {
        let known = HeaderName::from_bytes(name.as_bytes());
        let fine = known.is_ok_and(|name| !NOT_FOR_RULES.contains(&name.as_str()));
        let value = rules.set.get(name).map(|value| HeaderValue::from_str(value).is_ok());
        if !fine || value == Some(false) {
            let what = format!("the header `{name}` cannot be changed to that");
            return Err(TableError::Value { at: at.to_owned(), what });
        }
    }
    Ok(())
}

fn blocks(at: &str, blocks: &[String]) -> Result<(), TableError> {
    match blocks.iter().find(|block| Subnet::parse_any(block).is_none()) {
        None => Ok(()),
        Some(block) => {
            let what = format!("`{block}` is not an address, or a block such as 10.0.0.0/8");
            Err(TableError::Value { at: at.to_owned(), what })
        }
    }
}

fn is_host(host: &str) -> bool {
    let label = |label: &str| {
        let plain = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_'
        };
        (1..=63).contains(&label.len()) && label.bytes().all(plain)
    };
    host.len() <= 253 && host.split('.').all(label)
}

/// As RFC 8555 has them.
pub(crate) fn is_token(token: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=512).contains(&token.len()) && token.bytes().all(plain)
}

/// `$2y$10$` and 53 characters.
fn is_bcrypt(hash: &str) -> bool {
    let mut parts = hash.split('$');
    let (empty, kind, cost, rest) = (parts.next(), parts.next(), parts.next(), parts.next());
    let cost = cost.and_then(|cost| cost.parse::<u32>().ok());
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'/';
    empty == Some("")
        && matches!(kind, Some("2a" | "2b" | "2y"))
        && cost.is_some_and(|cost| (4..=MAX_BCRYPT_COST).contains(&cost))
        && rest.is_some_and(|rest| rest.len() == 53 && rest.bytes().all(plain))
        && parts.next().is_none()
}
