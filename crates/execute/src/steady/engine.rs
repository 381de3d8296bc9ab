//! An engine that is waited for.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use shiplap_compose::model::Project;
use shiplap_model::{
    AnonymousVolumes, BuildRequest, ContainerState, CreateReplica, Created, Desired, Engine,
    EngineError, EngineErrorKind, EngineInfo, EngineNetwork, EngineVolume, ExecResult, Fields,
    GENERATION, ImageInfo, Mark, Observed, ObservedContainer, ProgressSink, RegistryAnswer, Scope,
    ServiceSpec,
};

use super::patience::{Attempt, Effect, Patience, Peer, nothing};

pub(super) struct SteadyEngine {
    inner: Arc<dyn Engine>,
    patience: Arc<Patience>,
    ids: Ids,
}

/// Ids of the containers that this deployment means by their names.
///
/// Names move from container to container. Between the look at the lease and the call, a deployer
/// can be stopped; when it is woken up, a name may belong to what another deployer has made, and
/// stopping that by its name would be an outage. An id only ever means the container that was
/// looked at while the lease was ours.
#[derive(Default)]
struct Ids(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// By name, and by themselves: an id is known as one.
    ids: HashMap<String, String>,
    /// Of containers that this deployment has made and not started yet.
    unstarted: HashSet<String>,
}

impl Ids {
    fn with<T>(&self, of: impl FnOnce(&mut Known) -> T) -> T {
        of(&mut self.0.lock().expect("no holder panics"))
    }

    fn of(&self, container: &str) -> Option<String> {
        self.with(|known| known.ids.get(container).cloned())
    }

    fn learn(&self, name: &str, id: &str) {
        self.with(|known| {
            known.ids.insert(name.to_owned(), id.to_owned());
            known.ids.insert(id.to_owned(), id.to_owned());
        });
    }

    fn forget(&self, name: &str) {
        self.with(|known| known.ids.remove(name));
    }
}

/// What is known of a container before it is started.
enum Before {
    /// It was not there.
    Missing,
    /// It has never run: this deployment has made it, or a look has told.
    NeverRan,
    /// When it was started last.
    Ran { started_ms: Option<i64> },
}

impl SteadyEngine {
    pub(super) fn new(inner: Arc<dyn Engine>, patience: Arc<Patience>) -> Self {
        Self { inner, patience, ids: Ids::default() }
    }

    /// What to call a container by, so that it is surely the one that is meant.
    async fn id(&self, container: &str) -> Result<String, EngineError> {
        if let Some(id) = self.ids.of(container) {
            return Ok(id);
        }
        // One that is gone is asked for by its name: the answer says so.
        let found = self.container(container).await?;
        Ok(found.map_or_else(|| container.to_owned(), |found| found.id))
    }

    /// Changes one container.
    async fn act<'a>(
        &self,
        doing: String,
        container: &str,
        attempt: impl Fn() -> Attempt<'a, (), EngineError>,
    ) -> Result<(), EngineError> {
        let done = self.change(doing, attempt).await;
        if done.as_ref().is_err_and(|error| error.kind == EngineErrorKind::NotFound) {
            // Somebody removed it, and may have made another one of the name.
            self.ids.forget(container);
        }
        done
    }

    async fn look<'a, T>(
        &self,
        attempt: impl Fn() -> Attempt<'a, T, EngineError>,
    ) -> Result<T, EngineError> {
        let answer = self.patience.call("looking", Effect::Looks, attempt, nothing).await;
        self.patience.heard(Peer::Engine, &answer);
        answer
    }

    async fn change<'a, T>(
        &self,
        doing: String,
        attempt: impl Fn() -> Attempt<'a, T, EngineError>,
    ) -> Result<T, EngineError> {
        let answer = self.patience.call(&doing, Effect::Changes, attempt, nothing).await;
        self.patience.heard(Peer::Engine, &answer);
        answer
    }

    /// Labels that say under which lease something is made.
    fn generation(&self) -> Option<(String, String)> {
        let generation = self.patience.generation()?;
        Some((GENERATION.to_owned(), generation.to_string()))
    }

    /// What a container was before its start; asked for only where it may have run already, since
    /// requests may be waiting for it.
    async fn before_start(&self, container: &str) -> Result<Before, EngineError> {
        let is_new = |known: &mut Known| {
            let id = known.ids.get(container)?;
            known.unstarted.take(id)
        };
        match self.ids.with(is_new) {
            Some(_) => Ok(Before::NeverRan),
            None => Ok(match self.container(container).await? {
                None => Before::Missing,
                Some(found) if found.state == ContainerState::Created => Before::NeverRan,
                Some(found) => Before::Ran { started_ms: found.started_ms },
            }),
        }
    }

    /// Whether a container was started since.
    async fn was_started(&self, container: &str, before: &Before) -> Result<bool, EngineError> {
        let Some(now) = self.inner.container(container).await? else { return Ok(false) };
        Ok(match now.state {
            ContainerState::Running | ContainerState::Restarting | ContainerState::Paused => true,
            ContainerState::Created => false,
            ContainerState::Exited(_) | ContainerState::Dead => match before {
                Before::Missing => false,
                Before::NeverRan => true,
                Before::Ran { started_ms } => *started_ms != now.started_ms,
            },
        })
    }

    /// Takes back a container that this deployer has just made, if somebody else has the lease by
    /// now: it was stopped between its look at the lease and the call, and whoever has taken over
    /// knows nothing of it.
    ///
    /// One that has run by now is theirs. One that was found instead of made may be theirs too, and
    /// never comes here.
    async fn unless_overtaken(&self, doing: &str, name: &str, id: &str) -> Result<(), EngineError> {
        let Some(error) = self.patience.overtaken::<EngineError>(doing).await else {
            return Ok(());
        };
        let removed = match self.inner.container(id).await {
            Ok(Some(found)) if found.state == ContainerState::Created => {
                self.inner.remove(id, AnonymousVolumes::Remove).await
            }
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(why) = removed {
            self.patience
                .tell(format!("{name} was made too late, and could not be removed: {why}"));
        }
        Err(error)
    }
}

#[async_trait]
impl Engine for SteadyEngine {
    async fn info(&self) -> Result<EngineInfo, EngineError> {
        self.look(|| self.inner.info()).await
    }

    async fn observe(
        &self,
        project: &str,
        compose: Option<&Project>,
    ) -> Result<Observed, EngineError> {
        let observed = self.look(|| self.inner.observe(project, compose)).await?;
        for container in &observed.containers {
            self.ids.learn(&container.name, &container.id);
        }
        Ok(observed)
    }

    fn facts(&self, desired: &Desired, service: &ServiceSpec) -> Fields {
        self.inner.facts(desired, service)
    }

    async fn image(&self, reference: &str) -> Result<Option<ImageInfo>, EngineError> {
        self.look(|| self.inner.image(reference)).await
    }

    async fn images(&self) -> Result<Vec<ImageInfo>, EngineError> {
        self.look(|| self.inner.images()).await
    }

    async fn images_in_use(&self) -> Result<Vec<String>, EngineError> {
        self.look(|| self.inner.images_in_use()).await
    }

    async fn registry_digest(&self, reference: &str) -> Result<RegistryAnswer, EngineError> {
        self.look(|| self.inner.registry_digest(reference)).await
    }

    async fn pull(
        &self,
        reference: &str,
        platform: Option<&str>,
        progress: ProgressSink,
    ) -> Result<ImageInfo, EngineError> {
        let doing = format!("pulling {reference}");
        self.change(doing, || self.inner.pull(reference, platform, progress.clone())).await
    }

    async fn tag(&self, image_id: &str, reference: &str) -> Result<(), EngineError> {
        let doing = format!("tagging {image_id} as {reference}");
        self.change(doing, || self.inner.tag(image_id, reference)).await
    }

    async fn build(
        &self,
        request: &BuildRequest,
        progress: ProgressSink,
    ) -> Result<ImageInfo, EngineError> {
        let doing = format!("building {}", request.tag);
        let attempt = || self.inner.build(request, progress.clone());
        self.patience.call(&doing, Effect::ChangesAtLength, attempt, nothing).await
    }

    async fn remove_image(&self, reference: &str) -> Result<(), EngineError> {
        let doing = format!("removing image {reference}");
        self.change(doing, || self.inner.remove_image(reference)).await
    }

    async fn create(
        &self,
        desired: &Desired,
        replica: &CreateReplica,
    ) -> Result<Created, EngineError> {
        let mut replica = replica.clone();
        replica.labels.extend(self.generation());
        let (replica, name) = (&replica, &replica.name);
        let doing = format!("creating {name}");
        let created = self.change(doing.clone(), || self.inner.create(desired, replica)).await?;
        self.ids.learn(name, created.id());
        if let Created::Made(id) = &created {
            self.unless_overtaken(&doing, name, id).await?;
            self.ids.with(|known| known.unstarted.insert(id.clone()));
        }
        Ok(created)
    }

    async fn start(&self, container: &str) -> Result<(), EngineError> {
        let before = &self.before_start(container).await?;
        let id = self.id(container).await?;
        let id = id.as_str();
        let again = AtomicBool::new(false);
        let again = &again;
        let attempt = || -> Attempt<'_, (), EngineError> {
            Box::pin(async move {
                if again.swap(true, Ordering::Relaxed) && self.was_started(id, before).await? {
                    return Ok(());
                }
                self.inner.start(id).await
            })
        };
        self.act(format!("starting {container}"), container, attempt).await
    }

    async fn stop(&self, container: &str, grace: Option<Duration>) -> Result<(), EngineError> {
        let id = self.id(container).await?;
        let attempt = || self.inner.stop(&id, grace);
        self.act(format!("stopping {container}"), container, attempt).await
    }

    async fn restart(&self, container: &str, grace: Option<Duration>) -> Result<(), EngineError> {
        let doing = format!("restarting {container}");
        let id = self.id(container).await?;
        let attempt = || self.inner.restart(&id, grace);
        self.patience.call(&doing, Effect::ChangesAtLength, attempt, nothing).await
    }

    async fn pause(&self, container: &str) -> Result<(), EngineError> {
        let id = self.id(container).await?;
        self.act(format!("freezing {container}"), container, || self.inner.pause(&id)).await
    }

    async fn unpause(&self, container: &str) -> Result<(), EngineError> {
        let id = self.id(container).await?;
        self.act(format!("thawing {container}"), container, || self.inner.unpause(&id)).await
    }

    async fn rename(&self, container: &str, name: &str) -> Result<(), EngineError> {
        let doing = format!("renaming {container} to {name}");
        let id = self.id(container).await?;
        let renamed = self.act(doing, container, || self.inner.rename(&id, name)).await;
        if id != container {
            self.ids.forget(container);
        }
        match &renamed {
            Ok(()) if id != container => self.ids.learn(name, &id),
            Ok(()) | Err(_) => self.ids.forget(name),
        }
        renamed
    }

    async fn remove(
        &self,
        container: &str,
        anonymous_volumes: AnonymousVolumes,
    ) -> Result<(), EngineError> {
        let doing = format!("removing {container}");
        let id = self.id(container).await?;
        let attempt = || self.inner.remove(&id, anonymous_volumes);
        let removed = self.act(doing, container, attempt).await;
        self.ids.forget(container);
        removed
    }

    async fn set_restart(&self, container: &str, policy: &str) -> Result<(), EngineError> {
        let doing = format!("setting the restart policy of {container}");
        let id = self.id(container).await?;
        self.act(doing, container, || self.inner.set_restart(&id, policy)).await
    }

    async fn container(&self, container: &str) -> Result<Option<ObservedContainer>, EngineError> {
        let found = self.look(|| self.inner.container(container)).await?;
        match &found {
            Some(found) => self.ids.learn(&found.name, &found.id),
            None => self.ids.forget(container),
        }
        Ok(found)
    }

    fn listens(&self, container: &ObservedContainer) -> Option<bool> {
        self.inner.listens(container)
    }

    async fn healthcheck(
        &self,
        container: &str,
    ) -> Result<Option<(Vec<String>, Duration)>, EngineError> {
        self.look(|| self.inner.healthcheck(container)).await
    }

    async fn exec(
        &self,
        container: &str,
        command: &[String],
        limit: Duration,
    ) -> Result<ExecResult, EngineError> {
        self.inner.exec(container, command, limit).await
    }

    async fn tail(&self, container: &str, lines: u32) -> Result<Vec<String>, EngineError> {
        self.look(|| self.inner.tail(container, lines)).await
    }

    async fn create_network(&self, network: &EngineNetwork) -> Result<(), EngineError> {
        let mut network = network.clone();
        network.labels.extend(self.generation());
        let network = &network;
        let doing = format!("creating network {}", network.name);
        self.change(doing, || self.inner.create_network(network)).await
    }

    async fn remove_network(&self, name: &str) -> Result<(), EngineError> {
        let doing = format!("removing network {name}");
        self.change(doing, || self.inner.remove_network(name)).await
    }

    async fn create_volume(&self, volume: &EngineVolume) -> Result<(), EngineError> {
        let doing = format!("creating volume {}", volume.name);
        self.change(doing, || self.inner.create_volume(volume)).await
    }

    async fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        let doing = format!("removing volume {name}");
        self.change(doing, || self.inner.remove_volume(name)).await
    }

    async fn marks(&self, scope: &Scope) -> Result<Vec<Mark>, EngineError> {
        self.look(|| self.inner.marks(scope)).await
    }

    async fn mark(&self, mark: &Mark) -> Result<Mark, EngineError> {
        self.inner.mark(mark).await
    }

    async fn unmark(&self, scope: &Scope, sequence: u64) -> Result<(), EngineError> {
        self.inner.unmark(scope, sequence).await
    }
}
