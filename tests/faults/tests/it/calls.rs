//! An engine that answers badly, slowly or not at all.

use std::time::Duration;

use shiplap_faults::{Call, Extent, Proxy, Treatment, pick};
use shiplap_scenarios::{Lab, skip};

use crate::scene::{Scene, Tolerance};
use crate::shapes::{HOLD, Shape, UPDATE};

const SECTION: &str = "An engine in trouble";
const PROMISE: &str = "the new release or the old one, every request answered";
const PROMISE_WHILE_HELD: &str =
    "the new release or the old one; what is held for longer than `hold` is answered with 503";
/// How many calls a sample spoils.
const SAMPLE: usize = 5;
/// Each call waits so long in a slow engine.
const SLOW: Duration = Duration::from_secs(2);

fn scene(shape: Shape, purpose: &str, fault: &str) -> Option<(Scene, Proxy)> {
    promised(shape, purpose, fault, PROMISE)
}

fn promised(shape: Shape, purpose: &str, fault: &str, promise: &str) -> Option<(Scene, Proxy)> {
    let lab = Lab::new(&format!("flt{purpose}"))?;
    let proxy = Proxy::start(&lab.dir().join("e.sock"), lab.engine.socket());
    let fault = format!("{fault}: {}", shape.name);
    Some((Scene::open(lab, shape, SECTION, &fault, promise), proxy))
}

/// Runs once undisturbed, to learn how many calls there are.
fn calls(scene: &mut Scene, proxy: &Proxy) -> Vec<Call> {
    proxy.treat(|_| Treatment::Pass);
    let deployer = scene.start(&[("DOCKER_HOST", &proxy.address())]);
    let _ = scene.end_of(deployer, "undisturbed");
    proxy.calls()
}

/// Spoils one call of each deployment, each in turn.
fn spoiled(shape: Shape, purpose: &str, fault: &str, treatment: Treatment) {
    let Some((mut scene, proxy)) = scene(shape, purpose, fault) else { return };
    let all = treatment == Treatment::Refuse;
    let calls = calls(&mut scene, &proxy);
    let chosen: Vec<usize> = if all {
        (1..=calls.len()).collect()
    } else {
        calls.iter().filter_map(|call| call.change).collect()
    };
    for wanted in pick(chosen, SAMPLE) {
        proxy.treat(move |call| {
            let number = if all { Some(call.number) } else { call.change };
            if number == Some(wanted) { treatment } else { Treatment::Pass }
        });
        let deployer = scene.start(&[("DOCKER_HOST", &proxy.address())]);
        let run = deployer.finish();
        let spoiled = proxy
            .calls()
            .into_iter()
            .find(|call| wanted == if all { call.number } else { call.change.unwrap_or(0) });
        scene.recorder.seen.faults += proxy.spoiled();
        let place = spoiled.map_or("no such call".to_owned(), |call| {
            format!("{treatment:?} at call {wanted}, {} {}", call.method, call.path)
        });
        scene.judge(&run, &place);
        scene.stage.lab.end_background();
    }
    scene.close();
}

#[test]
fn status_500_to_any_one_call() {
    spoiled(UPDATE, "500", "status 500 to one call, each in turn", Treatment::Refuse);
}

#[test]
fn status_500_to_any_one_call_while_requests_are_held() {
    spoiled(HOLD, "500h", "status 500 to one call, each in turn", Treatment::Refuse);
}

#[test]
fn connection_cut_before_a_change() {
    let fault = "connection cut before a change is passed on, each in turn";
    spoiled(UPDATE, "cutb", fault, Treatment::CutBefore);
}

#[test]
fn connection_cut_after_a_change() {
    let fault = "connection cut after a change, whose answer is lost, each in turn";
    spoiled(HOLD, "cuta", fault, Treatment::CutAfter);
    spoiled(UPDATE, "cutu", fault, Treatment::CutAfter);
}

fn slow(shape: Shape) {
    if Extent::of_this_run() == Extent::Sample {
        return skip("takes minutes: `make test-faults` runs it").unwrap_or(());
    }
    let Some((mut scene, proxy)) = scene(shape, "slow", "every call takes 2 s longer") else {
        return;
    };
    proxy.treat(|_| Treatment::Delay(SLOW));
    let deployer = scene.start(&[("DOCKER_HOST", &proxy.address())]);
    scene.end_of(deployer, "all calls");
    scene.recorder.seen.faults += proxy.spoiled();
    scene.close();
}

#[test]
fn every_call_is_slow() {
    slow(UPDATE);
}

#[test]
fn every_call_is_slow_while_requests_are_held() {
    slow(HOLD);
}

fn gone(shape: Shape, steps: &[&'static str]) {
    let away = match Extent::of_this_run() {
        Extent::Sample => Duration::from_secs(3),
        Extent::All => Duration::from_secs(30),
    };
    let fault = format!("the socket is gone for {} s", away.as_secs());
    // Nobody can start a replica while the engine is away, and a request is held for 30 s.
    let holds_too_long = shape.name == HOLD.name && away >= Duration::from_secs(20);
    let promise = if holds_too_long { PROMISE_WHILE_HELD } else { PROMISE };
    let Some((mut scene, proxy)) = promised(shape, "gone", &fault, promise) else { return };
    if holds_too_long {
        scene.tolerate(Tolerance::WhatBrokeHadThem);
    }
    for step in pick(steps.to_vec(), 1) {
        proxy.treat(|_| Treatment::Pass);
        let number = scene.next();
        let mut deployer = scene.start(&[("DOCKER_HOST", &proxy.address())]);
        if scene.reaches(number, step, "started", &mut deployer) {
            proxy.vanish();
            std::thread::sleep(away);
            proxy.listen();
            scene.recorder.seen.faults += 1;
        }
        scene.end_of(deployer, &format!("at {step}"));
        scene.stage.lab.end_background();
    }
    scene.close();
}

#[test]
fn socket_is_gone_for_a_while() {
    gone(UPDATE, &["create", "gate", "switch", "watch"]);
}

#[test]
fn socket_is_gone_for_a_while_with_requests_held() {
    gone(HOLD, &["stop", "gate"]);
}
