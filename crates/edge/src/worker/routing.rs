//! Where requests go: the table in force, as pointers.
//!
//! One pointer holds everything, so a swap moves all pools at once. A request *claims* its replica
//! by counting itself in and then looking whether the pointer is still the same: when a drain sees
//! 0 after a swap, no request is on its way.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::time::Duration;

use tokio::sync::Notify;

use super::Core;
use super::access_log::Log;
use super::canary::Canary;
use super::replica::{Claim, Replica};
use super::rules::{Address, Rule, Rules, Target};
use super::tally::Tally;
use super::tls::Tls;
use crate::channel::Sighting;
use crate::table::{Eject, Group, Hold, Limits, ListenerTls, Probe, Protocol, Subnet};

/// The table in force.
#[derive(Default)]
pub(super) struct Routing {
    pub generation: u64,
    pub pools: BTreeMap<String, Arc<Pool>>,
    /// By the number of the live listener.
    pub fronts: HashMap<u64, Front>,
    /// Proxies in front of us.
    pub trusted: Vec<Subnet>,
    pub log: Option<Arc<Log>>,
    pub tls: Tls,
}

impl Routing {
    /// All rules; one that several listeners lead to comes several times.
    pub(super) fn rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.fronts.values().flat_map(|front| front.rules.all())
    }

    fn pool(&self, address: &Address) -> Option<&Arc<Pool>> {
        let rule = self.fronts.get(&address.listener)?.rules.find(address)?;
        match &rule.target {
            Target::Pool(pool) => Some(pool),
            Target::Redirect(_) => None,
        }
    }
}

/// What a listener leads to.
pub(super) struct Front {
    pub limits: Limits,
    pub tls: Option<ListenerTls>,
    /// Who speaks the PROXY protocol.
    pub proxies: Vec<Subnet>,
    pub rules: Rules,
    /// Callers inside a network come here, not clients from outside.
    pub is_inside: bool,
}

impl Front {
    /// What is spoken. Where only routes lead on, it is HTTP.
    pub(super) fn protocol(&self) -> Protocol {
        match self.rules.rest.as_ref().map(|rule| &rule.target) {
            Some(Target::Pool(pool)) => pool.protocol,
            Some(Target::Redirect(_)) | None => Protocol::Http,
        }
    }
}

pub(super) struct Pool {
    pub protocol: Protocol,
    pub paused: bool,
    pub hold: Hold,
    /// For which streams may outlive their replica's time in the table.
    pub stream_limit: Duration,
    pub probe: Option<Probe>,
    pub eject: Eject,
    /// For which a new replica gets less than its full part.
    pub slow_start: Duration,
    pub canary: Option<Canary>,
    pub replicas: Vec<Arc<Replica>>,
    pub shared: Arc<PoolShared>,
}

/// What outlives a table, by the pool's name.
#[derive(Default)]
pub(super) struct PoolShared {
    /// Told at every swap, and when a replica can be reached again.
    pub changed: Notify,
    pub held: AtomicU64,
    pub held_ever: AtomicU64,
    pub rejected: AtomicU64,
    pub retried: AtomicU64,
    /// Stable, canary.
    groups: [Tally; 2],
    turn: AtomicUsize,
}

impl PoolShared {
    /// What a group's replicas have answered.
    pub(super) fn group(&self, group: Group) -> &Tally {
        match group {
            Group::Stable => &self.groups[0],
            Group::Canary => &self.groups[1],
        }
    }
}

/// What a listener leads to at the moment.
pub(super) enum Route {
    /// To this replica.
    To(Claim),
    /// Nowhere yet.
    Hold(Arc<Pool>),
    /// Nowhere: the listener or the route has left the table.
    Nowhere,
}

impl Core {
    /// Claims a replica for a request with this address.
    pub(super) fn route(&self, address: &Address) -> Route {
        loop {
            let routing = self.routing.load();
            let Some(pool) = routing.pool(address) else { return Route::Nowhere };
            let Some(replica) = pool.choose(address.group) else {
                return Route::Hold(pool.clone());
            };
            let claim = Claim::new(replica.clone());
            // Pairs with the swap followed by a look at the counter: one of the two sees the other.
            fence(Ordering::SeqCst);
            if Arc::ptr_eq(&routing, &self.routing.load()) {
                return Route::To(claim.keep());
            }
        }
    }

    /// A replica did not answer, or said that it cannot.
    pub(super) fn answer_failed(&self, replica: &Arc<Replica>) {
        let routing = self.routing.load();
        let has_it = |pool: &&Arc<Pool>| pool.replicas.iter().any(|one| Arc::ptr_eq(one, replica));
        if let Some(pool) = routing.pools.values().find(has_it) {
            pool.failed(replica);
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
    /// The least busy replica that can be reached, and is well if any is; they take turns when
    /// equal. Where there are two groups, one of the group if it has one.
    fn choose(&self, group: Option<Group>) -> Option<&Arc<Replica>> {
        if self.paused {
            return None;
        }
        if let [only] = self.replicas.as_slice() {
            return only.is_up().then_some(only);
        }
        let all = |_: &Replica| true;
        let turn = self.shared.turn.fetch_add(1, Ordering::Relaxed);
        let well = |replica: &Replica| replica.health.is_well();
        let Some(group) = group.filter(|_| self.canary.is_some()) else {
            return self.least(turn, well).or_else(|| self.least(turn, all));
        };
        let of_group = |replica: &Replica| replica.group() == group;
        self.least(turn, |replica| of_group(replica) && well(replica))
            .or_else(|| self.least(turn, well))
            .or_else(|| self.least(turn, all))
    }

    fn least(&self, turn: usize, suits: impl Fn(&Replica) -> bool) -> Option<&Arc<Replica>> {
        let count = self.replicas.len().max(1);
        let (before, after) = self.replicas.split_at(turn % count);
        let up = after.iter().chain(before).filter(|replica| replica.is_up() && suits(replica));
        let load = |replica: &Replica| {
            // With one more: 3 open at a third of a share weigh as much as 11 at a full one.
            (replica.open() + 1) as f64 / replica.health.share(self.slow_start)
        };
        up.min_by(|one, other| load(one).total_cmp(&load(other)))
    }
}
