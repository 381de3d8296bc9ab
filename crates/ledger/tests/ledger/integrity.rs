//! History cannot be changed unseen.

use rusqlite::Connection;
use shiplap_model::{Ledger, LedgerError, Outcome, StepState};

use crate::support::{Bench, deployment, line, scope};

const WITHOUT_TRIGGERS: &str = "DROP TRIGGER entries_stay_as_they_are; \
     DROP TRIGGER entries_stay; DROP TRIGGER entries_come_last;";

/// Two deployments, entries 1 to 8, tampered with by `sql`; what `verify` says then.
async fn after(sql: &str) -> String {
    let bench = Bench::new();
    let prod = scope("prod");
    bench.deploy(&prod, "a", Outcome::Done).await;
    bench.deploy(&prod, "b", Outcome::Done).await;
    assert_eq!(bench.ledger.verify().await.unwrap(), 8);
    let raw = bench.raw();
    raw.execute_batch(WITHOUT_TRIGGERS).unwrap();
    raw.execute_batch(sql).unwrap();
    match bench.ledger.verify().await {
        Err(LedgerError::Damaged(text)) => text,
        other => panic!("{sql}: {other:?}"),
    }
}

#[tokio::test]
async fn a_change_of_any_field_is_found_with_the_number_of_its_entry() {
    for sql in [
        "UPDATE entries SET payload = replace(payload, 'ada', 'eve') WHERE seq = 5",
        "UPDATE entries SET payload = payload || ' ' WHERE seq = 5",
        "UPDATE entries SET at_ms = at_ms + 1 WHERE seq = 5",
        "UPDATE entries SET number = 7 WHERE seq = 5",
        "UPDATE entries SET project = 'sho', environment = 'pprod' WHERE seq = 5",
        "UPDATE entries SET kind = 'step' WHERE seq = 5",
        "UPDATE entries SET hash = zeroblob(32) WHERE seq = 5",
        "UPDATE entries SET prev_hash = zeroblob(32) WHERE seq = 5",
        "DELETE FROM bindings WHERE entry = 5; DELETE FROM entries WHERE seq = 5",
    ] {
        let text = after(sql).await;
        assert!(text.contains("entry 5 "), "{sql}: {text}");
    }
}

#[tokio::test]
async fn entries_that_changed_places_are_found() {
    let sql = "UPDATE entries SET seq = 99 WHERE seq = 3; \
               UPDATE entries SET seq = 3 WHERE seq = 4; \
               UPDATE entries SET seq = 4 WHERE seq = 99;";
    assert!(after(sql).await.contains("entry 3 "));
}

#[tokio::test]
async fn a_cut_off_end_is_found() {
    assert_eq!(
        after("DELETE FROM entries WHERE seq = 8").await,
        "entry 7 is the last, but 8 were written"
    );
    let anchor_too = "DELETE FROM entries WHERE seq = 8; UPDATE chain SET head_seq = 7";
    assert_eq!(after(anchor_too).await, "entry 7 is not the one that was written last");
    assert_eq!(after("DELETE FROM chain").await, "its anchor is missing");
}

#[tokio::test]
async fn a_changed_moved_or_lost_binding_is_found() {
    let changed = "UPDATE bindings SET sealed = zeroblob(length(sealed)) WHERE entry = 5";
    assert_eq!(after(changed).await, "the binding of entry 5 was changed");
    let moved = "UPDATE bindings SET (nonce, sealed) = \
                 (SELECT nonce, sealed FROM bindings WHERE entry = 1) WHERE entry = 5";
    assert_eq!(after(moved).await, "the binding of entry 5 was changed");
    assert_eq!(after("DELETE FROM bindings WHERE entry = 5").await, "entry 5 has lost its binding");
}

#[tokio::test]
async fn a_changed_binding_is_not_given_out() {
    let bench = Bench::new();
    let prod = scope("prod");
    bench.deploy(&prod, "a", Outcome::Done).await;
    bench.raw().execute("UPDATE bindings SET nonce = zeroblob(24)", []).unwrap();
    let refused = bench.ledger.binding(&prod, 1).await.unwrap_err();
    assert!(matches!(refused, LedgerError::Damaged(text) if text.contains("entry 1 was changed")));
}

#[tokio::test]
async fn nothing_is_written_after_a_cut_off_end() {
    let bench = Bench::new();
    let prod = scope("prod");
    bench.deploy(&prod, "a", Outcome::Done).await;
    let raw = bench.raw();
    raw.execute_batch(WITHOUT_TRIGGERS).unwrap();
    raw.execute("DELETE FROM entries WHERE seq = 4", []).unwrap();
    let lease = bench.lease(&prod).await;
    let refused = bench.ledger.begin(&deployment(&lease, "b")).await.unwrap_err();
    assert!(matches!(refused, LedgerError::Damaged(_)), "else the cut would be healed over");
}

#[tokio::test]
async fn the_database_itself_refuses_to_change_an_entry() {
    let bench = Bench::new();
    bench.deploy(&scope("prod"), "a", Outcome::Done).await;
    let raw: Connection = bench.raw();
    for sql in [
        "UPDATE entries SET payload = '{}' WHERE seq = 2",
        "DELETE FROM entries WHERE seq = 4",
        "INSERT OR REPLACE INTO entries SELECT * FROM entries WHERE seq = 2",
        "INSERT INTO entries SELECT 9, kind, project, environment, number, payload, at_ms, \
         prev_hash, hash FROM entries WHERE seq = 2",
    ] {
        let error = raw.execute(sql, []).unwrap_err().to_string();
        assert!(error.contains("an entry of the ledger"), "{sql}: {error}");
    }
    assert_eq!(bench.ledger.verify().await.unwrap(), 4);
}

/// Somebody who has the key writes what no deployer would.
#[tokio::test]
async fn entries_in_an_order_that_cannot_be_are_found() {
    let bench = Bench::new();
    let prod = scope("prod");
    let lease = bench.lease(&prod).await;
    let ledger = &bench.ledger;
    // A journal from before there were rules takes the lines; then it claims to be newer.
    ledger.begin(&deployment(&lease, "a")).await.unwrap();
    let raw = bench.raw();
    raw.execute_batch(WITHOUT_TRIGGERS).unwrap();
    let version = |from: u32, to: u32| {
        let (old, new) =
            (format!("\"version\":{from},\"who\""), format!("\"version\":{to},\"who\""));
        let sql = format!(
            "UPDATE entries SET payload = replace(payload, '{old}', '{new}') WHERE seq = 1"
        );
        assert_eq!(raw.execute(&sql, []).unwrap(), 1);
    };
    version(2, 1);
    ledger.record(&lease, 1, &line(StepState::Finished)).await.unwrap();
    version(1, 2);
    match ledger.verify().await {
        Err(LedgerError::Damaged(text)) => assert_eq!(
            text,
            "entry 2 cannot stand there: step 1 (pull b on vm1) finished before it began"
        ),
        other => panic!("{other:?}"),
    }
}
