//! `top`: live rates per service, as the edge counts them.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shiplap_edge::ClientError;
use shiplap_edge::api::{GroupStatus, PoolStatus, Status};
use shiplap_edge::table::Group;
use shiplap_model::PoolKey;

use super::{Exit, Format};
use crate::cli::{ProjectArgs, TopArgs};
use crate::output::table::columns;

/// Moves the cursor home and clears what is below.
const CLEAR: &str = "\x1b[H\x1b[J";

/// What one group of a service's replicas did between two looks.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    project: String,
    environment: String,
    service: String,
    port: u16,
    group: Group,
    /// Answered, per second.
    rate: f64,
    /// Of these 5xx or not answered, per second.
    errors: f64,
    /// From the first byte in to the last byte out, on average; nothing where nothing was answered.
    mean_ms: Option<f64>,
    /// Sent again after something had gone wrong, per second; of all groups.
    retried: f64,
    /// At replicas now.
    in_flight: u64,
    /// Event streams, WebSockets and other connections that are open now.
    streams: u64,
    /// Requests that wait now; of all groups.
    held: u64,
    /// Whether requests are held on purpose.
    paused: bool,
    /// Replicas that get requests, and all.
    replicas: (usize, usize),
}

impl Row {
    fn json(&self) -> Value {
        json!({
            "project": self.project, "environment": self.environment, "service": self.service,
            "port": self.port, "group": self.group, "requests_per_second": self.rate,
            "errors_per_second": self.errors, "mean_ms": self.mean_ms,
            "retried_per_second": self.retried, "in_flight": self.in_flight,
            "streams": self.streams, "held": self.held, "paused": self.paused,
            "replicas": {"up": self.replicas.0, "all": self.replicas.1},
        })
    }
}

pub async fn top(project: &ProjectArgs, args: &TopArgs, format: Format) -> Exit {
    let (client, _world) = match super::edge::edge_of(project).await {
        Ok(found) => found,
        Err(exit) => return exit,
    };
    let project = project.project_name.as_deref();
    let mut before: Option<(Instant, Status)> = None;
    let mut shown = 0;
    loop {
        let now = match client.status().await {
            Ok(status) => (Instant::now(), status),
            Err(ClientError::Unreachable { .. }) if before.is_none() => {
                eprintln!("error[edge]: no edge runs here");
                eprintln!("  = help: `shiplap deploy` starts it");
                return Exit::Failed;
            }
            Err(error) => {
                eprintln!("error[edge]: {error}");
                return Exit::Failed;
            }
        };
        if let Some((at, status)) = &before {
            let mut rows = rows(status, &now.1, now.0 - *at);
            rows.retain(|row| project.is_none_or(|project| row.project == project));
            if show(&rows, &now.1, format).is_err() {
                // Whoever read it has gone.
                return Exit::Done;
            }
            shown += 1;
            if args.count.is_some_and(|count| shown >= count) {
                return Exit::Done;
            }
        }
        before = Some(now);
        tokio::select! {
            () = tokio::time::sleep(args.interval) => {}
            _ = tokio::signal::ctrl_c() => return Exit::Done,
        }
    }
}

/// What happened between two looks, the busiest first.
fn rows(before: &Status, now: &Status, time: Duration) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    // A worker that was started again counts from nothing.
    let is_same = before.worker_pid == now.worker_pid;
    for (name, pool) in &now.pools {
        let Some(key) = PoolKey::parse(name) else { continue };
        let was = before.pools.get(name).filter(|_| is_same);
        // Before its first answer a pool has no group.
        let mut groups: Vec<Group> = pool.groups.keys().copied().collect();
        if groups.is_empty() {
            groups.push(Group::default());
        }
        rows.extend(groups.into_iter().map(|group| row(&key, group, pool, was, time)));
    }
    let busier = |a: &Row, b: &Row| b.rate.total_cmp(&a.rate);
    rows.sort_by(|a, b| {
        let names = |row: &Row| (row.project.clone(), row.service.clone(), row.port);
        busier(a, b).then_with(|| names(a).cmp(&names(b)))
    });
    rows
}

fn row(
    key: &PoolKey,
    group: Group,
    pool: &PoolStatus,
    was: Option<&PoolStatus>,
    time: Duration,
) -> Row {
    let counted = |pool: &PoolStatus| pool.groups.get(&group).copied().unwrap_or_default();
    let (old, new): (GroupStatus, GroupStatus) =
        (was.map(counted).unwrap_or_default(), counted(pool));
    let per_second = |old: u64, new: u64| new.saturating_sub(old) as f64 / time.as_secs_f64();
    let answered = new.requests.saturating_sub(old.requests);
    let took = new.duration_ms.saturating_sub(old.duration_ms);
    Row {
        project: key.project.clone(),
        environment: key.environment.clone(),
        service: key.service.clone(),
        port: key.port,
        group,
        rate: per_second(old.requests, new.requests),
        errors: per_second(old.errors, new.errors),
        mean_ms: (answered > 0).then(|| took as f64 / answered as f64),
        retried: per_second(was.map_or(0, |was| was.retried), pool.retried),
        in_flight: pool.replicas.iter().map(|replica| replica.in_flight).sum(),
        streams: pool.replicas.iter().map(|replica| replica.streams).sum(),
        held: pool.held,
        paused: pool.paused,
        replicas: (pool.replicas.iter().filter(|r| r.up).count(), pool.replicas.len()),
    }
}

fn show(rows: &[Row], status: &Status, format: Format) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if format == Format::Json {
        let services: Vec<Value> = rows.iter().map(Row::json).collect();
        let line = json!({"version": 1, "services": services});
        return writeln!(out, "{line}");
    }
    if out.is_terminal() {
        write!(out, "{CLEAR}")?;
    }
    let sum = |of: fn(&Row) -> f64| rows.iter().map(of).sum::<f64>();
    writeln!(
        out,
        "edge {}  {:.0} req/s, {:.1} errors/s  {} draining",
        status.version,
        sum(|row| row.rate),
        sum(|row| row.errors),
        status.draining.len(),
    )?;
    for problem in &status.problems {
        writeln!(out, "! {problem}")?;
    }
    write!(out, "{}", text(rows))?;
    out.flush()
}

fn text(rows: &[Row]) -> String {
    let head = [
        "SERVICE",
        "PORT",
        "REQ/S",
        "ERR/S",
        "MEAN MS",
        "IN FLIGHT",
        "STREAMS",
        "HELD",
        "RETRIED/S",
        "REPLICAS",
    ];
    let mut table = vec![head.map(str::to_owned).to_vec()];
    for row in rows {
        let canary = if row.group == Group::default() { "" } else { " (canary)" };
        table.push(vec![
            format!("{}/{}/{}{canary}", row.project, row.environment, row.service),
            row.port.to_string(),
            format!("{:.1}", row.rate),
            format!("{:.1}", row.errors),
            row.mean_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}")),
            row.in_flight.to_string(),
            row.streams.to_string(),
            format!("{}{}", row.held, if row.paused { " (on purpose)" } else { "" }),
            format!("{:.1}", row.retried),
            format!("{}/{}", row.replicas.0, row.replicas.1),
        ]);
    }
    columns(&table)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A status in which `shop`'s api has answered so much.
    fn status(worker: u32, requests: u64, errors: u64, duration_ms: u64, held: u64) -> Status {
        let group = serde_json::to_value(Group::default()).expect("plain");
        let group = group.as_str().expect("a word").to_owned();
        serde_json::from_value(serde_json::json!({
            "schema": 1, "version": "0.1.0", "build": "b", "supervisor_pid": 1, "worker_pid": worker,
            "worker_restarts": 0, "generation": 1, "uptime_ms": 1, "supervisor_uptime_ms": 1,
            "stopping": false, "problems": [], "listeners": [], "draining": [],
            "pools": { "shop/prod/api:8000": {
                "paused": held > 0, "held": held, "hold_rejected": 0, "retried": requests / 10,
                "groups": { group: {
                    "requests": requests, "errors": errors, "duration_ms": duration_ms } },
                "replicas": [{ "id": "a", "address": "172.18.0.2", "port": 8000, "up": true,
                    "in_flight": 3, "streams": 1, "total": requests }],
            } },
        }))
        .expect("a status")
    }

    #[test]
    fn rates_are_what_was_added_between_two_looks() {
        let (before, now) = (status(7, 100, 1, 500, 0), status(7, 300, 3, 1500, 0));
        let rows = rows(&before, &now, Duration::from_secs(2));
        assert_eq!((rows[0].rate, rows[0].errors, rows[0].retried), (100.0, 1.0, 10.0));
        assert_eq!((rows[0].mean_ms, rows[0].in_flight), (Some(5.0), 3));
        let text = text(&rows);
        assert!(
            text.contains("shop/prod/api  8000  100.0  1.0    5.0      3          1"),
            "{text}"
        );
    }

    #[test]
    fn a_worker_that_was_started_again_counts_from_nothing() {
        let (before, now) = (status(7, 1000, 1, 500, 0), status(8, 50, 0, 100, 4));
        let rows = rows(&before, &now, Duration::from_secs(1));
        assert_eq!((rows[0].rate, rows[0].errors), (50.0, 0.0));
        assert!(text(&rows).contains("4 (on purpose)"));
    }

    #[test]
    fn nothing_answered_has_no_mean() {
        let before = status(7, 10, 0, 50, 0);
        let rows = rows(&before, &before.clone(), Duration::from_secs(1));
        assert_eq!((rows[0].rate, rows[0].mean_ms), (0.0, None));
    }
}
