//! A deployment that did not end.

use serde_json::{Value, json};
use shiplap_execute::app::Unfinished;
use shiplap_model::{LeaseHeld, Outcome};

use super::time;

/// For a person: what it is, how far it has come, who and since when, and what to type. While
/// somebody holds the lease, it is in progress.
pub fn text(unfinished: &Unfinished, holder: Option<&LeaseHeld>) -> String {
    let number = unfinished.number();
    let kind = &unfinished.deployment.kind;
    let since = time::moment(unfinished.since_ms);
    let last = unfinished.last_words();
    if let Some(holder) = holder {
        return format!(
            "! deployment {number} ({kind}) is under way: {} is at it since {since}; {last}\n",
            holder.holder
        );
    }
    let what = match unfinished.state.end() {
        Some(_) => "is stuck",
        None => "did not end",
    };
    let request = unfinished.deployment.request.as_ref();
    let group = request.and_then(|request| request.group.as_ref());
    let help = match group {
        Some(group) => format!(
            "it is part of a deployment of {0}: `shiplap -e {0} resume` ends all of it alike",
            group.name
        ),
        None => "`shiplap resume` takes it up, on or back; `shiplap rollback` goes back; \
                 `shiplap deploy` takes over"
            .to_owned(),
    };
    format!(
        "! deployment {number} ({kind} by {}, begun {since}) {what}: {last}\n  = help: {help}\n",
        unfinished.who
    )
}

/// For a program.
pub fn json(unfinished: &Unfinished) -> Value {
    json!({
        "deployment": unfinished.number(),
        "kind": unfinished.deployment.kind,
        "who": unfinished.who,
        "since": time::stamp(unfinished.since_ms),
        "stuck": unfinished.state.end() == Some(Outcome::Stuck),
        "attempts": unfinished.state.attempts().len(),
        "last_step": unfinished.last_step(),
    })
}
