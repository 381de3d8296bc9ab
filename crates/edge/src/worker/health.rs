//! Whether a replica gets its part: what probes and its own answers say about it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::replica::Replica;
use super::routing::Pool;
use super::{Core, probe};
use crate::api::{ProbeKind, ProbeRequest};
use crate::log::event;
use crate::table::{Eject, Protocol};

/// In a row.
const UP: u32 = 2;
const DOWN: u32 = 3;
/// How often it is looked which replicas are due.
const TICK: Duration = Duration::from_millis(100);
/// A new replica begins with this part of a full one's share.
const FIRST_SHARE: f64 = 0.1;

/// What is known of one replica's health.
pub(super) struct Health {
    born: Instant,
    /// Has had its full part.
    grown: AtomicBool,
    unwell: AtomicBool,
    good: AtomicU32,
    bad: AtomicU32,
    /// Milliseconds after `born`.
    next_probe_ms: AtomicU64,
    probing: AtomicBool,
    /// Failures in a row.
    failures: AtomicU32,
    /// Milliseconds after `born`; 0 is not at all.
    ejected_until_ms: AtomicU64,
}

impl Default for Health {
    fn default() -> Self {
        Health {
            born: Instant::now(),
            grown: AtomicBool::default(),
            unwell: AtomicBool::default(),
            good: AtomicU32::default(),
            bad: AtomicU32::default(),
            next_probe_ms: AtomicU64::default(),
            probing: AtomicBool::default(),
            failures: AtomicU32::default(),
            ejected_until_ms: AtomicU64::default(),
        }
    }
}

impl Health {
    fn age_ms(&self) -> u64 {
        self.born.elapsed().as_millis() as u64
    }

    fn is_ejected(&self) -> bool {
        let until = self.ejected_until_ms.load(Ordering::Relaxed);
        until > 0 && self.age_ms() < until
    }

    pub(super) fn is_well(&self) -> bool {
        !self.unwell.load(Ordering::Relaxed) && !self.is_ejected()
    }

    /// Of a full one's share, from above 0 to 1.
    pub(super) fn share(&self, slow_start: Duration) -> f64 {
        if self.grown.load(Ordering::Relaxed) {
            return 1.0;
        }
        let age = self.born.elapsed();
        if age >= slow_start {
            self.grown.store(true, Ordering::Relaxed);
            return 1.0;
        }
        // In steps, so that those who came together are equals.
        let steps = (age.as_secs_f64() / slow_start.as_secs_f64() / FIRST_SHARE).floor();
        (steps * FIRST_SHARE).max(FIRST_SHARE)
    }

    /// An answer below 500 came.
    pub(super) fn succeeded(&self) {
        // Mostly 0 already, and then nobody has to be told.
        if self.failures.load(Ordering::Relaxed) > 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// None came, or one that says that it cannot; true if that is once too often.
    fn failed(&self, eject: &Eject) -> bool {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        eject.failures > 0 && failures >= eject.failures
    }

    /// Takes in a probe's result; answers whether that changed anything.
    fn probed(&self, well: bool) -> bool {
        let (count, other, enough) =
            if well { (&self.good, &self.bad, UP) } else { (&self.bad, &self.good, DOWN) };
        other.store(0, Ordering::Relaxed);
        let enough = count.fetch_add(1, Ordering::Relaxed) + 1 >= enough;
        enough && self.unwell.swap(!well, Ordering::Relaxed) == well
    }
}

impl Pool {
    /// A request came to nothing, or to 5xx.
    pub(super) fn failed(&self, replica: &Replica) {
        if !replica.health.failed(&self.eject) {
            return;
        }
        // Never the only one, and never more than half.
        let others = self.replicas.iter().filter(|other| !std::ptr::eq(&***other, replica));
        let well = others.filter(|other| other.is_up() && other.health.is_well()).count();
        if well == 0 || well * 2 < self.replicas.len() {
            return;
        }
        let health = &replica.health;
        health.failures.store(0, Ordering::Relaxed);
        let until = health.age_ms() + self.eject.for_ms;
        health.ejected_until_ms.store(until, Ordering::Relaxed);
        let fields: [(&str, &dyn std::fmt::Display); 2] =
            [("id", &replica.id), ("for_ms", &self.eject.for_ms)];
        event("worker", "replica-ejected", &fields);
    }
}

impl Core {
    /// Asks all replicas whose pools say so, for ever.
    pub(super) async fn probe_replicas(self: Arc<Self>) {
        loop {
            tokio::time::sleep(TICK).await;
            let routing = self.routing.load_full();
            for pool in routing.pools.values().filter(|pool| pool.probe.is_some()) {
                for replica in &pool.replicas {
                    if let Some(request) = due(pool, replica) {
                        tokio::spawn(ask(request, replica.clone()));
                    }
                }
            }
        }
    }
}

fn due(pool: &Pool, replica: &Replica) -> Option<ProbeRequest> {
    let probe = pool.probe.as_ref()?;
    let (health, age) = (&replica.health, replica.health.age_ms());
    if age < health.next_probe_ms.load(Ordering::Relaxed)
        || !replica.is_present()
        || health.probing.swap(true, Ordering::Relaxed)
    {
        return None;
    }
    health.next_probe_ms.store(age + probe.interval_ms, Ordering::Relaxed);
    Some(ProbeRequest {
        address: replica.address().ip(),
        port: replica.address().port(),
        kind: match pool.protocol {
            Protocol::Http => ProbeKind::Http,
            Protocol::H2c => ProbeKind::H2c,
            Protocol::Tcp => ProbeKind::Tcp,
        },
        path: probe.path.clone(),
        timeout_ms: probe.timeout_ms,
    })
}

async fn ask(request: ProbeRequest, replica: Arc<Replica>) {
    let seen = probe::probe(&request).await;
    let well = seen.error.is_none() && seen.http_status.is_none_or(|status| status < 500);
    if replica.health.probed(well) {
        let name = if well { "replica-well" } else { "replica-unwell" };
        event("worker", name, &[("id", &replica.id)]);
    }
    replica.health.probing.store(false, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_make_unwell_and_two_answers_well() {
        let health = Health::default();
        let mut states = Vec::new();
        for well in [false, false, true, false, false, false, true, false, true, true] {
            health.probed(well);
            states.push(health.is_well());
        }
        let expected = [true, true, true, true, true, false, false, false, false, true];
        assert_eq!(states, expected);
    }

    #[test]
    fn a_new_replica_gets_little_at_first() {
        let mut health = Health::default();
        let slow_start = Duration::from_secs(10);
        assert!((health.share(slow_start) - FIRST_SHARE).abs() < 0.01);
        health.born -= Duration::from_secs(5);
        assert!((health.share(slow_start) - 0.5).abs() < 0.01);
        health.born -= Duration::from_secs(5);
        assert_eq!(health.share(slow_start), 1.0);
        assert_eq!(Health::default().share(Duration::ZERO), 1.0);
    }
}
