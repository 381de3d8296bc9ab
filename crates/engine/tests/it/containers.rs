//! The life of a container.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::json;
use shiplap_engine::{LogOptions, TerminalExec};
use shiplap_model::{
    ContainerState, Engine, EngineErrorKind, EngineNetwork, EngineVolume, InjectedFile,
    PublishedPort, Secret,
};
use tokio::io::AsyncWriteExt;

use crate::support::{Lab, engine};

const SLEEPER: &str = "trap 'exit 3' TERM; echo out; echo err >&2; while :; do sleep 0.1; done";

fn network(lab: &Lab, key: &str, ipam: &str) -> EngineNetwork {
    let labels = [(shiplap_model::COMPOSE_PROJECT, lab.name.as_str())];
    EngineNetwork {
        name: format!("{}_{key}", lab.name),
        key: key.into(),
        spec: serde_json::from_str(ipam).unwrap(),
        labels: labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
    }
}

#[tokio::test]
async fn every_call_can_be_repeated() {
    let Some(engine) = engine().await else { return };
    let lab = Lab::new("life");
    let service = json!({"image": "busybox:latest", "command": ["sh", "-c", SLEEPER],
        "network_mode": "none"});
    let desired = lab.desired(&engine, &lab.project(&json!({"api": service}))).await;
    let replica = lab.replica("api");
    let id = engine.create(&desired, &replica).await.unwrap().id().to_owned();
    assert_eq!(engine.create(&desired, &replica).await.unwrap().id(), id);
    let state = async || engine.container(&replica.name).await.unwrap().unwrap().state;
    assert_eq!(state().await, ContainerState::Created);
    for _ in 0..2 {
        engine.start(&replica.name).await.unwrap();
    }
    assert_eq!(engine.create(&desired, &replica).await.unwrap().id(), id);
    for _ in 0..2 {
        engine.pause(&replica.name).await.unwrap();
    }
    assert_eq!(state().await, ContainerState::Paused);
    for _ in 0..2 {
        engine.unpause(&replica.name).await.unwrap();
    }
    assert_eq!(state().await, ContainerState::Running);
    let lines = engine.tail(&replica.name, 10).await.unwrap();
    assert_eq!(lines.len(), 2);
    let observed = engine.container(&id).await.unwrap().unwrap();
    assert_eq!(observed.deployment, Some(7));
    let wanted = engine.facts(&desired, &desired.services["api"]);
    assert_eq!(wanted.differing(&observed.facts), Vec::<String>::new());
    for _ in 0..2 {
        engine.stop(&replica.name, Some(Duration::from_secs(5))).await.unwrap();
    }
    assert_eq!(state().await, ContainerState::Exited(3));
    let other = format!("{}-renamed", lab.name);
    for _ in 0..2 {
        engine.rename(&replica.name, &other).await.unwrap();
    }
    engine.restart(&other, Some(Duration::from_secs(1))).await.unwrap();
    for _ in 0..2 {
        engine.remove(&other, shiplap_model::AnonymousVolumes::Remove).await.unwrap();
    }
    assert!(engine.container(&other).await.unwrap().is_none());
    let error = engine.start(&other).await.unwrap_err();
    assert_eq!(error.kind, EngineErrorKind::NotFound);
}

#[tokio::test]
async fn a_name_that_somebody_else_has_is_a_conflict() {
    let Some(engine) = engine().await else { return };
    let lab = Lab::new("name");
    let service = json!({"image": "busybox:latest", "network_mode": "none"});
    let desired = lab.desired(&engine, &lab.project(&json!({"api": service}))).await;
    let mut replica = lab.replica("api");
    engine.create(&desired, &replica).await.unwrap();
    replica.labels.insert(shiplap_model::DEPLOYMENT.into(), "8".into());
    let error = engine.create(&desired, &replica).await.unwrap_err();
    assert_eq!(error.kind, EngineErrorKind::Conflict);
    assert!(error.message.contains(&replica.name));
}

#[tokio::test]
async fn a_secret_does_not_appear_in_an_error() {
    let Some(engine) = engine().await else { return };
    let lab = Lab::new("leak");
    let service = json!({"image": "busybox:latest", "network_mode": "none",
        "environment": {"": "hunter2"}});
    let desired = lab.desired(&engine, &lab.project(&json!({"api": service}))).await;
    let error = engine.create(&desired, &lab.replica("api")).await.unwrap_err();
    assert_eq!(error.kind, EngineErrorKind::Invalid);
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
}

#[tokio::test]
async fn networks_volumes_and_files_are_there_at_the_start() {
    let Some(engine) = engine().await else { return };
    let lab = Lab::new("net");
    let net = lab.net();
    let pool = format!(r#"{{"ipam":{{"config":[{{"subnet":"{net}.0/24"}}]}},"internal":true}}"#);
    let (front, back) = (network(&lab, "front", "{}"), network(&lab, "back", &pool));
    let eight = (0..8).map(|_| engine.create_network(&front));
    for made in futures_util::future::join_all(eight).await {
        made.unwrap();
    }
    for network in [&front, &back] {
        engine.create_network(network).await.unwrap();
    }
    let volume = EngineVolume {
        name: format!("{}_data", lab.name),
        key: "data".into(),
        spec: serde_json::from_str("{}").unwrap(),
        labels: front.labels.clone(),
    };
    for _ in 0..2 {
        engine.create_volume(&volume).await.unwrap();
    }
    let project = json!({
        "name": lab.name,
        "services": {"api": {
            "image": "busybox:latest",
            "command": ["sh", "-c", "while :; do sleep 0.1; done"],
            "mac_address": "02:42:ac:11:00:99",
            "stop_grace_period": "0s",
            "networks": {"front": {"aliases": ["web"]},
                "back": {"ipv4_address": format!("{net}.9"), "priority": 5}},
            "volumes": [{"type": "volume", "source": "data", "target": "/data"},
                {"type": "volume", "target": "/kept"}],
            "ports": [{"target": 8000, "protocol": "tcp"}],
            "healthcheck": {"test": ["CMD-SHELL", "true"], "timeout": "2s"},
        }},
        "networks": {"front": {"name": front.name}, "back": {"name": back.name}},
        "volumes": {"data": {"name": volume.name}},
    });
    let mut desired = lab.desired(&engine, &project).await;
    let file = InjectedFile {
        target: "/run/secrets/token".into(),
        content: Secret::new(b"hunter2".to_vec()),
        uid: 7,
        gid: 8,
        mode: 0o440,
    };
    desired.services.get_mut("api").unwrap().files.push(file);
    let mut replica = lab.replica("api");
    replica.publish.push(PublishedPort {
        host_address: Some("127.0.0.1".parse().unwrap()),
        host_port: 0,
        container_port: 8000,
        protocol: "tcp".into(),
    });
    let kept = format!("{:064x}", u64::from(std::process::id()));
    replica.anonymous_volumes = BTreeMap::from([("/kept".to_owned(), kept.clone())]);
    let id = engine.create(&desired, &replica).await.unwrap().id().to_owned();
    engine.start(&id).await.unwrap();
    let run = async |command: &str| {
        let words = ["sh", "-c", command].map(str::to_owned);
        engine.exec(&id, &words, Duration::from_secs(20)).await.unwrap()
    };
    let seen = run("cat /run/secrets/token; stat -c ' %u %g %a' /run/secrets/token; exit 4").await;
    assert_eq!((seen.exit_code, seen.output.trim()), (4, "hunter2 7 8 440"));
    let seen =
        run("cat /sys/class/net/*/address; nslookup web 127.0.0.11 >/dev/null && echo named").await;
    assert!(seen.output.contains("02:42:ac:11:00:99"), "{}", seen.output);
    let health = engine.healthcheck(&id).await.unwrap().unwrap();
    assert_eq!(health.0, ["/bin/sh", "-c", "true"]);
    let observed = engine.observe(&lab.name, Some(&desired.compose)).await.unwrap();
    let container = &observed.containers[0];
    assert_eq!(container.networks[&back.name].unwrap().subnet(), format!("{net}.0/24"));
    assert_eq!(container.networks.len(), 2);
    assert_eq!(container.anonymous_volumes["/kept"], kept);
    assert_eq!(observed.networks[&back.name].subnets, [format!("{net}.0/24")]);
    assert!(observed.networks[&back.name].internal);
    assert!(observed.volumes.contains_key(&volume.name));
    assert_eq!(container.published.len(), 1);
    assert_ne!(container.published[0].host_port, 0);
    let others = engine.observe("nobody", None).await.unwrap();
    assert!(others.foreign_names.contains(&replica.name));
    assert!(others.foreign_ports.values().any(|name| *name == replica.name));
    engine.remove(&id, shiplap_model::AnonymousVolumes::Remove).await.unwrap();
    engine.remove_volume(&kept).await.unwrap();
    for _ in 0..2 {
        engine.remove_network(&front.name).await.unwrap();
        engine.remove_volume(&volume.name).await.unwrap();
    }
}

#[tokio::test]
async fn commands_and_logs_are_streams() {
    let Some(engine) = engine().await else { return };
    let lab = Lab::new("io");
    let service = json!({"image": "busybox:latest", "command": ["sh", "-c", SLEEPER],
        "network_mode": "none", "stop_grace_period": "0s"});
    let desired = lab.desired(&engine, &lab.project(&json!({"api": service}))).await;
    let id = engine.create(&desired, &lab.replica("api")).await.unwrap().id().to_owned();
    engine.start(&id).await.unwrap();
    let options = LogOptions { follow: true, ..Default::default() };
    let logs = engine.logs(&id, &options).await.unwrap();
    let first: Vec<_> = logs.take(2).map(Result::unwrap).collect().await;
    let text = |is_stderr| first.iter().find(|c| c.is_stderr == is_stderr).unwrap().bytes.clone();
    assert_eq!((&text(false)[..], &text(true)[..]), (&b"out\n"[..], &b"err\n"[..]));
    let exec = TerminalExec {
        command: ["sh", "-c", "read line; stty size; echo got $line; exit 5"]
            .map(str::to_owned)
            .into(),
        tty: true,
        stdin: true,
        ..Default::default()
    };
    let mut terminal = engine.exec_interactive(&id, &exec).await.unwrap();
    engine.resize(&terminal.id, 100, 30).await.unwrap();
    terminal.input.write_all(b"hello\n").await.unwrap();
    let mut seen = Vec::new();
    while let Some(chunk) = terminal.output.next().await {
        seen.extend_from_slice(&chunk.unwrap().bytes);
    }
    let seen = String::from_utf8(seen).unwrap();
    assert!(seen.contains("30 100") && seen.contains("got hello"), "{seen}");
    assert_eq!(engine.exit_code(&terminal.id).await.unwrap(), Some(5));
    let long = ["sleep", "20"].map(str::to_owned);
    let error = engine.exec(&id, &long, Duration::from_millis(200)).await.unwrap_err();
    assert_eq!(error.kind, EngineErrorKind::Timeout);
    engine.remove(&id, shiplap_model::AnonymousVolumes::Remove).await.unwrap();
}

#[tokio::test]
async fn looking_at_ten_containers_is_quick() {
    let Some(engine) = engine().await else { return };
    let lab = Lab::new("ten");
    let service = json!({"image": "busybox:latest", "network_mode": "none"});
    let services: serde_json::Map<_, _> =
        (0..10).map(|n| (format!("s{n}"), service.clone())).collect();
    let desired = lab.desired(&engine, &lab.project(&json!(services))).await;
    for name in desired.services.keys() {
        engine.create(&desired, &lab.replica(name)).await.unwrap();
    }
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let begun = Instant::now();
        let observed = engine.observe(&lab.name, Some(&desired.compose)).await.unwrap();
        assert_eq!(observed.containers.len(), 10);
        best = best.min(begun.elapsed());
    }
    eprintln!("ten containers in {best:?}");
    assert!(best < Duration::from_millis(500), "{best:?}");
}

#[tokio::test]
async fn the_output_of_a_terminal_is_one_stream() {
    let Some(engine) = engine().await else { return };
    let lab = Lab::new("tty");
    let service = json!({"image": "busybox:latest", "tty": true, "network_mode": "none",
        "command": ["sh", "-c", "echo out; echo err >&2; printf end"]});
    let desired = lab.desired(&engine, &lab.project(&json!({"api": service}))).await;
    let id = engine.create(&desired, &lab.replica("api")).await.unwrap().id().to_owned();
    engine.start(&id).await.unwrap();
    while engine.container(&id).await.unwrap().unwrap().state.is_running() {
        tokio::task::yield_now().await;
    }
    assert_eq!(engine.tail(&id, 10).await.unwrap(), ["out", "err", "end"]);
}

#[tokio::test]
async fn a_service_without_its_peer_is_refused() {
    let Some(engine) = engine().await else { return };
    let lab = Lab::new("peer");
    let services = json!({
        "db": {"image": "busybox:latest", "network_mode": "none"},
        "side": {"image": "busybox:latest", "network_mode": "service:db", "pid": "service:db"},
    });
    let desired = lab.desired(&engine, &lab.project(&services)).await;
    let mut side = lab.replica("side");
    let error = engine.create(&desired, &side).await.unwrap_err();
    assert_eq!(error.kind, EngineErrorKind::Invalid);
    assert!(error.message.contains("`db`"), "{error}");
    let db = lab.replica("db");
    engine.create(&desired, &db).await.unwrap();
    side.peers.insert("db".into(), db.name.clone());
    let id = engine.create(&desired, &side).await.unwrap().id().to_owned();
    let observed = engine.container(&id).await.unwrap().unwrap();
    let wanted = engine.facts(&desired, &desired.services["side"]);
    assert_eq!(wanted.differing(&observed.facts), Vec::<String>::new());
    assert_eq!(wanted.get("network_mode"), Some(&json!("service:db")));
}
