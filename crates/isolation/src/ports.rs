//! Ports of the machine.

use std::collections::BTreeSet;

use crate::check::Report;
use crate::container::{HostPort, State};
use crate::finding::{Code, Finding, Party, Tried, count};
use crate::seen::{Snapshot, pairs};

pub(crate) fn check(all: &[Snapshot], report: &mut Report) {
    let total = all.iter().map(|snapshot| claims(snapshot).len()).sum();
    let text = format!("compared {} of the machine", count(total, "port", "ports"));
    let collisions = pairs(all).flat_map(|(one, two)| collisions(one, two));
    report.add(Tried { what: "host-ports", count: total, text }, collisions);
    report.findings.extend(all.iter().flat_map(published));
}

/// Who has a port of the machine, or wants it.
pub(crate) fn claims(snapshot: &Snapshot) -> BTreeSet<(HostPort, Party)> {
    let of_containers = snapshot.services().flat_map(|container| {
        container.host_ports.iter().map(|port| (*port, snapshot.party(container)))
    });
    let of_edge = snapshot.edge_ports.iter();
    let of_edge = of_edge.map(|(port, service)| (*port, snapshot.service(service)));
    of_containers.chain(of_edge).collect()
}

fn collide(one: &HostPort, two: &HostPort) -> bool {
    let overlap = one.address.is_none() || two.address.is_none() || one.address == two.address;
    (one.port, one.protocol) == (two.port, two.protocol) && overlap
}

fn collisions(one: &Snapshot, two: &Snapshot) -> Vec<Finding> {
    let theirs = claims(two);
    let mut found = Vec::new();
    for (port, party) in claims(one) {
        for (other_port, other) in theirs.iter().filter(|(other, _)| collide(&port, other)) {
            let both = if port == *other_port {
                format!("want {port} of the machine")
            } else {
                format!("want the same port of the machine: {port} and {other_port}")
            };
            found.push(Finding {
                code: Code::HostPort,
                what: format!("{party} and {other} {both}; only one of them can have it"),
                between: vec![party.clone(), other.clone()],
                fix: "publish another number in one of them, or none: services of one environment \
                      reach each other without"
                    .to_owned(),
            });
        }
    }
    found
}

/// What anybody can call, the neighbour too. Ports on addresses of the machine alone are tried.
fn published(snapshot: &Snapshot) -> Vec<Finding> {
    let runs: BTreeSet<Party> = snapshot
        .services()
        .filter(|container| container.state != State::Stopped)
        .map(|container| snapshot.party(container))
        .collect();
    let is_live = |party: &Party| party.container.is_none() || runs.contains(party);
    let claims = claims(snapshot);
    let open = claims.iter().filter(|(port, party)| is_public(port) && is_live(party));
    let finding = |(port, party): &(HostPort, Party)| Finding {
        code: Code::Published,
        what: format!(
            "{party} is published on {port} of the machine: who reaches that, reaches it"
        ),
        between: vec![party.clone()],
        fix: "nothing, if it is meant for the world; else publish it on 127.0.0.1".to_owned(),
    };
    open.map(finding).collect()
}

/// Whether a port is there for more than the machine itself and its private networks.
pub(crate) fn is_public(port: &HostPort) -> bool {
    use std::net::IpAddr;
    match port.address {
        None => true,
        Some(IpAddr::V4(address)) => {
            !(address.is_loopback() || address.is_private() || address.is_link_local())
        }
        Some(IpAddr::V6(address)) => {
            !(address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local())
        }
    }
}
