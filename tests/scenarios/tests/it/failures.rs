//! Deployments that fail, and leave what was.

use std::net::TcpListener;

use shiplap_scenarios::{Lab, Traffic};

use crate::projects::{API, STORE};

#[test]
fn never_healthy_release_is_undone_and_the_old_one_serves() {
    let Some(lab) = Lab::new("sick") else { return };
    lab.compose(API);
    lab.deploy("v1").ok();
    let before = lab.only("api");
    let traffic = Traffic::to_api(lab.api);
    lab.set("TAG", "sick");
    let run = lab.run(&["deploy", "--yes", "--gate", "5s"]).exits(3);
    let reports = traffic.end_without_a_drop();
    run.says("reason:").says("last lines of").says("api: sick starts").says("was undone");
    assert!(reports.values().all(|report| report.tags.keys().eq(["v1"])));
    assert_eq!(lab.only("api"), before);
    assert_eq!(lab.engine.containers(&lab.project).len(), 1, "what failed is gone");
    assert_eq!(lab.newest().unwrap()["outcome"], "rolled-back");
}

#[test]
fn release_that_crashes_at_its_start_is_undone() {
    let Some(lab) = Lab::new("crash") else { return };
    lab.compose(API);
    lab.deploy("v1").ok();
    let before = lab.only("api");
    let traffic = Traffic::to_api(lab.api);
    let _ = lab.deploy("crash").exits(3).says("FAULT=crash");
    traffic.end_without_a_drop();
    assert_eq!(lab.only("api"), before);
    assert_eq!(lab.engine.containers(&lab.project).len(), 1);
}

#[test]
fn release_that_exits_while_watched_falls_back() {
    let Some(lab) = Lab::new("later") else { return };
    lab.compose(API);
    lab.set("MONITOR", "8s");
    lab.set("TAG", "v1");
    lab.run(&["deploy", "--yes"]).ok();
    let traffic = Traffic::to_api(lab.api);
    let _ = lab.deploy("exit-later").exits(3).says("after the switch").says("FAULT=exit-later");
    traffic.answered_by("v1");
    // Seventy POSTs a second, each a few milliseconds long on a busy machine.
    let reports = traffic.end_losing_only_posts_in_flight(5);
    assert!(reports.values().any(|report| report.tags.contains_key("exit-later")));
    assert_eq!(lab.running()["api"].len(), 1);
    assert_eq!(lab.engine.containers(&lab.project).len(), 1);
}

#[test]
fn broken_release_of_a_stop_first_service_is_undone_without_a_drop() {
    let Some(lab) = Lab::new("sickstore") else { return };
    lab.compose(STORE);
    lab.deploy("v1").ok();
    let traffic = Traffic::to_store(lab.store);
    let _ = lab.deploy("crash").exits(3).says("FAULT=crash");
    traffic.answered_by("v1");
    traffic.end_without_a_drop();
    assert_eq!(lab.running()["store"].len(), 1);
}

#[test]
fn first_deployment_that_fails_leaves_nothing() {
    let Some(lab) = Lab::new("firstsick") else { return };
    lab.compose(API);
    let _ = lab.deploy("crash").exits(3).says("FAULT=crash");
    assert!(lab.engine.objects(&lab.project).is_empty());
    assert!(shiplap_scenarios::get(lab.api, "/version").is_err(), "nobody listens");
}

#[test]
fn failed_replica_is_kept_where_asked_for() {
    let Some(lab) = Lab::new("keep") else { return };
    lab.compose(API);
    lab.deploy("v1").ok();
    lab.set("TAG", "crash");
    let _ = lab.run(&["deploy", "--yes", "--keep-failed"]).exits(3);
    let containers = lab.engine.containers(&lab.project);
    assert_eq!(containers.len(), 2, "{containers:#?}");
    let kept = containers.iter().find(|container| container["State"] != "running").unwrap();
    assert!(kept["Names"][0].as_str().unwrap().contains("failed"), "{kept:#}");
    assert_eq!(lab.version(lab.api), "v1");
    lab.deploy("v2").ok();
    assert_eq!(lab.version(lab.api), "v2");
}

#[test]
fn missing_image_is_refused_before_any_change() {
    let Some(lab) = Lab::new("noimage") else { return };
    lab.compose(API);
    lab.deploy("v1").ok();
    let before = lab.engine.objects(&lab.project);
    lab.set("APP", "localhost:1/nobody/has-this");
    let _ = lab.deploy("v9").exits(1).says("localhost:1/nobody/has-this:v9");
    assert_eq!(lab.engine.objects(&lab.project), before);
    assert_eq!(lab.version(lab.api), "v1");
}

#[test]
fn port_of_a_foreign_process_is_named_and_nothing_is_left() {
    let Some(lab) = Lab::new("port") else { return };
    lab.compose(API);
    let foreign = TcpListener::bind(("0.0.0.0", lab.api)).unwrap();
    let run = lab.deploy("v1");
    let _ = run.exits(1).says(&lab.api.to_string());
    assert!(lab.engine.objects(&lab.project).is_empty());
    drop(foreign);
    lab.deploy("v1").ok();
    assert_eq!(lab.version(lab.api), "v1");
}
