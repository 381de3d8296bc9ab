//! Images: building, naming, removing, asking registries.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use shiplap_engine::DockerEngine;
use shiplap_model::{
    BuildRequest, Engine, EngineErrorKind, Progress, ProgressSink, RegistryAnswer,
};

use crate::support::{Lab, compose_peer, engine};

fn sink() -> (ProgressSink, Arc<Mutex<Vec<String>>>) {
    let lines: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = Arc::clone(&lines);
    let sink: ProgressSink = Arc::new(move |progress| {
        if let Progress::Line(line) = progress {
            kept.lock().unwrap().push(line);
        }
    });
    (sink, lines)
}

fn request(lab: &Lab, build: Value) -> BuildRequest {
    let mut build: shiplap_compose::model::Build = serde_json::from_value(build).unwrap();
    build.context.get_or_insert_with(|| lab.path().to_string_lossy().into_owned());
    BuildRequest { tag: format!("{}:built", lab.name), build, platform: None }
}

/// Removes an image when the test ends.
struct Built {
    engine: DockerEngine,
    names: Vec<String>,
}

impl Drop for Built {
    fn drop(&mut self) {
        let (engine, names) = (self.engine.clone(), std::mem::take(&mut self.names));
        let cleaner = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                for name in names {
                    engine.remove_image(&name).await.unwrap();
                }
            });
        });
        _ = cleaner.join();
    }
}

#[tokio::test]
async fn an_image_is_built_named_and_removed() {
    let Some(engine) = engine().await else { return };
    let lab = Lab::new("build");
    lab.write("sub/app.Dockerfile", "ARG BASE=none\nFROM ${BASE} AS first\nARG WORD\nCOPY . /all\n\
        RUN echo word $WORD && ls -a /all && cat /all/target/keep\nFROM first AS second\nRUN false\n");
    lab.write(".dockerignore", "target\n!target/keep\n**/*.log\n");
    lab.write("target/keep", "kept file\n");
    lab.write("target/dropped", "");
    lab.write("sub/a.log", "");
    let also = format!("{}:also", lab.name);
    let build = json!({
        "dockerfile": "sub/app.Dockerfile", "target": "first", "network": "none", "no_cache": true,
        "args": {"BASE": "busybox:latest", "WORD": "hunter2"}, "labels": {"made": "here"},
        "tags": [also], "extra_hosts": ["some=10.0.0.1"], "shm_size": "1048576",
        "ulimits": {"nofile": 1000},
    });
    let request = request(&lab, build);
    let (progress, lines) = sink();
    let info = engine.build(&request, progress).await.unwrap();
    let names = vec![also.clone(), request.tag.clone(), format!("{}:third", lab.name)];
    let _built = Built { engine: engine.clone(), names: names.clone() };
    let lines = lines.lock().unwrap().clone();
    assert!(lines.iter().any(|line| line == "word hunter2"), "{lines:?}");
    assert!(lines.iter().any(|line| line == "kept file"), "{lines:?}");
    assert_eq!(info.labels["made"], "here");
    assert!(info.tags.contains(&also) && info.tags.contains(&request.tag));
    engine.tag(&info.id, &names[2]).await.unwrap();
    assert_eq!(engine.image(&names[2]).await.unwrap().unwrap().id, info.id);
    assert!(engine.images().await.unwrap().iter().any(|image| image.id == info.id));

    let mut failing = request.clone();
    failing.build.target = Some("second".into());
    let error = engine.build(&failing, sink().0).await.unwrap_err();
    assert_eq!(error.kind, EngineErrorKind::Invalid);
    assert!(error.message.contains("RUN false"), "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[tokio::test]
async fn a_build_that_needs_buildkit_says_what_to_type() {
    let Some(engine) = engine().await else { return };
    let lab = Lab::new("kit");
    let inline = "FROM busybox:latest\nRUN --mount=type=cache,target=/x true\n";
    let request = request(&lab, json!({"dockerfile_inline": inline}));
    let error = engine.build(&request, sink().0).await.unwrap_err();
    let help = error.help.unwrap();
    assert!(help.contains("docker buildx build") && help.contains(&request.tag), "{help}");
    let mut with_secrets = request.clone();
    with_secrets.build = serde_json::from_value(json!({"ssh": ["default"]})).unwrap();
    let error = engine.build(&with_secrets, sink().0).await.unwrap_err();
    assert!(error.message.contains("ssh") && error.help.is_some());
}

#[tokio::test]
async fn an_absent_image_is_nothing_and_an_absent_registry_unreachable() {
    let Some(engine) = engine().await else { return };
    let absent = "127.0.0.1:9/absent:1";
    assert_eq!(engine.image(absent).await.unwrap(), None);
    engine.remove_image(absent).await.unwrap();
    let answer = engine.registry_digest(absent).await.unwrap();
    assert!(matches!(answer, RegistryAnswer::Unreachable(_)), "{answer:?}");
    assert!(engine.pull(absent, None, sink().0).await.is_err());
}

const DEFAULTS: &str = "FROM busybox:latest\nENV FROM_IMAGE=1 SHARED=image\nLABEL of-image=yes\n\
    WORKDIR /srv\nUSER 5\nVOLUME /var/lib/kept\nEXPOSE 1234\nSTOPSIGNAL SIGUSR1\n\
    HEALTHCHECK --interval=7s --timeout=3s CMD true\nENTRYPOINT [\"env\"]\nCMD [\"sleep\", \"600\"]\n";

/// What an image brings is no fact, whether the file repeats it or not, or changes it.
#[tokio::test]
async fn what_an_image_brings_is_not_told_apart_from_its_repetition() {
    let (Some(engine), Some(peer)) = (engine().await, compose_peer()) else { return };
    // Before the project: containers have to go before their image does.
    let mut built = Built { engine: engine.clone(), names: Vec::new() };
    let lab = Lab::new("brings");
    let request = request(&lab, json!({"dockerfile_inline": DEFAULTS}));
    engine.build(&request, sink().0).await.unwrap();
    built.names.push(request.tag.clone());
    let services = json!({
        "silent": {},
        "repeats": {"environment": {"SHARED": "image"}, "labels": {"of-image": "yes"},
            "working_dir": "/srv", "user": "5", "stop_signal": "SIGUSR1",
            "command": ["sleep", "600"], "healthcheck": {"interval": "7s"}},
        "changes": {"environment": {"SHARED": "file", "FROM_IMAGE": null},
            "labels": {"of-image": "no"}, "working_dir": "/", "user": "6",
            "stop_signal": "SIGTERM", "command": ["true"], "healthcheck": {"interval": "8s"}},
        "entry": {"entrypoint": ["nice"]},
        "same-entry": {"entrypoint": ["env"]},
        "cleared": {"entrypoint": [], "healthcheck": {"disable": true}},
        "takes-over": {"volumes": ["kept:/var/lib/kept", "/another"]},
    });
    let mut file = json!({"services": services, "volumes": {"kept": {}}});
    for service in file["services"].as_object_mut().unwrap().values_mut() {
        service["image"] = request.tag.as_str().into();
    }
    lab.write("compose.yaml", &file.to_string());
    lab.compose(&peer, &["create"]);
    // The second time Compose carries anonymous volumes over by name.
    lab.compose(&peer, &["create", "--force-recreate"]);
    let desired = lab.desired(&engine, &lab.canonical(&peer)).await;
    let observed = engine.observe(&lab.name, Some(&desired.compose)).await.unwrap();
    assert_eq!(observed.containers.len(), 7);
    for container in &observed.containers {
        let facts = engine.facts(&desired, &desired.services[&container.service]);
        let differing = facts.differing(&container.facts);
        assert_eq!(differing, Vec::<String>::new(), "{}", container.service);
    }
    let named = |service: &str| {
        let facts = engine.facts(&desired, &desired.services[service]);
        facts.iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>().join(" ")
    };
    let network = format!("networks.{}_default", lab.name);
    assert_eq!(named("silent"), network);
    assert_eq!(named("repeats"), network);
    assert_eq!(
        named("changes"),
        format!(
            "command environment.FROM_IMAGE environment.SHARED healthcheck label.of-image \
             {network} stop_signal user working_dir"
        )
    );
    assert_eq!(named("entry"), format!("entrypoint {network}"));
    let taken = &observed.containers.iter().find(|c| c.service == "silent").unwrap();
    assert_eq!(taken.anonymous_volumes.len(), 1);
}

/// Needs a registry on this machine: `SHIPLAP_TEST_REGISTRY=127.0.0.1:5000`.
#[tokio::test]
async fn an_image_is_pulled_by_digest() {
    let Some(engine) = engine().await else { return };
    let Ok(registry) = std::env::var("SHIPLAP_TEST_REGISTRY") else {
        return crate::support::skip::<()>("SHIPLAP_TEST_REGISTRY names no registry").unwrap_or(());
    };
    let name = format!("{registry}/slt-pull-{}", std::process::id());
    let tagged = format!("{name}:v1");
    let missing = engine.registry_digest(&tagged).await.unwrap();
    assert!(matches!(missing, RegistryAnswer::Missing(_)), "{missing:?}");
    let error = engine.pull(&tagged, None, sink().0).await.unwrap_err();
    assert_eq!(error.kind, EngineErrorKind::NotFound, "{error}");
    let id = engine.image("busybox:latest").await.unwrap().unwrap().id;
    engine.tag(&id, &tagged).await.unwrap();
    let pushed = std::process::Command::new("docker").args(["push", "-q", &tagged]).output();
    assert!(pushed.unwrap().status.success());
    engine.remove_image(&tagged).await.unwrap();
    let RegistryAnswer::Digest(digest) = engine.registry_digest(&tagged).await.unwrap() else {
        panic!("the registry does not know what was pushed");
    };
    let by_digest = format!("{name}@{digest}");
    let _built = Built { engine: engine.clone(), names: vec![by_digest.clone()] };
    let info = engine.pull(&by_digest, None, sink().0).await.unwrap();
    assert_eq!(info.id, id);
    assert!(info.repo_digests.contains(&by_digest));
}
