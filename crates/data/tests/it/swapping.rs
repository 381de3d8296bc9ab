//! The old database answers until the new one is whole.

use std::sync::Mutex;

use shiplap_data::app::{Event, Stage};

use crate::lab::Lab;
use crate::sampling::{CONFIG, SHOP};

#[tokio::test]
async fn the_old_database_answers_until_the_new_one_is_whole() {
    let Some(lab) = Lab::with(SHOP).await else { return };
    lab.sample(CONFIG).await.expect("the first sample is taken");
    lab.execute(&lab.target, "CREATE TABLE mine (id int)").await;
    let stages = Mutex::new(Vec::new());
    let listener = |event: Event| {
        if let Event::Begins(stage) = event {
            stages.lock().unwrap().push(stage);
        }
    };
    // A session of the application, which would otherwise keep the database in use.
    let application = lab.connect(&lab.target).await;
    application.simple_query("SELECT FROM mine").await.expect("the old database answers");
    lab.sample_telling(CONFIG, &listener).await.expect("the second sample is taken");
    assert_eq!(stages.lock().unwrap().last(), Some(&Stage::Swap));
    let mine = "SELECT to_regclass('mine')::text";
    assert_eq!(lab.value(&lab.target, mine).await, "");
    assert_eq!(lab.targets().await, "target");
    lab.end().await;
}

#[tokio::test]
async fn after_a_failure_the_old_database_is_there_and_nothing_else() {
    let Some(lab) = Lab::with(SHOP).await else { return };
    lab.sample(CONFIG).await.expect("the first sample is taken");
    let rows = "SELECT count(*)::text FROM people";
    let before = lab.value(&lab.target, rows).await;
    // Two handles that differ only in what the column's mask does not see: the index is refused.
    let broken = CONFIG.replace("people.handle: handle", "people.handle: { set: same }")
        .replace("votes.voter: handle", "votes.voter: { set: same }");
    let failed = lab.sample(&broken).await;
    assert!(failed.is_err(), "one value for all breaks a unique key");
    assert_eq!(lab.value(&lab.target, rows).await, before);
    assert_eq!(lab.targets().await, "target");
    lab.end().await;
}

#[tokio::test]
async fn what_a_run_that_was_cut_off_left_is_dropped_and_nothing_else() {
    let Some(lab) = Lab::with(SHOP).await else { return };
    let stray = format!("{}~new", lab.target);
    lab.execute("postgres", &format!("CREATE DATABASE \"{stray}\"")).await;
    lab.execute(&stray, "CREATE TABLE somebodys (id int)").await;
    let refused = lab.sample(CONFIG).await;
    assert!(format!("{refused:?}").contains("somebody else's"), "{refused:?}");
    lab.execute(&stray, "DROP TABLE somebodys").await;
    lab.sample(CONFIG).await.expect("an empty one is ours, cut off before it was marked");
    assert_eq!(lab.targets().await, "target");
    lab.end().await;
}
