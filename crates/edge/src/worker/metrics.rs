//! Counters in the text format of Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::Ordering;

use super::Core;
use super::refusal::Refusal;
use super::replica::Replica;
use super::routing::{Pool, Routing};
use super::rules::RuleShared;
use super::tally::{BOUNDS, CLASSES, Counts, Tally};
use crate::certificate::seconds;
use crate::table::Group;

/// Everything, as text.
pub(super) fn text(core: &Core) -> String {
    let routing = core.routing.load_full();
    let mut page = Page::default();
    whole(core, &routing, &mut page);
    rules(core, &routing, &mut page);
    for (name, pool) in &routing.pools {
        pool_metrics(name, pool, &mut page);
    }
    let retired = core.retired.lock().expect("no panic while held");
    for (pool, replica) in retired.iter() {
        replica_metrics(pool, replica, &mut page);
    }
    page.text()
}

/// Metrics by name: Prometheus wants those of one name together.
#[derive(Default)]
struct Page(BTreeMap<&'static str, (&'static str, String)>);

/// Names and values, as they stand between braces.
type Labels<'a> = &'a [(&'a str, &'a str)];

impl Page {
    fn add(&mut self, kind: &'static str, name: &'static str, labels: Labels<'_>, value: u64) {
        self.sample(kind, name, "", labels, &value);
    }

    fn sample(
        &mut self,
        kind: &'static str,
        name: &'static str,
        suffix: &str,
        labels: Labels<'_>,
        value: &dyn std::fmt::Display,
    ) {
        let (_, text) = self.0.entry(name).or_insert_with(|| (kind, String::new()));
        let mut said = String::new();
        for (label, value) in labels {
            let comma = if said.is_empty() { "" } else { "," };
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(said, "{comma}{label}=\"{value}\"");
        }
        let said = if said.is_empty() { said } else { format!("{{{said}}}") };
        let _ = writeln!(text, "{name}{suffix}{said} {value}");
    }

    fn requests(&mut self, name: &'static str, labels: Labels<'_>, counts: &Counts) {
        for (class, count) in CLASSES.iter().zip(counts.classes) {
            if count > 0 {
                self.add("counter", name, &[labels, &[("class", class)]].concat(), count);
            }
        }
    }

    fn histogram(&mut self, name: &'static str, labels: Labels<'_>, counts: &Counts) {
        let mut sum = 0;
        for (index, count) in counts.buckets.iter().enumerate() {
            sum += count;
            let bound = BOUNDS.get(index).map(|bound| bound.as_secs_f64().to_string());
            let bound = bound.unwrap_or_else(|| "+Inf".to_owned());
            let labels = [labels, &[("le", bound.as_str())]].concat();
            self.sample("histogram", name, "_bucket", &labels, &sum);
        }
        self.sample("histogram", name, "_sum", labels, &counts.duration.as_secs_f64());
        self.sample("histogram", name, "_count", labels, &sum);
    }

    fn text(self) -> String {
        let mut all = String::new();
        for (name, (kind, text)) in self.0 {
            let _ = write!(all, "# TYPE {name} {kind}\n{text}");
        }
        all
    }
}

fn whole(core: &Core, routing: &Routing, page: &mut Page) {
    page.add("gauge", "shiplap_edge_generation", &[], routing.generation);
    page.add("gauge", "shiplap_edge_connections", &[], core.connections.load(Ordering::Relaxed));
    let restarts = core.supervisor.worker_restarts;
    page.add("counter", "shiplap_edge_worker_restarts_total", &[], restarts);
    if let Some(log) = &routing.log {
        page.add("counter", "shiplap_edge_log_dropped_total", &[], log.dropped());
    }
    for (result, count) in core.handshakes.counts() {
        page.add("counter", "shiplap_edge_tls_handshakes_total", &[("result", result)], count);
    }
    for (id, served) in &routing.tls.by_id {
        let labels = [("id", id.as_str()), ("name", served.certificate.names()[0].as_str())];
        let end = seconds(served.certificate.not_after());
        page.add("gauge", "shiplap_edge_certificate_not_after_seconds", &labels, end);
    }
    for (refusal, count) in Refusal::counts() {
        let reason = format!("{refusal:?}");
        page.add("counter", "shiplap_edge_refused_total", &[("reason", &reason)], count);
    }
}

fn rules(core: &Core, routing: &Routing, page: &mut Page) {
    let by_name: BTreeMap<&str, &RuleShared> =
        routing.rules().map(|rule| (&*rule.name, &*rule.shared)).collect();
    let tallies = by_name.iter().map(|(name, shared)| (*name, &shared.tally));
    let none: (&str, &Tally) = ("", &core.unrouted);
    for (name, tally) in tallies.chain([none]) {
        let (labels, counts) = ([("route", name)], tally.counts());
        page.requests("shiplap_edge_requests_total", &labels, &counts);
        page.histogram("shiplap_edge_request_duration_seconds", &labels, &counts);
    }
}

fn pool_metrics(name: &str, pool: &Pool, page: &mut Page) {
    let (labels, shared) = ([("pool", name)], &pool.shared);
    let load = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::Relaxed);
    page.add("gauge", "shiplap_edge_held", &labels, load(&shared.held));
    page.add("counter", "shiplap_edge_held_total", &labels, load(&shared.held_ever));
    page.add("counter", "shiplap_edge_hold_rejected_total", &labels, load(&shared.rejected));
    page.add("counter", "shiplap_edge_retried_total", &labels, load(&shared.retried));
    if pool.canary.is_some() {
        for group in [Group::Stable, Group::Canary] {
            let labels = [("pool", name), ("group", group.name())];
            let counts = shared.group(group).counts();
            page.requests("shiplap_edge_group_requests_total", &labels, &counts);
            page.histogram("shiplap_edge_group_duration_seconds", &labels, &counts);
        }
    }
    for replica in &pool.replicas {
        replica_metrics(name, replica, page);
    }
}

fn replica_metrics(pool: &str, replica: &Replica, page: &mut Page) {
    let status = replica.status();
    let id = status.id.get(..12).unwrap_or(&status.id);
    let labels = [("pool", pool), ("replica", id)];
    page.add("gauge", "shiplap_edge_replica_up", &labels, (status.up && status.well).into());
    page.add("gauge", "shiplap_edge_in_flight", &labels, status.in_flight);
    for (kind, count) in [
        ("events", status.event_streams),
        ("websocket", status.web_sockets),
        ("other", status.streams - status.event_streams - status.web_sockets),
    ] {
        page.add(
            "gauge",
            "shiplap_edge_streams",
            &[&labels[..], &[("kind", kind)]].concat(),
            count,
        );
    }
    let counts = replica.tally.counts();
    page.requests("shiplap_edge_replica_requests_total", &labels, &counts);
    page.histogram("shiplap_edge_replica_duration_seconds", &labels, &counts);
}
