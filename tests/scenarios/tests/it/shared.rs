//! Two machines with one ledger: different state folders, the same database and key.

use std::path::Path;

use shiplap_scenarios::{Lab, Run, Traffic};
use shiplap_testkit::Postgres;

use crate::crashes::{journal_has, kill};
use crate::projects::API;

/// Runs `shiplap` as on another machine.
fn elsewhere(lab: &Lab, key: &Path, words: &[&str]) -> Run {
    let state = lab.state().with_file_name("elsewhere");
    let variables = [
        ("SHIPLAP_STATE_DIR", state.to_str().expect("it is text")),
        ("SHIPLAP_LEDGER_KEY_FILE", key.to_str().expect("it is text")),
    ];
    lab.start_with(words, &variables).finish()
}

#[test]
fn a_second_machine_is_told_who_deploys_and_goes_on_for_one_that_died() {
    let Some(lab) = Lab::new("shared") else { return };
    let server = match Postgres::start(&[]) {
        Ok(server) => server,
        Err(why) => return eprintln!("skipped: {why}"),
    };
    lab.set("SHIPLAP_LEDGER", &server.url("postgres", "postgres"));
    lab.compose(API);
    lab.deploy("v1").ok();
    assert!(!lab.state().join("ledger.db").exists(), "history is in the database");
    let key = lab.state().join("key");
    let traffic = Traffic::to_api(lab.api);
    lab.set("TAG", "v2");
    lab.set("MONITOR", "20s");
    let deployer = lab.start(&["deploy", "--yes"]);
    journal_has(&lab, 2, "watch", "started");

    let told = elsewhere(&lab, &key, &["deploy", "--yes"]);
    assert_eq!(told.code, Some(1), "{}", told.all());
    let _ = told.says("error[lease-held]").says("is deploying");
    assert!(kill(deployer));

    // What was deployed is sealed: without the key nobody goes on.
    let missing = lab.state().with_file_name("elsewhere").join("key");
    let refused = elsewhere(&lab, &missing, &["resume", "--yes"]);
    assert_eq!(refused.code, Some(1), "{}", refused.all());
    let _ = refused.says("SHIPLAP_LEDGER_KEY_FILE");
    elsewhere(&lab, &key, &["resume", "--yes"]).ok();
    traffic.answered_by("v2");
    traffic.end_without_a_drop();
    assert_eq!(lab.newest().expect("there is one")["outcome"], "done");
    lab.run(&["history", "--verify"]).ok();
}

#[test]
fn a_password_is_no_argument_and_is_not_repeated() {
    let Some(lab) = Lab::new("sharedpw") else { return };
    lab.compose(API);
    let url = "postgres://me:s3cret@127.0.0.1:1/shop";
    let refused = lab.run(&["history", "--ledger", url]);
    assert_eq!(refused.code, Some(2), "{}", refused.all());
    assert!(!said(&refused).contains("s3cret"), "{}", said(&refused));
    let _ = refused.says("SHIPLAP_LEDGER");
    lab.write("ledger.url", &format!("{url}\n"));
    let away = lab.run(&["history", "--ledger-file", "ledger.url"]);
    assert_eq!(away.code, Some(1), "{}", away.all());
    assert!(!said(&away).contains("s3cret"), "{}", said(&away));
    let _ = away.says("cannot be reached").says("shop on 127.0.0.1:1");
}

/// What it printed, without its command line.
fn said(run: &Run) -> String {
    format!("{}{}", run.stdout, run.stderr)
}
