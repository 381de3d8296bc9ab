//! From names in a plan to addresses on the engine.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use shiplap_model::{
    Desired, ImageOrigin, NetworkAddress, ObservedContainer, PoolSpec, ProbeKind, ProbeRequest,
    Protocol, RouteChange, RouteIntent, RouteTarget, RoutedReplica,
};

use super::{Learned, Run, StepError};

/// How long a replica may take to answer the question how it speaks. It has passed its gate.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// The desired state with the ids of images that were pulled or built meanwhile.
pub(super) fn with_images(run: &Run, learned: &Mutex<Learned>) -> Arc<Desired> {
    let learned = learned.lock().expect("no step panics");
    if learned.images.is_empty() {
        return run.desired.clone();
    }
    let mut desired = Desired::clone(&run.desired);
    for spec in desired.services.values_mut() {
        if let Some(id) = learned.images.get(&spec.image.reference) {
            spec.image.id = Some(id.clone());
            spec.image.origin = ImageOrigin::Local;
        }
    }
    Arc::new(desired)
}

pub(super) async fn route_change(
    run: &Run,
    intent: &RouteIntent,
    learned: &Mutex<Learned>,
) -> Result<RouteChange, StepError> {
    let mut pools = Vec::new();
    for target in &intent.pools {
        pools.push(pool(run, target, learned).await?);
    }
    Ok(RouteChange {
        pools,
        listeners: intent.listeners.clone(),
        drop_pools: intent.drop_pools.clone(),
        drop_listeners: intent.drop_listeners.clone(),
    })
}

async fn pool(
    run: &Run,
    target: &RouteTarget,
    learned: &Mutex<Learned>,
) -> Result<PoolSpec, StepError> {
    let mut replicas = Vec::new();
    for name in &target.replicas {
        let Some(container) = run.engine.container(name).await? else { continue };
        if !container.state.is_running() {
            continue;
        }
        if let Some(address) = address(&container, &target.networks) {
            replicas.push(RoutedReplica {
                container_id: container.id,
                address: address.address,
                subnet: Some(address.subnet()),
            });
        }
    }
    let protocol = protocol(run, target, &replicas, learned).await;
    // Nobody there to answer: requests wait for what comes next rather than fail.
    let held = target.held || (replicas.is_empty() && !target.replicas.is_empty());
    Ok(PoolSpec { key: target.key.clone(), protocol, held, replicas })
}

/// The address of a container in the first of these networks, else in any.
pub(super) fn address(
    container: &ObservedContainer,
    networks: &[String],
) -> Option<NetworkAddress> {
    networks
        .iter()
        .find_map(|name| *container.networks.get(name)?)
        .or_else(|| container.networks.values().flatten().next().copied())
}

async fn protocol(
    run: &Run,
    target: &RouteTarget,
    replicas: &[RoutedReplica],
    learned: &Mutex<Learned>,
) -> Protocol {
    if let Some(protocol) = target.protocol {
        return protocol;
    }
    let key = (target.key.service.clone(), target.key.port);
    if let Some(protocol) = learned.lock().expect("no step panics").protocols.get(&key) {
        return *protocol;
    }
    let guess = Protocol::guess(target.key.port);
    let Some(replica) = replicas.first() else { return guess };
    let request = ProbeRequest {
        address: replica.address,
        port: target.key.port,
        kind: ProbeKind::Auto,
        path: "/".to_owned(),
        timeout: ASK_TIMEOUT,
    };
    match run.router.probe(&request).await {
        Ok(outcome) if outcome.is_http => Protocol::Http,
        Ok(outcome) if outcome.answered => Protocol::Tcp,
        _ => guess,
    }
}
