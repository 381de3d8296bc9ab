//! The control server: what CI calls, what becomes of it, and what a crash of the server leaves.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use shiplap_scenarios::{Lab, Running, Traffic, until};

const COMPOSE: &str = r#"
services:
  api:
    image: ${APP}:${API_IMAGE_TAG:-v1}
    command: [api]
    restart: unless-stopped
    ports: ["${API_PORT}:9000"]
    environment: { BOOT_MS: "${BOOT_MS:-100}" }
    deploy: { update_config: { monitor: 300ms } }
    healthcheck: { test: [CMD, /app, health, "9000"], interval: 500ms, retries: 60 }
  other:
    image: ${APP}:v1
    command: [api]
    restart: unless-stopped
"#;

/// A server answers within this, once it listens.
const ANSWERS_WITHIN: Duration = Duration::from_secs(120);
/// It listens within this.
const STARTS_WITHIN: Duration = Duration::from_secs(30);

/// A project with a control server.
struct Served {
    lab: Lab,
    server: Option<Running>,
    port: u16,
}

/// An answer.
struct Answer {
    status: u16,
    headers: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The number of the order that a dispatch came to.
    fn order(&self) -> Option<u64> {
        let line = self.headers.lines().find_map(|line| line.strip_prefix("x-shiplap-order: "));
        line.and_then(|ids| ids.trim().parse().ok())
    }
}

impl Served {
    fn new(purpose: &str) -> Option<Self> {
        let lab = Lab::new(purpose)?;
        lab.compose(COMPOSE);
        lab.write(".env.versions", "# by CI\nAPI_IMAGE_TAG=v1\nLAST_DEPLOY_BY=nobody\n");
        lab.write(
            "shiplap.yaml",
            &format!(
                "project: shop\n\
                 compose: [compose.yaml]\n\
                 environments:\n\
                 \x20 prod: {{ project_name: {}, versions: .env.versions }}\n\
                 triggers:\n\
                 \x20 dispatch:\n\
                 \x20   - repository: shop/deploy\n\
                 \x20     workflow: core.yml\n\
                 \x20     inputs: {{ api_image_tag: prod/api, other_image_tag: prod/other }}\n",
                lab.project
            ),
        );
        Some(Self { lab, server: None, port: 0 })
    }

    /// Starts the server, where CI waits `settle` for more.
    fn serve(&mut self, settle: &str) {
        let words = ["serve", "--listen", "127.0.0.1:0", "--settle", settle];
        let server = self.lab.start(&words);
        self.port = until("the server listens", STARTS_WITHIN, || {
            let said = server.said();
            let rest = said.split("http://127.0.0.1:").nth(1)?;
            rest.split_whitespace().next()?.parse().ok()
        });
        self.server = Some(server);
    }

    fn server(&self) -> &Running {
        self.server.as_ref().expect("it was started")
    }

    fn token(&self, words: &[&str]) -> String {
        let words = [&["token", "create", "ci"], words].concat();
        self.lab.run(&words).ok().stdout.trim().to_owned()
    }

    fn ask(&self, method: &str, path: &str, token: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the server listens");
        stream.set_read_timeout(Some(ANSWERS_WITHIN)).expect("a socket takes it");
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\
             Authorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .expect("the server reads");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("the server answers");
        let (head, body) = text.split_once("\r\n\r\n").expect("an answer has a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status: {head}"));
        // Chunks have their sizes on lines of their own.
        let is_size = |line: &&str| line.bytes().all(|byte| byte.is_ascii_hexdigit());
        let body = match head.contains("transfer-encoding: chunked") {
            true => body.lines().filter(|line| !is_size(line)).collect(),
            false => body.to_owned(),
        };
        Answer { status, headers: head.to_owned(), body }
    }

    /// What the workflow of a service's repository calls.
    fn dispatch(&self, token: &str, query: &str, tag: &str) -> Answer {
        let inputs = json!({ "api_image_tag": tag, "other_image_tag": "" });
        self.dispatch_inputs(token, query, inputs)
    }

    fn dispatch_inputs(&self, token: &str, query: &str, inputs: Value) -> Answer {
        let path = "/api/v1/repos/shop/deploy/actions/workflows/core.yml/dispatches";
        let body = json!({ "ref": "main", "inputs": inputs }).to_string();
        self.ask("POST", &format!("{path}{query}"), token, &body)
    }

    /// Waits for an order's end.
    fn ended(&self, token: &str, order: u64, limit: Duration) -> Value {
        until("the order ends", limit, || {
            let answer = self.ask("GET", &format!("/api/v1/orders/{order}"), token, "");
            let order = answer.json();
            (answer.status == 200 && order["state"] == "ended").then_some(order)
        })
    }

    fn versions(&self) -> String {
        std::fs::read_to_string(self.lab.dir().join(".env.versions")).expect("it is there")
    }

    /// The processes that carry orders out.
    fn deployers(&self) -> Vec<Pid> {
        let state = self.lab.state().display().to_string();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").expect("there are processes").flatten() {
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            let environment = String::from_utf8_lossy(&environment).into_owned();
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let deploys = String::from_utf8_lossy(&line).contains("\0deploy\0");
            let is_ours = environment.contains(&state) && environment.contains("SHIPLAP_ORDER=");
            let id = entry.file_name().to_string_lossy().parse().ok().and_then(Pid::from_raw);
            found.extend(id.filter(|_| is_ours && deploys));
        }
        found
    }
}

/// The call of a service's repository, unchanged: one service is replaced, with no failed request, its
/// tag stands in the file, and everything else is as it was.
#[test]
fn a_dispatch_redeploys_one_service_and_writes_its_version() {
    let Some(mut served) = Served::new("dispatch") else { return };
    served.lab.run(&["-e", "prod", "deploy", "--yes"]).ok();
    served.serve("0s");
    let repository = served.lab.images.name.clone();
    let token =
        served.token(&["--may", "deploy", "--environments", "prod", "--images", &repository]);
    let other = served.lab.only("other");
    let traffic = Traffic::to_api(served.lab.api);

    let answer = served.dispatch(&token, "", "v2");
    assert_eq!((answer.status, answer.body.as_str()), (204, ""), "as Forgejo answers");
    let order = served.ended(&token, answer.order().expect("a number"), ANSWERS_WITHIN);
    assert_eq!(order["end"]["exit"], 0, "{order:#}");
    traffic.answered_by("v2");
    traffic.end_without_a_drop();
    assert_eq!(served.lab.only("other"), other);
    let versions = served.versions();
    assert!(versions.starts_with("# by CI\nAPI_IMAGE_TAG=v2\nLAST_DEPLOY_BY=ci\n"), "{versions}");
    let history = served.lab.run(&["-e", "prod", "history"]).ok();
    let history = history.says("ci").says("shop/deploy core.yml at main");
    assert!(!history.all().contains(&token));

    // Empty inputs change nothing, and a call that waits says how it ended.
    assert_eq!(served.dispatch(&token, "", "").order(), None);
    let missing = served.dispatch(&token, "?wait=60s", "no-such-tag");
    assert!((400..500).contains(&missing.status), "{}: {}", missing.status, missing.body);
    assert!(missing.body.contains("no-such-tag"), "{}", missing.body);
    assert_eq!(served.lab.version(served.lab.api), "v2");
    assert!(served.versions().contains("API_IMAGE_TAG=v2"));
    let back = json!({ "services": ["api"] }).to_string();
    let rollback = "/api/v1/environments/shop/prod/rollbacks?wait=60s";
    assert_eq!(served.ask("POST", rollback, &token, &back).status, 404, "it may not");
    let token = served.token(&["--may", "rollback", "--services", "api"]);
    assert_eq!(served.ask("POST", rollback, &token, &back).status, 200);
    assert_eq!(served.lab.version(served.lab.api), "v1");
    assert!(served.versions().contains("API_IMAGE_TAG=v1"));
}

/// Nobody learns from an answer what a token would have to be good for.
#[test]
fn tokens_that_are_wrong_or_for_something_else_change_nothing() {
    let Some(mut served) = Served::new("tokens") else { return };
    served.serve("0s");
    let wrong = format!("shiplap_{}_{}", "0".repeat(16), "0".repeat(64));
    for token in [wrong.as_str(), "", "x"] {
        assert_eq!(served.dispatch(token, "", "v2").status, 401, "{token}");
    }
    for limits in [
        ["--environments", "dev"],
        ["--services", "other"],
        ["--images", "somebody/else"],
        ["--projects", "blog"],
    ] {
        let token = served.token(&[&["--may", "deploy"][..], &limits].concat());
        let answer = served.dispatch(&token, "", "v2");
        // As if there were no such environment, or no such input.
        assert!([404, 422].contains(&answer.status), "{limits:?}: {}", answer.body);
        assert_eq!(answer.order(), None);
    }
    let token = served.token(&["--may", "deploy"]);
    let id = token.split('_').nth(1).expect("an id").to_owned();
    served.lab.run(&["token", "revoke", &id]).ok();
    assert_eq!(served.dispatch(&token, "", "v2").status, 401);
    let listed = served.lab.run(&["token", "list"]).ok().hides(&token);
    assert!(listed.stdout.contains(&id) && listed.stdout.contains("revoked"));
    served.server().signal(Signal::TERM);
}

/// Three tags for one service within the time to settle: one deployment, of the last.
#[test]
fn of_several_tags_that_come_together_the_last_is_deployed_once() {
    let Some(mut served) = Served::new("merge") else { return };
    served.lab.run(&["-e", "prod", "deploy", "--yes"]).ok();
    served.serve("3s");
    let token = served.token(&["--may", "deploy"]);
    let orders: Vec<u64> = ["v3", "sick", "v2"]
        .map(|tag| served.dispatch(&token, "", tag).order().expect("a number"))
        .into();
    let last = served.ended(&token, orders[2], ANSWERS_WITHIN);
    assert_eq!(last["end"]["exit"], 0, "{last:#}");
    assert_eq!(served.lab.version(served.lab.api), "v2");
    let newest = served.lab.run(&["-e", "prod", "show", "--json"]).ok().json();
    assert_eq!(newest["number"], 2, "one deployment besides the first");
}

/// Whatever becomes of the server, a deployment goes on; and the next one knows how it ended.
#[test]
fn a_server_that_is_killed_leaves_its_deployment_alone() {
    let Some(mut served) = Served::new("killed") else { return };
    served.lab.run(&["-e", "prod", "deploy", "--yes"]).ok();
    served.lab.set("BOOT_MS", "3000");
    served.serve("0s");
    let token = served.token(&["--may", "deploy"]);
    let traffic = Traffic::to_api(served.lab.api);
    let order = served.dispatch(&token, "", "v2").order().expect("a number");
    until("it is being deployed", ANSWERS_WITHIN, || {
        let shown = served.lab.run(&["-e", "prod", "show", "--json"]);
        (shown.json()["number"] == 2).then_some(())
    });
    served.server().signal(Signal::KILL);
    let _ = served.server.take().expect("it ran").finish();

    served.serve("0s");
    let order = served.ended(&token, order, ANSWERS_WITHIN);
    assert_eq!(order["end"]["exit"], 0, "{order:#}");
    assert_eq!(order["end"]["deployment"], 2, "{order:#}");
    traffic.answered_by("v2");
    traffic.end_without_a_drop();
}

/// The same where its deployment dies with it: another server takes both over.
#[test]
fn what_a_server_and_its_deployment_leave_is_taken_over() {
    let Some(mut served) = Served::new("taken") else { return };
    served.lab.run(&["-e", "prod", "deploy", "--yes"]).ok();
    served.lab.set("BOOT_MS", "3000");
    served.serve("0s");
    let token = served.token(&["--may", "deploy"]);
    let traffic = Traffic::to_api(served.lab.api);
    let order = served.dispatch(&token, "", "v2").order().expect("a number");
    until("its replica was started", ANSWERS_WITHIN, || {
        let running = served.lab.running();
        (running.get("api").map(Vec::len) == Some(2)).then_some(())
    });
    served.server().signal(Signal::KILL);
    for deployer in served.deployers() {
        let _ = kill_process(deployer, Signal::KILL);
    }
    let _ = served.server.take().expect("it ran").finish();

    served.serve("0s");
    let order = served.ended(&token, order, ANSWERS_WITHIN);
    let version = served.lab.version(served.lab.api);
    let exit = &order["end"]["exit"];
    // Forward where what was started works by then, else back: either way it is known.
    assert!(
        (*exit == 0 && version == "v2") || (*exit == 3 && version == "v1"),
        "{version} {order:#}"
    );
    traffic.end_without_a_drop();
    let shown = served.lab.run(&["-e", "prod", "show", "--json"]).ok().json();
    assert_eq!(shown["number"], 2);
    assert_ne!(shown["outcome"], Value::Null);
}

/// The command line of another machine, through the server's socket.
#[test]
fn every_command_can_be_run_through_a_server() {
    let Some(mut served) = Served::new("remote") else { return };
    served.serve("0s");
    let socket = format!("unix://{}", served.lab.state().join("serve.sock").display());
    let remote = |words: &[&str]| {
        let words = [&["--server", &socket], words].concat();
        served.lab.run(&words)
    };
    remote(&["-e", "prod", "plan", "--exit-code"]).exits(5).says("+ api");
    remote(&["-e", "prod", "deploy"]).exits(2).says("--yes");
    remote(&["-e", "prod", "deploy", "--yes"]).ok().says("deployment 1 is done");
    assert_eq!(served.lab.version(served.lab.api), "v1");
    remote(&["-e", "prod", "deploy", "--yes", "--set", "api=v2"]).ok();
    assert_eq!(served.lab.version(served.lab.api), "v2");
    assert!(served.versions().contains("API_IMAGE_TAG=v2"));
    let status = remote(&["-e", "prod", "status", "--json"]).ok().json();
    assert!(status.is_object());
    remote(&["-e", "prod", "rollback", "--yes", "api"]).ok();
    assert_eq!(served.lab.version(served.lab.api), "v1");
    remote(&["-f", "/etc/passwd", "config"]).exits(1).says("for this machine");
    remote(&["--project", "blog", "status"]).exits(1).says("no project `blog`");

    let address = format!("http://127.0.0.1:{}", served.port);
    let reader = served.token(&["--may", "read"]);
    let by_token = |words: &[&str], token: &str| {
        let words = [&["--server", &address], words].concat();
        served.lab.start_with(&words, &[("SHIPLAP_TOKEN", token)]).finish()
    };
    by_token(&["-e", "prod", "history"], &reader).ok().says("rollback");
    by_token(&["-e", "prod", "deploy", "--yes"], &reader).exits(1).says("not for it");
    by_token(&["-e", "prod", "config"], &reader).exits(1).says("not for it");
    by_token(&["-e", "prod", "history"], "shiplap_no").exits(1).says("does not know the token");
}
