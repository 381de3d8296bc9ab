//! Undoing fails. What is printed then works when it is typed.

use std::sync::Arc;

use shiplap_model::{Ledger, Outcome, StepState};
use shiplap_testkit::{Trouble, World};

use super::shop::{
    AUTO, Act, Change, FORWARD, Rest, Sample, assert_in_order, changes, is_open, newest, resume,
    run,
};
use crate::support::{Cases, scope};

/// The changes that undo what they did: all but taking down.
fn undoing() -> impl Iterator<Item = Change> {
    changes().into_iter().filter(|change| !matches!(change.act, Act::Down))
}

/// The step that fails: the last one before tidying, which is written down but does not act.
async fn last_change(change: &Change) -> String {
    let world = change.before().await;
    let report = change.act(&world).await.unwrap();
    let steps = &report.plan.steps;
    let last = steps.iter().rev().find(|step| step.phase != shiplap_model::Phase::Tidy).unwrap();
    format!("ledger.record Started {}", last.action)
}

/// The calls of a deployment that fails late and is undone: how many, and from where it undoes.
async fn failing(change: &Change, trigger: &str) -> (World, Vec<(usize, String)>) {
    let before = change.before().await;
    let world = change.before().await;
    world.trouble_on(trigger, Trouble::Before);
    let report = change.act(&world).await.unwrap();
    let undone = matches!(report.outcome, Outcome::RolledBack | Outcome::Failed);
    assert!(undone, "{}: {:?}", change.name, report.left);
    let log = world.log();
    let from = log.iter().position(|call| call.starts_with("ledger.record UndoStarted"));
    let from = from.unwrap_or(log.len());
    let mutating = ["engine.", "router.apply", "router.remove_holder"];
    let calls = log.into_iter().enumerate().skip(from);
    let calls = calls.filter(|(_, call)| mutating.iter().any(|m| call.starts_with(m)));
    (before, calls.filter(|(_, call)| !call.starts_with("engine.container")).collect())
}

#[test]
fn whatever_could_not_be_undone_is_put_in_order_by_resume() {
    let mut cases = Cases::default();
    let mut sample = Sample::new(3);
    for change in undoing() {
        let trigger = run(last_change(&change));
        let (before, calls) = run(failing(&change, &trigger));
        for (index, call) in calls {
            if !sample.takes() {
                continue;
            }
            cases.run(&format!("{}: undoing fails at {index} {call}", change.name), || {
                run(async {
                    let world = change.before().await;
                    world.trouble_on(&trigger, Trouble::Before);
                    world.trouble_at(index, Trouble::Before);
                    let report = change.act(&world).await.unwrap();
                    world.reset();
                    if report.outcome == Outcome::Stuck {
                        assert!(!report.left.is_empty());
                        assert!(is_open(&world).await, "it can be resumed");
                        let resumed = resume(&world, AUTO).await.unwrap().expect("it is stuck");
                        assert_eq!(resumed.outcome, Outcome::RolledBack, "{:?}", resumed.reason);
                        assert_eq!(resumed.number, report.number, "under its own number");
                    }
                    assert_eq!(assert_in_order(&change, &before, &world).await, Rest::Old);
                });
            });
        }
    }
    sample.report("failing undos tried");
    cases.end();
}

/// From the moment that something fails, nothing works at all.
async fn all_fails(change: &Change, trigger: &str) -> World {
    let world = change.before().await;
    let everything = world.clone();
    let trouble = Trouble::Do(Arc::new(move || {
        everything.trouble_on("engine.", Trouble::Before);
        everything.trouble_on("router.", Trouble::Before);
    }));
    world.trouble_on(trigger, trouble);
    let report = change.act(&world).await.unwrap();
    assert_eq!(report.outcome, Outcome::Stuck, "{}", change.name);
    world.reset();
    world
}

#[test]
fn stuck_altogether_it_goes_back_or_on_as_one_likes() {
    for change in undoing() {
        for (way, rest) in [(AUTO, Rest::Old), (FORWARD, Rest::New)] {
            run(async {
                let before = change.before().await;
                let trigger = last_change(&change).await;
                let world = all_fails(&change, &trigger).await;
                let number = newest(&world).await.unwrap().number;
                let report = resume(&world, way).await.unwrap().unwrap();
                assert_eq!(report.left, Vec::<String>::new(), "{}", change.name);
                if way == FORWARD {
                    // What was undone is done anew, jobs included.
                    assert_eq!(report.outcome, Outcome::Done, "{:?}", report.reason);
                } else {
                    assert_eq!(assert_in_order(&change, &before, &world).await, rest);
                }
                let journal = world.ledger().journal(&scope(), number).await.unwrap();
                assert!(journal.iter().any(|line| line.state == StepState::UndoFailed));
            });
        }
    }
}
