//! One deployer per environment.

use std::time::Duration;

use shiplap_model::{LeaseHeld, LeaseKey, LedgerError, Outcome, StepState};

use crate::support::{Bench, START_MS, TTL, deployment, line, on_both, release, scope};

on_both!([
    a_held_lease_is_refused_with_its_holder,
    a_released_lease_is_free_and_its_generation_grows,
    a_lease_lasts_as_long_as_it_was_taken_or_renewed_for,
    an_expired_lease_that_nobody_took_is_still_ours,
    the_lease_of_a_dead_process_is_taken_over_at_once,
    a_deployer_that_lost_its_lease_writes_nothing,
    the_lease_of_one_scope_is_none_for_another,
    of_many_that_race_for_a_lease_exactly_one_gets_it
]);

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap()
}

fn is_lost<T>(answer: Result<T, LedgerError>) -> bool {
    matches!(answer, Err(LedgerError::LeaseLost(_)))
}

async fn a_held_lease_is_refused_with_its_holder(bench: Bench) {
    let prod = scope("prod");
    let other = bench.open(2).await;
    assert_eq!(other.holder(&prod).await.unwrap(), None);
    let lease = bench.ledger.acquire(&prod, "ada@laptop", TTL).await.unwrap().unwrap();
    assert_eq!(lease.key, LeaseKey { scope: prod.clone(), generation: 1 });
    assert_eq!(lease.expires_ms, START_MS + millis(TTL));

    let held = LeaseHeld {
        scope: prod.clone(),
        holder: "ada@laptop".into(),
        since_ms: START_MS,
        expires_ms: START_MS + millis(TTL),
    };
    assert_eq!(other.acquire(&prod, "bob@ci", TTL).await.unwrap(), Err(held.clone()));
    assert_eq!(other.holder(&prod).await.unwrap(), Some(held.clone()));
    let again = bench.ledger.acquire(&prod, "ada@laptop", TTL).await.unwrap();
    assert_eq!(again, Err(held), "the holder itself is refused too");
    assert!(other.acquire(&scope("dev"), "bob@ci", TTL).await.unwrap().is_ok());
}

async fn a_released_lease_is_free_and_its_generation_grows(bench: Bench) {
    let prod = scope("prod");
    for generation in 1..=3 {
        let key = bench.lease(&prod).await;
        assert_eq!(key.generation, generation);
        bench.ledger.release(&key).await.unwrap();
        assert_eq!(bench.ledger.holder(&prod).await.unwrap(), None);
        bench.ledger.release(&key).await.unwrap();
        assert!(is_lost(bench.ledger.renew(&key, TTL).await));
    }
}

async fn a_lease_lasts_as_long_as_it_was_taken_or_renewed_for(bench: Bench) {
    let prod = scope("prod");
    let other = bench.open(2).await;
    let key = bench.lease(&prod).await;

    bench.pass(TTL - Duration::from_millis(1)).await;
    assert!(other.acquire(&prod, "bob@ci", TTL).await.unwrap().is_err());
    let renewed = bench.ledger.renew(&key, TTL).await.unwrap();
    assert_eq!(renewed.expires_ms, START_MS + 2 * millis(TTL) - 1);
    let held = other.holder(&prod).await.unwrap().unwrap();
    assert_eq!((held.since_ms, held.expires_ms), (START_MS, renewed.expires_ms));

    bench.pass(TTL - Duration::from_millis(1)).await;
    assert!(other.holder(&prod).await.unwrap().is_some());
    bench.pass(Duration::from_millis(1)).await;
    assert_eq!(other.holder(&prod).await.unwrap(), None);
    let taken = other.acquire(&prod, "bob@ci", TTL).await.unwrap().unwrap();
    assert_eq!(taken.key.generation, 2);
}

async fn an_expired_lease_that_nobody_took_is_still_ours(bench: Bench) {
    let prod = scope("prod");
    let key = bench.lease(&prod).await;
    bench.pass(TTL * 2).await;
    bench.ledger.begin(&deployment(&key, "a")).await.unwrap();
    bench.ledger.renew(&key, TTL).await.unwrap();
    assert!(bench.open(2).await.acquire(&prod, "bob@ci", TTL).await.unwrap().is_err());
}

async fn the_lease_of_a_dead_process_is_taken_over_at_once(bench: Bench) {
    let prod = scope("prod");
    bench.lease(&prod).await;
    let other = bench.open(2).await;
    bench.machine.kill(1);
    assert_eq!(other.holder(&prod).await.unwrap(), None);
    let taken = other.acquire(&prod, "bob@ci", TTL).await.unwrap().unwrap();
    assert_eq!(taken.key.generation, 2);
}

#[tokio::test]
async fn a_wall_clock_that_jumps_takes_a_lease_from_nobody() {
    let bench = Bench::sqlite();
    let prod = scope("prod");
    bench.lease(&prod).await;
    let other = bench.open(2).await;
    bench.machine.set_wall_clock(START_MS + 1_000 * millis(TTL));
    assert!(other.acquire(&prod, "bob@ci", TTL).await.unwrap().is_err());
    bench.machine.set_wall_clock(0);
    assert!(other.acquire(&prod, "bob@ci", TTL).await.unwrap().is_err());
    bench.pass(TTL).await;
    assert!(other.acquire(&prod, "bob@ci", TTL).await.unwrap().is_ok());
}

#[tokio::test]
async fn after_a_reboot_the_wall_clock_decides() {
    let bench = Bench::sqlite();
    let prod = scope("prod");
    bench.pass(TTL * 100).await;
    bench.lease(&prod).await;
    bench.machine.reboot();
    let other = bench.open(1).await;
    bench.pass(TTL - Duration::from_millis(1)).await;
    assert!(other.acquire(&prod, "bob@ci", TTL).await.unwrap().is_err());
    bench.pass(Duration::from_millis(1)).await;
    assert!(other.acquire(&prod, "bob@ci", TTL).await.unwrap().is_ok());
}

async fn a_deployer_that_lost_its_lease_writes_nothing(bench: Bench) {
    let prod = scope("prod");
    let stale = bench.lease(&prod).await;
    let number = bench.ledger.begin(&deployment(&stale, "a")).await.unwrap();
    bench.pass(TTL).await;
    let other = bench.open(2).await;
    let current = other.acquire(&prod, "bob@ci", TTL).await.unwrap().unwrap().key;

    let ledger = &bench.ledger;
    assert!(is_lost(ledger.begin(&deployment(&stale, "b")).await));
    assert!(is_lost(ledger.record(&stale, number, &line(StepState::Started)).await));
    assert!(is_lost(ledger.end(&stale, number, Outcome::Done, None, &release("a")).await));
    assert!(is_lost(ledger.renew(&stale, TTL).await));
    ledger.release(&stale).await.unwrap();
    assert!(other.holder(&prod).await.unwrap().is_some(), "a stale release frees nothing");
    assert_eq!(other.verify().await.unwrap(), 1);

    other.end(&current, number, Outcome::Interrupted, None, &release("a")).await.unwrap();
}

async fn the_lease_of_one_scope_is_none_for_another(bench: Bench) {
    let (prod, dev) = (scope("prod"), scope("dev"));
    bench.lease(&prod).await;
    let dev_lease = bench.lease(&dev).await;
    let mut mixed = deployment(&dev_lease, "a");
    mixed.scope = prod.clone();
    assert!(is_lost(bench.ledger.begin(&mixed).await), "though both are of generation 1");
    assert_eq!(bench.ledger.scopes().await.unwrap(), []);
}

async fn of_many_that_race_for_a_lease_exactly_one_gets_it(bench: Bench) {
    const RACERS: u32 = 8;
    let runtime = tokio::runtime::Handle::current();
    let mut racers = Vec::new();
    for racer in 0..RACERS {
        let (ledger, runtime) = (bench.open(10 + racer).await, runtime.clone());
        racers.push(tokio::task::spawn_blocking(move || {
            runtime.block_on(ledger.acquire(&scope("prod"), "racer", TTL)).unwrap().ok()
        }));
    }
    let mut winners = Vec::new();
    for racer in racers {
        winners.extend(racer.await.unwrap().map(|lease| lease.key.generation));
    }
    assert_eq!(winners, [1]);
}
