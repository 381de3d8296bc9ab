//! A deployment whose deployer died is taken up again.

use shiplap_scenarios::{Lab, Traffic};

use crate::crashes::{journal_has, kill};
use crate::projects::{API, STORE};

/// Version 1 runs, and the deployer of version 2 was killed when its journal had this line.
fn killed(lab: &Lab, compose: &str, what: &str, state: &str) {
    lab.compose(compose);
    lab.deploy("v1").ok();
    lab.set("TAG", "v2");
    lab.set("MONITOR", "20s");
    let deployer = lab.start(&["deploy", "--yes"]);
    journal_has(lab, 2, what, state);
    assert!(kill(deployer));
}

/// Nothing of deployment 2 is left, and the ledger is sound.
fn assert_nothing_of_2(lab: &Lab) {
    let containers = lab.engine.containers(&lab.project);
    let made_by_2 = containers.iter().filter(|c| c["Labels"]["shiplap.deployment"] == "2");
    assert_eq!(made_by_2.count(), 0, "{containers:#?}");
    lab.run(&["history", "--verify"]).ok();
    assert_eq!(lab.newest().expect("there is one")["outcome"], "rolled-back");
}

#[test]
fn reading_commands_tell_what_did_not_end_and_what_to_type() {
    let Some(lab) = Lab::new("restell") else { return };
    killed(&lab, API, "gate", "started");
    for words in [&["status"][..], &["history"], &["plan"]] {
        let told = lab.run(words).ok();
        let _ = told.says("deployment 2").says("did not end").says("shiplap resume");
    }
    let unfinished = lab.run(&["status", "--json"]).ok().json()["unfinished"].clone();
    assert_eq!(unfinished["deployment"], 2);
    assert!(unfinished["last_step"]["what"].is_string(), "{unfinished:#}");
    lab.run(&["resume", "--back", "--yes"]).ok();
    assert_nothing_of_2(&lab);
    lab.run(&["resume", "--yes"]).ok().says("nothing to resume");
}

#[test]
fn after_the_switch_it_goes_on() {
    let Some(lab) = Lab::new("reson") else { return };
    let traffic = {
        lab.compose(API);
        lab.deploy("v1").ok();
        Traffic::to_api(lab.api)
    };
    killed(&lab, API, "watch", "started");
    let resumed = lab.run(&["resume", "--yes", "-m", "the laptop fell asleep"]).ok();
    traffic.answered_by("v2");
    traffic.end_without_a_drop();
    let shown = lab.run(&["show", "2"]).ok();
    let _ = shown.says("resumed (forward)").says("why: the laptop fell asleep");
    assert_eq!(lab.only("api").len(), 64, "{}", resumed.all());
    assert_eq!(lab.newest().expect("there is one")["outcome"], "done");
}

#[test]
fn going_back_under_load_loses_no_request() {
    let Some(lab) = Lab::new("resback") else { return };
    lab.compose(API);
    lab.deploy("v1").ok();
    let before = lab.only("api");
    let traffic = Traffic::to_api(lab.api);
    killed(&lab, API, "watch", "started");
    lab.run(&["resume", "--back", "--yes"]).ok();
    traffic.answered_by("v1");
    traffic.end_without_a_drop();
    assert_eq!(lab.only("api"), before, "the very container of before");
    assert_nothing_of_2(&lab);
}

#[test]
fn what_is_held_is_released_on_the_way_back() {
    let Some(lab) = Lab::new("reshold") else { return };
    lab.compose(STORE);
    lab.deploy("v1").ok();
    let traffic = Traffic::to_store(lab.store);
    killed(&lab, STORE, "stop", "finished");
    let _ = lab.run(&["rollback", "--yes"]).ok().says("was undone");
    traffic.answered_by("v1");
    traffic.end_without_a_drop();
    assert_nothing_of_2(&lab);
}

#[test]
fn a_first_deployment_is_withdrawn_without_a_trace() {
    let Some(lab) = Lab::new("resfirst") else { return };
    lab.compose(API);
    lab.set("MONITOR", "20s");
    let deployer = lab.start(&["deploy", "--yes"]);
    journal_has(&lab, 1, "gate", "started");
    if !kill(deployer) {
        return;
    }
    lab.run(&["resume", "--back", "--yes"]).ok();
    assert_eq!(lab.engine.objects(&lab.project), Vec::<String>::new());
    lab.deploy("v1").ok();
}

/// Abandons deployment 2, and expects to be told this of what is left.
fn abandon(lab: &Lab, left: &str) {
    let told = lab.run(&["resume", "--abandon", "--yes"]).ok();
    let _ = told.says(left).says("counts as ended");
    assert_eq!(lab.newest().expect("there is one")["outcome"], "interrupted");
}

#[test]
fn abandoning_says_who_answers_now() {
    let Some(lab) = Lab::new("resleave") else { return };
    killed(&lab, API, "gate", "started");
    abandon(&lab, "answers for port 9000 of api");
    assert_eq!(lab.version(lab.api), "v1");
    lab.set("MONITOR", "500ms");
    lab.deploy("v2").ok();
    assert_eq!(lab.version(lab.api), "v2");
}

#[test]
fn abandoning_says_that_nobody_answers_and_holds_nothing() {
    let Some(lab) = Lab::new("resnobody") else { return };
    killed(&lab, STORE, "stop", "finished");
    // The new one may have been started by then: removed by hand, so that nobody runs.
    for container in lab.engine.containers(&lab.project) {
        if container["Labels"]["shiplap.deployment"] == "2" {
            let id = container["Id"].as_str().expect("it has one");
            lab.engine.delete(&format!("/containers/{id}?force=true")).expect("removed");
        }
    }
    abandon(&lab, "nobody runs who could answer for port 8000 of store");
    lab.deploy("v2").ok();
    assert_eq!(lab.version(lab.store), "v2");
}
