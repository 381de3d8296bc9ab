//! Dying again, while things are put in order.

use shiplap_model::Outcome;
use shiplap_testkit::Trouble;

use super::shop::{
    AUTO, BACK, Change, FORWARD, Sample, assert_in_order, changes, die, ends_of, is_open, resume,
    run,
};
use crate::support::Cases;
use shiplap_execute::app::Choice;

/// Dies, takes it up this way, dies there too, and leaves the rest to `resume`.
fn twice(what: &str, way: Choice, first: usize, second: usize) {
    let mut cases = Cases::default();
    let mut firsts = Sample::of_pairs(first, 3);
    let mut seconds = Sample::of_pairs(second, 4);
    for change in changes() {
        for (index, call) in run(change.points()) {
            if !firsts.takes() {
                continue;
            }
            let points = run(async {
                let world = change.crashed(index, Trouble::HangAfter).await;
                if !is_open(&world).await {
                    return Vec::new();
                }
                world.reset();
                resume(&world, way).await.unwrap();
                ends_of(&world.log())
            });
            for (again, text) in points {
                if !seconds.takes() {
                    continue;
                }
                let what = format!("{}: at {index} {call}, then at {again} {text}", change.name);
                cases.run(&what, || run(crash_again(&change, index, way, again)));
            }
        }
    }
    seconds.report(&format!("second crashes tried, in {what}"));
    cases.end();
}

async fn crash_again(change: &Change, first: usize, way: Choice, second: usize) {
    let before = change.before().await;
    let world = change.crashed(first, Trouble::HangAfter).await;
    assert!(die(&world, second, Trouble::HangAfter, resume(&world, way)).await);
    if let Some(report) = resume(&world, AUTO).await.unwrap() {
        let ended = matches!(report.outcome, Outcome::Done | Outcome::RolledBack);
        assert!(ended, "{}: {:?} {:?}", report.outcome, report.reason, report.left);
    }
    assert_in_order(change, &before, &world).await;
}

#[test]
fn a_crash_on_the_way_on_or_back() {
    twice("resume", AUTO, 11, 9);
}

#[test]
fn a_crash_on_the_way_on() {
    twice("resume --forward", FORWARD, 11, 9);
}

#[test]
fn a_crash_on_the_way_back() {
    twice("resume --back", BACK, 11, 9);
}
