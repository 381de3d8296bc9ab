//! Removing: orphans, projects, images.

use shiplap_scenarios::{Images, Lab, get, post};

use crate::projects::{API, PAIR, STORE};

#[test]
fn orphan_is_shown_and_kept_until_asked_for() {
    let Some(lab) = Lab::new("orphan") else { return };
    lab.compose(PAIR);
    lab.deploy("v1").ok();
    let before = lab.running();
    lab.compose(&PAIR[..PAIR.find("  web:").unwrap()]);
    lab.deploy("v1").ok().says("web is not in the Compose file and stays");
    assert_eq!(lab.running(), before);
    assert_eq!(lab.version(lab.web), "v1");
    lab.run(&["deploy", "--yes", "--remove-orphans"]).ok().says("- web");
    assert!(lab.running().keys().eq(["api"]));
    assert!(get(lab.web, "/version").is_err(), "its port is closed");
    assert_eq!(lab.running()["api"], before["api"]);
}

#[test]
fn down_keeps_volumes_and_their_data() {
    let Some(lab) = Lab::new("down") else { return };
    lab.compose(STORE);
    lab.deploy("v1").ok();
    assert!(post(lab.store, "/append", "a line").unwrap().contains("201"));
    lab.run(&["down", "--yes"]).ok().says("stays");
    let left = lab.engine.objects(&lab.project);
    assert_eq!(left, [format!("/volumes/{}_data?force=1", lab.project)]);
    assert!(get(lab.store, "/count").is_err(), "its port is closed");

    lab.deploy("v1").ok();
    let count = get(lab.store, "/count").unwrap();
    assert!(String::from_utf8(count.body).unwrap().contains("\"count\":1"));
    lab.run(&["down", "--volumes", "--yes"]).ok();
    assert!(lab.engine.objects(&lab.project).is_empty());
    lab.run(&["down", "--yes"]).ok();
}

#[test]
fn prune_shows_then_frees_and_keeps_what_a_rollback_needs() {
    let Some(lab) = Lab::new("prune") else { return };
    let name = format!("shiplap-scenarios/prune-{}", std::process::id());
    let image = |number: u32| format!("{name}:v{number}");
    for number in 1..=8 {
        Images::build(&lab.engine, &image(number), &format!("v{number}"));
    }
    let _images = Remove { lab: &lab, images: (1..=8).map(image).collect() };
    let there =
        |number: u32| lab.engine.try_get(&format!("/images/{}/json", image(number))).is_ok();
    lab.compose(API);
    lab.set("APP", &name);
    lab.set("MONITOR", "0s");
    for number in 1..=7 {
        lab.deploy(&format!("v{number}")).ok();
    }
    // The frozen release before is v6; the last five are needed.
    lab.run(&["prune"]).ok().says(&image(1)).says(&image(2)).hides(&image(3)).hides(&image(8));
    assert!((1..=8).all(there), "showing frees nothing");
    lab.run(&["prune", "--yes"]).ok().says("removed");
    assert!(!there(1) && !there(2) && (3..=8).all(there));
    lab.run(&["prune", "--yes"]).ok().says("nothing to free");
    lab.run(&["rollback", "--to", "3", "--yes"]).ok();
    assert_eq!(lab.version(lab.api), "v3");
}

/// Removes images that no other test uses.
struct Remove<'a> {
    lab: &'a Lab,
    images: Vec<String>,
}

impl Drop for Remove<'_> {
    fn drop(&mut self) {
        self.lab.engine.remove_project(&self.lab.project);
        for image in &self.images {
            // Some are gone already.
            let _ = self.lab.engine.delete(&format!("/images/{image}?force=1"));
        }
    }
}
