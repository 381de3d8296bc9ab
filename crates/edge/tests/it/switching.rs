use std::time::Duration;

use hyper::{Method, Response};

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn switching_under_load_fails_no_request() {
    let (a, b) = (Upstream::named("a").await, Upstream::named("b").await);
    let edge = Edge::start().await;
    let address = edge.serve("api", http(vec![a.replica("a")])).await;
    let load = Load::start(address);
    load.more(100).await;
    for round in 0..10 {
        let (from, to) =
            if round % 2 == 0 { (("a"), b.replica("b")) } else { ("b", a.replica("a")) };
        edge.switch("api", vec![to]).await;
        let drain = edge.client.drain("api", &[from.to_owned()], LONG).await.unwrap();
        assert!(drain.drained);
        let other = if round % 2 == 0 { &a } else { &b };
        let before = other.requests();
        load.more(50).await;
        assert_eq!(other.requests(), before, "requests after the drain");
    }
    assert_eq!(load.failures().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_for_a_slow_answer_and_the_answer_arrives_in_full() {
    let (release, wait) = tokio::sync::watch::channel(false);
    let slow = Upstream::start(move |_| {
        let mut wait = wait.clone();
        async move {
            let _ = wait.wait_for(|released| *released).await;
            text("slow")
        }
    })
    .await;
    let fast = Upstream::named("fast").await;
    let edge = Edge::start().await;
    let address = edge.serve("api", http(vec![slow.replica("slow")])).await;
    let pending = tokio::spawn(get(address, "/"));
    until("the request", || slow.requests() == 1).await;
    edge.switch("api", vec![fast.replica("fast")]).await;
    assert_eq!(get(address, "/").await.1, "fast 0");
    let ids = ["slow".to_owned()];
    let drain = edge.client.drain("api", &ids, Duration::from_millis(50)).await.unwrap();
    assert_eq!((drain.drained, drain.in_flight), (false, 1));
    let status = edge.client.status().await.unwrap();
    assert_eq!(status.draining[0].replica.in_flight, 1);
    release.send(true).unwrap();
    assert!(edge.client.drain("api", &ids, LONG).await.unwrap().drained);
    assert_eq!(pending.await.unwrap().1, "slow");
    edge.wait(|status| status.draining.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_spread_over_replicas() {
    let (a, b) = (Upstream::named("a").await, Upstream::named("b").await);
    let edge = Edge::start().await;
    let address = edge.serve("api", http(vec![a.replica("a"), b.replica("b")])).await;
    for _ in 0..20 {
        get(address, "/").await;
    }
    assert_eq!(a.requests() + b.requests(), 20);
    assert!(a.requests() >= 5 && b.requests() >= 5, "{} and {}", a.requests(), b.requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_replica_among_living_ones_costs_no_request() {
    let a = Upstream::named("a").await;
    let edge = Edge::start().await;
    let dead = replica("dead", free_address());
    let address = edge.serve("api", http(vec![dead, a.replica("a")])).await;
    for _ in 0..20 {
        assert_eq!(get(address, "/").await.1, "a 0");
        assert_eq!(post(address, "12345").await.1, "a 5");
    }
    let status = edge.client.status().await.unwrap();
    let replicas = &status.pools["api"].replicas;
    assert_eq!((replicas[0].up, replicas[1].up), (false, true));
    assert!(replicas[0].last_error.as_ref().unwrap().contains("refused"));
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_to_a_removed_replica_are_closed_and_none_is_used() {
    let (a, b) = (Upstream::named("a").await, Upstream::named("b").await);
    let edge = Edge::start().await;
    let address = edge.serve("api", http(vec![a.replica("a")])).await;
    let mut client = Http::connect(address).await.unwrap();
    assert_eq!(client.get("/").await.unwrap().1, "a 0");
    edge.switch("api", vec![b.replica("b")]).await;
    assert_eq!(client.get("/").await.unwrap().1, "b 0");
    edge.switch("api", vec![a.replica("a")]).await;
    assert_eq!(client.get("/").await.unwrap().1, "a 0");
    assert_eq!(a.connections.load(std::sync::atomic::Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_counted_apart() {
    let sse = Upstream::start(|_| async {
        let (sender, body) = channel_body();
        tokio::spawn(async move {
            let mut number = 0;
            while sender.send(Ok(format!("data: {number}\n\n").into())).await.is_ok() {
                number += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
    })
    .await;
    let edge = Edge::start().await;
    let address = edge.serve("api", http(vec![sse.replica("sse")])).await;
    let mut client = Http::connect(address).await.unwrap();
    let answer = client.send(request(Method::GET, "/", "")).await.unwrap();
    let mut body = answer.into_body();
    // Unbuffered: each event comes when it was sent.
    for number in 0..3 {
        use http_body_util::BodyExt;
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(frame, format!("data: {number}\n\n"));
    }
    edge.switch("api", vec![]).await;
    let status = edge.client.status().await.unwrap();
    let draining = &status.draining[0].replica;
    assert_eq!((draining.in_flight, draining.streams, draining.event_streams), (0, 1, 1));
    drop((body, client));
    let drain = edge.client.drain("api", &["sse".to_owned()], LONG).await.unwrap();
    assert_eq!((drain.drained, drain.in_flight, drain.streams), (true, 0, 0));
    edge.wait(|status| status.draining.is_empty()).await;
}

/// A body that is written piece by piece.
pub fn channel_body() -> (tokio::sync::mpsc::Sender<Result<bytes::Bytes, std::io::Error>>, Body) {
    use http_body_util::BodyExt;
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    (sender, Pieces(receiver).boxed_unsync())
}

pub struct Pieces(pub tokio::sync::mpsc::Receiver<Result<bytes::Bytes, std::io::Error>>);

impl hyper::body::Body for Pieces {
    type Data = bytes::Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<bytes::Bytes>, std::io::Error>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(hyper::body::Frame::data)))
    }
}
