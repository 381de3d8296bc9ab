//! The ledger's disk is full.

use shiplap_execute::app::AppError;
use shiplap_model::{DeploymentState, Outcome};
use shiplap_testkit::Trouble;

use super::shop::{
    AUTO, Act, Rest, Sample, assert_in_order, changes, is_open, newest, resume, run,
};
use crate::support::Cases;

/// From one line of the journal on, none can be written, and neither can the end.
#[test]
fn a_journal_that_cannot_be_written_any_more_ends_in_undoing_and_a_report() {
    let mut cases = Cases::default();
    let mut sample = Sample::new(3);
    for change in changes().into_iter().filter(|change| !matches!(change.act, Act::Down)) {
        let calls = run(async {
            let world = change.before().await;
            change.act(&world).await.unwrap();
            world.log()
        });
        for (index, call) in calls.iter().enumerate().filter(|(_, c)| c.contains(".record ")) {
            if !sample.takes() {
                continue;
            }
            cases.run(&format!("{}: full at {index} {call}", change.name), || {
                run(async {
                    let before = change.before().await;
                    let world = change.before().await;
                    let full = world.clone();
                    let fill = move || {
                        full.trouble_on("ledger.record", Trouble::Before);
                        full.trouble_on("ledger.end", Trouble::Before);
                    };
                    world.trouble_at(index, Trouble::Do(std::sync::Arc::new(fill)));
                    let report = change.act(&world).await.unwrap();
                    world.reset();
                    assert!(
                        report.left.iter().any(|left| left.contains("history could not be")),
                        "{:?}",
                        report.left
                    );
                    match report.outcome {
                        // While tidying: the new release serves.
                        Outcome::Done => {}
                        Outcome::Failed | Outcome::RolledBack => {
                            assert_eq!(report.left.len(), 1, "{:?}", report.left);
                        }
                        other => panic!("{other}: {:?}", report.left),
                    }
                    // There is space again.
                    assert!(is_open(&world).await);
                    let resumed = resume(&world, AUTO).await.unwrap().unwrap();
                    let rest = assert_in_order(&change, &before, &world).await;
                    // Of the undoing nobody could write anything down. Where nothing is missing
                    // for going on, it goes on.
                    match resumed.outcome {
                        Outcome::Done => assert_eq!(rest, Rest::New),
                        Outcome::RolledBack => assert_eq!(rest, Rest::Old),
                        other => panic!("{other}: {:?}", resumed.reason),
                    }
                    if report.outcome == Outcome::Done {
                        assert_eq!(rest, Rest::New);
                    }
                });
            });
        }
    }
    sample.report("full disks tried");
    cases.end();
}

#[test]
fn a_ledger_that_takes_nothing_at_all_lets_nothing_begin() {
    for change in changes() {
        run(async {
            let world = change.before().await;
            let there = world.picture();
            world.trouble_on("ledger.begin", Trouble::Before);
            let refused = change.act(&world).await;
            assert!(matches!(refused, Err(AppError::Ledger(_))), "{}: {refused:?}", change.name);
            assert_eq!(world.picture(), there, "{}", change.name);
            let newest = newest(&world).await;
            assert!(newest.is_none_or(|d| d.state != DeploymentState::Unfinished));
        });
    }
}
