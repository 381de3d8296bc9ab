//! What several stages look up.

use shiplap_model::{ListenerSpec, ObservedContainer, PoolKey, RouteTarget};

use crate::assemble::Context;
use crate::routes;
use crate::service::ServicePlan;

pub(super) fn project_labels(context: &Context<'_>) -> [(String, String); 2] {
    [
        (shiplap_model::COMPOSE_PROJECT.to_owned(), context.desired.project.clone()),
        (shiplap_model::COMPOSE_VERSION.to_owned(), context.policy.version.clone()),
    ]
}

pub(super) fn engine_publishes(context: &Context<'_>, service: &ServicePlan<'_>) -> bool {
    let wanted = &context.wanted[service.spec.name.as_str()];
    service.leave.iter().any(|c| routes::published_by_engine(c, wanted))
}

pub(super) fn listens(context: &Context<'_>, wanted: &ListenerSpec) -> bool {
    wanted.port != 0
        && context.observed.router.iter().flat_map(|r| &r.listeners).any(|listener| {
            listener.pool == wanted.pool
                && listener.port == wanted.port
                && wanted
                    .address
                    .map_or(listener.address.is_unspecified(), |a| a == listener.address)
        })
}

/// A pool as the edge has it now, by container names.
pub(super) fn pool_before(context: &Context<'_>, key: &PoolKey) -> Option<RouteTarget> {
    let pool = context.observed.router.as_ref()?.pools.get(key)?;
    Some(RouteTarget {
        key: key.clone(),
        protocol: Some(pool.protocol),
        replicas: pool
            .replicas
            .iter()
            .filter_map(|(replica, _, _)| context.name_of(&replica.container_id))
            .collect(),
        held: pool.held,
        networks: context
            .services
            .get(key.service.as_str())
            .map_or_else(Vec::new, |service| context.networks_of(&service.spec.name)),
    })
}

pub(super) fn services_of(pools: &[RouteTarget]) -> Vec<&str> {
    let mut services: Vec<&str> = pools.iter().map(|pool| pool.key.service.as_str()).collect();
    services.sort_unstable();
    services.dedup();
    services
}

/// Pools that route to a container now.
pub(super) fn pools_with(context: &Context<'_>, container: &ObservedContainer) -> Vec<PoolKey> {
    let pools = context.observed.router.iter().flat_map(|router| &router.pools);
    pools
        .filter(|(_, pool)| pool.replicas.iter().any(|(r, _, _)| r.container_id == container.id))
        .map(|(key, _)| key.clone())
        .collect()
}
