//! When a new replica counts as working, and what happens when it does not.

use shiplap_execute::{Execution, KeepFailed};
use shiplap_model::{Ledger, Outcome};
use shiplap_testkit::{Script, World, desired};
use tokio::time::{Duration, Instant};

use crate::support::{Deployer, assert_settled, bring_up, paused, scope};

const PORT: &str = r#"
services:
  api: { image: "api:v1", restart: always, ports: ["8000:8000"] }
"#;
const CHECKED: &str = r#"
services:
  api: { image: "api:v1", restart: always, healthcheck: { test: [CMD, "true"] } }
"#;
const BOTH: &str = r#"
services:
  api:
    image: "api:v1"
    restart: always
    ports: ["8000:8000"]
    healthcheck: { test: [CMD, "true"], start_period: 60s }
"#;
const BLIND: &str = r#"
services:
  api: { image: "api:v1", restart: always }
"#;
const JOB: &str = r#"
services:
  job: { image: "api:v1" }
  api:
    image: "other:v1"
    restart: always
    depends_on: { job: { condition: service_completed_successfully } }
"#;

/// A first deployment of something that behaves so, and how long it took in fake time.
fn try_out(yaml: &str, script: Script) -> (Execution, Duration) {
    paused(async {
        let world = World::new();
        let new = desired(yaml);
        world.has_images_of(&new);
        world.script("api:v1", script);
        let began = Instant::now();
        let execution = Deployer::new(&world).deploy(&new, |_| {}).await;
        if execution.outcome == Outcome::Done {
            assert_settled(&world, &new).await;
        } else {
            assert_eq!(execution.outcome, Outcome::RolledBack);
            assert_eq!(world.picture(), "", "nothing is left of a first deployment");
        }
        (execution, began.elapsed())
    })
}

fn works(yaml: &str, script: Script) -> Duration {
    let (execution, took) = try_out(yaml, script);
    assert_eq!(execution.reason, None);
    took
}

fn fails(yaml: &str, script: Script) -> (String, Duration) {
    let (execution, took) = try_out(yaml, script);
    (execution.reason.expect("it fails"), took)
}

#[test]
fn a_check_must_pass_twice_and_is_not_waited_for() {
    assert!(works(CHECKED, Script::default()) < Duration::from_secs(1));
    let slow = Script { failing_checks: 30, ..Script::default() };
    let took = works(CHECKED, slow);
    assert!(took > Duration::from_secs(1) && took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn what_the_engine_calls_healthy_is_believed() {
    let script = Script { failing_checks: u32::MAX, healthy_at: Some(5), ..Script::default() };
    works(CHECKED, script);
}

#[test]
fn a_check_that_never_passes_fails_at_the_limit_with_what_it_said() {
    let tail = vec!["cannot open the database".to_owned()];
    let (reason, took) =
        fails(CHECKED, Script { failing_checks: u32::MAX, tail, ..Script::default() });
    assert_eq!(
        reason,
        "shop-api-1 did not work within 20 s: its health check ended with 1: no answer yet \
         (limit `gate`: --limit gate=40s)\n\
         last lines of shop-api-1:\n  cannot open the database"
    );
    assert!(took >= Duration::from_secs(20) && took < Duration::from_secs(22), "{took:?}");
}

#[test]
fn an_unhealthy_replica_fails_at_once() {
    let script = Script { failing_checks: u32::MAX, unhealthy_at: Some(3), ..Script::default() };
    let (reason, took) = fails(CHECKED, script);
    assert!(reason.starts_with("shop-api-1 is unhealthy: "), "{reason}");
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn a_replica_whose_port_refuses_is_still_booting_whatever_its_check_says() {
    let script = Script {
        refused_probes: 120,
        unhealthy_at: Some(2),
        failing_checks: 3,
        http_status: Some(200),
        ..Script::default()
    };
    let (_, took) = fails(BOTH, script.clone());
    // Once the port answers, an unhealthy replica is given up.
    assert!(took > Duration::from_secs(5), "{took:?}");
    let recovers = Script { unhealthy_at: None, ..script };
    works(BOTH, recovers);
}

#[test]
fn a_start_period_prolongs_the_limit() {
    let (reason, took) = fails(BOTH, Script { refused_probes: u32::MAX, ..Script::default() });
    assert!(reason.contains("did not work within 80 s: port 8000: refused"), "{reason}");
    assert!(took >= Duration::from_secs(80), "{took:?}");
}

#[test]
fn a_port_must_answer_twice_in_a_row() {
    let took = works(PORT, Script { refused_probes: 20, ..Script::default() });
    assert!(took > Duration::from_millis(900) && took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn an_error_of_the_server_is_no_answer_without_a_check_and_one_with_it() {
    let broken = Script { http_status: Some(500), ..Script::default() };
    let (reason, _) = fails(PORT, broken.clone());
    assert!(reason.contains("port 8000 answers 500"), "{reason}");
    works(BOTH, broken);
    works(PORT, Script { http_status: Some(404), ..Script::default() });
}

#[test]
fn an_exit_ends_the_wait() {
    let once = PORT.replace("restart: always, ", "");
    assert_ne!(once, PORT);
    let silent = Script { refused_probes: 100, ..Script::default() };
    let exits = Script { exits: Some((2, 1)), ..silent };
    let (reason, took) = fails(&once, exits.clone());
    assert_eq!(reason, "shop-api-1 exited with 1");
    assert!(took < Duration::from_secs(1), "{took:?}");
    let (reason, _) = fails(&once, Script { exits: Some((0, 0)), ..Script::default() });
    assert_eq!(reason, "shop-api-1 exited with 0");
    let (reason, took) = fails(PORT, exits);
    assert_eq!(reason, "shop-api-1 keeps crashing: 3 restarts");
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn two_restarts_are_forgiven_and_three_are_not() {
    works(PORT, Script { restarts: 2, ..Script::default() });
    let (reason, _) = fails(PORT, Script { restarts: 3, ..Script::default() });
    assert!(reason.starts_with("shop-api-1 keeps crashing: 3 restarts"), "{reason}");
}

#[test]
fn a_job_may_take_longer_than_a_server_and_must_end_well() {
    let took = works(JOB, Script { exits: Some((300, 0)), ..Script::default() });
    assert!(took > Duration::from_secs(60), "{took:?}");
    let (reason, _) = fails(JOB, Script { exits: Some((5, 3)), ..Script::default() });
    assert_eq!(reason, "shop-job-1 exited with 3");
    let (reason, took) = fails(JOB, Script::default());
    assert!(reason.contains("did not work within 1800 s: it has not ended yet"), "{reason}");
    assert!(took >= Duration::from_secs(1800), "{took:?}");
}

#[test]
fn what_cannot_be_asked_has_to_run_for_a_while() {
    let took = works(BLIND, Script::default());
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(2), "{took:?}");
    let (reason, _) = fails(BLIND, Script { exits: Some((1, 0)), ..Script::default() });
    assert_eq!(reason, "shop-api-1 keeps crashing: 3 restarts");
}

#[test]
fn a_container_that_cannot_start_says_why() {
    let start_error = Some("exec: \"serve\": executable file not found".to_owned());
    let (reason, _) = fails(PORT, Script { start_error, ..Script::default() });
    assert_eq!(reason, "start shop-api-1: exec: \"serve\": executable file not found");
}

const NEXT: &str = r#"
services:
  api: { image: "api:v2", restart: always, ports: ["8000:8000"] }
"#;

/// A second deployment whose replicas behave so.
fn replace(script: Script, keep_failed: KeepFailed) -> (World, Execution) {
    paused(async {
        let world = World::new();
        bring_up(&world, &desired(PORT)).await;
        let before = world.picture();
        let new = desired(NEXT);
        world.has_images_of(&new);
        world.script("api:v2", script);
        let deployer = Deployer { keep_failed, ..Deployer::new(&world) };
        let execution = deployer.deploy(&new, |_| {}).await;
        assert_eq!(execution.outcome, Outcome::RolledBack);
        if keep_failed == KeepFailed::No {
            assert_eq!(world.picture(), before);
        }
        assert_settled(&world, &desired(PORT)).await;
        (world, execution)
    })
}

#[test]
fn a_crash_after_the_switch_brings_the_old_replica_back() {
    let crashes = Script { exits_once_routed: Some((4, 137)), ..Script::default() };
    let (_, execution) = replace(crashes, KeepFailed::No);
    let reason = execution.reason.unwrap();
    assert!(reason.starts_with("shop-api-1.d2 crashed "), "{reason}");
    assert!(reason.contains(" s after the switch"), "{reason}");
}

#[test]
fn a_replica_that_becomes_unhealthy_after_the_switch_goes_back_too() {
    let sickens = Script { unhealthy_at: Some(8), ..Script::default() };
    let world_with_check = r#"
services:
  api:
    image: "api:v2"
    restart: always
    ports: ["8000:8000"]
    healthcheck: { test: [CMD, "true"] }
"#;
    paused(async {
        let world = World::new();
        bring_up(&world, &desired(PORT)).await;
        let new = desired(world_with_check);
        world.has_images_of(&new);
        world.script("api:v2", sickens);
        let execution = Deployer::new(&world).deploy(&new, |_| {}).await;
        assert_eq!(execution.outcome, Outcome::RolledBack);
        assert!(execution.reason.unwrap().contains("became unhealthy"));
        assert_settled(&world, &desired(PORT)).await;
    });
}

#[test]
fn an_unhealthy_replica_never_receives_traffic() {
    let broken = Script { http_status: Some(503), ..Script::default() };
    let (world, _) = replace(broken, KeepFailed::No);
    let switched =
        world.log().into_iter().any(|call| call.starts_with("ledger.record Started switch"));
    // The first deployment switched once; the second one did not get there.
    let switches = world.log().iter().filter(|c| c.contains("Started switch")).count();
    assert!(switched && switches == 1);
}

#[test]
fn a_failed_replica_stays_for_a_look_when_asked_for() {
    let crashes = Script { exits: Some((3, 1)), ..Script::default() };
    let (world, execution) = replace(crashes, KeepFailed::Yes);
    assert_eq!(execution.left, Vec::<String>::new());
    let picture = world.picture();
    assert!(picture.contains("shop-api-1.d2.failed api:v2 Exited("), "{picture}");
}

#[test]
fn requests_that_never_end_do_not_hold_up_a_deployment() {
    paused(async {
        let world = World::new();
        bring_up(&world, &desired(PORT)).await;
        let old = world.state().find("shop-api-1").unwrap().id.clone();
        world.state().stuck_requests.insert(old, 3);
        let deployer = Deployer::new(&world);
        let new = desired(NEXT);
        world.has_images_of(&new);
        let execution = deployer.deploy(&new, |_| {}).await;
        assert_eq!((execution.outcome, execution.left), (Outcome::Done, vec![]));
        assert!(deployer.events.text().contains("3 requests were still in flight after 30 s"));
        assert_settled(&world, &new).await;
    });
}

#[test]
fn a_busy_host_port_is_found_before_anything_is_touched() {
    paused(async {
        let world = World::new();
        let new = desired(PORT);
        world.has_images_of(&new);
        world.state().busy_ports.insert(8000);
        let execution = Deployer::new(&world).deploy(&new, |_| {}).await;
        assert_eq!(execution.outcome, Outcome::Failed);
        assert_eq!(execution.reason.unwrap(), "host port 8000 is taken: address already in use");
        assert_eq!(world.picture(), "");
        let newest = world.ledger().deployments(&scope(), 1).await.unwrap();
        let journal = world.ledger().journal(&scope(), newest[0].number).await.unwrap();
        assert!(journal.iter().all(|entry| !entry.what.starts_with("create shop-api")));
    });
}

#[test]
fn a_server_that_ends_well_after_the_switch_has_crashed() {
    paused(async {
        let world = World::new();
        let plain = |image: &str| {
            format!("services: {{ api: {{ image: '{image}', ports: ['8000:8000'] }} }}")
        };
        bring_up(&world, &desired(&plain("api:v1"))).await;
        let new = desired(&plain("api:v2"));
        world.has_images_of(&new);
        let ends = Script { exits_once_routed: Some((4, 0)), ..Script::default() };
        world.script("api:v2", ends);
        let execution = Deployer::new(&world).deploy(&new, |_| {}).await;
        assert_eq!(execution.outcome, Outcome::RolledBack);
        assert!(execution.reason.unwrap().starts_with("shop-api-1.d2 exited with 0 "));
        assert_settled(&world, &desired(&plain("api:v1"))).await;
    });
}

#[test]
fn what_listens_works_before_it_has_run_for_long() {
    let listens = works(BLIND, Script { listens_at: Some(2), ..Script::default() });
    let waits = works(BLIND, Script::default());
    assert!(listens < Duration::from_millis(500), "{listens:?}");
    assert!(waits >= Duration::from_secs(1), "{waits:?}");
}
