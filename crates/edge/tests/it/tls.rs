//! TLS: certificates and names, what is agreed on, and what becomes of it at changes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::{Method, StatusCode};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use shiplap_edge::table::{Challenge, Hsts, ListenerTls, Proof, Shown};
use shiplap_edge::{ClientError, Listener, Pool, Route, Table, Target};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::*;

/// An authority of the test's own.
struct Authority(rcgen::CertifiedIssuer<'static, rcgen::KeyPair>);

/// From now, in days.
struct Days {
    from: i64,
    to: i64,
}

const VALID: Days = Days { from: -1, to: 90 };

impl Authority {
    fn new() -> Authority {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "the test's authority");
        let key = rcgen::KeyPair::generate().unwrap();
        Authority(rcgen::CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// A chain, and its key apart.
    fn issue(&self, names: &[&str], days: Days) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        let now = std::time::SystemTime::now();
        let at = |days: i64| {
            let distance = Duration::from_secs(days.unsigned_abs() * 86400);
            let time = if days < 0 { now - distance } else { now + distance };
            time.into()
        };
        (params.not_before, params.not_after) = (at(days.from), at(days.to));
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (format!("{}{}", certificate.pem(), self.0.pem()), key.serialize_pem())
    }

    fn valid(&self, names: &[&str]) -> String {
        let (chain, key) = self.issue(names, VALID);
        chain + &key
    }

    /// A client that believes this authority, and keeps its sessions.
    fn client(&self) -> Arc<ClientConfig> {
        self.speaking(&["http/1.1"])
    }

    fn speaking(&self, protocols: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

async fn connect(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(config.clone()).connect(name, stream).await
}

/// One request on a connection of its own; also tells how the handshake went.
async fn ask(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    name: &str,
) -> (String, HandshakeKind) {
    let mut stream = connect(address, config, name).await.unwrap();
    let answer = ask_on(&mut stream, "GET / HTTP/1.1", "connection: close\r\n").await;
    (answer, stream.get_ref().1.handshake_kind().unwrap())
}

/// One request, up to the end of the stream, which must be said.
async fn ask_on(stream: &mut TlsStream<TcpStream>, line: &str, headers: &str) -> String {
    let request = format!("{line}\r\nhost: shop.example\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    // An end that is not said would be an error here.
    let read = tokio::time::timeout(LONG, stream.read_to_string(&mut answer)).await.unwrap();
    read.unwrap();
    answer
}

fn shown(certificate: &str, names: &[&str]) -> Shown {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    Shown { owner: OWNER.to_owned(), id: certificate.to_owned(), names }
}

impl Edge {
    async fn give(&self, pem: &str) -> String {
        self.client.put_certificate(pem.to_owned().into()).await.unwrap().id
    }

    /// A pool behind a listener with TLS, and certificates for it.
    async fn serve_tls(&self, pool: Pool, certificates: &[Shown]) -> SocketAddr {
        let mut listener = Listener { tls: Some(ListenerTls::default()), ..listener("api", 0) };
        listener.entry = Some("https".to_owned());
        let table = self.client.update_table(|table| {
            table.pools.insert("api".to_owned(), pool.clone());
            table.listeners.push(listener.clone());
            table.tls.certificates.extend_from_slice(certificates);
        });
        let table = table.await.unwrap();
        let listener = table.listeners.iter().find(|listener| listener.tls.is_some()).unwrap();
        SocketAddr::new(listener.address, listener.port)
    }

    async fn show(&self, certificates: &[Shown]) -> Result<Table, ClientError> {
        self.client.update_table(|table| table.tls.certificates = certificates.to_vec()).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_name_gets_its_certificate_and_replicas_hear_of_tls() {
    let app = Upstream::start(|request| async move {
        let header = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
        text(&format!("{} {}", header("host"), header("x-forwarded-proto")))
    })
    .await;
    let (edge, authority) = (Edge::start().await, Authority::new());
    let shop = edge.give(&authority.valid(&["shop.example"])).await;
    let below = edge.give(&authority.valid(&["*.shop.example"])).await;
    let one = edge.give(&authority.valid(&["www.shop.example"])).await;
    let certificates = [
        shown(&shop, &["shop.example"]),
        shown(&below, &["*.shop.example"]),
        shown(&one, &["www.shop.example"]),
    ];
    let address = edge.serve_tls(http(vec![app.replica("a")]), &certificates).await;
    let config = authority.client();
    let certificate_of = async |name: &str| {
        let stream = connect(address, &config, name).await.unwrap();
        let chain: &[CertificateDer<'_>] = stream.get_ref().1.peer_certificates().unwrap();
        x509_names(&chain[0])
    };
    assert_eq!(certificate_of("SHOP.example").await, "shop.example");
    assert_eq!(certificate_of("api.shop.example").await, "*.shop.example");
    assert_eq!(certificate_of("www.shop.example").await, "www.shop.example");
    let answer = ask(address, &config, "shop.example").await.0;
    assert!(answer.ends_with("shop.example https"), "{answer}");
    let status = edge.client.status().await.unwrap();
    assert_eq!(status.certificates.len(), 3);
    assert!(status.certificates[0].not_after_s > status.certificates[0].not_before_s);
}

/// The first name of a certificate, as it stands in its bytes.
fn x509_names(certificate: &CertificateDer<'_>) -> String {
    use x509_cert::der::Decode;
    use x509_cert::ext::pkix::{SubjectAltName, name::GeneralName};
    let read = x509_cert::Certificate::from_der(certificate).unwrap();
    let (_, names) = read.tbs_certificate().get_extension::<SubjectAltName>().unwrap().unwrap();
    match &names.0[0] {
        GeneralName::DnsName(name) => name.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_and_missing_names_are_refused_as_the_protocol_has_it() {
    let app = Upstream::named("a").await;
    let (edge, authority) = (Edge::start().await, Authority::new());
    let id = edge.give(&authority.valid(&["shop.example", "*.shop.example"])).await;
    let names = ["shop.example", "*.shop.example"];
    let address = edge.serve_tls(http(vec![app.replica("a")]), &[shown(&id, &names)]).await;
    let config = authority.client();
    for name in ["other.example", "a.b.shop.example", "127.0.0.1"] {
        let error = connect(address, &config, name).await.unwrap_err();
        assert!(error.to_string().contains("UnrecognisedName"), "{name}: {error}");
    }
    // Who calls an address can be given a certificate of a name.
    edge.client
        .update_table(|table| {
            let unnamed = Some("shop.example".to_owned());
            table.listeners[0].tls = Some(ListenerTls { unnamed });
        })
        .await
        .unwrap();
    let error = connect(address, &config, "127.0.0.1").await.unwrap_err();
    assert!(error.to_string().contains("not valid for name"), "{error}");
    let plain = raw(address, b"GET / HTTP/1.1\r\nhost: shop.example\r\n\r\n").await;
    assert!(plain.starts_with("HTTP/1.1 400 "), "{plain}");
    assert!(plain.contains("come with https://"), "{plain}");
    assert_eq!(raw(address, b"\x16\x03\x01\x00\x04\x02\x00\x00\x00").await.len(), 7, "an alert");
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_is_agreed_on_and_never_without() {
    let app = Upstream::named("a").await;
    let (edge, authority) = (Edge::start().await, Authority::new());
    let id = edge.give(&authority.valid(&["shop.example"])).await;
    let certificates = [shown(&id, &["shop.example"])];
    let address = edge.serve_tls(http(vec![app.replica("a")]), &certificates).await;
    let both = authority.speaking(&["h2", "http/1.1"]);
    let stream = connect(address, &both, "shop.example").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(Http2::over(stream).await.get("/").await.unwrap().1, "a 0");
    let mut stream = connect(address, &authority.client(), "shop.example").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
    let other = authority.speaking(&["spdy/3"]);
    let error = connect(address, &other, "shop.example").await.unwrap_err();
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_answer_comes_whole_to_a_slow_reader() {
    let content = "0123456789abcdef".repeat(256 << 10);
    let big = content.clone();
    let app = Upstream::start(move |_| {
        let big = big.clone();
        async move { text(&big) }
    })
    .await;
    let (edge, authority) = (Edge::start().await, Authority::new());
    let id = edge.give(&authority.valid(&["shop.example"])).await;
    let certificates = [shown(&id, &["shop.example"])];
    let address = edge.serve_tls(http(vec![app.replica("a")]), &certificates).await;
    let mut stream = connect(address, &authority.client(), "shop.example").await.unwrap();
    // Kept open, so that the end of the answer is not the end of the stream.
    stream.write_all(b"GET / HTTP/1.1\r\nhost: shop.example\r\n\r\n").await.unwrap();
    let mut all = Vec::new();
    let mut part = vec![0; 100_000];
    while !(all.ends_with(b"cdef") && all.len() > content.len()) {
        let read = tokio::time::timeout(LONG, stream.read(&mut part)).await.expect("more comes");
        all.extend_from_slice(&part[..read.unwrap()]);
        if all.len() < content.len() / 4 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if all.len() > content.len() - 200_000 {
            // Longer than hyper is kept for after the last byte was given to it.
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    }
    assert!(all.ends_with(content.as_bytes()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_socket_passes_both_ways() {
    let app = raw_server(|mut stream| async move {
        let head =
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: echo\r\nconnection: upgrade\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let (mut from, mut to) = stream.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
    })
    .await;
    let (edge, authority) = (Edge::start().await, Authority::new());
    let id = edge.give(&authority.valid(&["shop.example"])).await;
    let certificates = [shown(&id, &["shop.example"])];
    let address = edge.serve_tls(http(vec![replica("a", app)]), &certificates).await;
    let mut stream = connect(address, &authority.client(), "shop.example").await.unwrap();
    let head =
        "GET / HTTP/1.1\r\nhost: shop.example\r\nupgrade: echo\r\nconnection: upgrade\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "));
    let (mut from, mut to) = tokio::io::split(stream);
    let sent = vec![7; 3 << 20];
    let expected = sent.clone();
    tokio::spawn(async move { to.write_all(&sent).await.map(|()| to) });
    let mut echoed = vec![0; expected.len()];
    tokio::time::timeout(LONG, from.read_exact(&mut echoed)).await.unwrap().unwrap();
    assert!(echoed == expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_refused_and_the_last_good_one_goes_on() {
    let app = Upstream::named("a").await;
    let (edge, authority) = (Edge::start().await, Authority::new());
    let id = edge.give(&authority.valid(&["shop.example"])).await;
    let good = shown(&id, &["shop.example"]);
    let address = edge.serve_tls(http(vec![app.replica("a")]), std::slice::from_ref(&good)).await;
    let refused = |result: Result<Table, ClientError>| result.unwrap_err().to_string();
    // What does not fit together never becomes a certificate.
    let ((chain, _), (_, key)) =
        (authority.issue(&["shop.example"], VALID), authority.issue(&["shop.example"], VALID));
    let error = edge.client.put_certificate(format!("{chain}{key}").into()).await.unwrap_err();
    assert!(error.to_string().contains("not that of the first certificate"), "{error}");
    assert!(!error.to_string().contains("PRIVATE"), "{error}");
    let (chain, key) = authority.issue(&["shop.example"], Days { from: -90, to: -1 });
    let expired = edge.give(&format!("{chain}{key}")).await;
    let error = refused(edge.show(&[shown(&expired, &["shop.example"])]).await);
    assert!(error.contains("is valid from"), "{error}");
    let error = refused(edge.show(&[shown(&id, &["other.example"])]).await);
    assert!(error.contains("not for `other.example`, but for shop.example"), "{error}");
    let unknown = "0123456789abcdef0123456789abcdef";
    let error = refused(edge.show(&[shown(unknown, &["shop.example"])]).await);
    assert!(error.contains(unknown), "{error}");
    let error = refused(edge.show(&[good.clone(), good.clone()]).await);
    assert!(error.contains("two certificates for `shop.example`"), "{error}");
    let error = refused(edge.show(&[shown("../../table.json", &["shop.example"])]).await);
    assert!(error.contains("is not the id"), "{error}");
    assert!(ask(address, &authority.client(), "shop.example").await.0.ends_with("a 0"));
    let status = edge.client.status().await.unwrap();
    assert_eq!((status.generation, &status.problems[..]), (1, &[][..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_in_files_of_their_own_and_a_changed_one_is_not_used() {
    use std::os::unix::fs::PermissionsExt;
    let app = Upstream::named("a").await;
    let (mut edge, authority) = (Edge::start().await, Authority::new());
    let shop = edge.give(&authority.valid(&["shop.example"])).await;
    let www = edge.give(&authority.valid(&["www.shop.example"])).await;
    let certificates = [shown(&shop, &["shop.example"]), shown(&www, &["www.shop.example"])];
    let address = edge.serve_tls(http(vec![app.replica("a")]), &certificates).await;
    let file = edge.state(&format!("certificates/{shop}"));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    for text in [
        std::fs::read_to_string(edge.state("table.json")).unwrap(),
        format!("{:?}", edge.client.table().await.unwrap()),
        format!("{:?}", edge.client.status().await.unwrap()),
    ] {
        assert!(text.contains(&shop) && !text.contains("PRIVATE"), "{text}");
    }
    edge.supervisor.kill().unwrap();
    edge.supervisor.wait().unwrap();
    std::fs::write(&file, "torn").unwrap();
    edge.supervisor = spawn_supervisor(&edge.state(""), edge.client.socket());
    let pid = edge.supervisor.id();
    let status =
        edge.wait(|status| status.supervisor_pid == pid && status.listeners[0].bound).await;
    assert!(status.problems[0].contains("its file has been changed"), "{:?}", status.problems);
    assert_eq!(status.certificates[0].not_after_s, None);
    let config = authority.client();
    assert!(connect(address, &config, "shop.example").await.is_err());
    assert!(ask(address, &config, "www.shop.example").await.0.ends_with("a 0"));
    // It stops nobody from changing something else, and is mended by giving another.
    edge.change("api", |pool| pool.service = "other".to_owned()).await;
    let shop = edge.give(&authority.valid(&["shop.example"])).await;
    edge.show(&[shown(&shop, &["shop.example"])]).await.unwrap();
    assert!(ask(address, &config, "shop.example").await.0.ends_with("a 0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_shown_at_once_and_cuts_nobody() {
    let app = Upstream::named("a").await;
    let (edge, authority) = (Edge::start().await, Authority::new());
    let first = edge.give(&authority.valid(&["shop.example"])).await;
    let certificates = [shown(&first, &["shop.example"])];
    let address = edge.serve_tls(http(vec![app.replica("a")]), &certificates).await;
    let config = authority.speaking(&["h2"]);
    let before = connect(address, &config, "shop.example").await.unwrap();
    let chain_before = before.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned();
    let mut before = Http2::over(before).await;
    before.get("/").await.unwrap();
    let second = edge.give(&authority.valid(&["shop.example"])).await;
    edge.show(&[shown(&second, &["shop.example"])]).await.unwrap();
    let fresh = authority.speaking(&["h2"]);
    let after = connect(address, &fresh, "shop.example").await.unwrap();
    assert_ne!(after.get_ref().1.peer_certificates().unwrap()[0], chain_before);
    assert_eq!(before.get("/").await.unwrap().1, "a 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_resumed_also_after_a_crash_and_an_upgrade() {
    let app = Upstream::named("a").await;
    let (mut edge, authority) = (Edge::start().await, Authority::new());
    let id = edge.give(&authority.valid(&["shop.example"])).await;
    let certificates = [shown(&id, &["shop.example"])];
    let address = edge.serve_tls(http(vec![app.replica("a")]), &certificates).await;
    let tls13 = authority.client();
    let tls12 = {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(authority.0.der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    };
    for config in [&tls12, &tls13] {
        assert_eq!(ask(address, config, "shop.example").await.1, HandshakeKind::Full);
        assert_eq!(ask(address, config, "shop.example").await.1, HandshakeKind::Resumed);
    }
    let worker = edge.client.status().await.unwrap().worker_pid;
    assert!(
        std::process::Command::new("kill")
            .args(["-KILL", &worker.to_string()])
            .status()
            .unwrap()
            .success()
    );
    edge.wait(|status| status.worker_restarts == 1).await;
    for config in [&tls12, &tls13] {
        assert_eq!(ask(address, config, "shop.example").await.1, HandshakeKind::Resumed);
    }
    let pid = edge.supervisor.id();
    let successor = spawn_supervisor(&edge.state(""), edge.client.socket());
    let mut old = std::mem::replace(&mut edge.supervisor, successor);
    edge.wait(|status| status.supervisor_pid != pid).await;
    assert!(old.wait().unwrap().success());
    for config in [&tls12, &tls13] {
        assert_eq!(ask(address, config, "shop.example").await.1, HandshakeKind::Resumed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_over_tls_outlive_an_upgrade() {
    let app = Upstream::start(|request| async move {
        if request.uri().path() == "/slow" {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        text("done")
    })
    .await;
    let (mut edge, authority) = (Edge::start().await, Authority::new());
    let id = edge.give(&authority.valid(&["shop.example"])).await;
    let certificates = [shown(&id, &["shop.example"])];
    let address = edge.serve_tls(http(vec![app.replica("a")]), &certificates).await;
    let config = authority.client();
    let mut slow = connect(address, &config, "shop.example").await.unwrap();
    let pending = tokio::spawn(async move {
        ask_on(&mut slow, "GET /slow HTTP/1.1", "connection: close\r\n").await
    });
    until("the request", || app.requests() == 1).await;
    let pid = edge.supervisor.id();
    let successor = spawn_supervisor(&edge.state(""), edge.client.socket());
    let mut old = std::mem::replace(&mut edge.supervisor, successor);
    for _ in 0..50 {
        assert!(ask(address, &config, "shop.example").await.0.ends_with("done"));
    }
    edge.wait(|status| status.supervisor_pid != pid).await;
    assert!(ask(address, &config, "shop.example").await.0.ends_with("done"));
    assert!(pending.await.unwrap().ends_with("done"));
    assert!(old.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_says_whom_it_speaks_for_before_tls_and_plain() {
    let app = Upstream::start(|request| async move {
        text(request.headers()["x-forwarded-for"].to_str().unwrap())
    })
    .await;
    let (edge, authority) = (Edge::start().await, Authority::new());
    let id = edge.give(&authority.valid(&["shop.example"])).await;
    let certificates = [shown(&id, &["shop.example"])];
    let secure = edge.serve_tls(http(vec![app.replica("a")]), &certificates).await;
    let table = edge.client.update_table(|table| {
        let mut plain = listener("api", 0);
        plain.limits.handshake_timeout_ms = 300;
        table.listeners.push(plain);
        for listener in &mut table.listeners {
            listener.proxy_protocol = vec!["127.0.0.0/8".to_owned()];
        }
    });
    let table = table.await.unwrap();
    let plain = SocketAddr::new(LOCALHOST, table.listeners[1].port);
    let header = "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n";
    let request = "GET / HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n\r\n";
    let answer = raw(plain, format!("{header}{request}").as_bytes()).await;
    assert!(answer.ends_with("\r\n\r\n192.0.2.7"), "{answer}");
    // What is not said is not guessed.
    assert_eq!(raw(plain, request.as_bytes()).await, "");
    assert_eq!(raw(plain, b"PROXY TCP4 192.0").await, "");
    let mut stream = TcpStream::connect(secure).await.unwrap();
    stream.write_all(header.as_bytes()).await.unwrap();
    let name = ServerName::try_from("shop.example").unwrap();
    let stream = TlsConnector::from(authority.client()).connect(name, stream).await;
    let answer = ask_on(&mut stream.unwrap(), "GET / HTTP/1.1", "connection: close\r\n").await;
    assert!(answer.ends_with("\r\n\r\n192.0.2.7"), "{answer}");
    // From elsewhere it is a request like any other, and not a good one.
    let nobody =
        |table: &mut Table| table.listeners[1].proxy_protocol = vec!["192.0.2.1".to_owned()];
    edge.client.update_table(nobody).await.unwrap();
    let answer = raw(plain, format!("{header}{request}").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_takes_too_long_is_given_up_and_counts_as_a_connection() {
    let app = Upstream::named("a").await;
    let (edge, authority) = (Edge::start().await, Authority::new());
    let id = edge.give(&authority.valid(&["shop.example"])).await;
    let certificates = [shown(&id, &["shop.example"])];
    let address = edge.serve_tls(http(vec![app.replica("a")]), &certificates).await;
    let limit = |connections: u32| {
        move |table: &mut Table| {
            table.listeners[0].limits.handshake_timeout_ms = 300;
            table.listeners[0].limits.connections = connections;
        }
    };
    edge.client.update_table(limit(1)).await.unwrap();
    let mut silent = TcpStream::connect(address).await.unwrap();
    silent.write_all(&[0x16, 3, 1]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    // Closed without a word: plain text would mean nothing to it.
    let mut second = TcpStream::connect(address).await.unwrap();
    assert_eq!(read_rest(&mut second).await, b"");
    assert_eq!(read_rest(&mut silent).await, b"");
    ask(address, &authority.client(), "shop.example").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn authorities_are_answered_whatever_routes_and_policies_say() {
    let app = Upstream::start(|request| async move { text(request.uri().path()) }).await;
    let (edge, authority) = (Edge::start().await, Authority::new());
    let id = edge.give(&authority.valid(&["shop.example"])).await;
    let proof = edge.give(&authority.valid(&["new.example"])).await;
    let certificates = [shown(&id, &["shop.example"])];
    let secure = edge.serve_tls(http(vec![app.replica("a")]), &certificates).await;
    let challenge =
        |proof: Proof| Challenge { owner: OWNER.to_owned(), host: "new.example".to_owned(), proof };
    let http_proof = Proof::Http { token: "tok-1".to_owned(), answer: "tok-1.print".to_owned() };
    let challenges = [challenge(http_proof), challenge(Proof::Tls { certificate: proof })];
    let mut plain = Listener::new(OWNER, LOCALHOST, 0, "api");
    (plain.pool, plain.entry) = (None, Some("http".to_owned()));
    let mut route: Route =
        serde_json::from_str(r#"{ "owner": "test/default", "pool": "api" }"#).unwrap();
    assert_eq!(route.target, Target::Pool("api".to_owned()));
    route.policy.https_port = Some(secure.port());
    let max_age_s = 300;
    route.policy.hsts = Some(Hsts { max_age_s, include_subdomains: true, preload: false });
    let table = edge.client.update_table(|table| {
        table.listeners.push(plain.clone());
        table.routes.push(route.clone());
        table.tls.challenges = challenges.to_vec();
    });
    let table = table.await.unwrap();
    let plain = table.listeners.iter().find(|listener| listener.tls.is_none()).unwrap();
    let plain = SocketAddr::new(plain.address, plain.port);
    let get = async |host: &str, path: &str| {
        let mut client = Http::connect(plain).await.unwrap();
        let mut request = request(Method::GET, path, "");
        request.headers_mut().insert("host", host.parse().unwrap());
        let answer = client.send(request).await.unwrap();
        let location = answer.headers().get("location").map(|to| to.to_str().unwrap().to_owned());
        assert!(!answer.headers().contains_key("strict-transport-security"));
        let (status, text) = read(answer).await.unwrap();
        (status, location.unwrap_or(text))
    };
    let path = "/.well-known/acme-challenge/tok-1";
    assert_eq!(get("new.example", path).await, (StatusCode::OK, "tok-1.print".to_owned()));
    // What is not ours is perhaps the service's.
    assert_eq!(get("shop.example", path).await, (StatusCode::OK, path.to_owned()));
    let to = format!("https://shop.example:{}/x", secure.port());
    assert_eq!(get("shop.example", "/x").await, (StatusCode::PERMANENT_REDIRECT, to));
    let answer = ask(secure, &authority.client(), "shop.example").await.0;
    let hsts = "strict-transport-security: max-age=300; includeSubDomains\r\n";
    assert!(answer.contains(hsts), "{answer}");
    // Only who speaks `acme-tls/1` sees the proof, and nothing else.
    let acme = authority.speaking(&["acme-tls/1"]);
    let mut stream = connect(secure, &acme, "new.example").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"acme-tls/1"[..]));
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    assert!(connect(secure, &authority.client(), "new.example").await.is_err());
    assert!(connect(secure, &acme, "shop.example").await.is_err());
}
