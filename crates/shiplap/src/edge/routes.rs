//! Routes and policies, in our terms and in those of the edge's table.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use shiplap_edge::table::{self as edge, Listener, ListenerTls, Table, Target};
use shiplap_model::{
    BasicAuth, ENTRY_HTTPS, EntrySpec, HeaderRules, Maintenance, MaintenanceChange, PoolKey,
    RateBy, RateLimit, RouteChange, RoutePolicy, RouteSpec, RouteTo, RouterState,
};

/// Who owns the ports of the entries: they are the machine's, and everybody's routes use them.
pub const ENTRIES: &str = shiplap_certificates::ENTRIES;

/// What the table says of an owner's routes, and of others'.
pub fn read(owner: &str, table: &Table, state: &mut RouterState) {
    let mut maintenance = None;
    for route in &table.routes {
        let Some(spec) = route_spec(route) else { continue };
        if route.owner == owner {
            maintenance = maintenance.or_else(|| route.policy.maintenance.clone());
            state.table.routes.push(spec);
        } else {
            state.foreign_routes.push((spec, route.owner.clone()));
        }
    }
    let own = || table.listeners.iter().filter(|l| is_outside(l, owner));
    if let Some(listener) = own().next() {
        state.table.guard = policy_back(&listener.policy);
    }
    maintenance = maintenance.or_else(|| own().find_map(|l| l.policy.maintenance.clone()));
    state.maintenance = maintenance.map(|page| Maintenance {
        body: page.body,
        content_type: page.content_type,
        retry_after_s: page.retry_after_s,
        allow: page.allow,
    });
    state.entries = table.listeners.iter().filter_map(|l| l.entry.clone()).collect();
}

/// Makes the part of a change that is about routes, entries and policies. Pools and listeners must
/// have been changed before.
pub fn change(owner: &str, change: &RouteChange, has_ipv6: bool, table: &mut Table) {
    let led_before = entries_of(table);
    for spec in &change.entries {
        let is_open = table.listeners.iter().any(|l| l.entry.as_deref() == Some(&spec.name));
        if !is_open {
            table.listeners.extend(entry(spec, has_ipv6));
        }
    }
    let page = match &change.maintenance {
        MaintenanceChange::Keep => page_of(owner, table),
        MaintenanceChange::On(maintenance) => Some(page(maintenance)),
        MaintenanceChange::Off => None,
    };
    if let Some(wanted) = &change.table {
        table.routes.retain(|route| route.owner != owner);
        table.routes.extend(wanted.routes.iter().map(|spec| route(owner, spec)));
        for listener in table.listeners.iter_mut().filter(|l| is_outside(l, owner)) {
            listener.policy = policy(&wanted.guard);
        }
    }
    for listener in table.listeners.iter_mut().filter(|l| is_outside(l, owner)) {
        listener.policy.maintenance.clone_from(&page);
    }
    for route in table.routes.iter_mut().filter(|route| route.owner == owner) {
        route.policy.maintenance.clone_from(&page);
    }
    close_unused(&led_before, table);
}

/// What holds at a listener that is opened under a guard.
pub fn guard(given: &RoutePolicy) -> edge::Policy {
    policy(given)
}

/// A listener on the host that belongs to an environment, rather than to the names inside it.
fn is_outside(listener: &Listener, owner: &str) -> bool {
    listener.owner == owner && listener.namespace.is_none()
}

fn page_of(owner: &str, table: &Table) -> Option<edge::Maintenance> {
    let routes = table.routes.iter().filter(|route| route.owner == owner);
    let listeners = table.listeners.iter().filter(|l| is_outside(l, owner));
    let mut policies = routes.map(|r| &r.policy).chain(listeners.map(|l| &l.policy));
    policies.find_map(|policy| policy.maintenance.clone())
}

/// The sockets of an entry.
fn entry(spec: &EntrySpec, has_ipv6: bool) -> Vec<Listener> {
    let any = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let addresses = match spec.address {
        Some(address) => vec![address],
        None if has_ipv6 => any.to_vec(),
        None => vec![any[0]],
    };
    let socket = |address| Listener {
        pool: None,
        entry: Some(spec.name.clone()),
        tls: (spec.name == ENTRY_HTTPS).then(ListenerTls::default),
        ..Listener::new(ENTRIES, address, spec.port, "")
    };
    addresses.into_iter().map(socket).collect()
}

/// The entries that routes name.
fn entries_of(table: &Table) -> BTreeSet<String> {
    table.routes.iter().flat_map(|route| route.entries.iter().cloned()).collect()
}

/// Closes entries that have just lost their last route. Those that certificates need for their
/// proofs stay, and so do those that somebody opened by hand and no route has used yet.
fn close_unused(led_before: &BTreeSet<String>, table: &mut Table) {
    if !table.tls.certificates.is_empty() || !table.tls.challenges.is_empty() {
        return;
    }
    let led = entries_of(table);
    table.listeners.retain(|listener| match &listener.entry {
        Some(entry) if listener.owner == ENTRIES => {
            led.contains(entry) || !led_before.contains(entry)
        }
        _ => true,
    });
}

fn route(owner: &str, spec: &RouteSpec) -> edge::Route {
    edge::Route {
        owner: owner.to_owned(),
        host: spec.host.clone(),
        path: spec.path.clone(),
        entries: spec.entries.clone(),
        target: match &spec.to {
            RouteTo::Service { service, port } => {
                Target::Pool(Table::pool_name(owner, service, *port))
            }
            RouteTo::Redirect { to, exact, status } => {
                Target::Redirect(edge::Redirect { to: to.clone(), exact: *exact, status: *status })
            }
        },
        policy: policy(&spec.policy),
    }
}

fn route_spec(route: &edge::Route) -> Option<RouteSpec> {
    Some(RouteSpec {
        host: route.host.clone(),
        path: route.path.clone(),
        entries: route.entries.clone(),
        to: match &route.target {
            Target::Pool(pool) => {
                let key = PoolKey::parse(pool)?;
                RouteTo::Service { service: key.service, port: key.port }
            }
            Target::Redirect(redirect) => RouteTo::Redirect {
                to: redirect.to.clone(),
                exact: redirect.exact,
                status: redirect.status,
            },
        },
        policy: policy_back(&route.policy),
    })
}

fn page(given: &Maintenance) -> edge::Maintenance {
    edge::Maintenance {
        body: given.body.clone(),
        content_type: given.content_type.clone(),
        retry_after_s: given.retry_after_s,
        allow: given.allow.clone(),
        ..edge::Maintenance::default()
    }
}

fn policy(given: &RoutePolicy) -> edge::Policy {
    let hsts = |max_age_s| edge::Hsts { max_age_s, include_subdomains: false, preload: false };
    edge::Policy {
        https_port: given.https_port,
        https_needs_certificate: given.https_port.is_some(),
        hsts: given.hsts_s.map(hsts),
        allow: given.allow.clone(),
        basic_auth: given
            .basic_auth
            .as_ref()
            .map(|auth| edge::BasicAuth { realm: auth.realm.clone(), users: auth.users.clone() }),
        rate: given.rate.map(|rate| edge::Rate {
            requests: rate.requests,
            per_ms: rate.per_ms,
            burst: rate.burst,
            by: match rate.by {
                RateBy::Client => edge::RateKey::Client,
                RateBy::Route => edge::RateKey::Route,
            },
        }),
        body_bytes: given.body_bytes,
        maintenance: None,
        noindex: given.noindex,
        strip_path: given.strip_path,
        request_headers: headers(&given.request_headers),
        response_headers: headers(&given.response_headers),
    }
}

fn policy_back(given: &edge::Policy) -> RoutePolicy {
    RoutePolicy {
        https_port: given.https_port,
        hsts_s: given.hsts.map(|hsts| hsts.max_age_s),
        allow: given.allow.clone(),
        basic_auth: given
            .basic_auth
            .as_ref()
            .map(|auth| BasicAuth { realm: auth.realm.clone(), users: auth.users.clone() }),
        rate: given.rate.map(|rate| RateLimit {
            requests: rate.requests,
            per_ms: rate.per_ms,
            burst: rate.burst,
            by: match rate.by {
                edge::RateKey::Client => RateBy::Client,
                edge::RateKey::Route => RateBy::Route,
            },
        }),
        body_bytes: given.body_bytes,
        noindex: given.noindex,
        strip_path: given.strip_path,
        request_headers: headers_back(&given.request_headers),
        response_headers: headers_back(&given.response_headers),
    }
}

fn headers(given: &HeaderRules) -> edge::HeaderRules {
    edge::HeaderRules { remove: given.remove.clone(), set: given.set.clone() }
}

fn headers_back(given: &edge::HeaderRules) -> HeaderRules {
    HeaderRules { remove: given.remove.clone(), set: given.set.clone() }
}

#[cfg(test)]
mod tests {
    use shiplap_model::RouteTable;

    use super::*;

    const OWNER: &str = "shop/dev";

    fn table() -> Table {
        let pool = edge::Pool::new(OWNER, "api", edge::Protocol::Http);
        let name = Table::pool_name(OWNER, "api", 80);
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Table {
            pools: [(name.clone(), pool)].into(),
            listeners: vec![Listener::new(OWNER, any, 8080, &name)],
            ..Table::default()
        }
    }

    fn wanted() -> RouteTable {
        let guard = RoutePolicy { noindex: true, ..RoutePolicy::default() };
        RouteTable {
            entries: Vec::new(),
            routes: vec![RouteSpec {
                host: Some("dev.shop.example".to_owned()),
                path: "/".to_owned(),
                entries: vec!["http".to_owned()],
                to: RouteTo::Service { service: "api".to_owned(), port: 80 },
                policy: guard.clone(),
            }],
            guard,
        }
    }

    fn opening() -> RouteChange {
        let entry = EntrySpec { name: "http".to_owned(), address: None, port: 80 };
        RouteChange { entries: vec![entry], table: Some(wanted()), ..RouteChange::default() }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut table = table();
        change(OWNER, &opening(), false, &mut table);
        let mut state = RouterState::default();
        read(OWNER, &table, &mut state);
        assert!(state.table.same(&wanted()), "{:?}", state.table);
        assert_eq!(state.entries, BTreeSet::from(["http".to_owned()]));
        let mut other = RouterState::default();
        read("other/prod", &table, &mut other);
        assert_eq!(other.foreign_routes[0].1, OWNER);
    }

    #[test]
    fn an_entry_is_opened_once_and_closed_with_the_last_route() {
        let mut table = table();
        change(OWNER, &opening(), false, &mut table);
        change(OWNER, &opening(), false, &mut table);
        assert_eq!(table.listeners.iter().filter(|l| l.owner == ENTRIES).count(), 1);
        let none = RouteChange { table: Some(RouteTable::default()), ..RouteChange::default() };
        change(OWNER, &none, false, &mut table);
        assert!(table.listeners.iter().all(|l| l.owner != ENTRIES));
    }

    #[test]
    fn a_deployment_leaves_maintenance_on() {
        let mut table = table();
        let page = Maintenance {
            body: "soon".to_owned(),
            content_type: "text/plain".to_owned(),
            retry_after_s: 60,
            allow: Vec::new(),
        };
        let on = RouteChange {
            maintenance: MaintenanceChange::On(page.clone()),
            ..RouteChange::default()
        };
        change(OWNER, &on, false, &mut table);
        change(OWNER, &opening(), false, &mut table);
        assert!(table.routes[0].policy.maintenance.is_some());
        let mut state = RouterState::default();
        read(OWNER, &table, &mut state);
        assert_eq!(state.maintenance, Some(page));
        let off = RouteChange { maintenance: MaintenanceChange::Off, ..RouteChange::default() };
        change(OWNER, &off, false, &mut table);
        assert!(table.listeners.iter().all(|l| l.policy.maintenance.is_none()));
    }
}
