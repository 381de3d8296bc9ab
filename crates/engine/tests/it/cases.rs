//! Many real files, where a folder of them is at hand: `SHIPLAP_COMPOSE_CASES` names one that
//! holds `*/expected.json`, the canonical form of each.

use serde_json::{Value, json};
use shiplap_model::Engine;

use crate::support::{IMAGE, Lab, compose_peer, engine, skip};

/// How many files are looked at, evenly spread.
const DEFAULT_SAMPLE: usize = 60;

/// Makes a real project harmless here: our image, our names, nothing of other machines.
fn tamed(mut project: Value, lab: &Lab) -> Value {
    project["name"] = lab.name.as_str().into();
    for service in objects(&mut project["services"]) {
        for absent in [
            "build",
            "platform",
            "container_name",
            "env_file",
            "provider",
            "models",
            "runtime",
            "gpus",
            "isolation",
            "external_links",
            "credential_spec",
            "pull_policy",
        ] {
            service.remove(absent);
        }
        service.insert("image".into(), IMAGE.into());
        if let Some(deploy) = service.get_mut("deploy").and_then(Value::as_object_mut) {
            deploy.remove("replicas");
            let resources = deploy.get_mut("resources").and_then(|r| r.get_mut("reservations"));
            if let Some(reserved) = resources.and_then(Value::as_object_mut) {
                reserved.remove("devices");
            }
        }
        service.remove("scale");
        for mount in service.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten()
        {
            if mount["type"] == "bind" {
                mount["source"] = json!(format!("{}/bind", lab.path().display()));
            }
        }
    }
    for kind in ["networks", "volumes"] {
        let names: Vec<String> =
            project[kind].as_object().into_iter().flatten().map(|(k, _)| k.clone()).collect();
        for name in names {
            let object = &mut project[kind][&name];
            let Some(object) = object.as_object_mut() else { continue };
            object.retain(|key, _| key == "labels");
            object.insert("name".into(), json!(format!("{}_{name}", lab.name)));
        }
    }
    for kind in ["secrets", "configs"] {
        for object in objects(&mut project[kind]) {
            object.retain(|key, _| key == "name");
            object.insert("file".into(), json!(format!("{}/secret", lab.path().display())));
        }
    }
    // Addresses need the subnets that were just taken away.
    for service in objects(&mut project["services"]) {
        for attachment in service.get_mut("networks").into_iter().flat_map(objects) {
            attachment.retain(|key, _| matches!(key.as_str(), "aliases" | "priority"));
        }
    }
    // Writing to what is absent leaves a null behind.
    project.as_object_mut().expect("a project").retain(|_, value| !value.is_null());
    project
}

fn objects(value: &mut Value) -> impl Iterator<Item = &mut serde_json::Map<String, Value>> {
    value.as_object_mut().into_iter().flatten().filter_map(|(_, value)| value.as_object_mut())
}

#[tokio::test]
async fn real_files_give_the_same_facts_as_compose_containers() {
    let (Some(engine), Some(peer)) = (engine().await, compose_peer()) else { return };
    let Ok(folder) = std::env::var("SHIPLAP_COMPOSE_CASES") else {
        return skip::<()>("SHIPLAP_COMPOSE_CASES names no folder").unwrap_or(());
    };
    let sample = std::env::var("SHIPLAP_COMPOSE_SAMPLE").ok().and_then(|n| n.parse().ok());
    let mut cases: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().join("expected.json"))
        .filter(|path| path.exists())
        .collect();
    cases.sort();
    let step = cases.len().div_ceil(sample.unwrap_or(DEFAULT_SAMPLE)).max(1);
    let (mut compared, mut wrong) = (0, Vec::new());
    for case in cases.iter().step_by(step) {
        let title = case.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
        let Some(project) = canonical(case) else { continue };
        let lab = Lab::new("case");
        lab.write("secret", "x");
        lab.write("bind/x", "x");
        let project = tamed(project, &lab);
        lab.write("compose.yaml", &project.to_string().replace('$', "$$"));
        if let Err(reason) = lab.try_compose(&peer, &["create"]) {
            eprintln!("{title}: not comparable: {}", reason.lines().last().unwrap_or_default());
            continue;
        }
        let desired = lab.desired(&engine, &lab.canonical(&peer)).await;
        let observed = engine.observe(&lab.name, Some(&desired.compose)).await.unwrap();
        for container in &observed.containers {
            let facts = engine.facts(&desired, &desired.services[&container.service]);
            compared += 1;
            for name in facts.differing(&container.facts) {
                let (wanted, there) = (facts.get(&name), container.facts.get(&name));
                let service = &container.service;
                wrong.push(format!("{title} {service} {name}: {wanted:?} wanted, {there:?} there"));
            }
        }
    }
    eprintln!("{compared} containers compared");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Canonical JSON writes `$` as `$$`.
fn canonical(path: &std::path::Path) -> Option<Value> {
    let text = std::fs::read_to_string(path).ok()?;
    let project: Value = serde_json::from_str(&text.replace("$$", "$")).ok()?;
    project["services"].is_object().then_some(project)
}
