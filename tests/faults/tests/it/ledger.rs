//! A ledger whose disk fills up, and a clock that jumps.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use shiplap_faults::{Recorder, SmallDisk, pick};
use shiplap_ledger::{Host, Presence, ProcessIdentity, SqliteLedger};
use shiplap_model::{Ledger as _, Scope};
use shiplap_scenarios::{Lab, block_on};

use crate::scene::Scene;
use crate::shapes::UPDATE;

const SECTION: &str = "A ledger in trouble";
const HOUR: i64 = 3_600_000;
const TTL: Duration = Duration::from_secs(30);

#[test]
fn disk_fills_up_while_journaling() {
    let Some(disk) = SmallDisk::start("4m") else { return };
    let Some(lab) = Lab::new("fltjrn") else { return };
    lab.set("SHIPLAP_STATE_DIR", &disk.path().display().to_string());
    let fault = "the ledger's disk is full, from a step on: start-first update";
    let promise = "the old release, or the new one where it had taken over; every request answered";
    let mut scene = Scene::open_at(lab, UPDATE, SECTION, fault, promise, disk.path());
    for step in pick(vec!["create", "gate", "switch", "watch", "drain", "freeze"], 2) {
        let number = scene.next();
        let new = scene.stage.target();
        let mut deployer = scene.start(&[]);
        if scene.reaches(number, step, "started", &mut deployer) {
            disk.fill();
            scene.recorder.seen.faults += 1;
        }
        let run = deployer.finish();
        disk.free();
        let place = format!("at {step}");
        // Its end could not be written down: what comes next does that, and puts things in order.
        scene.stage.announce(new);
        let next = scene.stage.lab.run(&["deploy", "--yes"]);
        let words = match run.code {
            Some(0) => "new release",
            Some(3) => "old release, undone; new with the next command",
            Some(4) => "left as it was; new with the next command",
            _ => {
                let code = run.code;
                let wrong = format!("{place}: it ended with {code:?}, which is not what it did");
                scene.recorder.broke(format!("{wrong}\n{}", run.all()));
                "put in order by the next command"
            }
        };
        if next.code == Some(0) {
            scene.settle(new, words, &place, &run);
        } else {
            scene.judge(&next, &format!("{place}, then the next deployment"));
        }
        scene.stage.lab.end_background();
    }
    scene.close();
}

/// A machine whose wall clock can be set.
struct Jumping {
    now_ms: AtomicI64,
    pid: u32,
}

impl Host for Jumping {
    fn now_ms(&self) -> i64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    fn uptime_ms(&self) -> i64 {
        1_000_000
    }

    fn process(&self) -> ProcessIdentity {
        ProcessIdentity {
            boot_id: "boot".to_owned(),
            pid_namespace: "pid:[1]".to_owned(),
            pid: self.pid,
            start_ticks: 1,
        }
    }

    fn presence(&self, _: &ProcessIdentity) -> Presence {
        Presence::Running
    }
}

/// On the ledger alone: the machine's clock is everybody's, and a static program reads it past
/// every library that could pretend.
#[test]
fn clock_jumps_an_hour() {
    let mut recorder = Recorder::new(
        SECTION,
        "the clock jumps an hour either way, while a lease is held (on the ledger alone)",
        "the lease stays its holder's, and nobody else gets it",
    );
    for jump in [HOUR, -HOUR] {
        let folder = tempfile::tempdir().unwrap();
        let host = |pid| Arc::new(Jumping { now_ms: AtomicI64::new(50 * HOUR), pid });
        let (first, second) = (host(1), host(2));
        let open =
            |host: &Arc<Jumping>| SqliteLedger::open_on(folder.path(), host.clone()).unwrap();
        let (ours, theirs) = (open(&first), open(&second));
        let scope = Scope { project: "p".to_owned(), environment: "default".to_owned() };
        let lease = block_on(ours.acquire(&scope, "first", TTL)).unwrap().unwrap();
        for host in [&first, &second] {
            host.now_ms.fetch_add(jump, Ordering::SeqCst);
        }
        recorder.seen.faults += 1;
        let other = block_on(theirs.acquire(&scope, "second", TTL)).unwrap();
        let kept = other.is_err() && block_on(ours.renew(&lease.key, TTL)).is_ok();
        if kept {
            recorder.came("kept");
        } else {
            recorder.broke(format!("a jump by {jump} ms took the lease away"));
        }
    }
    recorder.finish();
}
