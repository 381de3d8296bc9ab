//! Dying once.

use shiplap_execute::app::{Choice, Intent};
use shiplap_model::{Direction, Outcome};
use shiplap_testkit::{Trouble, World};

use super::shop::{
    AUTO, Act, BACK, Change, FORWARD, Rest, Sample, assert_in_order, assert_nobody_was_cut_off,
    changes, is_open, newest, request, resume, run, yes,
};
use crate::support::{Cases, scope};

/// Dies before and after each call of each change, and does this then.
fn after_each_crash(what: &str, stride: usize, then: impl AsyncFn(&Change, &World, &World)) {
    let mut cases = Cases::default();
    let mut sample = Sample::new(stride);
    for change in changes() {
        for (index, call) in run(change.points()) {
            for trouble in [Trouble::Hang, Trouble::HangAfter] {
                if !sample.takes() {
                    continue;
                }
                cases.run(&format!("{}: {trouble:?} at {index} {call}", change.name), || {
                    run(async {
                        let before = change.before().await;
                        let world = change.crashed(index, trouble).await;
                        then(&change, &before, &world).await;
                    });
                });
            }
        }
    }
    sample.report(&format!("crash points tried, then {what}"));
    cases.end();
}

#[test]
fn resume_ends_it_one_way_or_the_other() {
    after_each_crash("resume", 5, async |change, before, world| {
        let Some(report) = resume(world, AUTO).await.unwrap() else { return };
        let rest = assert_in_order(change, before, world).await;
        assert_eq!(report.left, Vec::<String>::new());
        match report.outcome {
            Outcome::Done => assert_eq!(rest, Rest::New),
            Outcome::RolledBack => assert_eq!(rest, Rest::Old),
            other => panic!("{other}: {:?}", report.reason),
        }
    });
}

#[test]
fn resume_forward_leads_to_the_new_release() {
    after_each_crash("resume --forward", 5, async |change, before, world| {
        let Some(report) = resume(world, FORWARD).await.unwrap() else { return };
        assert_eq!((report.outcome, report.reason), (Outcome::Done, None));
        assert_eq!(assert_in_order(change, before, world).await, Rest::New);
    });
}

#[test]
fn resume_back_leads_to_what_was_before() {
    after_each_crash("resume --back", 5, async |change, before, world| {
        let Some(report) = resume(world, BACK).await.unwrap() else { return };
        assert_eq!(report.outcome, Outcome::RolledBack, "{:?} {:?}", report.reason, report.left);
        assert_eq!(assert_in_order(change, before, world).await, Rest::Old);
    });
}

#[test]
fn the_same_again_leads_to_the_new_release() {
    after_each_crash("the same command", 5, async |change, before, world| {
        if matches!(change.act, Act::Rollback) && !is_open(world).await {
            // It is done; another one goes further back.
            return;
        }
        let report = change.act(world).await.unwrap();
        // A rollback without a number is the way out of what did not end.
        let expected = match (change.act, is_back_out(&report)) {
            (Act::Rollback, true) => Rest::Old,
            _ => Rest::New,
        };
        assert_eq!(report.left, Vec::<String>::new());
        assert_eq!(assert_in_order(change, before, world).await, expected, "{:?}", report.reason);
    });
}

fn is_back_out(report: &shiplap_execute::app::Report) -> bool {
    report.resumed.is_some_and(|(_, direction)| direction == Direction::Back)
}

#[test]
fn a_rollback_leads_to_what_was_before() {
    after_each_crash("rollback", 5, async |change, before, world| {
        if !is_open(world).await {
            return;
        }
        let intent = Intent::Rollback { scope: scope(), to: None };
        let report = yes(world, &intent, &request()).await.unwrap();
        assert_eq!(report.outcome, Outcome::RolledBack, "{:?}", report.reason);
        assert_eq!(assert_in_order(change, before, world).await, Rest::Old);
    });
}

#[test]
fn abandoning_releases_what_is_held_and_touches_nothing_else() {
    after_each_crash("resume --abandon", 5, async |change, _, world| {
        let containers = |world: &World| -> Vec<String> {
            let state = world.state();
            state.containers.values().map(|c| format!("{} {:?}", c.name, c.state)).collect()
        };
        let there = containers(world);
        let Some(report) = resume(world, Choice::Abandon).await.unwrap() else { return };
        assert_eq!(report.outcome, Outcome::Interrupted);
        assert_eq!(containers(world), there);
        let ended = newest(world).await.unwrap();
        assert!(!is_open(world).await, "{ended:?}");
        let state = world.state().clone();
        for (key, (_, pool)) in &state.pools {
            let runs = state.containers.values().any(|c| {
                c.service() == key.service && c.state == shiplap_model::ContainerState::Running
            });
            assert!(!pool.held || !runs, "{key} is held, though somebody could answer");
            let said = report.left.iter().any(|left| left.contains(&format!("of {}", key.service)));
            assert!(said, "{key}: {:?}", report.left);
        }
        assert_nobody_was_cut_off(change, world);
        // And what is left is something to deploy from.
        drop(state);
        if let Some(new) = change.new {
            let report = super::shop::deploy(world, new).await;
            assert_eq!((report.outcome, report.reason), (Outcome::Done, None));
        }
    });
}
