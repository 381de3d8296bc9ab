//! Jobs are run once, whatever dies when.

use shiplap_execute::app::Intent;
use shiplap_model::{ContainerState, Ledger, Outcome};
use shiplap_testkit::{Script, Trouble, World, desired};

use super::shop::{
    AUTO, FORWARD, deploy, die, dies_deploying, from, newest, request, resume, run, yes,
};
use crate::support::scope;

const V1: &str = r#"
services:
  migrate: { image: "migrate:v1", command: up }
  api:
    image: "api:v1"
    restart: always
    ports: ["8000:8000"]
    depends_on: { migrate: { condition: service_completed_successfully } }
"#;

fn v2() -> String {
    V1.replace(":v1", ":v2")
}

/// Version 1 runs; jobs end at this look, with this code.
async fn shop(exits: (u32, i64)) -> World {
    let world = World::new();
    world.script("migrate:v1", Script { exits: Some((2, 0)), ..Script::default() });
    world.script("migrate:v2", Script { exits: Some(exits), ..Script::default() });
    let report = deploy(&world, V1).await;
    assert_eq!(report.outcome, Outcome::Done, "{:?}", report.reason);
    world.has_images_of(&desired(&v2()));
    world.reset();
    world
}

/// The deployer of version 2 dies at the first call that begins so.
async fn dies(world: &World, at: &str, trouble: Trouble) {
    let yaml = v2();
    let calls = {
        let rehearsal = world.fork();
        deploy(&rehearsal, &yaml).await;
        rehearsal.log()
    };
    let call = calls.iter().position(|call| call.starts_with(at)).expect("it is called");
    let source = from(&yaml);
    let intent = Intent::Deploy(&source);
    assert!(die(world, call, trouble, yes(world, &intent, &request())).await);
}

fn runs(world: &World) -> (u32, u32) {
    (world.starts("migrate", "migrate:v1"), world.starts("migrate", "migrate:v2"))
}

fn state(world: &World, container: &str) -> Option<ContainerState> {
    world.state().find(container).map(|container| container.state)
}

#[test]
fn one_that_had_ended_is_not_run_again() {
    run(async {
        let world = shop((2, 0)).await;
        dies(&world, "ledger.record Finished gate shop-migrate-1.d2", Trouble::Hang).await;
        assert_eq!(state(&world, "shop-migrate-1.d2"), Some(ContainerState::Exited(0)));
        let report = resume(&world, FORWARD).await.unwrap().unwrap();
        assert_eq!(report.outcome, Outcome::Done, "{:?}", report.reason);
        assert_eq!(runs(&world), (1, 1));
        let text = shiplap_plan::render(&report.plan);
        assert!(text.contains("it has run, and is not run again"), "{text}");
    });
}

#[test]
fn one_that_still_runs_is_waited_for() {
    run(async {
        let world = shop((6, 0)).await;
        dies(&world, "engine.start shop-migrate-1.d2", Trouble::HangAfter).await;
        assert_eq!(state(&world, "shop-migrate-1.d2"), Some(ContainerState::Running));
        let report = resume(&world, FORWARD).await.unwrap().unwrap();
        assert_eq!(report.outcome, Outcome::Done, "{:?}", report.reason);
        assert_eq!(runs(&world), (1, 1));
        let waited = report.plan.steps.iter().map(|step| step.action.to_string());
        assert!(waited.into_iter().any(|what| what == "gate shop-migrate-1.d2"));
    });
}

#[test]
fn one_that_was_made_and_not_started_is_started() {
    run(async {
        let world = shop((2, 0)).await;
        dies(&world, "engine.start shop-migrate-1.d2", Trouble::Hang).await;
        let report = resume(&world, FORWARD).await.unwrap().unwrap();
        assert_eq!(report.outcome, Outcome::Done, "{:?}", report.reason);
        assert_eq!(runs(&world), (1, 1));
    });
}

#[test]
fn one_that_failed_is_not_run_again_and_the_deployment_goes_back() {
    for way in [AUTO, FORWARD] {
        run(async {
            let world = shop((0, 1)).await;
            dies(&world, "engine.start shop-migrate-1.d2", Trouble::HangAfter).await;
            let report = resume(&world, way).await.unwrap().unwrap();
            assert_eq!(report.outcome, Outcome::RolledBack, "{:?}", report.reason);
            assert_eq!(runs(&world), (1, 1));
            assert_eq!(state(&world, "shop-migrate-1.d2"), None);
            // Whoever deploys it anew gives it another go.
            world.script("migrate:v2", Script { exits: Some((2, 0)), ..Script::default() });
            let report = deploy(&world, &v2()).await;
            assert_eq!((report.outcome, report.number), (Outcome::Done, Some(3)));
            assert_eq!(runs(&world), (1, 2));
        });
    }
}

#[test]
fn one_that_ends_before_the_answer_to_its_start_arrives_is_not_started_twice() {
    run(async {
        let world = shop((0, 0)).await;
        dies(&world, "engine.start shop-migrate-1.d2", Trouble::HangAfter).await;
        let report = deploy(&world, &v2()).await;
        assert_eq!((report.outcome, report.number), (Outcome::Done, Some(2)));
        assert_eq!(runs(&world), (1, 1));
    });
}

#[test]
fn one_whose_start_is_not_answered_is_not_started_twice() {
    run(async {
        let world = shop((0, 0)).await;
        let yaml = v2();
        let calls = {
            let rehearsal = world.fork();
            deploy(&rehearsal, &yaml).await;
            rehearsal.log()
        };
        let start = calls.iter().position(|c| c.starts_with("engine.start shop-migrate-1.d2"));
        world.trouble_at(start.expect("it is started"), Trouble::After);
        // Whether that is a failure is not for this test to say.
        let report = deploy(&world, &yaml).await;
        assert!(matches!(report.outcome, Outcome::Done | Outcome::RolledBack), "{report:?}");
        assert_eq!(runs(&world), (1, 1));
    });
}

#[test]
fn a_deployment_that_takes_over_counts_the_same_job_as_done() {
    run(async {
        let world = shop((2, 0)).await;
        dies(&world, "ledger.record Finished gate shop-migrate-1.d2", Trouble::Hang).await;
        let other_api = v2().replace("api:v2", "api:v3");
        let report = deploy(&world, &other_api).await;
        assert_eq!((report.outcome, report.number), (Outcome::Done, Some(3)));
        assert_eq!(runs(&world), (1, 1));
    });
}

#[test]
fn a_deployment_that_takes_over_with_another_job_ends_the_running_one_first() {
    run(async {
        let world = shop((50, 0)).await;
        dies(&world, "engine.start shop-migrate-1.d2", Trouble::HangAfter).await;
        let other = v2().replace("migrate:v2", "migrate:v3");
        world.script("migrate:v3", Script { exits: Some((2, 0)), ..Script::default() });
        let report = deploy(&world, &other).await;
        assert_eq!(report.outcome, Outcome::Done, "{:?}", report.reason);
        let log = world.log();
        let at = |text: &str| log.iter().position(|call| call.starts_with(text)).unwrap();
        assert!(at("engine.remove shop-migrate-1.d2") < at("engine.start shop-migrate-1.d3"));
    });
}

#[test]
fn what_a_deployment_had_begun_to_undo_is_not_believed() {
    run(async {
        let world = shop((50, 0)).await;
        // The job is stopped in going back, ends with 0, and then the deployer dies.
        world.trouble_on("ledger.record Started gate shop-migrate-1.d2", Trouble::Before);
        let at = "ledger.record UndoStarted remove shop-migrate-1.d2";
        dies_deploying(&world, &v2(), at).await;
        assert_eq!(state(&world, "shop-migrate-1.d2"), Some(ContainerState::Exited(0)));
        world.script("migrate:v2", Script { exits: Some((2, 0)), ..Script::default() });
        let report = resume(&world, FORWARD).await.unwrap().unwrap();
        assert_eq!(report.outcome, Outcome::Done, "{:?}", report.reason);
        assert_eq!(runs(&world), (1, 2), "it had not done its work");
    });
}

#[test]
fn a_rollback_runs_none_and_says_so() {
    for without_containers in [false, true] {
        run(async {
            let world = shop((2, 0)).await;
            deploy(&world, &v2()).await;
            if without_containers {
                world.state().containers.retain(|_, c| !c.name.contains(".d"));
            }
            let intent = Intent::Rollback { scope: scope(), to: None };
            let report = yes(&world, &intent, &request()).await.unwrap();
            assert_eq!(report.outcome, Outcome::Done, "{:?}", report.reason);
            assert_eq!(runs(&world), (1, 1));
            let note = report.plan.notes.iter().find(|note| note.code == "job-done").unwrap();
            assert!(note.text.contains("`restart migrate` runs it"), "{}", note.text);
            let again = yes(&world, &intent, &request()).await;
            assert!(again.is_err(), "{again:?}: nothing earlier");
            let api = world.state().find("shop-api-1").unwrap().image_reference.clone();
            assert_eq!(api, "api:v1");
        });
    }
}

#[test]
fn a_restart_runs_one_only_if_it_is_named() {
    run(async {
        let world = shop((2, 0)).await;
        let source = from(V1);
        let intent = Intent::Restart(&source);
        let report = yes(&world, &intent, &request()).await.unwrap();
        assert_eq!(report.outcome, Outcome::Done, "{:?}", report.reason);
        assert_eq!(runs(&world), (1, 0));
        let mut named = request();
        named.services.insert("migrate".to_owned());
        let report = yes(&world, &intent, &named).await.unwrap();
        assert_eq!(report.outcome, Outcome::Done, "{:?}", report.reason);
        assert_eq!(runs(&world), (2, 0));
        let ended = newest(&world).await.unwrap();
        assert_eq!(world.ledger().journal(&scope(), ended.number).await.unwrap().len() % 2, 0);
    });
}
