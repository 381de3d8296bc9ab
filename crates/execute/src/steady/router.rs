//! An edge that is waited for, and started.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use shiplap_model::{
    HolderSpec, OpenStreams, PoolKey, ProbeOutcome, ProbeRequest, RouteChange, Router, RouterError,
    RouterState,
};

use super::patience::{Attempt, Effect, Patience, Peer, nothing};

pub(super) struct SteadyRouter {
    inner: Arc<dyn Router>,
    patience: Arc<Patience>,
    done: Mutex<Done>,
}

/// What this deployment has changed in the edge's table.
#[derive(Default)]
struct Done {
    owner: String,
    all: RouteChange,
    /// The generation of the table that holds it.
    generation: u64,
}

impl SteadyRouter {
    pub(super) fn new(inner: Arc<dyn Router>, patience: Arc<Patience>) -> Self {
        Self { inner, patience, done: Mutex::default() }
    }

    async fn look<'a, T>(
        &'a self,
        attempt: impl Fn() -> Attempt<'a, T, RouterError>,
    ) -> Result<T, RouterError> {
        self.call("looking", Effect::Looks, attempt).await
    }

    async fn call<'a, T>(
        &'a self,
        doing: &str,
        effect: Effect,
        attempt: impl Fn() -> Attempt<'a, T, RouterError>,
    ) -> Result<T, RouterError> {
        let answer = self.patience.call(doing, effect, attempt, || self.revive()).await;
        self.patience.heard(Peer::Edge, &answer);
        answer
    }

    /// Starts an edge that is away.
    fn revive(&self) -> Attempt<'_, (), RouterError> {
        Box::pin(async {
            self.patience.check::<RouterError>("starting the edge").await?;
            self.inner.ensure().await?;
            self.restore().await
        })
    }

    /// An edge that came back with a table from before our changes (the newest one on its disk
    /// could not be read) is told them again: nothing that they rest on may be missing when old
    /// replicas stop.
    async fn restore(&self) -> Result<(), RouterError> {
        let (owner, all, generation) = {
            let done = self.done.lock().expect("no holder panics");
            (done.owner.clone(), done.all.clone(), done.generation)
        };
        if generation == 0 {
            return Ok(());
        }
        let state = self.inner.state(&owner).await?;
        if state.is_none_or(|state| state.version.is_empty() || state.generation >= generation) {
            return Ok(());
        }
        let lease = self.patience.generation();
        let generation = self.inner.apply(&owner, &RouteChange { lease, ..all }).await?;
        self.done.lock().expect("no holder panics").generation = generation;
        Ok(())
    }
}

#[async_trait]
impl Router for SteadyRouter {
    async fn ensure(&self) -> Result<(), RouterError> {
        let attempt = || self.inner.ensure();
        self.patience.call("starting the edge", Effect::Changes, attempt, nothing).await
    }

    async fn ensure_holder(&self, holder: &HolderSpec) -> Result<(), RouterError> {
        let doing = format!("making {}", holder.name);
        self.call(&doing, Effect::Changes, || self.inner.ensure_holder(holder)).await
    }

    async fn remove_holder(&self, name: &str) -> Result<(), RouterError> {
        let doing = format!("removing {name}");
        self.call(&doing, Effect::Changes, || self.inner.remove_holder(name)).await
    }

    async fn listening_ports(&self, container_id: &str) -> Result<Vec<u16>, RouterError> {
        self.look(|| self.inner.listening_ports(container_id)).await
    }

    async fn state(&self, owner: &str) -> Result<Option<RouterState>, RouterError> {
        // Before a deployment nobody may have needed an edge: it is not started for a look.
        self.patience.call("looking", Effect::Looks, || self.inner.state(owner), nothing).await
    }

    async fn apply(&self, owner: &str, change: &RouteChange) -> Result<u64, RouterError> {
        let change = &RouteChange { lease: self.patience.generation(), ..change.clone() };
        let generation = self
            .call("changing routes", Effect::Changes, || self.inner.apply(owner, change))
            .await?;
        let went_back = {
            let mut done = self.done.lock().expect("no holder panics");
            owner.clone_into(&mut done.owner);
            add(&mut done.all, change);
            let went_back = generation < done.generation;
            if !went_back {
                done.generation = generation;
            }
            went_back
        };
        if went_back {
            self.restore().await?;
        }
        Ok(generation)
    }

    async fn probe(&self, request: &ProbeRequest) -> Result<ProbeOutcome, RouterError> {
        self.look(|| self.inner.probe(request)).await
    }

    async fn drain(
        &self,
        pool: &PoolKey,
        container_ids: &[String],
        streams: OpenStreams,
        limit: Duration,
    ) -> Result<u64, RouterError> {
        let attempt = || -> Attempt<'_, u64, RouterError> {
            Box::pin(async move {
                self.restore().await?;
                self.inner.drain(pool, container_ids, streams, limit).await
            })
        };
        self.call("draining", Effect::Looks, attempt).await
    }
}

/// Adds a change to those before: what it names replaces what they said of it.
fn add(all: &mut RouteChange, change: &RouteChange) {
    for pool in &change.pools {
        all.pools.retain(|known| known.key != pool.key);
        all.drop_pools.retain(|key| *key != pool.key);
        all.pools.push(pool.clone());
    }
    for listener in &change.listeners {
        let same = |known: &shiplap_model::ListenerSpec| {
            (known.address, known.port) == (listener.address, listener.port)
                && (listener.port != 0 || known.pool == listener.pool)
        };
        all.listeners.retain(|known| !same(known));
        all.drop_listeners.retain(|known| !same(known));
        all.listeners.push(listener.clone());
    }
    for name in &change.names {
        if !all.names.contains(name) {
            all.names.push(name.clone());
        }
    }
    for entry in &change.entries {
        if !all.entries.iter().any(|known| known.name == entry.name) {
            all.entries.push(entry.clone());
        }
    }
    all.guard.clone_from(&change.guard);
    if let Some(table) = &change.table {
        all.table = Some(table.clone());
    }
    for key in &change.drop_pools {
        all.pools.retain(|known| known.key != *key);
        all.listeners.retain(|known| known.pool != *key);
        all.names.retain(|known| known.pool != *key);
        if !all.drop_pools.contains(key) {
            all.drop_pools.push(key.clone());
        }
    }
    for listener in &change.drop_listeners {
        all.listeners
            .retain(|known| (known.address, known.port) != (listener.address, listener.port));
        if !all.drop_listeners.contains(listener) {
            all.drop_listeners.push(listener.clone());
        }
    }
}
