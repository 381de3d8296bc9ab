//! Where requests go: the table in force, as pointers.
//!
//! One pointer holds everything, so a swap moves all pools at once. A request *claims* its replica
//! by counting itself in and then looking whether the pointer is still the same: when a drain sees
//! 0 after a swap, no request is on its way.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, Semaphore};

use super::Core;
use super::upstream::Idle;
use crate::api::ReplicaStatus;
use crate::channel::{Seen, Sighting};
use crate::log::event;
use crate::table::{self, Hold, Protocol, Subnet};

/// New connections to one replica that it has not answered on yet: after a hold, thousands at once
/// would overflow its accept queue, and each one dropped there waits a second.
const MAX_CONNECTING: usize = 64;

thread_local! {
    static SHARD: Cell<usize> = const { Cell::new(0) };
}

/// Says that this thread is that shard.
pub(super) fn enter_shard(number: usize) {
    SHARD.set(number);
}

/// The table in force.
#[derive(Default)]
pub(super) struct Routing {
    pub generation: u64,
    pub pools: BTreeMap<String, Arc<Pool>>,
    /// By the number of the live listener.
    pub by_listener: HashMap<u64, Arc<Pool>>,
}

pub(super) struct Pool {
    pub protocol: Protocol,
    pub paused: bool,
    pub hold: Hold,
    pub replicas: Vec<Arc<Replica>>,
    pub shared: Arc<PoolShared>,
}

/// What outlives a table, by the pool's name.
#[derive(Default)]
pub(super) struct PoolShared {
    /// Told at every swap, and when a replica can be reached again.
    pub changed: Notify,
    pub held: AtomicU64,
    pub rejected: AtomicU64,
    turn: AtomicUsize,
}

/// One replica of one pool. Lives until nothing is open to it.
pub(super) struct Replica {
    pub id: String,
    network: Option<Subnet>,
    address: ArcSwap<SocketAddr>,
    /// Its container runs.
    present: AtomicBool,
    /// Connecting has failed and is being tried again, by one task.
    suspect: AtomicBool,
    routed: AtomicBool,
    in_flight: AtomicU64,
    streams: AtomicU64,
    total: AtomicU64,
    last_error: Mutex<Option<String>>,
    /// Changes when connections made before must not be used again.
    epoch: AtomicU64,
    idle: Vec<Mutex<Vec<Idle>>>,
    pub connecting: Arc<Semaphore>,
    pub drained: Notify,
    pub shared: Arc<PoolShared>,
}

/// What a listener leads to at the moment.
pub(super) enum Route {
    /// To this replica.
    To(Claim),
    /// Nowhere yet.
    Hold(Arc<Pool>),
    /// Nowhere: the listener has left the table.
    Nowhere,
}

impl Core {
    /// Claims a replica for a request that came in at this listener.
    pub(super) fn route(&self, listener: u64) -> Route {
        loop {
            let routing = self.routing.load();
            let Some(pool) = routing.by_listener.get(&listener) else { return Route::Nowhere };
            let Some(replica) = pool.choose() else { return Route::Hold(pool.clone()) };
            let claim = Claim::new(replica.clone());
            // Pairs with the swap followed by a look at the counter: one of the two sees the other.
            fence(Ordering::SeqCst);
            if Arc::ptr_eq(&routing, &self.routing.load()) {
                replica.total.fetch_add(1, Ordering::Relaxed);
                return Route::To(claim);
            }
        }
    }

    /// A container has come, gone or moved.
    pub(super) fn sighted(&self, sighting: &Sighting) {
        let routing = self.routing.load();
        for pool in routing.pools.values() {
            for replica in pool.replicas.iter().filter(|one| one.id == sighting.container) {
                replica.sighted(&sighting.seen);
            }
        }
    }
}

impl Pool {
    /// The least busy replica that can be reached; they take turns when equal.
    fn choose(&self) -> Option<&Arc<Replica>> {
        if self.paused {
            return None;
        }
        if let [only] = self.replicas.as_slice() {
            return only.is_up().then_some(only);
        }
        let turn = self.shared.turn.fetch_add(1, Ordering::Relaxed);
        let count = self.replicas.len().max(1);
        let (before, after) = self.replicas.split_at(turn % count);
        let up = after.iter().chain(before).filter(|replica| replica.is_up());
        up.min_by_key(|replica| replica.open())
    }
}

impl Replica {
    pub(super) fn new(replica: &table::Replica, shared: Arc<PoolShared>, shards: usize) -> Replica {
        let address = SocketAddr::new(replica.address, replica.port);
        Replica {
            id: replica.id.clone(),
            network: replica.network.as_deref().and_then(Subnet::parse),
            address: ArcSwap::from_pointee(address),
            present: AtomicBool::new(true),
            suspect: AtomicBool::new(false),
            routed: AtomicBool::new(true),
            in_flight: AtomicU64::new(0),
            streams: AtomicU64::new(0),
            total: AtomicU64::new(0),
            last_error: Mutex::default(),
            epoch: AtomicU64::new(0),
            idle: (0..shards).map(|_| Mutex::default()).collect(),
            connecting: Arc::new(Semaphore::new(MAX_CONNECTING)),
            drained: Notify::new(),
            shared,
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        **self.address.load()
    }

    pub(super) fn is_up(&self) -> bool {
        self.present.load(Ordering::Acquire) && !self.suspect.load(Ordering::Acquire)
    }

    pub(super) fn is_present(&self) -> bool {
        self.present.load(Ordering::Acquire)
    }

    pub(super) fn is_routed(&self) -> bool {
        self.routed.load(Ordering::Acquire)
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::SeqCst)
    }

    pub(super) fn streams(&self) -> u64 {
        self.streams.load(Ordering::SeqCst)
    }

    /// Requests and streams together.
    pub(super) fn open(&self) -> u64 {
        self.in_flight() + self.streams()
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// This thread's idle connections.
    pub(super) fn idle(&self) -> &Mutex<Vec<Idle>> {
        &self.idle[SHARD.get() % self.idle.len()]
    }

    /// Forgets every idle connection, and those in use as soon as they would become idle.
    pub(super) fn close_idle(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        for idle in &self.idle {
            idle.lock().expect("no panic while held").clear();
        }
    }

    /// Forgets idle connections that were closed, or have not been used for long.
    pub(super) fn tidy(&self) {
        for idle in &self.idle {
            idle.lock().expect("no panic while held").retain(Idle::is_usable);
        }
    }

    pub(super) fn set_routed(&self, routed: bool) {
        self.routed.store(routed, Ordering::Release);
        if !routed {
            self.close_idle();
        }
    }

    /// Marks it as not to be reached; true if it was not marked before.
    pub(super) fn mark_suspect(&self, error: &str) -> bool {
        self.failed(error);
        !self.suspect.swap(true, Ordering::AcqRel)
    }

    pub(super) fn clear_suspect(&self) {
        self.suspect.store(false, Ordering::Release);
        self.shared.changed.notify_waiters();
    }

    pub(super) fn failed(&self, error: &str) {
        *self.last_error.lock().expect("no panic while held") = Some(error.to_owned());
    }

    /// The deployer says where it is.
    pub(super) fn set_address(&self, address: SocketAddr) {
        if self.address() != address {
            self.address.store(Arc::new(address));
            self.close_idle();
        }
    }

    /// The supervisor says where it is.
    pub(super) fn sighted(&self, seen: &Seen) {
        match seen {
            Seen::Unknown => self.present.store(true, Ordering::Release),
            Seen::Absent => {
                if self.present.swap(false, Ordering::AcqRel) {
                    event("worker", "replica-gone", &[("id", &self.id)]);
                }
                self.close_idle();
                return;
            }
            Seen::Running { addresses } => {
                let current = self.address();
                let ip = settle(current.ip(), self.network, addresses);
                if ip != current.ip() {
                    let fields: [(&str, &dyn std::fmt::Display); 3] =
                        [("id", &self.id), ("from", &current.ip()), ("to", &ip)];
                    event("worker", "replica-moved", &fields);
                    self.set_address(SocketAddr::new(ip, current.port()));
                }
                if !self.present.swap(true, Ordering::AcqRel) {
                    event("worker", "replica-back", &[("id", &self.id), ("address", &ip)]);
                }
            }
        }
        self.shared.changed.notify_waiters();
    }

    pub(super) fn status(&self) -> ReplicaStatus {
        let address = self.address();
        ReplicaStatus {
            id: self.id.clone(),
            address: address.ip(),
            port: address.port(),
            up: self.is_up(),
            in_flight: self.in_flight(),
            streams: self.streams(),
            total: self.total.load(Ordering::Relaxed),
            last_error: self.last_error.lock().expect("no panic while held").clone(),
        }
    }
}

/// The address to use: the current one if the container has it, else the one in the network, else
/// the first. A loopback one belongs to the host and stays.
fn settle(current: IpAddr, network: Option<Subnet>, addresses: &[IpAddr]) -> IpAddr {
    if current.is_loopback() || addresses.contains(&current) {
        return current;
    }
    let inside = |address: &&IpAddr| network.is_some_and(|network| network.contains(**address));
    let alike = |address: &&IpAddr| address.is_ipv4() == current.is_ipv4();
    let mut all = addresses.iter();
    let found = all.clone().find(inside).or_else(|| all.clone().find(alike)).or_else(|| all.next());
    found.copied().unwrap_or(current)
}

/// A request's or stream's place at a replica. It ends by being dropped.
pub(super) struct Claim {
    replica: Arc<Replica>,
    kind: Kind,
}

enum Kind {
    Request,
    Stream,
}

impl Claim {
    fn new(replica: Arc<Replica>) -> Claim {
        replica.in_flight.fetch_add(1, Ordering::SeqCst);
        Claim { replica, kind: Kind::Request }
    }

    pub(super) fn replica(&self) -> &Arc<Replica> {
        &self.replica
    }

    /// From now on it is a stream, which a drain does not wait for.
    pub(super) fn into_stream(mut self) -> Claim {
        if matches!(self.kind, Kind::Request) {
            self.replica.streams.fetch_add(1, Ordering::SeqCst);
            self.end_request();
            self.kind = Kind::Stream;
        }
        self
    }

    fn end_request(&self) {
        if self.replica.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.replica.drained.notify_waiters();
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        match self.kind {
            Kind::Request => self.end_request(),
            Kind::Stream => {
                self.replica.streams.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_container_is_reached_in_its_network() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let network = Subnet::parse("172.18.0.0/16");
        let addresses = [ip("172.17.0.3"), ip("172.18.0.9"), ip("fd00::9")];
        assert_eq!(settle(ip("172.18.0.5"), network, &addresses), ip("172.18.0.9"));
        assert_eq!(settle(ip("172.18.0.5"), None, &addresses), ip("172.17.0.3"));
        assert_eq!(settle(ip("fd00::5"), None, &addresses), ip("fd00::9"));
        assert_eq!(settle(ip("172.17.0.3"), network, &addresses), ip("172.17.0.3"));
        assert_eq!(settle(ip("127.0.0.1"), None, &addresses), ip("127.0.0.1"));
        assert_eq!(settle(ip("172.18.0.5"), network, &[]), ip("172.18.0.5"));
    }
}
