//! Environments of one project, side by side on one engine.

use std::time::{Duration, Instant};

use shiplap_scenarios::{Lab, Traffic, get, until};

const COMPOSE: &str = r#"
services:
  api:
    image: ${APP}:${TAG}
    command: [api]
    ports: ["${API_PORT}:9000"]
    environment: {GREETING: hello}
    volumes: ["data:/data"]
    deploy: {update_config: {monitor: 100ms}}
volumes:
  data: {}
"#;

/// A project whose environments are Compose projects of the lab's own.
struct Shop {
    lab: Lab,
    entry: u16,
    project: String,
    /// The name of the environment that is in no file.
    preview: String,
}

impl Shop {
    fn new(purpose: &str) -> Option<Self> {
        let lab = Lab::new(purpose)?;
        lab.compose(COMPOSE);
        // The project that the lab removes at its end is the one that is named like it.
        let (kept, entry) = (lab.project.clone(), lab.web);
        // So that what is left of a preview says whose it is, as every project of a test does.
        let preview = format!("{}-0", std::process::id());
        let project = format!("shiplap-scn-{purpose}-pr");
        lab.write(
            "shiplap.yaml",
            &format!(
                "project: {project}\n\
                 edge: {{ http: 127.0.0.1:{entry} }}\n\
                 environments:\n\
                 \x20 prod:\n\
                 \x20   project_name: {kept}\n\
                 \x20   limits: {{ memory: 256MiB }}\n\
                 \x20   routes: [{{ host: shop.example, service: api, port: 9000 }}]\n\
                 \x20 dev: {{ project_name: {kept}-dev, ports: any }}\n"
            ),
        );
        Some(Self { lab, entry, preview, project })
    }

    /// Its Compose project.
    fn preview_project(&self) -> String {
        format!("{}-{}", self.project, self.preview)
    }

    /// The body that the edge answers with for a host.
    fn ask(&self, host: &str) -> (u16, String, String) {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.entry)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "GET /version HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_ascii_lowercase(), body.to_owned())
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        for reason in self.lab.engine.remove_project(&self.preview_project()) {
            eprintln!("not removed: {reason}");
        }
    }
}

#[test]
fn preview_is_made_seen_and_gone_with_its_data_when_its_time_is_over() {
    let Some(shop) = Shop::new("evspreview") else { return };
    let (lab, name) = (&shop.lab, shop.preview.as_str());
    lab.run(&["-e", "prod", "deploy", "--yes"]).ok();
    let prod = lab.engine.objects(&lab.project);

    let made = lab.run(&["env", "create", name, "--from", "prod", "--ttl", "8s", "--json"]);
    let made = made.ok().json();
    assert_eq!(made["project"], shop.preview_project().as_str(), "{made:#}");
    lab.run(&["-e", name, "plan"]).ok().says("+ api");
    lab.run(&["-e", name, "deploy", "--yes"]).ok();
    assert_eq!(shop.ask("shop.example").0, 200);
    assert_eq!(shop.ask(&format!("{name}.shop.example")).0, 200);

    let listed = lab.run(&["env", "list", "--json"]).ok().json();
    let names: Vec<&str> = listed["environments"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|one| one["environment"].as_str())
        .collect();
    assert_eq!(names, ["prod", "dev", name], "{listed:#}");
    assert_eq!(listed["environments"][0]["replicas"]["running"], 1, "{listed:#}");
    assert_eq!(listed["environments"][1]["replicas"]["running"], 0, "{listed:#}");
    assert_eq!(listed["environments"][2]["from"], "prod", "{listed:#}");
    assert_eq!(
        listed["environments"][2]["routes"][0],
        format!("{name}.shop.example").as_str(),
        "{listed:#}"
    );
    lab.run(&["status"]).ok().says("1 of 1 up").says("never deployed");
    lab.run(&["-e", "prod", "status"]).ok().says("limits: 256 MiB for all").says("shop.example");
    lab.run(&["env", "show", name]).ok().says("made from prod").says("GREETING").hides("hello");
    lab.run(&["env", "diff", "prod", name]).ok().says("routes").says("ports").hides("hello");

    until("its time is over", Duration::from_secs(20), || {
        lab.run(&["env", "prune", "--yes"]).ok();
        let listed = lab.run(&["env", "list", "--json"]).ok().json();
        (listed["environments"].as_array().map(Vec::len) == Some(2)).then_some(())
    });
    assert_eq!(lab.engine.objects(&shop.preview_project()), Vec::<String>::new(), "nor a volume");
    assert_eq!(lab.engine.objects(&lab.project), prod, "prod has lost nothing");
    assert_eq!(shop.ask("shop.example").0, 200);
    lab.run(&["env", "prune", "--yes"]).ok().says("nothing to remove");
    let _ =
        lab.run(&["-e", name, "plan"]).exits(1).says(&format!("there is no environment `{name}`"));
}

#[test]
fn removing_a_preview_keeps_its_volumes_unless_asked() {
    let Some(shop) = Shop::new("evsremove") else { return };
    let (lab, name) = (&shop.lab, shop.preview.as_str());
    lab.run(&["env", "create", name, "--from", "prod"]).ok().says("it stays until");
    lab.run(&["-e", name, "deploy", "--yes"]).ok();
    lab.run(&["env", "remove", name, "--yes"]).ok().says("is forgotten");
    let left = lab.engine.objects(&shop.preview_project());
    assert!(left.iter().all(|object| object.contains("data")) && !left.is_empty(), "{left:?}");
    lab.run(&["env", "create", name, "--from", "prod"]).ok();
    lab.run(&["env", "remove", name, "--volumes", "--yes"]).ok();
    assert_eq!(lab.engine.objects(&shop.preview_project()), Vec::<String>::new());
}

#[test]
fn pause_of_three_seconds_loses_no_request() {
    let Some(lab) = Lab::new("evspause") else { return };
    lab.compose(COMPOSE);
    lab.deploy("v1").ok();
    let traffic = Traffic::to_api(lab.api);
    lab.run(&["pause"]).ok().says("wait");
    let began = Instant::now();
    lab.run(&["status"]).ok().says("requests are held");
    std::thread::sleep(Duration::from_secs(3).saturating_sub(began.elapsed()));
    lab.run(&["resume", "--yes"]).ok().says("go on");
    lab.run(&["resume", "--yes"]).ok().says("nothing to resume");
    traffic.answered_by("v1");
    traffic.end_without_a_drop();
    lab.run(&["status"]).ok().hides("requests are held");
}

#[test]
fn maintenance_answers_with_the_page_and_stays_through_a_deployment() {
    let Some(shop) = Shop::new("evsmaint") else { return };
    let lab = &shop.lab;
    lab.run(&["-e", "prod", "deploy", "--yes"]).ok();
    lab.write("page.html", "<h1>we move</h1>");
    let on = ["-e", "prod", "maintenance", "on", "--page", "page.html", "--retry-after", "90s"];
    lab.run(&on).ok().says("is in maintenance");
    let closed = || {
        let (status, head, body) = shop.ask("shop.example");
        assert_eq!((status, body.as_str()), (503, "<h1>we move</h1>"), "{head}");
        assert!(head.contains("retry-after: 90") && head.contains("text/html"), "{head}");
        let published = get(lab.api, "/version").map(|answer| answer.status);
        assert_eq!(published, Ok(503), "the published port too");
    };
    closed();
    lab.set("TAG", "v2");
    lab.run(&["-e", "prod", "deploy", "--yes"]).ok();
    closed();
    lab.run(&["status"]).ok().says("prod: in maintenance");
    lab.run(&["-e", "prod", "maintenance", "off"]).ok();
    assert_eq!(shop.ask("shop.example").0, 200);
    assert_eq!(lab.version(lab.api), "v2");

    let from_here =
        ["-e", "prod", "maintenance", "on", "--allow", "127.0.0.1", "--allow", "10.0.0.0/33"];
    let _ = lab.run(&from_here).exits(2).says("no block of addresses");
    lab.run(&["-e", "prod", "maintenance", "on", "--allow", "127.0.0.1"]).ok();
    assert_eq!(shop.ask("shop.example").0, 200, "who is let in is served");
}
