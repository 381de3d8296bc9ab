//! Two deployers at once.

use std::time::Duration;

use rustix::process::Signal;
use shiplap_scenarios::{Lab, until};

use crate::projects::API;

#[test]
fn one_of_two_deployers_wins_and_the_other_names_it() {
    let Some(lab) = Lab::new("two") else { return };
    lab.compose(API);
    lab.deploy("v1").ok();
    // This one waits at its gate until it is told to stop.
    lab.set("TAG", "sick");
    let first = lab.start(&["deploy", "--yes"]);
    until("the first deployer has begun", Duration::from_secs(30), || {
        (lab.newest()?["number"] == 2).then_some(())
    });
    let before = lab.engine.containers(&lab.project).len();
    let second = lab.deploy("v2").exits(1).says("error[lease-held]").says("since");
    assert!(second.stderr.contains("process"), "{}", second.all());
    assert!(lab.engine.containers(&lab.project).len() >= before.min(2));
    lab.run(&["status"]).ok().says("is at it since");
    first.signal(Signal::INT);
    let _ = first.finish().exits(3);
    lab.deploy("v2").ok();
    assert_eq!(lab.version(lab.api), "v2");
}

#[test]
fn of_two_started_together_at_least_one_is_done_and_nothing_is_double() {
    let Some(lab) = Lab::new("together") else { return };
    lab.compose(API);
    let words = ["deploy", "--yes"];
    let both = [lab.start(&words), lab.start(&words)];
    let codes: Vec<_> = both.into_iter().map(|one| one.finish()).collect();
    let done = codes.iter().filter(|run| run.code == Some(0)).count();
    let refused = codes.iter().filter(|run| run.code == Some(1)).count();
    let all: String = codes.iter().map(|run| run.all()).collect();
    assert!(done >= 1 && done + refused == 2, "{all}");
    assert_eq!(lab.running()["api"].len(), 1);
}
