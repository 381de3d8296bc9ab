//! A server over fakes, with 50 environments: to measure what an idle one takes, and to try
//! requests on.
//!
//! `cargo run --release -p shiplap-server --example fifty -- 127.0.0.1:8080` prints a token that may do
//! everything. Orders end at once; nothing is deployed.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use async_trait::async_trait;
use shiplap_model::{Claim, OrderEnd, Scope, TokenAction, TokenScope, Tokens as _};
use shiplap_server::view::{DeploymentDetail, DeploymentView, EnvironmentState};
use shiplap_server::{
    AuditLine, CarriedOut, Catalog, DispatchTrigger, EnvironmentEntry, EventSink, Listener, Log,
    NewToken, Notifier, Parts, Place, ProjectEntry, Rates, Server, ServiceEntry, Settings, Stop,
    Trigger, Works, WorksError,
};
use shiplap_testkit::World;
use tokio::net::TcpListener;

struct Nothing(Arc<Catalog>);

#[async_trait]
impl Works for Nothing {
    async fn catalog(&self) -> Arc<Catalog> {
        self.0.clone()
    }
    async fn carry_out(&self, claim: &Claim, events: &dyn EventSink, _: &Stop) -> CarriedOut {
        events.line("nothing to do");
        let (at_ms, summary) = (claim.order.at_ms, "nothing to do".to_owned());
        CarriedOut::Ended(OrderEnd { at_ms, exit: 0, deployment: None, summary })
    }
    async fn state(&self, _: &Scope) -> Result<EnvironmentState, WorksError> {
        Ok(EnvironmentState::default())
    }
    async fn history(
        &self,
        _: &Scope,
        _: Option<u64>,
        _: u32,
    ) -> Result<Vec<DeploymentView>, WorksError> {
        Ok(Vec::new())
    }
    async fn deployment(&self, _: &Scope, _: u64) -> Result<Option<DeploymentDetail>, WorksError> {
        Ok(None)
    }
}

struct Stderr;

impl Log for Stderr {
    fn audit(&self, line: &AuditLine) {
        eprintln!("{}", line.to_json());
    }
    fn trouble(&self, text: &str) {
        eprintln!("{text}");
    }
}

/// Ten projects with five environments of ten services.
fn catalog() -> Catalog {
    let service = |number: usize| {
        let (repository, tag) = (format!("ghcr.io/cheapa/s{number}"), "1".to_owned());
        let image = format!("{repository}:{tag}");
        let variable = Some(format!("S{number}_TAG"));
        let entry = ServiceEntry { image, repository, tag: Some(tag), variable, fixed: None };
        (format!("s{number}"), entry)
    };
    let environment = |number: usize| {
        let (target, services) = ("core".to_owned(), (0..10).map(service).collect());
        (format!("e{number}"), EnvironmentEntry { target, services, problem: None })
    };
    let place = Place { environment: "e0".to_owned(), service: "s0".to_owned() };
    let trigger = DispatchTrigger {
        inputs: BTreeMap::from([("tag".to_owned(), vec![place])]),
        ..DispatchTrigger::default()
    };
    let project = |number: usize| {
        let entry = ProjectEntry {
            environments: (0..5).map(environment).collect(),
            triggers: vec![Trigger::Dispatch(trigger.clone())],
            problem: None,
        };
        (format!("p{number}"), entry)
    };
    Catalog { projects: (0..10).map(project).collect() }
}

/// The defaults, but for how often one may ask: whoever tries requests tries many.
fn settings() -> Settings {
    let rates = Rates {
        token_per_second: NonZeroU32::MAX,
        token_burst: NonZeroU32::MAX,
        ..Rates::default()
    };
    Settings { rates, ..Settings::new("example", "localhost") }
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let ledger = World::new().ledger();
    let scope = TokenScope { actions: [TokenAction::Admin].into(), ..TokenScope::default() };
    let made = NewToken::make("example", scope, "example", 0, None)?;
    ledger.add_token(&made.token).await.map_err(std::io::Error::other)?;
    let server = Server::new(Parts {
        works: Arc::new(Nothing(Arc::new(catalog()))),
        orders: ledger.clone(),
        tokens: ledger,
        log: Arc::new(Stderr),
        notifier: Notifier::default(),
        settings: settings(),
    });
    println!("{}", made.shown.expose());
    let leave = async {
        let _ = tokio::signal::ctrl_c().await;
    };
    server.run(vec![Listener::Tcp(TcpListener::bind(address).await?)], leave).await;
    Ok(())
}
