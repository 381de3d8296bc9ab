//! Which routes an environment should have afterwards, and what is against it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use shiplap_model::{
    ChangeKind, Desired, EntrySpec, Observed, PoolKey, Refusal, RouteLine, RoutePolicy, RouteSpec,
    RouteTable, RouteTo, ServiceSpec,
};

use crate::policy::{Policy, Selection};
use crate::routes::{routable, taken_by};

/// The pools that routes to a service lead to.
pub(crate) fn pools(desired: &Desired, spec: &ServiceSpec) -> impl Iterator<Item = PoolKey> {
    // Nobody would ever answer.
    let ports = (spec.replicas > 0).then_some(&spec.routed).into_iter().flatten();
    ports.map(|port| PoolKey {
        project: desired.project.clone(),
        environment: desired.environment.clone(),
        service: spec.name.clone(),
        port: *port,
    })
}

/// The table as it should be. Routes to services that are not selected stay as they are; those that
/// lead to nobody's service change with all.
pub(crate) fn wanted(
    desired: &Desired,
    observed: &Observed,
    policy: &Policy,
    chosen: &BTreeSet<&str>,
) -> RouteTable {
    let now = observed.router.as_ref().map(|router| &router.table);
    let (Selection::Only(_), Some(now)) = (&policy.selection, now) else {
        return leading_somewhere(desired, desired.routes.clone());
    };
    let is_chosen = |route: &RouteSpec| match &route.to {
        RouteTo::Service { service, .. } => chosen.contains(service.as_str()),
        RouteTo::Redirect { .. } => false,
    };
    let mut table = RouteTable { entries: desired.routes.entries.clone(), ..now.clone() };
    table.routes.retain(|route| !is_chosen(route));
    for route in desired.routes.routes.iter().filter(|route| is_chosen(route)) {
        table.routes.retain(|known| !known.collides(route));
        table.routes.push(route.clone());
    }
    table
}

/// A service with no replicas has nobody whom a route could lead to.
fn leading_somewhere(desired: &Desired, mut table: RouteTable) -> RouteTable {
    table.routes.retain(|route| match &route.to {
        RouteTo::Service { service, .. } => {
            desired.services.get(service).is_none_or(|spec| spec.replicas > 0)
        }
        RouteTo::Redirect { .. } => true,
    });
    table
}

/// Entries that its routes need and that nobody has opened.
pub(crate) fn closed_entries(table: &RouteTable, observed: &Observed) -> Vec<EntrySpec> {
    let open = observed.router.as_ref().map(|router| &router.entries);
    let needed = |entry: &&EntrySpec| {
        table.routes.iter().any(|route| route.entries.contains(&entry.name))
            && open.is_none_or(|open| !open.contains(&entry.name))
    };
    table.entries.iter().filter(needed).cloned().collect()
}

/// One line for each route that is not what it was.
pub(crate) fn lines(now: &RouteTable, wanted: &RouteTable, has_ports: bool) -> Vec<RouteLine> {
    let mut lines = Vec::new();
    let line = |kind, route: &RouteSpec| RouteLine {
        kind,
        what: route.to_string(),
        to: Some(route.to.to_string()),
        policy: route.policy.words(),
    };
    for route in &wanted.routes {
        match now.routes.iter().find(|known| known.collides(route)) {
            None => lines.push(line(ChangeKind::Create, route)),
            Some(known) if known != route => lines.push(line(ChangeKind::Replace, route)),
            Some(_) => {}
        }
    }
    for route in &now.routes {
        if !wanted.routes.iter().any(|known| known.collides(route)) {
            lines.push(line(ChangeKind::Remove, route));
        }
    }
    // Without a published port there is nothing to say about them.
    if now.guard != wanted.guard && has_ports {
        lines.push(RouteLine {
            kind: ChangeKind::Replace,
            what: "published ports".to_owned(),
            to: None,
            policy: if wanted.guard == RoutePolicy::default() {
                vec!["open to all".to_owned()]
            } else {
                wanted.guard.words()
            },
        });
    }
    lines
}

/// Refuses routes that somebody else has, that lead to nobody, or whose entry cannot be opened.
pub(crate) fn conflicts(
    desired: &Desired,
    observed: &Observed,
    table: &RouteTable,
) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    for route in &table.routes {
        if let RouteTo::Service { service, .. } = &route.to {
            match desired.services.get(service) {
                Some(spec) if routable(&spec.service) => {}
                Some(_) => refusals.push(Refusal {
                    code: "route-unreachable",
                    service: Some(service.clone()),
                    path: ["services", service, "network_mode"].map(str::to_owned).into(),
                    message: format!(
                        "the route {route} leads to `{service}`, which has no address of its own"
                    ),
                    help: Some("give it a network of the project".to_owned()),
                }),
                None => refusals.push(Refusal {
                    code: "route-unreachable",
                    service: Some(service.clone()),
                    path: vec!["services".to_owned()],
                    message: format!("the route {route} leads to `{service}`, which is not there"),
                    help: None,
                }),
            }
        }
        let foreign = observed.router.iter().flat_map(|router| &router.foreign_routes);
        if let Some((_, owner)) = foreign.clone().find(|(known, _)| known.collides(route)) {
            refusals.push(Refusal {
                code: "route-taken",
                service: None,
                path: Vec::new(),
                message: format!("the route {route} belongs to {owner}"),
                help: Some("give one of them another host or path".to_owned()),
            });
        }
    }
    for entry in closed_entries(table, observed) {
        if let Some(holder) = taken_by(observed, entry.address, entry.port) {
            let at = entry.address.unwrap_or(IpAddr::from([0, 0, 0, 0]));
            refusals.push(Refusal {
                code: "entry-taken",
                service: None,
                path: Vec::new(),
                message: format!(
                    "routes need port {} on {at} for `{}`, which {holder} has",
                    entry.port, entry.name
                ),
                help: Some(format!(
                    "stop that one, or let it send requests to the edge: `edge: {{ {}: \
                     127.0.0.1:7080 }}` in shiplap.yaml",
                    entry.name
                )),
            });
        }
    }
    refusals
}
