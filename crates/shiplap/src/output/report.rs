//! How a deployment ended.

use std::fmt::Write as _;

use serde_json::{Value, json};
use shiplap_execute::app::Report;
use shiplap_model::Outcome;

use super::time;

/// For a person.
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    let Some(number) = report.number else { return text };
    let took = time::span(report.took_ms);
    if let Some(other) = &report.taken_over_by {
        let _ = writeln!(
            text,
            "deployment {number} stopped after {took}: {other} has taken over; nothing was \
             changed since, and nothing undone"
        );
        text.push_str("= help: `shiplap history` shows what became of it\n");
        return text;
    }
    let _ = match report.outcome {
        Outcome::Done => writeln!(text, "deployment {number} is done after {took}"),
        Outcome::Failed => {
            writeln!(text, "deployment {number} failed after {took}; nothing was changed")
        }
        Outcome::RolledBack => writeln!(
            text,
            "deployment {number} failed and was undone after {took}; the release before serves"
        ),
        Outcome::Stuck | Outcome::Interrupted => writeln!(
            text,
            "deployment {number} failed after {took} and could not be undone entirely"
        ),
    };
    if let Some(reason) = &report.reason {
        // The lines of its log were shown when it failed.
        let first = reason.lines().next().unwrap_or_default();
        let _ = writeln!(text, "reason: {first}");
    }
    for left in &report.left {
        let _ = writeln!(text, "! left: {left}");
    }
    if report.outcome == Outcome::Stuck {
        text.push_str("= help: mend what is named above, then `shiplap deploy` again\n");
    }
    text
}

/// For a program.
pub fn json(report: &Report) -> Value {
    json!({
        "version": 1,
        "deployment": report.number,
        "outcome": match (report.number, report.outcome) {
            (None, _) => "nothing-to-do".to_owned(),
            (Some(_), outcome) => outcome.to_string().replace(' ', "-"),
        },
        "reason": report.reason,
        "left": report.left,
        "taken_over_by": report.taken_over_by,
        "took_ms": report.took_ms,
        "plan": shiplap_plan::to_json(&report.plan),
    })
}
