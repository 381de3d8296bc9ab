//! Secrets of the store: in the containers and nowhere else.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use shiplap_scenarios::{Lab, binary};

/// A variable's value, and a file's; the files of the project hold neither.
const VARIABLE: &str = "hush-variable-0b5e55ed";
const FILE: &str = "hush-file-5ca1ab1e";

const PROJECT: &str = r#"
services:
  api:
    image: ${APP}:${TAG}
    command: [api]
    ports: ["${API_PORT}:9000"]
    environment: {TOKEN: "${TOKEN:?}", URL: "postgres://u:${TOKEN}@db/x"}
    secrets: [key]
    configs: [{source: settings, target: /settings}]
    deploy: {update_config: {monitor: 100ms}}
secrets:
  key: {external: true, name: KEY_FILE}
configs:
  settings: {content: "token=${TOKEN}"}
"#;

/// Gives a secret on standard input.
fn set(lab: &Lab, name: &str, value: &str) {
    lab.write("given", &format!("{value}\n"));
    let input = std::fs::File::open(lab.dir().join("given")).unwrap();
    let mut command = lab.program(&binary("shiplap"), &["secrets", "set", name]);
    let out = command.stdin(input).output().unwrap();
    std::fs::remove_file(lab.dir().join("given")).unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{said}");
}

/// The content of a file in the only container of the service.
fn file(lab: &Lab, path: &str) -> String {
    let path = format!("/containers/{}/archive?path={path}", lab.only("api"));
    lab.engine.get_text(&path)
}

fn variables(lab: &Lab) -> String {
    lab.inspect("api")["Config"]["Env"].to_string()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let below = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    paths.flat_map(below).collect()
}

fn holds_a_value(bytes: &[u8]) -> bool {
    [VARIABLE, FILE]
        .iter()
        .any(|value| bytes.windows(value.len()).any(|window| window == value.as_bytes()))
}

/// Looks at the arguments of all processes until told to stop; says what it found.
fn watch_arguments(stop: &Arc<AtomicBool>) -> JoinHandle<Vec<String>> {
    let stop = stop.clone();
    std::thread::spawn(move || {
        let mut found = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            for entry in std::fs::read_dir("/proc").unwrap().flatten() {
                let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                if holds_a_value(&arguments) {
                    found.push(String::from_utf8_lossy(&arguments).into_owned());
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        found
    })
}

#[test]
fn a_stored_value_is_in_the_container_and_nowhere_else() {
    let Some(lab) = Lab::new("secstore") else { return };
    lab.compose(PROJECT);
    let hides = |words: &[&str], code: i32| {
        let _ = lab.run(words).exits(code).hides(VARIABLE).hides(FILE);
    };
    // Without them it is refused, with what to type.
    lab.run(&["plan"]).exits(1).says("TOKEN");
    set(&lab, "TOKEN", VARIABLE);
    lab.run(&["plan"]).exits(1).says("shiplap secrets set KEY_FILE");
    set(&lab, "KEY_FILE", FILE);

    let stop = Arc::default();
    let watcher = watch_arguments(&stop);
    hides(&["plan", "--steps"], 0);
    hides(&["plan", "--json"], 0);
    hides(&["deploy", "--yes"], 0);
    lab.set("TAG", "v2");
    hides(&["deploy", "--yes", "--json"], 0);
    // It is there where it belongs.
    assert!(variables(&lab).contains(VARIABLE));
    assert!(file(&lab, "/run/secrets/key").contains(FILE));
    assert!(file(&lab, "/settings").contains(VARIABLE));
    // Failures say nothing of it: no such image, one that crashes, one that never gets well.
    for (tag, code) in [("no-such-tag", 1), ("crash", 3)] {
        lab.set("TAG", tag);
        hides(&["deploy", "--yes"], code);
    }
    // Nor do files that are wrong because of it.
    lab.compose(&PROJECT.replace("${API_PORT}", "${TOKEN}"));
    hides(&["deploy", "--yes"], 1);
    hides(&["check"], 1);
    lab.compose(&PROJECT.replace("${TAG}", "${TOKEN}"));
    hides(&["deploy", "--yes"], 1);
    lab.run(&["plan"]).exits(1).says("secrets/in-the-open");
    lab.compose(PROJECT);
    lab.set("TAG", "v2");
    for words in [
        &["show"][..],
        &["show", "1"],
        &["show", "1", "--json"],
        &["history"],
        &["history", "--json"],
        &["status"],
        &["status", "--json"],
        &["config"],
        &["config", "--json"],
        &["config", "--environment"],
        &["check"],
        &["secrets", "list"],
        &["secrets", "list", "--versions", "--json"],
        &["edge", "status", "--json"],
    ] {
        hides(words, 0);
    }
    stop.store(true, Ordering::Relaxed);
    assert_eq!(watcher.join().unwrap(), Vec::<String>::new(), "arguments of processes");
    for container in lab.engine.containers(&lab.project) {
        assert!(!holds_a_value(container["Labels"].to_string().as_bytes()));
    }
    let kept = [files(&lab.state()), files(&lab.edge_dir())].concat();
    let named = |end: &str| kept.iter().any(|path| path.to_string_lossy().ends_with(end));
    assert!(named("ledger.db") && named("TOKEN/1.age"), "{kept:?}");
    for path in kept {
        let content = std::fs::read(&path).unwrap_or_default();
        assert!(!holds_a_value(&content), "{}", path.display());
    }
}

#[test]
fn a_rollback_restores_versions_and_the_list_tells_which_runs() {
    let Some(lab) = Lab::new("secback") else { return };
    lab.compose(PROJECT);
    set(&lab, "TOKEN", VARIABLE);
    set(&lab, "KEY_FILE", "one");
    lab.deploy("v1").ok();
    set(&lab, "KEY_FILE", "two");
    lab.run(&["secrets", "rotate", "TOKEN"]).ok();
    lab.run(&["secrets", "list"]).ok().says("version 1 runs: not deployed yet");
    lab.run(&["plan"]).ok().says("TOKEN changed");
    lab.deploy("v1").ok();
    assert!(file(&lab, "/run/secrets/key").contains("two"));
    lab.run(&["show"]).ok().says("secrets, by version: KEY_FILE 2, TOKEN 2");
    lab.run(&["secrets", "list"]).ok().says("runs");

    // Taken out of use, or even with the store away: a rollback needs neither.
    lab.run(&["secrets", "remove", "KEY_FILE", "--yes"]).ok();
    lab.run(&["rollback", "--yes", "-p", &lab.project]).ok();
    assert!(variables(&lab).contains(VARIABLE));
    assert!(file(&lab, "/run/secrets/key").contains("one"));
    let shown = lab.newest().unwrap();
    assert_eq!(shown["secrets"], serde_json::json!({"KEY_FILE": 1, "TOKEN": 1}));
    let list = lab.run(&["secrets", "list", "--json"]).ok().json();
    assert_eq!(list["secrets"][0]["name"], "TOKEN");
    assert_eq!(list["secrets"][0]["version"], 2);
    assert_eq!(list["secrets"][0]["running"], 1);
}

#[test]
fn values_come_in_by_input_and_files_and_go_out_to_pipes() {
    let Some(lab) = Lab::new("seccli") else { return };
    lab.compose(PROJECT);
    // Another one than those that are looked for among the arguments of processes.
    let wrong = "hush-argument-d15ea5e";
    let refused = lab.run(&["secrets", "set", "TOKEN", wrong]).exits(2);
    let _ = refused.says("a value is never an argument").hides(wrong);
    let refused = lab.run(&["secrets", "set", &format!("TOKEN={wrong}")]).exits(2);
    let _ = refused.says("a secret's name").hides(wrong);
    set(&lab, "TOKEN", VARIABLE);
    assert_eq!(lab.run(&["secrets", "get", "TOKEN"]).ok().stdout, VARIABLE);
    lab.write("bytes", "line\n");
    lab.run(&["secrets", "set", "TOKEN", "--from-file", "bytes"])
        .ok()
        .says("TOKEN is now version 2");
    assert_eq!(lab.run(&["secrets", "get", "TOKEN"]).ok().stdout, "line\n");
    assert_eq!(lab.run(&["secrets", "get", "TOKEN", "--version", "1"]).ok().stdout, VARIABLE);
    let _ = lab.run(&["secrets", "set", "TOKEN", "--file", "bytes"]).exits(2).says("--from-file");
    lab.run(&["secrets", "rotate", "TOKEN", "--length", "40"]).ok();
    assert_eq!(lab.run(&["secrets", "get", "TOKEN"]).ok().stdout.len(), 40);

    lab.write("old.env", &format!("A='{FILE}'\nB=two\nEMPTY=\nCOMPOSE_FILE=x\nC=three\n"));
    let only = lab.run(&["secrets", "import", "old.env", "--only", "B"]);
    only.says("B is now version 1").hides("three").ok();
    let all = lab.run(&["secrets", "import", "old.env"]);
    let all = all.says("A is now version 1").says("B is version 1, as before");
    let all = all.says("`EMPTY` was not taken").says("`COMPOSE_FILE` was not taken");
    all.says("old.env still holds").hides(FILE).ok();
    assert_eq!(lab.run(&["secrets", "get", "A"]).ok().stdout, FILE);
    lab.run(&["secrets", "remove", "A", "--yes"]).ok();
    lab.run(&["secrets", "get", "A"]).exits(1).says("has no secret `A`");
    lab.run(&["secrets", "get", "A", "--version", "1"]).ok();
}

#[test]
fn a_file_made_for_coolify_is_deployed_as_it_is() {
    let Some(lab) = Lab::new("seccoolify") else { return };
    lab.compose(
        r#"
services:
  api:
    image: ${APP}:${TAG}
    command: [api]
    ports: ["${API_PORT}:9000"]
    exclude_from_hc: true
    environment:
      - SERVICE_FQDN_API_9000
      - PUBLIC=${SERVICE_URL_API}
      - PASSWORD=${SERVICE_PASSWORD_API}
    deploy: {update_config: {monitor: 100ms}}
"#,
    );
    lab.set("TAG", "v1");
    lab.run(&["--tolerant", "plan"]).ok();
    lab.run(&["secrets", "list"]).ok().says("has no secrets yet");
    lab.run(&["--tolerant", "deploy", "--yes"]).ok().says("SERVICE_PASSWORD_API");
    let password = lab.run(&["secrets", "get", "SERVICE_PASSWORD_API"]).ok().stdout;
    assert_eq!(password.len(), 32);
    assert!(variables(&lab).contains(&format!("PASSWORD={password}")));
    let host = format!("api.{}-default.localhost", lab.project);
    assert!(variables(&lab).contains(&format!("SERVICE_FQDN_API_9000={host}")));
    assert!(variables(&lab).contains(&format!("PUBLIC=http://{host}")));
    let before = lab.only("api");
    lab.run(&["--tolerant", "deploy", "--yes"]).ok();
    assert_eq!(lab.only("api"), before, "nothing is generated twice");
}
