//! Who may deploy: deployers of different ledgers, and one that has been overtaken.

use std::sync::Arc;
use std::time::Duration;

use shiplap_execute::app::{App, AppError, Intent, Report, Request, Source};
use shiplap_execute::{Cancel, Steady};
use shiplap_model::{ContainerState, Ledger, Mark, MarkStanding, Outcome};
use shiplap_plan::Standby;
use shiplap_testkit::{ENVIRONMENT, Trouble, World, source};

use crate::support::{Attempt, Events, Old, Shape, paused, scope};

fn yaml(tag: &str) -> String {
    format!("services: {{ api: {{ image: 'api:{tag}', restart: always, ports: ['8000:8000'] }} }}")
}

struct Machine {
    world: World,
    events: Arc<Events>,
}

impl Machine {
    fn new() -> Self {
        let world = World::new();
        for tag in ["v1", "v2", "v3", "v4", "v5"] {
            world.has_image(&format!("api:{tag}"));
        }
        Self { world, events: Arc::default() }
    }

    fn app(&self, who: &str, ledger: Arc<dyn Ledger>) -> App {
        App {
            engine: self.world.engine(),
            router: self.world.router(),
            ledger,
            reporter: self.events.clone(),
            cancel: Cancel::default(),
            who: who.to_owned(),
            version: "0.1.0".to_owned(),
        }
    }

    async fn deploy(&self, app: &App, tag: &str) -> Result<Report, AppError> {
        self.deploy_as(app, tag, &Request::default()).await
    }

    async fn deploy_as(&self, app: &App, tag: &str, how: &Request) -> Result<Report, AppError> {
        let loaded = source(&yaml(tag), &[]);
        let source = Source {
            loaded,
            environment: ENVIRONMENT.to_owned(),
            routes: Default::default(),
            notes: Vec::new(),
            secrets: Default::default(),
            files: Default::default(),
        };
        let yes = |_: &_| std::future::ready(true);
        app.carry_out(&Intent::Deploy(&source), how, yes).await
    }

    async fn done(&self, app: &App, tag: &str) -> Report {
        let report = self.deploy(app, tag).await.unwrap();
        assert_eq!(report.outcome, Outcome::Done, "{:?}", report.reason);
        report
    }

    fn generation_of(&self, container: &str) -> u64 {
        self.world.state().find(container).unwrap().labels["shiplap.generation"].parse().unwrap()
    }
}

#[test]
fn whoever_lives_keeps_the_lease_from_those_with_another_ledger() {
    paused(async {
        let machine = Machine::new();
        let first = machine.app("ada@vm1", machine.world.ledger());
        let second = machine.app("bob@vm2", machine.world.another_ledger());
        machine.done(&first, "v1").await;
        machine.world.trouble_on("engine.create shop-api-1.d2", Trouble::Hang);
        tokio::select! {
            _ = machine.deploy(&first, "v2") => panic!("it hangs"),
            answer = async {
                machine.world.hung().await;
                machine.deploy(&second, "v3").await
            } => match answer {
                Err(AppError::LeaseHeld(held)) => assert_eq!(held.holder, "ada@vm1"),
                other => panic!("{other:?}"),
            },
        }
        // Its process is gone by now, and with it whoever renewed the mark.
        machine.world.calm();
        let began = tokio::time::Instant::now();
        machine.done(&second, "v3").await;
        assert!(began.elapsed() >= Duration::from_secs(30), "{:?}", began.elapsed());
        assert_eq!(machine.generation_of("shop-api-1"), 3);
    });
}

#[test]
fn another_ledger_goes_on_with_higher_generations() {
    paused(async {
        let machine = Machine::new();
        let first = machine.app("ada@vm1", machine.world.ledger());
        for tag in ["v1", "v2", "v3"] {
            machine.done(&first, tag).await;
        }
        assert_eq!(machine.generation_of("shop-api-1"), 3);
        let second = machine.app("bob@vm2", machine.world.another_ledger());
        machine.done(&second, "v4").await;
        assert_eq!(machine.generation_of("shop-api-1"), 4);
        // With the marks gone (`docker volume prune`) the edge still knows.
        machine.world.state().marks.clear();
        let third = machine.app("eve@vm3", machine.world.another_ledger());
        machine.done(&third, "v5").await;
        assert_eq!(machine.generation_of("shop-api-1"), 5);
    });
}

#[test]
fn a_mark_is_made_when_there_is_something_to_do_and_one_remains() {
    paused(async {
        let machine = Machine::new();
        let app = machine.app("ada@vm1", machine.world.ledger());
        machine.done(&app, "v1").await;
        machine.done(&app, "v2").await;
        let marks = machine.world.state().marks.clone();
        assert_eq!(marks.len(), 1, "{marks:?}");
        assert_eq!(marks[0].standing, MarkStanding::Released);
        machine.world.reset();
        machine.done(&app, "v2").await;
        let made: Vec<String> = machine.world.log();
        assert!(!made.iter().any(|call| call.starts_with("engine.mark ")), "{made:?}");
        let down = Intent::Down { scope: scope(), source: None, volumes: false };
        let yes = |_: &_| std::future::ready(true);
        app.carry_out(&down, &Request::default(), yes).await.unwrap();
        assert_eq!(machine.world.state().marks, vec![]);
    });
}

#[test]
fn of_two_that_want_the_mark_at_once_one_gets_it() {
    paused(async {
        let machine = Machine::new();
        let first = machine.app("ada@vm1", machine.world.ledger());
        let second = machine.app("bob@vm2", machine.world.another_ledger());
        let (one, other) =
            tokio::join!(machine.deploy(&first, "v1"), machine.deploy(&second, "v2"));
        // The other one is refused, or had its turn when the first was through.
        let done = [&one, &other].into_iter().filter(|result| match result {
            Ok(report) => {
                assert_eq!(report.outcome, Outcome::Done, "{:?}", report.reason);
                assert_eq!(report.left, Vec::<String>::new());
                true
            }
            Err(AppError::LeaseHeld(_)) => false,
            Err(error) => panic!("{error}"),
        });
        assert!(done.count() >= 1);
        assert_eq!(machine.world.violations(), Vec::<String>::new());
    });
}

/// Somebody with another ledger took the mark, as after this deployer had slept.
fn overtaken(world: &World) -> Trouble {
    let world = world.clone();
    Trouble::Do(Arc::new(move || overtake(&world)))
}

fn overtake(world: &World) {
    let mut state = world.state();
    let Some(newest) = state.marks.last().cloned() else { return };
    state.marks.push(Mark {
        sequence: newest.sequence + 1,
        generation: newest.generation + 1,
        holder: "bob@vm2".to_owned(),
        nonce: "another".to_owned(),
        ledger: "another".to_owned(),
        ..newest
    });
}

/// A deployer is overtaken between its look at the lease and the call that makes a container;
/// `meanwhile` is what whoever has taken over does to it, if anything.
async fn made_too_late(meanwhile: Option<ContainerState>) -> Machine {
    let machine = Machine::new();
    let app = machine.app("ada@vm1", machine.world.ledger());
    machine.done(&app, "v1").await;
    let world = machine.world.clone();
    let overtaken = move || {
        overtake(&world);
        world.engine_is_slow(Duration::from_secs(60));
    };
    machine.world.trouble_on("ledger.record Started create", Trouble::Do(Arc::new(overtaken)));
    let world = machine.world.clone();
    let touched = move || {
        let mut state = world.state();
        let id = state.find("shop-api-1.d2").map(|found| found.id.clone());
        if let (Some(id), Some(becomes)) = (id, meanwhile) {
            state.containers.get_mut(&id).unwrap().state = becomes;
        }
    };
    machine.world.trouble_on("engine.container shop-api-1.d2", Trouble::Do(Arc::new(touched)));
    let report = machine.deploy(&app, "v2").await.unwrap();
    assert_eq!(report.outcome, Outcome::Stuck);
    assert_eq!(report.taken_over_by.as_deref(), Some("bob@vm2"));
    let old = machine.world.state().find("shop-api-1").unwrap().state;
    assert_eq!(old, ContainerState::Running);
    machine
}

#[test]
fn what_was_made_after_the_lease_was_lost_is_taken_back() {
    paused(async {
        let machine = made_too_late(None).await;
        assert!(machine.world.state().find("shop-api-1.d2").is_none());
    });
}

#[test]
fn what_was_made_after_the_lease_was_lost_and_runs_belongs_to_whoever_started_it() {
    paused(async {
        let machine = made_too_late(Some(ContainerState::Running)).await;
        let state = machine.world.state();
        assert_eq!(state.find("shop-api-1.d2").unwrap().state, ContainerState::Running);
    });
}

/// Whoever is stopped for good while it gives its lease back leaves marks.
#[test]
fn marks_that_were_left_go_with_the_next_command_also_if_it_has_nothing_to_do() {
    let places = [
        ("engine.mark ", Trouble::Hang),
        ("engine.mark ", Trouble::HangAfter),
        ("engine.unmark ", Trouble::Hang),
    ];
    for (place, trouble) in places {
        paused(async {
            let machine = Machine::new();
            let app = machine.app("ada@vm1", machine.world.ledger());
            machine.done(&app, "v1").await;
            let world = machine.world.clone();
            let giving_back = move || world.trouble_on(place, trouble.clone());
            machine.world.trouble_on("ledger.end done", Trouble::Do(Arc::new(giving_back)));
            tokio::select! {
                _ = machine.deploy(&app, "v2") => panic!("it hangs"),
                () = machine.world.hung() => {}
            }
            machine.world.calm();
            machine.world.ledger().holder_dies(&scope());
            let again = machine.done(&app, "v2").await;
            assert_eq!(again.number, None, "{place}: there is nothing to do");
            let marks = machine.world.state().marks.clone();
            assert_eq!(marks.len(), 1, "{place}: {marks:?}");
            assert_eq!(marks[0].standing, MarkStanding::Released, "{place}");
            machine.world.reset();
            machine.done(&app, "v2").await;
            assert!(!machine.world.log().contains(&"ledger.acquire".to_owned()), "{place}");
        });
    }
}

#[test]
fn whoever_was_overtaken_on_the_engine_stops_and_undoes_nothing() {
    paused(async {
        let machine = Machine::new();
        let app = machine.app("ada@vm1", machine.world.ledger());
        machine.done(&app, "v1").await;
        // Its gate lasts long enough for a renewal.
        let slow = shiplap_testkit::Script { refused_probes: 100, ..Default::default() };
        machine.world.script("api:v2", slow);
        let trouble = overtaken(&machine.world);
        machine.world.trouble_on("engine.start shop-api-1.d2", trouble);
        let report = machine.deploy(&app, "v2").await.unwrap();
        assert_eq!(report.outcome, Outcome::Stuck);
        assert_eq!(report.taken_over_by.as_deref(), Some("bob@vm2"));
        assert_eq!(report.left, Vec::<String>::new());
        let state = machine.world.state();
        assert_eq!(state.find("shop-api-1.d2").unwrap().state, ContainerState::Running);
        // The other one's mark is left alone.
        assert_eq!(state.marks.last().unwrap().holder, "bob@vm2");
    });
}

#[test]
fn the_edge_refuses_whoever_comes_with_an_older_lease() {
    paused(async {
        let machine = Machine::new();
        let app = machine.app("ada@vm1", machine.world.ledger());
        machine.done(&app, "v1").await;
        let world = machine.world.clone();
        let owner = scope().to_string();
        machine.world.trouble_on(
            "ledger.record Started switch",
            Trouble::Do(Arc::new(move || {
                world.state().leases.insert(owner.clone(), 99);
            })),
        );
        let before = machine.world.state().pools.clone();
        let report = machine.deploy(&app, "v2").await.unwrap();
        assert_eq!(report.outcome, Outcome::Stuck);
        assert!(report.reason.unwrap().contains("lease 99"));
        let state = machine.world.state();
        assert_eq!(state.pools, before);
        assert_eq!(state.find("shop-api-1.d2").unwrap().state, ContainerState::Running);
    });
}

#[test]
fn an_interruption_before_it_begins_ends_it_at_once_and_gives_the_lease_back() {
    for call in ["engine.image api:v2", "engine.observe shop", "router.state "] {
        paused(async {
            let machine = Machine::new();
            let app = machine.app("ada@vm1", machine.world.ledger());
            machine.done(&app, "v1").await;
            machine.world.reset();
            machine.world.trouble_on(call, Trouble::Hang);
            let interrupt = async {
                machine.world.hung().await;
                app.cancel.cancel("interrupted by the user");
            };
            let (result, ()) = tokio::time::timeout(Duration::from_secs(1), async {
                tokio::join!(machine.deploy(&app, "v2"), interrupt)
            })
            .await
            .expect("it is heard at once");
            assert!(matches!(result, Err(AppError::Interrupted(_))), "{result:?}");
            machine.world.calm();
            let again = machine.app("ada@vm1", machine.world.ledger());
            machine.done(&again, "v2").await;
        });
    }
}

/// Two releases, and what waits frozen for a rollback to the first.
async fn standing_by(machine: &Machine, app: &App) -> Vec<String> {
    machine.done(app, "v1").await;
    let request = Request { standby: Standby::Frozen, ..Request::default() };
    let frozen = machine.deploy_as(app, "v2", &request).await.unwrap().frozen;
    assert_eq!(frozen.len(), 1);
    frozen
}

#[test]
fn whoever_ends_a_standby_holds_the_mark_meanwhile() {
    paused(async {
        let machine = Machine::new();
        let app = machine.app("ada@vm1", machine.world.ledger());
        let frozen = standing_by(&machine, &app).await;
        machine.world.reset();
        assert_eq!(app.retire(&scope(), &frozen).await.unwrap(), ["shop-api-1.d1"]);
        let log = machine.world.log();
        let at = |of: &str| log.iter().position(|call| call.starts_with(of)).unwrap();
        assert!(at("engine.mark ") < at("engine.stop "), "{log:?}");
        let marks = machine.world.state().marks.clone();
        assert_eq!(marks.len(), 1, "{marks:?}");
        assert_eq!(marks[0].standing, MarkStanding::Released);
        machine.world.reset();
        assert_eq!(app.retire(&scope(), &frozen).await.unwrap(), Vec::<String>::new());
        let log = machine.world.log();
        assert!(!log.iter().any(|call| call.starts_with("engine.mark ")), "{log:?}");
    });
}

#[test]
fn a_standby_does_not_end_while_a_deployer_of_another_ledger_is_at_it() {
    paused(async {
        let machine = Machine::new();
        let first = machine.app("ada@vm1", machine.world.ledger());
        let frozen = standing_by(&machine, &first).await;
        let second = machine.app("bob@vm2", machine.world.another_ledger());
        machine.world.trouble_on("engine.create shop-api-1.d3", Trouble::Hang);
        tokio::select! {
            _ = machine.deploy(&second, "v3") => panic!("it hangs"),
            answer = async {
                machine.world.hung().await;
                first.retire(&scope(), &frozen).await
            } => match answer {
                Err(AppError::LeaseHeld(held)) => assert_eq!(held.holder, "bob@vm2"),
                other => panic!("{other:?}"),
            },
        }
        let state = machine.world.state();
        assert_eq!(state.find("shop-api-1.d1").unwrap().state, ContainerState::Paused);
    });
}

const V1: &str = "services: { api: { image: 'api:v1', restart: always, ports: ['8000:8000'] } }";
const V2: &str = "services: { api: { image: 'api:v2', restart: always, ports: ['8000:8000'] } }";
const UPDATE: Shape = Shape { name: "update", old: Old::Deployed(&[V1]), new: V2, change: |_| {} };

/// A deployer that is stopped right before a call goes out, and woken up when names have moved on.
#[test]
fn a_call_that_comes_late_does_not_hit_what_has_the_name_by_then() {
    paused(async {
        let mut attempt = Attempt::at(&UPDATE).await;
        let events = Arc::<Events>::default();
        let run = &mut attempt.run;
        let steady = Steady::new(&run.limits, events, run.cancel.clone());
        run.engine = steady.engine(run.engine.clone());
        run.router = steady.router(run.router.clone());
        let world = attempt.world.clone();
        let names_move = move || {
            let mut state = world.state();
            let (old, new) = ("shop-api-1", "shop-api-1.d2");
            let id = |name: &str| state.find(name).map(|found| found.id.clone());
            let (Some(old_id), Some(new_id)) = (id(old), id(new)) else { return };
            state.containers.get_mut(&old_id).unwrap().name = "shop-api-1.d1".to_owned();
            state.containers.get_mut(&new_id).unwrap().name = old.to_owned();
        };
        attempt.world.trouble_on("engine.stop shop-api-1", Trouble::Do(Arc::new(names_move)));
        let _ = attempt.finish().await;
        let state = attempt.world.state();
        assert_eq!(state.find("shop-api-1").unwrap().state, ContainerState::Running);
        assert_eq!(state.find("shop-api-1").unwrap().image_reference, "api:v2");
    });
}

#[test]
fn the_ledgers_own_lease_decides_within_one_ledger() {
    paused(async {
        let machine = Machine::new();
        let app = machine.app("ada@vm1", machine.world.ledger());
        machine.done(&app, "v1").await;
        // Whoever left a mark and writes to the same ledger is dead, or we had no lease.
        machine.world.trouble_on("engine.create ", Trouble::Hang);
        tokio::select! {
            _ = machine.deploy(&app, "v2") => panic!("it hangs"),
            () = machine.world.hung() => {}
        }
        machine.world.calm();
        machine.world.ledger().holder_dies(&scope());
        let began = tokio::time::Instant::now();
        machine.done(&app, "v3").await;
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    });
}
