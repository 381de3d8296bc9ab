//! What became of several environments that were deployed together.

use serde_json::{Map, Value, json};
use shiplap_execute::app::Ended;

use super::report;

/// For a person: each line under the name of its environment.
pub fn text(name: &str, ended: &Ended) -> String {
    let text = match ended {
        Ended::Reported(report) if report.declined => report::declined(report),
        Ended::Reported(report) if report.number.is_none() => "nothing to do".to_owned(),
        Ended::Reported(report) => report::text(report),
        Ended::NothingToResume => "nothing to resume".to_owned(),
        Ended::HeldBack => "not begun: nothing was changed".to_owned(),
        // It was told with the error.
        Ended::Refused(_) => String::new(),
    };
    text.lines().map(|line| format!("{name}: {line}\n")).collect()
}

/// One document for a program: a report per environment.
pub fn json<'a>(group: &str, results: impl IntoIterator<Item = &'a (String, Ended)>) -> Value {
    let member = |(name, ended): &'a (String, Ended)| {
        let document = match ended {
            Ended::Reported(report) => report::json(report),
            Ended::NothingToResume => report::nothing_json(),
            Ended::HeldBack => outcome("held-back", None),
            Ended::Refused(error) => outcome("refused", Some(error.to_string())),
        };
        (name.clone(), document)
    };
    of(group, results.into_iter().map(member).collect())
}

fn outcome(outcome: &str, reason: Option<String>) -> Value {
    json!({ "version": 1, "deployment": null, "outcome": outcome, "reason": reason })
}

/// One document out of one for each environment.
pub fn of(group: &str, members: Map<String, Value>) -> Value {
    json!({ "version": 1, "group": group, "members": members })
}
