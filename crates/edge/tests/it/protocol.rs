use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::*;
use crate::switching::Pieces;

/// Answers the request's head as it came.
async fn mirror() -> Upstream {
    Upstream::start(|request| async move {
        let mut seen = format!("{} {}\n", request.method(), request.uri());
        for (name, value) in request.headers() {
            seen.push_str(&format!("{name}: {}\n", value.to_str().unwrap()));
        }
        let length = request.into_body().collect().await.unwrap().to_bytes().len();
        text(&format!("{seen}body {length}\n"))
    })
    .await
}

async fn mirrored() -> (Edge, Upstream, std::net::SocketAddr) {
    let (edge, mirror) = (Edge::start().await, mirror().await);
    let address = edge.serve("api", http(vec![mirror.replica("a")])).await;
    (edge, mirror, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn host_is_kept_and_headers_of_one_connection_are_not() {
    let (_edge, _mirror, address) = mirrored().await;
    let answer = raw(
        address,
        b"GET /a?b=c HTTP/1.1\r\nHost: shop.example:8080\r\nConnection: close, x-once\r\n\
          X-Once: 1\r\nTE: trailers\r\nX-Kept: 1\r\n\r\n",
    )
    .await;
    assert!(answer.contains("GET /a?b=c\n"), "{answer}");
    assert!(answer.contains("host: shop.example:8080\n"), "{answer}");
    assert!(answer.contains("x-kept: 1\n"), "{answer}");
    assert!(answer.contains("x-forwarded-for: 127.0.0.1\n"), "{answer}");
    assert!(answer.contains("x-forwarded-proto: http\n"), "{answer}");
    assert!(answer.contains("x-forwarded-host: shop.example:8080\n"), "{answer}");
    assert!(!answer.contains("x-once") && !answer.contains("\nte:"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_1_0_client_is_served() {
    let (_edge, _mirror, address) = mirrored().await;
    let answer = raw(address, b"GET /old HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    assert!(answer.contains("GET /old\n"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absolute_target_is_turned_into_a_path_and_a_host() {
    let (_edge, _mirror, address) = mirrored().await;
    let head = b"GET http://real.example/x?y HTTP/1.1\r\nHost: Real.example\r\n\
                 Connection: close\r\n\r\n";
    let answer = raw(address, head).await;
    assert!(answer.contains("GET /x?y\n") && answer.contains("host: real.example\n"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn expect_100_continue_is_answered() {
    let (_edge, _mirror, address) = mirrored().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\
                 Connection: close\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"12345").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("body 5\n"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunked_request_is_passed_on() {
    let (_edge, _mirror, address) = mirrored().await;
    let answer = raw(
        address,
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
          5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
    )
    .await;
    assert!(answer.contains("transfer-encoding: chunked\n"), "{answer}");
    assert!(answer.contains("body 11\n"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn head_and_empty_answers_keep_the_connection() {
    let app = Upstream::start(|request| async move {
        match (request.method(), request.uri().path()) {
            (&Method::HEAD, _) => {
                Response::builder().header("content-length", "1000").body(body("")).unwrap()
            }
            (_, "/304") => Response::builder().status(304).body(body("")).unwrap(),
            _ => Response::builder().status(204).body(body("")).unwrap(),
        }
    })
    .await;
    let edge = Edge::start().await;
    let address = edge.serve("api", http(vec![app.replica("a")])).await;
    let mut client = Http::connect(address).await.unwrap();
    let answer = client.send(request(Method::HEAD, "/", "")).await.unwrap();
    assert_eq!(answer.headers()["content-length"], "1000");
    assert_eq!(read(answer).await.unwrap().1, "");
    assert_eq!(client.get("/204").await.unwrap().0, StatusCode::NO_CONTENT);
    assert_eq!(client.get("/304").await.unwrap().0, StatusCode::NOT_MODIFIED);
    assert_eq!(app.connections.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_connection_is_a_tunnel_both_ways() {
    let app = Upstream::start(|mut request| async move {
        let protocol = request.headers()["upgrade"].clone();
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut stream = TokioIo::new(upgrade.await.unwrap());
            stream.write_all(b"hello ").await.unwrap();
            let (mut read, mut write) = tokio::io::split(stream);
            tokio::io::copy(&mut read, &mut write).await.unwrap();
            write.shutdown().await.unwrap();
        });
        let answer = Response::builder().status(101).header("connection", "upgrade");
        answer.header("upgrade", protocol).body(body("")).unwrap()
    })
    .await;
    let edge = Edge::start().await;
    let address = edge.serve("api", http(vec![app.replica("a")])).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"hello ") {
        answer.push(stream.read_u8().await.unwrap());
    }
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert!(answer.contains("upgrade: websocket\r\n"), "{answer}");
    stream.write_all(b"world").await.unwrap();
    let mut echoed = [0; 5];
    stream.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"world");
    let status = edge.wait(|status| status.pools["api"].replicas[0].streams == 1).await;
    assert_eq!(status.pools["api"].replicas[0].in_flight, 0);
    stream.shutdown().await.unwrap();
    stream.read_to_end(&mut Vec::new()).await.unwrap();
    edge.wait(|status| status.pools["api"].replicas[0].streams == 0).await;
}

const BLOCK: usize = 64 << 10;
const BLOCKS: usize = 512;

#[tokio::test(flavor = "multi_thread")]
async fn a_large_upload_is_streamed_at_the_pace_of_the_replica() {
    let (go, gate) = tokio::sync::watch::channel(false);
    let app = Upstream::start(move |request| {
        let mut gate = gate.clone();
        async move {
            let _ = gate.wait_for(|go| *go).await;
            let mut body = request.into_body();
            let mut length = 0;
            while let Some(frame) = body.frame().await {
                length += frame.unwrap().into_data().unwrap().len();
            }
            text(&length.to_string())
        }
    })
    .await;
    let edge = Edge::start().await;
    let address = edge.serve("api", http(vec![app.replica("a")])).await;
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let taken = Arc::new(Mutex::new(0));
    let counter = taken.clone();
    tokio::spawn(async move {
        for _ in 0..BLOCKS {
            sender.send(Ok(Bytes::from(vec![1; BLOCK]))).await.unwrap();
            *counter.lock().unwrap() += 1;
        }
    });
    let body = Pieces(receiver).boxed_unsync();
    let request = Request::post("/").header("host", "a").body(body).unwrap();
    let mut client = Http::connect(address).await.unwrap();
    let pending = tokio::spawn(async move { read(client.send(request).await.unwrap()).await });
    until("the request", || app.requests() == 1).await;
    // The sender comes to a stop while nobody reads: what is in between is bounded.
    let mut last = usize::MAX;
    while *taken.lock().unwrap() != last {
        last = *taken.lock().unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    assert!(last < BLOCKS, "all {BLOCKS} blocks were taken");
    go.send(true).unwrap();
    let (status, text) = pending.await.unwrap().unwrap();
    assert_eq!((status, text), (StatusCode::OK, (BLOCK * BLOCKS).to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_download_is_streamed_at_the_pace_of_the_client() {
    let taken = Arc::new(Mutex::new(0));
    let counter = taken.clone();
    let app = Upstream::start(move |_| {
        let counter = counter.clone();
        async move {
            let (sender, receiver) = tokio::sync::mpsc::channel(1);
            tokio::spawn(async move {
                for _ in 0..BLOCKS {
                    if sender.send(Ok(Bytes::from(vec![1; BLOCK]))).await.is_err() {
                        return;
                    }
                    *counter.lock().unwrap() += 1;
                }
            });
            Response::new(Pieces(receiver).boxed_unsync())
        }
    })
    .await;
    let edge = Edge::start().await;
    let address = edge.serve("api", http(vec![app.replica("a")])).await;
    let mut client = Http::connect(address).await.unwrap();
    let answer = client.send(request(Method::GET, "/", "")).await.unwrap();
    let mut last = usize::MAX;
    while *taken.lock().unwrap() != last {
        last = *taken.lock().unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    assert!(last < BLOCKS, "all {BLOCKS} blocks were taken");
    assert_eq!(read(answer).await.unwrap().1.len(), BLOCK * BLOCKS);
}
