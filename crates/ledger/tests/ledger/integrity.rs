//! History cannot be changed unseen.

use shiplap_model::{LedgerError, Outcome, StepState};

use crate::support::{Bench, deployment, line, on_both, scope};

on_both!([
    a_change_of_any_field_is_found_with_the_number_of_its_entry,
    entries_that_changed_places_are_found,
    a_cut_off_end_is_found,
    a_changed_moved_or_lost_binding_is_found,
    a_changed_binding_is_not_given_out,
    nothing_is_written_after_a_cut_off_end,
    the_database_itself_refuses_to_change_an_entry,
    entries_in_an_order_that_cannot_be_are_found,
]);

/// Two deployments, entries 1 to 8, tampered with by `sql`; what `verify` says then.
async fn after(like: &Bench, sql: &str) -> String {
    let bench = like.another().await;
    let prod = scope("prod");
    bench.deploy(&prod, "a", Outcome::Done).await;
    bench.deploy(&prod, "b", Outcome::Done).await;
    assert_eq!(bench.ledger.verify().await.unwrap(), 8);
    bench.drop_triggers().await;
    bench.tamper(sql).await.unwrap();
    match bench.ledger.verify().await {
        Err(LedgerError::Damaged(text)) => text,
        other => panic!("{sql}: {other:?}"),
    }
}

async fn a_change_of_any_field_is_found_with_the_number_of_its_entry(bench: Bench) {
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
        let text = after(&bench, sql).await;
        assert!(text.contains("entry 5 "), "{sql}: {text}");
    }
}

async fn entries_that_changed_places_are_found(bench: Bench) {
    let sql = "UPDATE entries SET seq = 99 WHERE seq = 3; \
               UPDATE entries SET seq = 3 WHERE seq = 4; \
               UPDATE entries SET seq = 4 WHERE seq = 99;";
    assert!(after(&bench, sql).await.contains("entry 3 "));
}

async fn a_cut_off_end_is_found(bench: Bench) {
    assert_eq!(
        after(&bench, "DELETE FROM entries WHERE seq = 8").await,
        "entry 7 is the last, but 8 were written"
    );
    let anchor_too = "DELETE FROM entries WHERE seq = 8; UPDATE chain SET head_seq = 7";
    assert_eq!(after(&bench, anchor_too).await, "entry 7 is not the one that was written last");
    assert_eq!(after(&bench, "DELETE FROM chain").await, "its anchor is missing");
}

async fn a_changed_moved_or_lost_binding_is_found(bench: Bench) {
    let changed = "UPDATE bindings SET sealed = zeroblob(length(sealed)) WHERE entry = 5";
    assert_eq!(after(&bench, changed).await, "the binding of entry 5 was changed");
    let moved = "UPDATE bindings SET (nonce, sealed) = \
                 (SELECT nonce, sealed FROM bindings WHERE entry = 1) WHERE entry = 5";
    assert_eq!(after(&bench, moved).await, "the binding of entry 5 was changed");
    assert_eq!(
        after(&bench, "DELETE FROM bindings WHERE entry = 5").await,
        "entry 5 has lost its binding"
    );
}

async fn a_changed_binding_is_not_given_out(bench: Bench) {
    let prod = scope("prod");
    bench.deploy(&prod, "a", Outcome::Done).await;
    bench.tamper("UPDATE bindings SET nonce = zeroblob(24)").await.unwrap();
    let refused = bench.ledger.binding(&prod, 1).await.unwrap_err();
    assert!(matches!(refused, LedgerError::Damaged(text) if text.contains("entry 1 was changed")));
}

async fn nothing_is_written_after_a_cut_off_end(bench: Bench) {
    let prod = scope("prod");
    bench.deploy(&prod, "a", Outcome::Done).await;
    bench.drop_triggers().await;
    bench.tamper("DELETE FROM entries WHERE seq = 4").await.unwrap();
    let lease = bench.lease(&prod).await;
    let refused = bench.ledger.begin(&deployment(&lease, "b")).await.unwrap_err();
    assert!(matches!(refused, LedgerError::Damaged(_)), "else the cut would be healed over");
}

async fn the_database_itself_refuses_to_change_an_entry(bench: Bench) {
    bench.deploy(&scope("prod"), "a", Outcome::Done).await;
    let mut statements = vec![
        "UPDATE entries SET payload = '{}' WHERE seq = 2",
        "DELETE FROM entries WHERE seq = 4",
        "INSERT INTO entries SELECT 9, kind, project, environment, number, payload, at_ms, \
         prev_hash, hash FROM entries WHERE seq = 2",
    ];
    statements.push(match bench.database {
        None => "INSERT OR REPLACE INTO entries SELECT * FROM entries WHERE seq = 2",
        Some(_) => "TRUNCATE entries CASCADE",
    });
    for sql in statements {
        let error = bench.tamper(sql).await.unwrap_err();
        assert!(error.contains("an entry of the ledger"), "{sql}: {error}");
    }
    assert_eq!(bench.ledger.verify().await.unwrap(), 4);
}

/// Somebody who has the key writes what no deployer would.
async fn entries_in_an_order_that_cannot_be_are_found(bench: Bench) {
    let prod = scope("prod");
    let lease = bench.lease(&prod).await;
    let ledger = &bench.ledger;
    // A journal from before there were rules takes the lines; then it claims to be newer.
    ledger.begin(&deployment(&lease, "a")).await.unwrap();
    bench.drop_triggers().await;
    let version = async |from: u32, to: u32| {
        let (old, new) =
            (format!("\"version\":{from},\"who\""), format!("\"version\":{to},\"who\""));
        let sql = format!(
            "UPDATE entries SET payload = replace(payload, '{old}', '{new}') WHERE seq = 1"
        );
        bench.tamper(&sql).await.unwrap();
    };
    version(2, 1).await;
    ledger.record(&lease, 1, &line(StepState::Finished)).await.unwrap();
    version(1, 2).await;
    match ledger.verify().await {
        Err(LedgerError::Damaged(text)) => assert_eq!(
            text,
            "entry 2 cannot stand there: step 1 (pull b on vm1) finished before it began"
        ),
        other => panic!("{other:?}"),
    }
}
