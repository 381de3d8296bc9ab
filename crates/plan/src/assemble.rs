//! Puts the steps of all services together.
//!
//! The order, and why:
//!
//! 1. Images, the edge, networks, volumes and host ports: what can be missing is found before
//!    anything that runs is touched.
//! 2. New replicas of start-first services start and pass their gates, beside the old ones.
//! 3. Only then requests to stop-first services, and to those that depend on them, are held; the
//!    old replicas finish and stop, the new ones start and pass their gates; requests go on.
//! 4. One switch moves all routes.
//! 5. The new replicas are watched while the old ones stay ready.
//! 6. Old replicas finish and are stopped, and kept for a rollback.

pub(crate) mod graph;
mod stage;

pub(crate) use stage::takes_over;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shiplap_compose::model::Condition;
use shiplap_model::{
    Cause, Change, ChangeKind, Desired, Goal, ImageOrigin, NameTarget, Observed, ObservedContainer,
    Plan, PoolKey, Protocol, Refusal, ReplicaName, RoutePolicy, RouteTable, Standing, Strategy,
};

use crate::naming::{self, Naming};
use crate::policy::{Policy, Selection};
use crate::routes::{self, Wanted};
use crate::service::{Force, Origin, ServicePlan, gate_words, plan_service};
use crate::table;

/// Everything that the stages work on.
pub(crate) struct Context<'a> {
    pub desired: &'a Desired,
    pub observed: &'a Observed,
    pub policy: &'a Policy,
    /// Services in an order in which each comes after those it depends on.
    pub order: Vec<&'a str>,
    pub services: BTreeMap<&'a str, ServicePlan<'a>>,
    /// Host ports that the edge should hold, by service; only where it can.
    pub wanted: BTreeMap<&'a str, Vec<Wanted>>,
    /// Routes as they should be afterwards.
    pub table: RouteTable,
    /// Who carries the services' names.
    pub naming: Naming,
    /// Containers of services that are not in the file, by service.
    pub orphans: BTreeMap<&'a str, Vec<&'a ObservedContainer>>,
}

impl<'a> Context<'a> {
    /// Services that need `service`, directly or through others, in order of name.
    pub fn dependents(&self, service: &str) -> BTreeSet<&'a str> {
        let mut found = BTreeSet::new();
        for candidate in &self.order {
            let spec = &self.services[candidate].spec.service;
            let direct =
                spec.depends_on.keys().any(|name| name == service || found.contains(name.as_str()));
            if direct {
                found.insert(*candidate);
            }
        }
        found
    }

    /// All pools of a service: of the ports that it publishes, of those that routes lead to, and of
    /// those that it is called on inside its networks.
    pub fn pools_of(&self, service: &str) -> BTreeSet<PoolKey> {
        let inner = naming::held_pools(&self.naming, self.desired, self.observed, service);
        let outer = self.wanted.get(service).into_iter().flatten();
        let outer = outer.map(|w| w.listener.pool.clone());
        inner.into_iter().chain(outer).chain(self.routed_pools(service)).collect()
    }

    /// The pools of a service that routes lead to.
    pub fn routed_pools(&self, service: &str) -> Vec<PoolKey> {
        let spec = self.desired.services.get(service);
        spec.into_iter().flat_map(|spec| table::pools(self.desired, spec)).collect()
    }

    /// The table to change to, where it is not the one that the edge has.
    pub fn new_table(&self) -> Option<&RouteTable> {
        let is_there = self.table_before().same(&self.table)
            && table::closed_entries(&self.table, self.observed).is_empty();
        (!is_there).then_some(&self.table)
    }

    /// The table that the edge has.
    pub fn table_before(&self) -> RouteTable {
        self.observed.router.as_ref().map(|router| router.table.clone()).unwrap_or_default()
    }

    /// The holders of a service's names, as targets of a route.
    pub fn names_of(&self, service: &str) -> Vec<NameTarget> {
        let holders = self.naming.by_service.get(service).into_iter().flatten();
        let target =
            |holder: &String| NameTarget { holder: holder.clone(), service: service.to_owned() };
        holders.map(target).collect()
    }

    /// How one of a service's pools speaks, where the file says so or the edge knows.
    pub fn protocol_of(&self, key: &PoolKey) -> Option<Protocol> {
        let wanted = self.wanted.get(key.service.as_str()).into_iter().flatten();
        let declared = wanted.filter(|w| w.listener.pool == *key).find_map(|w| w.protocol);
        let known = || Some(self.observed.router.as_ref()?.pools.get(key)?.protocol);
        declared.or_else(known)
    }

    /// Name of an observed container.
    pub fn name_of(&self, id: &str) -> Option<String> {
        self.observed.containers.iter().find(|c| c.id == id).map(|c| c.name.clone())
    }

    /// Engine names of a service's networks, best first.
    pub fn networks_of(&self, service: &str) -> Vec<String> {
        let spec = &self.services[service].spec.service;
        let mut networks: Vec<(i64, &String)> = spec
            .networks
            .iter()
            .map(|(key, attachment)| {
                (-attachment.as_ref().and_then(|a| a.priority).unwrap_or(0), key)
            })
            .collect();
        networks.sort();
        networks
            .into_iter()
            .filter_map(|(_, key)| self.desired.compose.networks.get(key)?.name.clone())
            .collect()
    }
}

/// Decides how to move `observed` to `desired`.
///
/// Deterministic. Never plans the removal of a volume, of an orphan or of anything external
/// unless `policy` says so, and touches nothing that is not the project's own.
///
/// # Errors
/// Every refusal there is, at least one: `host-port-taken`, `host-port-twice`, `name-taken`,
/// `two-writers`, `external-missing`, `unknown-service`, `dependency-cycle`, `route-taken`,
/// `route-unreachable`, `entry-taken`.
pub fn plan(desired: &Desired, observed: &Observed, policy: &Policy) -> Result<Plan, Vec<Refusal>> {
    if policy.goal == Goal::Down {
        return Ok(crate::down::plan(desired, observed, policy));
    }
    let context = contextualise(desired, observed, policy)?;
    let mut notes = crate::notes::notes(&context);
    let steps = stage::steps(&context);
    notes.sort_by_key(|note| note.code);
    let replicas = context
        .services
        .iter()
        .map(|(name, service)| {
            let kept = service.keep.iter().map(|c| c.name.clone());
            let fresh = service.fresh.iter().map(|f| f.base.clone());
            ((*name).to_owned(), kept.chain(fresh).collect())
        })
        .collect();
    Ok(Plan {
        project: desired.project.clone(),
        environment: desired.environment.clone(),
        goal: policy.goal.clone(),
        changes: changes(&context),
        routes: table::lines(
            &context.table_before(),
            &context.table,
            context.wanted.values().any(|wanted| !wanted.is_empty()),
        ),
        notes,
        steps,
        kept_volumes: Vec::new(),
        replicas,
        ids: observed.ids(),
    })
}

fn contextualise<'a>(
    desired: &'a Desired,
    observed: &'a Observed,
    policy: &'a Policy,
) -> Result<Context<'a>, Vec<Refusal>> {
    let mut refusals = unknown_selection(desired, policy);
    let order = match graph::order(desired) {
        Ok(order) => order,
        Err(refusal) => return Err(vec![refusal]),
    };
    let chosen = chosen(desired, observed, policy, &order);
    let mut services: BTreeMap<&str, ServicePlan<'_>> = BTreeMap::new();
    for name in &order {
        let spec = &desired.services[*name];
        let shared = shared_with_changed(spec, &services);
        let force = match &shared {
            // What it shared before goes with the container that it was made with.
            Some(with) if services[with.as_str()].makes_new() => Force::All,
            Some(_) => Force::Others,
            None if policy.force.contains(*name) => Force::Others,
            None => Force::No,
        };
        match plan_service(spec, observed, &desired.compose, policy, force) {
            Ok(mut service) => {
                if let Some(with) = shared {
                    service.causes.retain(|cause| *cause != Cause::Asked);
                    service.causes.push(Cause::Shares(with));
                }
                if !chosen.contains(*name) {
                    leave_alone(&mut service, observed);
                }
                services.insert(name, service);
            }
            Err(refusal) => refusals.push(refusal),
        }
    }
    if !refusals.is_empty() {
        return Err(refusals);
    }
    complete_gates(desired, policy.limits.job, &mut services);
    let mut wanted: BTreeMap<&str, Vec<Wanted>> = desired
        .services
        .iter()
        .map(|(name, spec)| (name.as_str(), routes::wanted(desired, spec, observed)))
        .collect();
    let routed =
        |name: &str| -> Vec<PoolKey> { table::pools(desired, &desired.services[name]).collect() };
    let touched = |name: &str| {
        services[name].changes()
            || (chosen.contains(name)
                && !routes::is_in_place(
                    observed.router.as_ref(),
                    name,
                    &wanted[name],
                    &routed(name),
                    &services[name].keep,
                ))
    };
    refusals.extend(routes::conflicts(&wanted, observed, &touched));
    let table = table::wanted(desired, observed, policy, &chosen);
    refusals.extend(table::conflicts(desired, observed, &table));
    refusals.extend(missing_externals(desired, observed, &services));
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let naming = naming::naming(desired, observed, &services, policy);
    for (name, service) in &mut services {
        let wanted = wanted.get_mut(name).expect("every service has an entry");
        // What the engine publishes for a replica that stays or comes back, the edge cannot hold.
        let revived = service.revived();
        let stays = || service.keep.iter().chain(&revived);
        if stays().any(|c| routes::published_by_engine(c, wanted)) {
            wanted.clear();
        }
        let router = observed.router.as_ref();
        let in_place = routes::is_in_place(router, name, wanted, &routed(name), &service.keep)
            && naming::answers(&naming, observed, name);
        if service.kind == ChangeKind::Keep && chosen.contains(*name) && !in_place {
            service.kind = ChangeKind::Route;
            service.causes = vec![Cause::Route];
        }
    }
    let mut table = table;
    if wanted.values().all(Vec::is_empty) {
        // There is nothing that it could hold for.
        table.guard = RoutePolicy::default();
    }
    let orphans = orphans(desired, observed);
    Ok(Context { desired, observed, policy, order, services, wanted, table, naming, orphans })
}

/// The selected services, and what they need that has no container yet.
fn chosen<'a>(
    desired: &'a Desired,
    observed: &Observed,
    policy: &Policy,
    order: &[&'a str],
) -> BTreeSet<&'a str> {
    let mut chosen: BTreeSet<&str> =
        order.iter().copied().filter(|name| policy.selection.contains(name)).collect();
    // Backwards through the order, dependencies of dependencies are found in one pass.
    for name in order.iter().rev() {
        if !chosen.contains(name) {
            continue;
        }
        for dependency in desired.services[*name].service.depends_on.keys() {
            let exists = observed.containers.iter().any(|c| {
                c.service == *dependency && ReplicaName::parse(&c.name).1 == Standing::Live
            });
            if !exists && let Some((key, _)) = desired.services.get_key_value(dependency) {
                chosen.insert(key);
            }
        }
    }
    chosen
}

fn unknown_selection(desired: &Desired, policy: &Policy) -> Vec<Refusal> {
    let Selection::Only(names) = &policy.selection else { return Vec::new() };
    names
        .iter()
        .filter(|name| !desired.services.contains_key(*name))
        .map(|name| Refusal {
            code: "unknown-service",
            service: None,
            path: vec!["services".to_owned()],
            message: format!("there is no service `{name}` in this project"),
            help: Some(format!(
                "its services are {}",
                desired.services.keys().cloned().collect::<Vec<_>>().join(", ")
            )),
        })
        .collect()
}

/// The service whose namespace this one shares, if that one is replaced.
fn shared_with_changed(
    spec: &shiplap_model::ServiceSpec,
    services: &BTreeMap<&str, ServicePlan<'_>>,
) -> Option<String> {
    let service = &spec.service;
    [&service.network_mode, &service.ipc, &service.pid]
        .into_iter()
        .flatten()
        .filter_map(|mode| mode.strip_prefix("service:"))
        .find(|name| services.get(name).is_some_and(|other| !other.fresh.is_empty()))
        .map(str::to_owned)
}

/// A service that the user did not select stays exactly as it is.
fn leave_alone<'a>(service: &mut ServicePlan<'a>, observed: &'a Observed) {
    let name = service.spec.name.as_str();
    service.keep = observed
        .containers
        .iter()
        .filter(|c| c.service == name)
        .filter(|c| {
            service.keep.iter().chain(&service.leave).any(|k| k.id == c.id)
                && ReplicaName::parse(&c.name).1 == Standing::Live
        })
        .collect();
    service.kind = ChangeKind::Keep;
    service.causes.clear();
    service.fresh.clear();
    service.leave.clear();
    service.discard.clear();
    service.obstacles.clear();
    service.counts_as_done = false;
}

/// A service that others wait for to complete is a job.
fn complete_gates(
    desired: &Desired,
    limit: Duration,
    services: &mut BTreeMap<&str, ServicePlan<'_>>,
) {
    for spec in desired.services.values() {
        for (name, dependency) in &spec.service.depends_on {
            if dependency.condition == Condition::CompletedSuccessfully
                && let Some(service) = services.get_mut(name.as_str())
            {
                service.gate.completes = true;
                service.gate.limit = limit;
            }
        }
    }
}

fn missing_externals(
    desired: &Desired,
    observed: &Observed,
    services: &BTreeMap<&str, ServicePlan<'_>>,
) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let created: Vec<_> = services.values().filter(|s| !s.fresh.is_empty()).collect();
    for (key, network) in desired.compose.networks.iter().filter(|(_, n)| n.external) {
        let name = network.name.as_deref().unwrap_or(key);
        let used = created.iter().any(|s| s.spec.service.networks.contains_key(key));
        if used && !observed.networks.contains_key(name) {
            refusals.push(external_missing("network", "networks", key, name));
        }
    }
    for (key, volume) in desired.compose.volumes.iter().filter(|(_, v)| v.external) {
        let name = volume.name.as_deref().unwrap_or(key);
        let used = created.iter().any(|s| {
            s.spec.service.volumes.iter().any(|m| m.source.as_deref() == Some(key.as_str()))
        });
        if used && !observed.volumes.contains_key(name) {
            refusals.push(external_missing("volume", "volumes", key, name));
        }
    }
    refusals
}

fn external_missing(what: &str, section: &str, key: &str, name: &str) -> Refusal {
    Refusal {
        code: "external-missing",
        service: None,
        path: vec![section.to_owned(), key.to_owned()],
        message: format!("the external {what} `{name}` does not exist on this engine"),
        help: Some(format!("`docker {what} create {name}`")),
    }
}

fn orphans<'a>(
    desired: &Desired,
    observed: &'a Observed,
) -> BTreeMap<&'a str, Vec<&'a ObservedContainer>> {
    let mut orphans: BTreeMap<&str, Vec<&ObservedContainer>> = BTreeMap::new();
    for container in &observed.containers {
        if !desired.services.contains_key(&container.service) {
            orphans.entry(&container.service).or_default().push(container);
        }
    }
    orphans
}

fn changes(context: &Context<'_>) -> Vec<Change> {
    let mut changes: Vec<Change> =
        context.services.values().map(|service| change(context, service)).collect();
    for (name, containers) in &context.orphans {
        let removes = containers.iter().all(|c| crate::orphans::goes(c, context.policy));
        changes.push(Change {
            service: (*name).to_owned(),
            kind: if removes { ChangeKind::Remove } else { ChangeKind::Orphan },
            from_image: containers.first().map(|c| short(&c.image_id)),
            to_image: None,
            causes: vec![Cause::Orphan],
            strategy: None,
            replicas: 0,
            gate: None,
            revives: None,
            details: Vec::new(),
        });
    }
    changes.sort_by(|a, b| a.service.cmp(&b.service));
    changes
}

fn change(context: &Context<'_>, service: &ServicePlan<'_>) -> Change {
    let acts = service.changes();
    let before = service.leave.iter().chain(&service.keep).next();
    let revives = service.fresh.iter().find_map(|fresh| match fresh.origin {
        Origin::Revive(container) => container.deployment,
        Origin::Create | Origin::Finished(_) => None,
    });
    let replaces = acts && service.kind == ChangeKind::Replace;
    let takes_over = replaces && stage::takes_over(context, service);
    let reason = if takes_over && service.strategy == Strategy::StartFirst {
        "its port moves from the engine to the edge".to_owned()
    } else {
        service.reason.clone()
    };
    let mut details = Vec::new();
    let creates = service.fresh.iter().any(|fresh| matches!(fresh.origin, Origin::Create));
    if service.fresh.iter().any(|fresh| matches!(fresh.origin, Origin::Finished(_))) {
        details.push("it has run, and is not run again".to_owned());
    }
    if creates {
        match service.spec.image.origin {
            ImageOrigin::Pull => details.push("pulled".to_owned()),
            ImageOrigin::Build => {
                let build = service.spec.service.build.as_ref();
                let from = build.and_then(|b| b.context.clone()).unwrap_or_default();
                details.push(format!("built from {from}"));
            }
            ImageOrigin::Local => {}
        }
    }
    Change {
        service: service.spec.name.clone(),
        kind: service.kind,
        from_image: before.map(|c| short(&c.image_id)),
        to_image: Some(service.spec.image.clone()),
        causes: service.causes.clone(),
        strategy: replaces.then_some((service.strategy, reason)),
        replicas: service.spec.replicas,
        gate: service.starting().next().is_some().then(|| gate_words(&service.gate)),
        revives,
        details,
    }
}

pub(crate) fn short(image_id: &str) -> String {
    image_id.strip_prefix("sha256:").unwrap_or(image_id).chars().take(12).collect()
}
