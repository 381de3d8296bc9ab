//! Which replica gets a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use hyper::{Request, Response};
use shiplap_edge::table::{Canary, Eject, Group, HeaderMatch, Probe};
use shiplap_edge::{Pool, Replica};

use crate::support::*;

/// Answers this status, whatever it is at the moment, and its name.
async fn with_status(name: &'static str) -> (Upstream, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(200));
    let said = status.clone();
    let app = Upstream::start(move |_| {
        let status = said.load(Ordering::SeqCst);
        async move { Response::builder().status(status).body(body(name)).unwrap() }
    })
    .await;
    (app, status)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_busy_replica_is_chosen() {
    let (go, gate) = tokio::sync::watch::channel(false);
    let slow = Upstream::start(move |_| {
        let mut gate = gate.clone();
        async move {
            let _ = gate.wait_for(|go| *go).await;
            text("slow")
        }
    })
    .await;
    let fast = Upstream::named("fast").await;
    let edge = Edge::start().await;
    let address = edge.serve("api", http(vec![slow.replica("slow"), fast.replica("fast")])).await;
    let mut pending = Vec::new();
    while slow.requests() == 0 {
        pending.push(tokio::spawn(get(address, "/")));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for _ in 0..50 {
        assert_eq!(get(address, "/").await.1, "fast 0");
    }
    assert_eq!(slow.requests(), 1);
    go.send(true).unwrap();
    for pending in pending {
        pending.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_take_a_replica_out_and_back_in_but_never_the_last() {
    let ((a, a_status), (b, b_status)) = (with_status("a").await, with_status("b").await);
    let edge = Edge::start().await;
    let mut probed = http(vec![a.replica("a"), b.replica("b")]);
    probed.probe = Some(Probe { interval_ms: 100, ..Probe::default() });
    probed.eject.failures = 0;
    let address = edge.serve("api", probed).await;
    let wells = |status: &shiplap_edge::api::Status| {
        let replicas = &status.pools["api"].replicas;
        (replicas[0].well, replicas[1].well)
    };
    a_status.store(503, Ordering::SeqCst);
    edge.wait(|status| wells(status) == (false, true)).await;
    for _ in 0..10 {
        assert_eq!(get(address, "/").await.1, "b");
    }
    b_status.store(503, Ordering::SeqCst);
    edge.wait(|status| wells(status) == (false, false)).await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20 {
        seen.insert(get(address, "/").await.1);
    }
    assert_eq!(seen.len(), 2, "all are asked while none is well");
    a_status.store(200, Ordering::SeqCst);
    edge.wait(|status| wells(status) == (true, false)).await;
    for _ in 0..10 {
        assert_eq!(get(address, "/").await.1, "a");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_keeps_failing_is_left_alone_for_a_while() {
    let ((a, _), (b, b_status)) = (with_status("a").await, with_status("b").await);
    let edge = Edge::start().await;
    let mut pool = http(vec![a.replica("a"), b.replica("b")]);
    pool.eject = Eject { failures: 3, for_ms: 1500 };
    let address = edge.serve("api", pool).await;
    b_status.store(500, Ordering::SeqCst);
    let mut failed = 0;
    for _ in 0..40 {
        failed += u32::from(get(address, "/").await.0 == 500);
    }
    assert_eq!(failed, 3);
    let status = edge.client.status().await.unwrap();
    assert!(!status.pools["api"].replicas[1].well);
    b_status.store(200, Ordering::SeqCst);
    edge.wait(|status| status.pools["api"].replicas[1].well).await;
    until_answered(address, "b").await;
    // The only one is never left alone.
    edge.switch("api", vec![b.replica("b")]).await;
    b_status.store(500, Ordering::SeqCst);
    for _ in 0..10 {
        assert_eq!(get(address, "/").await.1, "b");
    }
}

async fn until_answered(address: std::net::SocketAddr, by: &str) {
    let began = std::time::Instant::now();
    while get(address, "/").await.1 != by {
        assert!(began.elapsed() < LONG);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_replica_beside_old_ones_gets_little_at_first() {
    let (go, gate) = tokio::sync::watch::channel(false);
    let waiting = |name: &'static str| {
        let gate = gate.clone();
        Upstream::start(move |_| {
            let mut gate = gate.clone();
            async move {
                let _ = gate.wait_for(|go| *go).await;
                text(name)
            }
        })
    };
    let (old, new) = (waiting("old").await, waiting("new").await);
    let edge = Edge::start().await;
    let mut pool = http(vec![old.replica("old")]);
    pool.slow_start_ms = 1;
    let address = edge.serve("api", pool).await;
    go.send(true).unwrap();
    get(address, "/").await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    // Two are needed for shares to be looked at: then the old one has grown.
    edge.switch("api", vec![old.replica("old"), old.replica("twin")]).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    for _ in 0..4 {
        get(address, "/").await;
    }
    go.send(false).unwrap();
    edge.change("api", |pool| {
        pool.slow_start_ms = 60_000;
        pool.replicas = vec![old.replica("old"), new.replica("new")];
    })
    .await;
    let before = old.requests();
    let pending: Vec<_> = (0..40).map(|_| tokio::spawn(get(address, "/"))).collect();
    until("all have come", || old.requests() - before + new.requests() == 40).await;
    assert!((1..=6).contains(&new.requests()), "{} of 40", new.requests());
    go.send(true).unwrap();
    for pending in pending {
        pending.await.unwrap();
    }
}

fn canary_pool(stable: &Upstream, canary: &Upstream, rule: Canary) -> Pool {
    let canary = Replica { group: Group::Canary, ..canary.replica("new") };
    Pool { canary: Some(rule), ..http(vec![stable.replica("old"), canary]) }
}

async fn ask(address: std::net::SocketAddr, name: &str, value: &str) -> (String, Option<String>) {
    let request = Request::get("/").header("host", "a").header(name, value).body(body("")).unwrap();
    let answer = Http::connect(address).await.unwrap().send(request).await.unwrap();
    let cookie = answer.headers().get("set-cookie").map(|value| value.to_str().unwrap().to_owned());
    (read(answer).await.unwrap().1, cookie)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_gets_its_share_and_who_asks_for_it() {
    let (old, new) = (Upstream::named("old").await, Upstream::named("new").await);
    let edge = Edge::start().await;
    let header = HeaderMatch { name: "x-try".to_owned(), value: "1".to_owned() };
    let rule = Canary { permille: 200, header: Some(header), cookie: Some("try".to_owned()) };
    let address = edge.serve("api", canary_pool(&old, &new, rule)).await;
    assert_eq!(ask(address, "x-try", "1").await, ("new 0".to_owned(), None));
    assert_eq!(ask(address, "cookie", "try=canary").await, ("new 0".to_owned(), None));
    assert_eq!(ask(address, "cookie", "try=stable").await, ("old 0".to_owned(), None));
    let mut kept = Http::connect(address).await.unwrap();
    let mut share = 0;
    for _ in 0..500 {
        let answer = kept.send(request(hyper::Method::GET, "/", "")).await.unwrap();
        let cookie = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
        let said = read(answer).await.unwrap().1;
        let group = if said == "new 0" { "canary" } else { "stable" };
        assert!(cookie.starts_with(&format!("try={group}; ")), "{said}: {cookie}");
        share += u32::from(said == "new 0");
    }
    assert!((60..140).contains(&share), "{share} of 500");
    // Each group has its own numbers.
    let status = edge.client.status().await.unwrap();
    let groups = &status.pools["api"].groups;
    let (canary, stable) = (&groups[&Group::Canary], &groups[&Group::Stable]);
    assert_eq!((canary.requests, stable.requests), (u64::from(share) + 2, 501 - u64::from(share)));
    assert_eq!((canary.errors, stable.errors), (0, 0));
    // A canary that is gone is no reason to wait.
    edge.switch("api", vec![old.replica("old")]).await;
    assert_eq!(ask(address, "x-try", "1").await.0, "old 0");
}
