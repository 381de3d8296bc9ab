//! Keeping requests away by hand.

use shiplap_execute::app::{App, AppError, Intent, Request, Source};
use shiplap_execute::{Cancel, Silent};
use shiplap_model::{Limits, Maintenance, MaintenanceChange, Outcome, RouterState};
use shiplap_testkit::{ENVIRONMENT, World, source};

use crate::support::scope;

const SHOP: &str = r#"
services:
  api:
    image: "api:v1"
    restart: always
    ports: ["8000:8000"]
    expose: ["9100"]
  db: { image: "db:v1", restart: always, expose: ["5432"] }
"#;

struct Bench {
    world: World,
    app: App,
}

impl Bench {
    fn new() -> Self {
        let world = World::new();
        for image in ["api:v1", "api:v2", "db:v1"] {
            world.has_image(image);
        }
        let app = App {
            engine: world.engine(),
            router: world.router(),
            ledger: world.ledger(),
            reporter: std::sync::Arc::new(Silent),
            cancel: Cancel::default(),
            who: "ada@vm1".to_owned(),
            version: "0.1.0".to_owned(),
        };
        Self { world, app }
    }

    async fn deploy(&self, yaml: &str) {
        let source = Source {
            loaded: source(yaml, &[]),
            environment: ENVIRONMENT.to_owned(),
            routes: Default::default(),
            notes: Vec::new(),
            secrets: Default::default(),
            files: Default::default(),
        };
        let intent = Intent::Deploy(&source);
        let request = Request::default();
        let report = self.app.carry_out(&intent, &request, |_| std::future::ready(true)).await;
        let report = report.expect("it can be deployed");
        assert_eq!(report.outcome, Outcome::Done, "{:?}", report.reason);
    }

    async fn state(&self) -> RouterState {
        self.app.router.state(&scope().to_string()).await.unwrap().unwrap()
    }

    async fn held(&self) -> Vec<String> {
        let state = self.state().await;
        let held = state.pools.iter().filter(|(_, pool)| pool.held);
        held.map(|(key, _)| format!("{}:{}", key.service, key.port)).collect()
    }
}

fn page() -> Maintenance {
    Maintenance {
        body: "soon".to_owned(),
        content_type: "text/plain".to_owned(),
        retry_after_s: 60,
        allow: Vec::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_holds_what_comes_from_outside_and_ends_with_the_same_replicas() {
    let bench = Bench::new();
    bench.deploy(SHOP).await;
    let before = bench.state().await.pools;
    let limits = Limits::default();
    assert_eq!(bench.app.pause(&scope(), &limits).await.unwrap(), 1);
    assert_eq!(bench.held().await, ["api:8000"], "inner calls go on");
    assert_eq!(bench.app.pause(&scope(), &limits).await.unwrap(), 1, "twice is once");
    assert_eq!(bench.app.unpause(&scope(), &limits).await.unwrap(), 1);
    assert_eq!(bench.state().await.pools, before);
    assert_eq!(bench.app.unpause(&scope(), &limits).await.unwrap(), 0);
    assert!(bench.app.ledger.holder(&scope()).await.unwrap().is_none(), "the lease is given back");
}

#[tokio::test(start_paused = true)]
async fn a_deployment_that_replaces_what_is_paused_ends_the_pause() {
    let bench = Bench::new();
    bench.deploy(SHOP).await;
    bench.app.pause(&scope(), &Limits::default()).await.unwrap();
    bench.deploy(&SHOP.replace("api:v1", "api:v2")).await;
    assert_eq!(bench.held().await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn maintenance_stays_through_a_deployment() {
    let bench = Bench::new();
    bench.deploy(SHOP).await;
    let limits = Limits::default();
    let on = MaintenanceChange::On(page());
    bench.app.maintain(&scope(), on, &limits).await.unwrap();
    bench.deploy(&SHOP.replace("api:v1", "api:v2")).await;
    assert_eq!(bench.state().await.maintenance, Some(page()));
    bench.app.maintain(&scope(), MaintenanceChange::Off, &limits).await.unwrap();
    assert_eq!(bench.state().await.maintenance, None);
}

#[tokio::test(start_paused = true)]
async fn what_no_request_reaches_cannot_be_kept_from_requests() {
    let bench = Bench::new();
    bench.deploy("services: { db: { image: \"db:v1\", restart: always } }").await;
    let limits = Limits::default();
    let refused = |result: Result<(), AppError>| match result {
        Err(AppError::Refused(refusals)) => refusals[0].code,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(bench.app.pause(&scope(), &limits).await.map(drop)), "nothing-routed");
    let on = MaintenanceChange::On(page());
    assert_eq!(refused(bench.app.maintain(&scope(), on, &limits).await), "nothing-routed");
    assert_eq!(bench.app.unpause(&scope(), &limits).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn nobody_keeps_requests_away_while_somebody_deploys() {
    let bench = Bench::new();
    bench.deploy(SHOP).await;
    let limits = Limits::default();
    let lease = bench.app.ledger.acquire(&scope(), "eve@vm2", limits.lease).await.unwrap().unwrap();
    let result = bench.app.pause(&scope(), &limits).await;
    assert!(matches!(result, Err(AppError::LeaseHeld(_))), "{result:?}");
    bench.app.ledger.release(&lease.key).await.unwrap();
    assert_eq!(bench.held().await, Vec::<String>::new());
    drop(bench.world);
}
