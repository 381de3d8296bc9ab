//! An edge that dies, is restarted, upgraded or tampered with in the middle of a deployment.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use shiplap_faults::pick;
use shiplap_scenarios::{Lab, Program, binary};

use crate::scene::{Scene, Tolerance};
use crate::shapes::{HOLD, Shape, UPDATE};

const SECTION: &str = "An edge in trouble";

/// What is done to the edge; false if it could not be.
type Deed = fn(&Lab) -> bool;

struct Trouble {
    purpose: &'static str,
    fault: &'static str,
    promise: &'static str,
    tolerance: Tolerance,
    deed: Deed,
    after: After,
}

/// What it takes to be whole again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    /// It is, by itself.
    Itself,
    /// The next command.
    NextCommand,
}

fn troubled(shape: Shape, steps: &[&str], trouble: &Trouble) {
    let Some(lab) = Lab::new(&format!("flt{}", trouble.purpose)) else { return };
    let fault = format!("{}: {}", trouble.fault, shape.name);
    let mut scene = Scene::open(lab, shape, SECTION, &fault, trouble.promise);
    scene.tolerate(trouble.tolerance);
    for step in pick(steps.to_vec(), 2) {
        let number = scene.next();
        let mut deployer = scene.start(&[]);
        if scene.reaches(number, step, "started", &mut deployer) {
            assert!((trouble.deed)(&scene.stage.lab), "{} could not be done", trouble.fault);
            scene.recorder.seen.faults += 1;
        }
        let run = deployer.finish();
        // The engine starts it again by itself.
        let place = format!("at {step}");
        match trouble.after {
            After::NextCommand => scene.mend(&run, &place),
            After::Itself if scene.answers(&run, &place) => drop(scene.judge(&run, &place)),
            After::Itself => {}
        }
        scene.stage.lab.end_background();
    }
    scene.close();
}

const STEPS: &[&str] = &["make sure", "gate", "switch", "watch", "drain"];
const HELD: &[&str] = &["hold", "stop", "gate", "release"];
const ANSWERED: &str = "the new release or the old one, every request answered";
const IN_FLIGHT: &str =
    "the new release or the old one; requests that the edge had in its hands are lost";

fn supervisor(lab: &Lab) -> Option<Pid> {
    let pid = lab.engine.inspect(&lab.edge())["State"]["Pid"].as_i64()?;
    Pid::from_raw(pid.try_into().ok()?)
}

fn kill_worker(lab: &Lab) -> bool {
    let Some(supervisor) = supervisor(lab) else { return false };
    let pid = supervisor.as_raw_nonzero();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let worker = children.ok().and_then(|text| text.split_whitespace().next()?.parse().ok());
    // A worker that ended by itself just now is as good.
    worker.and_then(Pid::from_raw).is_none_or(|worker| kill_process(worker, Signal::KILL).is_ok())
}

fn kill_supervisor(lab: &Lab) -> bool {
    supervisor(lab).is_some_and(|supervisor| kill_process(supervisor, Signal::KILL).is_ok())
}

fn restart(lab: &Lab) -> bool {
    lab.engine.post(&format!("/containers/{}/restart?t=20", lab.edge()), &Value::Null);
    true
}

fn remove_container(lab: &Lab) -> bool {
    lab.engine.delete(&format!("/containers/{}?force=1", lab.edge())).is_ok()
}

fn tear_table_and_restart(lab: &Lab) -> bool {
    let tables = fs::read_dir(lab.edge_dir()).expect("the edge has a folder").flatten();
    let torn: Vec<PathBuf> =
        tables.map(|file| file.path()).filter(|path| path.ends_with("table.json")).collect();
    for path in &torn {
        let length = fs::metadata(path).expect("it was there just now").len();
        let file = fs::File::options().write(true).open(path).expect("root may write");
        file.set_len(length / 2).expect("a file can be cut");
    }
    !torn.is_empty() && kill_supervisor(lab)
}

fn delete_socket(lab: &Lab) -> bool {
    fs::remove_file(lab.edge_dir().join("admin.sock")).is_ok()
}

/// By a program that differs in its last byte only.
fn upgrade(lab: &Lab) -> bool {
    let other = lab.dir().join("shiplap-other");
    let mut program = fs::read(binary("shiplap")).expect("it was built");
    program.extend_from_slice(&std::process::id().to_le_bytes());
    let number = fs::read_dir(lab.dir()).map_or(0, Iterator::count);
    program.extend_from_slice(&number.to_le_bytes());
    fs::write(&other, program).expect("a file can be written");
    fs::set_permissions(&other, fs::Permissions::from_mode(0o755)).expect("its mode can be set");
    // One more file for each, so that none is as the one before.
    fs::write(lab.dir().join(format!("upgrade-{number}")), "").expect("a file can be written");
    Program::new(lab.program(&other, &["edge", "upgrade"])).run().code == Some(0)
}

#[test]
fn worker_is_killed() {
    let trouble = Trouble {
        purpose: "worker",
        fault: "kill -9 of the edge's worker",
        promise: IN_FLIGHT,
        tolerance: Tolerance::WhatBrokeHadThem,
        deed: kill_worker,
        after: After::Itself,
    };
    troubled(UPDATE, STEPS, &trouble);
    troubled(HOLD, HELD, &trouble);
}

#[test]
fn supervisor_is_killed() {
    let trouble = Trouble {
        purpose: "superv",
        fault: "kill -9 of the edge's supervisor",
        promise: "the new release or the old one; nobody is answered until the engine has started it again",
        tolerance: Tolerance::WhatBrokeHadThem,
        deed: kill_supervisor,
        after: After::Itself,
    };
    troubled(UPDATE, STEPS, &trouble);
}

#[test]
fn edge_is_restarted() {
    let trouble = Trouble {
        purpose: "eagain",
        fault: "the edge's container is restarted",
        promise: "the new release or the old one; nobody is answered meanwhile",
        tolerance: Tolerance::WhatBrokeHadThem,
        deed: restart,
        after: After::Itself,
    };
    troubled(UPDATE, STEPS, &trouble);
    troubled(HOLD, HELD, &trouble);
}

#[test]
fn edge_is_removed() {
    let trouble = Trouble {
        purpose: "egone",
        fault: "the edge's container is removed",
        promise: "the new release or the old one; nobody is answered until a command starts the edge",
        tolerance: Tolerance::WhatBrokeHadThem,
        deed: remove_container,
        after: After::Itself,
    };
    let steps = ["switch", "watch"];
    troubled(UPDATE, &steps, &trouble);
}

#[test]
fn table_is_torn_and_the_edge_dies() {
    let trouble = Trouble {
        purpose: "etorn",
        fault: "the edge's table is torn, and the edge is killed",
        promise: "the new release or the old one, with the next command; the table before the torn one serves meanwhile",
        tolerance: Tolerance::WhatBrokeHadThem,
        deed: tear_table_and_restart,
        after: After::NextCommand,
    };
    troubled(UPDATE, STEPS, &trouble);
}

#[test]
fn admin_socket_is_deleted() {
    let trouble = Trouble {
        purpose: "esock",
        fault: "the edge's admin socket is deleted",
        promise: ANSWERED,
        tolerance: Tolerance::None,
        deed: delete_socket,
        after: After::Itself,
    };
    troubled(UPDATE, STEPS, &trouble);
    troubled(HOLD, HELD, &trouble);
}

#[test]
fn edge_is_upgraded() {
    let trouble = Trouble {
        purpose: "enew",
        fault: "the edge is upgraded",
        promise: ANSWERED,
        tolerance: Tolerance::None,
        deed: upgrade,
        after: After::Itself,
    };
    troubled(UPDATE, STEPS, &trouble);
    troubled(HOLD, HELD, &trouble);
}
