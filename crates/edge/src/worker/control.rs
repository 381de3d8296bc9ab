//! Applying tables: sockets, disk, pointer, in this order.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use tokio::sync::Mutex;

use super::access_log::Log;
use super::canary::Canary;
use super::link::refusal;
use super::live::{Live, listen, open, tell_unbound};
use super::policy::{Policy, blocks};
use super::replica::Replica;
use super::routing::{Front, Pool, PoolShared, Routing};
use super::rules::{Rule, Rules, Target};
use super::tls::{ById, Tls};
use super::{Core, certificates, disk};
use crate::api::{CertificateStatus, ListenerStatus, Unbindable};
use crate::certificate::{Certificate, seconds};
use crate::channel::{Ask, MAX_CONTAINERS, Place, Reply, Sighting};
use crate::containers::is_container_id;
use crate::log::event;
use crate::table::{self, Table, TableError};

/// How often sockets that could not be opened are tried again.
const TRY_EVERY: Duration = Duration::from_secs(1);
/// And after the start: the worker of a killed supervisor takes a moment to let go of its sockets.
const TRY_SOON: Duration = Duration::from_millis(100);
const STARTING: Duration = Duration::from_secs(5);
/// What the polite end of a stream takes at most.
const GOODBYE: Duration = Duration::from_millis(2500);
/// How often to look for a successor's table: the time for which a held request may be late.
const FOLLOW_EVERY: Duration = Duration::from_millis(100);

pub(super) struct Control {
    core: Arc<Core>,
    state: Mutex<State>,
    /// One certificate is written at a time.
    storing: Mutex<()>,
}

struct State {
    table: Table,
    /// The table on disk is the one in force, and may become the previous one.
    disk_is_good: bool,
    listeners: Vec<Live>,
    next_number: u64,
    watched: HashSet<String>,
}

/// Why a table was not applied. Nothing was changed.
#[derive(Debug)]
pub(super) enum PutError {
    Conflict {
        current: u64,
    },
    /// It comes from a deployer that has been overtaken.
    Overtaken {
        owner: String,
        lease: u64,
    },
    Invalid(TableError),
    Unbindable(Vec<Unbindable>),
    /// What is wrong with certificates.
    Certificates(Vec<String>),
    Stopping,
    Disk(String),
}

impl Control {
    /// Takes up the table on disk.
    pub(super) async fn start(
        core: Arc<Core>,
        table: Option<OwnedFd>,
        previous: Option<OwnedFd>,
    ) -> io::Result<Control> {
        let (table, disk_is_good) = disk::load(&core, table, previous);
        let mut state = State {
            table: Table::default(),
            disk_is_good,
            listeners: Vec::new(),
            next_number: 0,
            watched: HashSet::new(),
        };
        let mut opened = Vec::new();
        for listener in &table.listeners {
            opened.push(open(&core, &mut state.next_number, listener.clone()).await);
        }
        for live in &opened {
            if let Err((_, detail)) = &live.socket {
                tell_unbound(&live.listener, detail);
            }
        }
        let control = Control { core, state: Mutex::new(state), storing: Mutex::new(()) };
        let mut state = control.state.lock().await;
        let certificates = control.certificates(&table).await;
        control.switch(&mut state, table, opened, certificates).await;
        drop(state);
        Ok(control)
    }

    pub(super) async fn table(&self) -> Table {
        self.state.lock().await.table.clone()
    }

    pub(super) async fn listeners(&self) -> Vec<ListenerStatus> {
        let state = self.state.lock().await;
        state.listeners.iter().map(Live::status).collect()
    }

    /// Replaces the table if it is at this generation: all of it, or nothing.
    pub(super) async fn put(&self, expected: u64, mut table: Table) -> Result<Table, PutError> {
        table.check().map_err(PutError::Invalid)?;
        let mut state = self.state.lock().await;
        if self.core.is_stopping() {
            return Err(PutError::Stopping);
        }
        if state.table.generation != expected {
            return Err(PutError::Conflict { current: state.table.generation });
        }
        table
            .inherit_leases(&state.table)
            .map_err(|(owner, lease)| PutError::Overtaken { owner, lease })?;
        let (certificates, wrong) = certificates::gather(&self.core, &table).await;
        let refused = certificates::refuse(&table, &state.table, &certificates, &wrong);
        if !refused.is_empty() {
            return Err(PutError::Certificates(refused));
        }
        let (mut opened, mut unbindable) = (Vec::new(), Vec::new());
        for listener in &mut table.listeners {
            if listener.port != 0 && state.listeners.iter().any(|live| live.is_at(listener)) {
                continue;
            }
            let live = open(&self.core, &mut state.next_number, listener.clone()).await;
            match &live.socket {
                Ok(_) => {
                    *listener = live.listener.clone();
                    opened.push(live);
                }
                Err((reason, detail)) => unbindable.push(Unbindable {
                    listener: listener.clone(),
                    reason: *reason,
                    detail: detail.clone(),
                }),
            }
        }
        table.schema = crate::table::SCHEMA;
        table.generation = expected + 1;
        let stored = match unbindable.is_empty() {
            true => {
                let stored = disk::store(&self.core.link, &table, state.disk_is_good).await;
                stored.map_err(PutError::Disk)
            }
            false => Err(PutError::Unbindable(unbindable)),
        };
        if let Err(error) = stored {
            for live in opened {
                let _ = self.core.link.ask(Ask::Close(live.place())).await;
            }
            return Err(error);
        }
        state.disk_is_good = true;
        let needed = table.tls.ids().chain(state.table.tls.ids()).map(str::to_owned).collect();
        self.switch(&mut state, table.clone(), opened, certificates).await;
        // The one before may be started from, and needs its own.
        if let Err(error) = self.core.link.ask(Ask::KeepCertificates(needed)).await {
            event("worker", "certificates-not-tidied", &[("error", &error)]);
        }
        Ok(table)
    }

    /// Takes a certificate, for a table that comes later.
    pub(super) async fn put_certificate(&self, text: &[u8]) -> Result<Certificate, PutError> {
        let certificate = Certificate::from_pem(text)
            .map_err(|error| PutError::Certificates(vec![error.to_string()]))?;
        let _one = self.storing.lock().await;
        if self.core.is_stopping() {
            return Err(PutError::Stopping);
        }
        let stored = certificates::store(&self.core.link, certificate.id(), text).await;
        stored.map_err(PutError::Disk)?;
        Ok(certificate)
    }

    /// How each certificate of the table is.
    pub(super) async fn certificate_status(&self) -> Vec<CertificateStatus> {
        let state = self.state.lock().await;
        let by_id = &self.core.routing.load_full().tls.by_id;
        let status = |shown: &table::Shown| {
            let served = by_id.get(&shown.id).map(|served| &served.certificate);
            CertificateStatus {
                shown: shown.clone(),
                not_before_s: served.map(|served| seconds(served.not_before())),
                not_after_s: served.map(|served| seconds(served.not_after())),
            }
        };
        state.table.tls.certificates.iter().map(status).collect()
    }

    /// Those that a table names, as far as they are to be had; of others, clients are refused.
    async fn certificates(&self, table: &Table) -> ById {
        let (certificates, wrong) = certificates::gather(&self.core, table).await;
        for (id, error) in wrong {
            self.core.problem(format!("certificate {id} cannot be used: {error}"));
        }
        certificates
    }

    /// Makes a table the one in force. Its new sockets are open.
    async fn switch(&self, state: &mut State, table: Table, opened: Vec<Live>, certificates: ById) {
        let core = &self.core;
        let wanted = containers_of(&table);
        let sightings = watch(core, wanted.difference(&state.watched).cloned().collect()).await;
        let first_new = opened.first().map_or(u64::MAX, |live| live.number);
        state.listeners.extend(opened);
        let (kept, gone): (Vec<Live>, Vec<Live>) = std::mem::take(&mut state.listeners)
            .into_iter()
            .partition(|live| table.listeners.iter().any(|listener| live.is_at(listener)));
        state.listeners = kept;
        for live in &mut state.listeners {
            if let Some(listener) = table.listeners.iter().find(|listener| live.is_at(listener)) {
                live.listener = listener.clone();
            }
        }
        let old = core.routing.load_full();
        let mut new = build(core, &old, &state.table, &table, &state.listeners);
        new.tls = Tls::new(&table.tls, certificates);
        if let Some(log) = &table.access_log {
            match Log::open(&core.link, log, old.log.as_ref()).await {
                Ok(log) => new.log = Some(log),
                Err(error) => core.problem(format!("opening the access log: {error}")),
            }
        }
        for sighting in &sightings {
            let replicas = new.pools.values().flat_map(|pool| &pool.replicas);
            for replica in replicas.filter(|replica| replica.id == sighting.container) {
                replica.sighted(&sighting.seen);
            }
        }
        let new = Arc::new(new);
        core.routing.store(new.clone());
        // Pairs with the one in `Core::route`.
        fence(Ordering::SeqCst);
        core.retire(&old, &new);
        for pool in old.pools.values().chain(new.pools.values()) {
            pool.shared.changed.notify_waiters();
        }
        for live in state.listeners.iter_mut().filter(|live| live.number >= first_new) {
            live.accept(core);
        }
        for live in gone {
            live.close(core).await;
        }
        let unwanted: Vec<String> = state.watched.difference(&wanted).cloned().collect();
        for ids in unwanted.chunks(MAX_CONTAINERS) {
            let _ = core.link.ask(Ask::Unwatch(ids.to_vec())).await;
        }
        state.watched = wanted;
        state.table = table;
        let fields: [(&str, &dyn std::fmt::Display); 3] = [
            ("generation", &state.table.generation),
            ("pools", &state.table.pools.len()),
            ("listeners", &state.table.listeners.len()),
        ];
        event("worker", "table-applied", &fields);
    }

    /// The supervisor has a new socket in the place of an old one.
    pub(super) async fn reopened(&self, place: Place, mut fds: Vec<OwnedFd>) {
        let mut state = self.state.lock().await;
        let live = state.listeners.iter_mut().find(|live| live.place() == place);
        if let (Some(live), Some(socket)) = (live, fds.pop()) {
            event("worker", "listener-reopened", &[("listener", &live.listener.place())]);
            live.stop().await;
            live.socket = Ok(socket.into());
            live.accept(&self.core);
        }
    }

    /// A successor has the sockets and takes the tables from now on. What we still serve, and
    /// hold, follows its tables, which it keeps in our place on disk.
    pub(super) async fn follow(self: Arc<Self>) {
        let mut state = self.state.lock().await;
        for live in &mut state.listeners {
            live.hand_over().await;
        }
        drop(state);
        loop {
            tokio::time::sleep(FOLLOW_EVERY).await;
            let mut state = self.state.lock().await;
            if let Some(table) = disk::current(&self.core.link).await
                && table.generation > state.table.generation
            {
                let certificates = self.certificates(&table).await;
                self.switch(&mut state, table, Vec::new(), certificates).await;
            }
        }
    }

    /// Opens what could not be opened, and tidies up, every now and then.
    pub(super) async fn keep_trying(self: Arc<Self>) {
        loop {
            let starting = self.core.started.elapsed() < STARTING;
            tokio::time::sleep(if starting { TRY_SOON } else { TRY_EVERY }).await;
            self.core.tidy();
            if self.core.is_stopping() {
                continue;
            }
            let mut state = self.state.lock().await;
            for live in state.listeners.iter_mut().filter(|live| live.socket.is_err()) {
                live.socket = listen(&self.core, &live.place()).await.map(|(socket, _)| socket);
                if live.socket.is_ok() {
                    event("worker", "listener-open", &[("listener", &live.listener.place())]);
                    live.accept(&self.core);
                }
            }
        }
    }
}

impl Core {
    /// What has left the table lives on until nothing is open to it.
    fn retire(&self, old: &Routing, new: &Routing) {
        let mut retired = self.retired.lock().expect("no panic while held");
        for (name, pool) in &old.pools {
            let now = new.pools.get(name).map(|pool| pool.replicas.as_slice()).unwrap_or_default();
            for replica in &pool.replicas {
                if !now.iter().any(|kept| Arc::ptr_eq(kept, replica)) {
                    replica.leave(pool.stream_limit);
                    retired.push((name.clone(), replica.clone()));
                }
            }
        }
        retired.retain(|(_, replica)| replica.open() > 0 && !replica.is_routed());
    }

    fn tidy(&self) {
        for replica in self.routing.load().pools.values().flat_map(|pool| &pool.replicas) {
            replica.tidy();
        }
        let mut retired = self.retired.lock().expect("no panic while held");
        retired.retain(|(_, replica)| replica.open() > 0 && !replica.is_routed());
    }

    /// All streams end after this time.
    pub(super) fn end_streams(&self, after: Duration) {
        let routing = self.routing.load();
        let routed = routing.pools.values().flat_map(|pool| &pool.replicas);
        let retired = self.retired.lock().expect("no panic while held");
        for replica in routed.chain(retired.iter().map(|(_, replica)| replica)) {
            replica.end_streams(after);
        }
    }

    /// A drain's streams end while it waits. Where requests are held for the replica's sake,
    /// streams are not worth waiting for: they end at once.
    pub(super) fn end_streams_for_drain(
        &self,
        pool: &str,
        replicas: &[Arc<Replica>],
        timeout: Duration,
    ) {
        let routing = self.routing.load();
        let pool = routing.pools.get(pool);
        for replica in replicas {
            if pool.is_some_and(|pool| pool.paused) {
                replica.end_streams(Duration::ZERO);
            } else if !replica.is_routed() {
                replica.end_streams(timeout.saturating_sub(GOODBYE));
            }
        }
    }

    fn retired(&self, pool: &str, id: &str) -> Option<Arc<Replica>> {
        let retired = self.retired.lock().expect("no panic while held");
        let mut found = retired.iter().filter(|(name, replica)| name == pool && replica.id == id);
        found.next().map(|(_, replica)| replica.clone())
    }

    /// Replicas of a pool by id, in the table or draining.
    pub(super) fn find(&self, pool: &str, ids: &[String]) -> Vec<Arc<Replica>> {
        let routing = self.routing.load();
        let routed = routing.pools.get(pool).into_iter().flat_map(|pool| &pool.replicas).cloned();
        let retired = self.retired.lock().expect("no panic while held");
        let retired = retired.iter().filter(|(name, _)| name == pool).map(|(_, one)| one.clone());
        routed.chain(retired).filter(|replica| ids.contains(&replica.id)).collect()
    }
}

/// The pointers for a table; what stays the same keeps its counters and connections.
fn build(
    core: &Core,
    old: &Routing,
    old_table: &Table,
    table: &Table,
    listeners: &[Live],
) -> Routing {
    let mut pools = BTreeMap::new();
    for (name, given) in &table.pools {
        let before = old.pools.get(name);
        let shared = before.map_or_else(Arc::<PoolShared>::default, |pool| pool.shared.clone());
        let old_given = old_table.pools.get(name);
        let mut replicas = Vec::new();
        for replica in &given.replicas {
            let same = |other: &&crate::table::Replica| {
                (&other.id, other.port, &other.network)
                    == (&replica.id, replica.port, &replica.network)
            };
            let was_given = old_given.and_then(|pool| pool.replicas.iter().find(same));
            let kept = before.and_then(|pool| pool.replicas.iter().find(|r| r.id == replica.id));
            let found = match (was_given, kept) {
                (Some(was_given), Some(kept)) => {
                    // Where we know it to be now wins over what has long been in the table.
                    if was_given.address != replica.address {
                        kept.set_address((replica.address, replica.port).into());
                    }
                    if !given.paused && !core.is_stopping() {
                        kept.stay();
                    }
                    kept.clone()
                }
                _ => match core.retired(name, &replica.id) {
                    Some(back) if back.address().port() == replica.port => {
                        back.set_address((replica.address, replica.port).into());
                        back.enter();
                        back
                    }
                    _ => Arc::new(Replica::new(replica, shared.clone(), core.shards.len())),
                },
            };
            found.speak(given.protocol);
            found.set_group(replica.group);
            replicas.push(found);
        }
        let pool = Pool {
            protocol: given.protocol,
            paused: given.paused,
            hold: given.hold,
            stream_limit: Duration::from_millis(given.streams.limit_ms),
            probe: given.probe.clone(),
            eject: given.eject,
            slow_start: Duration::from_millis(given.slow_start_ms),
            canary: given.canary.as_ref().map(Canary::new),
            replicas,
            shared,
        };
        pools.insert(name.clone(), Arc::new(pool));
    }
    let fronts = fronts(old, table, &pools, listeners);
    let trusted = blocks(&table.trusted_proxies);
    Routing { generation: table.generation, pools, fronts, trusted, log: None, tls: Tls::default() }
}

/// What each listener leads to; rules that have the same name as before keep what they know.
fn fronts(
    old: &Routing,
    table: &Table,
    pools: &BTreeMap<String, Arc<Pool>>,
    listeners: &[Live],
) -> HashMap<u64, Front> {
    let known: HashMap<Arc<str>, &Arc<Rule>> =
        old.rules().map(|rule| (rule.name.clone(), rule)).collect();
    let rule = |name: String, path: &str, target: Target, policy: &table::Policy| {
        let before = known.get(name.as_str());
        Arc::new(Rule {
            name: name.into(),
            path: path.trim_end_matches('/').to_owned(),
            target,
            policy: Policy::new(policy, before.map(|rule| &rule.policy)),
            shared: before.map(|rule| rule.shared.clone()).unwrap_or_default(),
        })
    };
    let to_pool = |name: &String| pools.get(name).cloned().map(Target::Pool);
    let routes: Vec<(&table::Route, Arc<Rule>)> = table
        .routes
        .iter()
        .filter_map(|route| {
            let target = match &route.target {
                table::Target::Pool(pool) => to_pool(pool)?,
                table::Target::Redirect(redirect) => Target::Redirect(redirect.clone()),
            };
            let entries = route.entries.join(",");
            let name = format!("{} {} at {entries}", route.owner, route.name());
            let mut policy = route.policy.clone();
            let waits = policy.https_needs_certificate;
            if waits && !table.has_certificate_for(route.host.as_deref()) {
                policy.https_port = None;
            }
            Some((route, rule(name, &route.path, target, &policy)))
        })
        .collect();
    let front = |live: &Live| {
        let listener = &live.listener;
        let mut rules = Rules::default();
        if let Some(entry) = &listener.entry {
            for (route, rule) in routes.iter().filter(|(route, _)| route.entries.contains(entry)) {
                rules.add(route.host.as_deref(), rule.clone());
            }
        }
        rules.rest = listener.pool.as_ref().and_then(to_pool).map(|target| {
            let name = format!("{} listener {}", listener.owner, listener.place());
            rule(name, "", target, &listener.policy)
        });
        let is_inside = listener.namespace.is_some();
        let (limits, tls) = (listener.limits, listener.tls.clone());
        let proxies = blocks(&listener.proxy_protocol);
        (live.number, Front { limits, tls, proxies, rules, is_inside })
    };
    listeners.iter().map(front).collect()
}

/// The containers that a table depends on.
fn containers_of(table: &Table) -> HashSet<String> {
    let replicas = table.pools.values().flat_map(|pool| &pool.replicas).map(|replica| &replica.id);
    let namespaces = table.listeners.iter().filter_map(|listener| listener.namespace.as_ref());
    replicas.chain(namespaces).filter(|id| is_container_id(id)).cloned().collect()
}

async fn watch(core: &Core, ids: Vec<String>) -> Vec<Sighting> {
    let mut all = Vec::new();
    for ids in ids.chunks(MAX_CONTAINERS) {
        match core.link.ask(Ask::Watch(ids.to_vec())).await {
            Ok((Reply::Sightings(sightings), _)) => all.extend(sightings),
            Ok((reply, _)) => core.problem(refusal("looking for containers", reply)),
            Err(error) => core.problem(format!("looking for containers: {error}")),
        }
    }
    all
}
