//! A real engine keeps what the trait promises.

use std::sync::Arc;

use serde_json::json;
use shiplap_model::{COMPOSE_PROJECT, EngineNetwork, EngineVolume};
use shiplap_testkit::contract::engine::Ground;

use crate::support::{IMAGE, Lab, engine};

const SLEEPER: &str = "trap 'exit 0' TERM; while :; do sleep 0.1; done";

async fn ground(_: &str) -> Option<Ground> {
    let engine = engine().await?;
    let lab = Lab::new("contract");
    let command = ["sh", "-c", SLEEPER];
    let api = json!({"image": IMAGE, "command": command, "network_mode": "none"});
    let linked = json!({"image": IMAGE, "command": command, "networks": {"lan": null}});
    let name = format!("{}_lan", lab.name);
    // A range of its own: the engine's own pools are few, and others need them.
    let lan =
        json!({"name": name, "ipam": {"config": [{"subnet": format!("{}.0/29", lab.net())}]}});
    let mut project = lab.project(&json!({"api": api, "linked": linked}));
    project["networks"] = json!({"lan": lan});
    let desired = lab.desired(&engine, &project).await;
    let labels = [(COMPOSE_PROJECT.to_owned(), lab.name.clone())];
    let network = EngineNetwork {
        name,
        key: "lan".into(),
        spec: desired.compose.networks["lan"].clone(),
        labels: labels.clone().into(),
    };
    let volume = EngineVolume {
        name: format!("{}_data", lab.name),
        key: "data".into(),
        spec: serde_json::from_value(json!({})).unwrap(),
        labels: labels.into(),
    };
    Some(Ground {
        engine: Arc::new(engine),
        api: lab.replica("api"),
        linked: lab.replica("linked"),
        desired,
        network,
        volume,
        keep: Box::new(lab),
    })
}

shiplap_testkit::engine_contract!(ground);
