//! A deployer that was stopped for longer than its lease, and two that have different ledgers.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use shiplap_scenarios::{Lab, Traffic, until};

use crate::crashes::journal_has;
use crate::projects::{API, STORE};

const LIMIT: Duration = Duration::from_secs(60);
/// The shortest lease there is: a test waits for its end.
const LEASE: &str = "1s";

/// All that a deployer could have touched: containers with their names and states, networks, and
/// whom the edge routes to.
fn picture(lab: &Lab) -> Vec<String> {
    let mut all: Vec<String> = lab
        .engine
        .containers(&lab.project)
        .iter()
        .map(|found| format!("{} {} {}", found["Names"], found["Id"], found["State"]))
        .collect();
    all.extend(lab.engine.objects(&lab.project).into_iter().filter(|path| !is_mark(path)));
    let status = lab.run(&["status", "--json"]).ok().json();
    let pools = status["edge"]["pools"].as_array().cloned().unwrap_or_default();
    all.extend(pools.iter().map(|pool| {
        let replicas = pool["replicas"].as_array().cloned().unwrap_or_default();
        let ids: Vec<&Value> = replicas.iter().map(|replica| &replica["container"]).collect();
        format!("{} {} {ids:?}", pool["pool"], pool["held"])
    }));
    all.sort();
    all
}

fn is_mark(path: &str) -> bool {
    path.starts_with("/volumes/shiplap.lease.")
}

/// Stops the second deployment at a moment until a third one is done, and wakes it up then.
fn woken_at(purpose: &str, project: &str, what: &str, state: &str) {
    let Some(lab) = Lab::new(purpose) else { return };
    lab.set("SHIPLAP_LEASE_TTL", LEASE);
    lab.compose(project);
    lab.deploy("v1").ok();
    let is_api = project == API;
    let port = if is_api { lab.api } else { lab.store };
    let traffic = if is_api { Traffic::to_api(port) } else { Traffic::to_store(port) };
    lab.set("TAG", "v2");
    lab.set("MONITOR", if what == "watch" { "10s" } else { "500ms" });
    let sleeper = lab.start(&["deploy", "--yes"]);
    journal_has(&lab, 2, what, state);
    sleeper.signal(Signal::STOP);
    lab.set("MONITOR", "500ms");
    // Its process is there, so its lease has to end first.
    until("another deployer takes over", LIMIT, || {
        (lab.deploy("v3").code == Some(0)).then_some(())
    });
    traffic.answered_by("v3");
    let before = picture(&lab);
    sleeper.signal(Signal::CONT);
    let woken = sleeper.finish();
    // One that had nothing left to change has nothing to complain of either.
    let woken = woken.exits(4).says("has taken over; nothing was changed since");
    assert_eq!(picture(&lab), before, "{}", woken.all());
    assert_eq!(lab.version(port), "v3");
    traffic.end_without_a_drop();
    lab.deploy("v3").ok().says("nothing to do");
    assert_eq!(lab.run(&["show", "2", "--json"]).ok().json()["outcome"], "interrupted");
    lab.run(&["history", "--verify"]).ok();
}

#[test]
fn deployer_woken_at_the_gate_changes_nothing() {
    woken_at("wokengate", API, "gate", "started");
}

#[test]
fn deployer_woken_in_watching_does_not_go_back() {
    woken_at("wokenwatch", API, "watch", "started");
}

#[test]
fn deployer_woken_while_it_stops_the_old_replica_starts_none() {
    woken_at("wokenstop", STORE, "stop", "started");
}

/// What a user other than root has: another ledger, the same engine.
fn another_ledger(lab: &Lab, folder: &Path) {
    lab.set("SHIPLAP_STATE_DIR", &folder.display().to_string());
}

#[test]
fn deployers_of_different_ledgers_find_each_other_on_the_engine() {
    let Some(lab) = Lab::new("ledgers") else { return };
    let folder = tempfile::tempdir().unwrap();
    lab.set("SHIPLAP_LEASE_TTL", "3s");
    lab.compose(API);
    lab.deploy("v1").ok();
    // This one waits at its gate until it dies.
    lab.set("TAG", "sick");
    let first = lab.start(&["deploy", "--yes"]);
    journal_has(&lab, 2, "gate", "started");
    another_ledger(&lab, folder.path());
    let second = lab.deploy("v2").exits(1).says("error[lease-held]");
    assert!(second.stderr.contains("process"), "{}", second.all());
    // Killed, it renews nothing more, and nobody has to unlock anything.
    first.signal(Signal::KILL);
    let _ = first.finish();
    lab.deploy("v2").ok().says("waiting up to 3 s to see whether it lives");
    assert_eq!(lab.version(lab.api), "v2");
    // The other ledger's generation was 2, so this one's is higher, on what it makes too.
    let label = lab.inspect("api")["Config"]["Labels"]["shiplap.generation"].clone();
    assert!(label.as_str().unwrap().parse::<u64>().unwrap() > 2, "{label}");
    let marks = |lab: &Lab| {
        lab.engine.objects(&lab.project).into_iter().filter(|path| is_mark(path)).count()
    };
    assert_eq!(marks(&lab), 1);
    lab.run(&["down", "--yes"]).ok();
    assert_eq!(marks(&lab), 0);
}

#[test]
fn nothing_to_do_leaves_no_mark() {
    let Some(lab) = Lab::new("nomark") else { return };
    lab.compose(API);
    lab.deploy("v1").ok();
    let before = lab.engine.objects(&lab.project);
    lab.deploy("v1").ok().says("nothing to do");
    assert_eq!(lab.engine.objects(&lab.project), before);
}
