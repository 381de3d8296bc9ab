//! What happens to the replicas of one service.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

use shiplap_compose::model::{Condition, Project, Service};
use shiplap_model::{
    Cause, ChangeKind, ContainerState, Gate, Goal, HealthGate, Observed, ObservedContainer,
    PortProbe, Protocol, Refusal, ReplicaName, ServiceSpec, Standing, Strategy,
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
    /// A job's container that has ended well: it is not started again.
    Finished(&'a ObservedContainer),
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
    /// Leftovers of this very deployment that are of no use and have the name of a new replica.
    pub obstacles: Vec<&'a ObservedContainer>,
    pub gate: Gate,
    /// Whether it is a job that is not run, since it counts as done.
    pub counts_as_done: bool,
}

/// Whether the replicas of a service are replaced even if nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Force {
    /// Only where something changed.
    No,
    /// All that this deployment has not made itself, when it is resumed.
    Others,
    /// All.
    All,
}

impl Force {
    fn replaces(self, container: &ObservedContainer, policy: &Policy) -> bool {
        match self {
            Self::No => false,
            Self::Others => container.deployment != Some(policy.deployment),
            Self::All => true,
        }
    }
}

impl<'a> ServicePlan<'a> {
    /// Containers of earlier deployments that come back.
    pub fn revived(&self) -> Vec<&'a ObservedContainer> {
        let origins = self.fresh.iter().map(|fresh| fresh.origin);
        origins
            .filter_map(|origin| match origin {
                Origin::Revive(container) | Origin::Finished(container) => Some(container),
                Origin::Create => None,
            })
            .collect()
    }

    /// Replicas that are started or have to show that they work.
    pub fn starting(&self) -> impl Iterator<Item = &Fresh<'a>> {
        self.fresh.iter().filter(|fresh| match fresh.origin {
            Origin::Create | Origin::Revive(_) => true,
            Origin::Finished(_) => false,
        })
    }

    /// Whether any container is made.
    pub fn makes_new(&self) -> bool {
        self.fresh.iter().any(|fresh| matches!(fresh.origin, Origin::Create))
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
        self.strategy == Strategy::StopFirst
            && !self.leave.is_empty()
            && self.starting().next().is_some()
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
    force: Force,
) -> Result<ServicePlan<'a>, Refusal> {
    let all: Vec<&ObservedContainer> =
        observed.containers.iter().filter(|c| c.service == spec.name).collect();
    let (current, others) = split_current(&all, observed, spec, project, policy);
    let look = Look { spec, project, observed, policy, force, current: &current, others: &others };
    let anonymous = current.iter().any(|c| !c.anonymous_volumes.is_empty());
    let (strategy, reason) = crate::strategy::strategy(project, spec, anonymous)?;
    let counts_as_done = look.counts_as_done();

    let (keep, mut causes) = if counts_as_done { look.keep_jobs() } else { look.keep() };
    if force != Force::No && !counts_as_done {
        causes.insert(Cause::Asked);
    }
    let fresh = if counts_as_done { look.finished_jobs(&keep) } else { look.fresh(&keep)? };
    let revived = |c: &ObservedContainer| {
        fresh.iter().any(|f| match f.origin {
            Origin::Revive(old) | Origin::Finished(old) => old.id == c.id,
            Origin::Create => false,
        })
    };
    // Two jobs at once would be two migrations of one database.
    let is_job = is_job(spec, project);
    let obstructs = |c: &ObservedContainer| {
        let mut made = fresh.iter().filter(|f| matches!(f.origin, Origin::Create));
        made.any(|f| f.name == c.name || (is_job && is_active(c)))
    };
    let (obstacles, others): (Vec<&ObservedContainer>, Vec<&ObservedContainer>) =
        others.iter().copied().partition(|c| !revived(c) && obstructs(c));
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
        .filter(|c| {
            kind == ChangeKind::Replace
                || !is_retired(c)
                || is_undone(c, policy)
                || (!policy.unfinished.is_empty() && is_outlived(c, &others))
        })
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
        obstacles,
        gate: gate_of(spec, policy),
        counts_as_done,
    })
}

/// Whether a container goes with the deployment that is gone back from. What was kept for a look
/// stays.
pub(crate) fn is_undone(container: &ObservedContainer, policy: &Policy) -> bool {
    let made_it = |undo: &crate::policy::Undo| {
        let of_these =
            container.deployment.is_some_and(|number| undo.deployments.contains(&number));
        of_these && !undo.there.contains(&container.id)
    };
    policy.undo.as_ref().is_some_and(made_it)
        && ReplicaName::parse(&container.name).1 != Standing::Failed
}

/// One service, seen from all sides.
struct Look<'a, 'l> {
    spec: &'a ServiceSpec,
    project: &'l Project,
    observed: &'a Observed,
    policy: &'l Policy,
    force: Force,
    current: &'l [&'a ObservedContainer],
    others: &'l [&'a ObservedContainer],
}

impl<'a> Look<'a, '_> {
    /// Replicas that stay, and why others do not.
    fn keep(&self) -> (Vec<&'a ObservedContainer>, BTreeSet<Cause>) {
        let mut causes = BTreeSet::new();
        let mut keep = Vec::new();
        for container in self.current {
            let differing = differences(container, self.spec, self.observed);
            let forced = self.force.replaces(container, self.policy);
            if differing.is_empty() && !forced && self.is_up(container) {
                if keep.len() < self.spec.replicas as usize {
                    keep.push(*container);
                }
            } else if differing.is_empty() && !forced {
                causes.insert(Cause::NotRunning(state_word(container)));
            } else {
                causes.extend(differing);
            }
        }
        (keep, causes)
    }

    fn is_up(&self, container: &ObservedContainer) -> bool {
        match container.state {
            ContainerState::Running | ContainerState::Restarting => true,
            ContainerState::Exited(code) => {
                code == 0 && is_job(self.spec, self.project) && !self.was_to_leave(container)
            }
            ContainerState::Created | ContainerState::Paused | ContainerState::Dead => false,
        }
    }

    /// Whether a deployment that did not end may have stopped it: its successor was made before, and
    /// was not started before. A successor that has ended may also have been current for a time.
    fn was_to_leave(&self, container: &ObservedContainer) -> bool {
        let unfinished = |c: &ObservedContainer| {
            c.deployment.is_some_and(|n| self.policy.unfinished.contains(&n))
        };
        self.others.iter().filter(|other| other.number == container.number).any(|other| {
            let later = other.started_ms > container.started_ms;
            let at_work = is_active(other) || unfinished(other);
            other.state == ContainerState::Created || (later && at_work)
        })
    }

    /// Whether this is a job that is not run. Going back, since an old migration on a newer
    /// database fails or destroys; and in a restart, unless its name was given, since what has
    /// ended cannot be restarted.
    fn counts_as_done(&self) -> bool {
        let not_asked_for = match self.policy.goal {
            Goal::Rollback { .. } => true,
            Goal::Restart => !self.policy.force.contains(&self.spec.name),
            Goal::Deploy
            | Goal::Promote { .. }
            | Goal::Scale
            | Goal::Down
            | Goal::Withdraw
            | Goal::Abandon => false,
        };
        let rested = |c: &ObservedContainer| {
            self.policy.undo.as_ref().is_some_and(|undo| undo.rested.contains(&c.id))
        };
        let has_ended = |c: &&ObservedContainer| {
            c.state == ContainerState::Exited(0) && (rested(c) || !self.was_to_leave(c))
        };
        not_asked_for
            && (completes(self.spec, self.project)
                || (is_job(self.spec, self.project) && self.current.iter().any(has_ended)))
    }

    /// Of a job that counts as done: what it was run in stays, unless a container of the wanted
    /// release is there, or it goes with the deployment that is gone back from.
    fn keep_jobs(&self) -> (Vec<&'a ObservedContainer>, BTreeSet<Cause>) {
        let stays = |c: &ObservedContainer| {
            let exact = differences(c, self.spec, self.observed).is_empty();
            let better = self.others.iter().any(|o| o.number == c.number && self.has_done(o));
            !is_undone(c, self.policy) && (exact || !better)
        };
        let (keep, go): (Vec<_>, Vec<_>) = self.current.iter().copied().partition(|c| stays(c));
        let causes = go.into_iter().flat_map(|c| differences(c, self.spec, self.observed));
        (keep, causes.collect())
    }

    /// Containers of the wanted release in which a job was run.
    fn finished_jobs(&self, keep: &[&ObservedContainer]) -> Vec<Fresh<'a>> {
        let free = (1..=self.spec.replicas).filter(|n| !keep.iter().any(|c| c.number == *n));
        free.filter_map(|number| {
            let candidates = self.others.iter().copied();
            let found = candidates
                .filter(|c| c.number == number && self.has_done(c))
                .max_by_key(|c| (c.deployment, Reverse(&c.name)))?;
            let base = self.base(number);
            let name = found.name.clone();
            Some(Fresh { number, base, name, origin: Origin::Finished(found) })
        })
        .collect()
    }

    /// Whether this container has done the wanted job, at any time.
    fn has_done(&self, container: &ObservedContainer) -> bool {
        container.state == ContainerState::Exited(0)
            && container.fields.is_some()
            && !is_undone(container, self.policy)
            && ReplicaName::parse(&container.name).1 != Standing::Failed
            && differences(container, self.spec, self.observed).is_empty()
    }

    /// Containers that are exactly what is wanted, best first.
    fn revivable(&self, keep: &[&ObservedContainer]) -> Vec<Origin<'a>> {
        let mut found: Vec<&ObservedContainer> = self
            .current
            .iter()
            .chain(self.others)
            .copied()
            .filter(|c| !self.force.replaces(c, self.policy))
            .filter(|c| !keep.iter().any(|k| k.id == c.id))
            .filter(|c| ReplicaName::parse(&c.name).1 != Standing::Failed)
            .filter(|c| c.fields.is_some() || self.current.iter().any(|k| k.id == c.id))
            .filter(|c| differences(c, self.spec, self.observed).is_empty())
            .collect();
        let rank = |c: &ObservedContainer| match c.state {
            ContainerState::Running => 0,
            ContainerState::Paused => 1,
            ContainerState::Exited(_) | ContainerState::Created => 2,
            ContainerState::Restarting | ContainerState::Dead => 3,
        };
        found.retain(|c| rank(c) < 3);
        found.sort_by_key(|c| (rank(c), Reverse(c.deployment), c.name.clone()));
        found.into_iter().filter_map(|c| self.revival(c)).collect()
    }

    /// How a container that is what is wanted comes back. A job's does only for the deployment
    /// that it was made in, and for one that takes that over: the same job of an earlier release
    /// is a job to be run.
    fn revival(&self, container: &'a ObservedContainer) -> Option<Origin<'a>> {
        let ContainerState::Exited(code) = container.state else {
            return Some(Origin::Revive(container));
        };
        let trusted = container.deployment.is_some_and(|n| self.policy.trusted_jobs.contains(&n));
        if trusted && code == 0 && is_job(self.spec, self.project) {
            return Some(Origin::Finished(container));
        }
        if !completes(self.spec, self.project) {
            return Some(Origin::Revive(container));
        }
        // It failed: in the deployment that it was made in, that is what its gate finds.
        let own = container.deployment == Some(self.policy.deployment);
        (trusted && own).then_some(Origin::Revive(container))
    }

    fn fresh(&self, keep: &[&ObservedContainer]) -> Result<Vec<Fresh<'a>>, Refusal> {
        let spec = self.spec;
        let mut revivable = self.revivable(keep);
        let mut fresh = Vec::new();
        for number in 1..=spec.replicas {
            if keep.iter().any(|c| c.number == number)
                || keep.len() + fresh.len() >= spec.replicas as usize
            {
                continue;
            }
            let base = self.base(number);
            if self.observed.foreign_names.contains(&base) {
                return Err(name_taken(spec, &base));
            }
            let of_number = |origin: &Origin<'_>| match origin {
                Origin::Revive(c) | Origin::Finished(c) => c.number == number,
                Origin::Create => false,
            };
            let candidate = revivable.iter().position(of_number).map(|at| revivable.remove(at));
            let (name, origin) = match candidate {
                Some(origin @ (Origin::Revive(c) | Origin::Finished(c))) => {
                    (c.name.clone(), origin)
                }
                Some(Origin::Create) | None => (self.free_name(&base), Origin::Create),
            };
            fresh.push(Fresh { number, base, name, origin });
        }
        Ok(fresh)
    }

    fn base(&self, number: u32) -> String {
        match &self.spec.service.container_name {
            Some(name) => name.clone(),
            None => format!("{}-{}-{number}", self.project.name, self.spec.name),
        }
    }

    /// The name of a new replica until it is the live one. Those of replicas that serve are taken;
    /// what else has one makes room.
    fn free_name(&self, base: &str) -> String {
        if !self.observed.containers.iter().any(|c| c.name == base) {
            return base.to_owned();
        }
        let aside = |deployment| ReplicaName { base: base.to_owned(), deployment }.aside();
        let serves = |name: &String| self.current.iter().any(|c| c.name == *name);
        let mut numbers = self.policy.deployment..;
        numbers.by_ref().map(aside).find(|name| !serves(name)).expect("few replicas serve")
    }
}

/// Which containers are the service now, and which are left from other deployments.
///
/// The edge knows best: whom it routes to is current, whatever its name, since a deployment may
/// have ended between the switch and the renaming. Without a route the name tells; but what a
/// deployment has left that did not end may have the name and not work yet.
fn split_current<'a>(
    all: &[&'a ObservedContainer],
    observed: &Observed,
    spec: &ServiceSpec,
    project: &Project,
    policy: &Policy,
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
            ReplicaName::parse(&c.name).1 == Standing::Live && is_proven(c, spec, project, policy)
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

/// Whether a later one is kept in its place: a deployment that did not end has not come to removing
/// it. What was kept for a look stays.
fn is_outlived(container: &ObservedContainer, others: &[&ObservedContainer]) -> bool {
    let is_kept =
        |c: &ObservedContainer| is_retired(c) && ReplicaName::parse(&c.name).1 != Standing::Failed;
    is_kept(container)
        && others.iter().any(|other| {
            other.number == container.number
                && is_kept(other)
                && other.deployment.unwrap_or(0) > container.deployment.unwrap_or(0)
        })
}

fn is_active(container: &ObservedContainer) -> bool {
    matches!(container.state, ContainerState::Running | ContainerState::Restarting)
}

/// Whether the deployment that made a container got as far as seeing it work.
fn is_proven(
    container: &ObservedContainer,
    spec: &ServiceSpec,
    project: &Project,
    policy: &Policy,
) -> bool {
    let Some(deployment) = container.deployment else { return true };
    if !policy.unfinished.contains(&deployment) {
        return true;
    }
    container.state == ContainerState::Exited(0)
        && is_job(spec, project)
        && policy.trusted_jobs.contains(&deployment)
}

/// For a job, having ended well is being up: for one that others wait for to complete, and for
/// what nothing starts again and nobody calls.
pub(crate) fn is_job(spec: &ServiceSpec, project: &Project) -> bool {
    let service = &spec.service;
    let is_called = !service.ports.is_empty()
        || !service.expose.is_empty()
        || service.healthcheck.as_ref().is_some_and(|check| !check.test.is_empty());
    completes(spec, project) || (!is_started_again(service) && !is_called)
}

/// Whether others wait for the service to complete.
fn completes(spec: &ServiceSpec, project: &Project) -> bool {
    is_waited_for(project, &spec.name)
}

/// Whether other services wait for this one to complete: the surest sign of a job.
#[must_use]
pub fn is_waited_for(project: &Project, service: &str) -> bool {
    let others = project.services.values().filter_map(|other| other.depends_on.get(service));
    others.into_iter().any(|how| how.condition == Condition::CompletedSuccessfully)
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

pub(crate) fn state_word(container: &ObservedContainer) -> String {
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
    let led = spec.routed.iter().filter(|_| routed);
    ports.extend(led.map(|port| PortProbe { port: *port, protocol: None, path: path.clone() }));
    ports.sort_by_key(|probe| (probe.port, probe.protocol.is_none()));
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
