//! Who carries the services' names inside the networks.
//!
//! The engine's own names appear when a container starts, before it works, and vanish when it has
//! ended: a caller that looked one up meets a replica that is not there. So the names of services
//! whose replicas overlap belong to a holder, an idle container in whose network namespace the
//! edge listens. Its address stays, and the switch moves callers inside and outside together.

use std::collections::{BTreeMap, BTreeSet};

use shiplap_model::{
    Desired, HolderSpec, HolderStatus, Names, Observed, PoolKey, ServiceSpec, Strategy,
};

use crate::orphans::goes;
use crate::policy::Policy;
use crate::routes::routable;
use crate::service::{Origin, ServicePlan};

/// Holders as they should be.
#[derive(Debug, Default)]
pub(crate) struct Naming {
    /// The holders of each service whose names are held; the last one is the newest.
    pub by_service: BTreeMap<String, Vec<String>>,
    /// Holders to make, or to start.
    pub make: Vec<HolderSpec>,
    /// Holders that nothing needs any more.
    pub gone: Vec<String>,
    /// TCP ports of each service whose names are held, as declared.
    pub ports: BTreeMap<String, BTreeSet<u16>>,
}

impl Naming {
    /// Who carries the names of a new replica.
    pub fn of(&self, service: &str) -> Names {
        if self.by_service.contains_key(service) { Names::Held } else { Names::Own }
    }
}

/// Decides who carries whose names.
pub(crate) fn naming(
    desired: &Desired,
    observed: &Observed,
    services: &BTreeMap<&str, ServicePlan<'_>>,
    policy: &Policy,
) -> Naming {
    let mut naming = Naming::default();
    let holders: &[HolderStatus] = observed.router.as_ref().map_or(&[], |router| &router.holders);
    let mut uncovered: Vec<&ServicePlan<'_>> = Vec::new();
    for (name, service) in services {
        // What is held stays held, also while the new image has not told its ports yet.
        let holds = |holder: &HolderStatus| holder.pools.iter().any(|pool| pool.service == **name);
        let is_known = !declared_ports(service, observed).is_empty() || holders.iter().any(holds);
        if !is_known || !can_be_held(service) {
            continue;
        }
        naming.ports.insert((*name).to_owned(), declared_ports(service, observed));
        let wanted = names_on_networks(desired, service.spec);
        let covering: Vec<&HolderStatus> =
            holders.iter().filter(|holder| covers(holder, name, &wanted)).collect();
        if covering.is_empty() {
            uncovered.push(service);
        }
        for holder in covering {
            if !holder.running && !naming.make.contains(&holder.spec) {
                naming.make.push(holder.spec.clone());
            }
            let held = naming.by_service.entry((*name).to_owned()).or_default();
            held.push(holder.spec.name.clone());
        }
    }
    let mut number = holders.iter().filter_map(|h| number_of(&h.spec.name)).max().unwrap_or(0);
    for group in group(&uncovered, &naming.ports) {
        number += 1;
        let spec = holder(desired, &group, number);
        for service in &spec.services {
            naming.by_service.entry(service.clone()).or_default().push(spec.name.clone());
        }
        naming.make.push(spec);
    }
    let lives = |service: &String| {
        desired.services.contains_key(service)
            || observed.containers.iter().any(|c| c.service == *service && !goes(c, policy))
    };
    naming.gone = holders
        .iter()
        .filter(|holder| !holder.spec.services.iter().any(lives))
        .map(|holder| holder.spec.name.clone())
        .collect();
    naming
}

/// Whether a service's names can belong to a holder: where its replicas overlap. A replica that carries its names itself cannot be made to give them up.
fn can_be_held(service: &ServicePlan<'_>) -> bool {
    let spec = service.spec;
    let revived = service.fresh.iter().filter_map(|fresh| match fresh.origin {
        Origin::Revive(container) => Some(container),
        Origin::Create | Origin::Finished(_) => None,
    });
    service.strategy == Strategy::StartFirst
        && spec.replicas > 0
        && routable(&spec.service)
        && !spec.service.networks.is_empty()
        && !service.gate.completes
        && service.keep.iter().copied().chain(revived).all(|c| c.names == Names::Held)
        && (!service.keep.is_empty() || !service.fresh.is_empty())
}

/// TCP ports that a service says it listens on: published, exposed, or exposed by its image; by
/// the image before, where the new one is yet to be pulled or built.
fn declared_ports(service: &ServicePlan<'_>, observed: &Observed) -> BTreeSet<u16> {
    let spec = service.spec;
    let published = spec.service.ports.iter();
    let published =
        published.filter(|p| p.protocol.as_deref().is_none_or(|p| p == "tcp")).map(|p| p.target);
    let exposed = spec.service.expose.iter().flat_map(|text| exposed_range(text));
    let before = service.leave.iter().chain(&service.keep);
    let before = before.filter_map(|container| observed.images.get(&container.image_id)).next();
    let image = spec.image.info.as_ref().or(before);
    let image = image.into_iter().flat_map(|info| info.exposed_tcp.iter().copied());
    published.chain(exposed).chain(image).chain(spec.routed.iter().copied()).collect()
}

/// `8000`, `8000/tcp`, `3000-3005`.
fn exposed_range(text: &str) -> Vec<u16> {
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    match (protocol, first.parse(), last.parse()) {
        ("tcp", Ok(first), Ok(last)) => (first..=last).collect(),
        _ => Vec::new(),
    }
}

/// The names that a service has on each of its networks, by engine name.
fn names_on_networks(desired: &Desired, spec: &ServiceSpec) -> BTreeMap<String, BTreeSet<String>> {
    let mut names = BTreeMap::new();
    for (key, attachment) in &spec.service.networks {
        let network = desired.compose.networks.get(key).and_then(|n| n.name.clone());
        let mut on_network = BTreeSet::from([spec.name.clone()]);
        on_network.extend(attachment.iter().flat_map(|a| a.aliases.iter().cloned()));
        on_network.extend(spec.service.container_name.clone());
        names.insert(network.unwrap_or_else(|| key.clone()), on_network);
    }
    names
}

fn covers(
    holder: &HolderStatus,
    service: &str,
    wanted: &BTreeMap<String, BTreeSet<String>>,
) -> bool {
    holder.spec.services.iter().any(|held| held == service)
        && wanted.iter().all(|(network, names)| {
            let held = holder.spec.networks.get(network);
            held.is_some_and(|held| names.iter().all(|name| held.contains(name)))
        })
}

/// Services that can share a holder: no two of them on one port.
fn group<'a>(
    services: &[&'a ServicePlan<'a>],
    ports: &BTreeMap<String, BTreeSet<u16>>,
) -> Vec<Vec<&'a ServicePlan<'a>>> {
    let mut groups: Vec<(BTreeSet<u16>, Vec<&ServicePlan<'_>>)> = Vec::new();
    for service in services {
        let own = &ports[&service.spec.name];
        match groups.iter_mut().find(|(taken, _)| taken.is_disjoint(own)) {
            Some((taken, members)) => {
                taken.extend(own);
                members.push(service);
            }
            None => groups.push((own.clone(), vec![service])),
        }
    }
    groups.into_iter().map(|(_, members)| members).collect()
}

fn holder(desired: &Desired, services: &[&ServicePlan<'_>], number: u32) -> HolderSpec {
    let mut networks: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for service in services {
        let spec = service.spec;
        for (network, mut names) in names_on_networks(desired, spec) {
            // Compose lets a replica be called by its container's name, too.
            if spec.service.container_name.is_none() {
                let live = 1..=spec.replicas;
                names.extend(live.map(|n| format!("{}-{}-{n}", desired.project, spec.name)));
            }
            networks.entry(network).or_default().extend(names);
        }
    }
    for names in networks.values_mut() {
        names.sort();
        names.dedup();
    }
    HolderSpec {
        name: format!("{}.names-{number}", desired.project),
        owner: format!("{}/{}", desired.project, desired.environment),
        services: services.iter().map(|service| service.spec.name.clone()).collect(),
        networks,
    }
}

fn number_of(holder: &str) -> Option<u32> {
    holder.rsplit_once("-")?.1.parse().ok()
}

/// The pools of a service whose names are held: declared ports, and those found by looking.
pub(crate) fn held_pools(
    naming: &Naming,
    desired: &Desired,
    observed: &Observed,
    service: &str,
) -> BTreeSet<PoolKey> {
    let Some(ports) = naming.ports.get(service) else { return BTreeSet::new() };
    let declared = ports.iter().map(|port| PoolKey {
        project: desired.project.clone(),
        environment: desired.environment.clone(),
        service: service.to_owned(),
        port: *port,
    });
    let found = observed.router.iter().flat_map(|router| router.pools.keys());
    declared.chain(found.filter(|key| key.service == service).cloned()).collect()
}

/// Whether the edge answers for a service inside one of its holders.
pub(crate) fn answers(naming: &Naming, observed: &Observed, service: &str) -> bool {
    let Some(held_by) = naming.by_service.get(service) else { return true };
    let holders = observed.router.iter().flat_map(|router| &router.holders);
    let mut own = holders.filter(|holder| held_by.contains(&holder.spec.name));
    own.any(|holder| holder.running && holder.pools.iter().any(|pool| pool.service == service))
}
