//! What happens to the replicas of one service.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

use shiplap_compose::model::{Condition, Project, Service};
use shiplap_model::{
    Cause, ChangeKind, ContainerState, Gate, HealthGate, Observed, ObservedContainer, PortProbe,
    Protocol, Refusal, ReplicaName, ServiceSpec, Standing, Strategy,
};

use crate::policy::Policy;

/// Label with the path that is asked for where a published port speaks HTTP.
const HEALTH_PATH: &str = "shiplap.health.path";

/// Where a new replica comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Origin<'a> {
    /// It is created.
    Create,
    /// A container of an earlier deployment that is exactly what is wanted.
    Revive(&'a ObservedContainer),
}

/// A replica that starts to serve.
#[derive(Debug, Clone)]
pub(crate) struct Fresh<'a> {
    pub number: u32,
    /// Its name once it is the live one.
    pub base: String,
    /// Its name until then.
    pub name: String,
    pub origin: Origin<'a>,
}

/// What happens to the replicas of one service.
#[derive(Debug)]
pub(crate) struct ServicePlan<'a> {
    pub spec: &'a ServiceSpec,
    pub kind: ChangeKind,
    pub causes: Vec<Cause>,
    pub strategy: Strategy,
    pub reason: String,
    /// Replicas that stay.
    pub keep: Vec<&'a ObservedContainer>,
    /// Replicas that start to serve.
    pub fresh: Vec<Fresh<'a>>,
    /// Replicas that serve now and leave.
    pub leave: Vec<&'a ObservedContainer>,
    /// Containers of earlier deployments that nothing needs any more.
    pub discard: Vec<&'a ObservedContainer>,
    pub gate: Gate,
}

impl<'a> ServicePlan<'a> {
    /// Containers of earlier deployments that come back.
    pub fn revived(&self) -> Vec<&'a ObservedContainer> {
        let origins = self.fresh.iter().map(|fresh| fresh.origin);
        origins
            .filter_map(|origin| match origin {
                Origin::Revive(container) => Some(container),
                Origin::Create => None,
            })
            .collect()
    }

    /// Whether any replica comes or goes.
    pub fn changes(&self) -> bool {
        !self.fresh.is_empty() || !self.leave.is_empty()
    }

    /// Names of the containers that serve afterwards, while the deployment runs.
    pub fn serving(&self) -> Vec<String> {
        let kept = self.keep.iter().map(|container| container.name.clone());
        kept.chain(self.fresh.iter().map(|fresh| fresh.name.clone())).collect()
    }

    /// Whether old replicas leave before new ones start.
    pub fn stops_first(&self) -> bool {
        self.strategy == Strategy::StopFirst && !self.leave.is_empty() && !self.fresh.is_empty()
    }

    /// Whether an old replica is stopped before new ones start, and started again in undoing. One
    /// that has ended is not, if it is a job, which must not run again, or if its successor runs
    /// already, since both may write to one volume.
    pub fn stops_in_place(&self, old: &ObservedContainer) -> bool {
        let has_ended = matches!(old.state, ContainerState::Exited(_));
        let runs_already = self
            .leave
            .iter()
            .chain(&self.revived())
            .any(|other| other.number == old.number && is_active(other));
        self.stops_first() && !(has_ended && (self.gate.completes || runs_already))
    }
}

/// Decides for one service.
///
/// # Errors
/// `name-taken` where a container of another project has the name that a replica needs, and the
/// refusals of [`crate::strategy::strategy`].
pub(crate) fn plan_service<'a>(
    spec: &'a ServiceSpec,
    observed: &'a Observed,
    project: &Project,
    policy: &Policy,
) -> Result<ServicePlan<'a>, Refusal> {
    let all: Vec<&ObservedContainer> =
        observed.containers.iter().filter(|c| c.service == spec.name).collect();
    let (current, others) = split_current(&all, observed, spec);
    let forced = policy.force.contains(&spec.name);

    let mut causes = BTreeSet::new();
    let mut keep = Vec::new();
    for container in &current {
        let differing = differences(container, spec, observed);
        if differing.is_empty() && !forced && is_up(container, spec, project, &others) {
            if keep.len() < spec.replicas as usize {
                keep.push(*container);
            }
        } else if differing.is_empty() && !forced {
            causes.insert(Cause::NotRunning(state_word(container)));
        } else {
            causes.extend(differing);
        }
    }
    if forced {
        causes.insert(Cause::Asked);
    }
    let anonymous = current.iter().any(|c| !c.anonymous_volumes.is_empty());
    let (strategy, reason) = crate::strategy::strategy(project, spec, anonymous)?;

    let revivable = revivable(&current, &others, &keep, spec, observed, forced);
    let fresh = fresh(spec, observed, policy, project, &keep, revivable)?;
    let revived = |c: &ObservedContainer| {
        fresh.iter().any(|f| matches!(f.origin, Origin::Revive(r) if r.id == c.id))
    };
    let kept = |c: &ObservedContainer| keep.iter().any(|k| k.id == c.id);
    let leave: Vec<_> = current.iter().copied().filter(|c| !kept(c) && !revived(c)).collect();
    let (kind, causes) = kind_of(&current, &keep, &fresh, &leave, causes, spec);
    let stale_live = |c: &ObservedContainer| ReplicaName::parse(&c.name).1 == Standing::Live;
    let mut leave = leave;
    // What a deployment that did not end has started may write to the same volume.
    let in_the_way = |c: &ObservedContainer| {
        strategy == Strategy::StopFirst && !fresh.is_empty() && is_active(c)
    };
    let leaves = |c: &ObservedContainer| stale_live(c) || in_the_way(c);
    leave.extend(others.iter().copied().filter(|c| leaves(c) && !revived(c)));
    let discard = others
        .iter()
        .copied()
        .filter(|c| !leaves(c) && !revived(c))
        .filter(|c| kind == ChangeKind::Replace || !is_retired(c))
        .collect();
    Ok(ServicePlan {
        spec,
        kind,
        causes,
        strategy,
        reason,
        keep,
        fresh,
        leave,
        discard,
        gate: gate_of(spec, policy),
    })
}

/// Which containers are the service now, and which are left from other deployments.
///
/// The edge knows best: whom it routes to is current, whatever its name, since a deployment may
/// have ended between the switch and the renaming. Without a route the name tells.
fn split_current<'a>(
    all: &[&'a ObservedContainer],
    observed: &Observed,
    spec: &ServiceSpec,
) -> (Vec<&'a ObservedContainer>, Vec<&'a ObservedContainer>) {
    let routed: BTreeSet<&str> = observed
        .router
        .iter()
        .flat_map(|router| &router.pools)
        .filter(|(key, _)| key.service == spec.name)
        .flat_map(|(_, pool)| &pool.replicas)
        .map(|(replica, _, _)| replica.container_id.as_str())
        .collect();
    let any_routed = all.iter().any(|c| routed.contains(c.id.as_str()));
    let is_current = |c: &ObservedContainer| {
        if any_routed {
            routed.contains(c.id.as_str())
        } else {
            ReplicaName::parse(&c.name).1 == Standing::Live
        }
    };
    let (mut current, others): (Vec<&ObservedContainer>, Vec<&ObservedContainer>) =
        all.iter().copied().partition(|c| is_current(c));
    current.sort_by_key(|c| (c.number, c.name.clone()));
    (current, others)
}

/// Kept for a look, or stopped or frozen: what a rollback can use. One that still has its restart
/// policy was about to come back when a deployment ended.
fn is_retired(container: &ObservedContainer) -> bool {
    let rests = matches!(container.state, ContainerState::Paused | ContainerState::Exited(_));
    ReplicaName::parse(&container.name).1 == Standing::Failed
        || (rests && container.facts.get("restart").is_none())
}

fn is_active(container: &ObservedContainer) -> bool {
    matches!(container.state, ContainerState::Running | ContainerState::Restarting)
}

fn is_up(
    container: &ObservedContainer,
    spec: &ServiceSpec,
    project: &Project,
    others: &[&ObservedContainer],
) -> bool {
    match container.state {
        ContainerState::Running | ContainerState::Restarting => true,
        ContainerState::Exited(code) => {
            code == 0 && is_job(spec, project) && !was_to_leave(container, others)
        }
        ContainerState::Created | ContainerState::Paused | ContainerState::Dead => false,
    }
}

/// For a job, having ended well is being up: for one that others wait for to complete, and for
/// what nothing starts again and nobody calls.
fn is_job(spec: &ServiceSpec, project: &Project) -> bool {
    let service = &spec.service;
    let completes = project
        .services
        .values()
        .filter_map(|other| other.depends_on.get(&spec.name))
        .any(|dependency| dependency.condition == Condition::CompletedSuccessfully);
    let is_called = !service.ports.is_empty()
        || !service.expose.is_empty()
        || service.healthcheck.as_ref().is_some_and(|check| !check.test.is_empty());
    completes || (!is_started_again(service) && !is_called)
}

/// Whether the engine starts the service's containers again by itself. The file says so, not the
/// container: one that was retired has lost its restart policy.
fn is_started_again(service: &Service) -> bool {
    let never = |policy: &str| policy == "no" || policy == "none";
    let deploy = service.deploy.as_ref().and_then(|d| d.restart_policy.as_ref());
    let condition = deploy.map(|policy| policy.condition.as_deref().unwrap_or("any"));
    let either = [service.restart.as_deref(), condition];
    either.into_iter().flatten().any(|policy| !never(policy))
}

/// Whether a deployment that did not end may have stopped it: its successor was made before, and
/// was not started before.
fn was_to_leave(container: &ObservedContainer, others: &[&ObservedContainer]) -> bool {
    others.iter().any(|other| {
        other.number == container.number
            && (other.state == ContainerState::Created || other.started_ms > container.started_ms)
    })
}

fn state_word(container: &ObservedContainer) -> String {
    match container.state {
        ContainerState::Running => "running".to_owned(),
        ContainerState::Restarting => "restarting".to_owned(),
        ContainerState::Paused => "paused".to_owned(),
        ContainerState::Created => "never started".to_owned(),
        ContainerState::Exited(code) => format!("exited with {code}"),
        ContainerState::Dead => "dead".to_owned(),
    }
}

/// Why a container is not what the spec asks for.
fn differences(
    container: &ObservedContainer,
    spec: &ServiceSpec,
    observed: &Observed,
) -> Vec<Cause> {
    let mut causes = Vec::new();
    let digests = observed.images.get(&container.image_id).map(|i| i.repo_digests.as_slice());
    if !spec.image.is(&container.image_id, digests.unwrap_or_default()) {
        causes.push(Cause::Image);
    }
    let names = match &container.fields {
        Some(digests) => digests.differing(&spec.fields),
        // An image that is not here yet has defaults that nobody knows: its own change is cause
        // enough.
        None if spec.image.info.is_none() => Vec::new(),
        None => spec.facts.differing(&container.facts),
    };
    causes.extend(names.into_iter().map(Cause::Field));
    causes
}

/// Containers that are exactly what is wanted, best first.
fn revivable<'a>(
    current: &[&'a ObservedContainer],
    others: &[&'a ObservedContainer],
    keep: &[&ObservedContainer],
    spec: &ServiceSpec,
    observed: &Observed,
    forced: bool,
) -> Vec<&'a ObservedContainer> {
    if forced {
        return Vec::new();
    }
    let mut found: Vec<&ObservedContainer> = current
        .iter()
        .chain(others)
        .copied()
        .filter(|c| !keep.iter().any(|k| k.id == c.id))
        .filter(|c| ReplicaName::parse(&c.name).1 != Standing::Failed)
        .filter(|c| c.fields.is_some() || current.iter().any(|k| k.id == c.id))
        .filter(|c| differences(c, spec, observed).is_empty())
        .collect();
    let rank = |c: &ObservedContainer| match c.state {
        ContainerState::Running => 0,
        ContainerState::Paused => 1,
        ContainerState::Exited(_) | ContainerState::Created => 2,
        ContainerState::Restarting | ContainerState::Dead => 3,
    };
    found.retain(|c| rank(c) < 3);
    found.sort_by_key(|c| (rank(c), Reverse(c.deployment), c.name.clone()));
    found
}

fn fresh<'a>(
    spec: &ServiceSpec,
    observed: &Observed,
    policy: &Policy,
    project: &Project,
    keep: &[&ObservedContainer],
    mut revivable: Vec<&'a ObservedContainer>,
) -> Result<Vec<Fresh<'a>>, Refusal> {
    let mut fresh = Vec::new();
    for number in 1..=spec.replicas {
        if keep.iter().any(|c| c.number == number)
            || keep.len() + fresh.len() >= spec.replicas as usize
        {
            continue;
        }
        let base = match &spec.service.container_name {
            Some(name) => name.clone(),
            None => format!("{}-{}-{number}", project.name, spec.name),
        };
        if observed.foreign_names.contains(&base) {
            return Err(name_taken(spec, &base));
        }
        let candidate =
            revivable.iter().position(|c| c.number == number).map(|index| revivable.remove(index));
        let (name, origin) = match candidate {
            Some(container) => (container.name.clone(), Origin::Revive(container)),
            None if observed.containers.iter().any(|c| c.name == base) => {
                let aside = ReplicaName { base: base.clone(), deployment: policy.deployment };
                (aside.aside(), Origin::Create)
            }
            None => (base.clone(), Origin::Create),
        };
        fresh.push(Fresh { number, base, name, origin });
    }
    Ok(fresh)
}

fn name_taken(spec: &ServiceSpec, base: &str) -> Refusal {
    Refusal {
        code: "name-taken",
        service: Some(spec.name.clone()),
        path: ["services", &spec.name, "container_name"].map(str::to_owned).into(),
        message: format!("a container of another project is called `{base}`"),
        help: Some(format!("`docker rm {base}` if it is not needed, or choose another name")),
    }
}

fn kind_of(
    current: &[&ObservedContainer],
    keep: &[&ObservedContainer],
    fresh: &[Fresh<'_>],
    leave: &[&ObservedContainer],
    causes: BTreeSet<Cause>,
    spec: &ServiceSpec,
) -> (ChangeKind, Vec<Cause>) {
    let mut causes: Vec<Cause> = causes.into_iter().collect();
    causes.sort_by_key(|cause| !matches!(cause, Cause::Image));
    let from = u32::try_from(current.len()).unwrap_or(u32::MAX);
    let resized = || Cause::Replicas { from, to: spec.replicas };
    if fresh.is_empty() && leave.is_empty() {
        return (ChangeKind::Keep, Vec::new());
    }
    if current.is_empty() {
        return (ChangeKind::Create, vec![Cause::New]);
    }
    if from != spec.replicas {
        causes.push(resized());
    }
    let only_resized = causes.len() == 1 && from != spec.replicas;
    let kind = if only_resized || (fresh.is_empty() && !keep.is_empty()) {
        ChangeKind::Scale
    } else {
        ChangeKind::Replace
    };
    (kind, causes)
}

/// What must hold before a replica of this service counts as working.
pub(crate) fn gate_of(spec: &ServiceSpec, policy: &Policy) -> Gate {
    let service = &spec.service;
    let own = service.healthcheck.as_ref();
    let disabled = own.is_some_and(|h| h.disable || h.test.first().is_some_and(|t| t == "NONE"));
    let image = spec.image.info.as_ref();
    let healthcheck = !disabled
        && (own.is_some_and(|h| !h.test.is_empty()) || image.is_some_and(|i| i.has_healthcheck));
    let start_period = own
        .and_then(|h| h.start_period)
        .and_then(|period| period.as_std())
        .or(image.map(|i| Duration::from_millis(i.start_period_ms)))
        .unwrap_or_default();
    let path = service.labels.get(HEALTH_PATH).cloned().unwrap_or_else(|| "/".to_owned());
    let routed = crate::routes::routable(service);
    let mut ports: Vec<PortProbe> = service
        .ports
        .iter()
        .filter(|port| routed && port.protocol.as_deref().is_none_or(|p| p == "tcp"))
        .map(|port| PortProbe {
            port: port.target,
            protocol: crate::routes::declared_protocol(port),
            path: path.clone(),
        })
        .collect();
    ports.sort_by_key(|probe| probe.port);
    ports.dedup_by_key(|probe| probe.port);
    let blind = ports.is_empty() && !healthcheck;
    Gate {
        healthcheck: if healthcheck {
            HealthGate::Pass
        } else if image.is_none() && own.is_none() {
            HealthGate::IfAny
        } else {
            HealthGate::None
        },
        ports,
        steady: if blind { policy.limits.steady } else { Duration::ZERO },
        limit: policy.limits.gate + start_period,
        completes: false,
    }
}

/// The gate in words, for the plan.
pub(crate) fn gate_words(gate: &Gate) -> String {
    if gate.completes {
        return "must end with code 0".to_owned();
    }
    let ports: Vec<String> = gate.ports.iter().map(protocol_word).collect();
    let check = match gate.healthcheck {
        HealthGate::None => None,
        HealthGate::IfAny => Some("health check, if its image has one"),
        HealthGate::Pass | HealthGate::Passed => Some("health check"),
    };
    match (check, ports.is_empty()) {
        (Some(check), true) => check.to_owned(),
        (Some(check), false) => format!("{check} and port {}", ports.join(", ")),
        (None, false) => format!("port {}", ports.join(", ")),
        (None, true) => format!("listening, or running for {} s", gate.steady.as_secs_f32()),
    }
}

fn protocol_word(probe: &PortProbe) -> String {
    match probe.protocol {
        Some(Protocol::Http) => format!("{} (HTTP)", probe.port),
        Some(Protocol::Http2) => format!("{} (HTTP/2)", probe.port),
        Some(Protocol::Tcp) => format!("{} (TCP)", probe.port),
        None => probe.port.to_string(),
    }
}
