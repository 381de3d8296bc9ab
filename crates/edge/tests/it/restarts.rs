use std::process::Command;
use std::time::Duration;

use crate::support::*;

fn signal(pid: u32, signal: &str) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_starts_from_its_disk() {
    let a = Upstream::named("a").await;
    let mut edge = Edge::start().await;
    let address = edge.serve("api", http(vec![a.replica("a")])).await;
    edge.supervisor.kill().unwrap();
    edge.supervisor.wait().unwrap();
    edge.supervisor = spawn_supervisor(&edge.state(""), edge.client.socket());
    let pid = edge.supervisor.id();
    edge.wait(|status| status.supervisor_pid == pid && status.listeners[0].bound).await;
    let status = edge.client.status().await.unwrap();
    assert_eq!((status.generation, status.problems.len()), (1, 0));
    assert_eq!(get(address, "/").await.1, "a 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_socket_that_was_removed_comes_back() {
    let edge = Edge::start().await;
    let socket = edge.client.socket();
    // Its second name is made a moment after the first.
    let mut kept = socket.as_os_str().to_owned();
    kept.push(".kept");
    until("its second name", || std::path::Path::new(&kept).exists()).await;
    std::fs::remove_file(socket).unwrap();
    assert!(edge.client.status().await.is_err());
    until("its first name", || socket.exists()).await;
    edge.client.status().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_worker_under_load_loses_only_what_is_in_flight_and_refuses_nobody() {
    let a = Upstream::named("a").await;
    let edge = Edge::start().await;
    let address = edge.serve("api", http(vec![a.replica("a")])).await;
    let load = Load::start(address);
    for round in 1..=3 {
        load.more(100).await;
        signal(edge.client.status().await.unwrap().worker_pid, "-KILL");
        edge.wait(|status| status.worker_restarts == round).await;
    }
    load.more(100).await;
    let failures = load.failures().await;
    // One request is in flight per client, or its connection is used again in that moment.
    assert!(failures.len() <= 3 * 9, "{failures:?}");
    assert!(failures.iter().all(|failure| !failure.starts_with("connect")), "{failures:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_edge_ends_what_is_in_flight_and_says_close() {
    let slow = Upstream::start(|_| async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        text("slow")
    })
    .await;
    let mut edge = Edge::start().await;
    let address = edge.serve("api", http(vec![slow.replica("a")])).await;
    let mut idle = Http::connect(address).await.unwrap();
    idle.get("/").await.unwrap();
    let pending = tokio::spawn(async move { get(address, "/").await });
    until("the request", || slow.requests() == 2).await;
    signal(edge.supervisor.id(), "-TERM");
    edge.wait(|status| status.stopping).await;
    let answer = idle.send(request(hyper::Method::GET, "/", "")).await.unwrap();
    assert_eq!(answer.headers()["connection"], "close");
    assert_eq!(pending.await.unwrap().1, "slow");
    assert!(edge.supervisor.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_supervisor_takes_over_and_no_request_fails() {
    let a = Upstream::named("a").await;
    let mut edge = Edge::start().await;
    let address = edge.serve("api", http(vec![a.replica("a")])).await;
    let load = Load::start(address);
    for _ in 0..3 {
        load.more(200).await;
        let before = edge.client.status().await.unwrap();
        let successor = spawn_supervisor(&edge.state(""), edge.client.socket());
        let mut old = std::mem::replace(&mut edge.supervisor, successor);
        let after = edge.wait(|status| status.supervisor_pid != before.supervisor_pid).await;
        assert_eq!(after.generation, 1);
        assert!(old.wait().unwrap().success());
    }
    load.more(200).await;
    assert_eq!(load.failures().await, Vec::<String>::new());
    edge.change("api", |pool| pool.service = "other".to_owned()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_held_before_a_takeover_is_answered_by_the_tables_after_it() {
    let (a, b) = (Upstream::named("a").await, Upstream::named("b").await);
    let mut edge = Edge::start().await;
    let address = edge.serve("api", http(vec![a.replica("a")])).await;
    edge.change("api", |pool| pool.paused = true).await;
    let pending = tokio::spawn(post(address, "123"));
    edge.wait(|status| status.pools["api"].held == 1).await;
    let before = edge.client.status().await.unwrap();
    let successor = spawn_supervisor(&edge.state(""), edge.client.socket());
    let mut old = std::mem::replace(&mut edge.supervisor, successor);
    edge.wait(|status| status.supervisor_pid != before.supervisor_pid).await;
    edge.change("api", |pool| {
        pool.paused = false;
        pool.replicas = vec![b.replica("b")];
    })
    .await;
    assert_eq!(pending.await.unwrap().1, "b 3");
    assert!(old.wait().unwrap().success());
}
