//! SQLite keeps what the traits promise.

use std::sync::Arc;
use std::time::Duration;

use shiplap_ledger::SqliteLedger;
use shiplap_testkit::contract;

use crate::support::Bench;

async fn ground(_: &str) -> Option<contract::ledger::Ground> {
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &str| Arc::new(SqliteLedger::open(&folder.path().join(name)).unwrap());
    let (ledger, other) = (open("one"), open("other"));
    Some(contract::ledger::Ground { ledger, other, keep: Box::new(folder) })
}

shiplap_testkit::ledger_contract!(ground);

async fn orders(_: &str) -> Option<contract::orders::Ground> {
    let bench = Bench::new();
    let (machine, second) = (bench.machine.clone(), bench.open(2));
    let pass = move |time: Duration| {
        machine.pass(time);
        std::future::ready(())
    };
    let (first, second) = (Arc::new(bench.ledger), Arc::new(second));
    Some(contract::orders::Ground::new(first, second, pass, bench.dir))
}

shiplap_testkit::orders_contract!(orders);

async fn tokens(_: &str) -> Option<contract::tokens::Ground> {
    let folder = tempfile::tempdir().unwrap();
    let tokens = Arc::new(SqliteLedger::open(folder.path()).unwrap());
    Some(contract::tokens::Ground { tokens, keep: Box::new(folder) })
}

shiplap_testkit::tokens_contract!(tokens);
