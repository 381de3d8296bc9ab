//! The old database answers until the new one is whole.

use std::sync::Mutex;
use std::time::Instant;

use shiplap_data::app::{Event, Stage};

use crate::lab::{Lab, thorough};
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
    let broken = CONFIG
        .replace("people.handle: handle", "people.handle: { set: same }")
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

/// A run that is cut off gets no chance to tidy up: its future is dropped where it stands.
#[tokio::test]
async fn wherever_a_run_is_cut_off_the_old_database_answers_and_the_next_run_succeeds() {
    let Some(lab) = Lab::with(SHOP).await else { return };
    lab.sample(CONFIG).await.expect("the first sample is taken");
    lab.execute(&lab.target, "CREATE TABLE mine (id int)").await;
    let mine = "SELECT to_regclass('mine')::text";
    // Events of a run, from reading the schema to the swap.
    for point in [2, 3, 4, 5, 8, 12, 15, 16, 17, 18] {
        let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
        let listener = move |event: Event| sender.send(event).expect("somebody listens");
        let run = lab.sample_telling(CONFIG, &listener);
        let cut = async {
            for _ in 0..point {
                events.recv().await;
            }
        };
        tokio::select! {
            biased;
            () = cut => {}
            done = run => panic!("it ended before event {point}: {done:?}"),
        }
        assert_eq!(lab.value(&lab.target, mine).await, "mine", "after event {point}");
    }
    lab.sample(CONFIG).await.expect("the next run succeeds");
    assert_eq!(lab.value(&lab.target, mine).await, "");
    assert_eq!(lab.targets().await, "target");
    lab.end().await;
}

/// Writers at work on the source, together some hundred transactions a second.
const WRITERS: u32 = 4;

#[tokio::test]
async fn rows_that_change_while_a_sample_is_taken_leave_no_orphan() {
    let Some(lab) = Lab::with(SHOP).await else { return };
    let mut writing = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let client = lab.connect(&lab.source).await;
        writing.spawn(async move {
            for number in 0.. {
                // A parent, its children, and a chain of deletions, each visible as soon as it is
                // done. Writers may meet at a row; then one of them goes on with the next.
                let sql = format!(
                    "WITH p AS (INSERT INTO people (handle, email, profile, password_hash)
                         VALUES ('w{writer}-{number}', 'w{writer}-{number}@mail.example', '{{}}', 'x')
                         RETURNING id)
                     INSERT INTO items (seller, title) SELECT id, 'w' FROM p;
                     INSERT INTO reviews SELECT max(id), 1, max(seller), 'w' FROM items
                         ON CONFLICT DO NOTHING;
                     DELETE FROM visits WHERE id IN (SELECT id FROM visits LIMIT 5);
                     DELETE FROM follows WHERE (a, b) IN (SELECT a, b FROM follows LIMIT 3)"
                );
                let _ = client.batch_execute(&sql).await;
            }
        });
    }
    let config = CONFIG.replace("20%", "60%");
    let (begun, runs) = (Instant::now(), if thorough() { 20 } else { 3 });
    for _ in 0..runs {
        // The server checks every key before the swap: an orphan would fail the run.
        lab.sample(&config).await.expect("the sample is whole");
    }
    let elapsed = begun.elapsed();
    writing.abort_all();
    let written = "SELECT count(*)::text FROM people WHERE handle LIKE 'w%'";
    let written: u32 = lab.value(&lab.source, written).await.parse().unwrap();
    println!(
        "{runs} runs, {:.0} transactions a second",
        f64::from(written) / elapsed.as_secs_f64()
    );
    assert!(written > 100, "{written}: the writers wrote all along");
    lab.end().await;
}
