//! The use cases.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use shiplap_execute::app::{App, AppError, Intent, Report, Request, Source, UsedSecret};
use shiplap_execute::{Cancel, Event, Reporter};
use shiplap_model::{DeploymentState, Ledger, Outcome, Scope, Secret};
use shiplap_testkit::{ENVIRONMENT, Script, Trouble, World, source};

use crate::support::{Events, paused, scope};

const V1: &str = r#"
services:
  api:
    image: "api:v1"
    restart: always
    ports: ["8000:8000"]
    environment: { GREETING: hello, PASSWORD: hunter2 }
    configs: [{ source: settings, target: /etc/settings }]
    secrets: [key]
  web: { image: "web:v1", restart: always, ports: ["80:3000"], depends_on: [api] }
configs: { settings: { content: "colour: blue" } }
secrets: { key: { environment: API_KEY } }
"#;

/// `V1` with other values.
fn with(image: &str, greeting: &str, colour: &str) -> String {
    V1.replace("api:v1", image).replace("hello", greeting).replace("blue", colour)
}

struct Bench {
    world: World,
    events: Arc<Events>,
}

impl Bench {
    fn new() -> Self {
        let world = World::new();
        for image in ["api:v1", "api:v2", "api:v3", "web:v1", "web:v2"] {
            world.has_image(image);
        }
        Self { world, events: Arc::default() }
    }

    fn app(&self) -> App {
        App {
            engine: self.world.engine(),
            router: self.world.router(),
            ledger: self.world.ledger(),
            reporter: self.events.clone(),
            cancel: Cancel::default(),
            who: "ada@vm1".to_owned(),
            version: "0.1.0".to_owned(),
        }
    }

    fn source(yaml: &str) -> Source {
        let loaded = source(yaml, &[("API_KEY", "s3cr3t-key")]);
        Source {
            loaded,
            environment: ENVIRONMENT.to_owned(),
            routes: Default::default(),
            notes: Vec::new(),
            secrets: Default::default(),
            files: Default::default(),
        }
    }

    async fn carry_out(&self, intent: &Intent<'_>, request: &Request) -> Result<Report, AppError> {
        self.app().carry_out(intent, request, |_| std::future::ready(true)).await
    }

    async fn deploy(&self, yaml: &str) -> Report {
        self.deploy_with(yaml, &Request::default()).await
    }

    async fn deploy_with(&self, yaml: &str, request: &Request) -> Report {
        let source = Self::source(yaml);
        let report = self.carry_out(&Intent::Deploy(&source), request).await.unwrap();
        assert_eq!(report.outcome, Outcome::Done, "{:?}", report.reason);
        assert_eq!(report.left, Vec::<String>::new());
        report
    }

    async fn roll_back(&self, to: Option<u64>) -> Result<Report, AppError> {
        self.carry_out(&Intent::Rollback { scope: scope(), to }, &Request::default()).await
    }

    /// What runs under this name.
    fn image_of(&self, container: &str) -> String {
        self.world.state().find(container).unwrap().image_reference.clone()
    }

    async fn outcomes(&self) -> Vec<(u64, String, Option<Outcome>)> {
        let all = self.world.ledger().deployments(&scope(), 100).await.unwrap();
        all.into_iter()
            .map(|deployment| {
                let outcome = match deployment.state {
                    DeploymentState::Unfinished => None,
                    DeploymentState::Ended { outcome, .. } => Some(outcome),
                };
                (deployment.number, deployment.kind, outcome)
            })
            .collect()
    }
}

#[test]
fn a_second_deployment_of_the_same_does_nothing() {
    paused(async {
        let bench = Bench::new();
        assert_eq!(bench.deploy(V1).await.number, Some(1));
        let calls = bench.world.picture();
        let again = bench.deploy(V1).await;
        assert!(again.plan.is_empty());
        assert_eq!((again.number, again.declined), (None, false));
        assert_eq!(bench.world.picture(), calls);
        assert_eq!(bench.outcomes().await.len(), 1);
    });
}

#[test]
fn whoever_says_no_changes_nothing() {
    paused(async {
        let bench = Bench::new();
        let source = Bench::source(V1);
        let intent = Intent::Deploy(&source);
        let app = bench.app();
        let report = app
            .carry_out(&intent, &Request::default(), |_| std::future::ready(false))
            .await
            .unwrap();
        assert!(report.declined && report.number.is_none());
        assert_eq!(bench.world.picture(), "");
        assert!(bench.outcomes().await.is_empty());
        // And the lease is free again.
        bench.deploy(V1).await;
    });
}

#[test]
fn a_rollback_restores_image_variables_and_files() {
    paused(async {
        let bench = Bench::new();
        bench.deploy(V1).await;
        bench.deploy(&with("api:v2", "goodbye", "red")).await;
        // Without the old containers nothing can simply be started again.
        bench.world.state().containers.retain(|_, c| !c.name.contains(".d"));
        let back = bench.roll_back(None).await.unwrap();
        assert_eq!((back.number, back.outcome), (Some(3), Outcome::Done));
        assert_eq!(bench.image_of("shop-api-1"), "api:v1");
        let facts = bench.world.state().find("shop-api-1").unwrap().facts.clone();
        assert_eq!(facts.get("environment.GREETING").unwrap(), "hello");
        assert!(facts.get("file /etc/settings").unwrap().to_string().contains("colour: blue"));
        assert!(facts.get("file /run/secrets/key").unwrap().to_string().contains("s3cr3t-key"));
        // What was rolled back to is what the files said then.
        assert!(bench.deploy(V1).await.plan.is_empty());
    });
}

#[test]
fn a_rollback_revives_the_old_containers() {
    paused(async {
        let bench = Bench::new();
        bench.deploy(V1).await;
        let old = bench.world.state().find("shop-api-1").unwrap().id.clone();
        bench.deploy(&with("api:v2", "hello", "blue")).await;
        bench.roll_back(None).await.unwrap();
        assert_eq!(bench.world.state().find("shop-api-1").unwrap().id, old);
    });
}

#[test]
fn a_rollback_of_a_rollback_goes_further_back() {
    paused(async {
        let bench = Bench::new();
        for image in ["api:v1", "api:v2", "api:v3"] {
            bench.deploy(&with(image, "hello", "blue")).await;
        }
        let mut seen = Vec::new();
        for _ in 0..2 {
            bench.roll_back(None).await.unwrap();
            seen.push(bench.image_of("shop-api-1"));
        }
        assert_eq!(seen, ["api:v2", "api:v1"]);
        let end = bench.roll_back(None).await;
        assert!(matches!(end, Err(AppError::History { .. })), "{end:?}");
        // By number one can go anywhere, forward too.
        bench.roll_back(Some(3)).await.unwrap();
        assert_eq!(bench.image_of("shop-api-1"), "api:v3");
    });
}

#[test]
fn after_a_rollback_and_a_new_deployment_one_goes_back_to_what_was_before() {
    paused(async {
        let bench = Bench::new();
        bench.deploy(V1).await;
        bench.deploy(&with("api:v2", "hello", "blue")).await;
        bench.roll_back(None).await.unwrap();
        bench.deploy(&with("api:v3", "hello", "blue")).await;
        bench.roll_back(None).await.unwrap();
        assert_eq!(bench.image_of("shop-api-1"), "api:v1");
    });
}

#[test]
fn there_is_no_rollback_to_what_was_never_current() {
    paused(async {
        let bench = Bench::new();
        let nothing = bench.roll_back(None).await;
        assert!(matches!(nothing, Err(AppError::History { .. })), "{nothing:?}");
        bench.deploy(V1).await;
        bench.world.script("api:v2", Script { exits: Some((0, 1)), ..Script::default() });
        let source = Bench::source(&with("api:v2", "hello", "blue"));
        let failed = bench.carry_out(&Intent::Deploy(&source), &Request::default()).await.unwrap();
        assert_eq!(failed.outcome, Outcome::RolledBack);
        for to in [2, 9] {
            let refused = bench.roll_back(Some(to)).await;
            assert!(matches!(refused, Err(AppError::History { .. })), "{to}: {refused:?}");
        }
        assert_eq!(bench.image_of("shop-api-1"), "api:v1");
    });
}

#[test]
fn deploying_one_service_keeps_what_is_recorded_of_the_others() {
    paused(async {
        let bench = Bench::new();
        bench.deploy(V1).await;
        let both = with("api:v2", "hello", "blue").replace("web:v1", "web:v2");
        let only = Request { services: ["api".to_owned()].into(), ..Request::default() };
        bench.deploy_with(&both, &only).await;
        assert_eq!(bench.image_of("shop-api-1"), "api:v2");
        assert_eq!(bench.image_of("shop-web-1"), "web:v1");
        let newest = bench.world.ledger().deployments(&scope(), 1).await.unwrap();
        let recorded = |name: &str| newest[0].release.services[name].image.reference.clone();
        assert_eq!((recorded("api"), recorded("web")), ("api:v2".into(), "web:v1".into()));
        // Going back restores both, and going forward by number too.
        bench.roll_back(None).await.unwrap();
        assert_eq!(bench.image_of("shop-api-1"), "api:v1");
        bench.roll_back(Some(2)).await.unwrap();
        assert_eq!(bench.image_of("shop-api-1"), "api:v2");
        assert_eq!(bench.image_of("shop-web-1"), "web:v1");
    });
}

#[test]
fn a_tag_can_be_set_for_one_service() {
    paused(async {
        let bench = Bench::new();
        bench.deploy(V1).await;
        let set = BTreeMap::from([("api".to_owned(), "v2".to_owned())]);
        let request = Request { set, ..Request::default() };
        bench.deploy_with(&V1.replace("web:v1", "web:v2"), &request).await;
        assert_eq!(bench.image_of("shop-api-1"), "api:v2");
        assert_eq!(bench.image_of("shop-web-1"), "web:v1");
    });
}

#[test]
fn a_restart_makes_new_containers_of_the_current_release() {
    paused(async {
        let bench = Bench::new();
        bench.deploy(V1).await;
        let old = bench.world.state().find("shop-api-1").unwrap().id.clone();
        // The files have moved on; a restart does not care.
        let source = Bench::source(&with("api:v2", "goodbye", "red"));
        let report = bench.carry_out(&Intent::Restart(&source), &Request::default()).await.unwrap();
        assert_eq!(report.outcome, Outcome::Done, "{:?}", report.reason);
        assert_eq!(bench.image_of("shop-api-1"), "api:v1");
        assert_ne!(bench.world.state().find("shop-api-1").unwrap().id, old);
    });
}

#[test]
fn scaling_keeps_everything_else_and_is_remembered() {
    paused(async {
        let bench = Bench::new();
        bench.deploy(V1).await;
        let source = Bench::source(&with("api:v2", "goodbye", "red"));
        let replicas = BTreeMap::from([("api".to_owned(), 3)]);
        let intent = Intent::Scale { source: &source, replicas };
        let report = bench.carry_out(&intent, &Request::default()).await.unwrap();
        assert_eq!(report.outcome, Outcome::Done, "{:?}", report.reason);
        for name in ["shop-api-1", "shop-api-2", "shop-api-3"] {
            assert_eq!(bench.image_of(name), "api:v1");
        }
        let newest = bench.world.ledger().deployments(&scope(), 1).await.unwrap();
        assert_eq!(newest[0].release.services["api"].replicas, 3);
    });
}

#[test]
fn down_leaves_nothing_but_volumes_and_what_came_before_cannot_be_rolled_back_to_by_default() {
    paused(async {
        let bench = Bench::new();
        let yaml =
            V1.replace("web: {", "db: { image: \"web:v2\", volumes: [\"data:/data\"] }\n  web: {");
        let yaml = format!("{yaml}volumes: {{ data: {{}} }}\n");
        bench.deploy(&yaml).await;
        let intent = Intent::Down { scope: scope(), source: None, volumes: false };
        let report = bench.carry_out(&intent, &Request::default()).await.unwrap();
        assert_eq!((report.outcome, report.left), (Outcome::Done, vec![]));
        assert_eq!(bench.world.picture(), "volume shop_data\n");
        // A deployment that was taken down can be brought back by its number.
        bench.roll_back(Some(1)).await.unwrap();
        assert_eq!(bench.image_of("shop-api-1"), "api:v1");
    });
}

#[test]
fn of_two_deployers_the_second_is_told_who_the_first_is() {
    paused(async {
        let bench = Bench::new();
        let source = Bench::source(V1);
        let intent = Intent::Deploy(&source);
        let request = Request::default();
        bench.world.trouble_on("engine.create ", Trouble::Hang);
        tokio::select! {
            _ = bench.carry_out(&intent, &request) => panic!("it hangs"),
            () = bench.world.hung() => {}
        }
        let before = bench.world.picture();
        let second = bench.carry_out(&intent, &request).await;
        let Err(AppError::LeaseHeld(held)) = second else { panic!("{second:?}") };
        assert_eq!(held.to_string(), "ada@vm1 is deploying shop/default");
        assert_eq!(bench.world.picture(), before);
    });
}

#[test]
fn a_missing_image_is_refused_before_anything_happens() {
    paused(async {
        let bench = Bench::new();
        let source = Bench::source(&V1.replace("api:v1", "api:v9").replace("web:v1", "web:v9"));
        let report = bench.carry_out(&Intent::Deploy(&source), &Request::default()).await;
        let Err(AppError::Refused(refusals)) = report else { panic!("{report:?}") };
        let codes: Vec<_> = refusals.iter().map(|r| (r.code, r.service.as_deref())).collect();
        assert_eq!(codes, [("image-missing", Some("api")), ("image-missing", Some("web"))]);
        assert_eq!(bench.world.picture(), "");
        assert!(bench.outcomes().await.is_empty());
    });
}

#[test]
fn an_image_is_pulled_by_the_digest_that_the_registry_named() {
    paused(async {
        let bench = Bench::new();
        bench.world.state().registry.insert("api:v4".to_owned(), "sha256:abc".to_owned());
        bench.deploy(&with("api:v4", "hello", "blue")).await;
        let log = bench.world.log();
        assert!(log.contains(&"engine.pull api@sha256:abc".to_owned()), "{log:?}");
        let newest = bench.world.ledger().deployments(&scope(), 1).await.unwrap();
        let image = &newest[0].release.services["api"].image;
        assert_eq!(image.digest.as_deref(), Some("sha256:abc"));
        assert_eq!(image.id.as_deref(), Some("sha256:api:v4"));
    });
}

#[test]
fn prune_keeps_what_any_environment_needs() {
    paused(async {
        let bench = Bench::new();
        for number in 1..=8 {
            let image = format!("api:v{number}");
            bench.world.has_image(&image);
            bench.deploy(&with(&image, "hello", "blue")).await;
        }
        bench.world.has_image("stranger:v1");
        // Another environment still needs an image that this one has left behind.
        let ledger = bench.world.ledger();
        let other = Scope { project: "blog".to_owned(), environment: "prod".to_owned() };
        let ttl = std::time::Duration::from_secs(9);
        let lease = ledger.acquire(&other, "x", ttl).await.unwrap().unwrap().key;
        let old = ledger.deployment(&scope(), 1).await.unwrap().unwrap();
        let new = shiplap_model::NewDeployment {
            scope: other,
            kind: "deploy".to_owned(),
            who: "x".to_owned(),
            message: None,
            release: old.release.clone(),
            binding: Default::default(),
            plan: serde_json::Value::Null,
            request: Default::default(),
            lease: lease.clone(),
            after: 0,
        };
        let number = ledger.begin(&new).await.unwrap();
        ledger.end(&lease, number, Outcome::Done, None, &old.release).await.unwrap();
        bench.world.state().containers.retain(|_, c| !c.name.contains(".d"));
        let app = bench.app();
        let mut prunable: Vec<String> =
            app.prunable().await.unwrap().into_iter().map(|image| image.id).collect();
        prunable.sort();
        assert_eq!(prunable, ["sha256:api:v2", "sha256:api:v3"]);
        let freed = app.prune(app.prunable().await.unwrap()).await.unwrap();
        assert_eq!((freed.images.len(), freed.kept.len()), (2, 0));
        assert!(bench.world.state().image("api:v3").is_none());
        assert!(bench.world.state().image("stranger:v1").is_some());
    });
}

/// Keeps what it is told.
struct Everything(Mutex<String>);

impl Reporter for Everything {
    fn event(&self, event: Event) {
        self.0.lock().unwrap().push_str(&format!("{event:?}\n"));
    }
}

#[test]
fn no_secret_is_in_the_journal_the_plan_the_report_or_the_events() {
    paused(async {
        let bench = Bench::new();
        bench.deploy(V1).await;
        let everything = Arc::new(Everything(Mutex::default()));
        let app = App { reporter: everything.clone(), ..bench.app() };
        let yaml = with("api:v2", "goodbye", "red").replace("hunter2", "hunter3");
        bench.world.script("api:v2", Script { exits: Some((0, 1)), ..Script::default() });
        let source = Bench::source(&yaml);
        let intent = Intent::Deploy(&source);
        let report = app
            .carry_out(&intent, &Request::default(), |_| std::future::ready(true))
            .await
            .unwrap();
        assert_eq!(report.outcome, Outcome::RolledBack);
        let told = [
            bench.world.ledger().in_the_clear(),
            everything.0.lock().unwrap().clone(),
            shiplap_plan::to_json(&report.plan).to_string(),
            shiplap_plan::render(&report.plan),
            format!("{report:?}"),
        ];
        for (index, text) in told.iter().enumerate() {
            for secret in ["hunter2", "hunter3", "s3cr3t-key", "goodbye", "colour: red"] {
                assert!(!text.contains(secret), "{secret} in {index}: {text}");
            }
        }
        // It does say what changed.
        assert!(told[3].contains("PASSWORD changed"), "{}", told[3]);
    });
}

#[test]
fn a_lost_lease_ends_in_stuck_and_the_thief_is_left_alone() {
    paused(async {
        let bench = Bench::new();
        let source = Bench::source(V1);
        let ledger = bench.world.ledger();
        bench.world.trouble_on(
            "engine.start shop-api-1",
            Trouble::Do(Arc::new(move || ledger.steal(&scope()))),
        );
        let report = bench.carry_out(&Intent::Deploy(&source), &Request::default()).await.unwrap();
        assert_eq!(report.outcome, Outcome::Stuck);
        let holder = bench.world.ledger().holder(&scope()).await.unwrap().unwrap();
        assert_eq!(holder.holder, "a thief");
    });
}

/// A project that gets a secret from the environment's store, in the state of one version of it.
fn with_secret(version: u32, content: &str) -> Source {
    let yaml = r"
        name: shop
        services:
          api: {image: 'api:v1', secrets: [token]}
        secrets:
          token: {external: true, name: API_TOKEN}
    ";
    let content = Secret::new(content.as_bytes().to_vec());
    Source {
        secrets: [("API_TOKEN".to_owned(), UsedSecret { version, content })].into(),
        ..Bench::source(yaml)
    }
}

#[test]
fn an_external_secret_comes_from_the_store_and_history_knows_its_version() {
    paused(async {
        let bench = Bench::new();
        let request = Request::default();
        for (version, content) in [(1, "one"), (3, "three")] {
            let source = with_secret(version, content);
            let report = bench.carry_out(&Intent::Deploy(&source), &request).await.unwrap();
            assert_eq!((report.outcome, report.plan.is_empty()), (Outcome::Done, false));
        }
        // The same content under another number is no reason to replace anything.
        let source = with_secret(4, "three");
        let report = bench.carry_out(&Intent::Deploy(&source), &request).await.unwrap();
        assert!(report.plan.is_empty());
        bench.roll_back(None).await.unwrap();
        let restart = Intent::Restart(&source);
        assert_eq!(bench.carry_out(&restart, &request).await.unwrap().outcome, Outcome::Done);

        let all = bench.world.ledger().deployments(&scope(), 100).await.unwrap();
        let versions: Vec<u32> =
            all.iter().rev().map(|d| d.request.as_ref().unwrap().secrets["API_TOKEN"]).collect();
        assert_eq!(versions, [1, 3, 1, 1], "deployed twice, rolled back, restarted");
        let binding = bench.world.ledger().binding(&scope(), 4).await.unwrap();
        let binding: serde_json::Value = serde_json::from_slice(binding.expose()).unwrap();
        let file = &binding["files"]["api"][0];
        assert_eq!(
            (&file["target"], &file["content"]),
            (&"/run/secrets/token".into(), &"b25l".into())
        );
    });
}

#[test]
fn an_external_secret_that_is_not_set_is_refused() {
    paused(async {
        let bench = Bench::new();
        let source = Source { secrets: Default::default(), ..with_secret(1, "one") };
        let refused = bench.carry_out(&Intent::Deploy(&source), &Request::default()).await;
        let AppError::Refused(refusals) = refused.unwrap_err() else { panic!("refused") };
        assert_eq!(refusals[0].code, "secret-missing");
        assert!(refusals[0].message.contains("has no secret `API_TOKEN`"), "{}", refusals[0]);
        let help = refusals[0].help.as_deref().unwrap_or_default();
        assert!(help.contains("shiplap secrets set API_TOKEN"), "{help}");
    });
}
