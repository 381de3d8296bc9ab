//! Something fails, at every call there is.

use std::sync::Arc;

use shiplap_model::{Outcome, Phase, Plan, Step, StepId};
use shiplap_testkit::{Script, Trouble};

use crate::shapes;
use crate::support::{
    Attempt, Cases, Deployer, Old, Shape, assert_as_before, assert_legal, assert_serves,
    assert_settled, paused, scope,
};

/// Whatever happened to the change: it is done or undone, and trying again works.
async fn assert_done_or_undone(shape: &Shape, attempt: &Attempt, what: &str) {
    let world = &attempt.world;
    let execution = attempt.finish().await;
    world.calm();
    let context = format!("{}: {what}: {:?} {:?}", shape.name, execution.outcome, execution.reason);
    match execution.outcome {
        Outcome::Done => assert_serves(world, &attempt.new),
        Outcome::Failed | Outcome::RolledBack => {
            assert!(execution.reason.is_some(), "{context}");
            assert_eq!(execution.left, Vec::<String>::new(), "{context}");
            assert_as_before(shape, world, &attempt.before).await;
            if let (Old::Deployed(_), Some(old)) = (&shape.old, shape.old()) {
                assert_settled(world, &old).await;
            }
        }
        Outcome::Stuck | Outcome::Interrupted => panic!("{context} {:?}", execution.left),
    }
    assert_eq!(world.violations(), Vec::<String>::new(), "{context}");
    if !what.contains("ledger.") {
        assert_legal(&attempt.journal().await, &attempt.plan);
    }
    let again = Deployer::new(world).deploy(&attempt.new, shape.change).await;
    assert_eq!(again.reason, None, "{context}: again");
    assert_settled(world, &attempt.new).await;
}

/// Runs a change once for each of its calls, with trouble there.
fn at_each_call(trouble: impl Fn(&Attempt, &str) -> Option<Trouble>) {
    let mut cases = Cases::default();
    for shape in shapes::all() {
        for (index, call) in paused(Attempt::points(&shape)) {
            let what = format!("{} at {index} {call}", shape.name);
            cases.run(&what, || {
                paused(async {
                    let attempt = Attempt::at(&shape).await;
                    let Some(trouble) = trouble(&attempt, &call) else { return };
                    attempt.world.trouble_at(index, trouble);
                    assert_done_or_undone(&shape, &attempt, &what).await;
                });
            });
        }
    }
    cases.end();
}

#[test]
fn a_call_that_fails_is_undone() {
    at_each_call(|_, _| Some(Trouble::Before));
}

#[test]
fn a_call_that_works_and_whose_answer_is_lost_is_undone() {
    at_each_call(|_, _| Some(Trouble::After));
}

#[test]
fn an_interruption_is_undone() {
    at_each_call(|attempt, _| {
        let cancel = attempt.run.cancel.clone();
        Some(Trouble::Do(Arc::new(move || cancel.cancel("interrupted by the user"))))
    });
}

/// Every step twice, the second right after the first.
fn doubled(plan: &Plan) -> Plan {
    let steps = plan.steps.iter().flat_map(|step| {
        let (first, second) = (StepId(step.id.0 * 2 - 1), StepId(step.id.0 * 2));
        let after = step.after.iter().map(|id| StepId(id.0 * 2)).collect();
        [
            Step { id: first, after, ..step.clone() },
            Step { id: second, after: vec![first], ..step.clone() },
        ]
    });
    Plan { steps: steps.collect(), ..plan.clone() }
}

#[test]
fn each_step_twice_is_harmless() {
    for shape in shapes::all() {
        paused(async {
            let mut attempt = Attempt::at(&shape).await;
            attempt.plan = doubled(&attempt.plan);
            let execution = attempt.finish().await;
            assert_eq!(execution.reason, None, "{}", shape.name);
            assert_eq!(execution.left, Vec::<String>::new(), "{}", shape.name);
            assert_settled(&attempt.world, &attempt.new).await;
        });
    }
}

#[test]
fn each_step_twice_runs_a_job_once_though_it_ends_at_once() {
    for shape in shapes::all().into_iter().filter(|shape| shape.new.contains("migrate:")) {
        paused(async {
            let mut attempt = Attempt::at(&shape).await;
            let ends_at_once = Script { exits: Some((0, 0)), ..Script::default() };
            attempt.world.script("migrate", ends_at_once);
            let image = attempt.new.services["migrate"].image.reference.clone();
            let before = attempt.world.starts("migrate", &image);
            attempt.plan = doubled(&attempt.plan);
            let execution = attempt.finish().await;
            assert_eq!(execution.reason, None, "{}", shape.name);
            assert_eq!(attempt.world.starts("migrate", &image), before + 1, "{}", shape.name);
        });
    }
}

#[test]
fn each_step_undone_twice_is_harmless() {
    for shape in shapes::all() {
        let mut calls = 0;
        paused(async {
            let mut attempt = Attempt::at(&shape).await;
            attempt.plan = doubled(&attempt.plan);
            attempt.finish().await;
            calls = attempt.world.log().len();
        });
        // An odd stride: every kind of call is met, in half of the time.
        for index in (0..calls).step_by(3) {
            paused(async {
                let mut attempt = Attempt::at(&shape).await;
                attempt.plan = doubled(&attempt.plan);
                attempt.world.trouble_at(index, Trouble::Before);
                let what = format!("doubled, at {index} (ledger.)");
                assert_done_or_undone(&shape, &attempt, &what).await;
            });
        }
    }
}

#[test]
fn a_failure_while_tidying_leaves_the_new_release_and_says_what_is_left() {
    for shape in shapes::all() {
        let steps = paused(async { Attempt::at(&shape).await.plan.steps });
        let earlier = |text: &str| {
            let before = steps.iter().filter(|step| step.phase != Phase::Tidy);
            before.into_iter().any(|step| step.action.to_string().starts_with(text))
        };
        for step in steps.iter().filter(|step| step.phase == Phase::Tidy) {
            if earlier(&step.action.to_string()) {
                continue;
            }
            paused(async {
                let attempt = Attempt::at(&shape).await;
                let what = format!("ledger.record Started {}", step.action);
                attempt.world.trouble_on(&what, Trouble::Before);
                let execution = attempt.finish().await;
                assert_eq!(execution.outcome, Outcome::Done, "{}: {what}", shape.name);
                let named = format!("{}: ", step.action);
                assert!(execution.left[0].starts_with(&named), "{:?}", execution.left);
                assert_serves(&attempt.world, &attempt.new);
            });
        }
    }
}

#[test]
fn an_undo_that_fails_leaves_it_stuck_and_says_what_is_left() {
    for shape in shapes::all() {
        let steps = paused(async { Attempt::at(&shape).await.plan.steps });
        let last = steps.iter().rev().find(|step| step.phase != Phase::Tidy).unwrap();
        paused(async {
            let attempt = Attempt::at(&shape).await;
            let world = &attempt.world;
            // The last thing before tidying fails, and from then on nothing works at all.
            let trouble = format!("ledger.record Started {}", last.action);
            let everything = world.clone();
            world.trouble_on(
                &trouble,
                Trouble::Do(Arc::new(move || {
                    everything.trouble_on("engine.", Trouble::Before);
                    everything.trouble_on("router.", Trouble::Before);
                })),
            );
            let execution = attempt.finish().await;
            assert_eq!(execution.outcome, Outcome::Stuck, "{}", shape.name);
            assert!(!execution.left.is_empty());
            assert_legal(&attempt.journal().await, &attempt.plan);
            // Once things work again, the next deployment puts them in order.
            world.calm();
            let again = Deployer::new(world).deploy(&attempt.new, shape.change).await;
            assert_eq!(again.reason, None, "{}", shape.name);
            assert_settled(world, &attempt.new).await;
        });
    }
}

#[test]
fn whoever_lost_the_lease_touches_nothing_more() {
    let mutates = |call: &String| {
        let harmless = [
            "engine.container",
            "engine.image",
            "engine.tail",
            "engine.exec",
            "engine.healthcheck",
            "router.probe",
            "router.state",
            "router.drain",
            // Starts an edge that is away; the routes stay as they are.
            "router.ensure",
            "router.listening_ports",
            "ledger.",
        ];
        !harmless.iter().any(|prefix| call.starts_with(prefix))
    };
    for shape in shapes::all() {
        for (index, _) in paused(Attempt::points(&shape)) {
            paused(async {
                let attempt = Attempt::at(&shape).await;
                let ledger = attempt.world.ledger();
                let thief = Trouble::Do(Arc::new(move || ledger.steal(&scope())));
                attempt.world.trouble_at(index, thief);
                let execution = attempt.finish().await;
                assert_eq!(execution.outcome, Outcome::Stuck, "{} {index}", shape.name);
                assert!(execution.reason.unwrap().contains("lease"));
                let log = attempt.world.log();
                let (until, since) = log.split_at(index);
                let count = |prefix: &str| until.iter().filter(|c| c.starts_with(prefix)).count();
                let running = count("ledger.record Started") - count("ledger.record Finished");
                // A removal is a stop and a removal.
                let touched = since.iter().filter(|call| mutates(call)).count();
                assert!(touched <= 2 * running, "{} {index}: {since:?}", shape.name);
            });
        }
    }
}
