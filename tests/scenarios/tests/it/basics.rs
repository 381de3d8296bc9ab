//! What a deployment does when all is well.

use shiplap_scenarios::Lab;

use crate::projects::{API, PAIR};

#[test]
fn first_deployment_serves_and_compose_would_know_it() {
    let Some(lab) = Lab::new("first") else { return };
    lab.compose(API);
    lab.deploy("v1").ok().says("+ api").says("deployment 1 is done");
    assert_eq!(lab.version(lab.api), "v1");

    let api = lab.inspect("api");
    let labels = &api["Config"]["Labels"];
    assert_eq!(labels["com.docker.compose.project"], lab.project.as_str());
    assert_eq!(labels["com.docker.compose.service"], "api");
    assert_eq!(labels["com.docker.compose.container-number"], "1");
    assert_eq!(labels["com.docker.compose.oneoff"], "False");
    assert!(labels["com.docker.compose.config-hash"].is_string(), "{labels:#}");
    assert_eq!(api["Name"], format!("/{}-api-1", lab.project).as_str());
    // The published port is the edge's.
    assert!(api["HostConfig"]["PortBindings"].as_object().is_none_or(|ports| ports.is_empty()));

    let status = lab.run(&["status", "--json"]).ok().json();
    assert_eq!(status["deployment"], 1, "{status:#}");
    assert_eq!(status["services"][0]["replicas"][0]["id"], api["Id"], "{status:#}");
}

#[test]
fn second_deployment_does_nothing_and_says_so() {
    let Some(lab) = Lab::new("again") else { return };
    lab.compose(PAIR);
    lab.deploy("v1").ok();
    let before = lab.engine.objects(&lab.project);
    lab.run(&["plan", "--exit-code"]).ok().says("nothing to do");
    lab.deploy("v1").ok().says("nothing to do").says("= api web  unchanged");
    assert_eq!(lab.engine.objects(&lab.project), before);
    assert_eq!(lab.newest().unwrap()["number"], 1, "what did nothing is no deployment");
}

#[test]
fn plan_changes_nothing_and_says_by_its_exit_code_that_there_is_work() {
    let Some(lab) = Lab::new("plan") else { return };
    lab.compose(PAIR);
    lab.run(&["plan"]).ok().says("+ api").says("+ web");
    let _ = lab.run(&["plan", "--exit-code"]).exits(5);
    assert!(lab.engine.objects(&lab.project).is_empty());
    let _ = lab.run(&["deploy"]).exits(2).says("no terminal to ask on");
    assert!(lab.engine.objects(&lab.project).is_empty());
}

#[test]
fn changed_variable_is_named_and_its_value_is_not() {
    let Some(lab) = Lab::new("variable") else { return };
    lab.compose(API);
    lab.deploy("v1").ok();
    lab.set("GREETING", "ciao-4711");
    lab.run(&["plan"]).ok().says("~ api").says("GREETING").hides("ciao-4711").hides("hello");
    lab.deploy("v1").ok().says("GREETING").hides("ciao-4711");
    let environment = lab.inspect("api")["Config"]["Env"].to_string();
    assert!(environment.contains("GREETING=ciao-4711"), "{environment}");
}

#[test]
fn one_service_named_is_the_only_one_touched() {
    let Some(lab) = Lab::new("one") else { return };
    lab.compose(PAIR);
    lab.deploy("v1").ok();
    let before = lab.running();
    lab.set("API_TAG", "v2");
    lab.set("WEB_TAG", "v2");
    lab.run(&["deploy", "api", "--yes"]).ok();
    assert_eq!((lab.version(lab.api), lab.version(lab.web)), ("v2".into(), "v1".into()));
    let after = lab.running();
    assert_ne!(after["api"], before["api"]);
    assert_eq!(after["web"], before["web"]);
}

#[test]
fn one_tag_set_touches_only_its_service() {
    let Some(lab) = Lab::new("set") else { return };
    lab.compose(PAIR);
    lab.deploy("v1").ok();
    let before = lab.running();
    lab.run(&["deploy", "--set", "web=v3", "--yes"]).ok().says("~ web");
    assert_eq!((lab.version(lab.api), lab.version(lab.web)), ("v1".into(), "v3".into()));
    let after = lab.running();
    assert_eq!(after["api"], before["api"]);
    assert_ne!(after["web"], before["web"]);
}

#[test]
fn unknown_service_is_refused() {
    let Some(lab) = Lab::new("unknown") else { return };
    lab.compose(PAIR);
    let _ = lab.run(&["deploy", "apj", "--yes"]).exits(1).says("apj");
    let _ = lab.run(&["deploy", "--set", "apj=v2", "--yes"]).exits(1).says("apj");
    assert!(lab.engine.objects(&lab.project).is_empty());
}
