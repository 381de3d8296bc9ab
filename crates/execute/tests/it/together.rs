//! Several environments deployed together, each on a machine of its own.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use shiplap_execute::app::{
    App, Choice, Ended, Intent, Member, OnInterrupted, Report, Request, Source, Task, Tie,
    carry_out_together, plan_together, releases_before, resume_together,
};
use shiplap_model::{DeploymentState, Ledger as _, Outcome, Plan, Scope, StepState};
use shiplap_testkit::{Script, Trouble, World, desired};

use crate::resuming::shop::{app, deploy, ends_of, from, newest, request, within};
use crate::support::{Cases, assert_live, next_plan, paused, scope};

const OLD: &str = r#"
services:
  api: { image: "api:v1", ports: ["8000:8000"], restart: always }
"#;
const NEW: &str = r#"
services:
  api: { image: "api:v2", ports: ["8000:8000"], restart: always }
"#;
/// It writes to a volume: the old one stops before the new one starts.
const STORE: &str = r#"
services:
  store: { image: "store:v1", restart: always, ports: ["9000:9000"], volumes: ["data:/data"] }
  web: { image: "web:v1", restart: always, ports: ["80:3000"], depends_on: [store] }
volumes: { data: {} }
"#;
const STORE_2: &str = r#"
services:
  store: { image: "store:v2", restart: always, ports: ["9000:9000"], volumes: ["data:/data"] }
  web: { image: "web:v2", restart: always, ports: ["80:3000"], depends_on: [store] }
volumes: { data: {} }
"#;

/// A machine that is one environment of the group.
#[derive(Clone)]
struct Place {
    name: &'static str,
    world: World,
    app: App,
    old: &'static str,
    new: &'static str,
}

impl Place {
    async fn new(name: &'static str, old: &'static str, new: &'static str) -> Self {
        let world = World::new();
        assert_eq!(deploy(&world, old).await.outcome, Outcome::Done);
        world.has_images_of(&desired(new));
        world.reset();
        Self { name, app: app(&world), world, old, new }
    }

    /// The same on a machine of its own.
    fn fork(&self) -> Self {
        let world = self.world.fork();
        Self { app: app(&world), world, ..self.clone() }
    }

    /// Who comes after one that was killed.
    fn restarted(&self) -> Self {
        self.world.reset();
        self.world.ledger().holder_dies(&scope());
        Self { app: app(&self.world), ..self.clone() }
    }

    async fn runs(&self, yaml: &str) -> bool {
        let wanted = desired(yaml);
        let is_settled = next_plan(&self.world, &wanted, |_| {}).await.is_empty();
        if is_settled {
            assert_live(&self.world, &wanted);
        }
        is_settled
    }

    /// It runs this, nobody was cut off on the way, and nothing is open or held by anybody.
    async fn assert_runs(&self, yaml: &str) {
        assert!(self.runs(yaml).await, "{}: {}", self.name, self.world.picture());
        assert_eq!(self.world.violations(), Vec::<String>::new(), "{}", self.name);
        assert_eq!(self.world.ledger().holder(&scope()).await.unwrap(), None, "{}", self.name);
        let open = newest(&self.world).await.unwrap().state == DeploymentState::Unfinished;
        assert!(!open, "{} is open", self.name);
    }

    /// Steps that its newest deployment has begun.
    async fn steps(&self) -> Vec<String> {
        let number = newest(&self.world).await.unwrap().number;
        let journal = self.world.ledger().journal(&scope(), number).await.unwrap();
        let started = journal.into_iter().filter(|entry| entry.state == StepState::Started);
        started.map(|entry| entry.what).collect()
    }
}

/// Two environments with something to do.
async fn two() -> [Place; 2] {
    thread_local! {
        static KNOWN: RefCell<Option<[Place; 2]>> = const { RefCell::new(None) };
    }
    if let Some(known) =
        KNOWN.with_borrow(|known| known.as_ref().map(|all| all.each_ref().map(Place::fork)))
    {
        return known;
    }
    let both = [Place::new("core", OLD, NEW).await, Place::new("proxy", STORE, STORE_2).await];
    KNOWN.with_borrow_mut(|known| *known = Some(both.each_ref().map(Place::fork)));
    both
}

fn sources(places: &[Place]) -> Vec<Source> {
    places.iter().map(|place| from(place.new)).collect()
}

fn members<'a>(places: &[Place], sources: &'a [Source], request: &Request) -> Vec<Member<'a>> {
    let both = places.iter().zip(sources);
    both.map(|(place, source)| Member {
        name: place.name.to_owned(),
        app: place.app.clone(),
        task: Task::Reach(Intent::Deploy(source)),
        request: request.clone(),
    })
    .collect()
}

type Results = Vec<(String, Ended)>;

async fn deploy_all(places: &[Place]) -> Results {
    deploy_all_with(places, &request()).await
}

async fn deploy_all_with(places: &[Place], request: &Request) -> Results {
    let sources = sources(places);
    let members = members(places, &sources, request);
    let yes = |_: Vec<(String, Plan)>| std::future::ready(true);
    within(carry_out_together("prod", members, Tie::Gated, yes)).await
}

fn scopes(places: &[Place]) -> Vec<(String, App, Scope)> {
    places.iter().map(|place| (place.name.to_owned(), place.app.clone(), scope())).collect()
}

async fn resume_all(places: &[Place], choice: Choice) -> Results {
    let yes = |_: Vec<(String, Plan)>| std::future::ready(true);
    let members = scopes(places);
    let request = request();
    within(resume_together("prod", &members, choice, &request, yes)).await.unwrap()
}

const AUTO: Choice = Choice::Settle(OnInterrupted::Auto);

fn report<'a>(results: &'a Results, name: &str) -> &'a Report {
    let found = results.iter().find(|(known, _)| known == name).expect("every member is reported");
    match &found.1 {
        Ended::Reported(report) => report,
        other => panic!("{name}: {other:?}"),
    }
}

fn outcomes(results: &Results) -> Vec<(&str, Outcome)> {
    let names = results.iter().map(|(name, _)| name.as_str());
    names.map(|name| (name, report(results, name).outcome)).collect()
}

#[test]
fn all_are_done_and_one_with_nothing_to_do_is_left_alone() {
    paused(async {
        let [core, proxy] = two().await;
        let idle = Place::new("idle", OLD, OLD).await;
        let all = [core, idle, proxy];
        let results = deploy_all(&all).await;
        let done = [("core", Outcome::Done), ("idle", Outcome::Done), ("proxy", Outcome::Done)];
        assert_eq!(outcomes(&results), done);
        assert_eq!(report(&results, "idle").number, None, "nothing was to be done there");
        for place in &all {
            place.assert_runs(place.new).await;
        }
        let group = |d: shiplap_model::Deployment| d.request.unwrap().group;
        let core = group(newest(&all[0].world).await.unwrap()).expect("it is in history");
        assert!(core.members.iter().eq(["core", "proxy"]), "{core:?}");
        assert_eq!(group(newest(&all[2].world).await.unwrap()), Some(core));
        assert_eq!(group(newest(&all[1].world).await.unwrap()), None);
    });
}

#[test]
fn three_that_work_meet_at_both_points() {
    paused(async {
        let [core, proxy] = two().await;
        let slow = Place::new("scrape", OLD, NEW).await;
        slow.world.script("api:v2", Script { refused_probes: 8, ..Script::default() });
        let all = [core, proxy, slow];
        let results = deploy_all(&all).await;
        assert!(outcomes(&results).iter().all(|(_, outcome)| *outcome == Outcome::Done));
        let steps = all[0].steps().await;
        let at = |what: &str| steps.iter().position(|step| step == what).expect(what);
        assert!(at("meet proxy scrape: ready") < at("switch api"), "{steps:?}");
        assert!(at("meet proxy scrape: watched") < at("drain shop-api-1"), "{steps:?}");
    });
}

#[test]
fn one_that_fails_its_gate_keeps_all_on_their_old_releases() {
    paused(async {
        let both = two().await;
        let [core, proxy] = &both;
        core.world.script("api:v2", Script { exits: Some((1, 1)), ..Script::default() });
        let results = deploy_all(&both).await;
        assert_eq!(report(&results, "core").outcome, Outcome::RolledBack);
        assert_eq!(report(&results, "proxy").outcome, Outcome::RolledBack);
        let reason = report(&results, "proxy").reason.clone().unwrap();
        assert!(reason.starts_with("core failed: "), "{reason}");
        let steps = proxy.steps().await;
        let touched = |step: &&String| step.starts_with("stop ") || step.starts_with("hold ");
        assert_eq!(steps.iter().find(touched), None, "nothing that ran was touched");
        for place in &both {
            place.assert_runs(place.old).await;
        }
    });
}

#[test]
fn one_that_fails_after_its_switch_takes_the_others_back() {
    paused(async {
        let both = two().await;
        let [core, proxy] = &both;
        core.world
            .script("api:v2", Script { exits_once_routed: Some((5, 1)), ..Script::default() });
        let results = deploy_all(&both).await;
        let back = [("core", Outcome::RolledBack), ("proxy", Outcome::RolledBack)];
        assert_eq!(outcomes(&results), back);
        let steps = proxy.steps().await;
        assert!(steps.iter().any(|step| step.starts_with("stop ")), "it had gone on: {steps:?}");
        for place in &both {
            place.assert_runs(place.old).await;
        }
    });
}

#[test]
fn one_that_cannot_be_planned_keeps_all_from_beginning_and_all_problems_are_told() {
    paused(async {
        let [core, proxy] = two().await;
        let lacking = |name| async move {
            let unknown = "services: { api: { image: 'unknown:v9', restart: always } }";
            Place { new: unknown, ..Place::new(name, OLD, OLD).await }
        };
        let all = [core, lacking("one").await, proxy, lacking("two").await];
        let pictures: Vec<String> = all.iter().map(|place| place.world.picture()).collect();
        let results = deploy_all(&all).await;
        for (name, ended) in &results {
            match (name.as_str(), ended) {
                ("one" | "two", Ended::Refused(_)) | ("core" | "proxy", Ended::HeldBack) => {}
                other => panic!("{other:?}"),
            }
        }
        for (place, before) in all.iter().zip(pictures) {
            assert_eq!(place.world.picture(), before);
            assert_eq!(newest(&place.world).await.unwrap().number, 1, "nothing has begun");
        }
    });
}

#[test]
fn a_no_to_the_plans_changes_nothing() {
    paused(async {
        let both = two().await;
        let sources = sources(&both);
        let asked = RefCell::new(Vec::new());
        let no = |plans: Vec<(String, Plan)>| {
            asked.borrow_mut().push(plans.into_iter().map(|(name, _)| name).collect::<Vec<_>>());
            std::future::ready(false)
        };
        let members = members(&both, &sources, &request());
        let results = within(carry_out_together("prod", members, Tie::Gated, no)).await;
        assert!(report(&results, "core").declined && report(&results, "proxy").declined);
        assert_eq!(asked.into_inner(), [["core", "proxy"]], "it was asked once");
        for place in &both {
            place.assert_runs(place.old).await;
            assert_eq!(newest(&place.world).await.unwrap().number, 1);
        }
    });
}

#[test]
fn whoever_waits_too_long_says_which_limit_it_was() {
    paused(async {
        let both = two().await;
        // Slower than one waits, and well within what a gate may take.
        both[0].world.script("api:v2", Script { refused_probes: 60, ..Script::default() });
        let mut request = request();
        request.limits.meet = Duration::from_secs(2);
        let results = deploy_all_with(&both, &request).await;
        let reason = report(&results, "proxy").reason.clone().unwrap();
        assert_eq!(
            reason,
            "not all have come within 2s (limit `meet`: --limit meet=4s)",
            "{:?}",
            report(&results, "core").reason
        );
        for place in &both {
            place.assert_runs(place.old).await;
        }
    });
}

#[test]
fn one_with_an_unfinished_deployment_is_settled_first_by_hand() {
    paused(async {
        let both = two().await;
        crate::resuming::shop::dies_deploying(&both[0].world, NEW, "engine.start").await;
        let results = deploy_all(&both).await;
        match &results[0].1 {
            Ended::Refused(error) => {
                let text = error.to_string();
                assert!(text.contains("deployment 2 of shop/default did not end"), "{text}");
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(results[1].1, Ended::HeldBack), "{:?}", results[1].1);
        both[1].assert_runs(both[1].old).await;
    });
}

#[test]
fn a_plan_shows_where_it_waits_and_for_whom() {
    paused(async {
        let both = two().await;
        let idle = Place::new("idle", OLD, OLD).await;
        let all = [both[0].clone(), both[1].clone(), idle];
        let sources = sources(&all);
        let planned = plan_together("prod", &members(&all, &sources, &request())).await;
        let steps = |index: usize| {
            shiplap_plan::render_steps(&planned[index].1.as_ref().expect("it can be planned").plan)
        };
        assert!(steps(0).contains("meet proxy: ready"), "{}", steps(0));
        assert!(steps(1).contains("meet core: watched"), "{}", steps(1));
        assert_eq!(steps(2), "");
    });
}

/// All run the old release, or all the new one, and everything is in order.
async fn assert_alike(places: &[Place]) {
    let is_new = places[0].runs(places[0].new).await;
    for place in places {
        place.assert_runs(if is_new { place.new } else { place.old }).await;
    }
}

/// The calls of one member, where trouble is worth making.
async fn points(victim: usize) -> Vec<(usize, String)> {
    let both = two().await;
    deploy_all(&both).await;
    ends_of(&both[victim].world.log())
}

#[test]
fn an_interruption_anywhere_ends_all_alike() {
    let mut cases = Cases::default();
    for victim in [0, 1] {
        for (index, call) in paused(points(victim)) {
            cases.run(&format!("{victim} at {index} {call}"), || {
                paused(async {
                    let both = two().await;
                    let cancels = both.each_ref().map(|place| place.app.cancel.clone());
                    let interrupt = move || {
                        cancels.iter().for_each(|cancel| cancel.cancel("interrupted by the user"));
                    };
                    both[victim].world.trouble_at(index, Trouble::Do(Arc::new(interrupt)));
                    deploy_all(&both).await;
                    assert_alike(&both).await;
                });
            });
        }
    }
    cases.end();
}

#[test]
fn one_that_is_interrupted_alone_ends_all_alike() {
    let mut cases = Cases::default();
    for (index, call) in paused(points(1)) {
        cases.run(&format!("at {index} {call}"), || {
            paused(async {
                let both = two().await;
                let cancel = both[1].app.cancel.clone();
                let interrupt = move || cancel.cancel("the lease was lost");
                both[1].world.trouble_at(index, Trouble::Do(Arc::new(interrupt)));
                deploy_all(&both).await;
                assert_alike(&both).await;
            });
        });
    }
    cases.end();
}

#[test]
fn a_call_that_fails_anywhere_ends_all_alike() {
    let mut cases = Cases::default();
    for victim in [0, 1] {
        for (index, call) in paused(points(victim)) {
            if call == "ledger.release" {
                // The lease ends by itself then.
                continue;
            }
            cases.run(&format!("{victim} at {index} {call}"), || {
                paused(async {
                    let both = two().await;
                    both[victim].world.trouble_at(index, Trouble::Before);
                    let results = deploy_all(&both).await;
                    both.iter().for_each(|place| place.world.calm());
                    // What is left to tidy is no reason to go back, and waits for the next one.
                    let left = |(_, ended): &(String, Ended)| match ended {
                        Ended::Reported(report) => !report.left.is_empty(),
                        _ => false,
                    };
                    if results.iter().any(left) {
                        assert!(outcomes(&results).iter().all(|(_, end)| *end == Outcome::Done));
                        return;
                    }
                    assert_alike(&both).await;
                });
            });
        }
    }
    cases.end();
}

/// The deployer of all dies at a call of one of them.
async fn killed(victim: usize, call: usize, trouble: Trouble) -> [Place; 2] {
    let both = two().await;
    both[victim].world.trouble_at(call, trouble);
    tokio::select! {
        _ = deploy_all(&both) => {}
        () = both[victim].world.hung() => {}
    }
    both.each_ref().map(Place::restarted)
}

#[test]
fn a_kill_anywhere_and_resume_end_all_alike() {
    let mut cases = Cases::default();
    let mut ends = [0, 0];
    for victim in [0, 1] {
        for (index, call) in paused(points(victim)) {
            for trouble in [Trouble::Hang, Trouble::HangAfter] {
                cases.run(&format!("{victim}: {trouble:?} at {index} {call}"), || {
                    paused(async {
                        let both = killed(victim, index, trouble.clone()).await;
                        for (name, ended) in resume_all(&both, AUTO).await {
                            match ended {
                                Ended::Reported(report) => {
                                    assert_eq!(report.left, Vec::<String>::new(), "{name}");
                                }
                                Ended::NothingToResume => {}
                                Ended::Refused(_) | Ended::HeldBack => panic!("{name}: {ended:?}"),
                            }
                        }
                        assert_alike(&both).await;
                        ends[usize::from(both[0].runs(NEW).await)] += 1;
                        // Whoever does it once more finds nothing to do.
                        for (name, ended) in resume_all(&both, AUTO).await {
                            assert!(matches!(ended, Ended::NothingToResume), "{name}: {ended:?}");
                        }
                    });
                });
            }
        }
    }
    cases.end();
    let [old, new] = ends;
    assert!(old > 10 && new > 10, "both ways are met: {old} back, {new} on");
}

/// One is done; the deployer died before it had written the end of the other.
async fn one_done() -> [Place; 2] {
    let both = two().await;
    both[1].world.trouble_on("ledger.end", Trouble::Hang);
    tokio::select! {
        _ = deploy_all(&both) => panic!("it hangs"),
        () = async {
            both[1].world.hung().await;
            // The other one has time to end.
            tokio::time::sleep(Duration::from_secs(600)).await;
        } => {}
    }
    let both = both.each_ref().map(Place::restarted);
    let state = newest(&both[0].world).await.unwrap().state;
    assert!(matches!(state, DeploymentState::Ended { outcome: Outcome::Done, .. }), "{state:?}");
    both
}

#[test]
fn one_that_can_go_on_follows_one_that_is_done() {
    paused(async {
        let both = one_done().await;
        let results = resume_all(&both, AUTO).await;
        assert!(matches!(results[0].1, Ended::NothingToResume), "{:?}", results[0].1);
        assert_eq!(report(&results, "proxy").outcome, Outcome::Done);
        assert_alike(&both).await;
        both[0].assert_runs(NEW).await;
    });
}

#[test]
fn one_that_is_done_goes_back_with_one_that_cannot_go_on() {
    paused(async {
        let both = one_done().await;
        let results = resume_all(&both, Choice::Settle(OnInterrupted::Back)).await;
        assert_eq!(report(&results, "proxy").outcome, Outcome::RolledBack);
        let core = report(&results, "core");
        assert_eq!((core.number, core.outcome), (Some(3), Outcome::Done), "a rollback of its own");
        for place in &both {
            place.assert_runs(place.old).await;
        }
    });
}

#[test]
fn a_rollback_leads_each_to_before_the_newest_deployment_of_the_group() {
    paused(async {
        let both = two().await;
        let alone = Place::new("alone", OLD, OLD).await;
        let all = [both[0].clone(), both[1].clone(), alone];
        deploy_all(&all).await;
        let targets = releases_before("prod", &scopes(&all)).await.unwrap();
        let expected = [("core".to_owned(), 1), ("proxy".to_owned(), 1)];
        assert!(targets.clone().into_iter().eq(expected), "{targets:?}");
        let back = all.iter().filter_map(|place| {
            let to = Some(*targets.get(place.name)?);
            Some(Member {
                name: place.name.to_owned(),
                app: place.app.clone(),
                task: Task::Reach(Intent::Rollback { scope: scope(), to }),
                request: request(),
            })
        });
        let yes = |_: Vec<(String, Plan)>| std::future::ready(true);
        let results = within(carry_out_together("prod", back.collect(), Tie::Gated, yes)).await;
        assert_eq!(outcomes(&results), [("core", Outcome::Done), ("proxy", Outcome::Done)]);
        for place in &all {
            place.assert_runs(place.old).await;
        }
        // Once more would lead to before the first.
        let error = releases_before("prod", &scopes(&all)).await.unwrap_err().to_string();
        assert_eq!(error, "shop/default has no release before deployment 3");
    });
}
