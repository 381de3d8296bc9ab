//! The edge behind the [`Router`] trait.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use async_trait::async_trait;
use shiplap_edge::api;
use shiplap_edge::{Client, ClientError, Hold, Listener, Pool, Replica, Table};
use shiplap_engine::DockerEngine;
use shiplap_model::{
    AnonymousVolumes, Engine as _, HolderSpec, HolderStatus, Limit, Limits, ListenerSpec,
    ObservedListener, OpenStreams, PoolKey, PoolStatus, ProbeKind, ProbeOutcome, ProbeRequest,
    Protocol, RouteChange, RoutedReplica, Router, RouterError, RouterState,
};
use tokio::sync::OnceCell;

use super::container::EdgeContainer;
use super::holder;
use super::routes;
use crate::world::World;

/// The edge of one target.
pub struct EdgeRouter {
    docker: DockerEngine,
    client: Client,
    /// Asked once: there is a limit on calls while requests are held.
    has_ipv6: OnceCell<bool>,
    limits: Limits,
}

impl EdgeRouter {
    pub fn new(world: &World, limits: &Limits) -> Self {
        let client = world.edge().with_call_timeout(limits.edge_call);
        Self { docker: world.docker.clone(), client, has_ipv6: OnceCell::new(), limits: *limits }
    }

    /// Whether the edge's machine has IPv6, so that "all addresses" means both.
    async fn has_ipv6(&self) -> Result<bool, RouterError> {
        let ask = || async {
            if self.docker.endpoint().link().is_none() {
                return Ok(shiplap_edge::has_ipv6());
            }
            let status = self.client.status().await.map_err(router)?;
            Ok(status.has_ipv6.unwrap_or_default())
        };
        self.has_ipv6.get_or_try_init(ask).await.copied()
    }

    fn expand(owner: &str, spec: &ListenerSpec, has_ipv6: bool) -> Vec<Listener> {
        let any = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let addresses = match spec.address {
            Some(address) => vec![address],
            // A port that the edge chooses is chosen once.
            None if has_ipv6 && spec.port != 0 => any.to_vec(),
            None => vec![any[0]],
        };
        addresses
            .into_iter()
            .map(|address| Listener::new(owner, address, spec.port, &spec.pool.to_string()))
            .collect()
    }

    /// Name holders of an owner (of all where none is named), with their containers' ids.
    async fn holders(
        &self,
        owner: Option<&str>,
    ) -> Result<Vec<(String, HolderStatus)>, RouterError> {
        holder::list(&self.docker, owner).await
    }

    fn change(
        &self,
        owner: &str,
        change: &RouteChange,
        ids: &[(String, String)],
        has_ipv6: bool,
        table: &mut Table,
    ) {
        if let Some(lease) = change.lease {
            table.leases.insert(owner.to_owned(), lease);
        }
        for name in &change.names {
            let Some((_, id)) = ids.iter().find(|(holder, _)| *holder == name.holder) else {
                continue;
            };
            let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
            let listener = Listener {
                namespace: Some(id.clone()),
                ..Listener::new(owner, any, name.pool.port, &name.pool.to_string())
            };
            let taken = table
                .listeners
                .iter()
                .any(|known| known.namespace == listener.namespace && known.port == listener.port);
            if !taken {
                table.listeners.push(listener);
            }
        }
        // A holder that was made anew is another container: what was opened in the old one is
        // gone with it.
        table.listeners.retain(|listener| match &listener.namespace {
            Some(id) if listener.owner == owner && !ids.is_empty() => {
                ids.iter().any(|(_, known)| known == id)
            }
            _ => true,
        });
        for spec in &change.pools {
            table.pools.insert(spec.key.to_string(), pool(owner, spec, self.limits.hold));
        }
        for listener in change.listeners.iter().flat_map(|spec| Self::expand(owner, spec, has_ipv6))
        {
            let there = table.listeners.iter_mut().find(|known| {
                known.namespace.is_none()
                    && known.owner == listener.owner
                    && known.address == listener.address
                    && (known.port == listener.port
                        || (listener.port == 0 && known.pool == listener.pool))
            });
            match there {
                Some(known) => known.pool = listener.pool,
                None => table
                    .listeners
                    .push(Listener { policy: routes::guard(&change.guard), ..listener }),
            }
        }
        let dropped: Vec<Listener> =
            change.drop_listeners.iter().flat_map(|s| Self::expand(owner, s, has_ipv6)).collect();
        let dropped_pools: Vec<String> = change.drop_pools.iter().map(PoolKey::to_string).collect();
        table.listeners.retain(|listener| {
            let named = dropped.iter().any(|gone| {
                gone.owner == listener.owner
                    && gone.address == listener.address
                    && gone.port == listener.port
            });
            let led_there = listener.pool.as_ref().is_some_and(|pool| dropped_pools.contains(pool));
            !named && !led_there
        });
        routes::change(owner, change, has_ipv6, table);
        table.pools.retain(|name, pool| !(pool.owner == owner && dropped_pools.contains(name)));
    }
}

fn pool(owner: &str, spec: &shiplap_model::PoolSpec, hold: Duration) -> Pool {
    let max_wait_ms = u64::try_from(hold.as_millis()).unwrap_or(u64::MAX);
    let protocol = match spec.protocol {
        Protocol::Http => shiplap_edge::Protocol::Http,
        Protocol::Http2 => shiplap_edge::Protocol::H2c,
        Protocol::Tcp => shiplap_edge::Protocol::Tcp,
    };
    let replicas = spec.replicas.iter().map(|replica| Replica {
        network: replica.subnet.clone(),
        ..Replica::new(&replica.container_id, replica.address, spec.key.port)
    });
    Pool {
        paused: spec.held,
        hold: Hold { max_wait_ms, ..Hold::default() },
        replicas: replicas.collect(),
        ..Pool::new(owner, &spec.key.service, protocol)
    }
}

#[async_trait]
impl Router for EdgeRouter {
    async fn ensure(&self) -> Result<(), RouterError> {
        EdgeContainer::new(&self.docker, &self.client).ensure().await
    }

    async fn state(&self, owner: &str) -> Result<Option<RouterState>, RouterError> {
        let asked =
            tokio::join!(self.client.status(), self.client.table(), self.holders(Some(owner)));
        let (status, table, holders) = match asked {
            // Where the way there is broken it is not known whether one runs.
            (Err(ClientError::Unreachable { source, .. }), _, holders)
                if !matches!(
                    source.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::NotConnected
                ) =>
            {
                // Holders are there whether or not somebody listens in them.
                let holders: Vec<_> = holders?.into_iter().map(|(_, holder)| holder).collect();
                let state = RouterState { holders, ..RouterState::default() };
                return Ok((!state.holders.is_empty()).then_some(state));
            }
            (status, table, holders) => (status.map_err(router)?, table.map_err(router)?, holders?),
        };
        let mut state = state(owner, &status, &table);
        for (id, mut holder) in holders {
            let inside = table.listeners.iter().filter(|l| l.namespace.as_ref() == Some(&id));
            holder.pools = inside.filter_map(|l| PoolKey::parse(l.pool.as_deref()?)).collect();
            state.holders.push(holder);
        }
        Ok(Some(state))
    }

    async fn ensure_holder(&self, holder: &HolderSpec) -> Result<(), RouterError> {
        holder::ensure(&self.docker, holder).await
    }

    async fn remove_holder(&self, name: &str) -> Result<(), RouterError> {
        Ok(self.docker.remove(name, AnonymousVolumes::Remove).await?)
    }

    async fn listening_ports(&self, container_id: &str) -> Result<Vec<u16>, RouterError> {
        let found = self.client.ports(container_id).await.map_err(router)?;
        let mut ports: Vec<u16> = found
            .ports
            .into_iter()
            .filter(|port| !port.address.to_canonical().is_loopback())
            .map(|port| port.port)
            .collect();
        ports.sort_unstable();
        ports.dedup();
        Ok(ports)
    }

    async fn apply(&self, owner: &str, change: &RouteChange) -> Result<u64, RouterError> {
        let ids: Vec<(String, String)> = if change.names.is_empty() {
            Vec::new()
        } else {
            let holders = self.holders(Some(owner)).await?;
            holders.into_iter().map(|(id, holder)| (holder.spec.name, id)).collect()
        };
        let has_ipv6 = self.has_ipv6().await?;
        let update = |table: &mut Table| self.change(owner, change, &ids, has_ipv6, table);
        Ok(self.client.update_table(update).await.map_err(router)?.generation)
    }

    async fn probe(&self, request: &ProbeRequest) -> Result<ProbeOutcome, RouterError> {
        let probe = api::ProbeRequest {
            address: request.address,
            port: request.port,
            kind: match request.kind {
                ProbeKind::Auto => api::ProbeKind::Auto,
                ProbeKind::Http => api::ProbeKind::Http,
                ProbeKind::Http2 => api::ProbeKind::H2c,
                ProbeKind::Tcp => api::ProbeKind::Tcp,
            },
            path: request.path.clone(),
            timeout_ms: u64::try_from(request.timeout.as_millis()).unwrap_or(u64::MAX),
        };
        let seen = self.client.probe(&probe).await.map_err(router)?;
        let answered = seen.connected && seen.error.is_none();
        let protocol = match (seen.is_http, seen.is_http2) {
            (true, _) => Protocol::Http,
            (false, true) => Protocol::Http2,
            (false, false) => Protocol::Tcp,
        };
        Ok(ProbeOutcome {
            answered,
            http_status: seen.http_status,
            protocol: answered.then_some(protocol),
            error: seen.error.map(|error| match error {
                api::ProbeError::Refused => "refused".to_owned(),
                api::ProbeError::Timeout => "no answer in time".to_owned(),
                api::ProbeError::Unreachable => "unreachable".to_owned(),
                api::ProbeError::Reset => "reset".to_owned(),
                api::ProbeError::Closed => "closed without an answer".to_owned(),
                api::ProbeError::NotHttp => "does not speak HTTP".to_owned(),
                api::ProbeError::Local => "the edge could not ask".to_owned(),
            }),
        })
    }

    async fn drain(
        &self,
        pool: &PoolKey,
        container_ids: &[String],
        streams: OpenStreams,
        limit: Duration,
    ) -> Result<u64, RouterError> {
        let pool = pool.to_string();
        match streams {
            OpenStreams::End => {
                let end = self.client.drain(&pool, container_ids, limit).await.map_err(router)?;
                Ok(end.in_flight + end.streams)
            }
            OpenStreams::Stay => {
                let end = self.client.settle(&pool, container_ids, limit).await.map_err(router)?;
                Ok(end.in_flight)
            }
        }
    }
}

fn state(owner: &str, status: &api::Status, table: &Table) -> RouterState {
    let mut state = RouterState {
        version: status.version.clone(),
        generation: table.generation,
        lease: table.leases.get(owner).copied().unwrap_or(0),
        ..RouterState::default()
    };
    for (name, pool) in table.pools.iter().filter(|(_, pool)| pool.owner == owner) {
        let Some(key) = PoolKey::parse(name) else { continue };
        let live = status.pools.get(name);
        let replicas = pool
            .replicas
            .iter()
            .map(|replica| {
                let seen = live.and_then(|l| l.replicas.iter().find(|r| r.id == replica.id));
                let routed = RoutedReplica {
                    container_id: replica.id.clone(),
                    address: seen.map_or(replica.address, |seen| seen.address),
                    subnet: replica.network.clone(),
                };
                (routed, seen.map_or(0, |s| s.in_flight), seen.map_or(0, |s| s.streams))
            })
            .collect();
        let protocol = match pool.protocol {
            shiplap_edge::Protocol::Http => Protocol::Http,
            shiplap_edge::Protocol::H2c => Protocol::Http2,
            shiplap_edge::Protocol::Tcp => Protocol::Tcp,
        };
        let waiting = live.map_or(0, |live| live.held);
        state.pools.insert(key, PoolStatus { protocol, held: pool.paused, replicas, waiting });
    }
    for listener in table.listeners.iter().filter(|listener| listener.namespace.is_none()) {
        if listener.owner != owner {
            let foreign = (listener.address, listener.port, listener.owner.clone());
            state.foreign_listeners.push(foreign);
        } else if let Some(pool) = listener.pool.as_deref().and_then(PoolKey::parse) {
            let (address, port) = (listener.address, listener.port);
            state.listeners.push(ObservedListener { address, port, pool });
        }
    }
    routes::read(owner, table, &mut state);
    state
}

pub fn router(error: ClientError) -> RouterError {
    match error {
        ClientError::Unbindable(listeners) => {
            let first = listeners.into_iter().next();
            RouterError::PortTaken {
                port: first.as_ref().map_or(0, |one| one.listener.port),
                reason: first.map_or_else(String::new, |one| one.reason.to_string()),
            }
        }
        // Whoever leads there says it better than the path of a socket here.
        ClientError::Unreachable { source, .. } if source.get_ref().is_some() => {
            match source.kind() {
                io::ErrorKind::PermissionDenied => RouterError::Refused(source.to_string()),
                _ => RouterError::Unreachable(source.to_string()),
            }
        }
        // It runs, and will not let us in however long we wait.
        ClientError::Unreachable { socket, source }
            if source.kind() == io::ErrorKind::PermissionDenied =>
        {
            let socket = socket.display();
            let help = "use sudo, or join the group that may use the engine";
            RouterError::Refused(format!("{socket}: {source}; {help}"))
        }
        ClientError::Unreachable { socket, source } => {
            RouterError::Unreachable(format!("{}: {source}", socket.display()))
        }
        // The table is read again before it is written again.
        ClientError::Timeout { after } => {
            let more = Limit::EdgeCall.raise(after);
            RouterError::Unreachable(format!("no answer within {} s ({more})", after.as_secs()))
        }
        ClientError::Broken(error) => RouterError::Unreachable(error.to_string()),
        // It is being replaced: its successor answers in a moment.
        ClientError::Refused { status: 503, message } => RouterError::Unreachable(message),
        ClientError::Overtaken { message, .. } => RouterError::LeaseLost(message),
        other @ (ClientError::Conflict { .. }
        | ClientError::Refused { .. }
        | ClientError::Malformed(_)) => RouterError::Refused(other.to_string()),
    }
}
