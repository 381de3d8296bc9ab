//! What each command makes of a deployment that did not end.

use std::collections::BTreeMap;
use std::sync::Arc;

use shiplap_execute::app::{AppError, Choice, Intent, OnInterrupted, Request};
use shiplap_model::{DeploymentState, Direction, Ledger, Outcome};
use shiplap_testkit::{Trouble, World, desired};

use super::shop::{
    AUTO, BACK, FORWARD, app, app_with, deploy, die, dies_deploying, from, is_open, newest,
    request, resume, run, within, yes,
};
use crate::support::{Events, scope};

const V1: &str = r#"
services:
  api: { image: "api:v1", restart: always, ports: ["8000:8000"] }
  web: { image: "web:v1", restart: always, ports: ["80:3000"], depends_on: [api] }
"#;

fn with_api(version: u32) -> String {
    V1.replace("api:v1", &format!("api:v{version}"))
}

/// Version 1 runs, and the deployer of version 2 died before the first call that begins so.
async fn interrupted(at: &str) -> World {
    let world = World::new();
    deploy(&world, V1).await;
    for version in [2, 3] {
        world.has_images_of(&desired(&with_api(version)));
    }
    world.has_image("web:v2");
    world.reset();
    let yaml = with_api(2);
    let calls = {
        let rehearsal = world.fork();
        deploy(&rehearsal, &yaml).await;
        rehearsal.log()
    };
    let call = calls.iter().position(|call| call.starts_with(at)).expect("it is called");
    let source = from(&yaml);
    let intent = Intent::Deploy(&source);
    assert!(die(&world, call, Trouble::Hang, yes(&world, &intent, &request())).await);
    world
}

const BEFORE_START: &str = "engine.start shop-api-1.d2";
const AFTER_SWITCH: &str = "ledger.record Finished switch";

fn image(world: &World, container: &str) -> String {
    world.state().find(container).unwrap().image_reference.clone()
}

async fn ends(world: &World) -> Vec<(u64, String)> {
    let all = world.ledger().deployments(&scope(), 100).await.unwrap();
    let end = |state: DeploymentState| match state {
        DeploymentState::Unfinished => "unfinished".to_owned(),
        DeploymentState::Ended { outcome, reason: Some(reason), .. } => {
            format!("{outcome}: {reason}")
        }
        DeploymentState::Ended { outcome, .. } => outcome.to_string(),
    };
    all.into_iter().map(|d| (d.number, end(d.state))).collect()
}

#[test]
fn it_is_told_with_its_number_its_last_step_who_and_since_when() {
    run(async {
        let world = interrupted(BEFORE_START).await;
        let open = app(&world).unfinished(&scope()).await.unwrap().unwrap();
        assert_eq!((open.number(), open.who.as_str()), (2, "ada@vm1"));
        assert!(open.last_words().ends_with("(start shop-api-1.d2) had begun"), "{open:?}");
        let status = app(&world).status(&from(V1)).await.unwrap();
        assert_eq!(status.unfinished.map(|open| open.number()), Some(2));
    });
}

#[test]
fn what_a_step_has_come_to_is_looked_up() {
    run(async {
        let world = interrupted(BEFORE_START).await;
        let events: Arc<Events> = Arc::default();
        let app = app_with(&world, events.clone());
        let no = |_: &_| std::future::ready(false);
        within(app.resume(&scope(), AUTO, &request(), no)).await.unwrap();
        let told = events.text();
        assert!(told.contains("deployment 2 (deploy by ada@vm1) was interrupted"), "{told}");
        assert!(told.contains("had begun; shop-api-1.d2 is there, not started"), "{told}");
        assert!(
            told.contains("going back, since `start shop-api-1.d2` is still to be done"),
            "{told}"
        );
    });
}

#[test]
fn whoever_says_no_leaves_it_unfinished() {
    for choice in [AUTO, FORWARD, BACK, Choice::Abandon] {
        run(async {
            let world = interrupted(BEFORE_START).await;
            let there = world.picture();
            let no = |_: &_| std::future::ready(false);
            let report = within(app(&world).resume(&scope(), choice, &request(), no)).await;
            assert!(report.unwrap().unwrap().declined);
            assert_eq!(world.picture(), there);
            assert_eq!(ends(&world).await[0].1, "unfinished");
        });
    }
}

#[test]
fn the_same_deployment_again_goes_on_under_its_number() {
    run(async {
        let world = interrupted(BEFORE_START).await;
        let source = from(&with_api(2));
        let planned = app(&world).plan(&Intent::Deploy(&source), &request()).await.unwrap();
        assert_eq!(planned.resumes, Some(2));
        let report = deploy(&world, &with_api(2)).await;
        assert_eq!((report.outcome, report.number), (Outcome::Done, Some(2)));
        assert_eq!(report.resumed.map(|(_, direction)| direction), Some(Direction::Forward));
        assert_eq!(world.log().iter().filter(|c| c.starts_with("engine.create ")).count(), 0);
        assert_eq!(image(&world, "shop-api-1"), "api:v2");
        assert_eq!(ends(&world).await, [(2, "done".to_owned()), (1, "done".to_owned())]);
    });
}

#[test]
fn another_deployment_takes_over() {
    run(async {
        let world = interrupted(BEFORE_START).await;
        let report = deploy(&world, &with_api(3)).await;
        assert_eq!((report.outcome, report.number), (Outcome::Done, Some(3)));
        let taken = "interrupted: taken over by deployment 3".to_owned();
        assert_eq!(ends(&world).await[1], (2, taken));
        let state = world.state();
        let made_by_2 = state.containers.values().filter(|c| c.name.ends_with(".d2")).count();
        assert_eq!(made_by_2, 0, "nothing of it is left");
    });
}

#[test]
fn forcing_or_other_values_are_not_the_same() {
    run(async {
        let world = interrupted(BEFORE_START).await;
        let yaml = with_api(2).replace("restart: always,", "restart: always, environment: {A: b},");
        let source = from(&yaml);
        let planned = app(&world).plan(&Intent::Deploy(&source), &request()).await.unwrap();
        assert_eq!(planned.resumes, None);
        let source = from(&with_api(2));
        let forced = Request { force: true, ..request() };
        let planned = app(&world).plan(&Intent::Deploy(&source), &forced).await.unwrap();
        assert_eq!(planned.resumes, None);
    });
}

#[test]
fn one_service_waits_until_it_is_settled() {
    for (at, way, api) in [
        (BEFORE_START, OnInterrupted::Auto, "api:v1"),
        (BEFORE_START, OnInterrupted::Forward, "api:v2"),
        (AFTER_SWITCH, OnInterrupted::Auto, "api:v2"),
        (AFTER_SWITCH, OnInterrupted::Back, "api:v1"),
    ] {
        run(async {
            let world = interrupted(at).await;
            let source = from(&with_api(3).replace("web:v1", "web:v2"));
            let services = ["web".to_owned()].into();
            let only = Request { services, on_interrupted: way, ..request() };
            let report = yes(&world, &Intent::Deploy(&source), &only).await.unwrap();
            assert_eq!((report.outcome, report.number), (Outcome::Done, Some(3)));
            let settled = report.settled.unwrap();
            assert_eq!(settled.number, Some(2));
            assert_eq!(image(&world, "shop-api-1"), api, "{at} {way:?}");
            assert_eq!(image(&world, "shop-web-1"), "web:v2");
            assert!(!is_open(&world).await);
        });
    }
}

#[test]
fn so_do_restart_and_scale() {
    run(async {
        let source = from(V1);
        let replicas = BTreeMap::from([("web".to_owned(), 2)]);
        for intent in [Intent::Restart(&source), Intent::Scale { source: &source, replicas }] {
            let world = interrupted(BEFORE_START).await;
            let report = yes(&world, &intent, &request()).await.unwrap();
            assert_eq!(report.outcome, Outcome::Done, "{:?}", report.reason);
            let settled = report.settled.unwrap();
            assert_eq!((settled.number, settled.outcome), (Some(2), Outcome::RolledBack));
            assert_eq!(image(&world, "shop-api-1"), "api:v1");
        }
    });
}

#[test]
fn a_rollback_is_the_way_out_and_one_to_a_number_takes_over() {
    run(async {
        let world = interrupted(AFTER_SWITCH).await;
        let intent = Intent::Rollback { scope: scope(), to: None };
        let report = yes(&world, &intent, &request()).await.unwrap();
        assert_eq!((report.outcome, report.number), (Outcome::RolledBack, Some(2)));
        assert_eq!(image(&world, "shop-api-1"), "api:v1");

        let world = interrupted(AFTER_SWITCH).await;
        let intent = Intent::Rollback { scope: scope(), to: Some(1) };
        let report = yes(&world, &intent, &request()).await.unwrap();
        assert_eq!((report.outcome, report.number), (Outcome::Done, Some(3)));
        assert_eq!(image(&world, "shop-api-1"), "api:v1");
        let taken = "interrupted: taken over by deployment 3".to_owned();
        assert_eq!(ends(&world).await[1], (2, taken));
    });
}

#[test]
fn taking_down_takes_over() {
    run(async {
        let world = interrupted(BEFORE_START).await;
        let intent = Intent::Down { scope: scope(), source: None, volumes: false };
        let report = yes(&world, &intent, &request()).await.unwrap();
        assert_eq!((report.outcome, report.left), (Outcome::Done, vec![]));
        assert_eq!(world.picture(), "");
        assert!(!is_open(&world).await);
    });
}

#[test]
fn what_was_left_as_it_is_cannot_be_gone_back_behind() {
    run(async {
        let world = interrupted(AFTER_SWITCH).await;
        resume(&world, Choice::Abandon).await.unwrap();
        assert!(!is_open(&world).await);
        dies_deploying(&world, &with_api(3), "engine.start shop-api-1.d3").await;
        let refused = resume(&world, BACK).await;
        assert!(matches!(refused, Err(AppError::History { .. })), "{refused:?}");
        // What can be decided is decided.
        let report = resume(&world, AUTO).await.unwrap().unwrap();
        assert_eq!((report.outcome, report.number), (Outcome::Done, Some(3)));
        assert_eq!(image(&world, "shop-api-1"), "api:v3");
    });
}

#[test]
fn an_image_that_was_built_is_found_again_and_one_that_was_not_is_a_reason_to_go_back() {
    const BUILT: &str = r#"
services:
  api: { build: ., restart: always, ports: ["8000:8000"] }
"#;
    for (at, expected) in [("engine.build", Outcome::RolledBack), (AFTER_SWITCH, Outcome::Done)] {
        run(async {
            let world = World::new();
            dies_deploying(&world, BUILT, at).await;
            let report = resume(&world, AUTO).await.unwrap().unwrap();
            assert_eq!(report.outcome, expected, "{at}: {:?}", report.reason);
            if expected == Outcome::Done {
                let done = newest(&world).await.unwrap();
                let id = done.release.services["api"].image.id.clone().unwrap();
                assert!(id.starts_with("sha256:built-"), "{id}");
            }
        });
    }
}

#[test]
fn where_there_is_nothing_to_resume_nothing_happens() {
    run(async {
        let world = World::new();
        assert!(resume(&world, AUTO).await.unwrap().is_none());
        deploy(&world, V1).await;
        assert!(resume(&world, BACK).await.unwrap().is_none());
    });
}

#[test]
fn a_way_on_that_fails_leads_back() {
    run(async {
        let world = interrupted(BEFORE_START).await;
        let broken = shiplap_testkit::Script { exits: Some((1, 1)), ..Default::default() };
        world.script("api:v2", broken);
        let report = resume(&world, FORWARD).await.unwrap().unwrap();
        assert_eq!((report.outcome, report.left), (Outcome::RolledBack, vec![]));
        let reason = report.reason.unwrap();
        assert!(reason.contains("keeps crashing"), "{reason}");
        assert_eq!(image(&world, "shop-api-1"), "api:v1");
        let facts = world.ledger().facts(&scope(), 2).await.unwrap();
        let ways: Vec<Direction> = facts.resumptions().map(|r| r.direction).collect();
        assert_eq!(ways, [Direction::Forward, Direction::Back]);
    });
}

#[test]
fn after_a_lost_ledger_going_back_removes_nothing_that_was_there() {
    for at in [BEFORE_START, "ledger.record Started watch"] {
        run(async {
            let world = World::new();
            deploy(&world, V1).await;
            // The same machine, with a history that begins anew.
            let world = world.with_a_new_ledger();
            let before = world.picture();
            dies_deploying(&world, &with_api(2), at).await;
            // Above what the target's containers say, so that names are never given twice.
            assert_eq!(newest(&world).await.unwrap().number, 2);
            let report = resume(&world, BACK).await.unwrap().unwrap();
            assert_eq!((report.outcome, report.left), (Outcome::RolledBack, vec![]), "{at}");
            assert_eq!(world.picture(), before, "{at}");
            assert_eq!(world.violations(), Vec::<String>::new());
        });
    }
}
