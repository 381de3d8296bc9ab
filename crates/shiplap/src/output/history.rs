//! Deployments.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};
use shiplap_model::{
    Deployment, DeploymentState, Journal, JournalEntry, JournalFact, Resumption, Scope, StepState,
};

use super::table::columns;
use super::time;

/// A list for a person.
pub fn text(scope: &Scope, deployments: &[Deployment]) -> String {
    if deployments.is_empty() {
        return format!("{scope} has no deployments yet\n");
    }
    let rows: Vec<Vec<String>> = deployments
        .iter()
        .map(|deployment| {
            vec![
                deployment.number.to_string(),
                time::moment(deployment.started_ms),
                kind(deployment),
                state(deployment),
                changed(deployment),
                deployment.who.clone(),
                deployment.message.clone().unwrap_or_default(),
            ]
        })
        .collect();
    columns(&rows)
}

fn kind(deployment: &Deployment) -> String {
    match deployment.plan["rollback_to"].as_u64() {
        Some(to) => format!("rollback to {to}"),
        None => deployment.kind.clone(),
    }
}

fn state(deployment: &Deployment) -> String {
    match &deployment.state {
        DeploymentState::Unfinished => "unfinished".to_owned(),
        DeploymentState::Ended { at_ms, outcome, .. } => {
            format!("{outcome} after {}", time::span(at_ms - deployment.started_ms))
        }
    }
}

/// The services that it touched.
fn changed(deployment: &Deployment) -> String {
    let services = deployment.plan["services"].as_array();
    let touched: Vec<&str> = services
        .into_iter()
        .flatten()
        .filter(|service| !matches!(service["change"].as_str(), Some("keep" | "orphan") | None))
        .filter_map(|service| service["service"].as_str())
        .collect();
    touched.join(" ")
}

/// A list for a program.
pub fn json(deployments: &[Deployment]) -> Value {
    json!({
        "version": 1,
        "deployments": deployments.iter().map(brief).collect::<Vec<_>>(),
    })
}

/// One of them, without plan and journal.
pub fn brief(deployment: &Deployment) -> Value {
    let (outcome, ended, reason) = match &deployment.state {
        DeploymentState::Unfinished => (None, None, None),
        DeploymentState::Ended { at_ms, outcome, reason } => {
            (Some(outcome.to_string().replace(' ', "-")), Some(time::stamp(*at_ms)), reason.clone())
        }
    };
    json!({
        "number": deployment.number,
        "kind": deployment.kind,
        "rollback_to": deployment.plan["rollback_to"],
        "who": deployment.who,
        "message": deployment.message,
        "started": time::stamp(deployment.started_ms),
        "ended": ended,
        "outcome": outcome,
        "reason": reason,
        "release": deployment.release,
    })
}

/// One deployment for a person.
pub fn one_text(deployment: &Deployment, journal: &Journal) -> String {
    let mut text = format!(
        "deployment {} of {}: {} by {} at {}, {}\n",
        deployment.number,
        deployment.scope,
        kind(deployment),
        deployment.who,
        time::moment(deployment.started_ms),
        state(deployment)
    );
    let request = deployment.request.as_ref();
    if let Some(name) = request.and_then(|request| request.approved_by.as_ref()) {
        let _ = writeln!(text, "approved by: {name}");
    }
    if let Some(order) = request.and_then(|request| request.order) {
        let _ = writeln!(text, "order: {order}");
    }
    if let Some(revision) = request.and_then(|request| request.revision.as_ref()) {
        let _ = writeln!(text, "revision: {revision}");
    }
    if let Some(group) = request.and_then(|request| request.group.as_ref()) {
        let members: Vec<&str> = group.members.iter().map(String::as_str).collect();
        let _ = writeln!(text, "group: {} ({})", group.name, members.join(", "));
    }
    if let Some(message) = &deployment.message {
        let _ = writeln!(text, "why: {message}");
    }
    if let DeploymentState::Ended { reason: Some(reason), .. } = &deployment.state {
        let _ = writeln!(text, "reason: {reason}");
    }
    let rows: Vec<Vec<String>> = deployment
        .release
        .services
        .iter()
        .map(|(name, service)| {
            let image = &service.image;
            let identity = image.id.as_deref().or(image.digest.as_deref()).unwrap_or("?");
            vec![
                format!("  {name}"),
                image.reference.clone(),
                identity.trim_start_matches("sha256:").chars().take(12).collect(),
                match service.replicas {
                    1 => "1 replica".to_owned(),
                    count => format!("{count} replicas"),
                },
            ]
        })
        .collect();
    text.push_str(&columns(&rows));
    if let Some(secrets) = versions(deployment) {
        let list: Vec<String> =
            secrets.iter().map(|(name, version)| format!("{name} {version}")).collect();
        let _ = writeln!(text, "secrets, by version: {}", list.join(", "));
    }
    let mut rows = Vec::new();
    for fact in &journal.facts {
        match fact {
            JournalFact::Step(entry) => rows.extend(step_row(deployment, entry)),
            JournalFact::Resumed(resumption) => {
                text.push_str(&columns(&std::mem::take(&mut rows)));
                text.push_str(&resumed(deployment, resumption));
            }
            JournalFact::Ended(_) => {}
        }
    }
    text.push_str(&columns(&rows));
    text
}

/// Which versions of which secrets it was made with, if any.
fn versions(deployment: &Deployment) -> Option<&BTreeMap<String, u32>> {
    let request = deployment.request.as_ref();
    request.map(|request| &request.secrets).filter(|secrets| !secrets.is_empty())
}

fn step_row(deployment: &Deployment, entry: &JournalEntry) -> Option<Vec<String>> {
    let state = match entry.state {
        StepState::Started | StepState::UndoStarted => return None,
        StepState::Finished => "finished",
        StepState::Failed => "failed",
        StepState::Undone => "undone",
        StepState::UndoFailed => "undo failed",
    };
    Some(vec![
        time::span(entry.at_ms - deployment.started_ms),
        entry.step.to_string(),
        state.to_owned(),
        entry.what.clone(),
        entry.detail.as_deref().map(first_line).unwrap_or_default(),
    ])
}

/// From here on another deployer was at it, with a plan of its own.
fn resumed(deployment: &Deployment, resumption: &Resumption) -> String {
    let mut text = format!(
        "resumed ({}) by {} after {}\n",
        resumption.direction,
        resumption.who,
        time::span(resumption.at_ms - deployment.started_ms)
    );
    if let Some(message) = &resumption.message {
        let _ = writeln!(text, "  why: {message}");
    }
    for found in &resumption.found {
        let _ = writeln!(text, "  found: {found}");
    }
    text
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// One deployment for a program.
pub fn one_json(deployment: &Deployment, journal: &Journal) -> Value {
    let mut document = brief(deployment);
    document["version"] = json!(1);
    document["plan"] = deployment.plan.clone();
    document["secrets"] = json!(versions(deployment).cloned().unwrap_or_default());
    let line = |(attempt, entry): (usize, &JournalEntry)| {
        let mut line = json!(entry);
        line["attempt"] = json!(attempt);
        line
    };
    document["journal"] = journal.steps().map(line).collect();
    document["resumed"] = journal
        .resumptions()
        .map(|resumption| {
            json!({
                "who": resumption.who,
                "message": resumption.message,
                "generation": resumption.generation,
                "direction": resumption.direction,
                "found": resumption.found,
                "at": time::stamp(resumption.at_ms),
                "plan": resumption.plan,
            })
        })
        .collect();
    document
}
