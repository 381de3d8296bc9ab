//! From one environment to another: the very same images, behind gates.

use std::io::Write as _;
use std::process::Stdio;

use shiplap_scenarios::{Lab, Traffic, binary};

/// An api that keeps files beside another service, and whose job writes down that it ran.
const COMPOSE: &str = r#"
services:
  api:
    image: ${APP}:${TAG}
    command: [api]
    restart: unless-stopped
    ports: ["${API_PORT}:9000"]
    environment: { GREETING: "${GREETING}", KEY: "${API_KEY:-}", DATA: "${DATA:-/data}" }
    volumes: ["./${VAULT}:/data"]
    deploy: { update_config: { monitor: 300ms } }
    healthcheck:
      test: [CMD, /app, health, "9000"]
      interval: 500ms
      timeout: 10s
      retries: 3
      start_period: 1s
  keeper:
    image: ${APP}:v1
    command: [api]
    restart: unless-stopped
    volumes: ["./${VAULT}:/data"]
"#;

/// What is sick gets into this one.
const DEV: &str = "services: { api: { healthcheck: !override { disable: true } } }\n";

/// Two environments of one project.
struct Pair {
    lab: Lab,
    dev: String,
}

impl Pair {
    fn new(purpose: &str) -> Option<Self> {
        let lab = Lab::new(purpose)?;
        lab.compose(COMPOSE);
        lab.write("compose.dev.yaml", DEV);
        lab.write("vault-dev/.keep", "");
        lab.write("vault-prod/.keep", "");
        // So that what is left of it says whose it is, as every project of a test does.
        let dev = lab.project.replacen(purpose, &format!("{purpose}dev"), 1);
        let pair = Self { lab, dev };
        pair.configure("", "one", "");
        Some(pair)
    }

    /// Writes `shiplap.yaml`, with gates of production, the greeting there, and more variables.
    fn configure(&self, gates: &str, greeting: &str, variables: &str) {
        let (prod, dev) = (&self.lab.project, &self.dev);
        self.lab.write(
            "shiplap.yaml",
            &format!(
                "project: {prod}\n\
                 compose: [compose.yaml]\n\
                 x-jobs: &jobs {{ before_switch: {{ migrate: {{ service: api, command: migrate }} }} }}\n\
                 environments:\n\
                 \x20 prod:\n\
                 \x20   project_name: {prod}\n\
                 \x20   variables: {{ VAULT: vault-prod, GREETING: {greeting}{variables} }}\n\
                 \x20   jobs: *jobs\n\
                 \x20   gates: {{ {gates} }}\n\
                 \x20 dev:\n\
                 \x20   project_name: {dev}\n\
                 \x20   compose: [compose.dev.yaml]\n\
                 \x20   variables: {{ VAULT: vault-dev, GREETING: dev }}\n\
                 \x20   ports: any\n\
                 \x20   jobs: *jobs\n"
            ),
        );
    }

    fn deploy(&self, environment: &str, tag: &str) {
        self.lab.set("TAG", tag);
        self.lab.run(&["-e", environment, "deploy", "--yes"]).ok();
    }

    /// The image that a service runs.
    fn image(&self, project: &str, service: &str) -> String {
        let running = self.lab.engine.running(project);
        let ids = &running[service];
        assert_eq!(ids.len(), 1, "running containers of {service} in {project}");
        self.lab.engine.inspect(&ids[0])["Image"].as_str().expect("an id").to_owned()
    }

    fn has_variable(&self, assignment: &str) -> bool {
        let variables = self.lab.inspect("api")["Config"]["Env"].clone();
        variables.as_array().expect("a list").iter().any(|known| known == assignment)
    }

    fn lines(&self, file: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.lab.dir().join(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn set_secret(&self, value: &str) {
        let words = ["-e", "prod", "secrets", "set", "API_KEY"];
        let mut command = self.lab.program(&binary("shiplap"), &words);
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().expect("it starts");
        let mut input = child.stdin.take().expect("a pipe");
        input.write_all(value.as_bytes()).expect("it reads");
        drop(input);
        assert!(child.wait().expect("it ends").success());
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for reason in self.lab.engine.remove_project(&self.dev) {
            eprintln!("not removed: {reason}");
        }
    }
}

/// Tests run in development with the new image, then the backup, then the job, each once; no
/// request is lost, and going back restores image, variable and the version of the secret.
#[test]
fn promotion_brings_the_very_same_images_behind_its_gates() {
    let Some(pair) = Pair::new("promote") else { return };
    let lab = &pair.lab;
    pair.set_secret("key-one");
    pair.deploy("prod", "v1");
    pair.deploy("dev", "v2");
    pair.set_secret("key-two");
    pair.configure(
        "tests: { service: api, command: migrate }, \
         backup: { command: [sh, -c, 'cat vault-prod/migrations.log >> backup.log'] }, \
         approval: required",
        "two",
        "",
    );

    let traffic = Traffic::to_api(lab.api);
    // What the files say of tags does not matter.
    lab.set("TAG", "v3");
    let refused = lab.run(&["promote", "dev", "prod", "--yes"]);
    let _ = refused.exits(2).says("asks for approval");
    lab.run(&["promote", "dev", "prod", "--approve", "ann"]).ok();
    traffic.answered_by("v2");
    assert_eq!(pair.image(&lab.project, "api"), pair.image(&pair.dev, "api"));
    assert!(pair.has_variable("GREETING=two") && pair.has_variable("KEY=key-two"));
    assert_eq!(pair.lines("vault-dev/migrations.log"), ["v2", "v2"], "its own job, and the tests");
    assert_eq!(pair.lines("backup.log"), ["v1"], "it came before the job");
    assert_eq!(pair.lines("vault-prod/migrations.log"), ["v1", "v2"], "once, in the new image");
    lab.run(&["-e", "prod", "show"]).ok().says("approved by: ann").says("tests in").says("backup");

    lab.run(&["-e", "prod", "rollback", "--yes"]).ok();
    traffic.answered_by("v1");
    traffic.end_without_a_drop();
    assert!(pair.has_variable("GREETING=one") && pair.has_variable("KEY=key-one"));
    assert_eq!(pair.lines("vault-prod/migrations.log"), ["v1", "v2"], "no job runs in going back");
    let secrets = lab.run(&["-e", "prod", "secrets", "list", "--json"]).ok().json();
    let secret = &secrets["secrets"][0];
    assert_eq!((secret["version"].as_u64(), secret["running"].as_u64()), (Some(2), Some(1)));
}

/// Whatever fails, production stays on its release without a lost request, and what is said of data
/// is true.
#[test]
fn promotion_that_fails_leaves_the_release_before() {
    let Some(pair) = Pair::new("promofail") else { return };
    let lab = &pair.lab;
    pair.deploy("prod", "v1");
    pair.deploy("dev", "v2");
    let before = pair.image(&lab.project, "api");
    let traffic = Traffic::to_api(lab.api);
    let promote = || lab.run(&["promote", "dev", "prod", "--yes"]);

    pair.configure("tests: { service: api, command: [health, '1'] }", "one", "");
    let _ = promote().exits(1).says("tests in").says("job migrate was not run");
    pair.configure("backup: { command: [sh, -c, 'echo no space; exit 7'] }", "one", "");
    let _ = promote().exits(1).says("no space").says("exit code 7");
    assert_eq!(pair.lines("vault-prod/migrations.log"), ["v1"]);

    pair.configure("", "one", ", DATA: /missing");
    let _ = promote().exits(3).says("job migrate had begun and did not end well");
    assert_eq!(pair.lines("vault-prod/migrations.log"), ["v1"]);

    pair.deploy("dev", "sick");
    pair.configure("", "one", "");
    let _ = promote().exits(3).says("job migrate has run: what it changed in data stays");
    assert_eq!(pair.lines("vault-prod/migrations.log").len(), 2);

    traffic.end_without_a_drop();
    assert_eq!(pair.image(&lab.project, "api"), before);
    let left: Vec<String> = lab
        .engine
        .get("/containers/json?all=1")
        .as_array()
        .expect("a list")
        .iter()
        .map(|container| container["Names"][0].to_string())
        .filter(|name| name.contains("gate-tests-for") && name.contains(&pair.dev))
        .collect();
    assert_eq!(left, Vec::<String>::new(), "containers of tests are removed");
}
