//! A deployer that dies or is told to stop, at any moment.

use std::time::Duration;

use rustix::process::Signal;
use shiplap_scenarios::{Lab, Running, Traffic, until};

use crate::projects::{API, STORE};

const LIMIT: Duration = Duration::from_secs(30);

/// Waits until the journal of the running deployment has a line.
pub fn journal_has(lab: &Lab, number: u64, what: &str, state: &str) {
    until(&format!("`{what}` {state}"), LIMIT, || {
        let newest = lab.newest()?;
        let journal = newest["journal"].as_array()?;
        let is_it = |line: &&serde_json::Value| {
            let words = line["what"].as_str().unwrap_or_default();
            words.starts_with(what) && line["state"] == state
        };
        (newest["number"] == number && journal.iter().any(|line| is_it(&line))).then_some(())
    });
}

/// Kills it; false if it had ended by then.
pub fn kill(deployer: Running) -> bool {
    deployer.signal(Signal::KILL);
    let run = deployer.finish();
    assert!(matches!(run.code, None | Some(0)), "{}", run.all());
    run.code.is_none()
}

/// Kills the second deployment at a moment, deploys again, and looks at what that came to.
fn killed_at(purpose: &str, what: &str, state: &str) {
    let Some(lab) = Lab::new(purpose) else { return };
    lab.compose(API);
    lab.deploy("v1").ok();
    let traffic = Traffic::to_api(lab.api);
    lab.set("TAG", "v2");
    // Long enough to be met in the watch; the others come when they come.
    lab.set("MONITOR", if what == "watch" { "10s" } else { "500ms" });
    let deployer = lab.start(&["deploy", "--yes"]);
    journal_has(&lab, 2, what, state);
    let killed = kill(deployer);
    lab.set("MONITOR", "500ms");
    let made_good = lab.deploy("v2").ok();
    traffic.answered_by("v2");
    traffic.end_without_a_drop();
    assert_eq!(lab.running()["api"].len(), 1, "{}", made_good.all());
    lab.deploy("v2").ok().says("nothing to do");
    // The same again goes on under its number; with another `monitor` it is not the same.
    let shown = lab.run(&["show", "2", "--json"]).ok().json();
    let taken_over = killed && what == "watch";
    assert_eq!(shown["outcome"], if taken_over { "interrupted" } else { "done" });
    let resumed = usize::from(killed && !taken_over);
    assert_eq!(shown["resumed"].as_array().map(Vec::len), Some(resumed), "{shown:#}");
    lab.run(&["history", "--verify"]).ok();
    // The one before may be kept for a rollback; nothing else.
    let containers = lab.engine.containers(&lab.project);
    assert!(containers.len() <= 2, "{containers:#?}");
}

#[test]
fn deployer_killed_in_creating_is_made_good() {
    killed_at("killcreate", "create", "started");
}

#[test]
fn deployer_killed_at_the_gate_is_made_good() {
    killed_at("killgate", "gate", "started");
}

#[test]
fn deployer_killed_in_switching_is_made_good() {
    killed_at("killswitch", "switch", "started");
}

#[test]
fn deployer_killed_in_watching_is_made_good() {
    killed_at("killwatch", "watch", "started");
}

#[test]
fn deployer_killed_in_tidying_is_made_good() {
    killed_at("killtidy", "drain", "started");
}

#[test]
fn deployer_killed_while_requests_are_held_loses_none() {
    let Some(lab) = Lab::new("killhold") else { return };
    lab.compose(STORE);
    lab.deploy("v1").ok();
    let traffic = Traffic::to_store(lab.store);
    lab.set("TAG", "v2");
    let deployer = lab.start(&["deploy", "--yes"]);
    journal_has(&lab, 2, "stop", "finished");
    assert!(kill(deployer));
    lab.deploy("v2").ok();
    traffic.answered_by("v2");
    traffic.end_without_a_drop();
    assert_eq!(lab.running()["store"].len(), 1);
}

#[test]
fn rollback_after_a_killed_deployer_works() {
    let Some(lab) = Lab::new("killback") else { return };
    lab.compose(API);
    lab.deploy("v1").ok();
    let traffic = Traffic::to_api(lab.api);
    lab.set("TAG", "v2");
    lab.set("MONITOR", "5s");
    let deployer = lab.start(&["deploy", "--yes"]);
    journal_has(&lab, 2, "watch", "started");
    assert!(kill(deployer));
    lab.run(&["rollback", "--to", "1", "--yes"]).ok();
    traffic.answered_by("v1");
    traffic.end_without_a_drop();
    assert_eq!(lab.running()["api"].len(), 1);
}

#[test]
fn interrupted_deployment_is_undone() {
    let Some(lab) = Lab::new("sigint") else { return };
    lab.compose(API);
    lab.deploy("v1").ok();
    let before = lab.only("api");
    let traffic = Traffic::to_api(lab.api);
    lab.set("TAG", "sick");
    let deployer = lab.start(&["deploy", "--yes"]);
    journal_has(&lab, 2, "gate", "started");
    deployer.signal(Signal::INT);
    let _ = deployer.finish().exits(3).says("interrupted");
    traffic.end_without_a_drop();
    assert_eq!(lab.only("api"), before);
    assert_eq!(lab.engine.containers(&lab.project).len(), 1);
    lab.deploy("v2").ok();
}
