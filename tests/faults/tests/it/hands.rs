//! Containers that somebody removes by hand in the middle of a deployment.

use serde_json::Value;
use shiplap_faults::pick;
use shiplap_scenarios::Lab;

use crate::scene::{Scene, Tolerance};
use crate::shapes::{Shape, UPDATE};

const SECTION: &str = "Hands on it";

/// Which one is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    New,
    Old,
}

fn removed(which: Which, shape: Shape, fault: &str) {
    let Some(lab) = Lab::new(&format!("flthand{which:?}").to_lowercase()) else { return };
    let promise = "the new release, or the old one if it is there; the next deployment is done";
    let mut scene = Scene::open(lab, shape, SECTION, fault, promise);
    // The only replica that served is gone: who asks meanwhile is held, what it had is lost.
    scene.tolerate(Tolerance::WhatBrokeHadThem);
    for step in pick(vec!["create", "start", "gate", "switch", "watch", "drain"], 2) {
        let number = scene.next();
        let mut deployer = scene.start(&[]);
        let state = if which == Which::New && step == "create" { "finished" } else { "started" };
        let mut hit = false;
        if scene.reaches(number, step, state, &mut deployer) {
            hit = remove(&scene.stage.lab, which, number);
            scene.recorder.seen.faults += u64::from(hit);
        }
        let run = deployer.finish();
        let place = format!("{which:?} at {step}");
        if hit {
            scene.mend(&run, &place);
        } else {
            scene.judge(&run, &place);
        }
        scene.stage.lab.end_background();
    }
    scene.close();
}

fn remove(lab: &Lab, which: Which, number: u64) -> bool {
    let containers = lab.engine.containers(&lab.project);
    let is_it = |container: &&Value| {
        let name = container["Names"][0].as_str().unwrap_or_default();
        match which {
            Which::New => name.ends_with(&format!("-1.d{number}")),
            Which::Old => name.ends_with("-1"),
        }
    };
    let found = containers.iter().find(is_it).and_then(|container| container["Id"].as_str());
    found.is_some_and(|id| lab.engine.delete(&format!("/containers/{id}?force=1")).is_ok())
}

#[test]
fn new_replica_is_removed() {
    removed(Which::New, UPDATE, "the new replica is removed by hand");
}

#[test]
fn old_replica_is_removed() {
    removed(Which::Old, UPDATE, "the old replica is removed by hand");
}
