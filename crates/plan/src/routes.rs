//! Which host ports the edge should hold, and for whom.

use std::collections::BTreeMap;
use std::net::IpAddr;

use shiplap_compose::model::{Port, Service};
use shiplap_model::{
    Desired, ListenerSpec, Observed, ObservedContainer, ObservedListener, PoolKey, Protocol,
    Refusal, RouterState, ServiceSpec,
};

/// Whether containers of the service have an address of their own that the edge can reach.
pub(crate) fn routable(service: &Service) -> bool {
    match service.network_mode.as_deref() {
        None | Some("bridge" | "default") => true,
        Some(_) => false,
    }
}

/// How a port speaks, where the file says so.
pub(crate) fn declared_protocol(port: &Port) -> Option<Protocol> {
    match port.app_protocol.as_deref()? {
        "http" | "ws" => Some(Protocol::Http),
        "h2c" | "grpc" | "http2" => Some(Protocol::Http2),
        // What is encrypted, or of another kind, goes through as it comes.
        _ => Some(Protocol::Tcp),
    }
}

/// A port that the edge should hold for a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub listener: ListenerSpec,
    pub protocol: Option<Protocol>,
}

/// The TCP ports that a service publishes, each with a host port: the one in the file, for a
/// range the first that nobody else has, for none the one that the edge chose before (else 0).
pub(crate) fn wanted(desired: &Desired, spec: &ServiceSpec, observed: &Observed) -> Vec<Wanted> {
    // Nobody would ever answer.
    if !routable(&spec.service) || spec.replicas == 0 {
        return Vec::new();
    }
    let mut wanted = Vec::new();
    for port in &spec.service.ports {
        if port.protocol.as_deref().is_some_and(|p| p != "tcp") {
            continue;
        }
        let pool = PoolKey {
            project: desired.project.clone(),
            environment: desired.environment.clone(),
            service: spec.name.clone(),
            port: port.target,
        };
        let address = port.host_ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok());
        let address = address.filter(|ip| !ip.is_unspecified());
        let host_port = host_port(port, address, &pool, observed);
        wanted.push(Wanted {
            listener: ListenerSpec { address, port: host_port, pool },
            protocol: declared_protocol(port),
        });
    }
    wanted.dedup();
    wanted
}

fn host_port(port: &Port, address: Option<IpAddr>, pool: &PoolKey, observed: &Observed) -> u16 {
    let before = observed
        .router
        .iter()
        .flat_map(|router| &router.listeners)
        .find(|listener| listener.pool == *pool && same_address(address, listener.address))
        .map(|listener| listener.port);
    match port.published_range() {
        None => before.unwrap_or(0),
        Some((first, last)) => before
            .filter(|port| (first..=last).contains(port))
            .or_else(|| (first..=last).find(|port| taken_by(observed, address, *port).is_none()))
            .unwrap_or(first),
    }
}

fn same_address(wanted: Option<IpAddr>, found: IpAddr) -> bool {
    wanted.map_or(found.is_unspecified(), |address| address == found)
}

fn overlap(a: Option<IpAddr>, b: Option<IpAddr>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a == b || a.is_unspecified() || b.is_unspecified(),
        (None, _) | (_, None) => true,
    }
}

/// Who else holds a host port.
pub(crate) fn taken_by(observed: &Observed, address: Option<IpAddr>, port: u16) -> Option<String> {
    let container = observed
        .foreign_ports
        .iter()
        .find(|((ip, p, protocol), _)| *p == port && *protocol == "tcp" && overlap(*ip, address))
        .map(|(_, name)| format!("container {name}"));
    container.or_else(|| {
        observed
            .router
            .iter()
            .flat_map(|router| &router.foreign_listeners)
            .find(|(ip, p, _)| *p == port && overlap(Some(*ip), address))
            .map(|(_, _, owner)| format!("environment {owner}"))
    })
}

/// Whether the engine publishes one of these ports for a container, so that the edge cannot.
pub(crate) fn published_by_engine(container: &ObservedContainer, wanted: &[Wanted]) -> bool {
    container.published.iter().any(|published| {
        published.protocol == "tcp"
            && wanted.iter().any(|w| w.listener.pool.port == published.container_port)
    })
}

/// Refuses host ports that two services ask for, or that somebody else has.
pub(crate) fn conflicts(
    all: &BTreeMap<&str, Vec<Wanted>>,
    observed: &Observed,
    touched: &dyn Fn(&str) -> bool,
) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let mut seen: Vec<(&str, &ListenerSpec)> = Vec::new();
    for (service, wanted) in all {
        for listener in wanted.iter().map(|w| &w.listener).filter(|l| l.port != 0) {
            let path = vec!["services".to_owned(), (*service).to_owned(), "ports".to_owned()];
            let twin = seen.iter().find(|(_, other)| {
                other.port == listener.port && overlap(other.address, listener.address)
            });
            if let Some((other, _)) = twin {
                refusals.push(Refusal {
                    code: "host-port-twice",
                    service: Some((*service).to_owned()),
                    path,
                    message: format!(
                        "`{service}` and `{other}` both publish host port {}",
                        listener.port
                    ),
                    help: Some("give one of them another host port".to_owned()),
                });
                continue;
            }
            seen.push((service, listener));
            if let Some(holder) = taken_by(observed, listener.address, listener.port)
                && touched(service)
            {
                refusals.push(Refusal {
                    code: "host-port-taken",
                    service: Some((*service).to_owned()),
                    path,
                    message: format!(
                        "host port {} of `{service}` is held by {holder}",
                        listener.port
                    ),
                    help: Some("stop that one, or publish another host port".to_owned()),
                });
            }
        }
    }
    refusals
}

/// Whether the edge already does for a service what is wanted of it: at its host ports, and for the
/// pools that routes lead to.
pub(crate) fn is_in_place(
    router: Option<&RouterState>,
    service: &str,
    wanted: &[Wanted],
    routed: &[PoolKey],
    keep: &[&ObservedContainer],
) -> bool {
    let Some(router) = router else { return wanted.is_empty() && routed.is_empty() };
    let is_wanted = |listener: &ObservedListener| {
        wanted.iter().any(|w| {
            w.listener.pool == listener.pool
                && (w.listener.port == listener.port || w.listener.port == 0)
                && same_address(w.listener.address, listener.address)
        })
    };
    let superfluous = router.listeners.iter().any(|l| l.pool.service == service && !is_wanted(l));
    let answers = |key: &PoolKey| {
        router.pools.get(key).is_some_and(|pool| {
            !pool.held
                && pool.replicas.len() == keep.len()
                && keep.iter().all(|c| pool.replicas.iter().any(|(r, _, _)| r.container_id == c.id))
        })
    };
    !superfluous
        && routed.iter().all(answers)
        && wanted.iter().all(|w| {
            let listens = router.listeners.iter().any(|l| {
                l.pool == w.listener.pool
                    && l.port == w.listener.port
                    && same_address(w.listener.address, l.address)
            });
            listens && answers(&w.listener.pool)
        })
}
