//! One replica: where it is, what is open to it, and how it is.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

use super::health::Health;
use super::routing::PoolShared;
use super::tally::Tally;
use super::upstream_http1::Idle;
use super::upstream_http2::Links;
use crate::api::ReplicaStatus;
use crate::channel::Seen;
use crate::log::event;
use crate::table::{self, Group, Protocol, Subnet};

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
    open: Open,
    total: AtomicU64,
    is_canary: AtomicBool,
    pub health: Health,
    pub tally: Tally,
    last_error: Mutex<Option<String>>,
    /// Changes when connections made before must not be used again.
    epoch: AtomicU64,
    idle: Vec<Mutex<Vec<Idle>>>,
    links: Vec<Links>,
    speaks_http2: AtomicBool,
    /// When its streams are to end.
    leaving: watch::Sender<Option<Instant>>,
    pub connecting: Arc<Semaphore>,
    /// Told when the last request, and when the last stream that can be ended, is gone.
    pub drained: Notify,
    pub shared: Arc<PoolShared>,
}

/// What is open to a replica, by kind.
#[derive(Default)]
struct Open {
    requests: AtomicU64,
    event_streams: AtomicU64,
    web_sockets: AtomicU64,
    tunnels: AtomicU64,
}

/// What something open to a replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It ends by itself, and is waited for.
    Request,
    /// `text/event-stream`: ended by its last chunk.
    EventStream,
    /// Ended by a close frame.
    WebSocket,
    /// Bytes that only their two ends understand: nobody else can end them politely.
    Tunnel,
}

impl Open {
    fn of(&self, kind: Kind) -> &AtomicU64 {
        match kind {
            Kind::Request => &self.requests,
            Kind::EventStream => &self.event_streams,
            Kind::WebSocket => &self.web_sockets,
            Kind::Tunnel => &self.tunnels,
        }
    }

    fn count(&self, kind: Kind) -> u64 {
        self.of(kind).load(Ordering::SeqCst)
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
            open: Open::default(),
            total: AtomicU64::new(0),
            is_canary: AtomicBool::new(replica.group == Group::Canary),
            health: Health::default(),
            tally: Tally::default(),
            last_error: Mutex::default(),
            epoch: AtomicU64::new(0),
            idle: (0..shards).map(|_| Mutex::default()).collect(),
            links: (0..shards).map(|_| Links::default()).collect(),
            speaks_http2: AtomicBool::new(false),
            leaving: watch::Sender::new(None),
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

    /// Requests whose answers are not complete.
    pub(super) fn in_flight(&self) -> u64 {
        self.open.count(Kind::Request)
    }

    /// Streams that the edge can end.
    pub(super) fn endable(&self) -> u64 {
        self.open.count(Kind::EventStream) + self.open.count(Kind::WebSocket)
    }

    /// All that is open and not a request.
    pub(super) fn streams(&self) -> u64 {
        self.endable() + self.open.count(Kind::Tunnel)
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

    /// This thread's HTTP/2 connections.
    pub(super) fn links(&self) -> &Links {
        &self.links[SHARD.get() % self.links.len()]
    }

    pub(super) fn speaks_http2(&self) -> bool {
        self.speaks_http2.load(Ordering::Relaxed)
    }

    pub(super) fn group(&self) -> Group {
        if self.is_canary.load(Ordering::Relaxed) { Group::Canary } else { Group::Stable }
    }

    pub(super) fn set_group(&self, group: Group) {
        self.is_canary.store(group == Group::Canary, Ordering::Relaxed);
    }

    /// Counts an answer; status 0 is none.
    pub(super) fn count(&self, status: u16, took: Duration) {
        self.tally.count(status, took);
        self.shared.group(self.group()).count(status, took);
    }

    /// How it is spoken to.
    pub(super) fn speak(&self, protocol: Protocol) {
        let http2 = protocol == Protocol::H2c;
        if self.speaks_http2.swap(http2, Ordering::Relaxed) != http2 {
            self.close_idle();
        }
    }

    /// Forgets every idle connection, and those in use as soon as they would become idle.
    pub(super) fn close_idle(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        for idle in &self.idle {
            idle.lock().expect("no panic while held").clear();
        }
        self.links.iter().for_each(Links::forget);
    }

    /// Forgets idle connections that were closed, or have not been used for long.
    pub(super) fn tidy(&self) {
        for idle in &self.idle {
            idle.lock().expect("no panic while held").retain(Idle::is_usable);
        }
    }

    /// It is back in the table.
    pub(super) fn enter(&self) {
        self.routed.store(true, Ordering::Release);
        self.stay();
    }

    /// It has left the table: its streams may live for so long.
    pub(super) fn leave(&self, streams: Duration) {
        self.routed.store(false, Ordering::Release);
        self.close_idle();
        self.end_streams(streams);
    }

    /// Its streams end after this time, or when they were to end anyway if that is sooner.
    pub(super) fn end_streams(&self, after: Duration) {
        let at = Instant::now() + after;
        self.leaving.send_if_modified(|known| {
            let sooner = known.is_none_or(|known| at < known);
            if sooner {
                *known = Some(at);
            }
            sooner
        });
    }

    /// Its streams need not end after all.
    pub(super) fn stay(&self) {
        self.leaving.send_if_modified(|known| known.take().is_some());
    }

    /// Returns when the time of its streams is over.
    pub(super) async fn streams_end(self: Arc<Self>) {
        let mut leaving = self.leaving.subscribe();
        loop {
            let at = *leaving.borrow_and_update();
            let over = async {
                match at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = over => return,
                changed = leaving.changed() => changed.expect("we hold the sender"),
            }
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
            well: self.health.is_well(),
            in_flight: self.in_flight(),
            streams: self.streams(),
            event_streams: self.open.count(Kind::EventStream),
            web_sockets: self.open.count(Kind::WebSocket),
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

impl Claim {
    /// Counted in; whether the replica still is the one to go to is to be looked at after this.
    pub(super) fn new(replica: Arc<Replica>) -> Claim {
        replica.open.requests.fetch_add(1, Ordering::SeqCst);
        Claim { replica, kind: Kind::Request }
    }

    /// It will be used.
    pub(super) fn keep(self) -> Claim {
        self.replica.total.fetch_add(1, Ordering::Relaxed);
        self
    }

    pub(super) fn replica(&self) -> &Arc<Replica> {
        &self.replica
    }

    /// From now on it is this.
    pub(super) fn into_kind(mut self, kind: Kind) -> Claim {
        self.replica.open.of(kind).fetch_add(1, Ordering::SeqCst);
        self.end();
        self.kind = kind;
        self
    }

    fn end(&self) {
        let before = self.replica.open.of(self.kind).fetch_sub(1, Ordering::SeqCst);
        if before == 1 {
            self.replica.drained.notify_waiters();
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.end();
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
