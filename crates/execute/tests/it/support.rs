//! A deployment on the fakes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shiplap_execute::{Cancel, Event, Execution, KeepFailed, Reporter, Run, execute};
use shiplap_model::{
    ContainerState, Desired, JournalEntry, LeaseKey, Ledger, NewDeployment, Plan, ReplicaName,
    Scope, Secret, Standing, StepState, StoredRelease,
};
use shiplap_plan::{Policy, plan};
use shiplap_testkit::{ENVIRONMENT, PROJECT, Script, World, desired};

/// No deployment on the fakes takes longer, in fake time: limits are the planner's own.
const LONGEST: Duration = Duration::from_secs(3600);

/// Takes down what happens.
#[derive(Default)]
pub struct Events(Mutex<Vec<String>>);

impl Reporter for Events {
    fn event(&self, event: Event) {
        self.0.lock().unwrap().push(format!("{event:?}"));
    }
}

impl Events {
    pub fn text(&self) -> String {
        self.0.lock().unwrap().join("\n")
    }
}

pub fn scope() -> Scope {
    Scope { project: PROJECT.to_owned(), environment: ENVIRONMENT.to_owned() }
}

/// A policy with short limits.
pub fn policy(number: u64) -> Policy {
    let mut policy = Policy::deploy(number);
    policy.limits.gate = Duration::from_secs(20);
    policy
}

/// What a deployer does after the plan was approved.
pub struct Deployer {
    pub world: World,
    pub cancel: Cancel,
    pub keep_failed: KeepFailed,
    pub events: Arc<Events>,
}

impl Deployer {
    pub fn new(world: &World) -> Self {
        Self {
            world: world.clone(),
            cancel: Cancel::default(),
            keep_failed: KeepFailed::No,
            events: Arc::default(),
        }
    }

    /// A number and a lease for one more deployment.
    pub async fn begin(&self) -> (u64, LeaseKey) {
        let ledger = self.world.ledger();
        ledger.holder_dies(&scope());
        let lease = ledger.acquire(&scope(), "test", LONGEST).await.unwrap().unwrap().key;
        let new = NewDeployment {
            scope: scope(),
            kind: "deploy".to_owned(),
            who: "test".to_owned(),
            message: None,
            release: StoredRelease { version: 1, services: Default::default() },
            binding: Secret::default(),
            plan: serde_json::Value::Null,
            request: Default::default(),
            lease: lease.clone(),
            after: 0,
        };
        (ledger.begin(&new).await.unwrap(), lease)
    }

    pub fn run(&self, desired: &Desired, number: u64, lease: LeaseKey) -> Run {
        Run {
            engine: self.world.engine(),
            router: self.world.router(),
            ledger: self.world.ledger(),
            reporter: self.events.clone(),
            cancel: self.cancel.clone(),
            lease,
            number,
            desired: Arc::new(desired.clone()),
            keep_failed: self.keep_failed,
            limits: Default::default(),
            before: self
                .world
                .state()
                .containers
                .values()
                .filter(|c| c.state == ContainerState::Running)
                .map(|c| c.id.clone())
                .collect(),
            meeting: None,
        }
    }

    /// Executes a plan.
    pub async fn execute(&self, desired: &Desired, plan: &Plan) -> Execution {
        let (number, lease) = self.begin().await;
        let run = self.run(desired, number, lease);
        tokio::time::timeout(LONGEST, execute(&run, plan)).await.expect("it ends")
    }

    /// Plans and executes.
    pub async fn deploy(&self, desired: &Desired, change: impl FnOnce(&mut Policy)) -> Execution {
        let plan = next_plan(&self.world, desired, change).await;
        self.execute(desired, &plan).await
    }
}

/// The number that the next deployment will get.
async fn next_number(world: &World) -> u64 {
    let newest = world.ledger().deployments(&scope(), 1).await.unwrap();
    newest.first().map_or(0, |newest| newest.number) + 1
}

/// What the next deployment would do.
pub async fn next_plan(world: &World, desired: &Desired, change: impl FnOnce(&mut Policy)) -> Plan {
    let mut policy = policy(next_number(world).await);
    change(&mut policy);
    match plan(desired, &world.observed(desired), &policy) {
        Ok(plan) => plan,
        Err(refusals) => panic!("refused: {refusals:?}\n{}", world.picture()),
    }
}

/// Brings a project up, from nothing or from whatever is there, and expects that to work.
pub async fn bring_up(world: &World, desired: &Desired) {
    world.has_images_of(desired);
    let execution = Deployer::new(world).deploy(desired, |_| {}).await;
    assert_eq!(execution.reason, None, "{}", world.picture());
    assert_eq!(execution.left, Vec::<String>::new());
    assert_settled(world, desired).await;
}

/// Nothing is left to do.
pub async fn assert_settled(world: &World, desired: &Desired) {
    let plan = next_plan(world, desired, |_| {}).await;
    if !plan.is_empty() {
        let (text, steps) = (shiplap_plan::render(&plan), shiplap_plan::render_steps(&plan));
        panic!("not settled:\n{text}{steps}\n{}", world.picture());
    }
    assert_live(world, desired);
    assert_eq!(world.violations(), Vec::<String>::new());
}

/// As many replicas run as should, each of them comes back with the next boot, and nothing else
/// does.
pub fn assert_live(world: &World, desired: &Desired) {
    assert_serves(world, desired);
    let state = world.state();
    for spec in desired.services.values().filter(|spec| !is_job(desired, &spec.name)) {
        let mut running = 0;
        for container in state.containers.values().filter(|c| c.service() == spec.name) {
            let runs = container.state == ContainerState::Running;
            running += u32::from(runs);
            assert_eq!(
                runs,
                ReplicaName::parse(&container.name).1 == Standing::Live,
                "{}",
                container.name
            );
            let restart = spec.facts.get("restart").filter(|_| runs);
            if container.deployed() {
                assert_eq!(container.facts.get("restart"), restart, "of {}", container.name);
            }
        }
        assert_eq!(running, spec.replicas, "replicas of {} that run", spec.name);
    }
}

fn is_job(desired: &Desired, service: &str) -> bool {
    desired.services.values().filter_map(|other| other.service.depends_on.get(service)).any(
        |dependency| {
            dependency.condition == shiplap_compose::model::Condition::CompletedSuccessfully
        },
    )
}

/// Whoever calls is answered by as many replicas as there should be.
pub fn assert_serves(world: &World, desired: &Desired) {
    let state = world.state();
    for spec in desired.services.values() {
        for (key, (_, pool)) in state.pools.iter().filter(|(key, _)| key.service == spec.name) {
            assert!(!pool.held, "{key} is held");
            assert_eq!(pool.replicas.len(), spec.replicas as usize, "replicas behind {key}");
            for replica in &pool.replicas {
                let container = &state.containers[&replica.container_id];
                assert_eq!(container.state, ContainerState::Running, "{}", container.name);
                let addresses: Vec<_> =
                    container.networks.values().flatten().map(|a| a.address).collect();
                assert!(addresses.contains(&replica.address), "{} moved", container.name);
            }
        }
    }
}

/// A change of a project: what is there, and what should come.
pub struct Shape {
    pub name: &'static str,
    pub old: Old,
    pub new: &'static str,
    pub change: fn(&mut Policy),
}

/// What is there before.
pub enum Old {
    Nothing,
    /// Deployed by us, in this order.
    Deployed(&'static [&'static str]),
    /// Brought up by Compose.
    Compose(&'static str),
}

impl Shape {
    /// The machine before the change.
    pub async fn before(&self) -> World {
        thread_local! {
            static KNOWN: RefCell<BTreeMap<&'static str, World>> = RefCell::default();
        }
        let known = KNOWN.with_borrow(|known| known.get(self.name).map(World::fork));
        if let Some(world) = known {
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
                    bring_up(&world, &desired(yaml)).await;
                }
            }
            Old::Compose(yaml) => world.compose_up(&desired(yaml)),
        }
        world.has_images_of(&self.wanted());
        world.reset();
        world
    }

    pub fn wanted(&self) -> Desired {
        desired(self.new)
    }

    /// What should run while the change has not been made.
    pub fn old(&self) -> Option<Desired> {
        match &self.old {
            Old::Nothing => None,
            Old::Deployed(all) => all.last().map(|yaml| desired(yaml)),
            Old::Compose(yaml) => Some(desired(yaml)),
        }
    }
}

/// The old release serves as if nothing had happened; volumes and images may have come.
pub async fn assert_as_before(shape: &Shape, world: &World, before: &str) {
    let interesting = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with("volume "));
        lines.map(str::to_owned).collect()
    };
    let now = world.picture();
    assert_eq!(interesting(&now), interesting(before), "{}: before and after", shape.name);
    assert_eq!(world.violations(), Vec::<String>::new(), "{}", shape.name);
}

/// A change under way, with trouble to come.
pub struct Attempt {
    pub world: World,
    pub before: String,
    pub new: Desired,
    pub plan: Plan,
    pub number: u64,
    pub run: Run,
}

impl Attempt {
    /// Calls are counted from here.
    pub async fn at(shape: &Shape) -> Self {
        let world = shape.before().await;
        let new = shape.wanted();
        let plan = next_plan(&world, &new, shape.change).await;
        let before = world.picture();
        let deployer = Deployer::new(&world);
        let (number, lease) = deployer.begin().await;
        let run = deployer.run(&new, number, lease);
        world.reset();
        Self { world, before, new, plan, number, run }
    }

    /// Goes on to the end.
    pub async fn finish(&self) -> Execution {
        let execution = execute(&self.run, &self.plan);
        tokio::time::timeout(LONGEST, execution).await.expect("it ends")
    }

    /// How many calls the change makes when all goes well.
    pub async fn calls(shape: &Shape) -> Vec<String> {
        let attempt = Self::at(shape).await;
        attempt.finish().await;
        attempt.world.log()
    }

    /// Where trouble is worth making: at the first and the last call of each text, since what is
    /// in between only looks again.
    pub async fn points(shape: &Shape) -> Vec<(usize, String)> {
        Self::points_in(&Self::calls(shape).await)
    }

    /// As [`Attempt::points`], in these calls.
    pub fn points_in(calls: &[String]) -> Vec<(usize, String)> {
        let numbered = || calls.iter().cloned().enumerate();
        numbered()
            .filter(|(index, call)| {
                let mut same = numbered().filter(|(_, other)| other == call).map(|(i, _)| i);
                let first = same.next();
                first == Some(*index) || same.next_back() == Some(*index)
            })
            .collect()
    }

    pub async fn journal(&self) -> Vec<JournalEntry> {
        self.world.ledger().journal(&scope(), self.number).await.unwrap()
    }
}

/// Each step began after those that it waits for were finished. That its own lines come in an
/// order that makes sense, the ledger has seen to.
pub fn assert_legal(journal: &[JournalEntry], plan: &Plan) {
    use StepState::{Finished, Started};
    for step in &plan.steps {
        let started = journal.iter().position(|e| e.step == step.id.0 && e.state == Started);
        for id in &step.after {
            let done = journal.iter().position(|e| e.step == id.0 && e.state == Finished);
            if let Some(started) = started {
                assert!(done.is_some_and(|done| done < started), "{} came too early", step.action);
            }
        }
    }
}

/// Runs a future on a runtime whose clock jumps to the next thing to happen.
pub fn paused<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap().block_on(future)
}

/// Runs many cases to the end of each, and reports all that failed together.
#[derive(Default)]
pub struct Cases {
    failed: Vec<String>,
    count: usize,
}

impl Cases {
    pub fn run(&mut self, what: &str, case: impl FnOnce()) {
        self.count += 1;
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(case));
        if let Err(panic) = result {
            let said = panic.downcast_ref::<String>().cloned();
            let said = said.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            self.failed.push(format!("== {what}\n{}", said.unwrap_or_default()));
        }
    }

    /// Panics if any case failed.
    pub fn end(self) {
        let shown: Vec<String> = self.failed.iter().take(10).cloned().collect();
        let (failed, count) = (self.failed.len(), self.count);
        assert!(failed == 0, "{failed} of {count} cases failed\n{}", shown.join("\n"));
    }
}
