//! Waiting until a new replica works.
//!
//! Success is seen from outside: each published port answers twice in a row on the container's
//! own address, and the container's own health check passes. The check's command is also run
//! here, since an engine runs it for the first time after a whole `interval`, 30 s by default.

use std::future::Future;
use std::sync::Mutex;
use std::time::Duration;

use shiplap_model::{
    ContainerState, Gate, Health, HealthGate, Limit, NetworkAddress, ObservedContainer, PortProbe,
    ProbeKind, ProbeRequest, Protocol, StepId,
};
use tokio::time::Instant;

use super::{Learned, Run, StepError, act, resolve};
use crate::Event;

/// Between looks, at first: the wait for a fast service ends a moment after it is ready.
const EAGER: Duration = Duration::from_millis(50);
/// How long to look so often.
const EAGER_FOR: Duration = Duration::from_secs(10);
/// Between looks afterwards.
const PATIENT: Duration = Duration::from_secs(1);
/// How long one probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest that an engine or an edge that is there takes to answer a simple question.
const LONGEST_ANSWER: Duration = Duration::from_secs(5);
/// Failures of its own check in a row after which what the engine says is believed: the first
/// answer after a thaw may be late.
const REFUTED_IN_A_ROW: u32 = 3;
/// Successes in a row that count.
const IN_A_ROW: u32 = 2;
/// Restarts by the engine after which a replica is given up: a service that dies while its
/// database comes up gets a second and a third chance.
const MOST_RESTARTS: u64 = 3;
/// Lines of its log that are shown when it fails.
const TAIL_LINES: u32 = 10;

/// What is known so far.
#[derive(Default)]
struct Seen {
    answered: u32,
    checks: u32,
    /// How often in a row the container's own check failed, run here.
    refuted: u32,
    connected: bool,
    /// Since when it has been running, as seen from here, and the start that this is about.
    running: Option<(Instant, Option<i64>)>,
    /// Time that was spent waiting for an engine or an edge that was away: it does not count.
    away: Duration,
    last: String,
}

impl Seen {
    /// Asks something, and notes whether nobody was there to answer.
    async fn asking<T>(&mut self, question: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let answer = question.await;
        self.away += began.elapsed().saturating_sub(LONGEST_ANSWER);
        answer
    }
}

pub(super) async fn pass(
    run: &Run,
    step: StepId,
    service: Option<&str>,
    name: &str,
    gate: &Gate,
    learned: &Mutex<Learned>,
) -> Result<(), StepError> {
    let began = Instant::now();
    let mut seen = Seen { last: "it has not been seen running".to_owned(), ..Seen::default() };
    let mut told = String::new();
    let mut command: Option<Option<(Vec<String>, Duration)>> = None;
    loop {
        let Some(container) = seen.asking(run.engine.container(name)).await? else {
            return Err(StepError::Gate(format!("{name} was removed while it was starting")));
        };
        let verdict = match state(&container, gate, &seen) {
            Verdict::Look => look(run, service, &container, gate, &mut seen, &mut command, learned)
                .await
                .map(|works| if works { Verdict::Works } else { Verdict::Look })?,
            other => other,
        };
        match verdict {
            Verdict::Works => return Ok(()),
            Verdict::Fails(why) => {
                return Err(StepError::Gate(with_tail(run, name, format!("{name} {why}")).await));
            }
            Verdict::Look => {}
        }
        if began.elapsed().saturating_sub(seen.away) >= gate.limit {
            let limit = if gate.completes { Limit::Job } else { Limit::Gate };
            let within = gate.limit.as_secs();
            let more = limit.raise(gate.limit);
            let why = format!("{name} did not work within {within} s: {} ({more})", seen.last);
            return Err(StepError::Gate(with_tail(run, name, why).await));
        }
        if seen.last != told && began.elapsed() > PATIENT {
            told.clone_from(&seen.last);
            run.reporter.event(Event::Waiting { step, on: told.clone() });
        }
        let pause = if began.elapsed() < EAGER_FOR { EAGER } else { PATIENT };
        tokio::time::sleep(pause.max(steadying(gate, &seen))).await;
    }
}

/// How long to leave alone what only has to go on running. It is looked at rarely, less and less
/// often: thirty that ask an engine which is starting the others slow it down.
fn steadying(gate: &Gate, seen: &Seen) -> Duration {
    let Some((since, _)) = seen.running else { return Duration::ZERO };
    let ran = since.elapsed();
    gate.steady.saturating_sub(ran).min(ran)
}

enum Verdict {
    Works,
    Look,
    Fails(String),
}

/// What the engine says of the container.
fn state(container: &ObservedContainer, gate: &Gate, seen: &Seen) -> Verdict {
    let job = container.facts.get("restart").is_none();
    match container.state {
        ContainerState::Exited(0) if gate.completes || (job && is_blind(gate)) => Verdict::Works,
        ContainerState::Exited(_) if !gate.completes && act::comes_back(container) => Verdict::Look,
        ContainerState::Exited(code) => Verdict::Fails(format!("exited with {code}")),
        ContainerState::Dead => Verdict::Fails("is dead".to_owned()),
        ContainerState::Paused => Verdict::Fails("is paused".to_owned()),
        _ if container.restarts >= MOST_RESTARTS => {
            Verdict::Fails(format!("keeps crashing: {} restarts", container.restarts))
        }
        // A port that does not answer yet means that it is still booting, whatever its own check
        // says meanwhile: a slow start is not a broken release.
        // What the engine found out while it was frozen says nothing either: we ask ourselves first.
        ContainerState::Running
            if container.health == Some(Health::Unhealthy)
                && seen.refuted >= REFUTED_IN_A_ROW
                && (gate.ports.is_empty() || seen.connected) =>
        {
            Verdict::Fails(format!("is unhealthy: {}", seen.last))
        }
        ContainerState::Running => Verdict::Look,
        ContainerState::Created | ContainerState::Restarting => Verdict::Look,
    }
}

fn is_blind(gate: &Gate) -> bool {
    gate.ports.is_empty() && matches!(gate.healthcheck, HealthGate::None | HealthGate::IfAny)
}

async fn look(
    run: &Run,
    service: Option<&str>,
    container: &ObservedContainer,
    gate: &Gate,
    seen: &mut Seen,
    command: &mut Option<Option<(Vec<String>, Duration)>>,
    learned: &Mutex<Learned>,
) -> Result<bool, StepError> {
    if gate.completes {
        "it has not ended yet".clone_into(&mut seen.last);
        return Ok(false);
    }
    if container.state != ContainerState::Running {
        let last = match act::comes_back(container) {
            true => "it is stopped, and the engine did not start it again yet",
            false => "it restarts",
        };
        *seen = Seen { last: last.to_owned(), away: seen.away, ..Seen::default() };
        return Ok(false);
    }
    // The engine's clock may be another than ours: only what passes here is counted.
    let since = match seen.running {
        Some((since, started)) if started == container.started_ms => since,
        _ => seen.running.insert((Instant::now(), container.started_ms)).0,
    };
    // What listens has come up: that says more than a second in which it did not crash.
    if since.elapsed() < gate.steady && run.engine.listens(container) != Some(true) {
        "it neither listens nor has been running for long enough".clone_into(&mut seen.last);
        return Ok(false);
    }
    if !ports(run, service, container, gate, seen, learned).await? {
        return Ok(false);
    }
    match gate.healthcheck {
        HealthGate::None | HealthGate::Passed => return Ok(true),
        HealthGate::IfAny if container.health.is_none() => return Ok(true),
        HealthGate::IfAny | HealthGate::Pass if container.health == Some(Health::Healthy) => {
            return Ok(true);
        }
        HealthGate::IfAny | HealthGate::Pass => {}
    }
    healthcheck(run, container, gate, seen, command).await
}

/// Whether every port has answered often enough.
async fn ports(
    run: &Run,
    service: Option<&str>,
    container: &ObservedContainer,
    gate: &Gate,
    seen: &mut Seen,
    learned: &Mutex<Learned>,
) -> Result<bool, StepError> {
    if gate.ports.is_empty() {
        return Ok(true);
    }
    let Some(address) = resolve::address(container, &[]) else {
        "it has no address yet".clone_into(&mut seen.last);
        return Ok(false);
    };
    // It is not looked at in between: a slow engine would let held requests wait for nothing.
    loop {
        if !answers(run, service, container, address, gate, seen, learned).await? {
            return Ok(false);
        }
        seen.answered += 1;
        if seen.answered >= IN_A_ROW {
            return Ok(true);
        }
        tokio::time::sleep(EAGER).await;
    }
}

/// Whether every port answers.
async fn answers(
    run: &Run,
    service: Option<&str>,
    container: &ObservedContainer,
    address: NetworkAddress,
    gate: &Gate,
    seen: &mut Seen,
    learned: &Mutex<Learned>,
) -> Result<bool, StepError> {
    for probe in &gate.ports {
        let request = ProbeRequest {
            address: address.address,
            port: probe.port,
            kind: kind(probe),
            path: probe.path.clone(),
            timeout: PROBE_TIMEOUT,
        };
        let outcome = seen.asking(run.router.probe(&request)).await?;
        let status_is_fine = match outcome.http_status {
            // The service's own check knows better than a status of `/`.
            Some(_) if container.health.is_some() => true,
            Some(status) => status < 500,
            None => true,
        };
        if outcome.answered {
            seen.connected = true;
        }
        if !outcome.answered || !status_is_fine {
            seen.answered = 0;
            seen.last = match (outcome.http_status, outcome.error) {
                (Some(status), _) => format!("port {} answers {status}", probe.port),
                (None, Some(error)) => format!("port {}: {error}", probe.port),
                (None, None) => format!("port {} does not answer", probe.port),
            };
            return Ok(false);
        }
        if let (Some(service), Some(protocol)) = (service, outcome.protocol) {
            let mut learned = learned.lock().expect("no step panics");
            learned.protocols.insert((service.to_owned(), probe.port), protocol);
        }
    }
    Ok(true)
}

fn kind(probe: &PortProbe) -> ProbeKind {
    match probe.protocol {
        Some(Protocol::Http) => ProbeKind::Http,
        Some(Protocol::Http2) => ProbeKind::Http2,
        Some(Protocol::Tcp) => ProbeKind::Tcp,
        None => ProbeKind::Auto,
    }
}

/// Runs the container's own check, without waiting for the engine to do so.
async fn healthcheck(
    run: &Run,
    container: &ObservedContainer,
    gate: &Gate,
    seen: &mut Seen,
    command: &mut Option<Option<(Vec<String>, Duration)>>,
) -> Result<bool, StepError> {
    if command.is_none() {
        *command = Some(seen.asking(run.engine.healthcheck(&container.id)).await?);
    }
    let Some(Some((test, limit))) = command else {
        "its health check has not passed yet".clone_into(&mut seen.last);
        return Ok(false);
    };
    match run.engine.exec(&container.id, test, *limit).await {
        Ok(result) if result.exit_code == 0 => {
            seen.checks += 1;
            seen.refuted = 0;
            // A port that answers has shown that the process serves; where nothing else speaks
            // for it, one success may be the temporary server of a database's first start.
            let enough = if gate.ports.is_empty() { IN_A_ROW } else { 1 };
            "its health check has passed only once".clone_into(&mut seen.last);
            Ok(seen.checks >= enough)
        }
        Ok(result) => {
            seen.checks = 0;
            seen.refuted += 1;
            let said = result.output.trim().lines().last().unwrap_or_default().trim().to_owned();
            let said = if said.is_empty() { said } else { format!(": {said}") };
            seen.last = format!("its health check ended with {}{said}", result.exit_code);
            Ok(false)
        }
        // The container may be on its way out; the next look tells.
        Err(error) => {
            seen.checks = 0;
            seen.last = format!("its health check could not be run: {}", error.message);
            Ok(false)
        }
    }
}

/// Appends the last lines of a container's log to a reason.
pub(super) async fn with_tail(run: &Run, name: &str, why: String) -> String {
    match run.engine.tail(name, TAIL_LINES).await {
        Ok(lines) if !lines.is_empty() => {
            format!("{why}\nlast lines of {name}:\n  {}", lines.join("\n  "))
        }
        _ => why,
    }
}
