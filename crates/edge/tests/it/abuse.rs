//! What is malformed, ambiguous or too much: each case by its bytes, and what the edge says to it.
//! Nothing of it may reach a replica.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::*;

/// A request that must not be taken, and the status it gets.
struct Case {
    what: &'static str,
    bytes: Vec<u8>,
    status: u16,
}

fn case(status: u16, what: &'static str, bytes: impl Into<Vec<u8>>) -> Case {
    Case { what, bytes: bytes.into(), status }
}

/// A POST with these headers, and behind it what a server that reads them another way would take
/// for a second request.
fn post_with(status: u16, what: &'static str, headers: &str) -> Case {
    let bytes = format!(
        "POST / HTTP/1.1\r\n{headers}\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    );
    case(status, what, bytes)
}

/// A chunked POST with this body.
fn chunked(what: &'static str, body: &str) -> Case {
    let head = "POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    case(400, what, format!("{head}{body}"))
}

fn framing() -> Vec<Case> {
    vec![
        post_with(400, "CL.TE", "Host: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked"),
        post_with(400, "TE.CL", "Host: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4"),
        post_with(400, "CL.0 and TE", "Host: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked"),
        post_with(400, "differing lengths", "Host: a\r\nContent-Length: 4\r\nContent-Length: 5"),
        post_with(
            400,
            "the same length twice",
            "Host: a\r\nContent-Length: 4\r\nContent-Length: 4",
        ),
        post_with(400, "a list of lengths", "Host: a\r\nContent-Length: 4, 4"),
        post_with(400, "a signed length", "Host: a\r\nContent-Length: +4"),
        post_with(400, "a negative length", "Host: a\r\nContent-Length: -4"),
        post_with(400, "a hexadecimal length", "Host: a\r\nContent-Length: 0x4"),
        post_with(400, "a length with a space", "Host: a\r\nContent-Length: 4 4"),
        post_with(400, "a fractional length", "Host: a\r\nContent-Length: 4.0"),
        post_with(400, "an empty length", "Host: a\r\nContent-Length:"),
        post_with(
            400,
            "a length beyond counting",
            "Host: a\r\nContent-Length: 18446744073709551616",
        ),
        post_with(400, "a length with an underscore", "Host: a\r\nContent_Length: 4"),
        post_with(400, "a coding with an underscore", "Host: a\r\nTransfer_Encoding: chunked"),
        post_with(501, "TE identity", "Host: a\r\nTransfer-Encoding: identity"),
        post_with(501, "TE gzip, chunked", "Host: a\r\nTransfer-Encoding: gzip, chunked"),
        post_with(501, "TE chunked, identity", "Host: a\r\nTransfer-Encoding: chunked, identity"),
        post_with(501, "TE xchunked", "Host: a\r\nTransfer-Encoding: xchunked"),
        post_with(501, "TE in quotes", "Host: a\r\nTransfer-Encoding: \"chunked\""),
        post_with(501, "TE chunked;x", "Host: a\r\nTransfer-Encoding: chunked;x=y"),
        post_with(501, "TE empty", "Host: a\r\nTransfer-Encoding:"),
        post_with(400, "TE with a vertical tab", "Host: a\r\nTransfer-Encoding: \x0bchunked"),
        post_with(
            400,
            "TE twice",
            "Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        ),
        post_with(
            501,
            "TE twice, differing",
            "Host: a\r\nTransfer-Encoding: x\r\nTransfer-Encoding: chunked",
        ),
        post_with(400, "a space before the colon", "Host: a\r\nTransfer-Encoding : chunked"),
        post_with(400, "a tab before the colon", "Host: a\r\nTransfer-Encoding\t: chunked"),
        post_with(400, "a space before the name", "Host: a\r\n Transfer-Encoding: chunked"),
        post_with(400, "a fold", "Host: a\r\nX: 1\r\n folded"),
        post_with(400, "a fold by a tab", "Host: a\r\nX: 1\r\n\tfolded"),
        post_with(501, "a fold of the coding", "Host: a\r\nTransfer-Encoding:\r\n chunked"),
        post_with(400, "a fold in the first header", " Host: a\r\nX: 1"),
        post_with(400, "a bare line feed", "Host: a\nTransfer-Encoding: chunked"),
        post_with(
            400,
            "a bare line feed in a value",
            "Host: a\r\nX: 1\nTransfer-Encoding: chunked",
        ),
        post_with(400, "a bare carriage return", "Host: a\r\nX: 1\rTransfer-Encoding: chunked"),
        post_with(400, "two carriage returns", "Host: a\r\r\nX: 1"),
        post_with(400, "NUL in a value", "Host: a\r\nX: a\0b"),
        post_with(400, "NUL in a name", "Host: a\r\nX\0: a"),
        post_with(400, "a control character in a value", "Host: a\r\nX: a\x01b"),
        post_with(400, "DEL in a value", "Host: a\r\nX: a\x7fb"),
        post_with(400, "no colon", "Host: a\r\nX"),
        post_with(400, "no name", "Host: a\r\n: x"),
        post_with(400, "a name in brackets", "Host: a\r\n[X]: 1"),
        post_with(400, "a space in a name", "Host: a\r\nX Y: 1"),
        case(400, "all lines end bare", "GET / HTTP/1.1\nHost: a\n\n"),
        case(400, "the last line ends bare", "GET / HTTP/1.1\r\nHost: a\r\n\n"),
        case(
            400,
            "TE in HTTP/1.0",
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
    ]
}

fn request_lines() -> Vec<Case> {
    let line = |status, what, line: &str| case(status, what, format!("{line}\r\nHost: a\r\n\r\n"));
    vec![
        line(400, "two spaces", "GET  / HTTP/1.1"),
        line(400, "a tab", "GET\t/ HTTP/1.1"),
        line(400, "a space in the target", "GET /a b HTTP/1.1"),
        line(400, "a space at the end", "GET / HTTP/1.1 "),
        line(400, "a space at the start", " GET / HTTP/1.1"),
        line(400, "no version", "GET /"),
        line(400, "no target", "GET HTTP/1.1"),
        line(400, "a method in brackets", "G{E}T / HTTP/1.1"),
        line(400, "NUL in the target", "GET /\0 HTTP/1.1"),
        line(400, "a carriage return in the target", "GET /\rx HTTP/1.1"),
        line(400, "a target without a slash", "GET index.html HTTP/1.1"),
        line(400, "asterisk for GET", "GET * HTTP/1.1"),
        line(505, "HTTP/1.2", "GET / HTTP/1.2"),
        line(505, "HTTP/2.0", "GET / HTTP/2.0"),
        line(505, "HTTP/0.9", "GET / HTTP/0.9"),
        line(505, "http/1.1", "GET / http/1.1"),
        line(505, "HTTP/1.10", "GET / HTTP/1.10"),
        line(505, "another protocol", "GET / RTSP/1.0"),
        line(405, "TRACE", "TRACE / HTTP/1.1"),
        line(405, "CONNECT", "CONNECT a:80 HTTP/1.1"),
        line(414, "a long target", &format!("GET /{} HTTP/1.1", "x".repeat(40_000))),
        case(
            400,
            "TLS on a plain port",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03abc\r\n".to_vec(),
        ),
        case(400, "empty lines", "\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        case(505, "half a preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"),
    ]
}

fn hosts() -> Vec<Case> {
    let hosts = |what, lines: &str| case(400, what, format!("GET / HTTP/1.1\r\n{lines}\r\n\r\n"));
    vec![
        hosts("no Host", "X: 1"),
        hosts("two Hosts", "Host: a\r\nHost: b"),
        hosts("the same Host twice", "Host: a\r\nHost: a"),
        hosts("an empty Host", "Host:"),
        hosts("a Host with a path", "Host: a/b"),
        hosts("a Host with a user", "Host: user@a"),
        hosts("a Host with a space", "Host: a b"),
        hosts("a list of Hosts", "Host: a, b"),
        hosts("a Host with a query", "Host: a?b"),
        hosts("a Host with a bad port", "Host: a:b"),
        hosts("a Host with a great port", "Host: a:99999"),
        hosts("a Host that is encoded", "Host: a%2eb"),
        hosts("a Host in half a bracket", "Host: [::1"),
        hosts("a Host with a semicolon", "Host: a;b"),
        hosts("a Host in quotes", "Host: \"a\""),
        case(400, "another absolute target", "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        case(400, "an absolute target with a user", "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        case(
            400,
            "an absolute target with another port",
            "GET http://a:81/ HTTP/1.1\r\nHost: a:80\r\n\r\n",
        ),
    ]
}

fn chunks() -> Vec<Case> {
    vec![
        chunked("a size with a prefix", "0x3\r\nabc\r\n0\r\n\r\n"),
        chunked("a signed size", "+3\r\nabc\r\n0\r\n\r\n"),
        chunked("a negative size", "-3\r\nabc\r\n0\r\n\r\n"),
        chunked("a size after a space", " 3\r\nabc\r\n0\r\n\r\n"),
        chunked("a size before a space", "3 \r\nabc\r\n0\r\n\r\n"),
        chunked("a size that is empty", "\r\nabc\r\n0\r\n\r\n"),
        chunked("a size beyond counting", "10000000000000003\r\nabc\r\n0\r\n\r\n"),
        chunked("a size with an underscore", "1_0\r\nabc\r\n0\r\n\r\n"),
        chunked("a size that ends bare", "3\nabc\r\n0\r\n\r\n"),
        chunked("a chunk that ends bare", "3\r\nabc\n0\r\n\r\n"),
        chunked("a chunk that is longer", "3\r\nabcd\r\n0\r\n\r\n"),
        chunked("a chunk that ends in other bytes", "3\r\nabcXX0\r\n\r\n"),
        chunked("an extension with a bare line feed", "3;a\nb\r\nabc\r\n0\r\n\r\n"),
        chunked("an extension with a bare carriage return", "3;a\rb\r\nabc\r\n0\r\n\r\n"),
        chunked("an extension with NUL", "3;a\0b\r\nabc\r\n0\r\n\r\n"),
        chunked("a long extension", &format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(1000))),
        chunked("a folded trailer", "0\r\nT: 1\r\n 2\r\n\r\n"),
        chunked("a trailer without a colon", "0\r\nT\r\n\r\n"),
        chunked("a last chunk that ends bare", "0\n\r\n"),
        chunked("trailers that end bare", "0\r\n\n"),
    ]
}

fn amounts() -> Vec<Case> {
    let head = |headers: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
    vec![
        case(431, "many headers", head(&"X: 1\r\n".repeat(200))),
        case(431, "a long header", head(&format!("X: {}\r\n", "x".repeat(100_000)))),
        case(431, "a long name", head(&format!("{}: 1\r\n", "x".repeat(100_000)))),
        case(417, "an expectation", head("Expect: 200-ok\r\n")),
    ]
}

fn cases() -> Vec<Case> {
    [framing(), request_lines(), hosts(), chunks(), amounts()].into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_and_ambiguous_requests_are_refused() {
    let app = Upstream::start(|request| async move {
        use http_body_util::BodyExt;
        // A body that breaks off is no request.
        match request.uri().path() {
            "/chunked" => drop(request.into_body().collect().await),
            path => panic!("{path} came through"),
        }
        text("came through")
    })
    .await;
    let edge = Edge::start().await;
    let address = edge.serve("api", http(vec![app.replica("a")])).await;
    let mut wrong = Vec::new();
    for Case { what, bytes, status } in cases() {
        let answer = raw(address, &bytes).await;
        let line = answer.lines().next().unwrap_or_default();
        let answers = answer.lines().filter(|line| line.starts_with("HTTP/1.")).count();
        let told = line.split(' ').nth(1).unwrap_or_default() == status.to_string();
        if !told || answers != 1 || answer.contains("came through") {
            wrong.push(format!("{what}: {status} expected, {answers} answers: {answer:?}"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(cases().len(), 113);
    // And it still serves.
    let answer =
        raw(address, b"OPTIONS /chunked HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.ends_with("came through"), "{answer}");
}

/// A well-formed request before a bad one on the same connection is answered, the bad one refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_behind_a_good_one_does_not_harm_it() {
    let app = Upstream::named("a").await;
    let edge = Edge::start().await;
    let address = edge.serve("api", http(vec![app.replica("a")])).await;
    for good in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ] {
        let before = app.requests();
        let bytes = format!("{good}{good}GET / HTTP/1.1\r\nHost : a\r\n\r\n{good}");
        let answer = raw(address, bytes.as_bytes()).await;
        let statuses: Vec<&str> = answer
            .lines()
            .filter_map(|line| line.split("HTTP/1.1 ").nth(1).map(|rest| &rest[..3]))
            .collect();
        assert_eq!(statuses, ["200", "200", "400"], "{answer}");
        assert_eq!(app.requests(), before + 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unusual_but_right_is_served() {
    let app = Upstream::named("a").await;
    let edge = Edge::start().await;
    let address = edge.serve("api", http(vec![app.replica("a")])).await;
    let close = "Connection: close\r\n";
    for (bytes, expected) in [
        (format!("\r\nGET / HTTP/1.1\r\nHost: a\r\n{close}\r\n"), "a 0"),
        (format!("GET / HTTP/1.1\r\nhOsT:a\r\n{close}\r\n"), "a 0"),
        (format!("GET http://A:80/ HTTP/1.1\r\nHost: a:80\r\n{close}\r\n"), "a 0"),
        (format!("GET / HTTP/1.1\r\nHost: [::1]:80\r\n{close}\r\n"), "a 0"),
        (format!("GET /\u{fc} HTTP/1.1\r\nHost: a\r\n{close}\r\n"), "a 0"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: \u{fc}\r\n{close}\r\n"), "a 0"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX:\r\nY: \t \r\n{close}\r\n"), "a 0"),
        (format!("OPTIONS * HTTP/1.1\r\nHost: a\r\n{close}\r\n"), "a 0"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n{close}\r\nab"), "a 2"),
        (format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 003\r\n{close}\r\nabc"), "a 3"),
        (
            format!(
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n{close}\r\n\
                 3;name=\"va lue\"\r\nabc\r\n0A\r\n0123456789\r\n000\r\nTrailer: 1\r\n\r\n"
            ),
            "a 13",
        ),
    ] {
        let answer = raw(address, bytes.as_bytes()).await;
        assert!(answer.ends_with(expected), "{bytes:?}: {answer}");
    }
}

/// A listener whose limits are this short.
async fn hasty(edge: &Edge, app: &Upstream) -> std::net::SocketAddr {
    let address = edge.serve("api", http(vec![app.replica("a")])).await;
    edge.client
        .update_table(|table| {
            let limits = &mut table.listeners[0].limits;
            limits.head_timeout_ms = 400;
            limits.idle_timeout_ms = 600;
            limits.body_timeout_ms = 400;
            limits.send_timeout_ms = 400;
            limits.body_bytes_per_s = 1000;
        })
        .await
        .unwrap();
    address
}

/// Sends one byte after the other; answers what came back.
async fn drip(stream: &mut TcpStream, bytes: &[u8]) -> String {
    for byte in bytes {
        if stream.write_all(&[*byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    String::from_utf8(read_rest(stream).await).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_are_told_and_cut() {
    let app = Upstream::named("a").await;
    let edge = Edge::start().await;
    let address = hasty(&edge, &app).await;
    let connect = async || TcpStream::connect(address).await.unwrap();
    // A head by bytes, and one that stops.
    let mut stream = connect().await;
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(40));
    assert!(drip(&mut stream, head.as_bytes()).await.starts_with("HTTP/1.1 408"));
    let mut stream = connect().await;
    stream.write_all(b"GET / HT").await.unwrap();
    assert!(String::from_utf8(read_rest(&mut stream).await).unwrap().starts_with("HTTP/1.1 408"));
    // A body by bytes, one that stops, and one in chunks.
    for (head, body) in [
        ("Content-Length: 1000", "x".repeat(60)),
        ("Content-Length: 1000", String::new()),
        ("Transfer-Encoding: chunked", "1\r\nx\r\n".repeat(10)),
    ] {
        let mut stream = connect().await;
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = drip(&mut stream, body.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 408"), "{head}: {answer}");
    }
    // One who says nothing.
    let mut stream = connect().await;
    assert_eq!(read_rest(&mut stream).await, b"");
    // And one who sends fast enough.
    let mut stream = connect().await;
    stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2500\r\n\r\n").await.unwrap();
    for _ in 0..25 {
        stream.write_all(&[b'x'; 100]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    read_until(&mut stream, b"a 2500").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_is_cut() {
    let app = Upstream::start(|_| async { text(&"x".repeat(32 << 20)) }).await;
    let edge = Edge::start().await;
    let address = hasty(&edge, &app).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    edge.wait(|status| status.pools["api"].replicas[0].in_flight == 1).await;
    edge.wait(|status| status.pools["api"].replicas[0].in_flight == 0).await;
    assert!(read_rest(&mut stream).await.len() < 32 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_limited_in_all_and_by_address() {
    let app = Upstream::named("a").await;
    let edge = Edge::start().await;
    let address = edge.serve("api", http(vec![app.replica("a")])).await;
    let limit = async |all: u32, each: u32, trusted: Vec<String>| {
        edge.client
            .update_table(|table| {
                table.listeners[0].limits.connections = all;
                table.listeners[0].limits.connections_per_address = each;
                table.trusted_proxies = trusted.clone();
            })
            .await
            .unwrap();
    };
    let trusted = vec!["127.0.0.0/8".to_owned()];
    for (all, each, trusted) in [(2, 100, trusted), (100, 2, vec![])] {
        limit(all, each, trusted).await;
        let mut clients = Vec::new();
        for _ in 0..2 {
            let mut client = Http::connect(address).await.unwrap();
            assert_eq!(client.get("/").await.unwrap().1, "a 0");
            clients.push(client);
        }
        let answer = raw(address, b"").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer:?}");
        drop(clients);
        // When they are gone, others come in.
        let began = std::time::Instant::now();
        loop {
            let head = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            if raw(address, head).await.starts_with("HTTP/1.1 200") {
                break;
            }
            assert!(began.elapsed() < LONG);
        }
    }
    // A trusted proxy has as many as it likes.
    limit(100, 1, vec!["127.0.0.1".to_owned()]).await;
    let mut first = Http::connect(address).await.unwrap();
    assert_eq!(first.get("/").await.unwrap().1, "a 0");
    assert_eq!(get(address, "/").await.1, "a 0");
}
