//! Going back to an earlier deployment.

use shiplap_scenarios::{Lab, Traffic};

use crate::projects::API;

/// An image, a variable and a config that all change from release to release.
const RELEASE: &str = r#"
services:
  api:
    image: ${APP}:${TAG}
    command: [api]
    ports: ["${API_PORT}:9000"]
    environment:
      GREETING: ${GREETING}
    configs:
      - {source: motd, target: /motd}
    deploy: {update_config: {monitor: 100ms}}
configs:
  motd:
    content: motd of ${GREETING}
"#;

fn facts(lab: &Lab) -> (String, bool, bool) {
    let api = lab.inspect("api");
    let variable = |value: &str| api["Config"]["Env"].to_string().contains(value);
    (lab.version(lab.api), variable("GREETING=one"), variable("GREETING=two"))
}

/// The content of a file in the only container of the service.
fn motd(lab: &Lab) -> String {
    // The image holds no `cat`: the engine gives the file as an archive.
    let path = format!("/containers/{}/archive?path=/motd", lab.only("api"));
    lab.engine.get_text(&path)
}

#[test]
fn rollback_restores_image_environment_and_config() {
    let Some(lab) = Lab::new("back") else { return };
    lab.compose(RELEASE);
    lab.set("GREETING", "one");
    lab.deploy("v1").ok();
    lab.set("GREETING", "two");
    lab.deploy("v2").ok();
    assert_eq!(facts(&lab), ("v2".into(), false, true));
    assert!(motd(&lab).contains("motd of two"));

    let traffic = Traffic::to_api(lab.api);
    // What the files and the environment say now does not matter.
    lab.set("GREETING", "three");
    lab.set("TAG", "v3");
    lab.run(&["rollback", "--yes"]).ok();
    traffic.answered_by("v1");
    traffic.end_without_a_drop();
    assert_eq!(facts(&lab), ("v1".into(), true, false));
    assert!(motd(&lab).contains("motd of one"));
}

#[test]
fn rollback_goes_to_the_number_asked_for() {
    let Some(lab) = Lab::new("backto") else { return };
    lab.compose(API);
    for tag in ["v1", "v2", "v3"] {
        lab.deploy(tag).ok();
    }
    lab.run(&["rollback", "--to", "1", "--yes"]).ok();
    assert_eq!(lab.version(lab.api), "v1");
    lab.run(&["rollback", "--to", "2", "--yes"]).ok();
    assert_eq!(lab.version(lab.api), "v2");
    lab.run(&["history"]).ok().says("rollback to 1").says("rollback to 2");
    let before = lab.only("api");
    let _ = lab.run(&["rollback", "--to", "99", "--yes"]).exits(1).says("99");
    assert_eq!(lab.only("api"), before);
}

#[test]
fn rollback_without_an_earlier_deployment_is_refused() {
    let Some(lab) = Lab::new("backnone") else { return };
    lab.compose(API);
    let _ = lab.run(&["rollback", "--yes"]).exits(1).says("no earlier deployment");
    lab.deploy("v1").ok();
    let _ = lab.run(&["rollback", "--yes"]).exits(1).says("no earlier deployment");
    assert_eq!(lab.version(lab.api), "v1");
}

#[test]
fn rollback_needs_no_files() {
    let Some(lab) = Lab::new("nofiles") else { return };
    lab.compose(API);
    lab.deploy("v1").ok();
    lab.deploy("v2").ok();
    lab.compose("services: [broken");
    lab.run(&["rollback", "--yes", "-p", &lab.project]).ok();
    assert_eq!(lab.version(lab.api), "v1");
}
