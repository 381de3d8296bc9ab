//! Every way in which a server can fail a request is counted as what it is.

use shiplap_load::{Config, Connections, DropKind, Load, Report, Url, first_answer};
use std::collections::BTreeMap;
use std::future::Future;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nX-Version: v1\r\nContent-Length: 2\r\n\r\nok";

/// Starts a server that treats each connection alike.
async fn server<F, R>(serve: F) -> Url
where
    F: Fn(TcpStream, usize) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream, number));
        }
    });
    url
}

/// Reads one request with its body of `x`; false when the client has closed.
async fn request(stream: &mut TcpStream, body_bytes: usize) -> bool {
    let mut seen = Vec::new();
    while !seen.windows(4).any(|end| end == b"\r\n\r\n")
        || seen.iter().filter(|byte| **byte == b'x').count() < body_bytes
    {
        if stream.read_buf(&mut seen).await.unwrap_or(0) == 0 {
            return false;
        }
    }
    true
}

fn config(url: Url, connections: Connections) -> Config {
    let mut config = Config::new(url, 100.0);
    config.duration = Some(Duration::from_millis(200));
    config.connections = connections;
    config.tag = Some("x-version".into());
    config
}

async fn load(config: Config) -> Report {
    Load::start(config).unwrap().finished().await
}

fn only(kind: DropKind, count: u64) -> BTreeMap<DropKind, u64> {
    BTreeMap::from([(kind, count)])
}

#[tokio::test]
async fn answers_over_one_connection_are_ok() {
    let url = server(|mut stream, _| async move {
        while request(&mut stream, 0).await {
            stream.write_all(OK).await.unwrap();
        }
    })
    .await;
    let report = load(config(url, Connections::Reused)).await;
    assert_eq!((report.sent, report.ok, report.failed()), (20, 20, 0));
    assert!(report.connections < 20, "{}", report.to_json());
    assert_eq!(report.tags["v1"].count, 20);
    assert!(report.max_gap < Duration::from_millis(200), "{}", report.to_json());
}

#[tokio::test]
async fn new_connections_and_bodies_are_sent_as_asked() {
    let url = server(|mut stream, _| async move {
        assert!(request(&mut stream, 2000).await);
        stream.write_all(OK).await.unwrap();
    })
    .await;
    let mut config = config(url, Connections::PerRequest);
    config.method = "POST".into();
    config.body_bytes = 2000;
    let report = load(config).await;
    assert_eq!((report.ok, report.connections), (20, 20));
}

#[tokio::test]
async fn a_port_without_a_listener_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    drop(listener);
    let report = load(config(url, Connections::Reused)).await;
    assert_eq!(report.drops, only(DropKind::Refused, 20));
    assert!(report.max_gap >= Duration::from_millis(180), "{}", report.to_json());
    assert!(report.latency.is_none());
}

#[tokio::test]
async fn a_connection_reset_before_an_answer_is_a_reset() {
    let url = server(|stream, _| async move {
        stream.peek(&mut [0]).await.unwrap();
        // Closing with unread bytes sends a reset.
        drop(stream);
    })
    .await;
    let report = load(config(url, Connections::Reused)).await;
    assert_eq!(report.drops, only(DropKind::Reset, 20));
}

#[tokio::test]
async fn a_new_connection_closed_without_a_byte_is_eof() {
    let url = server(|mut stream, _| async move {
        request(&mut stream, 0).await;
    })
    .await;
    let report = load(config(url, Connections::Reused)).await;
    assert_eq!(report.drops, only(DropKind::Eof, 20));
}

#[tokio::test]
async fn a_reused_connection_closed_without_a_byte_is_stale() {
    let url = server(|mut stream, _| async move {
        request(&mut stream, 0).await;
        stream.write_all(OK).await.unwrap();
        request(&mut stream, 0).await;
    })
    .await;
    let report = load(config(url, Connections::Reused)).await;
    assert_eq!(report.drops, only(DropKind::Stale, 10));
    assert_eq!(report.ok, 10);
}

#[tokio::test]
async fn a_connection_closed_while_idle_is_not_used_again() {
    let url = server(|mut stream, _| async move {
        request(&mut stream, 0).await;
        stream.write_all(OK).await.unwrap();
    })
    .await;
    let report = load(config(url, Connections::Reused)).await;
    assert_eq!((report.ok, report.connections), (20, 20), "{}", report.to_json());
}

#[tokio::test]
async fn an_answer_cut_short_is_truncated() {
    let url = server(|mut stream, number| async move {
        request(&mut stream, 0).await;
        let cut = if number % 2 == 0 { OK.len() - 1 } else { 20 };
        stream.write_all(&OK[..cut]).await.unwrap();
    })
    .await;
    let report = load(config(url, Connections::Reused)).await;
    assert_eq!(report.drops, only(DropKind::Truncated, 20));
}

#[tokio::test]
async fn server_errors_are_drops_and_client_errors_only_failures() {
    let url = server(|mut stream, number| async move {
        request(&mut stream, 0).await;
        let status = if number % 2 == 0 { 503 } else { 404 };
        let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    let report = load(config(url, Connections::PerRequest)).await;
    assert_eq!(report.drops, only(DropKind::ServerError, 10));
    assert_eq!((report.client_errors, report.failed()), (10, 20));
    assert_eq!(report.status, BTreeMap::from([(404, 10), (503, 10)]));
}

#[tokio::test]
async fn what_is_not_http_is_other() {
    let url = server(|mut stream, _| async move {
        request(&mut stream, 0).await;
        stream.write_all(b"SSH-2.0-nothing\r\n\r\n\r\n").await.unwrap();
    })
    .await;
    let report = load(config(url, Connections::Reused)).await;
    assert_eq!(report.drops, only(DropKind::Other, 20));
}

#[tokio::test]
async fn a_stalled_server_does_not_slow_the_sender() {
    let start = Instant::now();
    let url = server(move |mut stream, _| async move {
        while request(&mut stream, 0).await {
            let stall = Duration::from_millis(500).saturating_sub(start.elapsed());
            tokio::time::sleep(stall).await;
            stream.write_all(OK).await.unwrap();
        }
    })
    .await;
    let mut config = config(url, Connections::Reused);
    config.duration = Some(Duration::from_millis(800));
    let report = load(config).await;
    assert_eq!((report.sent, report.ok), (80, 80));
    assert!(report.peak_in_flight >= 40, "{}", report.to_json());
    assert!(report.max_gap >= Duration::from_millis(400), "{}", report.to_json());
    // Counted from when they were due: the first waited the longest, the last hardly at all.
    let latency = report.latency.unwrap();
    assert!(latency.max >= Duration::from_millis(400), "{latency:?}");
    assert!(latency.p50 >= Duration::from_millis(50), "{latency:?}");
}

#[tokio::test]
async fn no_answer_in_time_is_a_timeout_and_too_many_in_flight_an_overrun() {
    let url = server(|mut stream, _| async move { while request(&mut stream, 0).await {} }).await;
    let mut config = config(url, Connections::Reused);
    config.timeout = Duration::from_millis(500);
    config.max_in_flight = 15;
    let report = load(config).await;
    assert_eq!(report.drops, BTreeMap::from([(DropKind::Timeout, 15), (DropKind::Overrun, 5)]));
}

#[tokio::test]
async fn a_load_without_an_end_runs_until_stopped_and_reports_in_pieces() {
    let url = server(|mut stream, _| async move {
        while request(&mut stream, 0).await {
            stream.write_all(OK).await.unwrap();
        }
    })
    .await;
    let mut config = config(url, Connections::Reused);
    config.duration = None;
    let running = Load::start(config).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(running.snapshot().latest_tag.as_deref(), Some("v1"));
    let first = running.cut();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let second = running.stop().await;
    for report in [first, second] {
        assert!((20..=40).contains(&report.ok), "{}", report.to_json());
        assert_eq!(report.failed(), 0);
    }
}

#[tokio::test]
async fn the_first_answer_of_a_version_is_timed() {
    let start = Instant::now();
    let url = server(move |mut stream, _| async move {
        request(&mut stream, 0).await;
        let version = if start.elapsed() < Duration::from_millis(300) { "v1" } else { "v2" };
        let answer =
            format!("HTTP/1.1 200 OK\r\nx-version: {version}\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    let took = first_answer(&url, "X-Version", "v2", Duration::from_secs(5)).await.unwrap();
    assert!(took >= Duration::from_millis(250) && took < Duration::from_secs(1), "{took:?}");
    let error = first_answer(&url, "X-Version", "v3", Duration::from_millis(50)).await.unwrap_err();
    assert!(error.to_string().contains("with X-Version v2"), "{error}");
}
