//! Taking over what Docker Compose started.

use shiplap_scenarios::{Lab, peer};

use crate::projects::PAIR;

#[test]
fn project_of_compose_is_adopted_one_service_at_a_time() {
    let Some(lab) = Lab::new("adopt") else { return };
    let Some(peer) = peer(&lab) else { return };
    lab.compose(PAIR);
    peer.run(&lab, &["up", "-d"]).ok();
    let before = lab.running();
    assert_eq!(lab.version(lab.api), "v1");

    lab.run(&["plan", "--exit-code"]).ok().says("nothing to do");
    lab.deploy("v1").ok();
    assert_eq!(lab.running(), before, "unchanged containers go on");

    lab.set("API_TAG", "v2");
    lab.run(&["deploy", "--yes"]).ok().says("~ api").says("moves from the engine to the edge");
    let after = lab.running();
    assert_eq!((lab.version(lab.api), lab.version(lab.web)), ("v2".into(), "v1".into()));
    assert_eq!(after["web"], before["web"]);
    assert_ne!(after["api"], before["api"]);

    let listed = peer.run(&lab, &["ps", "--quiet"]).ok();
    for ids in after.values() {
        assert!(listed.stdout.contains(&ids[0][..12]), "{}", listed.all());
    }
    peer.run(&lab, &["logs"]).ok().says("v2 starts");
}

#[test]
fn adopted_project_is_updated_without_a_drop_from_the_second_time_on() {
    use shiplap_scenarios::Traffic;
    let Some(lab) = Lab::new("adopted") else { return };
    let Some(peer) = peer(&lab) else { return };
    lab.compose(crate::projects::API);
    peer.run(&lab, &["up", "-d"]).ok();
    lab.deploy("v2").ok();
    let traffic = Traffic::to_api(lab.api);
    lab.deploy("v3").ok();
    traffic.answered_by("v3");
    traffic.end_without_a_drop();
}

#[test]
fn failed_adoption_gives_the_port_back() {
    let Some(lab) = Lab::new("adoptsick") else { return };
    let Some(peer) = peer(&lab) else { return };
    lab.compose(crate::projects::API);
    peer.run(&lab, &["up", "-d"]).ok();
    let before = lab.only("api");
    let _ = lab.deploy("crash").exits(3);
    assert_eq!(lab.only("api"), before);
    assert_eq!(lab.version(lab.api), "v1");
}
