//! The edge and its replicas, disturbed by others than Shiplap.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use shiplap_scenarios::{Lab, Traffic, get, skip, until};

use crate::projects::API;

const LIMIT: Duration = Duration::from_secs(30);

fn answers(lab: &Lab, version: &str) {
    until(&format!("{version} answers"), LIMIT, || {
        (get(lab.api, "/version").ok()?.tag? == version).then_some(())
    });
}

#[test]
fn restarted_edge_comes_back_with_its_routes() {
    let Some(lab) = Lab::new("edgeback") else { return };
    lab.compose(API);
    lab.deploy("v1").ok();
    lab.engine.post(&format!("/containers/{}/restart?t=20", lab.edge()), &Value::Null);
    answers(&lab, "v1");
    lab.deploy("v1").ok().says("nothing to do");
    lab.deploy("v2").ok();
    assert_eq!(lab.version(lab.api), "v2");
}

#[test]
fn killed_edge_comes_back_with_its_routes() {
    let Some(lab) = Lab::new("edgekill") else { return };
    lab.compose(API);
    lab.deploy("v1").ok();
    let edge = lab.engine.inspect(&lab.edge());
    let Some(supervisor) = process(&edge["State"]["Pid"]) else {
        return skip("the engine's processes are not visible here").unwrap_or(());
    };
    // The engine starts it again by itself; a kill through the engine would count as a stop.
    kill_process(supervisor, Signal::KILL).unwrap();
    answers(&lab, "v1");
    lab.deploy("v2").ok();
    assert_eq!(lab.version(lab.api), "v2");
}

#[test]
fn killed_worker_refuses_nobody() {
    let Some(lab) = Lab::new("worker") else { return };
    lab.compose(API);
    lab.deploy("v1").ok();
    let edge = lab.engine.inspect(&lab.edge());
    let pid = edge["State"]["Pid"].as_i64().unwrap();
    let children = format!("/proc/{pid}/task/{pid}/children");
    let Ok(children) = std::fs::read_to_string(children) else {
        return skip("the engine's processes are not visible here").unwrap_or(());
    };
    let worker = children.split_whitespace().next().expect("the supervisor has a worker");
    kill_process(Pid::from_raw(worker.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    // The supervisor keeps the listening sockets: connecting works at every moment.
    let answer = get(lab.api, "/version").unwrap();
    assert_eq!(answer.status, 200);
    until("a new worker is counted", LIMIT, || {
        let status = lab.run(&["edge", "status", "--json"]).ok().json();
        (status["status"]["worker_restarts"].as_u64()? >= 1).then_some(())
    });
    let traffic = Traffic::to_api(lab.api);
    lab.deploy("v2").ok();
    traffic.answered_by("v2");
    traffic.end_without_a_drop();
}

#[test]
fn certificates_are_shown_by_the_edge_in_its_container_and_survive_its_restart() {
    let Some(lab) = Lab::new("tls") else { return };
    lab.compose(API);
    lab.deploy("v1").ok();
    lab.run(&["edge", "certificates", "add", "shop.localhost", "--internal"]).ok();
    let shown = || {
        let status = lab.run(&["edge", "status", "--json"]).ok().json();
        let status = &status["status"];
        assert_eq!(status["problems"].as_array().map(Vec::len), Some(0), "{status}");
        status["certificates"][0]["not_after_s"].as_u64()
    };
    let before = shown().expect("it is shown");
    lab.engine.post(&format!("/containers/{}/restart?t=5", lab.edge()), &Value::Null);
    answers(&lab, "v1");
    assert_eq!(shown(), Some(before));
    lab.deploy("v2").ok();
    assert_eq!(shown(), Some(before), "a deployment leaves it alone");
}

#[test]
fn container_restarted_by_hand_is_found_again() {
    let Some(lab) = Lab::new("byhand") else { return };
    lab.compose(API);
    lab.deploy("v1").ok();
    let id = lab.only("api");
    lab.engine.post(&format!("/containers/{id}/stop?t=5"), &Value::Null);
    // Takes the address that has become free.
    let network = format!("{}_default", lab.project);
    let other = lab.engine.post(
        &format!("/containers/create?name={}-other", lab.project),
        &serde_json::json!({
            "Image": format!("{}:v2", lab.images.name),
            "Cmd": ["api"],
            "Labels": {"com.docker.compose.project": lab.project},
            "HostConfig": {"NetworkMode": network},
        }),
    );
    let other = other["Id"].as_str().unwrap().to_owned();
    lab.engine.post(&format!("/containers/{other}/start"), &Value::Null);
    lab.engine.post(&format!("/containers/{id}/start"), &Value::Null);
    answers(&lab, "v1");
    let _ = lab.engine.delete(&format!("/containers/{other}?force=1"));
    lab.deploy("v2").ok();
    assert_eq!(lab.version(lab.api), "v2");
}

fn process(pid: &Value) -> Option<Pid> {
    let pid = pid.as_i64()?;
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    command.contains("supervise").then(|| Pid::from_raw(pid.try_into().ok()?))?
}
