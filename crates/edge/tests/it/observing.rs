//! What the edge tells about what it does.

use http_body_util::{BodyExt, Empty};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use shiplap_edge::table::{AccessLog, LogFormat, LogTarget};
use tokio::net::UnixStream;

use crate::support::*;

async fn metrics(edge: &Edge) -> String {
    let stream = UnixStream::connect(edge.client.socket()).await.unwrap();
    let io = TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let request =
        Request::get("/metrics").header("host", "edge").body(Empty::<bytes::Bytes>::new());
    let answer = sender.send_request(request.unwrap()).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4");
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(text.to_vec()).unwrap()
}

/// The value of the first sample that begins so.
fn value(metrics: &str, sample: &str) -> f64 {
    let line = metrics.lines().find(|line| line.starts_with(sample));
    let line = line.unwrap_or_else(|| panic!("no {sample} in\n{metrics}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_by_route_pool_and_replica() {
    let app = Upstream::start(|request| async move {
        let status = if request.uri().path() == "/bad" { 500 } else { 200 };
        Response::builder().status(status).body(body("ok")).unwrap()
    })
    .await;
    let edge = Edge::start().await;
    let address = edge.serve("api", http(vec![app.replica("some-id-of-a-replica")])).await;
    for path in ["/", "/", "/", "/bad"] {
        get(address, path).await;
    }
    raw(address, b"GET / HTTP/1.1\r\nHost : a\r\n\r\n").await;
    let seen = metrics(&edge).await;
    let route = format!("route=\"test/default listener {address}\"");
    let requests = |class: &str| {
        value(&seen, &format!("shiplap_edge_requests_total{{{route},class=\"{class}\"}}"))
    };
    assert_eq!((requests("2xx"), requests("5xx")), (3.0, 1.0));
    let replica = "pool=\"api\",replica=\"some-id-of-a\"";
    let counter = format!("shiplap_edge_replica_requests_total{{{replica},class=\"2xx\"}}");
    assert_eq!(value(&seen, &counter), 3.0);
    let histogram = "shiplap_edge_request_duration_seconds";
    let all = format!("{histogram}_bucket{{{route},le=\"+Inf\"}}");
    assert_eq!(
        (value(&seen, &all), value(&seen, &format!("{histogram}_count{{{route}}}"))),
        (4.0, 4.0)
    );
    assert!(value(&seen, &format!("{histogram}_sum{{{route}}}")) > 0.0);
    assert_eq!(value(&seen, &format!("shiplap_edge_in_flight{{{replica}}}")), 0.0);
    assert_eq!(value(&seen, &format!("shiplap_edge_replica_up{{{replica}}}")), 1.0);
    assert_eq!(value(&seen, "shiplap_edge_held{pool=\"api\"}"), 0.0);
    assert_eq!(value(&seen, "shiplap_edge_refused_total{reason=\"Field\"}"), 1.0);
    // Each name is declared once, before its samples.
    let mut names: Vec<&str> = seen.lines().filter(|line| line.starts_with('#')).collect();
    let count = names.len();
    names.dedup();
    assert!(names.len() == count && count > 10);
    // Another table does not start anew.
    edge.change("api", |pool| pool.service = "other".to_owned()).await;
    assert_eq!(value(&metrics(&edge).await, &counter), 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_access_log_is_off_until_asked_for_and_has_no_queries() {
    let app = Upstream::start(|_| async { text("12345") }).await;
    let edge = Edge::start().await;
    let address = edge.serve("api", http(vec![app.replica("a")])).await;
    get(address, "/before").await;
    let file = edge.state("access.log");
    for format in [LogFormat::Json, LogFormat::Combined] {
        let log = AccessLog { format, to: LogTarget::File, query: false };
        edge.client.update_table(|table| table.access_log = Some(log.clone())).await.unwrap();
        let request = Request::get("/path?token=secret")
            .header("host", "shop.example")
            .header("user-agent", "test\"er")
            .header("referer", "http://x/?token=secret")
            .body(body(""))
            .unwrap();
        let answer = Http::connect(address).await.unwrap().send(request).await.unwrap();
        read(answer).await.unwrap();
        let text = || std::fs::read_to_string(&file).unwrap_or_default();
        until("the line", || text().ends_with('\n')).await;
        let text = text();
        std::fs::write(&file, "").unwrap();
        assert!(!text.contains("secret") && text.lines().count() == 1, "{text}");
        if format == LogFormat::Json {
            let line: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(line["target"], "/path");
            assert_eq!((&line["status"], &line["bytes"]), (&200.into(), &5.into()));
            assert_eq!((&line["host"], &line["replica"]), (&"shop.example".into(), &"a".into()));
            assert_eq!(
                (&line["client"], &line["agent"]),
                (&"127.0.0.1".into(), &"test\"er".into())
            );
        } else {
            assert!(text.starts_with("127.0.0.1 - - ["), "{text}");
            let rest = "\"GET /path HTTP/1.1\" 200 5 \"http://x/\" \"test?er\"\n";
            assert!(text.ends_with(rest), "{text}");
        }
    }
}
