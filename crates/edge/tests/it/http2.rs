//! HTTP/2 from clients, and to replicas.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use shiplap_edge::api::{ProbeKind, ProbeRequest};
use shiplap_edge::{Pool, Protocol};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::*;
use crate::switching::channel_body;

fn h2c(replicas: Vec<shiplap_edge::Replica>) -> Pool {
    pool(Protocol::H2c, replicas)
}

/// Answers what it saw.
async fn saw(request: Request<hyper::body::Incoming>) -> Response<Body> {
    let mut seen = format!("{} {} {:?}\n", request.method(), request.uri(), request.version());
    for (name, value) in request.headers() {
        seen.push_str(&format!("{name}: {}\n", value.to_str().unwrap()));
    }
    let length = request.into_body().collect().await.unwrap().to_bytes().len();
    text(&format!("{seen}body {length}\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_http2_is_served_by_a_replica_of_http1() {
    let app = Upstream::start(saw).await;
    let edge = Edge::start().await;
    let address = edge.serve("api", http(vec![app.replica("a")])).await;
    let mut client = Http2::connect(address).await;
    let mut request = request2(Method::POST, "/x?y=z", "12345");
    request.headers_mut().append("cookie", "a=1".parse().unwrap());
    request.headers_mut().append("cookie", "b=2".parse().unwrap());
    request.headers_mut().insert("te", "trailers".parse().unwrap());
    let (status, seen) = read(client.send(request).await.unwrap()).await.unwrap();
    assert_eq!(status, StatusCode::OK);
    assert!(seen.starts_with("POST /x?y=z HTTP/1.1\n"), "{seen}");
    for line in ["host: shop.example", "cookie: a=1; b=2", "x-forwarded-proto: http", "body 5"] {
        assert!(seen.lines().any(|seen| seen == line), "{line}: {seen}");
    }
    assert!(!seen.contains("\nte:"), "{seen}");
    // Many at once on one connection.
    let all = (0..100).map(|_| {
        let mut client = client.clone();
        tokio::spawn(async move { client.get("/").await.unwrap().0 })
    });
    for one in all.collect::<Vec<_>>() {
        assert_eq!(one.await.unwrap(), StatusCode::OK);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_preface_may_come_in_pieces() {
    let app = Upstream::named("a").await;
    let edge = Edge::start().await;
    let address = edge.serve("api", http(vec![app.replica("a")])).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0" {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(head[3], 4, "it answers with its settings");
    // What only begins alike is HTTP/1.
    let (first, rest) = b"PROPFIND / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".split_at(2);
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(first).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    stream.write_all(rest).await.unwrap();
    assert!(read_rest(&mut stream).await.ends_with(b"a 0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_http1_is_served_by_a_replica_of_http2() {
    let app = Upstream::start_http2(saw).await;
    let edge = Edge::start().await;
    let address = edge.serve("api", h2c(vec![app.replica("a")])).await;
    let mut client = Http::connect(address).await.unwrap();
    for _ in 0..3 {
        let (status, seen) = client.post("/x?y", "123").await.unwrap();
        assert_eq!(status, StatusCode::OK);
        assert!(seen.starts_with("POST http://shop.example/x?y HTTP/2.0\n"), "{seen}");
        assert!(seen.contains("\nx-forwarded-host: shop.example\n"), "{seen}");
        assert!(seen.ends_with("body 3\n") && !seen.contains("\nconnection:"), "{seen}");
    }
    assert_eq!(app.connections.load(Ordering::SeqCst), 1);
}

/// As a server of gRPC: echoes each piece, then says in trailers what came in trailers.
async fn echo(request: Request<hyper::body::Incoming>) -> Response<Body> {
    assert_eq!(request.headers()["te"], "trailers");
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let mut body = request.into_body();
    tokio::spawn(async move {
        let mut trailers = HeaderMap::new();
        while let Some(frame) = body.frame().await {
            match frame.unwrap().into_data() {
                Ok(piece) => sender.send(Ok(Frame::data(piece))).await.unwrap(),
                Err(frame) => trailers = frame.into_trailers().unwrap(),
            }
        }
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let _ = sender.send(Ok(Frame::trailers(trailers))).await;
    });
    let stream = StreamBody::new(Frames(receiver));
    Response::builder()
        .header("content-type", "application/grpc")
        .body(BodyExt::boxed_unsync(stream))
        .unwrap()
}

struct Frames(tokio::sync::mpsc::Receiver<Result<Frame<Bytes>, std::io::Error>>);

impl futures_util::Stream for Frames {
    type Item = Result<Frame<Bytes>, std::io::Error>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_streams_both_ways_with_trailers() {
    let app = Upstream::start_http2(echo).await;
    let edge = Edge::start().await;
    let address = edge.serve("api", h2c(vec![app.replica("a")])).await;
    let mut client = Http2::connect(address).await;
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let request = Request::post("http://shop.example/pkg.Service/Method")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(BodyExt::boxed_unsync(StreamBody::new(Frames(receiver))))
        .unwrap();
    let mut answer = client.send(request).await.unwrap().into_body();
    for piece in ["one", "two", "three"] {
        sender.send(Ok(Frame::data(piece.into()))).await.unwrap();
        // Each comes back before the next is sent.
        let frame = answer.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), piece);
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("3"));
    trailers.insert("x-forwarded-for", HeaderValue::from_static("1.1.1.1"));
    sender.send(Ok(Frame::trailers(trailers))).await.unwrap();
    drop(sender);
    let trailers = answer.frame().await.unwrap().unwrap().into_trailers().unwrap();
    assert!(trailers["grpc-status"] == "0" && trailers["x-sum"] == "3", "{trailers:?}");
    assert!(!trailers.contains_key("x-forwarded-for"));
    assert!(answer.frame().await.is_none());
}

impl Http2 {
    async fn post_slowly(
        &mut self,
    ) -> (tokio::task::JoinHandle<()>, std::sync::Arc<std::sync::atomic::AtomicU64>) {
        let (sender, body) = channel_body();
        let taken = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let counter = taken.clone();
        let feeding = tokio::spawn(async move {
            while sender.send(Ok(vec![1; 64 << 10].into())).await.is_ok() {
                counter.fetch_add(1, Ordering::SeqCst);
            }
        });
        let request = Request::post("http://shop.example/").body(body).unwrap();
        let mut client = self.clone();
        tokio::spawn(async move { client.send(request).await });
        (feeding, taken)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_takes_nothing_holds_its_client_back() {
    let app = Upstream::start_http2(|request| async move {
        let _body = request.into_body();
        std::future::pending::<()>().await;
        text("never")
    })
    .await;
    let edge = Edge::start().await;
    let address = edge.serve("api", h2c(vec![app.replica("a")])).await;
    let (feeding, taken) = Http2::connect(address).await.post_slowly().await;
    let mut last = u64::MAX;
    while taken.load(Ordering::SeqCst) != last {
        last = taken.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(last > 0 && last < 100, "{last} blocks of 64 KiB were taken");
    feeding.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_answer_is_a_reset() {
    let app = raw_server(|mut stream| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345").await.unwrap();
    })
    .await;
    let edge = Edge::start().await;
    let address = edge.serve("api", http(vec![replica("a", app)])).await;
    let mut client = Http2::connect(address).await;
    let answer = client.send(request2(Method::GET, "/", "")).await.unwrap();
    assert!(read(answer).await.is_err());
    // The connection lives on.
    assert_eq!(client.send(request2(Method::GET, "/", "")).await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_held_let_go_and_forgotten_one_by_one() {
    let app = Upstream::named("a").await;
    let edge = Edge::start().await;
    let mut paused = http(vec![app.replica("a")]);
    paused.paused = true;
    let address = edge.serve("api", paused).await;
    let client = Http2::connect(address).await;
    let held: Vec<_> = (0..20)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.get("/").await.unwrap().1 })
        })
        .collect();
    edge.wait(|status| status.pools["api"].held == 20).await;
    // One that is given up frees its place, and harms no other.
    held[0].abort();
    edge.wait(|status| status.pools["api"].held == 19).await;
    edge.change("api", |pool| pool.paused = false).await;
    for held in held.into_iter().skip(1) {
        assert_eq!(held.await.unwrap(), "a 0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn switching_under_load_fails_no_stream() {
    let app = |name: &'static str| {
        Upstream::start_http2(move |request| async move {
            let _ = request.into_body().collect().await;
            text(name)
        })
    };
    let (a, b) = (app("a").await, app("b").await);
    let edge = Edge::start().await;
    let address = edge.serve("api", h2c(vec![a.replica("a")])).await;
    let client = Http2::connect(address).await;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let (mut client, stop) = (client.clone(), stop.clone());
            tokio::spawn(async move {
                let mut done = 0;
                while !stop.load(Ordering::Relaxed) {
                    let request = request2(Method::POST, "/", "12345");
                    let (status, _) = read(client.send(request).await.unwrap()).await.unwrap();
                    assert_eq!(status, StatusCode::OK);
                    done += 1;
                }
                done
            })
        })
        .collect();
    for round in 0..10 {
        let (from, to, other) =
            if round % 2 == 0 { ("a", b.replica("b"), &a) } else { ("b", a.replica("a"), &b) };
        edge.switch("api", vec![to]).await;
        let drain = edge.client.drain("api", &[from.to_owned()], LONG).await.unwrap();
        assert!(drain.drained);
        let before = other.requests();
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert_eq!(other.requests(), before, "requests after the drain");
    }
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        assert!(worker.await.unwrap() > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_streams_than_a_connection_takes_get_another() {
    let (go, gate) = tokio::sync::watch::channel(false);
    let app = Upstream::start_http2(move |_| {
        let mut gate = gate.clone();
        async move {
            let _ = gate.wait_for(|go| *go).await;
            text("ok")
        }
    })
    .await;
    let edge = Edge::start().await;
    let address = edge.serve("api", h2c(vec![app.replica("a")])).await;
    let mut first = Http2::connect(address).await;
    let mut pending = Vec::new();
    for number in 0..3 * MAX_STREAMS {
        let mut client = first.clone();
        pending.push(tokio::spawn(async move { client.get("/").await.unwrap().1 }));
        if number == 0 {
            // Its settings are known from then on.
            until("the first", || app.requests() == 1).await;
        }
    }
    until("all of them", || app.requests() == u64::from(3 * MAX_STREAMS)).await;
    go.send(true).unwrap();
    for pending in pending {
        assert_eq!(pending.await.unwrap(), "ok");
    }
    assert_eq!(first.get("/").await.unwrap().1, "ok");
    assert!(app.connections.load(Ordering::SeqCst) <= 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_of_http2_that_is_not_there_yet_is_waited_for() {
    let edge = Edge::start().await;
    let address = edge.serve("api", h2c(vec![replica("a", free_address())])).await;
    let mut client = Http2::connect(address).await;
    let mut other = client.clone();
    let pending = tokio::spawn(async move {
        read(other.send(request2(Method::POST, "/", "123")).await.unwrap()).await.unwrap().1
    });
    edge.wait(|status| status.pools["api"].held == 1).await;
    let app = Upstream::start_http2(saw).await;
    edge.switch("api", vec![app.replica("b")]).await;
    assert!(pending.await.unwrap().ends_with("body 3\n"));
    // One that is gone, with its connection, is not asked again.
    let again = Upstream::start_http2(saw).await;
    drop(app);
    edge.switch("api", vec![again.replica("c")]).await;
    assert!(client.get("/").await.unwrap().1.starts_with("GET"));
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_is_refused_what_http1_is() {
    let app = Upstream::named("a").await;
    let edge = Edge::start().await;
    let address = edge.serve("api", http(vec![app.replica("a")])).await;
    let mut client = Http2::connect(address).await;
    let mut differing = request2(Method::GET, "/", "");
    differing.headers_mut().insert("host", "other.example".parse().unwrap());
    assert_eq!(client.send(differing).await.unwrap().status(), 400);
    let trace = request2(Method::TRACE, "/", "");
    assert_eq!(client.send(trace).await.unwrap().status(), 405);
    let mut large = request2(Method::GET, "/", "");
    large.headers_mut().insert("x", "x".repeat(100_000).parse().unwrap());
    let large = client.send(large).await;
    assert!(large.map_or(true, |answer| answer.status() == 431));
    assert_eq!(app.requests(), 0);
    assert_eq!(Http2::connect(address).await.get("/").await.unwrap().1, "a 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_is_found_out() {
    let edge = Edge::start().await;
    let app = Upstream::start_http2(saw).await;
    // As servers of gRPC in Go do, which do not wait for their clients.
    let hasty = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hasty_address = hasty.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = hasty.accept().await.unwrap();
            stream.write_all(b"\0\0\x06\x04\0\0\0\0\0\0\x05\0\0\x40\0").await.unwrap();
            tokio::spawn(async move { stream.read_to_end(&mut Vec::new()).await });
        }
    });
    let one = Upstream::named("one").await;
    let echo = crate::tcp::echo().await;
    for (address, kind, http2, http1, fails) in [
        (app.address, ProbeKind::Auto, true, false, false),
        (app.address, ProbeKind::H2c, true, false, false),
        (hasty_address, ProbeKind::Auto, true, false, false),
        (one.address, ProbeKind::Auto, false, true, false),
        (one.address, ProbeKind::H2c, false, false, true),
        (echo, ProbeKind::Auto, false, false, false),
    ] {
        let (address, path) = (address, "/".to_owned());
        let request = ProbeRequest {
            address: address.ip(),
            port: address.port(),
            kind,
            path,
            timeout_ms: 5000,
        };
        let seen = edge.client.probe(&request).await.unwrap();
        let found = (seen.is_http2, seen.is_http, seen.error.is_some());
        assert_eq!(found, (http2, http1, fails), "{kind:?} {seen:?}");
    }
}
