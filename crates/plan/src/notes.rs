//! What a user should know before acting.

use shiplap_model::{ChangeKind, Goal, HealthGate, ImageOrigin, ImagePin, Names, Note};

use crate::assemble::Context;

pub(crate) fn notes(context: &Context<'_>) -> Vec<Note> {
    let mut notes = Vec::new();
    for name in &context.order {
        let service = &context.services[name];
        let gate = &service.gate;
        if service.starting().next().is_some()
            && gate.ports.is_empty()
            && gate.healthcheck == HealthGate::None
            && !gate.completes
        {
            notes.push(note(
                "no-gate",
                format!(
                    "{name} has no health check and no published port: it only has to listen on a port, \
                     or run for {} s",
                    gate.steady.as_secs_f32()
                ),
            ));
        }
        if service.changes() && is_latest(&service.spec.image) {
            let image = &service.spec.image;
            notes.push(note(
                "latest-pinned",
                format!(
                    "{name} runs {} as it is now ({}): what is pushed to that tag later comes with \
                     `deploy --pull`",
                    image.reference,
                    image.short()
                ),
            ));
        }
        // Where the very job has run last, nobody expects anything else.
        let ran_last =
            service.keep.iter().any(|c| service.spec.image.id.as_deref() == Some(&c.image_id));
        if service.counts_as_done && !ran_last {
            notes.push(job_done(context, name));
        }
        if service.kind != ChangeKind::Replace || !service.changes() || gate.completes {
            continue;
        }
        if crate::assemble::takes_over(context, service) {
            let ports = service.leave.iter().flat_map(|c| &c.published).map(|p| p.host_port);
            let mut ports: Vec<String> = ports.map(|port| port.to_string()).collect();
            ports.sort();
            ports.dedup();
            notes.push(note(
                "port-moves",
                format!(
                    "port {} moves from the engine to the edge: {name} misses requests while its \
                     old container stops, this once",
                    ports.join(", ")
                ),
            ));
        } else if service.stops_first() {
            notes.push(down_while(context, name, &service.reason));
        } else if service.leave.iter().any(|old| old.names == Names::Own)
            && !context.dependents(name).is_empty()
            && !service.gate.completes
        {
            notes.push(inner_calls(context, name));
        }
    }
    for (key, network) in context.desired.compose.networks.iter().filter(|(_, n)| !n.external) {
        let name = network.name.as_deref().unwrap_or(key);
        let Some(observed) = context.observed.networks.get(name) else { continue };
        let driver = network.driver.as_deref().unwrap_or("bridge");
        let driver_differs =
            !observed.driver.is_empty() && network.driver.is_some() && observed.driver != driver;
        if driver_differs || observed.internal != network.internal {
            notes.push(note(
                "network-differs",
                format!(
                    "network {name} stays as it is, though the file now says otherwise: `down` \
                     and `deploy` make it anew"
                ),
            ));
        }
    }
    for (name, containers) in &context.orphans {
        if !containers.iter().all(|c| crate::orphans::goes(c, context.policy)) {
            notes.push(note(
                "orphan",
                format!(
                    "{name} is not in the Compose file and stays ({}); --remove-orphans removes it",
                    containers.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ")
                ),
            ));
        }
    }
    for (name, service) in &context.services {
        if service.changes() && service.spec.image.origin == ImageOrigin::Build {
            notes.push(note(
                "build",
                format!(
                    "{name} is built here: {} is in no registry that answers",
                    service.spec.image.reference
                ),
            ));
        }
    }
    notes
}

/// Whether an image of a registry goes by the tag that everybody moves.
fn is_latest(image: &ImagePin) -> bool {
    let known = image.digest.is_some();
    known && image.reference.ends_with(":latest")
}

/// A job that is not run, and how to run it all the same.
fn job_done(context: &Context<'_>, name: &str) -> Note {
    let why = match context.policy.goal {
        Goal::Rollback { .. } => "its work on newer data could fail or destroy",
        Goal::Deploy
        | Goal::Promote { .. }
        | Goal::Restart
        | Goal::Scale
        | Goal::Down
        | Goal::Withdraw
        | Goal::Abandon => "it has ended",
    };
    let text = format!("{name} is a job and is not run again ({why}); `restart {name}` runs it");
    note("job-done", text)
}

/// Callers inside the networks, where the old replica still carries its names itself.
fn inner_calls(context: &Context<'_>, name: &str) -> Note {
    let callers = context.dependents(name).into_iter().collect::<Vec<_>>().join(", ");
    let text = match context.naming.of(name) {
        Names::Held => format!(
            "{name} gets a lasting address inside the networks, this once: what looked it up \
             before and keeps the address ({callers}) must be restarted afterwards"
        ),
        Names::Own => format!(
            "calls from {callers} to {name} inside the network go to the engine's own names and \
             may meet the old replica as it stops"
        ),
    };
    note("inner-calls", text)
}

fn down_while(context: &Context<'_>, name: &str, reason: &str) -> Note {
    let held: Vec<&str> = context
        .dependents(name)
        .into_iter()
        .chain([name])
        .filter(|service| !context.wanted[service].is_empty())
        .collect();
    let text = if held.is_empty() {
        format!("{name} is down while it restarts ({reason})")
    } else {
        format!(
            "{name} is down while it restarts ({reason}); requests to {} are held meanwhile",
            held.join(", ")
        )
    };
    note("stop-first", text)
}

fn note(code: &'static str, text: String) -> Note {
    Note { code, text }
}
