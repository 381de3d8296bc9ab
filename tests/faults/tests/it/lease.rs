//! A deployer that sleeps for longer than its lease, and wakes up in another's world.

use std::time::Duration;

use rustix::process::Signal;
use shiplap_faults::pick;
use shiplap_scenarios::{Lab, until};

use crate::scene::Scene;
use crate::shapes::{HOLD, Shape, UPDATE};

const SECTION: &str = "Two deployers";
/// Short, so that one that sleeps is soon overtaken.
const TTL: (&str, &str) = ("SHIPLAP_LEASE_TTL", "2s");
/// Longer than a lease of the usual length.
const OVERTAKEN: Duration = Duration::from_secs(60);
/// For one that wakes to notice that it lost its lease.
const WOKEN: Duration = Duration::from_secs(60);

fn overtaken(shape: Shape, purpose: &str, steps: &[&str]) {
    let Some(lab) = Lab::new(&format!("flt{purpose}")) else { return };
    lab.set(TTL.0, TTL.1);
    let fault = format!("SIGSTOP for longer than the lease, then SIGCONT: {}", shape.name);
    let promise = "the second one's release, untouched by the first; every request answered";
    let mut scene = Scene::open(lab, shape, SECTION, &fault, promise);
    for step in pick(steps.to_vec(), 1) {
        let number = scene.next();
        let first = scene.stage.target();
        let mut sleeper = scene.start(&[]);
        if !scene.reaches(number, step, "started", &mut sleeper) {
            scene.end_of(sleeper, &format!("at {step}, which was not met"));
            continue;
        }
        sleeper.signal(Signal::STOP);
        scene.recorder.seen.faults += 1;
        // The second one wants something else than both.
        let before = scene.stage.now;
        scene.stage.now = first;
        let second = scene.stage.target();
        scene.stage.now = before;
        let words = scene.stage.words(second);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let done = until("the second deployer may begin", OVERTAKEN, || {
            let run = scene.stage.lab.run(&words);
            (run.code != Some(1) || !run.stderr.contains("is deploying")).then_some(run)
        });
        let place = format!("asleep at {step}");
        sleeper.signal(Signal::CONT);
        let woken = sleeper.finish_within(WOKEN);
        if done.code != Some(0) {
            scene.judge(&done, &format!("{place}, the second deployer"));
            continue;
        }
        if scene.settle(second, "the second one's release", &place, &done) && woken.code == Some(0)
        {
            scene
                .recorder
                .broke(format!("{place}: the first one says it is done\n{}", woken.all()));
        }
        scene.stage.lab.end_background();
    }
    scene.close();
}

#[test]
fn sleeping_deployer_is_refused_when_it_wakes() {
    overtaken(UPDATE, "sleep", &["create", "start", "gate", "switch", "watch", "drain", "freeze"]);
}

#[test]
fn sleeping_deployer_that_held_requests_is_refused_when_it_wakes() {
    overtaken(HOLD, "sleeph", &["hold", "stop", "start", "gate"]);
}
