//! A server with a catalog of its own, and what stands behind it under the tests' control.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use http::Method;
use shiplap_model::{
    Claim, LedgerError, NewOrder, Order, OrderEnd, OrderError, Orders, Placed, Scope, Secret,
    Token, TokenAction, TokenScope, Tokens,
};
use shiplap_server::view::{DeploymentDetail, DeploymentView, EnvironmentState, ServiceState};
use shiplap_server::{
    AuditLine, CarriedOut, Catalog, DispatchTrigger, EnvironmentEntry, EventSink, ImageTrigger,
    Listener, Log, NewToken, Notifier, Parts, Place, ProjectEntry, PushProvider, PushTrigger,
    RegistryTrigger, Server, ServiceEntry, Settings, Stop, StopReason, Trigger, Works, WorksError,
};
use shiplap_testkit::{MemoryLedger, World};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::client::Asking;

pub const PUSH_SECRET: &str = "push-s3cret";
pub const REGISTRY_SECRET: &str = "registry-s3cret";
const SOON: Duration = Duration::from_secs(20);

/// How the next order goes.
#[derive(Debug, Clone)]
pub enum Course {
    /// It ends at once, with this exit code.
    Ends(u8),
    /// It goes on until [`FakeWorks::go`], or until it is asked to stop.
    Waits,
    /// It goes on until [`FakeWorks::go`], whatever it is asked.
    WaitsDeaf,
    /// It panics.
    Panics,
}

/// What was carried out, and how it goes.
pub struct FakeWorks {
    pub catalog: Mutex<Arc<Catalog>>,
    courses: Mutex<VecDeque<Course>>,
    pub claims: Mutex<Vec<Claim>>,
    pub stops: Mutex<Vec<StopReason>>,
    pub under_way: watch::Sender<usize>,
    pub most_under_way: Mutex<usize>,
    go: Notify,
    pub away: Mutex<bool>,
}

impl FakeWorks {
    fn new() -> Self {
        Self {
            catalog: Mutex::new(Arc::new(catalog())),
            courses: Mutex::default(),
            claims: Mutex::default(),
            stops: Mutex::default(),
            under_way: watch::channel(0).0,
            most_under_way: Mutex::default(),
            go: Notify::new(),
            away: Mutex::default(),
        }
    }

    pub fn next(&self, course: Course) {
        self.courses.lock().unwrap().push_back(course);
    }

    /// Those that wait go on.
    pub fn go(&self) {
        self.go.notify_waiters();
    }

    pub async fn runs(&self, number: usize) {
        let mut under_way = self.under_way.subscribe();
        timeout(SOON, under_way.wait_for(|now| *now == number)).await.expect("it runs").unwrap();
    }

    pub fn claims(&self) -> Vec<Claim> {
        self.claims.lock().unwrap().clone()
    }

    pub fn change(&self, change: impl FnOnce(&mut Catalog)) {
        change(Arc::make_mut(&mut self.catalog.lock().unwrap()));
    }

    fn end(claim: &Claim, exit: u8) -> CarriedOut {
        let summary = if exit == 0 { "done" } else { "the new api does not answer" };
        CarriedOut::Ended(OrderEnd {
            at_ms: 1,
            exit,
            deployment: Some(claim.order.id + 100),
            summary: summary.to_owned(),
        })
    }
}

#[async_trait]
impl Works for FakeWorks {
    async fn catalog(&self) -> Arc<Catalog> {
        self.catalog.lock().unwrap().clone()
    }

    async fn carry_out(&self, claim: &Claim, events: &dyn EventSink, stop: &Stop) -> CarriedOut {
        self.claims.lock().unwrap().push(claim.clone());
        let now = *self.under_way.borrow() + 1;
        self.under_way.send_replace(now);
        {
            let mut most = self.most_under_way.lock().unwrap();
            *most = (*most).max(now);
        }
        events.deployment(claim.order.id + 100);
        events.line("pulling");
        let course = self.courses.lock().unwrap().pop_front().unwrap_or(Course::Ends(0));
        let carried = match course {
            Course::Ends(exit) => Self::end(claim, exit),
            Course::Waits => tokio::select! {
                () = self.go.notified() => Self::end(claim, 0),
                reason = stop.asked() => {
                    self.stops.lock().unwrap().push(reason);
                    match reason {
                        StopReason::Leaving | StopReason::Lost => CarriedOut::Left,
                        StopReason::Withdrawn => Self::end(claim, 3),
                    }
                }
            },
            Course::WaitsDeaf => {
                self.go.notified().await;
                Self::end(claim, 0)
            }
            Course::Panics => {
                self.under_way.send_modify(|now| *now -= 1);
                panic!("as the test wants it");
            }
        };
        events.line("over");
        self.under_way.send_modify(|now| *now -= 1);
        carried
    }

    async fn state(&self, scope: &Scope) -> Result<EnvironmentState, WorksError> {
        if *self.away.lock().unwrap() {
            return Err(WorksError::Away("the target `core` does not answer".to_owned()));
        }
        let catalog = self.catalog.lock().unwrap().clone();
        let entry = catalog.environment(scope).expect("asked for what is there");
        let drifted = |name: &String| ServiceState {
            drift: vec![format!("{name} drifted")],
            ..ServiceState::default()
        };
        Ok(EnvironmentState {
            target: entry.target.clone(),
            looked_at_ms: 5,
            services: entry.services.keys().map(|name| (name.clone(), drifted(name))).collect(),
            drift: vec!["everything drifted".to_owned()],
            ..EnvironmentState::default()
        })
    }

    async fn history(
        &self,
        _: &Scope,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<DeploymentView>, WorksError> {
        let newest = before.map_or(7, |before| before.saturating_sub(1).min(7));
        let numbers = (1..=newest).rev().take(limit as usize);
        Ok(numbers.map(deployment).collect())
    }

    async fn deployment(
        &self,
        _: &Scope,
        number: u64,
    ) -> Result<Option<DeploymentDetail>, WorksError> {
        Ok((1..=7).contains(&number).then(|| DeploymentDetail {
            deployment: deployment(number),
            journal: vec![shiplap_server::view::JournalLine::default()],
        }))
    }
}

fn deployment(number: u64) -> DeploymentView {
    let changes = ["api", "web"].map(|service| (service.to_owned(), Default::default()));
    DeploymentView { number, kind: "deploy".into(), services: changes.into(), ..Default::default() }
}

/// What the server wrote.
#[derive(Default)]
pub struct Lines {
    pub audit: Mutex<Vec<AuditLine>>,
    pub troubles: Mutex<Vec<String>>,
}

impl Log for Lines {
    fn audit(&self, line: &AuditLine) {
        self.audit.lock().unwrap().push(line.clone());
    }

    fn trouble(&self, text: &str) {
        self.troubles.lock().unwrap().push(text.to_owned());
    }
}

fn service(repository: &str, tag: &str, variable: Option<&str>) -> ServiceEntry {
    ServiceEntry {
        image: format!("{repository}:{tag}"),
        repository: repository.to_owned(),
        tag: Some(tag.to_owned()),
        variable: variable.map(str::to_owned),
        fixed: variable.is_none().then(|| "the file names the tag itself".to_owned()),
    }
}

/// `shop` has `prod` and `dev`, each with api, web, a worker with the api's tag, and a database;
/// `other` has `prod`.
fn catalog() -> Catalog {
    let environment = |target: &str| EnvironmentEntry {
        target: target.to_owned(),
        services: [
            ("api", service("ghcr.io/cheapa/api", "a0", Some("API_TAG"))),
            ("worker", service("ghcr.io/cheapa/worker", "a0", Some("API_TAG"))),
            ("web", service("ghcr.io/cheapa/web", "w0", Some("WEB_TAG"))),
            ("jobs", service("ghcr.io/cheapa/web", "w0", Some("JOBS_TAG"))),
            ("db", service("postgres", "16", None)),
        ]
        .map(|(name, entry)| (name.to_owned(), entry))
        .into(),
        problem: None,
    };
    let place = |environment: &str, service: &str| Place {
        environment: environment.to_owned(),
        service: service.to_owned(),
    };
    let dispatch = DispatchTrigger {
        repository: Some("cheapa/deploy".to_owned()),
        workflow: Some("deploy.yml".to_owned()),
        refs: vec!["main".to_owned()],
        inputs: [
            ("web_image_tag", vec![place("prod", "web")]),
            ("jobs_image_tag", vec![place("prod", "jobs")]),
            ("api_image_tag", vec![place("prod", "api"), place("dev", "api")]),
        ]
        .map(|(name, places)| (name.to_owned(), places))
        .into(),
    };
    let registry = RegistryTrigger {
        secret: Secret::new(REGISTRY_SECRET.to_owned()),
        images: vec![ImageTrigger {
            repository: "cheapa/web".to_owned(),
            tags: "v*".to_owned(),
            places: vec![place("dev", "web")],
        }],
    };
    let push = |provider| PushTrigger {
        provider,
        secret: Secret::new(PUSH_SECRET.to_owned()),
        repository: Some("cheapa/deploy".to_owned()),
        branches: [("main".to_owned(), BTreeSet::from(["prod".to_owned(), "dev".to_owned()]))]
            .into(),
    };
    let mut triggers = vec![Trigger::Dispatch(dispatch), Trigger::Registry(registry)];
    let providers =
        [PushProvider::GitHub, PushProvider::Gitea, PushProvider::Forgejo, PushProvider::GitLab];
    triggers.extend(providers.map(push).map(Trigger::Push));
    let shop = ProjectEntry {
        environments: ["prod", "dev"].map(|name| (name.to_owned(), environment("core"))).into(),
        triggers,
        problem: None,
    };
    let other = ProjectEntry {
        environments: BTreeMap::from([("prod".to_owned(), environment("elsewhere"))]),
        ..ProjectEntry::default()
    };
    Catalog { projects: [("shop".to_owned(), shop), ("other".to_owned(), other)].into() }
}

/// Settings with short times.
pub fn settings() -> Settings {
    Settings {
        settle: Duration::from_millis(30),
        beat: Duration::from_millis(30),
        claim_ttl: Duration::from_millis(600),
        leave_within: Duration::from_millis(500),
        ..Settings::new("one", "vm1")
    }
}

/// A server that runs, and all around it.
pub struct Stage {
    pub ledger: Arc<MemoryLedger>,
    pub store: Arc<Store>,
    pub works: Arc<FakeWorks>,
    pub lines: Arc<Lines>,
    pub address: SocketAddr,
    leave: Arc<Notify>,
    server: JoinHandle<()>,
}

impl Stage {
    pub async fn new() -> Self {
        Self::with(settings(), World::new(), Notifier::default()).await
    }

    pub async fn with(settings: Settings, world: World, notifier: Notifier) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self::on(settings, world, notifier, vec![Listener::Tcp(listener)], address).await
    }

    pub async fn on(
        settings: Settings,
        world: World,
        notifier: Notifier,
        listeners: Vec<Listener>,
        address: SocketAddr,
    ) -> Self {
        let ledger = world.ledger();
        Self::of(settings, ledger, notifier, listeners, address)
    }

    fn of(
        settings: Settings,
        ledger: Arc<MemoryLedger>,
        notifier: Notifier,
        listeners: Vec<Listener>,
        address: SocketAddr,
    ) -> Self {
        let (works, lines) = (Arc::new(FakeWorks::new()), Arc::new(Lines::default()));
        let store = Arc::new(Store {
            ledger: ledger.clone(),
            uses: AtomicUsize::new(0),
            is_away: AtomicBool::new(false),
        });
        let server = Server::new(Parts {
            works: works.clone(),
            orders: store.clone(),
            tokens: store.clone(),
            log: lines.clone(),
            notifier,
            settings,
        });
        let leave = Arc::new(Notify::new());
        let server = tokio::spawn({
            let leave = leave.clone();
            async move { server.run(listeners, leave.notified()).await }
        });
        Self { ledger, store, works, lines, address, leave, server }
    }

    /// Another server with the same queue and the same tokens.
    pub async fn beside(other: &Self, name: &str) -> Self {
        let settings = Settings { server: name.to_owned(), ..settings() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ledger, notifier) = (other.ledger.clone(), Notifier::default());
        Self::of(settings, ledger, notifier, vec![Listener::Tcp(listener)], address)
    }

    /// A token that is good for this.
    pub async fn token(&self, scope: TokenScope) -> String {
        self.token_until(scope, None).await
    }

    pub async fn token_until(&self, scope: TokenScope, expires_ms: Option<i64>) -> String {
        let made = NewToken::make("ci", scope, "test", 1, expires_ms).unwrap();
        self.ledger.add_token(&made.token).await.unwrap();
        made.shown.expose().clone()
    }

    pub async fn admin(&self) -> String {
        self.token(may(&[TokenAction::Admin])).await
    }

    pub fn get(&self, path: &str) -> Asking {
        Asking::new(self.address, Method::GET, path)
    }

    pub fn post(&self, path: &str) -> Asking {
        Asking::new(self.address, Method::POST, path)
    }

    pub fn delete(&self, path: &str) -> Asking {
        Asking::new(self.address, Method::DELETE, path)
    }

    /// Asks it to leave, and waits until it has.
    pub async fn leave(&mut self) {
        self.leave.notify_one();
        timeout(SOON, &mut self.server).await.expect("it leaves").unwrap();
    }

    /// Ends it without a word, as if its process had died.
    pub fn die(&self) {
        self.server.abort();
    }

    /// Waits until the order has ended.
    pub async fn ended(&self, token: &str, id: u64) -> serde_json::Value {
        let path = format!("/api/v1/orders/{id}?wait=20s");
        let answer = self.get(&path).token(token).send().await;
        let json = answer.json();
        if answer.status == 200 { json } else { json["orders"][0].clone() }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A ledger that can be away, and counts how often the use of a token was written down.
pub struct Store {
    ledger: Arc<MemoryLedger>,
    pub uses: AtomicUsize,
    pub is_away: AtomicBool,
}

impl Store {
    fn ledger(&self) -> Result<&MemoryLedger, LedgerError> {
        if self.is_away.load(Ordering::Relaxed) {
            return Err(LedgerError::Storage("db.internal:5432: connection refused".to_owned()));
        }
        Ok(&self.ledger)
    }
}

#[async_trait]
impl Tokens for Store {
    async fn add_token(&self, token: &Token) -> Result<(), LedgerError> {
        self.ledger()?.add_token(token).await
    }
    async fn token(&self, id: &str) -> Result<Option<Token>, LedgerError> {
        self.ledger()?.token(id).await
    }
    async fn tokens(&self) -> Result<Vec<Token>, LedgerError> {
        self.ledger()?.tokens().await
    }
    async fn token_used(&self, id: &str, at_ms: i64) -> Result<(), LedgerError> {
        self.uses.fetch_add(1, Ordering::Relaxed);
        self.ledger()?.token_used(id, at_ms).await
    }
    async fn revoke_token(&self, id: &str, at_ms: i64) -> Result<bool, LedgerError> {
        self.ledger()?.revoke_token(id, at_ms).await
    }
}

#[async_trait]
impl Orders for Store {
    async fn place(&self, order: &NewOrder) -> Result<Placed, OrderError> {
        self.ledger()?.place(order).await
    }
    async fn claim(&self, server: &str, ttl: Duration) -> Result<Option<Claim>, OrderError> {
        self.ledger()?.claim(server, ttl).await
    }
    async fn keep(&self, claim: &Claim, ttl: Duration) -> Result<(), OrderError> {
        self.ledger()?.keep(claim, ttl).await
    }
    async fn finish(&self, claim: &Claim, end: &OrderEnd) -> Result<(), OrderError> {
        self.ledger()?.finish(claim, end).await
    }
    async fn order(&self, id: u64) -> Result<Option<Order>, OrderError> {
        self.ledger()?.order(id).await
    }
    async fn orders(&self, scope: Option<&Scope>, limit: u32) -> Result<Vec<Order>, OrderError> {
        self.ledger()?.orders(scope, limit).await
    }
    async fn orders_revision(&self) -> Result<u64, OrderError> {
        self.ledger()?.orders_revision().await
    }
}

/// A scope with these actions.
pub fn may(actions: &[TokenAction]) -> TokenScope {
    TokenScope { actions: actions.iter().copied().collect(), ..TokenScope::default() }
}

/// A list of a scope.
pub fn only(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
