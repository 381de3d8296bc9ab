//! From names in a plan to addresses on the engine.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use shiplap_model::{
    Desired, ImageOrigin, NameListener, NetworkAddress, ObservedContainer, PoolSpec, ProbeKind,
    ProbeRequest, Protocol, RouteChange, RouteIntent, RouteTarget, RoutedReplica,
};

use tokio::time::Instant;

use super::{Learned, Run, StepError, act};

/// How long a replica may take to answer the question how it speaks. It has passed its gate.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a replica is looked at that the engine is about to start again.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// The desired state with the ids of images that were pulled or built meanwhile.
pub(super) fn with_made_images(run: &Run, learned: &Mutex<Learned>) -> Arc<Desired> {
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
    let mut targets = intent.pools.clone();
    for name in &intent.names {
        for found in found_ports(run, intent, &name.service).await? {
            if !targets.iter().any(|target| target.key == found.key) {
                targets.push(found);
            }
        }
    }
    let mut pools = Vec::new();
    for target in &targets {
        pools.push(pool(run, target, learned).await?);
    }
    let names = intent.names.iter().flat_map(|name| {
        let own = pools.iter().filter(|pool| pool.key.service == name.service);
        own.map(|pool| NameListener { holder: name.holder.clone(), pool: pool.key.clone() })
    });
    Ok(RouteChange {
        names: names.collect(),
        listeners: intent.listeners.clone(),
        drop_pools: intent.drop_pools.clone(),
        drop_listeners: intent.drop_listeners.clone(),
        entries: intent.entries.clone(),
        guard: intent.guard.clone(),
        table: intent.table.clone(),
        maintenance: shiplap_model::MaintenanceChange::Keep,
        lease: None,
        pools,
    })
}

/// Pools for ports that nobody declared and that a service's replicas listen on nevertheless:
/// its callers inside the networks may use them.
async fn found_ports(
    run: &Run,
    intent: &RouteIntent,
    service: &str,
) -> Result<Vec<RouteTarget>, StepError> {
    let Some(known) = intent.pools.iter().find(|pool| pool.key.service == service) else {
        return Ok(Vec::new());
    };
    let Some(first) = known.replicas.first() else { return Ok(Vec::new()) };
    let Some(container) = run.engine.container(first).await? else { return Ok(Vec::new()) };
    if !container.state.is_running() {
        return Ok(Vec::new());
    }
    let ports = run.router.listening_ports(&container.id).await?;
    let target = |port| RouteTarget {
        key: shiplap_model::PoolKey { port, ..known.key.clone() },
        protocol: None,
        ..known.clone()
    };
    Ok(ports.into_iter().map(target).collect())
}

async fn pool(
    run: &Run,
    target: &RouteTarget,
    learned: &Mutex<Learned>,
) -> Result<PoolSpec, StepError> {
    let mut replicas = Vec::new();
    for name in &target.replicas {
        let Some(container) = present(run, name, target.held).await? else { continue };
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

/// A replica that runs. One that an engine is about to start again is waited for, where requests
/// are to go to it: without it they would be held, and nobody would add it later.
async fn present(
    run: &Run,
    name: &str,
    held: bool,
) -> Result<Option<ObservedContainer>, StepError> {
    let began = Instant::now();
    loop {
        let Some(container) = run.engine.container(name).await? else { return Ok(None) };
        if container.state.is_running() {
            return Ok(Some(container));
        }
        // One that does not come is missed in watching.
        if held || !act::comes_back(&container) || began.elapsed() >= run.limits.engine_away {
            return Ok(None);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
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
    let key = (target.key.service.clone(), target.key.port);
    if let Some(protocol) = learned.lock().expect("no step panics").protocols.get(&key) {
        return *protocol;
    }
    if let Some(protocol) = target.protocol {
        return protocol;
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
    let outcome = run.router.probe(&request).await.ok();
    outcome.filter(|outcome| outcome.answered).and_then(|outcome| outcome.protocol).unwrap_or(guess)
}
