//! A machine whose clock stands still, and deployments to write down.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::Connection;
use serde_json::json;
use shiplap_ledger::{Host, Presence, ProcessIdentity, SqliteLedger};
use shiplap_model::{
    Direction, JournalEntry, LeaseKey, NewDeployment, Outcome, Resumption, Scope, Secret,
    StepState, Store, StoredBefore, StoredContainer, StoredImage, StoredRelease, StoredRequest,
    StoredService,
};
use tempfile::TempDir;

use crate::database::Database;

pub const START_MS: i64 = 1_700_000_000_000;
pub const TTL: Duration = Duration::from_secs(60);
pub const BINDING: &str = "DATABASE_PASSWORD=correct-horse-battery-staple";

/// Clock and processes, shared by all that run on the machine.
#[derive(Clone)]
pub struct Machine(Arc<Mutex<State>>);

struct State {
    boot_id: String,
    now_ms: i64,
    uptime_ms: i64,
    ended: BTreeSet<u32>,
}

impl Machine {
    pub fn new() -> Self {
        let state = State {
            boot_id: "boot-1".into(),
            now_ms: START_MS,
            uptime_ms: 5_000,
            ended: BTreeSet::new(),
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Both clocks go on.
    pub fn pass(&self, time: Duration) {
        let ms = i64::try_from(time.as_millis()).unwrap();
        let mut state = self.0.lock().unwrap();
        state.now_ms += ms;
        state.uptime_ms += ms;
    }

    /// Somebody sets the wall clock.
    pub fn set_wall_clock(&self, now_ms: i64) {
        self.0.lock().unwrap().now_ms = now_ms;
    }

    pub fn kill(&self, pid: u32) {
        self.0.lock().unwrap().ended.insert(pid);
    }

    /// Every process ends, and the time since boot begins again.
    pub fn reboot(&self) {
        let mut state = self.0.lock().unwrap();
        state.boot_id.push('+');
        state.uptime_ms = 0;
    }

    pub fn process(&self, pid: u32) -> Arc<dyn Host> {
        let boot_id = self.0.lock().unwrap().boot_id.clone();
        let process = ProcessIdentity {
            boot_id,
            pid_namespace: "pid:[1]".into(),
            pid,
            start_ticks: 100 + u64::from(pid),
        };
        Arc::new(Process { machine: self.clone(), process })
    }

    pub fn open(&self, pid: u32, dir: &Path) -> SqliteLedger {
        SqliteLedger::open_on(dir, self.process(pid)).unwrap()
    }
}

struct Process {
    machine: Machine,
    process: ProcessIdentity,
}

impl Host for Process {
    fn now_ms(&self) -> i64 {
        self.machine.0.lock().unwrap().now_ms
    }

    fn uptime_ms(&self) -> i64 {
        self.machine.0.lock().unwrap().uptime_ms
    }

    fn process(&self) -> ProcessIdentity {
        self.process.clone()
    }

    fn presence(&self, process: &ProcessIdentity) -> Presence {
        let state = self.machine.0.lock().unwrap();
        if process.boot_id != self.process.boot_id
            || process.pid_namespace != self.process.pid_namespace
        {
            Presence::Elsewhere
        } else if state.ended.contains(&process.pid) {
            Presence::Gone
        } else {
            Presence::Running
        }
    }
}

/// A ledger of either kind, and a machine for those who use it. `ledger` is that of process 1.
pub struct Bench {
    pub dir: TempDir,
    pub machine: Machine,
    pub ledger: Arc<dyn Store>,
    /// Nothing where it is in SQLite.
    pub database: Option<Database>,
}

impl Bench {
    pub fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine::new();
        let ledger = Arc::new(machine.open(1, dir.path()));
        Self { dir, machine, ledger, database: None }
    }

    /// In a database whose clock is the machine's; nothing where there is no server.
    pub async fn postgres() -> Option<Self> {
        let database = Database::new().await?;
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine::new();
        let ledger = Arc::new(database.open(&machine, 1, dir.path()).await);
        database.fix_clock(START_MS).await;
        Some(Self { dir, machine, ledger, database: Some(database) })
    }

    /// One of the same kind.
    pub async fn another(&self) -> Self {
        match self.database {
            None => Self::sqlite(),
            Some(_) => Self::postgres().await.expect("there was a server before"),
        }
    }

    /// The ledger of another process.
    pub async fn open(&self, pid: u32) -> Arc<dyn Store> {
        match &self.database {
            None => Arc::new(self.machine.open(pid, self.dir.path())),
            Some(database) => Arc::new(database.open(&self.machine, pid, self.dir.path()).await),
        }
    }

    /// All clocks go on.
    pub async fn pass(&self, time: Duration) {
        self.machine.pass(time);
        if let Some(database) = &self.database {
            let now_ms = self.machine.0.lock().unwrap().now_ms;
            database.set_clock(now_ms).await;
        }
    }

    /// Does something to the tables behind the ledger's back. Blobs of zeros are `zeroblob(32)`.
    pub async fn tamper(&self, sql: &str) -> Result<(), String> {
        match &self.database {
            None => {
                let raw = Connection::open(self.dir.path().join("ledger.db")).unwrap();
                raw.execute_batch(sql).map_err(|error| error.to_string())
            }
            Some(database) => database.execute(sql).await,
        }
    }

    /// Nothing keeps entries as they are any more.
    pub async fn drop_triggers(&self) {
        let sql = match &self.database {
            None => {
                "DROP TRIGGER entries_stay_as_they_are; DROP TRIGGER entries_stay; \
                 DROP TRIGGER entries_come_last;"
            }
            Some(_) => {
                "DROP TRIGGER entries_stay_as_they_are ON entries; \
                 DROP TRIGGER entries_stay ON entries; DROP TRIGGER entries_come_last ON entries;"
            }
        };
        self.tamper(sql).await.unwrap();
    }

    /// The database without the ledger.
    pub fn raw(&self) -> Connection {
        Connection::open(self.dir.path().join("ledger.db")).unwrap()
    }

    pub async fn lease(&self, scope: &Scope) -> LeaseKey {
        self.ledger.acquire(scope, "ada@laptop", TTL).await.unwrap().unwrap().key
    }

    /// A whole deployment: begun, one step started and finished, ended.
    pub async fn deploy(&self, scope: &Scope, image: &str, outcome: Outcome) -> u64 {
        let lease = self.lease(scope).await;
        let number = self.ledger.begin(&deployment(&lease, image)).await.unwrap();
        for state in [StepState::Started, StepState::Finished] {
            self.ledger.record(&lease, number, &line(state)).await.unwrap();
        }
        let release = release(image);
        self.ledger.end(&lease, number, outcome, None, &release).await.unwrap();
        self.ledger.release(&lease).await.unwrap();
        number
    }
}

/// Makes two tests of each check: on SQLite, and on PostgreSQL where it is installed.
macro_rules! on_both {
    ([$($check:ident),* $(,)?]) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $check() {
                super::$check($crate::support::Bench::sqlite()).await;
            })*
        }

        mod postgres {
            $(#[tokio::test]
            async fn $check() {
                let Some(bench) = $crate::support::Bench::postgres().await else { return };
                super::$check(bench).await;
            })*
        }
    };
}
pub(crate) use on_both;

pub fn scope(environment: &str) -> Scope {
    Scope { project: "shop".into(), environment: environment.into() }
}

pub fn image(tag: &str) -> StoredImage {
    StoredImage {
        reference: format!("shop/web:{tag}"),
        id: Some(format!("sha256:{tag}")),
        digest: None,
    }
}

pub fn release(tag: &str) -> StoredRelease {
    let web = StoredService { image: image(tag), replicas: 2 };
    StoredRelease { version: 1, services: BTreeMap::from([("web".to_owned(), web)]) }
}

pub fn deployment(lease: &LeaseKey, tag: &str) -> NewDeployment {
    NewDeployment {
        scope: lease.scope.clone(),
        kind: "deploy".into(),
        who: "ada@laptop".into(),
        message: Some("Grüße, \"new\" web".into()),
        release: release(tag),
        binding: Secret::new(BINDING.into()),
        plan: json!({"steps": [{"what": "pull b on vm1", "id": 1}], "notes": []}),
        request: request(),
        lease: lease.clone(),
        after: 0,
    }
}

pub fn request() -> StoredRequest {
    let web = StoredContainer {
        id: "0a1b".into(),
        name: "shop-web-1".into(),
        service: "web".into(),
        running: true,
        restart: "always".into(),
    };
    StoredRequest {
        version: 1,
        services: Some(["web".to_owned()].into()),
        before: StoredBefore {
            containers: vec![web],
            networks: ["shop_default".to_owned()].into(),
        },
        ..StoredRequest::default()
    }
}

/// Whoever has the lease takes a deployment up again.
pub fn resumption(direction: Direction) -> Resumption {
    Resumption {
        who: "bob@ci".into(),
        message: Some("the disk was full".into()),
        generation: 0,
        direction,
        found: vec!["step 1 (pull b on vm1) had begun".into()],
        plan: json!({"steps": []}),
        at_ms: START_MS + 9,
    }
}

pub fn line(state: StepState) -> JournalEntry {
    JournalEntry {
        step: 1,
        what: "pull b on vm1".into(),
        state,
        at_ms: START_MS + 7,
        detail: matches!(state, StepState::Failed).then(|| "no route to vm1".to_owned()),
        made: None,
    }
}
