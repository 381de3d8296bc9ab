//! Event streams and WebSockets of replicas that leave.

use std::net::SocketAddr;
use std::time::Duration;

use hyper::{Method, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::support::*;
use crate::switching::channel_body;

const CLOSE_1012: [u8; 4] = [0x88, 0x02, 0x03, 0xf4];

/// An event stream that sends what it is told to.
async fn events() -> (Upstream, mpsc::Sender<Result<bytes::Bytes, std::io::Error>>) {
    let (sender, body) = channel_body();
    let body = std::sync::Mutex::new(Some(body));
    let app = Upstream::start(move |_| {
        let body = body.lock().unwrap().take().unwrap();
        async move {
            Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
        }
    })
    .await;
    (app, sender)
}

async fn open_stream(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    stream
}

/// A pool whose streams live on for this long.
fn with_limit(limit_ms: u64, replicas: Vec<shiplap_edge::Replica>) -> shiplap_edge::Pool {
    let mut pool = http(replicas);
    pool.streams.limit_ms = limit_ms;
    pool
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_stream_lives_to_its_limit_and_ends_with_the_last_chunk() {
    let (app, events) = events().await;
    let edge = Edge::start().await;
    let address = edge.serve("api", with_limit(300, vec![app.replica("old")])).await;
    let mut stream = open_stream(address).await;
    events.send(Ok("data: 1\n\n".into())).await.unwrap();
    read_until(&mut stream, b"data: 1\n\n\r\n").await;
    edge.switch("api", vec![]).await;
    events.send(Ok("data: 2\n\n".into())).await.unwrap();
    read_until(&mut stream, b"data: 2\n\n\r\n").await;
    let drain = edge.client.drain("api", &["old".to_owned()], LONG).await.unwrap();
    assert_eq!((drain.drained, drain.streams), (true, 0));
    read_until(&mut stream, b"0\r\n\r\n").await;
    until("the replica's side ends", || events.is_closed()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_under_way_is_completed_first() {
    let (app, events) = events().await;
    let edge = Edge::start().await;
    let address = edge.serve("api", with_limit(0, vec![app.replica("old")])).await;
    let mut stream = open_stream(address).await;
    events.send(Ok("data: 1\n\ndata: ".into())).await.unwrap();
    read_until(&mut stream, b"data: \r\n").await;
    edge.switch("api", vec![]).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    events.send(Ok("2\n\ndata: 3\n\n".into())).await.unwrap();
    let rest = String::from_utf8(read_until(&mut stream, b"0\r\n\r\n").await).unwrap();
    assert_eq!(rest, "3\r\n2\n\n\r\n0\r\n\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_comes_back_keeps_its_streams() {
    let (app, events) = events().await;
    let edge = Edge::start().await;
    let address = edge.serve("api", with_limit(400, vec![app.replica("a")])).await;
    let mut stream = open_stream(address).await;
    events.send(Ok("data: 1\n\n".into())).await.unwrap();
    read_until(&mut stream, b"data: 1\n\n\r\n").await;
    edge.switch("api", vec![]).await;
    edge.switch("api", vec![app.replica("a")]).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    events.send(Ok("data: 2\n\n".into())).await.unwrap();
    read_until(&mut stream, b"data: 2\n\n\r\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_requests_are_held_streams_end_at_once() {
    let (app, events) = events().await;
    let edge = Edge::start().await;
    let address = edge.serve("api", with_limit(60_000, vec![app.replica("a")])).await;
    let mut stream = open_stream(address).await;
    events.send(Ok("data: 1\n\n".into())).await.unwrap();
    read_until(&mut stream, b"data: 1\n\n\r\n").await;
    edge.change("api", |pool| pool.paused = true).await;
    let drain = edge.client.drain("api", &["a".to_owned()], LONG).await.unwrap();
    assert_eq!((drain.drained, drain.streams), (true, 0));
    read_until(&mut stream, b"0\r\n\r\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_replica_only_settles_streams_go_on() {
    let (app, events) = events().await;
    let edge = Edge::start().await;
    let address = edge.serve("api", with_limit(60_000, vec![app.replica("a")])).await;
    let mut stream = open_stream(address).await;
    events.send(Ok("data: 1\n\n".into())).await.unwrap();
    read_until(&mut stream, b"data: 1\n\n\r\n").await;
    edge.change("api", |pool| pool.paused = true).await;
    let settled = edge.client.settle("api", &["a".to_owned()], LONG).await.unwrap();
    assert_eq!((settled.drained, settled.streams), (true, 1));
    events.send(Ok("data: 2\n\n".into())).await.unwrap();
    read_until(&mut stream, b"data: 2\n\n\r\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_stream_whose_replica_dies_is_visibly_truncated() {
    let (app, events) = events().await;
    let edge = Edge::start().await;
    let address = edge.serve("api", http(vec![app.replica("a")])).await;
    let mut stream = open_stream(address).await;
    events.send(Ok("data: 1\n\n".into())).await.unwrap();
    read_until(&mut stream, b"data: 1\n\n\r\n").await;
    events.send(Err(std::io::Error::other("killed"))).await.unwrap();
    assert_eq!(read_rest(&mut stream).await, b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_answer_stays_visibly_truncated() {
    for (head, rest) in [
        ("Content-Length: 10", "12345"),
        ("Transfer-Encoding: chunked", "5\r\n12345\r\n"),
        ("Transfer-Encoding: chunked", "5\r\n123"),
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{rest}").into_bytes();
        let app = raw_server(move |mut stream| {
            let answer = answer.clone();
            async move { stream.write_all(&answer).await.unwrap() }
        })
        .await;
        let edge = Edge::start().await;
        let address = edge.serve("api", http(vec![replica("a", app)])).await;
        let mut client = Http::connect(address).await.unwrap();
        let answer = client.send(request(Method::GET, "/", "")).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(read(answer).await.is_err(), "{head}: it looks complete");
    }
}

/// Agrees to a WebSocket, then does this.
async fn web_socket<F, R>(talk: F) -> SocketAddr
where
    F: Fn(TcpStream) -> R + Clone + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    raw_server(move |mut stream| {
        let talk = talk.clone();
        async move {
            let agreed = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
                           Upgrade: websocket\r\n\r\n";
            stream.write_all(agreed).await.unwrap();
            talk(stream).await;
        }
    })
    .await
}

async fn open_web_socket(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(head).await.unwrap();
    read_until(&mut stream, b"\r\n\r\n").await;
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_socket_ends_with_close_1012_and_its_replica_sees_the_client_close() {
    let (saw, mut seen) = mpsc::channel(1);
    let app = web_socket(move |mut stream| {
        let saw = saw.clone();
        async move {
            stream.write_all(b"\x81\x02hi").await.unwrap();
            saw.send(read_rest(&mut stream).await).await.unwrap();
        }
    })
    .await;
    let edge = Edge::start().await;
    let address = edge.serve("api", with_limit(200, vec![replica("old", app)])).await;
    let mut stream = open_web_socket(address).await;
    let mut hi = [0; 4];
    stream.read_exact(&mut hi).await.unwrap();
    let status = edge.client.status().await.unwrap();
    let replica = &status.pools["api"].replicas[0];
    assert_eq!((replica.in_flight, replica.streams, replica.web_sockets), (0, 1, 1));
    edge.switch("api", vec![]).await;
    let mut close = [0; 4];
    stream.read_exact(&mut close).await.unwrap();
    assert_eq!(close, CLOSE_1012);
    // Masked, with a mask of zeros, as a client answers.
    let reply = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xf4];
    stream.write_all(&reply).await.unwrap();
    assert_eq!(read_rest(&mut stream).await, b"");
    assert_eq!(seen.recv().await.unwrap(), reply);
    let drain = edge.client.drain("api", &["old".to_owned()], LONG).await.unwrap();
    assert_eq!((drain.drained, drain.streams), (true, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_put_into_the_middle_of_a_frame() {
    let (go, gate) = tokio::sync::watch::channel(false);
    let app = web_socket(move |mut stream| {
        let mut gate = gate.clone();
        async move {
            stream.write_all(b"\x82\x06abc").await.unwrap();
            let _ = gate.wait_for(|go| *go).await;
            stream.write_all(b"def\x81\x02hi").await.unwrap();
            read_rest(&mut stream).await;
        }
    })
    .await;
    let edge = Edge::start().await;
    let address = edge.serve("api", with_limit(0, vec![replica("old", app)])).await;
    let mut stream = open_web_socket(address).await;
    read_until(&mut stream, b"abc").await;
    edge.switch("api", vec![]).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    go.send(true).unwrap();
    let mut rest = [0; 7];
    stream.read_exact(&mut rest).await.unwrap();
    assert_eq!(&rest, b"def\x88\x02\x03\xf4");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_answer_the_close_is_not_waited_for() {
    let app = web_socket(|mut stream| async move {
        read_rest(&mut stream).await;
    })
    .await;
    let edge = Edge::start().await;
    let address = edge.serve("api", with_limit(0, vec![replica("old", app)])).await;
    let mut stream = open_web_socket(address).await;
    edge.switch("api", vec![]).await;
    assert_eq!(read_rest(&mut stream).await, CLOSE_1012);
    edge.wait(|status| status.draining.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_early_on_an_upgraded_connection_is_passed_on() {
    let app = raw_server(|mut stream| async move {
        let agreed = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
                       Upgrade: echo\r\n\r\nearly ";
        stream.write_all(agreed).await.unwrap();
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await;
    let edge = Edge::start().await;
    let address = edge.serve("api", http(vec![replica("a", app)])).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    stream.write_all(head).await.unwrap();
    read_until(&mut stream, b"early ").await;
    stream.write_all(b"GET\n\0anything").await.unwrap();
    read_until(&mut stream, b"GET\n\0anything").await;
    stream.shutdown().await.unwrap();
    assert_eq!(read_rest(&mut stream).await, b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_idle_for_long_is_served_as_before() {
    let a = Upstream::named("a").await;
    let edge = Edge::start().await;
    let address = edge.serve("api", http(vec![a.replica("a")])).await;
    let mut client = Http::connect(address).await.unwrap();
    for _ in 0..2 {
        assert_eq!(client.get("/").await.unwrap().1, "a 0");
        assert_eq!(client.post("/", "123").await.unwrap().1, "a 3");
        tokio::time::sleep(Duration::from_millis(2500)).await;
    }
}
