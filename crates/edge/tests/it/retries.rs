use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::*;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Reads one request's head.
async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => text.push(byte),
            Err(_) => return None,
        }
    }
    Some(String::from_utf8(text).unwrap())
}

/// Reads a request on each of the first connections and closes them unanswered; then answers.
async fn closes_first(count: u64) -> (std::net::SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(AtomicU64::new(0));
    let counter = seen.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            if head(&mut stream).await.is_some() && counter.fetch_add(1, Ordering::SeqCst) >= count
            {
                stream.write_all(OK).await.unwrap();
            }
        }
    });
    (address, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unanswered_get_is_sent_again_twice_at_most() {
    let edge = Edge::start().await;
    let (address_of_app, seen) = closes_first(2).await;
    let address = edge.serve("api", http(vec![replica("a", address_of_app)])).await;
    assert_eq!(get(address, "/").await, (StatusCode::OK, "ok".to_owned()));
    assert_eq!(seen.load(Ordering::SeqCst), 3);

    let (address_of_app, seen) = closes_first(u64::MAX).await;
    edge.switch("api", vec![replica("b", address_of_app)]).await;
    assert_eq!(get(address, "/").await.0, StatusCode::BAD_GATEWAY);
    assert_eq!(seen.load(Ordering::SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unanswered_post_is_not_sent_again() {
    let edge = Edge::start().await;
    let (address_of_app, seen) = closes_first(1).await;
    let address = edge.serve("api", http(vec![replica("a", address_of_app)])).await;
    let (status, text) = post(address, "").await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert!(text.contains("before it answered"));
    assert_eq!(seen.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_is_sent_although_the_kept_connection_has_been_closed() {
    // Answers once per connection and then closes it, without having said so.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address_of_app = listener.local_addr().unwrap();
    let closed = Arc::new(AtomicU64::new(0));
    let counter = closed.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            if head(&mut stream).await.is_some() {
                stream.write_all(OK).await.unwrap();
                drop(stream);
                counter.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let edge = Edge::start().await;
    let address = edge.serve("api", http(vec![replica("a", address_of_app)])).await;
    let mut client = Http::connect(address).await.unwrap();
    for round in 0..50 {
        assert_eq!(client.post("/", "").await.unwrap().0, StatusCode::OK);
        until("closing", || closed.load(Ordering::SeqCst) > round).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_answer_stays_truncated() {
    for head in ["Content-Length: 1000", "Transfer-Encoding: chunked"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address_of_app = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            crate::retries::head(&mut stream).await.unwrap();
            let answer = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n5\r\nhello\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let edge = Edge::start().await;
        let address = edge.serve("api", http(vec![replica("a", address_of_app)])).await;
        let mut client = Http::connect(address).await.unwrap();
        let answer = client.send(request(hyper::Method::GET, "/", "")).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert!(read(answer).await.is_err(), "{head}");
    }
}
