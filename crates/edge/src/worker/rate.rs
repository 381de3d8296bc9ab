//! How often requests are let in.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use crate::table::{Rate, RateKey};

static START: LazyLock<Instant> = LazyLock::new(Instant::now);
/// Clients are kept apart over so many locks.
const PARTS: usize = 16;
/// So many clients per lock are remembered before those who have been quiet are forgotten.
const MANY: usize = 4096;

/// Counts what was let in: for each key the moment (nanoseconds since [`START`]) at which all of
/// it would have come at the average pace (GCRA).
#[derive(Default)]
pub(super) struct Meter {
    all: AtomicU64,
    clients: [Mutex<HashMap<IpAddr, u64>>; PARTS],
}

impl Meter {
    /// Lets a request in, or tells when to come back.
    pub(super) fn admit(&self, rate: &Rate, client: IpAddr) -> Result<(), Duration> {
        let now = START.elapsed().as_nanos() as u64;
        match rate.by {
            RateKey::Route => {
                let mut refused = None;
                let _ = self.all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |due| {
                    let next = step(rate, due, now);
                    refused = next.err();
                    next.ok()
                });
                refused.map_or(Ok(()), Err)
            }
            RateKey::Client => {
                let client = group(client);
                let mut clients = self.clients[part(client)].lock().expect("no panic while held");
                if clients.len() > MANY {
                    clients.retain(|_, due| *due > now);
                }
                let due = clients.entry(client).or_default();
                *due = step(rate, *due, now)?;
                Ok(())
            }
        }
    }
}

fn step(rate: &Rate, due: u64, now: u64) -> Result<u64, Duration> {
    let interval = rate.per_ms.saturating_mul(1_000_000) / u64::from(rate.requests);
    let tolerance = interval.saturating_mul(u64::from(rate.burst - 1));
    let due = due.max(now);
    match (due - now).checked_sub(tolerance + 1) {
        None => Ok(due + interval),
        Some(early) => Err(Duration::from_nanos(early + 1)),
    }
}

/// Who has one IPv6 address usually has a whole /64 of them.
pub(super) fn group(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

fn part(client: IpAddr) -> usize {
    let mixed = match client {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
    };
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60) as usize % PARTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_let_in_and_then_the_average() {
        let rate = Rate { requests: 10, per_ms: 1000, burst: 3, by: RateKey::Client };
        let mut due = 0;
        let mut admit = |now_ms: u64| match step(&rate, due, now_ms * 1_000_000) {
            Ok(next) => {
                due = next;
                0
            }
            Err(wait) => wait.as_millis() + 1,
        };
        let answers: Vec<u128> = [1000, 1000, 1000, 1000, 1050, 1100, 1100, 2000, 2000, 2000, 2000]
            .into_iter()
            .map(&mut admit)
            .collect();
        assert_eq!(answers, [0, 0, 0, 101, 51, 0, 101, 0, 0, 0, 101]);
    }

    #[test]
    fn clients_are_counted_apart_by_their_network() {
        let rate = Rate { requests: 1, per_ms: 60_000, burst: 1, by: RateKey::Client };
        let meter = Meter::default();
        let admit = |client: &str| meter.admit(&rate, client.parse().unwrap()).is_ok();
        assert!(admit("10.0.0.1") && admit("10.0.0.2") && !admit("10.0.0.1"));
        assert!(admit("fd00::1") && !admit("fd00::2") && admit("fd00:0:0:1::1"));
        let rate = Rate { by: RateKey::Route, ..rate };
        assert!(meter.admit(&rate, "10.0.0.1".parse().unwrap()).is_ok());
        assert!(meter.admit(&rate, "10.0.0.2".parse().unwrap()).is_err());
    }
}
