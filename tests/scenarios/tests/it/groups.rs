//! Two environments of one project, deployed together.

use std::time::Duration;

use rustix::process::Signal;
use shiplap_scenarios::{Lab, Traffic, until};

/// The demo's api, on a port and with a tag that are to be filled in.
const API: &str = r#"
services:
  SERVICE:
    image: ${APP}:${TAG_OF_SERVICE:-v1}
    command: [api]
    restart: unless-stopped
    ports: ["${PORT}:9000"]
    deploy:
      update_config: {monitor: "${MONITOR:-500ms}"}
    healthcheck:
      test: [CMD, /app, health, "9000"]
      interval: 500ms
      timeout: 10s
      retries: 3
      start_period: 3s
"#;

/// A group of two environments, each a Compose project of its own.
struct Pair {
    lab: Lab,
    /// The Compose project of the second.
    other: String,
}

impl Pair {
    fn new(purpose: &str) -> Option<Self> {
        let lab = Lab::new(purpose)?;
        // Named like every project of a test, so that it is found if this process is killed.
        let other = format!("shiplap-scn-{purpose}b-{}-0", std::process::id());
        for (file, service, port) in [("core", "api", "API_PORT"), ("proxy", "web", "WEB_PORT")] {
            let text = API.replace("TAG_OF_SERVICE", &format!("{service}_tag").to_uppercase());
            let text = text.replace("SERVICE", service).replace("${PORT}", &format!("${{{port}}}"));
            lab.write(&format!("{file}.yaml"), &text);
        }
        lab.write(
            "shiplap.yaml",
            &format!(
                "project: shop\n\
                 environments:\n\
                 \x20 core: {{ project_name: {}, compose: [core.yaml] }}\n\
                 \x20 proxy: {{ project_name: {other}, compose: [proxy.yaml] }}\n\
                 groups: {{ prod: [core, proxy] }}\n",
                lab.project
            ),
        );
        let pair = Self { lab, other };
        pair.lab.run(&["-e", "prod", "deploy", "--yes"]).ok();
        pair.assert_answers("v1");
        Some(pair)
    }

    fn assert_answers(&self, version: &str) {
        let answers = [self.lab.api, self.lab.web].map(|port| self.lab.version(port));
        assert_eq!(answers, [version, version]);
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for reason in self.lab.engine.remove_project(&self.other) {
            eprintln!("not removed: {reason}");
        }
    }
}

#[test]
fn one_sick_environment_keeps_both_on_their_old_images_and_nothing_is_dropped() {
    let Some(pair) = Pair::new("grpsick") else { return };
    let lab = &pair.lab;
    let traffic = [Traffic::to_api(lab.api), Traffic::to_api(lab.web)];
    let words = ["-e", "prod", "deploy", "--yes", "--set", "api=sick", "--set", "web=v2"];
    let run = lab.run(&words).exits(3).says("core: deployment 2 failed and was undone");
    assert!(run.all().contains("proxy: reason: core failed"), "{}", run.all());
    pair.assert_answers("v1");
    lab.run(&["-e", "prod", "deploy", "--yes", "--set", "api=v2", "--set", "web=v2"]).ok();
    pair.assert_answers("v2");
    lab.run(&["-e", "prod", "rollback", "--yes"]).ok();
    pair.assert_answers("v1");
    for one in traffic {
        one.end_without_a_drop();
    }
}

#[test]
fn a_kill_in_the_middle_and_resume_leave_both_alike_and_nothing_is_dropped() {
    let Some(pair) = Pair::new("grpkill") else { return };
    let lab = &pair.lab;
    lab.set("MONITOR", "20s");
    let traffic = [Traffic::to_api(lab.api), Traffic::to_api(lab.web)];
    let killed =
        lab.start(&["-e", "prod", "deploy", "--yes", "--set", "api=v2", "--set", "web=v2"]);
    until("one has switched, and is watched", Duration::from_secs(60), || {
        (lab.version(lab.api) == "v2").then_some(())
    });
    killed.signal(Signal::KILL);
    let _ = killed.finish();
    lab.run(&["-e", "prod", "deploy", "--yes"]).exits(1).says("-e prod resume");
    let resumed = lab.run(&["-e", "prod", "resume", "--yes"]);
    let version = lab.version(lab.api);
    assert_eq!(resumed.code, Some(if version == "v2" { 0 } else { 3 }), "{}", resumed.all());
    pair.assert_answers(&version);
    for one in traffic {
        one.end_without_a_drop();
    }
    lab.run(&["-e", "prod", "resume", "--yes"]).ok().says("nothing to resume");
}
