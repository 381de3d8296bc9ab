//! Taking a project down.

use shiplap_model::{
    Action, AnonymousVolumes, Cause, Change, ChangeKind, Desired, Goal, ListenerSpec, Observed,
    Phase, Plan, RouteIntent, RouteTable, Step, StepId,
};

use crate::policy::Policy;

/// Closes the ports, removes containers and networks of the project, and volumes only where the
/// policy says so.
pub(crate) fn plan(desired: &Desired, observed: &Observed, policy: &Policy) -> Plan {
    let mut steps: Vec<Step> = Vec::new();
    let mut push = |action: Action, service: Option<&str>, after: Vec<StepId>| {
        let id = StepId(u32::try_from(steps.len()).expect("fewer than 2^32 steps") + 1);
        let service = service.map(str::to_owned);
        steps.push(Step { id, action, after, service, phase: Phase::Tidy });
        id
    };
    let mut after = Vec::new();
    if let Some(intent) = close_all(observed) {
        let back = RouteIntent::default();
        let action = Action::Route { what: "close ports".to_owned(), to: intent, back };
        after.push(push(action, None, Vec::new()));
    }
    let anonymous_volumes =
        if policy.remove_volumes { AnonymousVolumes::Remove } else { AnonymousVolumes::Keep };
    let mut removed = Vec::new();
    for container in &observed.containers {
        let grace = desired
            .services
            .get(&container.service)
            .and_then(|spec| spec.service.stop_grace_period?.as_std());
        let action = Action::Remove { container: container.name.clone(), grace, anonymous_volumes };
        removed.push(push(action, Some(&container.service), after.clone()));
    }
    for holder in observed.router.iter().flat_map(|router| &router.holders) {
        let name = holder.spec.name.clone();
        removed.push(push(Action::RemoveHolder { name }, None, after.clone()));
    }
    let own = |project: &Option<String>| project.as_deref() == Some(desired.project.as_str());
    for (name, _) in observed.networks.iter().filter(|(_, network)| own(&network.project)) {
        push(Action::RemoveNetwork { name: name.clone() }, None, removed.clone());
    }
    let mut kept_volumes = Vec::new();
    for (name, _) in observed.volumes.iter().filter(|(_, volume)| own(&volume.project)) {
        if policy.remove_volumes {
            push(Action::RemoveVolume { name: name.clone() }, None, removed.clone());
        } else {
            kept_volumes.push(name.clone());
        }
    }
    Plan {
        project: desired.project.clone(),
        environment: desired.environment.clone(),
        goal: Goal::Down,
        changes: changes(observed),
        routes: observed
            .router
            .iter()
            .flat_map(|r| crate::table::lines(&r.table, &RouteTable::default(), false))
            .collect(),
        notes: Vec::new(),
        steps,
        kept_volumes,
        replicas: std::collections::BTreeMap::new(),
        ids: observed.ids(),
    }
}

fn close_all(observed: &Observed) -> Option<RouteIntent> {
    let router = observed.router.as_ref()?;
    let has_routes = !router.table.same(&RouteTable::default());
    if router.pools.is_empty() && router.listeners.is_empty() && !has_routes {
        return None;
    }
    Some(RouteIntent {
        table: has_routes.then(RouteTable::default),
        drop_pools: router.pools.keys().cloned().collect(),
        drop_listeners: router
            .listeners
            .iter()
            .map(|listener| ListenerSpec {
                address: Some(listener.address),
                port: listener.port,
                pool: listener.pool.clone(),
            })
            .collect(),
        ..RouteIntent::default()
    })
}

fn changes(observed: &Observed) -> Vec<Change> {
    let mut names: Vec<&str> = observed.containers.iter().map(|c| c.service.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .map(|name| Change {
            service: name.to_owned(),
            kind: ChangeKind::Remove,
            from_image: observed
                .containers
                .iter()
                .find(|c| c.service == name)
                .map(|c| crate::assemble::short(&c.image_id)),
            to_image: None,
            causes: vec![Cause::Asked],
            strategy: None,
            replicas: 0,
            gate: None,
            revives: None,
            details: Vec::new(),
        })
        .collect()
}
