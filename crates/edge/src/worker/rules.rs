//! Routes, ready for use: which rule holds for a request.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use hyper::StatusCode;
use hyper::http::request::Parts;

use super::canary::Canary;
use super::paths;
use super::policy::{self, Own, Policy};
use super::rate::Meter;
use super::refusal::Refusal;
use super::routing::Pool;
use super::tally::Tally;
use crate::table::{Group, Redirect};

/// What is done with the requests of one route, or with those of a listener that no route is about.
pub(super) struct Rule {
    /// Tells it from others, also in the table that comes next.
    pub name: Arc<str>,
    /// Without a slash at its end.
    pub path: String,
    pub target: Target,
    pub policy: Policy,
    pub shared: Arc<RuleShared>,
}

pub(super) enum Target {
    Pool(Arc<Pool>),
    Redirect(Redirect),
}

/// What outlives a table, by the rule's name.
#[derive(Default)]
pub(super) struct RuleShared {
    pub meter: Meter,
    pub tally: Tally,
}

/// What a listener leads to.
#[derive(Default)]
pub(super) struct Rules {
    /// By host, each the longest path first.
    exact: HashMap<String, Vec<Arc<Rule>>>,
    /// By what comes behind the `*.`.
    wildcard: HashMap<String, Vec<Arc<Rule>>>,
    any: Vec<Arc<Rule>>,
    /// For what no route is about.
    pub rest: Option<Arc<Rule>>,
}

/// By what a rule is found: kept, so that a request that waits finds what holds later.
#[derive(Debug, Clone, Default)]
pub(super) struct Address {
    pub listener: u64,
    host: String,
    path: String,
    /// Of a pool with a canary: where to.
    pub group: Option<Group>,
}

impl Address {
    /// Of a listener that has no routes.
    pub(super) fn of_listener(listener: u64) -> Address {
        Address { listener, ..Address::default() }
    }
}

impl Rules {
    pub(super) fn add(&mut self, host: Option<&str>, rule: Arc<Rule>) {
        let rules = match host.map(|host| (host, host.strip_prefix("*."))) {
            None => &mut self.any,
            Some((_, Some(parent))) => self.wildcard.entry(parent.to_owned()).or_default(),
            Some((exact, None)) => self.exact.entry(exact.to_owned()).or_default(),
        };
        let place = rules.partition_point(|other| other.path.len() >= rule.path.len());
        rules.insert(place, rule);
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Rule>> {
        let by_host = self.exact.values().chain(self.wildcard.values()).flatten();
        by_host.chain(&self.any).chain(&self.rest)
    }

    fn has_routes(&self) -> bool {
        !(self.exact.is_empty() && self.wildcard.is_empty() && self.any.is_empty())
    }

    /// The address of a request.
    pub(super) fn address(&self, listener: u64, parts: &Parts) -> Result<Address, Refusal> {
        if !self.has_routes() {
            return Ok(Address::of_listener(listener));
        }
        let host = policy::host_of(parts).map(policy::without_port).unwrap_or_default();
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let path = match paths::normal(parts.uri.path())? {
            // OPTIONS of the whole server.
            Cow::Borrowed("*") => "/".to_owned(),
            path => path.into_owned(),
        };
        Ok(Address { listener, host, path, group: None })
    }

    /// The rule that holds.
    pub(super) fn find(&self, address: &Address) -> Option<&Arc<Rule>> {
        if !self.has_routes() {
            return self.rest.as_ref();
        }
        if let Some(found) = self.exact.get(&address.host).and_then(|rules| pick(rules, address)) {
            return Some(found);
        }
        let mut parent = address.host.as_str();
        while let Some((_, rest)) = parent.split_once('.') {
            parent = rest;
            if let Some(found) = self.wildcard.get(parent).and_then(|rules| pick(rules, address)) {
                return Some(found);
            }
        }
        pick(&self.any, address).or(self.rest.as_ref())
    }
}

/// The longest path that the address is below.
fn pick<'a>(rules: &'a [Arc<Rule>], address: &Address) -> Option<&'a Arc<Rule>> {
    rules.iter().find(|rule| paths::is_below(&address.path, &rule.path))
}

impl Rule {
    /// Who goes where, if its pool has two groups.
    pub(super) fn canary(&self) -> Option<&Canary> {
        match &self.target {
            Target::Pool(pool) => pool.canary.as_ref(),
            Target::Redirect(_) => None,
        }
    }

    /// The pool that answers, or what is said instead.
    pub(super) fn pool(&self, parts: &Parts) -> Result<&Arc<Pool>, Box<Own>> {
        match &self.target {
            Target::Pool(pool) => Ok(pool),
            Target::Redirect(redirect) => {
                let status = StatusCode::from_u16(redirect.status).expect("statuses are checked");
                let to = match redirect.exact {
                    true => Cow::Borrowed(redirect.to.as_str()),
                    false => {
                        let to = redirect.to.trim_end_matches('/');
                        Cow::Owned(format!("{to}{}", policy::target(parts)))
                    }
                };
                Err(Box::new(policy::redirect(status, &to)))
            }
        }
    }
}
