//! An engine that is restarted or killed in the middle, with and without live-restore, and one
//! that has no more networks or no more space to give. Each test has an engine of its own.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use shiplap_faults::{Extent, PrivateEngine, Settings, pick};
use shiplap_scenarios::Lab;

use crate::scene::{Scene, Tolerance};
use crate::shapes::{FIRST, HOLD, Shape, Stage, Standing, UPDATE};

const SECTION: &str = "An engine that goes away";
const ROOM: &str = "An engine without room";
/// For the images of a few releases and of the edge, built without optimisation.
const DISK: &str = "3g";

/// How the engine goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Away {
    /// It is told to end, and started again at once.
    Restarted,
    /// It is killed, and started again at once.
    Killed,
    /// It is told to end, and started again later.
    Stopped(Duration),
}

fn away(shape: Shape, purpose: &str, live_restore: bool, away: Away, steps: &[&str]) {
    let settings = Settings { live_restore, ..Settings::default() };
    let Some(private) = PrivateEngine::start(DISK, settings) else { return };
    let lab = Lab::on(private.engine(), &format!("flt{purpose}"));
    let how = match away {
        Away::Restarted => "dockerd restarted".to_owned(),
        Away::Killed => "dockerd killed, and started again".to_owned(),
        Away::Stopped(time) => format!("dockerd away for {} s", time.as_secs()),
    };
    let with = if live_restore { "with live-restore" } else { "without live-restore" };
    let fault = format!("{how}, {with}: {}", shape.name);
    let promise = match (live_restore, away) {
        (true, _) => "the new release or the old one, every request answered",
        (false, Away::Killed) => {
            "the new release or the old one, with the next command: the engine leaves containers down"
        }
        (false, Away::Restarted | Away::Stopped(_)) => {
            "the new release or the old one; nobody is answered while containers are down"
        }
    };
    let mut scene = Scene::open(lab, shape, SECTION, &fault, promise);
    if !live_restore {
        scene.tolerate(Tolerance::WhatBrokeHadThem);
    }
    for step in pick(steps.to_vec(), 1) {
        let number = scene.next();
        let mut deployer = scene.start(&[]);
        if scene.reaches(number, step, "started", &mut deployer) {
            match away {
                Away::Restarted => private.signal(Signal::TERM),
                Away::Killed => private.signal(Signal::KILL),
                Away::Stopped(time) => {
                    private.signal(Signal::TERM);
                    std::thread::sleep(time);
                }
            }
            private.up();
            scene.recorder.seen.faults += 1;
        }
        let run = deployer.finish_within(Duration::from_secs(240));
        // Containers that the engine starts again need a moment, whoever is current.
        let place = format!("at {step}");
        if away == Away::Killed && !live_restore {
            // An engine that was killed ends what it finds running, and takes that for the wish of
            // a user: `unless-stopped` stays down (seen with 20.10).
            scene.mend(&run, &place);
        } else if scene.answers(&run, &place) {
            scene.judge(&run, &place);
        }
        scene.stage.lab.end_background();
    }
    scene.close();
}

const STEPS: &[&str] = &["create", "start", "gate", "switch", "watch", "drain"];
const HELD: &[&str] = &["hold", "stop", "start", "gate"];

#[test]
fn restarted_with_live_restore() {
    away(UPDATE, "dlive", true, Away::Restarted, STEPS);
}

#[test]
fn killed_with_live_restore() {
    away(HOLD, "dlkill", true, Away::Killed, HELD);
}

#[test]
fn restarted_without_live_restore() {
    away(UPDATE, "dplain", false, Away::Restarted, STEPS);
}

#[test]
fn killed_without_live_restore() {
    away(HOLD, "dkill", false, Away::Killed, HELD);
}

#[test]
fn stopped_for_a_while() {
    let time = match Extent::of_this_run() {
        Extent::Sample => Duration::from_secs(3),
        Extent::All => Duration::from_secs(30),
    };
    away(UPDATE, "doff", true, Away::Stopped(time), &["gate", "watch"]);
}

#[test]
fn no_network_is_left() {
    // A handful, of which the engine's own bridge takes one.
    let settings =
        Settings { address_pools: Some("base=10.213.0.0/24,size=27"), ..Settings::default() };
    let Some(private) = PrivateEngine::start(DISK, settings) else { return };
    let engine = private.engine();
    let lab = Lab::on(private.engine(), "fltpool");
    let mut recorder = shiplap_faults::Recorder::new(
        ROOM,
        "no address pool is left for a network: first deployment",
        "failed before any change, in words that help; done once there is one",
    );
    let mut taken: Vec<String> = Vec::new();
    while taken.len() < 32 {
        let name = format!("taken-{}", taken.len());
        // Refused by the engine once nothing is left.
        if engine.try_post("/networks/create", &json!({"Name": name})).is_err() {
            break;
        }
        taken.push(name);
    }
    recorder.seen.faults += 1;
    let mut stage = Stage::set(lab, FIRST);
    stage.announce(stage.target());
    let run = stage.lab.run(&["deploy", "--yes", "--standby", "0"]);
    check(&mut recorder, &stage, &run, Some(1), Standing::Nothing, "pool");
    engine.delete(&format!("/networks/{}", taken[0])).unwrap();
    let target = stage.target();
    stage.deploy(target);
    let inspection = stage.inspect(target);
    if inspection.wrong.is_empty() {
        recorder.came("done with a pool");
    } else {
        recorder.broke(inspection.wrong.join("\n"));
    }
    drop(stage);
    recorder.finish();
}

#[test]
fn disk_is_full() {
    let Some(private) = PrivateEngine::start(DISK, Settings::default()) else { return };
    let lab = Lab::on(private.engine(), "fltfull");
    let promise = "the old release, every request answered; done once there is space";
    let fault = "the engine's disk is full: start-first update";
    let mut scene = Scene::open(lab, UPDATE, ROOM, fault, promise);
    let target = scene.stage.target();
    scene.begin();
    private.fill_disk(0);
    scene.recorder.seen.faults += 1;
    let words = scene.stage.words(target);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let run = scene.stage.lab.run(&words);
    scene.judge(&run, "creating on a full disk");
    // An image does not fit either: one that is built, since no registry is at hand.
    scene.stage.lab.write("big/Dockerfile", "FROM scratch\nCOPY big /big\n");
    scene.stage.lab.write("big/big", &"x".repeat(32 * 1024 * 1024));
    let with_build = UPDATE.compose.replace(
        "    image: ${APP}:${TAG}\n",
        "    image: ${APP}:big-${EDITION}\n    build: ./big\n",
    );
    let (old, edition) = (scene.stage.now, "77");
    scene.stage.lab.compose(&with_build);
    scene.stage.lab.set("EDITION", edition);
    let run = scene.stage.lab.run(&["deploy", "--yes", "--build"]);
    scene.stage.lab.compose(UPDATE.compose);
    scene.recorder.seen.faults += 1;
    if matches!(run.code, Some(1 | 3)) && run.all().contains("space") {
        scene.settle(old, "old release, told that there is no space", "building", &run);
    } else {
        scene.judge(&run, "building on a full disk, without a word about space");
    }
    private.free_disk();
    let deployer = scene.start(&[]);
    scene.end_of(deployer, "with space again");
    scene.close();
}

/// Looks at what a command came to where no requests are sent.
fn check(
    recorder: &mut shiplap_faults::Recorder,
    stage: &Stage,
    run: &shiplap_scenarios::Run,
    code: Option<i32>,
    standing: Standing,
    word: &str,
) {
    let inspection = stage.inspect(standing);
    recorder.seen.leaks += inspection.leaks;
    let mut wrong = inspection.wrong;
    if run.code != code {
        wrong.push(format!("it ended with {:?}", run.code));
    }
    if !run.all().contains(word) {
        wrong.push(format!("nothing is said of `{word}`"));
    }
    if wrong.is_empty() {
        recorder.came("failed before any change");
    } else {
        recorder.broke(format!("{}\n{}", wrong.join("\n"), run.all()));
    }
}
