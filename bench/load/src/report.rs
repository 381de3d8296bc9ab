//! What became of the requests.

use crate::histogram::Histogram;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

/// Different values of the tag header that are told apart; further ones count as `…`.
const MAX_TAGS: usize = 256;
/// An answer that took longer than this is reported as slow.
const SLOW: Duration = Duration::from_secs(1);

/// How a request failed at the connection, or was answered with an error of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropKind {
    /// An answer with a status of 500 or above.
    ServerError,
    /// Connecting was refused.
    Refused,
    /// No route to the host.
    Unreachable,
    /// Reset while connecting or sending, before any byte of an answer.
    Reset,
    /// Closed or reset inside an answer.
    Truncated,
    /// A new connection was closed without a byte.
    Eof,
    /// A reused connection was closed or reset without a byte. Clients may repeat safe methods
    /// here, so it is kept apart; it still counts as a drop.
    Stale,
    /// No complete answer in time.
    Timeout,
    /// Not sent: too many requests were in flight.
    Overrun,
    /// The name did not resolve.
    Dns,
    /// Anything else: not an HTTP answer, no sockets left.
    Other,
}

impl fmt::Display for DropKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DropKind::ServerError => "5xx",
            DropKind::Refused => "refused",
            DropKind::Unreachable => "unreachable",
            DropKind::Reset => "reset",
            DropKind::Truncated => "truncated",
            DropKind::Eof => "eof",
            DropKind::Stale => "stale",
            DropKind::Timeout => "timeout",
            DropKind::Overrun => "overrun",
            DropKind::Dns => "dns",
            DropKind::Other => "other",
        })
    }
}

/// How one request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A complete answer with a status below 400.
    Ok,
    /// A complete answer with a status from 400 to 499.
    ClientError,
    /// Anything worse.
    Drop(DropKind),
}

impl Outcome {
    pub(crate) fn of_status(status: u16) -> Outcome {
        match status {
            0..400 => Outcome::Ok,
            400..500 => Outcome::ClientError,
            500.. => Outcome::Drop(DropKind::ServerError),
        }
    }
}

/// When the answers with one value of the tag header came, counted from the start of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Complete answers with this value.
    pub count: u64,
    /// The first of them.
    pub first: Duration,
    /// The last of them.
    pub last: Duration,
}

/// Latencies of successful requests, from the moment each was due.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    /// Half of the requests took no longer.
    pub p50: Duration,
    /// 90 % took no longer.
    pub p90: Duration,
    /// 99 % took no longer.
    pub p99: Duration,
    /// 99.9 % took no longer.
    pub p999: Duration,
    /// The slowest.
    pub max: Duration,
}

/// The state of a load while it runs.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Requests that have ended, those not sent for overrun included.
    pub sent: u64,
    /// Requests answered below 400.
    pub ok: u64,
    /// Requests that were not: drops and answers from 400 to 499.
    pub failed: u64,
    /// Requests without an answer yet.
    pub in_flight: usize,
    /// The longest time without a success so far.
    pub max_gap: Duration,
    /// The time since the latest success.
    pub since_ok: Duration,
    /// The tag of the latest complete answer.
    pub latest_tag: Option<String>,
}

/// What became of the requests that ended between two moments.
#[derive(Clone, Debug)]
pub struct Report {
    /// The time covered.
    pub elapsed: Duration,
    /// Requests that have ended, those not sent for overrun included.
    pub sent: u64,
    /// Requests answered below 400.
    pub ok: u64,
    /// Requests answered from 400 to 499.
    pub client_errors: u64,
    /// The rest, by kind.
    pub drops: BTreeMap<DropKind, u64>,
    /// Complete answers by status.
    pub status: BTreeMap<u16, u64>,
    /// The longest time without a success, from the start and to the end included.
    pub max_gap: Duration,
    /// When it began; zero if that was before the start.
    pub max_gap_at: Duration,
    /// When the first and the last dropped request were due.
    pub dropped_between: Option<(Duration, Duration)>,
    /// Latencies, if anything succeeded.
    pub latency: Option<Latency>,
    /// Successes that took longer than a second.
    pub slow: u64,
    /// Complete answers by the value of the tag header; `-` stands for none. Empty
    /// if no header was to be looked at.
    pub tags: BTreeMap<String, Tag>,
    /// Connections opened.
    pub connections: u64,
    /// The most requests in flight at once.
    pub peak_in_flight: usize,
}

impl Report {
    /// Requests that were dropped: all but those answered below 500.
    pub fn dropped(&self) -> u64 {
        self.drops.values().sum()
    }

    /// Requests that were not answered below 400.
    pub fn failed(&self) -> u64 {
        self.dropped() + self.client_errors
    }

    /// The report as one JSON object.
    pub fn to_json(&self) -> Value {
        let by_kind: BTreeMap<_, _> = self.drops.iter().map(|(k, n)| (k.to_string(), n)).collect();
        let status: BTreeMap<_, _> = self.status.iter().map(|(s, n)| (s.to_string(), n)).collect();
        let tags: BTreeMap<_, _> = self
            .tags
            .iter()
            .map(|(value, tag)| {
                let (first_ms, last_ms) = (milliseconds(tag.first), milliseconds(tag.last));
                (value, json!({"count": tag.count, "first_ms": first_ms, "last_ms": last_ms}))
            })
            .collect();
        let latency = self.latency.map(|latency| {
            json!({
                "p50": milliseconds(latency.p50),
                "p90": milliseconds(latency.p90),
                "p99": milliseconds(latency.p99),
                "p999": milliseconds(latency.p999),
                "max": milliseconds(latency.max),
            })
        });
        let dropped_between = self
            .dropped_between
            .map(|(first, last)| json!([milliseconds(first), milliseconds(last)]));
        json!({
            "version": 1,
            "elapsed_ms": milliseconds(self.elapsed),
            "sent": self.sent,
            "ok": self.ok,
            "4xx": self.client_errors,
            "drops": self.dropped(),
            "by_kind": by_kind,
            "status": status,
            "max_gap_ms": milliseconds(self.max_gap),
            "max_gap_at_ms": milliseconds(self.max_gap_at),
            "dropped_between_ms": dropped_between,
            "latency_ms": latency,
            "slow_over_1s": self.slow,
            "connections": self.connections,
            "peak_in_flight": self.peak_in_flight,
            "tags": tags,
        })
    }
}

/// Milliseconds with two decimals.
fn milliseconds(value: Duration) -> f64 {
    (value.as_secs_f64() * 1e5).round() / 1e2
}

/// Counts requests as they end.
pub(crate) struct Recorder {
    start: Instant,
    /// The latest success, or when the load began. It may lie before `start`.
    last_ok: Instant,
    latest_tag: Option<String>,
    in_flight: usize,
    report: Report,
    latencies: Histogram,
}

impl Recorder {
    pub fn new(start: Instant) -> Self {
        Recorder {
            start,
            last_ok: start,
            latest_tag: None,
            in_flight: 0,
            report: empty_report(),
            latencies: Histogram::new(),
        }
    }

    pub fn connected(&mut self) {
        self.report.connections += 1;
    }

    pub fn started(&mut self) {
        self.in_flight += 1;
        self.report.peak_in_flight = self.report.peak_in_flight.max(self.in_flight);
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Counts a complete answer, then its end.
    pub fn answered(&mut self, due: Instant, now: Instant, status: u16, tag: Option<String>) {
        *self.report.status.entry(status).or_default() += 1;
        if let Some(tag) = tag {
            self.tagged(now, tag);
        }
        self.ended(due, now, Outcome::of_status(status));
    }

    fn tagged(&mut self, now: Instant, tag: String) {
        let at = now.saturating_duration_since(self.start);
        let tags = &mut self.report.tags;
        let key = if tags.len() < MAX_TAGS || tags.contains_key(&tag) { tag } else { "…".into() };
        let seen = tags.entry(key.clone()).or_insert(Tag { count: 0, first: at, last: at });
        seen.count += 1;
        seen.last = at;
        self.latest_tag = Some(key);
    }

    /// Counts the end of a request that had been started.
    pub fn ended(&mut self, due: Instant, now: Instant, outcome: Outcome) {
        self.in_flight -= 1;
        self.count(due, now, outcome);
    }

    /// Counts a request that could not be started.
    pub fn overrun(&mut self, due: Instant) {
        self.count(due, due, Outcome::Drop(DropKind::Overrun));
    }

    fn count(&mut self, due: Instant, now: Instant, outcome: Outcome) {
        self.report.sent += 1;
        match outcome {
            Outcome::Ok => {
                self.report.ok += 1;
                let latency = now.saturating_duration_since(due);
                self.latencies.add(latency);
                self.report.slow += u64::from(latency > SLOW);
                self.note_gap(now);
                self.last_ok = now;
            }
            Outcome::ClientError => self.report.client_errors += 1,
            Outcome::Drop(kind) => {
                *self.report.drops.entry(kind).or_default() += 1;
                let due = due.saturating_duration_since(self.start);
                let (first, last) = self.report.dropped_between.unwrap_or((due, due));
                self.report.dropped_between = Some((first.min(due), last.max(due)));
            }
        }
    }

    fn note_gap(&mut self, until: Instant) {
        let gap = until.saturating_duration_since(self.last_ok);
        if gap > self.report.max_gap {
            self.report.max_gap = gap;
            self.report.max_gap_at = self.last_ok.saturating_duration_since(self.start);
        }
    }

    pub fn snapshot(&self, now: Instant) -> Snapshot {
        let since_ok = now.saturating_duration_since(self.last_ok);
        Snapshot {
            sent: self.report.sent,
            ok: self.report.ok,
            failed: self.report.failed(),
            in_flight: self.in_flight,
            max_gap: self.report.max_gap.max(since_ok),
            since_ok,
            latest_tag: self.latest_tag.clone(),
        }
    }

    /// Reports what ended since the start or the cut before, and begins anew.
    ///
    /// A gap that spans a cut is reported on both sides, in the later one with its full length.
    pub fn cut(&mut self, now: Instant) -> Report {
        self.note_gap(now);
        let mut report = std::mem::replace(&mut self.report, empty_report());
        self.report.peak_in_flight = self.in_flight;
        let latencies = std::mem::replace(&mut self.latencies, Histogram::new());
        report.elapsed = now.saturating_duration_since(self.start);
        report.latency = latencies.max().map(|max| {
            let quantile = |q| latencies.quantile(q).unwrap_or(max);
            Latency {
                p50: quantile(0.5),
                p90: quantile(0.9),
                p99: quantile(0.99),
                p999: quantile(0.999),
                max,
            }
        });
        self.start = now;
        report
    }
}

fn empty_report() -> Report {
    Report {
        elapsed: Duration::ZERO,
        sent: 0,
        ok: 0,
        client_errors: 0,
        drops: BTreeMap::new(),
        status: BTreeMap::new(),
        max_gap: Duration::ZERO,
        max_gap_at: Duration::ZERO,
        dropped_between: None,
        latency: None,
        slow: 0,
        tags: BTreeMap::new(),
        connections: 0,
        peak_in_flight: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_counts_from_the_latest_success_even_across_a_cut() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut recorder = Recorder::new(start);
        for ms in [10, 20, 500] {
            recorder.started();
            recorder.answered(at(ms - 5), at(ms), 200, Some("v1".into()));
        }
        let first = recorder.cut(at(700));
        assert_eq!(first.max_gap, Duration::from_millis(480));
        assert_eq!(first.max_gap_at, Duration::from_millis(20));
        assert_eq!(first.latency.unwrap().max, Duration::from_millis(5));
        assert_eq!(first.tags["v1"].last, Duration::from_millis(500));

        recorder.started();
        recorder.ended(at(800), at(900), Outcome::Drop(DropKind::Reset));
        recorder.started();
        recorder.answered(at(990), at(1000), 404, None);
        let second = recorder.cut(at(1300));
        assert_eq!(second.max_gap, Duration::from_millis(800));
        assert_eq!(second.max_gap_at, Duration::ZERO);
        assert_eq!((second.sent, second.ok, second.dropped(), second.failed()), (2, 0, 1, 2));
        let due = Duration::from_millis(100);
        assert_eq!(second.dropped_between, Some((due, due)));
    }
}
