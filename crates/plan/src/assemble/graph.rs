//! The order of services.

use std::collections::{BTreeMap, BTreeSet};

use shiplap_model::{Desired, Refusal};

/// Services in an order in which each comes after those it depends on; by name where they do not
/// depend on each other.
///
/// # Errors
/// `dependency-cycle`, naming the services on it.
pub(crate) fn order(desired: &Desired) -> Result<Vec<&str>, Refusal> {
    let mut order: Vec<&str> = Vec::new();
    let mut done: BTreeSet<&str> = BTreeSet::new();
    while order.len() < desired.services.len() {
        let ready: Vec<&str> = desired
            .services
            .iter()
            .filter(|(name, _)| !done.contains(name.as_str()))
            .filter(|(_, spec)| {
                needs(spec).all(|needed| {
                    done.contains(needed.as_str()) || !desired.services.contains_key(&needed)
                })
            })
            .map(|(name, _)| name.as_str())
            .collect();
        if ready.is_empty() {
            let stuck: Vec<&str> = desired
                .services
                .keys()
                .map(String::as_str)
                .filter(|name| !done.contains(name))
                .collect();
            return Err(cycle(&stuck));
        }
        done.extend(&ready);
        order.extend(ready);
    }
    Ok(order)
}

/// These services in waves, each before those that it calls as far as `depends_on` tells, over
/// other services too.
pub(crate) fn callers_first<'a>(
    desired: &Desired,
    services: &BTreeSet<&'a str>,
) -> Vec<BTreeSet<&'a str>> {
    // Everything that was deployed has an order.
    let order = order(desired).unwrap_or_default();
    let mut depths: BTreeMap<&str, usize> = BTreeMap::new();
    for name in order.iter().rev() {
        let calls = |caller: &&&str| {
            let spec = desired.services.get(**caller);
            spec.is_some_and(|spec| spec.service.depends_on.contains_key(*name))
        };
        let callers = order.iter().filter(calls).filter_map(|caller| depths.get(*caller).copied());
        let deepest = callers.max().unwrap_or(0);
        // Services that are not in question take no wave of their own.
        depths.insert(name, deepest + usize::from(services.contains(name)));
    }
    let mut waves: BTreeMap<usize, BTreeSet<&str>> = BTreeMap::new();
    for name in services {
        // What the file does not have any more calls last.
        let depth = depths.get(name).copied().unwrap_or(usize::MAX);
        waves.entry(depth).or_default().insert(name);
    }
    waves.into_values().collect()
}

/// What must exist before a service: `depends_on`, and services whose namespaces it shares.
fn needs(spec: &shiplap_model::ServiceSpec) -> impl Iterator<Item = String> + '_ {
    let service = &spec.service;
    let shared = [&service.network_mode, &service.ipc, &service.pid]
        .into_iter()
        .flatten()
        .filter_map(|mode| mode.strip_prefix("service:"))
        .map(str::to_owned);
    service.depends_on.keys().cloned().chain(shared)
}

fn cycle(services: &[&str]) -> Refusal {
    Refusal {
        code: "dependency-cycle",
        service: services.first().map(|name| (*name).to_owned()),
        path: ["services", services[0], "depends_on"].map(str::to_owned).into(),
        message: format!("these services wait for each other: {}", services.join(", ")),
        help: Some("remove one of the `depends_on` entries".to_owned()),
    }
}
