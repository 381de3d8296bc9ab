//! What runs, what the files say and what the ledger says, side by side.

use std::collections::{BTreeMap, BTreeSet};

use shiplap_engine::Summary;
use shiplap_execute::now_ms;
use shiplap_model::{
    ContainerState, Deployment, DeploymentState, Ledger, LedgerError, Outcome, ReplicaName, Scope,
    Standing, StoredImage,
};
use shiplap_server::EnvironmentEntry;
use shiplap_server::view::{EnvironmentState, ImageState, ServiceState};

/// How far back is looked for what is current.
const LOOK_BACK: u32 = 100;

/// What history says of an environment.
#[derive(Debug, Default)]
pub struct Past {
    /// The deployment that is current.
    pub current: Option<Deployment>,
    /// One that has not ended, or is stuck.
    pub unfinished: Option<u64>,
}

/// Looks it up.
///
/// # Errors
/// When the ledger cannot be read.
pub async fn past(ledger: &dyn Ledger, scope: &Scope) -> Result<Past, LedgerError> {
    let mut deployments = ledger.deployments(scope, 1).await?;
    if !deployments.iter().all(is_done) {
        deployments = ledger.deployments(scope, LOOK_BACK).await?;
    }
    let unfinished = deployments.first().filter(|newest| match &newest.state {
        DeploymentState::Unfinished => true,
        DeploymentState::Ended { outcome, .. } => *outcome == Outcome::Stuck,
    });
    let unfinished = unfinished.map(|deployment| deployment.number);
    let current = deployments.into_iter().find(is_done).filter(|done| done.kind != "down");
    Ok(Past { current, unfinished })
}

fn is_done(deployment: &Deployment) -> bool {
    matches!(deployment.state, DeploymentState::Ended { outcome: Outcome::Done, .. })
}

/// Puts the three side by side. `containers` are those of the environment's Compose project;
/// nothing where the engine could not be asked.
pub fn state(
    entry: &EnvironmentEntry,
    past: &Past,
    containers: Result<Vec<&Summary>, String>,
) -> EnvironmentState {
    let (containers, problem) = match containers {
        Ok(containers) => (Some(containers), None),
        Err(problem) => (None, Some(problem)),
    };
    let release = past.current.as_ref().map(|current| &current.release);
    let in_release = release.iter().flat_map(|release| release.services.keys());
    let mut names: BTreeSet<&String> = entry.services.keys().chain(in_release).collect();
    let running: BTreeMap<&String, Vec<&Summary>> = live(containers.as_deref().unwrap_or_default());
    names.extend(running.keys());
    let mut services = BTreeMap::new();
    for name in names {
        let stored = release.and_then(|release| release.services.get(name));
        let own = running.get(name).map(Vec::as_slice).unwrap_or_default();
        if is_job(own) && !entry.services.contains_key(name) {
            continue;
        }
        let file = entry.services.get(name).filter(|service| !service.image.is_empty());
        let mut service = ServiceState {
            runs: images(own, stored.map(|stored| &stored.image)),
            file: file.map(|file| ImageState { reference: file.image.clone(), digest: None }),
            ledger: stored.map(|stored| image(&stored.image)),
            running: count(own),
            wanted: stored.map_or(0, |stored| stored.replicas),
            drift: Vec::new(),
        };
        service.drift = drift(&service, containers.is_some() && !is_job(own), past);
        services.insert(name.clone(), service);
    }
    let drift = services.iter().flat_map(|(name, service): (&String, &ServiceState)| {
        service.drift.iter().map(move |line| format!("{name}: {line}"))
    });
    EnvironmentState {
        target: entry.target.clone(),
        looked_at_ms: now_ms(),
        problem: problem.or_else(|| entry.problem.clone()),
        deployment: past.current.as_ref().map(|current| current.number),
        unfinished: past.unfinished,
        drift: drift.collect(),
        services,
    }
}

/// Containers that are live by their names, by service.
fn live<'a>(containers: &[&'a Summary]) -> BTreeMap<&'a String, Vec<&'a Summary>> {
    let mut services: BTreeMap<&String, Vec<&Summary>> = BTreeMap::new();
    for container in containers {
        if ReplicaName::parse(&container.name).1 == Standing::Live {
            services.entry(&container.service).or_default().push(container);
        }
    }
    services
}

/// Whether all there is of it has ended well, as a job does.
fn is_job(containers: &[&Summary]) -> bool {
    !containers.is_empty() && containers.iter().all(|one| one.state == ContainerState::Exited(0))
}

fn count(containers: &[&Summary]) -> u32 {
    let running = containers.iter().filter(|one| one.state == ContainerState::Running);
    u32::try_from(running.count()).unwrap_or(u32::MAX)
}

fn image(stored: &StoredImage) -> ImageState {
    let digest = stored.digest.clone().or_else(|| stored.id.clone());
    ImageState { reference: stored.reference.clone(), digest }
}

/// The images of what runs. A container that was made by an image's id has the name that the ledger
/// has for that id.
fn images(containers: &[&Summary], stored: Option<&StoredImage>) -> Vec<ImageState> {
    let mut images = Vec::new();
    for container in containers.iter().filter(|one| one.state == ContainerState::Running) {
        let known = stored.filter(|stored| stored.id.as_deref() == Some(&container.image_id));
        let seen = match known {
            Some(stored) => image(stored),
            None => ImageState {
                reference: container.image.clone(),
                digest: Some(container.image_id.clone()),
            },
        };
        if !images.contains(&seen) {
            images.push(seen);
        }
    }
    images
}

fn drift(service: &ServiceState, engine_is_known: bool, past: &Past) -> Vec<String> {
    let mut lines = Vec::new();
    let Some(current) = &past.current else { return lines };
    let number = current.number;
    match (&service.file, &service.ledger) {
        (Some(file), Some(ledger)) if file.reference != ledger.reference => lines.push(format!(
            "the files say {}, deployment {number} made {} current",
            file.reference, ledger.reference
        )),
        (Some(file), None) => {
            lines.push(format!(
                "the files have it ({}), deployment {number} did not",
                file.reference
            ));
        }
        _ => {}
    }
    let Some(ledger) = service.ledger.as_ref().filter(|_| engine_is_known) else { return lines };
    for runs in service.runs.iter().filter(|runs| runs.digest != ledger.digest) {
        lines.push(format!(
            "{} runs, deployment {number} made {} current",
            runs.reference, ledger.reference
        ));
    }
    if service.running < service.wanted {
        lines.push(format!("{} of {} replicas run", service.running, service.wanted));
    }
    lines
}
