use hyper::StatusCode;
use shiplap_edge::{Hold, Protocol};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_pool_holds_requests_and_answers_them_when_resumed() {
    let a = Upstream::named("a").await;
    let edge = Edge::start().await;
    let mut paused = http(vec![a.replica("a")]);
    paused.paused = true;
    let address = edge.serve("api", paused).await;
    let gets: Vec<_> = (0..50).map(|_| tokio::spawn(get(address, "/"))).collect();
    let posts: Vec<_> = (0..50).map(|_| tokio::spawn(post(address, "123"))).collect();
    edge.wait(|status| status.pools["api"].held == 100).await;
    assert_eq!(a.requests(), 0);
    edge.change("api", |pool| pool.paused = false).await;
    for get in gets {
        assert_eq!(get.await.unwrap(), (StatusCode::OK, "a 0".to_owned()));
    }
    for post in posts {
        assert_eq!(post.await.unwrap(), (StatusCode::OK, "a 3".to_owned()));
    }
    edge.wait(|status| status.pools["api"].held == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_replica_requests_wait_for_one() {
    let a = Upstream::named("a").await;
    let edge = Edge::start().await;
    let address = edge.serve("api", http(vec![])).await;
    let pending = tokio::spawn(post(address, "12"));
    edge.wait(|status| status.pools["api"].held == 1).await;
    edge.switch("api", vec![a.replica("a")]).await;
    assert_eq!(pending.await.unwrap(), (StatusCode::OK, "a 2".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusing_replica_is_tried_again_until_it_answers() {
    let address_of_app = free_address();
    let edge = Edge::start().await;
    let address = edge.serve("api", http(vec![replica("a", address_of_app)])).await;
    let pending = tokio::spawn(post(address, "12"));
    edge.wait(|status| status.pools["api"].held == 1).await;
    let _app = Upstream::start_at(address_of_app, |_| async { text("up") }).await;
    assert_eq!(pending.await.unwrap(), (StatusCode::OK, "up".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_while_refused_takes_the_held_requests() {
    let a = Upstream::named("a").await;
    let edge = Edge::start().await;
    let address = edge.serve("api", http(vec![replica("dead", free_address())])).await;
    let pending = tokio::spawn(post(address, "12"));
    edge.wait(|status| status.pools["api"].held == 1).await;
    edge.switch("api", vec![a.replica("a")]).await;
    assert_eq!(pending.await.unwrap().1, "a 2");
}

#[tokio::test(flavor = "multi_thread")]
async fn holding_is_bounded_in_number_and_in_time() {
    let edge = Edge::start().await;
    let mut small = http(vec![]);
    small.hold = Hold { max_requests: 2, max_wait_ms: 700 };
    let address = edge.serve("api", small).await;
    let held: Vec<_> = (0..2).map(|_| tokio::spawn(get(address, "/"))).collect();
    edge.wait(|status| status.pools["api"].held == 2).await;
    let mut client = Http::connect(address).await.unwrap();
    let answer = client.send(request(hyper::Method::GET, "/", "")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers().contains_key("retry-after"));
    assert!(read(answer).await.unwrap().1.contains("too many"));
    for held in held {
        let (status, text) = held.await.unwrap();
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(text.contains("in time"));
    }
    let status = edge.client.status().await.unwrap();
    assert_eq!((status.pools["api"].held, status.pools["api"].hold_rejected), (0, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_while_held_frees_its_place() {
    let edge = Edge::start().await;
    let address = edge.serve("api", http(vec![])).await;
    for head in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n12345",
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        edge.wait(|status| status.pools["api"].held == 1).await;
        drop(stream);
        edge.wait(|status| status.pools["api"].held == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn held_tcp_connections_are_passed_on_when_resumed_and_bounded() {
    let echo = crate::tcp::echo().await;
    let edge = Edge::start().await;
    let mut paused = pool(Protocol::Tcp, vec![replica("echo", echo)]);
    paused.paused = true;
    paused.hold.max_requests = 1;
    let address = edge.serve("db", paused).await;
    let pending = tokio::spawn(crate::tcp::exchange(address, b"hello"));
    edge.wait(|status| status.pools["db"].held == 1).await;
    assert_eq!(raw(address, b"").await, "", "the second is closed");
    edge.change("db", |pool| pool.paused = false).await;
    assert_eq!(pending.await.unwrap(), b"hello");
}
