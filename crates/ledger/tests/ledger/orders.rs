//! What servers on one machine are to each other.

use std::time::Duration;

use shiplap_model::{NewOrder, Wanted};

use crate::support::{Bench, START_MS, TTL, on_both, scope};

on_both!([the_order_of_a_dead_server_is_taken_again_at_once]);

async fn place(bench: &Bench, environment: &str) -> u64 {
    let order = NewOrder {
        scope: scope(environment),
        wanted: Wanted::Rollback { services: Default::default(), to: None },
        who: "ada@laptop".into(),
        token: None,
        message: None,
        revision: None,
        idempotency_key: None,
        settle: Duration::ZERO,
    };
    bench.ledger.place(&order).await.unwrap().id
}

async fn the_order_of_a_dead_server_is_taken_again_at_once(bench: Bench) {
    let id = place(&bench, "prod").await;
    let first = bench.ledger.claim("one", TTL).await.unwrap().unwrap();
    let other = bench.open(2).await;
    assert_eq!(other.claim("two", TTL).await.unwrap(), None);
    bench.machine.kill(1);
    let again = other.claim("two", TTL).await.unwrap().unwrap();
    assert_eq!((again.order.id, again.resumed), (id, true));
    assert!(again.generation > first.generation);
}

#[tokio::test]
async fn a_wall_clock_that_jumps_takes_an_order_from_nobody() {
    let bench = Bench::sqlite();
    place(&bench, "prod").await;
    let claim = bench.ledger.claim("one", TTL).await.unwrap().unwrap();
    let other = bench.open(2).await;
    bench.machine.set_wall_clock(START_MS * 2);
    assert_eq!(other.claim("two", TTL).await.unwrap(), None);
    bench.pass(TTL / 2).await;
    bench.ledger.keep(&claim, TTL).await.unwrap();
    bench.machine.set_wall_clock(0);
    bench.pass(TTL / 2).await;
    assert_eq!(other.claim("two", TTL).await.unwrap(), None);
    bench.pass(TTL / 2).await;
    assert!(other.claim("two", TTL).await.unwrap().is_some());
}

#[tokio::test]
async fn a_wall_clock_that_was_set_back_makes_no_order_wait() {
    let bench = Bench::sqlite();
    let id = place(&bench, "prod").await;
    bench.machine.set_wall_clock(START_MS - 3_600_000);
    assert_eq!(bench.ledger.claim("one", TTL).await.unwrap().unwrap().order.id, id);
}
