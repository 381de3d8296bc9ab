//! All environments of a project at a glance: one call to each engine and one to its edge, however
//! many there are.

use std::collections::BTreeMap;

use shiplap_config::Target;
use shiplap_edge::ClientError;
use shiplap_edge::table::Table;
use shiplap_engine::Summary;
use shiplap_execute::app::AppError;
use shiplap_model::{
    ContainerState, Deployment, DeploymentState, Health, Ledger, LedgerError, Limits, Outcome,
    ReplicaName, Scope, Standing, StoredRelease,
};

use crate::ephemeral::Ephemeral;
use crate::load::{Declared, known_in};
use crate::world::Place;

/// How far back is looked for what is current.
const LOOK_BACK: u32 = 100;

/// The environments of a project.
#[derive(Debug, Clone)]
pub struct Overview {
    /// The project.
    pub project: String,
    /// In the order of the file, then those that `env create` made.
    pub environments: Vec<Environment>,
    /// Where they are, in the order in which they come up.
    pub machines: Vec<Machine>,
}

/// A machine.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The engine's address, where the file names one.
    pub target: Option<String>,
    /// What was seen there; else why nothing was. Then of its environments is known what history
    /// says.
    pub seen: Result<Seen, String>,
}

/// What was seen on a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Whether an edge answers; without one nothing is known of routes.
    pub has_edge: bool,
}

/// One environment.
#[derive(Debug, Clone)]
pub struct Environment {
    /// Its name.
    pub name: String,
    /// Its Compose project.
    pub project_name: String,
    /// The engine's address, where the file names one.
    pub target: Option<String>,
    /// How long it is to be, where it is in no file.
    pub ephemeral: Option<Ephemeral>,
    /// What of it runs.
    pub replicas: Replicas,
    /// The newest deployment, however it went.
    pub newest: Option<Deployment>,
    /// The number of the deployment that is current.
    pub current: Option<u64>,
    /// What the edge does for it.
    pub routed: Routed,
}

/// How many replicas there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Replicas {
    /// That run.
    pub running: u32,
    /// That should; jobs that are done are not among them.
    pub wanted: u32,
    /// That run, and whose health check fails.
    pub unhealthy: u32,
}

/// What the edge does for one environment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Routed {
    /// Hosts and paths of its routes; `*` for every host.
    pub routes: Vec<String>,
    /// Host ports that it publishes there.
    pub ports: Vec<u16>,
    /// Whether everybody gets the maintenance page.
    pub maintenance: bool,
    /// Whether requests are held.
    pub held: bool,
}

/// What is on a machine.
struct Look {
    summaries: Vec<Summary>,
    table: Option<Table>,
}

async fn look_at(place: Result<Place, AppError>, limits: &Limits) -> Result<Look, AppError> {
    let world = place?.reach(limits).await?;
    let edge = world.edge().with_call_timeout(limits.edge_call);
    let (summaries, table) = tokio::join!(world.docker.summaries(), edge.table());
    let table = match table {
        Ok(table) => Some(table),
        Err(ClientError::Unreachable { .. }) => None,
        Err(error) => return Err(crate::edge::error(error).into()),
    };
    Ok(Look { summaries: summaries?, table })
}

/// Looks at all of them. A machine among several that cannot be reached is told of.
///
/// # Errors
/// When the ledger, or the only machine, cannot be asked.
pub async fn look(
    project: String,
    known: &[Declared],
    limits: &Limits,
) -> Result<Overview, AppError> {
    let mut targets: Vec<Option<String>> = Vec::new();
    for target in known.iter().map(target_of) {
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    let places = targets.iter().map(|target| {
        let of = |one: &&Declared| target_of(one) == *target && one.settings.is_some();
        let settings = known.iter().find(of).and_then(|one| one.settings.as_ref());
        look_at(Place::of(settings), limits)
    });
    let mut looks = futures_util::future::join_all(places).await;
    if let [only] = looks.as_mut_slice()
        && only.is_err()
    {
        return looks.remove(0).map(|_| unreachable!("it is an error"));
    }
    let ledger = crate::ledger::open().await?;
    let scopes = ledger.scopes().await?;
    let mut environments = Vec::new();
    for known in known {
        let (name, project_name) = known.names();
        let environment = known_in(&scopes, name, project_name);
        let scope = Scope { project: project_name.to_owned(), environment };
        let history = history(ledger.as_ref(), &scope).await?;
        let current = current(&history);
        let target = target_of(known);
        let machine = targets.iter().position(|one| *one == target).expect("they are all of them");
        let seen = looks[machine].as_ref().ok();
        let own: Vec<&Summary> = seen
            .iter()
            .flat_map(|seen| &seen.summaries)
            .filter(|container| container.project == project_name)
            .collect();
        let table = seen.and_then(|seen| seen.table.as_ref());
        environments.push(Environment {
            name: name.to_owned(),
            project_name: project_name.to_owned(),
            target,
            ephemeral: known.ephemeral.clone(),
            replicas: count(&own, current.map(|current| &current.release)),
            current: current.map(|current| current.number),
            newest: history.first().cloned(),
            routed: table.map(|t| routed(&scope.to_string(), t)).unwrap_or_default(),
        });
    }
    let machine = |(target, look): (_, Result<Look, AppError>)| Machine {
        target,
        seen: match look {
            Ok(look) => Ok(Seen { has_edge: look.table.is_some() }),
            Err(error) => Err(error.to_string()),
        },
    };
    let machines = targets.into_iter().zip(looks).map(machine).collect();
    Ok(Overview { project, environments, machines })
}

/// The engine's address, where the file names one.
fn target_of(known: &Declared) -> Option<String> {
    match &known.settings.as_ref()?.target {
        Target::Here => None,
        Target::At(address) => Some(address.clone()),
    }
}

/// As much of history as it takes to tell what is current, the newest first.
async fn history(ledger: &dyn Ledger, scope: &Scope) -> Result<Vec<Deployment>, LedgerError> {
    let newest = ledger.deployments(scope, 1).await?;
    if newest.iter().all(is_done) { Ok(newest) } else { ledger.deployments(scope, LOOK_BACK).await }
}

fn is_done(deployment: &Deployment) -> bool {
    matches!(deployment.state, DeploymentState::Ended { outcome: Outcome::Done, .. })
}

/// The deployment that is current; nothing before the first, and after a `down`.
fn current(history: &[Deployment]) -> Option<&Deployment> {
    history.iter().find(|deployment| is_done(deployment)).filter(|d| d.kind != "down")
}

/// What is current in an environment.
///
/// # Errors
/// When the ledger cannot be read.
pub async fn release(
    ledger: &dyn Ledger,
    scope: &Scope,
) -> Result<Option<Deployment>, LedgerError> {
    Ok(current(&history(ledger, scope).await?).cloned())
}

fn count(containers: &[&Summary], release: Option<&StoredRelease>) -> Replicas {
    let mut services: BTreeMap<&str, Vec<&Summary>> = BTreeMap::new();
    for container in containers {
        if ReplicaName::parse(&container.name).1 == Standing::Live {
            services.entry(&container.service).or_default().push(container);
        }
    }
    let mut replicas = Replicas::default();
    for container in services.values().flatten() {
        let runs = container.state == ContainerState::Running;
        replicas.running += u32::from(runs);
        replicas.unhealthy += u32::from(runs && container.health == Some(Health::Unhealthy));
    }
    let is_done = |service: &str| {
        services.get(service).is_some_and(|containers| {
            containers.iter().all(|one| one.state == ContainerState::Exited(0))
        })
    };
    replicas.wanted = match release {
        Some(release) => {
            let lasting = release.services.iter().filter(|(name, _)| !is_done(name));
            lasting.map(|(_, service)| service.replicas).sum()
        }
        // Made by somebody else: what is there is what is wanted.
        None => {
            let lasting = services.iter().filter(|(name, _)| !is_done(name));
            lasting.map(|(_, all)| u32::try_from(all.len()).unwrap_or(u32::MAX)).sum()
        }
    };
    replicas
}

fn routed(owner: &str, table: &Table) -> Routed {
    let mut routed = Routed::default();
    for route in table.routes.iter().filter(|route| route.owner == owner) {
        let host = route.host.as_deref().unwrap_or("*");
        let path = if route.path == "/" { "" } else { &route.path };
        routed.routes.push(format!("{host}{path}"));
        routed.maintenance |= route.policy.maintenance.is_some();
    }
    let outside = |listener: &&shiplap_edge::Listener| {
        listener.owner == owner && listener.namespace.is_none()
    };
    for listener in table.listeners.iter().filter(outside) {
        routed.ports.push(listener.port);
        routed.maintenance |= listener.policy.maintenance.is_some();
    }
    routed.ports.sort_unstable();
    routed.ports.dedup();
    routed.held = table.pools.values().any(|pool| pool.owner == owner && pool.paused);
    routed
}

#[cfg(test)]
mod tests {
    use shiplap_model::{StoredImage, StoredService};

    use super::*;

    fn container(name: &str, service: &str, state: ContainerState) -> Summary {
        Summary {
            id: name.to_owned(),
            name: name.to_owned(),
            project: "shop".to_owned(),
            service: service.to_owned(),
            number: 1,
            deployment: Some(1),
            image: "a".to_owned(),
            image_id: "sha256:a".to_owned(),
            state,
            health: None,
        }
    }

    fn released(services: &[(&str, u32)]) -> StoredRelease {
        let image = || StoredImage { reference: "a".to_owned(), id: None, digest: None };
        let service = |(name, replicas): &(&str, u32)| {
            ((*name).to_owned(), StoredService { image: image(), replicas: *replicas })
        };
        StoredRelease { version: 1, services: services.iter().map(service).collect() }
    }

    #[test]
    fn done_jobs_and_what_is_kept_aside_are_not_wanted() {
        let all = [
            container("shop-api-1", "api", ContainerState::Running),
            container("shop-api-2", "api", ContainerState::Exited(1)),
            container("shop-api-1.d1", "api", ContainerState::Paused),
            container("shop-migrate-1", "migrate", ContainerState::Exited(0)),
        ];
        let all: Vec<&Summary> = all.iter().collect();
        let release = released(&[("api", 2), ("migrate", 1), ("worker", 1)]);
        let expected = Replicas { running: 1, wanted: 3, unhealthy: 0 };
        assert_eq!(count(&all, Some(&release)), expected);
        let expected = Replicas { running: 1, wanted: 2, unhealthy: 0 };
        assert_eq!(count(&all, None), expected);
    }

    #[test]
    fn one_that_is_unhealthy_runs_and_is_counted() {
        let mut sick = container("shop-api-1", "api", ContainerState::Running);
        sick.health = Some(Health::Unhealthy);
        let expected = Replicas { running: 1, wanted: 1, unhealthy: 1 };
        assert_eq!(count(&[&sick], Some(&released(&[("api", 1)]))), expected);
    }
}
