//! A disk that is full, as seen through the limit on pages that SQLite keeps per connection.

use super::*;
use shiplap_model::StepState;

const TTL: Duration = Duration::from_secs(60);

fn limit_pages(ledger: &SqliteLedger, pages: i64) {
    ledger
        .connection()
        .query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
        .unwrap();
}

#[tokio::test]
async fn on_a_full_disk_nothing_is_half_written_and_later_it_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = SqliteLedger::open(dir.path()).unwrap();
    let scope = Scope { project: "shop".into(), environment: "prod".into() };
    let lease = ledger.acquire(&scope, "ada", TTL).await.unwrap().unwrap().key;
    let release = StoredRelease { version: 1, services: Default::default() };
    let deployment = NewDeployment {
        scope: scope.clone(),
        kind: "deploy".into(),
        who: "ada".into(),
        message: None,
        release: release.clone(),
        binding: Secret::new(vec![1; 100_000]),
        plan: serde_json::Value::Null,
        request: Default::default(),
        lease: lease.clone(),
        after: 0,
    };
    // A limit below the present size means the present size.
    limit_pages(&ledger, 1);
    let full = ledger.begin(&deployment).await.unwrap_err();
    assert!(matches!(full, LedgerError::DiskFull(_)), "{full}");
    assert_eq!(ledger.verify().await.unwrap(), 0);
    assert_eq!(ledger.scopes().await.unwrap(), []);

    limit_pages(&ledger, 1_000_000);
    assert_eq!(ledger.begin(&deployment).await.unwrap(), 1);
    limit_pages(&ledger, 1);
    let line = JournalEntry {
        step: 1,
        what: "pull".repeat(10_000),
        state: StepState::Started,
        at_ms: 0,
        detail: None,
        made: None,
    };
    let full = ledger.record(&lease, 1, &line).await.unwrap_err();
    assert!(matches!(full, LedgerError::DiskFull(_)), "{full}");
    assert_eq!(ledger.journal(&scope, 1).await.unwrap(), []);

    limit_pages(&ledger, 1_000_000);
    ledger.record(&lease, 1, &line).await.unwrap();
    ledger.end(&lease, 1, Outcome::Done, None, &release).await.unwrap();
    assert_eq!(ledger.verify().await.unwrap(), 3);
}
