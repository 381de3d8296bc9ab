//! A plan as text and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};
use shiplap_model::{Action, Change, ChangeKind, Goal, Phase, Plan, RouteLine, Step};

/// The plan as a person reads it: one line per service, what to know, how many steps.
#[must_use]
pub fn render(plan: &Plan) -> String {
    let mut text = String::new();
    let (kept, shown): (Vec<&Change>, Vec<&Change>) =
        plan.changes.iter().partition(|change| change.kind == ChangeKind::Keep);
    let rows: Vec<[String; 5]> = shown.iter().map(|change| row(change)).collect();
    let widths: Vec<usize> = (0..4)
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let pad = width - cell.chars().count();
            if *width > 0 {
                let _ = write!(line, "{cell}{:pad$}  ", "");
            }
        }
        line.push_str(&row[4]);
        let _ = writeln!(text, "{}", line.trim_end());
    }
    if !kept.is_empty() {
        let names: Vec<&str> = kept.iter().map(|change| change.service.as_str()).collect();
        let _ = writeln!(text, "= {}  unchanged", names.join(" "));
    }
    for route in &plan.routes {
        let sign = match route.kind {
            ChangeKind::Create => '+',
            ChangeKind::Remove => '-',
            _ => '~',
        };
        let to = route.to.as_ref().map(|to| format!(" → {to}")).unwrap_or_default();
        let policy = match route.policy.as_slice() {
            [] => String::new(),
            words => format!("  ({})", words.join(", ")),
        };
        let _ = writeln!(text, "{sign} {}{to}{policy}", route.what);
    }
    for note in &plan.notes {
        let _ = writeln!(text, "! {}", note.text);
    }
    for step in &plan.steps {
        if let Action::RemoveVolume { name } = &step.action {
            let _ = writeln!(text, "! volume {name} is removed with all that is in it");
        }
    }
    for volume in &plan.kept_volumes {
        let _ = writeln!(text, "! volume {volume} stays; `down --volumes` removes it");
    }
    let _ = writeln!(text, "{}", closing(plan));
    text
}

fn row(change: &Change) -> [String; 5] {
    let sign = match change.kind {
        ChangeKind::Create => '+',
        ChangeKind::Replace | ChangeKind::Scale | ChangeKind::Route => '~',
        ChangeKind::Remove => '-',
        ChangeKind::Keep => '=',
        ChangeKind::Orphan => '?',
    };
    let images = match (&change.from_image, &change.to_image) {
        (Some(from), Some(to)) if *from != to.short() => format!("{from} → {}", to.short()),
        (None, Some(to)) => to.reference.clone(),
        _ => String::new(),
    };
    let causes: Vec<String> = change.causes.iter().map(ToString::to_string).collect();
    let how = match &change.strategy {
        Some((strategy, _)) => strategy.to_string(),
        None => String::new(),
    };
    [format!("{sign} {}", change.service), images, causes.join(", "), how, remarks(change)]
}

fn remarks(change: &Change) -> String {
    let mut remarks = Vec::new();
    if let Some((_, reason)) = &change.strategy {
        remarks.push(reason.clone());
    }
    if change.replicas != 1 && !matches!(change.kind, ChangeKind::Remove | ChangeKind::Orphan) {
        remarks.push(format!("{} replicas", change.replicas));
    }
    match change.revives {
        Some(0) => remarks.push("the container from before comes back".to_owned()),
        Some(number) => remarks.push(format!("the container of deployment {number} comes back")),
        None => {}
    }
    remarks.extend(change.details.iter().cloned());
    if let Some(gate) = &change.gate {
        remarks.push(format!("gate: {gate}"));
    }
    if remarks.is_empty() { String::new() } else { format!("({})", remarks.join("; ")) }
}

fn closing(plan: &Plan) -> String {
    let count = plan.steps.len();
    if count == 0 {
        return "nothing to do".to_owned();
    }
    let steps = if count == 1 { "1 step".to_owned() } else { format!("{count} steps") };
    match no_way_back(&plan.steps) {
        Some(step) if plan.steps.iter().any(|s| s.phase != Phase::Tidy) => {
            format!("{steps}; undone by itself until step {} ({})", step.id.0, step.action)
        }
        _ => steps,
    }
}

/// The first step after which a failure is not undone any more.
fn no_way_back(steps: &[Step]) -> Option<&Step> {
    steps.iter().find(|step| step.phase == Phase::Tidy)
}

/// The plan as data. The form is versioned; no value of the environment is in it.
#[must_use]
pub fn to_json(plan: &Plan) -> Value {
    let (goal, rollback_to) = match plan.goal {
        Goal::Deploy => ("deploy", None),
        Goal::Promote { .. } => ("promote", None),
        Goal::Rollback { to } => ("rollback", Some(to)),
        Goal::Restart => ("restart", None),
        Goal::Scale => ("scale", None),
        Goal::Down => ("down", None),
        Goal::Withdraw => ("withdraw", None),
        Goal::Abandon => ("abandon", None),
    };
    json!({
        "version": 1,
        "goal": goal,
        "rollback_to": rollback_to,
        "promotes": match &plan.goal {
            Goal::Promote { from, number } => Some(json!({"environment": from, "deployment": number})),
            _ => None,
        },
        "project": plan.project,
        "environment": plan.environment,
        "empty": plan.is_empty(),
        "services": plan.changes.iter().map(change_json).collect::<Vec<_>>(),
        "routes": plan.routes.iter().map(route_json).collect::<Vec<_>>(),
        "notes": plan
            .notes
            .iter()
            .map(|note| json!({"code": note.code, "text": note.text}))
            .collect::<Vec<_>>(),
        "kept_volumes": plan.kept_volumes,
        "steps": plan.steps.iter().map(step_json).collect::<Vec<_>>(),
    })
}

fn kind_word(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Keep => "keep",
        ChangeKind::Create => "create",
        ChangeKind::Replace => "replace",
        ChangeKind::Scale => "scale",
        ChangeKind::Route => "route",
        ChangeKind::Remove => "remove",
        ChangeKind::Orphan => "orphan",
    }
}

fn route_json(line: &RouteLine) -> Value {
    json!({
        "route": line.what,
        "change": kind_word(line.kind),
        "to": line.to,
        "policy": line.policy,
    })
}

fn change_json(change: &Change) -> Value {
    json!({
        "service": change.service,
        "change": kind_word(change.kind),
        "causes": change.causes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "image": change.to_image.as_ref().map(|image| json!({
            "reference": image.reference,
            "id": image.id,
            "digest": image.digest,
        })),
        "from_image": change.from_image,
        "strategy": change.strategy.as_ref().map(|(strategy, reason)| json!({
            "order": strategy.to_string(),
            "reason": reason,
        })),
        "replicas": change.replicas,
        "gate": change.gate,
        "revives_deployment": change.revives,
        "details": change.details,
    })
}

fn step_json(step: &Step) -> Value {
    let phase = match step.phase {
        Phase::Prepare => "prepare",
        Phase::Change => "change",
        Phase::Tidy => "tidy",
    };
    json!({
        "id": step.id.0,
        "what": step.action.to_string(),
        "after": step.after.iter().map(|id| id.0).collect::<Vec<_>>(),
        "service": step.service,
        "phase": phase,
        "requires": match &step.action {
            Action::Require(requirement) => Some(requirement.kind.word()),
            _ => None,
        },
        "undoable": step.phase != Phase::Tidy,
    })
}

/// The steps, one line each: number, what they wait for, what they do.
#[must_use]
pub fn render_steps(plan: &Plan) -> String {
    let mut text = String::new();
    for step in &plan.steps {
        let after: Vec<String> = step.after.iter().map(|id| id.0.to_string()).collect();
        let after = if after.is_empty() { String::new() } else { format!("<-{}", after.join(",")) };
        let _ = writeln!(text, "{:<3} {after:<12} {}", step.id.0, step.action);
    }
    text
}
