//! Both databases keep what the traits promise.

use std::sync::Arc;
use std::time::Duration;

use shiplap_model::Store;
use shiplap_testkit::contract;

use crate::support::Bench;

mod sqlite {
    use super::*;

    async fn ledger(_: &str) -> Option<contract::ledger::Ground> {
        Some(two(Bench::sqlite()).await)
    }

    async fn orders(_: &str) -> Option<contract::orders::Ground> {
        Some(queue(Bench::sqlite()).await)
    }

    async fn tokens(_: &str) -> Option<contract::tokens::Ground> {
        Some(one(Bench::sqlite()))
    }

    shiplap_testkit::ledger_contract!(ledger);
    shiplap_testkit::orders_contract!(orders);
    shiplap_testkit::tokens_contract!(tokens);
}

mod postgres {
    use super::*;

    async fn ledger(_: &str) -> Option<contract::ledger::Ground> {
        Some(two(Bench::postgres().await?).await)
    }

    async fn orders(_: &str) -> Option<contract::orders::Ground> {
        Some(queue(Bench::postgres().await?).await)
    }

    async fn tokens(_: &str) -> Option<contract::tokens::Ground> {
        Bench::postgres().await.map(one)
    }

    shiplap_testkit::ledger_contract!(ledger);
    shiplap_testkit::orders_contract!(orders);
    shiplap_testkit::tokens_contract!(tokens);
}

async fn two(bench: Bench) -> contract::ledger::Ground {
    let other = bench.another().await;
    let (ledger, second) = (bench.ledger.clone(), other.ledger.clone());
    contract::ledger::Ground { ledger, other: second, keep: Box::new((bench, other)) }
}

async fn queue(bench: Bench) -> contract::orders::Ground {
    let second = bench.open(2).await;
    let (first, bench) = (bench.ledger.clone(), Arc::new(bench));
    let clock = bench.clone();
    let pass = move |time: Duration| {
        let clock = clock.clone();
        async move { clock.pass(time).await }
    };
    contract::orders::Ground::new(first, second, pass, bench)
}

fn one(bench: Bench) -> contract::tokens::Ground {
    let tokens: Arc<dyn Store> = bench.ledger.clone();
    contract::tokens::Ground { tokens, keep: Box::new(bench) }
}
