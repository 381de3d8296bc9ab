//! Changes through the use cases, and what must hold when they have been put in order.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use shiplap_execute::app::{App, AppError, Choice, Intent, OnInterrupted, Report, Request, Source};
use shiplap_execute::{Cancel, Reporter, Silent};
use shiplap_model::{ContainerState, Deployment, DeploymentState, Goal, Ledger, Outcome};
use shiplap_testkit::{ENVIRONMENT, Script, Trouble, World, desired, source};

use crate::shapes;
use crate::support::{Old, assert_live, next_plan, paused, scope};

/// No change on the fakes takes longer, in fake time: a job's own limit is half an hour.
const LONGEST: Duration = Duration::from_secs(4 * 3600);

/// What is done to what is there.
#[derive(Clone, Copy)]
pub enum Act {
    Deploy(&'static str),
    Rollback,
    Restart(&'static str),
    Scale(&'static str, &'static str, u32),
    Down,
}

/// A change of a project through the use cases.
pub struct Change {
    pub name: &'static str,
    pub old: Old,
    pub act: Act,
    /// What comes of it, as a Compose file; nothing where nothing should run.
    pub new: Option<&'static str>,
}

pub fn app(world: &World) -> App {
    app_with(world, Arc::new(Silent))
}

pub fn app_with(world: &World, reporter: Arc<dyn Reporter>) -> App {
    App {
        engine: world.engine(),
        router: world.router(),
        ledger: world.ledger(),
        reporter,
        cancel: Cancel::default(),
        who: "ada@vm1".to_owned(),
        version: "0.1.0".to_owned(),
    }
}

pub fn from(yaml: &str) -> Source {
    let loaded = source(yaml, &[]);
    let routes = serde_json::from_value(loaded.canonical["x-routes"].clone());
    Source {
        loaded,
        environment: ENVIRONMENT.to_owned(),
        routes: routes.unwrap_or_default(),
        notes: Vec::new(),
        secrets: Default::default(),
        files: Default::default(),
    }
}

pub fn request() -> Request {
    let mut request = Request::default();
    request.limits.gate = Duration::from_secs(20);
    request
}

/// Waits, in fake time, and not for ever.
pub async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONGEST, Box::pin(work)).await.expect("it ends")
}

pub async fn yes(
    world: &World,
    intent: &Intent<'_>,
    request: &Request,
) -> Result<Report, AppError> {
    within(app(world).carry_out(intent, request, |_| std::future::ready(true))).await
}

pub async fn deploy(world: &World, yaml: &str) -> Report {
    world.has_images_of(&desired(yaml));
    yes(world, &Intent::Deploy(&from(yaml)), &request()).await.expect("it begins")
}

pub async fn resume(world: &World, choice: Choice) -> Result<Option<Report>, AppError> {
    within(app(world).resume(&scope(), choice, &request(), |_| std::future::ready(true))).await
}

pub const AUTO: Choice = Choice::Settle(OnInterrupted::Auto);
pub const FORWARD: Choice = Choice::Settle(OnInterrupted::Forward);
pub const BACK: Choice = Choice::Settle(OnInterrupted::Back);

impl Change {
    /// The machine and the history before the change.
    pub async fn before(&self) -> World {
        thread_local! {
            static KNOWN: RefCell<BTreeMap<&'static str, World>> = RefCell::default();
        }
        if let Some(world) = KNOWN.with_borrow(|known| known.get(self.name).map(World::fork)) {
            return world;
        }
        let world = self.make().await;
        KNOWN.with_borrow_mut(|known| known.insert(self.name, world.fork()));
        world
    }

    async fn make(&self) -> World {
        let world = World::new();
        world.script("migrate", Script { exits: Some((2, 0)), ..Script::default() });
        match &self.old {
            Old::Nothing => {}
            Old::Deployed(all) => {
                for yaml in *all {
                    let report = deploy(&world, yaml).await;
                    assert_eq!(report.outcome, Outcome::Done, "{}: {:?}", self.name, report.reason);
                }
            }
            Old::Compose(yaml) => world.compose_up(&desired(yaml)),
        }
        if let Some(new) = self.new {
            world.has_images_of(&desired(new));
        }
        assert_eq!(world.violations(), Vec::<String>::new());
        world.reset();
        world
    }

    /// What a deployer does.
    pub async fn act(&self, world: &World) -> Result<Report, AppError> {
        let scope = scope();
        match self.act {
            Act::Deploy(yaml) => yes(world, &Intent::Deploy(&from(yaml)), &request()).await,
            Act::Rollback => yes(world, &Intent::Rollback { scope, to: None }, &request()).await,
            Act::Restart(yaml) => yes(world, &Intent::Restart(&from(yaml)), &request()).await,
            Act::Scale(yaml, service, number) => {
                let replicas = BTreeMap::from([(service.to_owned(), number)]);
                yes(world, &Intent::Scale { source: &from(yaml), replicas }, &request()).await
            }
            Act::Down => {
                let intent = Intent::Down { scope, source: None, volumes: false };
                yes(world, &intent, &request()).await
            }
        }
    }

    /// What ran before, as a Compose file.
    pub fn old_yaml(&self) -> Option<&'static str> {
        match &self.old {
            Old::Nothing => None,
            Old::Deployed(all) => all.last().copied(),
            Old::Compose(yaml) => Some(yaml),
        }
    }

    /// The calls that it makes when all goes well, each with its index: of calls of the same text
    /// the first and the last, since those in between only look again.
    pub async fn points(&self) -> Vec<(usize, String)> {
        let world = self.before().await;
        let report = self.act(&world).await.expect("it begins");
        assert_eq!(report.outcome, Outcome::Done, "{}: {:?}", self.name, report.reason);
        ends_of(&world.log())
    }

    /// The machine after the deployer died at a call.
    pub async fn crashed(&self, call: usize, trouble: Trouble) -> World {
        let world = self.before().await;
        assert!(die(&world, call, trouble, self.act(&world)).await, "{}: {call}", self.name);
        world
    }
}

pub fn ends_of(calls: &[String]) -> Vec<(usize, String)> {
    let numbered = || calls.iter().cloned().enumerate();
    numbered()
        .filter(|(index, call)| {
            let mut same = numbered().filter(|(_, other)| other == call).map(|(i, _)| i);
            let first = same.next();
            first == Some(*index) || same.next_back() == Some(*index)
        })
        .collect()
}

/// Whoever does this dies at a call. Returns whether it got so far.
pub async fn die<T>(
    world: &World,
    call: usize,
    trouble: Trouble,
    work: impl Future<Output = T>,
) -> bool {
    world.reset();
    world.trouble_at(call, trouble);
    let died = tokio::select! {
        _ = within(work) => false,
        () = world.hung() => true,
    };
    world.reset();
    world.ledger().holder_dies(&scope());
    died
}

/// Whoever deploys this dies at the first call that begins so, besides other trouble.
pub async fn dies_deploying(world: &World, yaml: &str, at: &str) {
    world.has_images_of(&desired(yaml));
    world.trouble_on(at, Trouble::Hang);
    let (source, request) = (from(yaml), request());
    let intent = Intent::Deploy(&source);
    tokio::select! {
        _ = yes(world, &intent, &request) => panic!("it hangs at {at}"),
        () = world.hung() => {}
    }
    world.reset();
    world.ledger().holder_dies(&scope());
}

pub async fn newest(world: &World) -> Option<Deployment> {
    world.ledger().deployments(&scope(), 1).await.unwrap().pop()
}

/// Whether there is anything to resume.
pub async fn is_open(world: &World) -> bool {
    app(world).unfinished(&scope()).await.unwrap().is_some()
}

/// Where it has come to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    Old,
    New,
}

/// It is in order: new or old, exactly; nobody was left without an answer; nothing is left over.
/// Returns which.
pub async fn assert_in_order(change: &Change, before: &World, world: &World) -> Rest {
    assert_nobody_was_cut_off(change, world);
    assert!(!is_open(world).await, "nothing is unfinished any more");
    let history = world.ledger().deployments(&scope(), 100).await.unwrap();
    assert!(history.iter().all(|d| d.state != DeploymentState::Unfinished), "{history:#?}");
    let holder = world.ledger().holder(&scope()).await.unwrap();
    assert_eq!(holder, None, "the lease is free");
    let held = |world: &World| -> Vec<String> {
        let state = world.state();
        let held = state.pools.iter().filter(|(_, (_, pool))| pool.held);
        held.map(|(key, _)| key.to_string()).collect()
    };
    assert_eq!(held(world), Vec::<String>::new(), "nothing is held");
    assert_jobs_ran_once(change, before, world);
    let new = is_settled(world, change.new, Goal::Deploy).await;
    // Who came back from taking the project down has no containers of jobs any more: a deployment
    // would run them, a rollback counts them as done.
    let goal = match change.act {
        Act::Down => Goal::Rollback { to: 1 },
        Act::Deploy(_) | Act::Rollback | Act::Restart(_) | Act::Scale(..) => Goal::Deploy,
    };
    let old = is_settled(world, change.old_yaml(), goal).await;
    let (old_images, images) = (images(before), images(world));
    assert!(images.is_superset(&old_images), "no image of the release before is lost");
    match (old, new) {
        (Ok(()), _) if number_of_done(&history) == number_of_done_before(before).await => {
            assert_nothing_left_over(change, before, world);
            Rest::Old
        }
        (_, Ok(())) => Rest::New,
        (Ok(()), Err(why)) => panic!("it is old though a deployment is done: {why}"),
        (Err(old), Err(new)) => panic!("neither old: {old}\nnor new: {new}\n{}", world.picture()),
    }
}

/// At no time had a request nobody to answer it. Whoever takes a project down wants that.
pub fn assert_nobody_was_cut_off(change: &Change, world: &World) {
    let mut violations = world.violations();
    if matches!(change.act, Act::Down) {
        violations.retain(|what| !what.ends_with("while it may answer requests"));
    }
    assert_eq!(violations, Vec::<String>::new());
}

fn number_of_done(history: &[Deployment]) -> usize {
    let done =
        |d: &&Deployment| matches!(d.state, DeploymentState::Ended { outcome: Outcome::Done, .. });
    history.iter().filter(done).count()
}

async fn number_of_done_before(before: &World) -> usize {
    number_of_done(&before.ledger().deployments(&scope(), 100).await.unwrap())
}

fn images(world: &World) -> BTreeSet<String> {
    world.state().images.keys().cloned().collect()
}

/// Whether exactly this runs.
async fn is_settled(world: &World, yaml: Option<&str>, goal: Goal) -> Result<(), String> {
    let Some(yaml) = yaml else {
        let picture = world.picture();
        let left: Vec<&str> = picture.lines().filter(|line| !line.starts_with("volume ")).collect();
        return if left.is_empty() { Ok(()) } else { Err(format!("left: {left:?}")) };
    };
    let wanted = desired(yaml);
    let plan = next_plan(world, &wanted, |policy| policy.goal = goal).await;
    if !plan.is_empty() {
        let steps = shiplap_plan::render_steps(&plan);
        return Err(format!("{}{steps}", shiplap_plan::render(&plan)));
    }
    let checked = std::panic::AssertUnwindSafe(|| assert_live(world, &wanted));
    std::panic::catch_unwind(checked).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.unwrap_or_else(|| "not as wanted".to_owned())
    })
}

/// Going back leaves what was there before: no network, holder, listener or pool more or less, no
/// container that the deployment made, and none less that ran.
fn assert_nothing_left_over(change: &Change, before: &World, world: &World) {
    let things = |world: &World| -> Vec<String> {
        let picture = world.picture();
        let kinds = ["network ", "holder ", "listener "];
        let lines = picture.lines().filter(|line| kinds.iter().any(|kind| line.starts_with(kind)));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(things(world), things(before), "{}: networks, holders, listeners", change.name);
    let running = |world: &World| -> Vec<String> {
        let state = world.state();
        let running = state.containers.values().filter(|c| c.state == ContainerState::Running);
        let mut names: Vec<String> =
            running.map(|c| format!("{} {}", c.name, c.image_reference)).collect();
        names.sort();
        names
    };
    assert_eq!(running(world), running(before), "{}: what runs", change.name);
    let known: BTreeSet<String> = before.state().containers.keys().cloned().collect();
    let state = world.state();
    for container in state.containers.values().filter(|c| !known.contains(&c.id)) {
        let runs = container.state == ContainerState::Running;
        assert!(runs, "{} is left over ({:?})", container.name, container.state);
    }
}

/// The job of the new release ran at most once, and once if that is current; that of the old one
/// not again.
fn assert_jobs_ran_once(change: &Change, before: &World, world: &World) {
    let jobs = |world: &World| -> BTreeMap<(String, String), u32> {
        let state = world.state();
        let jobs = state.starts.iter().filter(|((service, _), _)| service == "migrate");
        jobs.map(|(what, count)| (what.clone(), *count)).collect()
    };
    let before = jobs(before);
    for (what, count) in jobs(world) {
        let earlier = before.get(&what).copied().unwrap_or(0);
        // What has run before runs again for nobody but who deploys it anew.
        let most = if earlier > 0 { earlier } else { 1 };
        assert!(count <= most, "{}: {} ran {count} times", change.name, what.1);
    }
}

/// How many of all points are tried: a sample by default, every one for `SHIPLAP_FAULTS=all`.
pub struct Sample {
    stride: usize,
    offset: usize,
    pub tried: AtomicUsize,
}

impl Sample {
    /// One of `stride`, or every one.
    pub fn new(stride: usize) -> Self {
        Self::of_pairs(stride, 1)
    }

    /// Of pairs of points there are too many for every one: then one of `thin`.
    pub fn of_pairs(stride: usize, thin: usize) -> Self {
        let all = std::env::var("SHIPLAP_FAULTS").is_ok_and(|how| how == "all");
        let stride = if all { thin } else { stride };
        Self { stride, offset: 0, tried: AtomicUsize::new(0) }
    }

    /// Whether to try the next one; counts those that are.
    pub fn takes(&mut self) -> bool {
        self.offset += 1;
        let takes = self.offset.is_multiple_of(self.stride);
        if takes {
            self.tried.fetch_add(1, Ordering::Relaxed);
        }
        takes
    }

    /// Says how many were tried.
    pub fn report(&self, what: &str) {
        println!("{what}: {}", self.tried.load(Ordering::Relaxed));
    }
}

/// Every kind of change.
pub fn changes() -> Vec<Change> {
    let mut changes: Vec<Change> = shapes::all()
        .into_iter()
        .map(|shape| {
            let act = match (shape.name, &shape.old) {
                (name, Old::Deployed(_)) if name.starts_with("rollback") => Act::Rollback,
                _ => Act::Deploy(shape.new),
            };
            Change { name: shape.name, old: shape.old, act, new: Some(shape.new) }
        })
        .collect();
    changes.extend(shapes::used());
    changes
}

/// Whether a future of a case may run on the paused clock.
pub fn run<T>(case: impl Future<Output = T>) -> T {
    paused(Box::pin(case))
}
