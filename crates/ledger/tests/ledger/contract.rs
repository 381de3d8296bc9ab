//! SQLite keeps what the trait promises.

use std::sync::Arc;

use shiplap_ledger::SqliteLedger;
use shiplap_testkit::contract::ledger::Ground;

async fn ground(_: &str) -> Option<Ground> {
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &str| Arc::new(SqliteLedger::open(&folder.path().join(name)).unwrap());
    Some(Ground { ledger: open("one"), other: open("other"), keep: Box::new(folder) })
}

shiplap_testkit::ledger_contract!(ground);
