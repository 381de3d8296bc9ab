//! What must hold before anything is changed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use shiplap_execute::app::{Choice, Intent, JobEnd, OnInterrupted, Report, Request};
use shiplap_model::{
    CheckedImage, ImageCheck, Ledger as _, Outcome, Requirement, RequirementKind, RequirementRun,
    StepState, Tell,
};
use shiplap_testkit::World;

use crate::resuming::shop::{app, from, request, resume, yes};
use crate::support::scope;

const OLD: &str = r#"
services:
  api: { image: "api:v1", ports: ["8000:8000"], restart: always }
"#;
const PLAIN: &str = r#"
services:
  api: { image: "api:v2", ports: ["8000:8000"], restart: always }
"#;
/// With a job.
const NEW: &str = r#"
services:
  migrate: { image: "api:v2", command: migrate }
  api:
    image: "api:v2"
    ports: ["8000:8000"]
    restart: always
    depends_on: { migrate: { condition: service_completed_successfully } }
"#;

fn command(kind: RequirementKind, words: &[&str], folder: &tempfile::TempDir) -> Requirement {
    Requirement {
        kind,
        repositories: Vec::new(),
        image: None,
        run: RequirementRun::Command {
            words: words.iter().map(|word| (*word).to_owned()).collect(),
            folder: folder.path().to_path_buf(),
        },
        limit: Duration::from_secs(20),
    }
}

async fn deploy(world: &World, yaml: &str, requirements: Vec<Requirement>) -> Report {
    let mut request = Request { requirements, ..request() };
    request.limits.watch = Duration::ZERO;
    yes(world, &Intent::Deploy(&from(yaml)), &request).await.expect("it begins")
}

async fn shop() -> World {
    let world = World::new();
    for image in ["api:v1", "api:v2"] {
        world.has_image(image);
    }
    assert_eq!(deploy(&world, OLD, Vec::new()).await.outcome, Outcome::Done);
    world
}

fn said(folder: &tempfile::TempDir) -> String {
    let path: PathBuf = folder.path().join("said");
    std::fs::read_to_string(path).unwrap_or_default()
}

#[tokio::test]
async fn they_are_asked_one_after_the_other_with_the_image_filled_in_before_anything_is_made() {
    let world = shop().await;
    let folder = tempfile::tempdir().expect("a folder");
    let say = |what: &str| format!("echo {what} >> said");
    let asked = vec![
        command(RequirementKind::Scan, &["sh", "-c", &say("scan {id}")], &folder),
        command(
            RequirementKind::Backup,
            &["sh", "-c", &say("backup $SHIPLAP_PROJECT $SHIPLAP_DEPLOYMENT")],
            &folder,
        ),
    ];
    let report = deploy(&world, PLAIN, asked).await;
    assert_eq!((report.outcome, report.reason), (Outcome::Done, None));
    assert_eq!(said(&folder), "scan sha256:api:v2\nbackup shop 2\n");
    // An image that runs here already is not asked about again, nor is anything without new containers.
    let ask = command(RequirementKind::Scan, &["false"], &folder);
    let report = deploy(&world, PLAIN, vec![ask]).await;
    assert_eq!((report.outcome, report.number), (Outcome::Done, None));
}

#[tokio::test]
async fn one_that_says_no_ends_it_with_nothing_changed() {
    let world = shop().await;
    let before = world.picture();
    let folder = tempfile::tempdir().expect("a folder");
    let no = command(RequirementKind::Backup, &["sh", "-c", "exit 7"], &folder);
    let report = deploy(&world, NEW, vec![no]).await;
    assert_eq!(report.outcome, Outcome::Failed);
    assert_eq!(report.reason.as_deref(), Some("backup failed: exit code 7"));
    assert_eq!(report.jobs["migrate"], JobEnd::NotRun);
    let none = command(RequirementKind::Backup, &["/no/such/program"], &folder);
    assert_eq!(deploy(&world, NEW, vec![none]).await.outcome, Outcome::Failed);
    assert_eq!(world.picture(), before);
}

#[tokio::test]
async fn one_that_takes_too_long_is_stopped_with_all_that_it_started() {
    let world = shop().await;
    let folder = tempfile::tempdir().expect("a folder");
    let slow = "(sleep 60; echo late >> said) & sleep 60";
    let slow = Requirement {
        limit: Duration::from_millis(300),
        ..command(RequirementKind::Backup, &["sh", "-c", slow], &folder)
    };
    let report = deploy(&world, NEW, vec![slow]).await;
    assert_eq!(report.outcome, Outcome::Failed);
    let reason = report.reason.unwrap_or_default();
    assert!(reason.contains("took longer") && reason.contains("gates.backup"), "{reason}");
    assert_eq!(said(&folder), "");
}

/// Its deployer died while tests ran: going on would be without them.
#[tokio::test]
async fn a_deployment_whose_requirements_did_not_hold_does_not_go_on() {
    let world = shop().await;
    let before = world.state().containers.len();
    let folder = tempfile::tempdir().expect("a folder");
    let slow = vec![command(RequirementKind::Tests, &["sleep", "60"], &folder)];
    let killed = deploy(&world, NEW, slow);
    assert!(tokio::time::timeout(Duration::from_secs(1), killed).await.is_err());
    world.ledger().holder_dies(&scope());

    let unfinished = app(&world).unfinished(&scope()).await.expect("a ledger").expect("one");
    assert_eq!(unfinished.open_requirements(), ["tests"]);
    let on = resume(&world, Choice::Settle(OnInterrupted::Forward)).await;
    let refused = on.expect_err("it cannot go on").to_string();
    assert!(refused.contains("cannot go on") && refused.contains("`tests`"), "{refused}");
    let report = resume(&world, Choice::Settle(OnInterrupted::Auto)).await;
    let report = report.expect("it goes back").expect("one was unfinished");
    assert_eq!(report.outcome, Outcome::RolledBack);
    assert_eq!(world.state().containers.len(), before);
}

#[tokio::test]
async fn nothing_is_saved_before_a_first_deployment() {
    let world = World::new();
    world.has_image("api:v1");
    let folder = tempfile::tempdir().expect("a folder");
    let no = command(RequirementKind::Backup, &["false"], &folder);
    assert_eq!(deploy(&world, OLD, vec![no]).await.outcome, Outcome::Done);
}

/// Says yes of images whose id it knows.
#[derive(Debug)]
struct Knows(&'static str);

#[async_trait::async_trait]
impl ImageCheck for Knows {
    async fn check(&self, image: &CheckedImage, _: Tell) -> Result<String, String> {
        match image.id == self.0 {
            true => Ok(format!("{} is known", image.reference)),
            false => Err(format!("{} is a stranger", image.id)),
        }
    }
}

fn check(known: &'static str, repositories: &[&str]) -> Requirement {
    Requirement {
        kind: RequirementKind::Signature,
        repositories: repositories.iter().map(|text| (*text).to_owned()).collect(),
        image: None,
        run: RequirementRun::Check(Arc::new(Knows(known))),
        limit: Duration::from_secs(20),
    }
}

#[tokio::test]
async fn a_check_says_no_of_the_image_that_would_run_and_its_yes_is_kept() {
    let world = shop().await;
    let before = world.picture();
    let report = deploy(&world, PLAIN, vec![check("sha256:other", &[])]).await;
    let reason = "signature of api:v2 failed: sha256:api:v2 is a stranger";
    assert_eq!((report.outcome, report.reason.as_deref()), (Outcome::Failed, Some(reason)));
    assert_eq!(world.picture(), before);
    let report = deploy(&world, PLAIN, vec![check("sha256:api:v2", &[])]).await;
    assert_eq!(report.outcome, Outcome::Done);
    let journal = world.ledger().journal(&scope(), report.number.unwrap()).await.unwrap();
    let mut finished = journal.iter().filter(|entry| entry.state == StepState::Finished);
    let kept = finished.find_map(|entry| entry.detail.clone());
    assert_eq!(kept.as_deref(), Some("api:v2 is known"));
}

#[tokio::test]
async fn a_check_is_about_the_repositories_that_it_names() {
    let world = shop().await;
    let elsewhere = check("sha256:other", &["ghcr.io/team/*"]);
    assert_eq!(deploy(&world, PLAIN, vec![elsewhere]).await.outcome, Outcome::Done);
    let world = shop().await;
    let here = check("sha256:other", &["docker.io/library/*"]);
    assert_eq!(deploy(&world, PLAIN, vec![here]).await.outcome, Outcome::Failed);
}
