//! How a deployment ended.

use std::fmt::Write as _;

use serde_json::{Value, json};
use shiplap_execute::app::{Choice, JobEnd, OnInterrupted, Report};
use shiplap_model::{Goal, Outcome};

use super::time;

/// For a person.
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    if let Some(settled) = &report.settled {
        text.push_str(&self::text(settled));
    }
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
    let before = match report.plan.goal {
        Goal::Withdraw => "what ran before it serves",
        Goal::Deploy
        | Goal::Promote { .. }
        | Goal::Rollback { .. }
        | Goal::Restart
        | Goal::Scale
        | Goal::Down
        | Goal::Abandon => "the release before serves",
    };
    let _ = match (report.outcome, report.resumed) {
        (Outcome::Done, _) => writeln!(text, "deployment {number} is done after {took}"),
        (Outcome::Failed, _) => {
            writeln!(text, "deployment {number} failed after {took}; nothing was changed")
        }
        (Outcome::RolledBack, Some(_)) => {
            writeln!(text, "deployment {number} was undone after {took}; {before}")
        }
        (Outcome::RolledBack, None) => {
            writeln!(text, "deployment {number} failed and was undone after {took}; {before}")
        }
        (Outcome::Interrupted, _) => {
            writeln!(text, "deployment {number} was left as it is; it counts as ended")
        }
        (Outcome::Stuck, _) => writeln!(
            text,
            "deployment {number} failed after {took} and could not be undone entirely"
        ),
    };
    if let Some(reason) = &report.reason {
        // The lines of its log were shown when it failed.
        let first = reason.lines().next().unwrap_or_default();
        let _ = writeln!(text, "reason: {first}");
    }
    if report.outcome != Outcome::Done {
        for (job, end) in &report.jobs {
            let what = match end {
                JobEnd::NotRun => "was not run: no data was changed by it",
                JobEnd::Failed => {
                    "had begun and did not end well: what it had changed in data by then stays, \
                     unless it took it back itself"
                }
                JobEnd::Done => "has run: what it changed in data stays",
            };
            let _ = writeln!(text, "job {job} {what}");
        }
    }
    for left in &report.left {
        let _ = writeln!(text, "! left: {left}");
    }
    if report.outcome == Outcome::Stuck {
        text.push_str(
            "= help: mend what is named above, then `shiplap resume` goes on from there (`--back` \
             or `--forward` to choose the way)\n",
        );
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
        "jobs": report.jobs.iter().map(|(job, end)| {
            let end = match end {
                JobEnd::NotRun => "not-run",
                JobEnd::Failed => "failed",
                JobEnd::Done => "done",
            };
            (job.clone(), end.into())
        }).collect::<serde_json::Map<String, Value>>(),
        "taken_over_by": report.taken_over_by,
        "resumed": report.resumed.map(|(choice, direction)| json!({
            "asked": asked(choice),
            "direction": direction,
        })),
        "settled": report.settled.as_ref().map(|settled| json(settled)),
        "took_ms": report.took_ms,
        "plan": shiplap_plan::to_json(&report.plan),
    })
}

fn asked(choice: Choice) -> &'static str {
    match choice {
        Choice::Settle(OnInterrupted::Auto) => "auto",
        Choice::Settle(OnInterrupted::Forward) => "forward",
        Choice::Settle(OnInterrupted::Back) => "back",
        Choice::Abandon => "abandon",
    }
}

/// For a program, where there was no deployment to resume.
pub fn nothing_json() -> Value {
    json!({
        "version": 1,
        "deployment": null,
        "outcome": "nothing-to-do",
        "reason": null,
        "left": [],
        "resumed": null,
        "settled": null,
        "took_ms": 0,
        "plan": null,
    })
}

/// After the user said no.
pub fn declined(report: &Report) -> String {
    let mut text = String::new();
    match (&report.settled, report.resumed, report.number) {
        (Some(settled), _, _) => {
            text.push_str(&self::text(settled));
            text.push_str("nothing else was changed");
        }
        (None, Some(_), Some(number)) => {
            let _ = write!(text, "nothing was changed; deployment {number} stays unfinished");
        }
        (None, _, _) => text.push_str("nothing was changed"),
    }
    text
}
