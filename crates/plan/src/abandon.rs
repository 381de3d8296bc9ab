//! Leaving everything as an interrupted deployment left it.

use std::collections::BTreeSet;

use shiplap_model::{
    Action, ContainerState, Goal, Note, Observed, ObservedContainer, Phase, Plan, PoolKey,
    PoolStatus, ReplicaName, RouteIntent, RouteTarget, Scope, Standing, Step, StepId,
};

/// Lets requests go on that a deployment holds, to whoever can answer them, and touches nothing
/// else. The notes name what stays: containers of these deployments, ports, and pools for which
/// nobody can answer.
#[must_use]
pub fn abandon(scope: &Scope, observed: &Observed, deployments: &BTreeSet<u64>) -> Plan {
    let mut intent = RouteIntent::default();
    let mut notes = Vec::new();
    let pools = observed.router.iter().flat_map(|router| &router.pools);
    for (key, pool) in pools {
        let replicas = answering(observed, key, pool);
        let names: Vec<&str> = replicas.iter().map(|c| c.name.as_str()).collect();
        let (service, port) = (&key.service, key.port);
        if replicas.is_empty() {
            notes.push(left(format!(
                "nobody runs who could answer for port {port} of {service}: requests wait for 30 s \
                 and get 503 until a `shiplap deploy`"
            )));
        } else {
            notes.push(left(format!("{} answers for port {port} of {service}", names.join(", "))));
        }
        if pool.held {
            intent.pools.push(RouteTarget {
                key: key.clone(),
                protocol: Some(pool.protocol),
                replicas: names.into_iter().map(str::to_owned).collect(),
                held: false,
                networks: Vec::new(),
            });
        }
    }
    for container in &observed.containers {
        if container.deployment.is_some_and(|number| deployments.contains(&number)) {
            let state = crate::service::state_word(container);
            notes.push(left(format!("{} stays ({state})", container.name)));
        }
    }
    let mut services: Vec<&str> = intent.pools.iter().map(|p| p.key.service.as_str()).collect();
    services.dedup();
    let what = format!("release {}", services.join(" "));
    let action = Action::Route { what, to: intent.clone(), back: RouteIntent::default() };
    let step = Step { id: StepId(1), action, after: vec![], service: None, phase: Phase::Tidy };
    Plan {
        project: scope.project.clone(),
        environment: scope.environment.clone(),
        goal: Goal::Abandon,
        routes: Vec::new(),
        changes: Vec::new(),
        notes,
        steps: if intent.pools.is_empty() { Vec::new() } else { vec![step] },
        kept_volumes: Vec::new(),
        replicas: Default::default(),
        ids: observed.ids(),
    }
}

/// Who answers for a pool, or could: whom it routes to; where it is held, the live replicas that
/// run, else those of the newest deployment that has any.
fn answering<'a>(
    observed: &'a Observed,
    key: &PoolKey,
    pool: &PoolStatus,
) -> Vec<&'a ObservedContainer> {
    let running =
        |c: &&ObservedContainer| c.service == key.service && c.state == ContainerState::Running;
    let mine: Vec<&ObservedContainer> = observed.containers.iter().filter(running).collect();
    let routed: Vec<&ObservedContainer> = mine
        .iter()
        .copied()
        .filter(|c| pool.replicas.iter().any(|(r, _, _)| r.container_id == c.id))
        .collect();
    if !routed.is_empty() {
        return routed;
    }
    let is_live = |c: &&ObservedContainer| ReplicaName::parse(&c.name).1 == Standing::Live;
    let live: Vec<&ObservedContainer> = mine.iter().copied().filter(is_live).collect();
    if !live.is_empty() {
        return live;
    }
    let aside = |c: &&ObservedContainer| ReplicaName::parse(&c.name).1 == Standing::Aside;
    let newest = mine.iter().copied().filter(aside).map(|c| c.deployment).max();
    mine.into_iter().filter(aside).filter(|c| Some(c.deployment) == newest).collect()
}

fn left(text: String) -> Note {
    Note { code: "left", text }
}
