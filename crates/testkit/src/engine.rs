//! An engine in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use shiplap_compose::model::MountKind;
use shiplap_compose::model::Project;
use shiplap_model::{
    AnonymousVolumes, BuildRequest, ContainerState, CreateReplica, Created, DEPLOYMENT, Desired,
    Engine, EngineError, EngineErrorKind, EngineInfo, EngineNetwork, EngineVolume, ExecResult,
    Fields, GENERATION, ImageInfo, ImagePin, Mark, Observed, ObservedContainer, ObservedNetwork,
    ObservedVolume, Progress, ProgressSink, RegistryAnswer, Scope, ServiceSpec,
};

use crate::calls::{Calls, Fate, Injected};
use crate::state::{Container, State, fake_facts};

/// An engine in memory.
pub struct FakeEngine {
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) calls: Calls,
}

fn error(kind: EngineErrorKind, doing: &str, message: impl Into<String>) -> EngineError {
    EngineError { kind, doing: doing.to_owned(), message: message.into(), help: None }
}

fn no_such_container(doing: &str, name: &str) -> EngineError {
    error(EngineErrorKind::NotFound, doing, format!("no such container: {name}"))
}

impl FakeEngine {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while holding it")
    }

    /// A call in words: by the container's name, however it is called.
    fn words(&self, verb: &str, container: &str) -> String {
        let state = self.state();
        format!("{verb} {}", state.find(container).map_or(container, |found| &found.name))
    }

    async fn enter(&self, text: &str) -> Result<Fate, EngineError> {
        self.calls.enter(format!("engine.{text}")).await.map_err(|what| injected(text, what))
    }

    /// Lets a call in, works, and ends it.
    async fn call<T>(
        &self,
        text: String,
        work: impl FnOnce(&mut State, &str) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let fate = self.enter(&text).await?;
        let worked = {
            let mut state = self.state();
            state.come_back();
            work(&mut state, &text)
        };
        fate.end().await.map_err(|what| injected(&text, what))?;
        worked
    }

    /// A container of nobody.
    pub(crate) fn blank() -> Container {
        Container {
            id: String::new(),
            name: String::new(),
            labels: BTreeMap::new(),
            image_reference: String::new(),
            image_id: String::new(),
            state: ContainerState::Created,
            restarts: 0,
            facts: Fields::new(),
            networks: BTreeMap::new(),
            volumes: BTreeSet::new(),
            writes: BTreeSet::new(),
            anonymous: BTreeMap::new(),
            own_anonymous: BTreeSet::new(),
            published: Vec::new(),
            peers: Vec::new(),
            has_healthcheck: false,
            created_ms: 0,
            started_ms: None,
            comes_back: None,
            looks: 0,
            looks_once_routed: 0,
            was_routed: false,
            undrained: false,
            checks: 0,
            probes: 0,
        }
    }

    /// A container as a service describes it, not on the engine yet.
    pub(crate) fn container_of(
        state: &mut State,
        desired: &Desired,
        spec: &ServiceSpec,
        name: String,
        labels: BTreeMap<String, String>,
    ) -> Container {
        let id = format!("{:064x}", state.next());
        let service = &spec.service;
        let image = spec.image.id.as_deref().and_then(|id| state.images.get(id)).cloned();
        let networks = service
            .networks
            .keys()
            .filter_map(|key| desired.compose.networks.get(key)?.name.clone())
            .map(|name| (name, None))
            .collect();
        let mounted: Vec<(String, bool)> = service
            .volumes
            .iter()
            .filter(|mount| mount.kind == MountKind::Volume)
            .filter_map(|mount| Some((mount.source.clone()?, mount.read_only)))
            .filter_map(|(key, read_only)| {
                Some((desired.compose.volumes.get(&key)?.name.clone()?, read_only))
            })
            .collect();
        let writes = mounted.iter().filter(|(_, ro)| !ro).map(|(name, _)| name.clone()).collect();
        let volumes = mounted.into_iter().map(|(name, _)| name).collect();
        let mut container = Container {
            id,
            name,
            labels,
            image_reference: spec.image.reference.clone(),
            image_id: image.as_ref().map_or_else(String::new, |image| image.id.clone()),
            facts: fake_facts(spec),
            networks,
            volumes,
            writes,
            has_healthcheck: has_healthcheck(spec, image.as_ref()),
            created_ms: state.now_ms(),
            ..Self::blank()
        };
        let targets: Vec<&str> =
            service.volumes.iter().filter_map(|mount| mount.target.as_deref()).collect();
        for target in image.iter().flat_map(|image| &image.volumes) {
            if !targets.contains(&target.as_str()) {
                let volume = format!("anonymous-{}", state.next());
                container.anonymous.insert(target.clone(), volume.clone());
                container.own_anonymous.insert(volume.clone());
                container.volumes.insert(volume);
            }
        }
        container
    }
}

fn injected(doing: &str, what: Injected) -> EngineError {
    match what {
        Injected::Fault => error(EngineErrorKind::Internal, doing, "injected"),
        Injected::Kind(kind) => error(kind, doing, "injected"),
        Injected::Away => error(EngineErrorKind::Unreachable, doing, "nobody is there"),
    }
}

fn has_healthcheck(spec: &ServiceSpec, image: Option<&ImageInfo>) -> bool {
    match &spec.service.healthcheck {
        Some(check) if check.disable || check.test.first().is_some_and(|t| t == "NONE") => false,
        Some(check) if !check.test.is_empty() => true,
        _ => image.is_some_and(|image| image.has_healthcheck),
    }
}

/// Only the tag, the digest or the id that means the pinned image will do.
fn pinned(state: &State, pin: &ImagePin, doing: &str) -> Result<ImageInfo, EngineError> {
    [Some(pin.reference.clone()), pin.by_digest(), pin.id.clone()]
        .into_iter()
        .flatten()
        .filter_map(|name| state.image(&name))
        .find(|image| pin.is(&image.id, &image.repo_digests))
        .cloned()
        .ok_or_else(|| {
            let message = format!("the engine does not have image {}", pin.reference);
            error(EngineErrorKind::NotFound, doing, message)
        })
}

fn same(existing: &Container, replica: &CreateReplica, image: &ImageInfo) -> bool {
    let labels = replica
        .labels
        .iter()
        .filter(|(name, _)| *name == DEPLOYMENT || name.starts_with("com.docker.compose."))
        .all(|(name, value)| existing.labels.get(name) == Some(value));
    labels && existing.labels.contains_key(DEPLOYMENT) && existing.image_id == image.id
}

fn create(
    state: &mut State,
    desired: &Desired,
    replica: &CreateReplica,
    doing: &str,
) -> Result<Created, EngineError> {
    let spec = desired.services.get(&replica.service);
    let spec = spec.ok_or_else(|| error(EngineErrorKind::Invalid, doing, "no such service"))?;
    let image = pinned(state, &spec.image, doing)?;
    if let Some(existing) = state.find(&replica.name).filter(|c| is_leftover(c, replica, &image)) {
        let id = existing.id.clone();
        remove(state, &id, AnonymousVolumes::Remove);
    }
    if let Some(existing) = state.find(&replica.name) {
        if same(existing, replica, &image) {
            return Ok(Created::Found(existing.id.clone()));
        }
        let message = format!("another container has the name {}", replica.name);
        return Err(error(EngineErrorKind::Conflict, doing, message));
    }
    let mut spec = spec.clone();
    spec.image.id = Some(image.id.clone());
    let name = replica.name.clone();
    let labels = replica.labels.clone();
    let mut container = FakeEngine::container_of(state, desired, &spec, name, labels);
    for (target, volume) in &replica.anonymous_volumes {
        if let Some(own) = container.anonymous.insert(target.clone(), volume.clone()) {
            container.own_anonymous.remove(&own);
            container.volumes.remove(&own);
        }
        container.volumes.insert(volume.clone());
        container.writes.insert(volume.clone());
    }
    for network in container.networks.keys() {
        if !state.networks.contains_key(network) {
            let message = format!("network {network} not found");
            return Err(error(EngineErrorKind::NotFound, doing, message));
        }
    }
    for volume in &container.volumes {
        let anonymous = container.anonymous.values().any(|known| known == volume);
        if !anonymous && !state.volumes.contains_key(volume) {
            state.violations.push(format!("{} made volume {volume} by itself", replica.name));
        }
    }
    for name in replica.peers.values() {
        let peer = state.find(name).ok_or_else(|| no_such_container(doing, name))?;
        container.peers.push(peer.id.clone());
    }
    container.published.clone_from(&replica.publish);
    for volume in &container.own_anonymous {
        state.volumes.insert(volume.clone(), ObservedVolume::default());
    }
    let id = container.id.clone();
    state.containers.insert(id.clone(), container);
    Ok(Created::Made(id))
}

/// Made under another lease, and never started.
fn is_leftover(existing: &Container, replica: &CreateReplica, image: &ImageInfo) -> bool {
    same(existing, replica, image)
        && existing.state == ContainerState::Created
        && existing.labels.get(GENERATION) != replica.labels.get(GENERATION)
}

fn start(state: &mut State, name: &str, doing: &str) -> Result<(), EngineError> {
    let id = state.id_of(name).ok_or_else(|| no_such_container(doing, name))?;
    let container = state.containers[&id].clone();
    match container.state {
        ContainerState::Running | ContainerState::Restarting => return Ok(()),
        ContainerState::Paused => {
            let message = "cannot start a paused container, try unpause instead";
            return Err(error(EngineErrorKind::Conflict, doing, message));
        }
        ContainerState::Dead => return Err(error(EngineErrorKind::Conflict, doing, "it is dead")),
        ContainerState::Created | ContainerState::Exited(_) => {}
    }
    let script = state.script(&container);
    if let Some(message) = script.start_error {
        return Err(error(EngineErrorKind::Invalid, doing, message));
    }
    for peer in &container.peers {
        let runs = state.containers.get(peer).is_some_and(|p| p.state == ContainerState::Running);
        if !runs {
            let message = "cannot join the namespace of a container that does not run";
            return Err(error(EngineErrorKind::Conflict, doing, message));
        }
    }
    for port in &container.published {
        let edge =
            port.protocol == "tcp" && state.listeners.iter().any(|(_, l)| l.port == port.host_port);
        let other = state.containers.values().any(|other| {
            other.id != id
                && other.state == ContainerState::Running
                && other
                    .published
                    .iter()
                    .any(|p| p.host_port == port.host_port && p.protocol == port.protocol)
        });
        if edge || other {
            let message = format!("port {} is already allocated", port.host_port);
            return Err(error(EngineErrorKind::PortTaken, doing, message));
        }
    }
    for other in state.containers.values().filter(|other| other.id != id) {
        let both = other.writes.intersection(&container.writes).next();
        if let Some(volume) = both
            && other.state == ContainerState::Running
            && other.project() == container.project()
            && (other.service(), other.number()) == (container.service(), container.number())
        {
            let text = format!("{} and {} both write to {volume}", container.name, other.name);
            state.violations.push(text);
            break;
        }
    }
    state.attach(&id);
    state.follow(&id);
    let what = (container.service().to_owned(), container.image_reference.clone());
    *state.starts.entry(what).or_default() += 1;
    let now = state.now_ms();
    let container = state.containers.get_mut(&id).expect("just found");
    container.state = ContainerState::Running;
    container.started_ms = Some(now);
    container.restarts = 0;
    container.looks = 0;
    container.looks_once_routed = 0;
    container.was_routed = false;
    container.undrained = false;
    container.checks = 0;
    container.probes = 0;
    if let Some((0, code)) = script.exits {
        end(state, &id, code);
    }
    Ok(())
}

fn exit(state: &mut State, id: &str, code: i64) {
    let container = state.containers.get_mut(id).expect("the caller has it");
    container.state = ContainerState::Exited(code);
    container.undrained = false;
    state.detach(id);
}

fn stop(state: &mut State, name: &str, doing: &str) -> Result<(), EngineError> {
    let id = state.id_of(name).ok_or_else(|| no_such_container(doing, name))?;
    state.containers.get_mut(&id).expect("just found").comes_back = None;
    match state.containers[&id].state {
        ContainerState::Created | ContainerState::Exited(_) | ContainerState::Dead => {}
        ContainerState::Running | ContainerState::Paused | ContainerState::Restarting => {
            state.leaves(&id, "stopped");
            exit(state, &id, 0);
        }
    }
    Ok(())
}

/// What time brings: a look at a container is when its script goes on.
fn look(state: &mut State, id: &str) {
    let container = &state.containers[id];
    let script = state.script(container);
    if !matches!(container.state, ContainerState::Running | ContainerState::Restarting) {
        return;
    }
    if container.state == ContainerState::Restarting
        && container.networks.values().all(Option::is_none)
    {
        state.attach(id);
    }
    let container = state.containers.get_mut(id).expect("just found");
    container.looks += 1;
    if container.was_routed {
        container.looks_once_routed += 1;
    }
    let (looks, routed) = (container.looks, container.looks_once_routed);
    if looks <= script.restarts {
        container.restarts += 1;
        container.state = ContainerState::Restarting;
    } else {
        container.state = ContainerState::Running;
    }
    let exits = script.exits.filter(|(at, _)| looks >= *at);
    let exits = exits.or(script.exits_once_routed.filter(|(at, _)| routed > 0 && routed >= *at));
    if let Some((_, code)) = exits {
        end(state, id, code);
    }
}

/// A container ends by itself. One that has a policy for it is restarted by the engine, which never
/// calls it ended in between.
fn end(state: &mut State, id: &str, code: i64) {
    let policy = state.containers[id].facts.get("restart");
    let again = match policy.and_then(|policy| policy.as_str()) {
        Some("always" | "unless-stopped") => true,
        Some("on-failure") => code != 0,
        _ => false,
    };
    exit(state, id, code);
    if again {
        let container = state.containers.get_mut(id).expect("the caller has it");
        container.state = ContainerState::Restarting;
        container.restarts += 1;
        container.looks = 0;
        container.looks_once_routed = 0;
    }
}

fn rename(state: &mut State, from: &str, to: &str, doing: &str) -> Result<(), EngineError> {
    match (state.id_of(from), state.id_of(to)) {
        (None, None) => Err(no_such_container(doing, from)),
        (None, Some(_)) => Ok(()),
        (Some(from), Some(to)) if from == to => Ok(()),
        (Some(_), Some(_)) => {
            let message = format!("another container has the name {to}");
            Err(error(EngineErrorKind::Conflict, doing, message))
        }
        (Some(id), None) => {
            let container = state.containers.get_mut(&id).expect("just found");
            to.clone_into(&mut container.name);
            Ok(())
        }
    }
}

fn remove(state: &mut State, name: &str, anonymous_volumes: AnonymousVolumes) {
    let Some(id) = state.id_of(name) else { return };
    state.leaves(&id, "removed");
    let container = state.containers.remove(&id).expect("just found");
    for volume in &container.own_anonymous {
        let used = state.containers.values().any(|other| other.volumes.contains(volume));
        if anonymous_volumes == AnonymousVolumes::Remove && !used {
            state.volumes.remove(volume);
        }
    }
}

#[async_trait]
impl Engine for FakeEngine {
    async fn info(&self) -> Result<EngineInfo, EngineError> {
        self.call("info".to_owned(), |_, _| {
            Ok(EngineInfo {
                version: "20.10.24".to_owned(),
                api_version: "1.41".to_owned(),
                host_name: "fake".to_owned(),
                id: "fake".to_owned(),
                data_root: "/var/lib/docker".to_owned(),
            })
        })
        .await
    }

    async fn observe(
        &self,
        project: &str,
        compose: Option<&Project>,
    ) -> Result<Observed, EngineError> {
        self.call(format!("observe {project}"), |state, _| Ok(state.observed(project, compose)))
            .await
    }

    fn facts(&self, _: &Desired, service: &ServiceSpec) -> Fields {
        fake_facts(service)
    }

    async fn image(&self, reference: &str) -> Result<Option<ImageInfo>, EngineError> {
        self.call(format!("image {reference}"), |state, _| Ok(state.image(reference).cloned()))
            .await
    }

    async fn images(&self) -> Result<Vec<ImageInfo>, EngineError> {
        self.call("images".to_owned(), |state, _| Ok(state.images.values().cloned().collect()))
            .await
    }

    async fn images_in_use(&self) -> Result<Vec<String>, EngineError> {
        self.call("images_in_use".to_owned(), |state, _| {
            Ok(state.containers.values().map(|c| c.image_id.clone()).collect())
        })
        .await
    }

    async fn registry_digest(&self, reference: &str) -> Result<RegistryAnswer, EngineError> {
        self.call(format!("registry_digest {reference}"), |state, _| {
            Ok(match state.registry.get(reference) {
                Some(digest) => RegistryAnswer::Digest(digest.clone()),
                None => RegistryAnswer::Missing("manifest unknown".to_owned()),
            })
        })
        .await
    }

    async fn pull(
        &self,
        reference: &str,
        _: Option<&str>,
        progress: ProgressSink,
    ) -> Result<ImageInfo, EngineError> {
        progress(Progress::Bytes { done_bytes: 1, total_bytes: 2 });
        self.call(format!("pull {reference}"), |state, doing| {
            let found = state.registry.iter().find(|(tag, digest)| {
                *tag == reference || reference.ends_with(&format!("@{digest}"))
            });
            let Some((tag, digest)) = found.map(|(t, d)| (t.clone(), d.clone())) else {
                return Err(error(EngineErrorKind::NotFound, doing, "manifest unknown"));
            };
            let repository = tag.rsplit_once(':').map_or(tag.as_str(), |(name, _)| name);
            let made =
                ImageInfo { id: crate::image_id(&tag), size_bytes: 1, ..ImageInfo::default() };
            let image = state.images.entry(made.id.clone()).or_insert(made);
            let known = format!("{repository}@{digest}");
            if !image.repo_digests.contains(&known) {
                image.repo_digests.push(known);
            }
            Ok(image.clone())
        })
        .await
    }

    async fn tag(&self, image_id: &str, reference: &str) -> Result<(), EngineError> {
        self.call(format!("tag {image_id} {reference}"), |state, doing| {
            for image in state.images.values_mut() {
                image.tags.retain(|tag| tag != reference);
            }
            let image = state.images.get_mut(image_id);
            let image = image.ok_or_else(|| error(EngineErrorKind::NotFound, doing, "no image"))?;
            image.tags.push(reference.to_owned());
            Ok(())
        })
        .await
    }

    async fn build(
        &self,
        request: &BuildRequest,
        progress: ProgressSink,
    ) -> Result<ImageInfo, EngineError> {
        progress(Progress::Line("step 1".to_owned()));
        let tag = request.tag.clone();
        self.call(format!("build {tag}"), |state, _| {
            let id = format!("sha256:built-{}", state.next());
            for image in state.images.values_mut() {
                image.tags.retain(|known| *known != tag);
            }
            let image = ImageInfo { id: id.clone(), tags: vec![tag], ..ImageInfo::default() };
            state.images.insert(id, image.clone());
            Ok(image)
        })
        .await
    }

    async fn remove_image(&self, reference: &str) -> Result<(), EngineError> {
        self.call(format!("remove_image {reference}"), |state, doing| {
            let Some(image) = state.image(reference).cloned() else { return Ok(()) };
            if image.tags.iter().any(|tag| tag == reference) && image.tags.len() > 1 {
                let image = state.images.get_mut(&image.id).expect("just found");
                image.tags.retain(|tag| tag != reference);
                return Ok(());
            }
            if state.containers.values().any(|c| c.image_id == image.id) {
                return Err(error(EngineErrorKind::Conflict, doing, "a container uses it"));
            }
            state.images.remove(&image.id);
            Ok(())
        })
        .await
    }

    async fn create(
        &self,
        desired: &Desired,
        replica: &CreateReplica,
    ) -> Result<Created, EngineError> {
        self.call(format!("create {}", replica.name), |state, doing| {
            create(state, desired, replica, doing)
        })
        .await
    }

    async fn start(&self, container: &str) -> Result<(), EngineError> {
        self.call(self.words("start", container), |state, doing| start(state, container, doing))
            .await
    }

    async fn stop(&self, container: &str, _: Option<Duration>) -> Result<(), EngineError> {
        self.call(self.words("stop", container), |state, doing| stop(state, container, doing)).await
    }

    async fn restart(&self, container: &str, _: Option<Duration>) -> Result<(), EngineError> {
        self.call(self.words("restart", container), |state, doing| {
            stop(state, container, doing)?;
            start(state, container, doing)
        })
        .await
    }

    async fn pause(&self, container: &str) -> Result<(), EngineError> {
        self.call(self.words("pause", container), |state, doing| {
            let id = state.id_of(container).ok_or_else(|| no_such_container(doing, container))?;
            match state.containers[&id].state {
                ContainerState::Paused => Ok(()),
                ContainerState::Running => {
                    state.leaves(&id, "froze");
                    let container = state.containers.get_mut(&id).expect("just found");
                    container.state = ContainerState::Paused;
                    Ok(())
                }
                ContainerState::Created
                | ContainerState::Restarting
                | ContainerState::Exited(_)
                | ContainerState::Dead => {
                    Err(error(EngineErrorKind::Conflict, doing, "it does not run"))
                }
            }
        })
        .await
    }

    async fn unpause(&self, container: &str) -> Result<(), EngineError> {
        self.call(self.words("unpause", container), |state, doing| {
            let id = state.id_of(container).ok_or_else(|| no_such_container(doing, container))?;
            let container = state.containers.get_mut(&id).expect("just found");
            match container.state {
                ContainerState::Running => Ok(()),
                ContainerState::Paused => {
                    container.state = ContainerState::Running;
                    Ok(())
                }
                ContainerState::Created
                | ContainerState::Restarting
                | ContainerState::Exited(_)
                | ContainerState::Dead => {
                    Err(error(EngineErrorKind::Conflict, doing, "it is not paused"))
                }
            }
        })
        .await
    }

    async fn rename(&self, container: &str, name: &str) -> Result<(), EngineError> {
        self.call(format!("{} {name}", self.words("rename", container)), |state, doing| {
            rename(state, container, name, doing)
        })
        .await
    }

    async fn set_restart(&self, container: &str, policy: &str) -> Result<(), EngineError> {
        self.call(format!("{} {policy}", self.words("set_restart", container)), |state, _| {
            let Some(id) = state.id_of(container) else { return Ok(()) };
            let container = state.containers.get_mut(&id).expect("just found");
            match policy {
                "no" => {
                    container.comes_back = None;
                    drop(container.facts.unset("restart"));
                }
                policy => container.facts.set("restart", policy),
            }
            Ok(())
        })
        .await
    }

    async fn remove(
        &self,
        container: &str,
        anonymous_volumes: AnonymousVolumes,
    ) -> Result<(), EngineError> {
        self.call(self.words("remove", container), |state, _| {
            remove(state, container, anonymous_volumes);
            Ok(())
        })
        .await
    }

    async fn container(&self, container: &str) -> Result<Option<ObservedContainer>, EngineError> {
        self.call(self.words("container", container), |state, _| {
            let Some(id) = state.id_of(container) else { return Ok(None) };
            look(state, &id);
            let container = &state.containers[&id];
            Ok(Some(container.observed(&state.script(container))))
        })
        .await
    }

    fn listens(&self, container: &ObservedContainer) -> Option<bool> {
        let state = self.state();
        let found = state.find(&container.id)?;
        state.script(found).listens_at.map(|at| found.looks >= at)
    }

    async fn healthcheck(
        &self,
        container: &str,
    ) -> Result<Option<(Vec<String>, Duration)>, EngineError> {
        self.call(self.words("healthcheck", container), |state, doing| {
            let found = state.find(container);
            let found = found.ok_or_else(|| no_such_container(doing, container))?;
            let check = (vec!["true".to_owned()], Duration::from_secs(30));
            Ok(found.has_healthcheck.then_some(check))
        })
        .await
    }

    async fn exec(
        &self,
        container: &str,
        _: &[String],
        _: Duration,
    ) -> Result<ExecResult, EngineError> {
        self.call(self.words("exec", container), |state, doing| {
            let id = state.id_of(container).ok_or_else(|| no_such_container(doing, container))?;
            let script = state.script(&state.containers[&id]);
            let container = state.containers.get_mut(&id).expect("just found");
            if container.state != ContainerState::Running {
                return Err(error(EngineErrorKind::Conflict, doing, "it does not run"));
            }
            container.checks = container.checks.saturating_add(1);
            let fails = container.checks <= script.failing_checks;
            let output = if fails { "no answer yet" } else { "" };
            Ok(ExecResult { exit_code: i64::from(fails), output: output.to_owned() })
        })
        .await
    }

    async fn tail(&self, container: &str, _: u32) -> Result<Vec<String>, EngineError> {
        self.call(self.words("tail", container), |state, doing| {
            let found = state.find(container);
            let found = found.ok_or_else(|| no_such_container(doing, container))?;
            Ok(state.script(found).tail)
        })
        .await
    }

    async fn create_network(&self, network: &EngineNetwork) -> Result<(), EngineError> {
        self.call(format!("create_network {}", network.name), |state, _| {
            let made = ObservedNetwork {
                id: format!("network-{}", network.name),
                project: network.labels.get(shiplap_model::COMPOSE_PROJECT).cloned(),
                ..ObservedNetwork::default()
            };
            state.networks.entry(network.name.clone()).or_insert(made);
            Ok(())
        })
        .await
    }

    async fn remove_network(&self, name: &str) -> Result<(), EngineError> {
        self.call(format!("remove_network {name}"), |state, doing| {
            let used = state
                .containers
                .values()
                .any(|c| c.state == ContainerState::Running && c.networks.contains_key(name))
                || state.holders.values().any(|h| h.running && h.spec.networks.contains_key(name));
            if used {
                let message = format!("network {name} has active endpoints");
                return Err(error(EngineErrorKind::Conflict, doing, message));
            }
            state.networks.remove(name);
            Ok(())
        })
        .await
    }

    async fn create_volume(&self, volume: &EngineVolume) -> Result<(), EngineError> {
        self.call(format!("create_volume {}", volume.name), |state, _| {
            let project = volume.labels.get(shiplap_model::COMPOSE_PROJECT).cloned();
            let made = ObservedVolume { project, driver: "local".to_owned() };
            state.volumes.entry(volume.name.clone()).or_insert(made);
            Ok(())
        })
        .await
    }

    async fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        self.call(format!("remove_volume {name}"), |state, doing| {
            if state.containers.values().any(|c| c.volumes.contains(name)) {
                return Err(error(EngineErrorKind::Conflict, doing, "volume is in use"));
            }
            state.volumes.remove(name);
            Ok(())
        })
        .await
    }

    async fn marks(&self, scope: &Scope) -> Result<Vec<Mark>, EngineError> {
        self.call(format!("marks {scope}"), |state, _| {
            Ok(state.marks.iter().filter(|mark| mark.scope == *scope).cloned().collect())
        })
        .await
    }

    async fn mark(&self, mark: &Mark) -> Result<Mark, EngineError> {
        self.call(format!("mark {} {}", mark.scope, mark.sequence), |state, _| {
            let same =
                |known: &&Mark| (&known.scope, known.sequence) == (&mark.scope, mark.sequence);
            if let Some(known) = state.marks.iter().find(same) {
                return Ok(known.clone());
            }
            state.marks.push(mark.clone());
            state.marks.sort_by_key(|mark| mark.sequence);
            Ok(mark.clone())
        })
        .await
    }

    async fn unmark(&self, scope: &Scope, sequence: u64) -> Result<(), EngineError> {
        self.call(format!("unmark {scope} {sequence}"), |state, _| {
            state.marks.retain(|known| (&known.scope, known.sequence) != (scope, sequence));
            Ok(())
        })
        .await
    }
}
