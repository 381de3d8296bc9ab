//! A deployer that is told to stop, once or twice, at each step.

use std::time::Duration;

use rustix::process::Signal;
use shiplap_faults::{Line, pick};
use shiplap_scenarios::{Lab, until};

use crate::scene::Scene;
use crate::shapes::{HOLD, Shape, UPDATE};

const SECTION: &str = "A deployer that is told to stop";
/// Two signals closer to each other than 300 ms count as one.
const ONE_KEY: Duration = Duration::from_millis(350);
const LIMIT: Duration = Duration::from_secs(30);

/// The steps of an undisturbed run.
fn steps(scene: &mut Scene) -> Vec<Line> {
    let number = scene.next();
    let deployer = scene.start(&[]);
    let _ = scene.end_of(deployer, "undisturbed");
    let lines = scene.journal.lines(number);
    lines.into_iter().filter(|line| line.state == "started").collect()
}

fn told_once(shape: Shape, signal: Signal, name: &str) {
    let Some(lab) = Lab::new(&format!("fltsig{}", name.to_lowercase())) else { return };
    let fault = format!("{name} once, at each step: {}", shape.name);
    let promise =
        "undone in order, or done where it cannot be undone any more; every request answered";
    let mut scene = Scene::open(lab, shape, SECTION, &fault, promise);
    for line in pick(steps(&mut scene), 3) {
        let number = scene.next();
        let mut deployer = scene.start(&[]);
        if scene.reaches(number, &line.what, "started", &mut deployer) {
            deployer.signal(signal);
            scene.recorder.seen.faults += 1;
        }
        scene.end_of(deployer, &format!("{name} at {line}"));
        scene.stage.lab.end_background();
    }
    scene.close();
}

fn told_twice(shape: Shape) {
    let Some(lab) = Lab::new("fltsigtwice") else { return };
    let fault = format!("SIGINT twice, at each step: {}", shape.name);
    let promise = "stopped at once, and the next command ends it; every request answered";
    let mut scene = Scene::open(lab, shape, SECTION, &fault, promise);
    // Long enough for the second one to come in time.
    scene.stage.lab.set("MONITOR", "2s");
    for line in pick(steps(&mut scene), 3) {
        let number = scene.next();
        let new = scene.stage.target();
        let mut deployer = scene.start(&[]);
        if scene.reaches(number, &line.what, "started", &mut deployer) {
            deployer.signal(Signal::INT);
            until("it says that it heard", LIMIT, || {
                let heard = deployer.said().contains("once more stops at once");
                (heard || !deployer.is_running()).then_some(())
            });
            std::thread::sleep(ONE_KEY);
            deployer.signal(Signal::INT);
            scene.recorder.seen.faults += 1;
        }
        let run = deployer.finish();
        let place = format!("twice at {line}");
        if run.code == Some(4) {
            let words = scene.stage.words(new);
            let next = scene.stage.lab.run(&words.iter().map(String::as_str).collect::<Vec<_>>());
            if next.code == Some(0) {
                scene.settle(new, "stopped, then the new release", &place, &next);
            } else {
                scene.judge(&next, &format!("{place}, then the next deployment"));
            }
        } else {
            scene.judge(&run, &place);
        }
        scene.stage.lab.end_background();
    }
    scene.close();
}

#[test]
fn interrupted_once() {
    told_once(UPDATE, Signal::INT, "SIGINT");
}

#[test]
fn terminated_once_while_requests_are_held() {
    told_once(HOLD, Signal::TERM, "SIGTERM");
}

#[test]
fn terminal_closed() {
    told_once(UPDATE, Signal::HUP, "SIGHUP");
}

#[test]
fn interrupted_twice() {
    told_twice(UPDATE);
}
