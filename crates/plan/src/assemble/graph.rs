//! The order of services.

use std::collections::BTreeSet;

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
