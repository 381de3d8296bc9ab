//! The engine or the edge is away, slow, at fault or restarted, at any call.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use shiplap_execute::Steady;
use shiplap_model::{ContainerState, EngineErrorKind, Limits, Outcome};
use shiplap_testkit::{Trouble, World, desired};
use tokio::time::Instant;

use crate::resuming::shop;
use crate::shapes;
use crate::support::{
    Attempt, Cases, Deployer, Events, Shape, assert_as_before, assert_serves, assert_settled,
    paused,
};

/// Calls that are not looked at: every n-th of each shape is met, which meets every kind of call.
const STRIDE: usize = 3;

fn steadily(attempt: &mut Attempt) -> Arc<Events> {
    let events = Arc::<Events>::default();
    let run = &mut attempt.run;
    let steady = Steady::new(&run.limits, events.clone(), run.cancel.clone());
    run.engine = steady.engine(run.engine.clone());
    run.router = steady.router(run.router.clone());
    events
}

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

/// Where trouble is worth making when the engine and the edge are steady, which look more often.
async fn points(shape: &Shape) -> Vec<(usize, String)> {
    let mut attempt = Attempt::at(shape).await;
    steadily(&mut attempt);
    attempt.finish().await;
    Attempt::points_in(&attempt.world.log())
}

/// Runs each shape once for many of its calls, with trouble there and a steady engine and edge.
fn at_calls(
    of: &str,
    trouble: impl Fn(&World) -> Trouble,
    check: impl AsyncFn(&Shape, &Attempt, &str),
) {
    let mut cases = Cases::default();
    let mut offset = 0;
    for shape in shapes::all() {
        let points = paused(points(&shape));
        let points = points.into_iter().filter(|(_, call)| call.starts_with(of));
        offset += 1;
        for (index, call) in points.skip(offset % STRIDE).step_by(STRIDE) {
            let what = format!("{}: at {index} {call}", shape.name);
            cases.run(&what, || {
                paused(async {
                    let mut attempt = Attempt::at(&shape).await;
                    steadily(&mut attempt);
                    let trouble = trouble(&attempt.world);
                    attempt.world.trouble_at(index, trouble);
                    check(&shape, &attempt, &what).await;
                });
            });
        }
    }
    cases.end();
}

async fn is_done(_: &Shape, attempt: &Attempt, what: &str) {
    let execution = attempt.finish().await;
    assert_eq!(execution.reason, None, "{what}");
    assert_eq!(execution.left, Vec::<String>::new(), "{what}");
    attempt.world.calm();
    // One that went when nobody needed it any more is started by the engine.
    attempt.world.state().edge_runs = true;
    assert_settled(&attempt.world, &attempt.new).await;
}

#[test]
fn an_engine_that_is_away_for_half_a_minute_is_waited_for() {
    let away = |world: &World| {
        let world = world.clone();
        Trouble::Do(Arc::new(move || world.engine_is_away(Duration::from_secs(30))))
    };
    at_calls("", away, is_done);
}

#[test]
fn an_engine_that_fails_at_one_call_is_asked_again() {
    at_calls("engine.", |_| Trouble::Before, is_done);
}

#[test]
fn an_answer_that_is_lost_is_asked_for_again() {
    at_calls("engine.", |_| Trouble::After, is_done);
}

#[test]
fn a_connection_that_breaks_is_made_again() {
    at_calls("engine.", |_| Trouble::Fails(EngineErrorKind::Broken), is_done);
}

#[test]
fn an_edge_that_is_gone_is_started_again() {
    let gone = |world: &World| {
        let world = world.clone();
        Trouble::Do(Arc::new(move || world.state().edge_runs = false))
    };
    at_calls("", gone, is_done);
}

/// Both releases keep their restart policies, so an engine that was restarted starts again what ran.
#[test]
fn a_restart_of_the_engine_ends_in_the_new_release_or_the_old_one() {
    let restarts = |world: &World| {
        let world = world.clone();
        let (away, late) = (Duration::from_secs(10), Duration::from_secs(2));
        Trouble::Do(Arc::new(move || world.engine_restarts(away, late)))
    };
    at_calls("", restarts, async |shape: &Shape, attempt: &Attempt, what: &str| {
        let execution = attempt.finish().await;
        let context = format!("{what}: {execution:?}");
        assert_ne!(execution.outcome, Outcome::Stuck, "{context}");
        attempt.world.calm();
        // What was starting again is there by now.
        tokio::time::sleep(Duration::from_secs(5)).await;
        attempt.world.time_passes();
        if execution.outcome == Outcome::Done {
            assert_eq!(execution.left, Vec::<String>::new(), "{context}");
        }
        let again = Deployer::new(&attempt.world).deploy(&attempt.new, shape.change).await;
        assert_eq!(again.reason, None, "{context}");
        assert_serves(&attempt.world, &attempt.new);
    });
}

#[test]
fn whoever_gives_up_waits_once_more_to_go_back() {
    let away = |world: &World| {
        let world = world.clone();
        Trouble::Do(Arc::new(move || world.engine_is_away(Duration::from_secs(90))))
    };
    at_calls("engine.", away, async |shape: &Shape, attempt: &Attempt, what: &str| {
        let execution = attempt.finish().await;
        let context = format!("{what}: {execution:?}");
        match execution.outcome {
            // Where nothing needed the engine for a while.
            Outcome::Done => assert_serves(&attempt.world, &attempt.new),
            Outcome::Failed | Outcome::RolledBack => {
                let reason = execution.reason.unwrap();
                let words =
                    "it was not back within 1m (limit `engine-away`: --limit engine-away=2m)";
                assert!(reason.contains(words), "{context} {reason}");
                assert_as_before(shape, &attempt.world, &attempt.before).await;
            }
            Outcome::Stuck | Outcome::Interrupted => panic!("{context}"),
        }
    });
}

const PULLED: &str = r#"
services:
  api: { image: "api:v1", restart: always, ports: ["8000:8000"] }
networks: { default: {} }
x-images: { "api:v1": { pull: true } }
"#;
const OLD: &str = "services: { api: { image: 'api:v1', restart: always, ports: ['8000:8000'] } }";
const NEW: &str = "services: { api: { image: 'api:v2', restart: always, ports: ['8000:8000'] } }";
const UPDATE: Shape =
    Shape { name: "update", old: crate::support::Old::Deployed(&[OLD]), new: NEW, change: |_| {} };

#[test]
fn who_is_waited_for_is_said_once_and_who_is_back_too() {
    paused(async {
        let mut attempt = Attempt::at(&UPDATE).await;
        let events = steadily(&mut attempt);
        let world = attempt.world.clone();
        let away = move || world.engine_is_away(Duration::from_secs(30));
        attempt.world.trouble_on("engine.create ", Trouble::Do(Arc::new(away)));
        // Again and again: only the first call makes it go away.
        let world = attempt.world.clone();
        let once = async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            world.reset();
            world.engine_is_away(Duration::from_secs(29));
        };
        let (execution, ()) = tokio::join!(attempt.finish(), once);
        assert_eq!(execution.reason, None);
        let text = events.text();
        assert_eq!(
            text.matches("the engine does not answer; waiting up to 60 s").count(),
            1,
            "{text}"
        );
        assert_eq!(text.matches("the engine is back after ").count(), 1, "{text}");
    });
}

#[test]
fn an_interruption_ends_the_wait_for_an_engine_within_a_second() {
    paused(async {
        let mut attempt = Attempt::at(&UPDATE).await;
        attempt.run.limits = limits(|limits| limits.engine_away = Duration::from_secs(3600));
        steadily(&mut attempt);
        let (world, cancel) = (attempt.world.clone(), attempt.run.cancel.clone());
        let began = tokio::time::Instant::now();
        let interrupt = async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            cancel.cancel("interrupted by the user");
            tokio::time::sleep(Duration::from_millis(900)).await;
            assert!(world.log().iter().any(|call| call.contains("UndoStarted")));
            world.calm();
        };
        let away = attempt.world.clone();
        attempt.world.trouble_on(
            "ledger.record Started create",
            Trouble::Do(Arc::new(move || away.engine_is_away(Duration::from_secs(3000)))),
        );
        let (execution, ()) = tokio::join!(attempt.finish(), interrupt);
        assert_eq!(execution.outcome, Outcome::RolledBack, "{execution:?}");
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
        assert_as_before(&UPDATE, &attempt.world, &attempt.before).await;
    });
}

#[test]
fn a_slow_engine_works_slowly() {
    paused(async {
        for shape in shapes::all() {
            let mut attempt = Attempt::at(&shape).await;
            steadily(&mut attempt);
            attempt.world.is_slow(Duration::from_secs(2));
            let execution = attempt.finish().await;
            assert_eq!(execution.reason, None, "{}", shape.name);
            attempt.world.calm();
            assert_settled(&attempt.world, &attempt.new).await;
        }
    });
}

/// Requests wait for 30 s at the edge. An engine that takes 2 s for each call must not use them up.
#[test]
fn an_engine_is_asked_little_while_requests_are_held() {
    const STORE: &str = r#"
services:
  store:
    image: "store:v1"
    restart: always
    ports: ["9000:9000"]
    volumes: ["data:/data"]
    healthcheck: { test: [CMD, "true"] }
volumes: { data: {} }
"#;
    const EACH: Duration = Duration::from_secs(2);
    paused(async {
        let world = World::new();
        shop::deploy(&world, STORE).await;
        world.reset();
        world.engine_is_slow(EACH);
        let seen: Arc<Mutex<Vec<(Instant, usize)>>> = Arc::default();
        for moment in ["ledger.record Finished hold", "ledger.record Finished switch"] {
            let (seen, log) = (seen.clone(), world.clone());
            let note = move || seen.lock().unwrap().push((Instant::now(), log.log().len()));
            world.trouble_on(moment, Trouble::Do(Arc::new(note)));
        }
        let report = shop::deploy(&world, &STORE.replace("v1", "v2")).await;
        assert_eq!((report.outcome, report.reason), (Outcome::Done, None));
        let [(held, from), (released, to)] = seen.lock().unwrap()[..] else { panic!("held once") };
        let calls = world.log()[from..to].to_vec();
        let number = |of: &str| calls.iter().filter(|call| call.starts_with(of)).count();
        assert_eq!(number("engine.exec"), 1, "{calls:?}");
        assert_eq!(number("engine.healthcheck"), 1, "{calls:?}");
        // To run a command takes a real engine three calls; of whom it has looked at once, its
        // adapter knows the check.
        let held = released - held + EACH * (3 - 1) - EACH;
        assert!(held < Duration::from_secs(20), "{held:?}: {calls:?}");
    });
}

/// A job whose start was answered by a broken connection has run: it does not run again.
#[test]
fn a_job_whose_start_got_no_answer_runs_once() {
    const JOB: &str = r#"
services:
  migrate: { image: "migrate:v1" }
  api:
    image: "api:v1"
    restart: always
    ports: ["8000:8000"]
    depends_on: { migrate: { condition: service_completed_successfully } }
"#;
    const SHAPE: Shape =
        Shape { name: "job", old: crate::support::Old::Nothing, new: JOB, change: |_| {} };
    paused(async {
        let mut attempt = Attempt::at(&SHAPE).await;
        steadily(&mut attempt);
        let mut calls = points(&SHAPE).await.into_iter();
        let start = calls.find(|(_, call)| call.starts_with("engine.start shop-migrate"));
        attempt.world.trouble_at(start.unwrap().0, Trouble::After);
        let execution = attempt.finish().await;
        assert_eq!(execution.reason, None);
        let log = attempt.world.log();
        let starts = log.iter().filter(|call| call.starts_with("engine.start shop-migrate"));
        assert_eq!(starts.count(), 1, "{log:?}");
    });
}

/// The newest table on the edge's disk could not be read: it serves by the one before.
#[test]
fn an_edge_that_comes_back_with_an_older_table_is_told_again() {
    for moment in ["record Started watch", "record Started drain"] {
        paused(async {
            let mut attempt = Attempt::at(&UPDATE).await;
            steadily(&mut attempt);
            let world = attempt.world.clone();
            let (pools, listeners, generation) = {
                let state = world.state();
                (state.pools.clone(), state.listeners.clone(), state.router_state("x"))
            };
            let generation = generation.unwrap().generation;
            attempt.world.trouble_on(
                &format!("ledger.{moment}"),
                Trouble::Do(Arc::new(move || {
                    let mut state = world.state();
                    state.pools = pools.clone();
                    state.listeners = listeners.clone();
                    state.set_generation(generation);
                })),
            );
            let execution = attempt.finish().await;
            assert_eq!(execution.reason, None, "{moment}");
            assert_settled(&attempt.world, &attempt.new).await;
        });
    }
}

/// What an engine says in plain words ends the deployment at once, with what to type.
#[test]
fn a_full_disk_and_used_up_addresses_are_answers() {
    let kinds = [
        (EngineErrorKind::DiskFull, "engine.create "),
        (EngineErrorKind::NoAddresses, "engine.create_network "),
        (EngineErrorKind::NoAddresses, "engine.start "),
        (EngineErrorKind::DiskFull, "engine.pull "),
    ];
    for (kind, call) in kinds {
        paused(async {
            let world = World::new();
            let new = desired(PULLED);
            world.has_images_of(&new);
            let before = world.picture();
            let plan = crate::support::next_plan(&world, &new, |_| {}).await;
            let deployer = Deployer::new(&world);
            let (number, lease) = deployer.begin().await;
            let mut run = deployer.run(&new, number, lease);
            let steady = Steady::new(&run.limits, deployer.events.clone(), run.cancel.clone());
            run.engine = steady.engine(run.engine.clone());
            world.reset();
            world.trouble_on(call, Trouble::Fails(kind));
            let execution = shiplap_execute::execute(&run, &plan).await;
            assert!(
                matches!(execution.outcome, Outcome::Failed | Outcome::RolledBack),
                "{call} {execution:?}"
            );
            assert_eq!(execution.left, Vec::<String>::new(), "{call}");
            let tries = world.log().iter().filter(|known| known.starts_with(call)).count();
            assert_eq!(tries, 1, "{call} is not tried again");
            world.calm();
            let containers =
                |text: &str| text.lines().filter(|line| line.starts_with("shop-")).count();
            assert_eq!(containers(&world.picture()), containers(&before), "{call}");
        });
    }
}

/// Whatever it waits for, an interruption is heard at once.
#[test]
fn an_interruption_ends_a_pull_that_hangs() {
    paused(async {
        let world = World::new();
        let new = desired(PULLED);
        world.has_images_of(&new);
        let plan = crate::support::next_plan(&world, &new, |_| {}).await;
        let deployer = Deployer::new(&world);
        let (number, lease) = deployer.begin().await;
        let run = deployer.run(&new, number, lease);
        world.trouble_on("engine.pull ", Trouble::Hang);
        let interrupt = async {
            world.hung().await;
            deployer.cancel.cancel("interrupted by the user");
        };
        let (execution, ()) = tokio::time::timeout(Duration::from_secs(1), async {
            tokio::join!(shiplap_execute::execute(&run, &plan), interrupt)
        })
        .await
        .expect("it is heard at once");
        assert_eq!(execution.outcome, Outcome::Failed);
    });
}

/// An engine that was restarted has left everything down that has no restart policy.
#[test]
fn what_ran_before_runs_again_after_a_way_back() {
    for moment in ["ledger.record Started gate", "ledger.record Started watch"] {
        paused(async {
            let mut attempt = Attempt::at(&UPDATE).await;
            steadily(&mut attempt);
            let world = attempt.world.clone();
            let all_down = move || {
                for container in world.state().containers.values_mut() {
                    if container.state == ContainerState::Running {
                        container.state = ContainerState::Exited(137);
                    }
                }
            };
            attempt.world.trouble_on(moment, Trouble::Do(Arc::new(all_down)));
            let execution = attempt.finish().await;
            assert_eq!(execution.outcome, Outcome::RolledBack, "{moment} {execution:?}");
            let state = attempt.world.state().find("shop-api-1").unwrap().state;
            assert_eq!(state, ContainerState::Running);
            assert_serves(&attempt.world, &desired(OLD));
        });
    }
}

/// Somebody removes a replica by hand in the middle.
#[test]
fn a_replica_that_is_removed_by_hand_is_missed_and_the_change_is_undone() {
    for (moment, name) in [
        ("ledger.record Started gate", "shop-api-1.d2"),
        ("ledger.record Started watch", "shop-api-1.d2"),
    ] {
        paused(async {
            let mut attempt = Attempt::at(&UPDATE).await;
            steadily(&mut attempt);
            let world = attempt.world.clone();
            let remove = move || {
                let mut state = world.state();
                let id = state.find(name).map(|found| found.id.clone());
                state.containers.retain(|known, _| Some(known) != id.as_ref());
            };
            attempt.world.trouble_on(moment, Trouble::Do(Arc::new(remove)));
            let execution = attempt.finish().await;
            assert_eq!(execution.outcome, Outcome::RolledBack, "{moment} {execution:?}");
            let reason = execution.reason.unwrap();
            assert!(reason.contains("was removed while"), "{reason}");
            let state = attempt.world.state().find("shop-api-1").unwrap().state;
            assert_eq!(state, ContainerState::Running);
            assert_serves(&attempt.world, &desired(OLD));
        });
    }
}
