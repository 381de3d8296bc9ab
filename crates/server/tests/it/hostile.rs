//! Requests that nobody should make: no error of ours, no panic, and memory that stays where it
//! was.

use std::fs;
use std::time::Duration;

use serde_json::json;
use shiplap_model::TokenAction;
use shiplap_server::{Limits, Listener, Notifier, Settings, TlsKeys};
use shiplap_testkit::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

use crate::stage::{Stage, may, settings};

const SOON: Duration = Duration::from_secs(20);
const REQUESTS: usize = 10_000;
/// What the process may grow by; one body of each connection and the answers fit in many times.
const MAX_GROWTH_BYTES: u64 = 64 << 20;

/// Numbers that are the same in each run (xorshift64*).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

const SEGMENTS: &[&str] = &[
    "api",
    "v1",
    "environments",
    "shop",
    "prod",
    "deployments",
    "rollbacks",
    "promotions",
    "orders",
    "1",
    "events",
    "tokens",
    "projects",
    "hooks",
    "github",
    "gitlab",
    "registry",
    "repos",
    "cheapa",
    "deploy",
    "actions",
    "workflows",
    "deploy.yml",
    "dispatches",
    "healthz",
    "metrics",
    "..",
    ".",
    "%2e%2e",
    "%2f",
    "%00",
    "%ff",
    "%",
    "%zz",
    "-1",
    "18446744073709551615",
    "99999999999999999999",
    "\u{e4}",
    "",
    "{id}",
    "$(id)",
    "'",
    "\"",
    "*",
    "openapi.json",
    "1;drop",
    "0x10",
    "%F0%9F%92%A9",
];

const ROUTES: &[&str] = &[
    "/api/v1/environments",
    "/api/v1/environments/shop/prod",
    "/api/v1/environments/shop/prod/deployments",
    "/api/v1/environments/shop/prod/rollbacks",
    "/api/v1/environments/shop/prod/promotions",
    "/api/v1/orders",
    "/api/v1/orders/1",
    "/api/v1/tokens",
    "/api/v1/tokens/x",
    "/api/v1/repos/cheapa/deploy/actions/workflows/deploy.yml/dispatches",
    "/repos/cheapa/deploy/actions/workflows/deploy.yml/dispatches",
    "/api/v1/projects/shop/hooks/github",
    "/api/v1/projects/shop/hooks/registry",
];

const QUERIES: &[&str] = &[
    "",
    "",
    "?wait=1ms",
    "?wait=%00",
    "?wait=-5",
    "?wait=999999999999999999999h",
    "?limit=-1",
    "?limit=99999999999",
    "?limit=0",
    "?before=18446744073709551615",
    "?before=x",
    "?project=shop",
    "?project=shop&environment=prod",
    "?project=..&environment=..",
    "?%",
    "?a=b&a=b&&&===",
    "?return_run_details=maybe",
];

const BODIES: &[&str] = &[
    "",
    "{}",
    "[]",
    "null",
    "0",
    "\"x\"",
    "{",
    "}",
    "[[[[[[[[[[",
    "{\"services\":{\"api\":\"\\u0000\"}}",
    "{\"services\":{\"web\":\"w1\"}}",
    "{\"services\":{\"\":\"1\"}}",
    "{\"services\":null}",
    "{\"services\":{\"api\":{\"a\":1}}}",
    "{\"images\":[\"::\"]}",
    "{\"images\":[\"ghcr.io/cheapa/web:v1\"]}",
    "{\"to\":-1}",
    "{\"to\":1e400}",
    "{\"to\":18446744073709551616}",
    "{\"from\":\"dev\"}",
    "{\"from\":\"../..\"}",
    "{\"ref\":\"main\",\"inputs\":{\"web_image_tag\":\"w1\"}}",
    "{\"ref\":\"main\",\"inputs\":{\"\":\"\"}}",
    "{\"ref\":\"\\ud800\"}",
    "{\"ref\":\"main\",\"inputs\":[]}",
    "{\"settle\":\"9999999999999999999s\"}",
    "{\"settle\":\"0s\",\"settle\":\"1s\"}",
    "{\"events\":[{\"target\":5}]}",
    "{\"name\":\"x\",\"scope\":{\"actions\":[\"root\"]}}",
    "\u{feff}{}",
    "{\"message\":\"\u{202e}\u{7}\"}",
];

/// One request as bytes, and whether the connection can be used again afterwards.
fn request(dice: &mut Dice, token: &str) -> Vec<u8> {
    let method = dice.one(&[
        "GET", "POST", "POST", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "BREW",
    ]);
    let mut path = match dice.below(3) {
        0 => (*dice.one(ROUTES)).to_owned(),
        1 => (0..dice.below(9)).map(|_| format!("/{}", dice.one(SEGMENTS))).collect(),
        _ => {
            let mut parts: Vec<&str> = dice.one(ROUTES).split('/').collect();
            let at = dice.below(parts.len());
            parts[at] = *dice.one::<&str>(SEGMENTS);
            parts.join("/")
        }
    };
    if path.is_empty() {
        path.push('/');
    }
    path.push_str(dice.one::<&str>(QUERIES));
    let auth = match dice.below(8) {
        0 => String::new(),
        1 => "Authorization: Bearer shiplap_0000000000000000_00\r\n".to_owned(),
        2 => "Authorization: Basic ====\r\n".to_owned(),
        3 => format!("Authorization: Bearer {}\r\n", &token[..token.len() - 1]),
        _ => format!("Authorization: token {token}\r\n"),
    };
    let extra = *dice.one(&[
        "",
        "",
        "Idempotency-Key: \u{e4}\r\n",
        "Idempotency-Key: k\r\n",
        "Last-Event-ID: -1-1-1-\r\n",
        "Content-Type: text/html\r\n",
        "X-Hub-Signature-256: sha256=00\r\n",
        "X-Gitlab-Token: \u{0}\r\n",
        "Expect: 100-continue\r\n",
        "Host: again\r\n",
        "Accept-Encoding: gzip, \u{7f}\r\n",
    ]);
    let body = match dice.below(4) {
        0 => dice.bytes(300),
        _ => dice.one(BODIES).as_bytes().to_vec(),
    };
    let length = match dice.below(40) {
        0 => "Content-Length: 99999999999999999999\r\n".to_owned(),
        1 => "Content-Length: -1\r\n".to_owned(),
        2 => "Transfer-Encoding: chunked\r\n".to_owned(),
        3 => "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n".to_owned(),
        4 => format!("Content-Length: {}\r\n", 2 << 20),
        _ => format!("Content-Length: {}\r\n", body.len()),
    };
    let mut bytes = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{auth}{extra}{length}\r\n"
    )
    .into_bytes();
    bytes.extend(body);
    if dice.below(50) == 0 {
        let cut = dice.below(bytes.len());
        bytes.truncate(cut);
    }
    bytes
}

/// The status of the answer; nothing where the connection was closed without one.
async fn exchange(stage: &Stage, bytes: &[u8]) -> Option<u16> {
    let mut stream = TcpStream::connect(stage.address).await.unwrap();
    // The server may have refused and closed before it has read everything.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.expect("an end");
    let line = String::from_utf8_lossy(&answer[..answer.len().min(64)]).into_owned();
    line.split(' ').nth(1)?.parse().ok()
}

fn resident_bytes() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_hostile_requests_find_no_error_of_ours() {
    let stage = Stage::new().await;
    let token = stage.token(may(&[TokenAction::Admin])).await;
    let mut dice = Dice(0x5EED_5EED_5EED_5EED);
    let mut statuses = std::collections::BTreeMap::<u16, usize>::new();
    let mut before = 0;
    for number in 0..REQUESTS {
        if number == REQUESTS / 5 {
            before = resident_bytes();
        }
        let bytes = request(&mut dice, &token);
        let status = exchange(&stage, &bytes).await.unwrap_or_default();
        // Full queues and quick successions are answered with 429.
        assert!(status < 500, "{status}: {}", String::from_utf8_lossy(&bytes));
        *statuses.entry(status).or_default() += 1;
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < MAX_GROWTH_BYTES, "grew by {grown} bytes");
    let troubles = stage.lines.troubles.lock().unwrap().clone();
    assert_eq!(troubles, Vec::<String>::new());
    // It reached far enough to mean something.
    for status in [200, 202, 400, 401, 404, 405, 422] {
        assert!(statuses.contains_key(&status), "{statuses:?}");
    }
    println!("statuses {statuses:?}, grew by {} KiB", grown / 1024);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let good = stage.post("/api/v1/environments/other/prod/deployments?wait=true").token(&token);
    assert_eq!(good.json(&json!({"services": {"web": "good"}})).send().await.status, 200);
}

fn with(limits: Limits) -> Settings {
    Settings { limits, ..settings() }
}

#[tokio::test]
async fn bodies_heads_and_numbers_of_headers_are_limited() {
    let stage = Stage::new().await;
    let token = stage.token(may(&[TokenAction::Admin])).await;
    let path = "/api/v1/environments/shop/prod/deployments";
    let large = vec![b' '; (1 << 20) + 1];
    let answer = stage.post(path).token(&token).bytes(&large).send().await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (413, "too-large"));
    let mut just_fits = vec![b' '; (1 << 20) - 2];
    just_fits.extend(b"{}");
    assert_eq!(stage.post(path).token(&token).bytes(&just_fits).send().await.status, 202);
    let many: String = (0..100).map(|n| format!("X-{n}: 1\r\n")).collect();
    let head = format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{many}\r\n");
    assert_eq!(exchange(&stage, head.as_bytes()).await, Some(431));
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(100_000));
    assert!(matches!(exchange(&stage, long.as_bytes()).await, Some(414 | 431)));
}

#[tokio::test]
async fn slow_heads_and_slow_bodies_are_given_up() {
    let limits = Limits {
        head_within: Duration::from_millis(200),
        body_within: Duration::from_millis(200),
        ..Limits::default()
    };
    let stage = Stage::with(with(limits), World::new(), Notifier::default()).await;
    let token = stage.token(may(&[TokenAction::Admin])).await;
    let path = "/api/v1/environments/shop/prod/deployments";
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: token {token}\r\n");
    for begun in [head.clone(), format!("{head}Content-Length: 10\r\n\r\n{{"), String::new()] {
        let began = Instant::now();
        let mut stream = TcpStream::connect(stage.address).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(SOON, stream.read_to_string(&mut answer)).await.expect("it is given up").unwrap();
        assert!(began.elapsed() < Duration::from_secs(3));
        let status = answer.split(' ').nth(1);
        assert!(matches!(status, None | Some("408")), "{answer}");
    }
}

#[tokio::test]
async fn what_unknown_senders_of_webhooks_may_take_up_is_limited() {
    let limits = Limits { hooks: 2, ..Limits::default() };
    let stage = Stage::with(with(limits), World::new(), Notifier::default()).await;
    let head = "POST /api/v1/projects/shop/hooks/github HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n";
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(stage.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        open.push(stream);
    }
    let path = "/api/v1/projects/shop/hooks/github";
    let began = Instant::now();
    while stage.post(path).send().await.status != 429 {
        assert!(began.elapsed() < SOON);
    }
    // Those with a token are not in their way, and who hangs up makes room.
    let token = stage.token(may(&[TokenAction::Admin])).await;
    assert_eq!(stage.get("/api/v1/orders").token(&token).send().await.status, 200);
    drop(open);
    while stage.post(path).send().await.status != 401 {
        assert!(began.elapsed() < SOON);
    }
}

#[tokio::test]
async fn one_address_cannot_take_all_connections_and_idle_ones_are_closed() {
    let limits = Limits {
        connections_per_address: 3,
        head_within: Duration::from_millis(300),
        ..Limits::default()
    };
    let stage = Stage::with(with(limits), World::new(), Notifier::default()).await;
    let mut idle = Vec::new();
    for _ in 0..3 {
        idle.push(TcpStream::connect(stage.address).await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut refused = TcpStream::connect(stage.address).await.unwrap();
    let mut nothing = Vec::new();
    let read = timeout(SOON, refused.read_to_end(&mut nothing)).await.unwrap();
    assert!(read.is_err() || nothing.is_empty());
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(stage.get("/healthz").send().await.status, 200);
    drop(idle);
}

#[tokio::test]
async fn tls_is_taken_off_and_whoever_does_not_speak_it_is_given_up() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let keys = TlsKeys::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
    assert!(TlsKeys::from_pem(b"nonsense", key.as_bytes()).is_err());
    assert!(keys.replace(chain.as_bytes(), b"nonsense").is_err());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = Limits { handshake_within: Duration::from_millis(300), ..Limits::default() };
    let listeners = vec![Listener::Tls(listener, keys)];
    let stage =
        Stage::on(with(limits), World::new(), Notifier::default(), listeners, address).await;
    assert_eq!(exchange(&stage, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await, None);
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut nothing = Vec::new();
    let _ = timeout(SOON, silent.read_to_end(&mut nothing)).await.expect("it is given up");

    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let name = "localhost".try_into().unwrap();
    let stream = connector.connect(name, TcpStream::connect(address).await.unwrap()).await.unwrap();
    assert_eq!(stage.get("/healthz").send_over(stream).await.status, 200);
}
