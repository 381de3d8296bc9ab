//! `shiplap edge certificates`, against an edge of this binary and, where it is installed, Debian's
//! test authority `pebble`. Needs no engine.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

/// What no wait takes, unless something is broken.
const LONG: Duration = Duration::from_secs(60);

/// A program that ends with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A folder of state, and an edge that runs without a container.
struct Lab {
    folder: tempfile::TempDir,
    edge: Running,
    http: u16,
    https: u16,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < LONG, "{what} never happened");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn shiplap(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shiplap"));
    command
        .env("SHIPLAP_STATE_DIR", folder.join("state"))
        .env("SHIPLAP_EDGE_DIR", folder.join("edge"));
    command
}

impl Lab {
    /// With the ports for routes open.
    fn start() -> Lab {
        let folder = tempfile::Builder::new().prefix("slcert-").tempdir().unwrap();
        let edge = shiplap(folder.path()).args(["edge", "supervise"]).spawn().unwrap();
        let (http, https) = (free_port(), free_port());
        let lab = Lab { folder, edge: Running(edge), http, https };
        lab.listen();
        lab
    }

    /// Another edge, which knows nothing.
    fn lose_edge(&mut self) {
        let edge = || shiplap(self.folder.path()).args(["edge", "supervise"]).spawn().unwrap();
        let _ = self.edge.0.kill();
        let _ = self.edge.0.wait();
        fs::remove_dir_all(self.folder.path().join("edge")).unwrap();
        self.edge = Running(edge());
        self.listen();
    }

    fn listen(&self) {
        let socket = self.folder.path().join("edge/admin.sock");
        until("the edge's socket", || socket.exists().then_some(()));
        let (http, https) = (self.http.to_string(), self.https.to_string());
        until("the edge", || {
            let ran = self.run(&["listen", "--http", &http, "--https", &https]);
            ran.status.success().then_some(())
        });
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = shiplap(self.folder.path());
        command.args(["edge", "certificates"]).args(arguments).output().unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let ran = self.run(&[arguments, &["--json"]].concat());
        serde_json::from_slice(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
    }

    fn kept(&self, file: &str) -> PathBuf {
        self.folder.path().join("state/certificates").join(file)
    }

    /// The certificate that a client is shown who believes this authority.
    fn shown(&self, name: &str, roots: &Path) -> Result<Vec<u8>, String> {
        let mut store = RootCertStore::empty();
        for root in CertificateDer::pem_file_iter(roots).unwrap() {
            store.add(root.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(store)
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let session = ClientConnection::new(Arc::new(config), name).unwrap();
        let stream = TcpStream::connect(("127.0.0.1", self.https)).unwrap();
        let mut stream = StreamOwned::new(session, stream);
        let request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        stream.write_all(request).map_err(|error| error.to_string())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(|error| error.to_string())?;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        Ok(stream.conn.peer_certificates().unwrap()[0].to_vec())
    }

    fn challenges(&self) -> usize {
        let text = fs::read(self.folder.path().join("edge/table.json")).unwrap();
        let table: Value = serde_json::from_slice(&text).unwrap();
        table["tls"]["challenges"].as_array().map_or(0, Vec::len)
    }
}

fn became(outcome: &Value) -> Vec<&str> {
    let all = outcome["certificates"].as_array().unwrap();
    all.iter().map(|one| one["became"].as_str().unwrap()).collect()
}

#[test]
fn an_authority_of_our_own_issues_and_what_it_issued_is_shown_again_by_another_edge() {
    let mut lab = Lab::start();
    let outcome = lab.json(&["add", "shop.localhost", "*.shop.localhost", "--internal"]);
    assert_eq!(became(&outcome), ["renewed"], "{outcome}");
    let authority = lab.kept("authority/ca.pem");
    let first = lab.shown("shop.localhost", &authority).unwrap();
    assert_eq!(lab.shown("api.shop.localhost", &authority).unwrap(), first);
    for file in ["authority/ca.key", "live/shop.localhost.pem", "certificates.json"] {
        let mode = fs::metadata(lab.kept(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let trust = lab.json(&["trust"]);
    assert_eq!(trust["authority"], authority.to_str().unwrap());
    // It is not time yet, also for an edge that has lost it; and then it is.
    lab.lose_edge();
    assert!(lab.shown("shop.localhost", &authority).is_err());
    assert_eq!(became(&lab.json(&["--renew"])), ["kept"]);
    assert_eq!(lab.shown("shop.localhost", &authority).unwrap(), first);
    assert_eq!(became(&lab.json(&["--renew", "--now"])), ["renewed"]);
    let second = lab.shown("shop.localhost", &authority).unwrap();
    assert_ne!(second, first);
    // One more name.
    lab.json(&["add", "shop.localhost", "other.localhost", "--internal"]);
    lab.shown("other.localhost", &authority).unwrap();
    let error = lab.shown("api.shop.localhost", &authority).unwrap_err();
    assert!(error.contains("UnrecognisedName"), "{error}");
    let listed = lab.json(&[]);
    assert!(
        listed["certificates"][0]["renew_at_ms"].as_i64()
            < listed["certificates"][0]["not_after_ms"].as_i64()
    );
    let ran = lab.run(&["remove", "shop.localhost"]);
    assert!(ran.status.success(), "{ran:?}");
    assert!(lab.shown("shop.localhost", &authority).is_err());
    assert!(!lab.kept("live/shop.localhost.pem").exists());
}

/// A certificate and a key in files, signed by itself.
fn put_files(folder: &Path, name: &str, key_of: Option<&rcgen::KeyPair>) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let (chain, key_file) = (folder.join("chain.pem"), folder.join("key.pem"));
    fs::write(&chain, certificate.pem()).unwrap();
    fs::write(&key_file, key_of.unwrap_or(&key).serialize_pem()).unwrap();
    (chain.to_str().unwrap().to_owned(), key_file.to_str().unwrap().to_owned())
}

#[test]
fn given_files_are_taken_up_when_they_change_and_broken_ones_leave_the_last_good_one() {
    let lab = Lab::start();
    let given = tempfile::tempdir().unwrap();
    let (chain, key) = put_files(given.path(), "shop.example", None);
    let outcome = lab.json(&["add", "shop.example", "--files", &chain, &key]);
    assert_eq!(became(&outcome), ["renewed"], "{outcome}");
    let first = lab.shown("shop.example", Path::new(&chain)).unwrap();
    assert_eq!(became(&lab.json(&["--renew"])), ["kept"]);
    // A chain without its key, halfway through a renewal by hand.
    let old = fs::read(&chain).unwrap();
    put_files(given.path(), "shop.example", Some(&rcgen::KeyPair::generate().unwrap()));
    let ran = lab.run(&["--renew"]);
    let said = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(ran.status.code(), Some(1));
    assert!(said.contains("the private key is not that of the first certificate"), "{said}");
    let roots = given.path().join("old.pem");
    fs::write(&roots, old).unwrap();
    assert_eq!(lab.shown("shop.example", &roots).unwrap(), first);
    let listed = lab.json(&[]);
    assert_eq!(listed["certificates"][0]["failures"], 1);
    // Whole again: taken up at once, whatever the wait after a failure.
    put_files(given.path(), "shop.example", None);
    assert_eq!(became(&lab.json(&["--renew"])), ["renewed"]);
    assert_ne!(lab.shown("shop.example", Path::new(&chain)).unwrap(), first);
    // Those of other names are as broken as any.
    put_files(given.path(), "other.example", None);
    let said = String::from_utf8(lab.run(&["--renew"]).stderr).unwrap();
    assert!(said.contains("not for `shop.example`, but for other.example"), "{said}");
    let ran = lab.run(&["add", "a.example", "shop.example", "--internal"]);
    assert_eq!(ran.status.code(), Some(2), "{ran:?}");
}

/// An authority that looks at hosts, all of which are this machine.
struct Pebble {
    folder: tempfile::TempDir,
    _names: Running,
    _authority: Running,
    directory: String,
}

impl Pebble {
    fn start(lab: &Lab, external: bool) -> Option<Pebble> {
        let there = |program: &str| {
            let mut asked = Command::new(program);
            asked.arg("-h").stderr(Stdio::null()).stdout(Stdio::null()).status().is_ok()
        };
        let mut commands = ["pebble", "pebble-challtestsrv"].into_iter();
        if let Some(missing) = commands.find(|program| !there(program)) {
            eprintln!("skipped: `{missing}` is not installed (apt-get install pebble)");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = |file: &str| folder.path().join(file).to_str().unwrap().to_owned();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap());
        let root = root.unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let own = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &root).unwrap();
        fs::write(path("roots.pem"), root.pem()).unwrap();
        fs::write(path("own.pem"), own.pem()).unwrap();
        fs::write(path("own.key"), key.serialize_pem()).unwrap();
        let (listen, manage, dns) = (free_port(), free_port(), free_port());
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{listen}"),
            "managementListenAddress": format!("127.0.0.1:{manage}"),
            "certificate": path("own.pem"), "privateKey": path("own.key"),
            "httpPort": lab.http, "tlsPort": lab.https,
            "ocspResponderURL": "", "externalAccountBindingRequired": external,
            "externalAccountMACKeys":
                { "kid-1": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W" },
        } });
        fs::write(path("config.json"), config.to_string()).unwrap();
        let names = Command::new("pebble-challtestsrv")
            .args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-dns01"])
            .arg(format!("127.0.0.1:{dns}"))
            .args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-management"])
            .arg(format!("127.0.0.1:{}", free_port()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until("names", || TcpStream::connect(("127.0.0.1", dns)).ok());
        let authority = Command::new("pebble")
            .args(["-config", &path("config.json"), "-dnsserver", &format!("127.0.0.1:{dns}")])
            .env("PEBBLE_VA_NOSLEEP", "1")
            // It refuses some at random otherwise, more often in a row than the library asks again.
            .env("PEBBLE_WFE_NONCEREJECT", "0")
            .stdout(fs::File::create(path("log")).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until("the authority", || TcpStream::connect(("127.0.0.1", listen)).ok());
        let directory = format!("https://localhost:{listen}/dir");
        let (names, authority) = (Running(names), Running(authority));
        Some(Pebble { folder, _names: names, _authority: authority, directory })
    }

    fn roots(&self) -> String {
        self.folder.path().join("roots.pem").to_str().unwrap().to_owned()
    }

    fn arguments<'a>(&'a self, roots: &'a str) -> Vec<&'a str> {
        vec!["--acme", "--directory", &self.directory, "--roots", roots]
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }
}

/// The chain that is kept, without believing anybody.
fn issuer_of(lab: &Lab, name: &str) -> PathBuf {
    let kept = fs::read_to_string(lab.kept(&format!("live/{name}.pem"))).unwrap();
    let mut chain: Vec<&str> = kept.split_inclusive("-----END CERTIFICATE-----\n").collect();
    assert!(chain.len() >= 3, "own, issuer's, key");
    chain.pop();
    let path = lab.kept(&format!("{name}.issuer"));
    fs::write(&path, chain[1..].concat()).unwrap();
    path
}

#[test]
fn an_authority_issues_by_both_challenges_and_renews() {
    let lab = Lab::start();
    let Some(pebble) = Pebble::start(&lab, false) else { return };
    let roots = pebble.roots();
    let both =
        [&["add", "shop.example", "www.shop.example"], &pebble.arguments(&roots)[..]].concat();
    let outcome = lab.json(&both);
    assert_eq!(became(&outcome), ["renewed"], "{outcome} {}", pebble.log());
    assert_eq!(outcome["edge_error"], Value::Null);
    assert_eq!(lab.challenges(), 0, "proofs are taken back");
    let issuer = issuer_of(&lab, "shop.example");
    let first = lab.shown("shop.example", &issuer).unwrap();
    assert_eq!(lab.shown("www.shop.example", &issuer).unwrap(), first);
    let options = ["--challenge", "tls-alpn-01", "--contact", "ops@shop.example"];
    let arguments = pebble.arguments(&roots);
    let outcome = lab.json(&[&["add", "api.example"], &arguments[..], &options].concat());
    assert_eq!(became(&outcome), ["renewed"], "{outcome} {}", pebble.log());
    lab.shown("api.example", &issuer_of(&lab, "api.example")).unwrap();
    assert_eq!(became(&lab.json(&["--renew"])), ["kept", "kept"]);
    let outcome = lab.json(&["--renew", "--now"]);
    assert_eq!(became(&outcome), ["renewed", "renewed"], "{outcome}");
    assert_ne!(lab.shown("shop.example", &issuer).unwrap(), first);
    // One account per directory and contact, for its owner only.
    let accounts: Vec<PathBuf> =
        fs::read_dir(lab.kept("accounts")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(accounts.len(), 2);
    for account in &accounts {
        assert_eq!(fs::metadata(account).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let proofs = fs::read_to_string(lab.folder.path().join("edge/table.json")).unwrap();
    assert!(!proofs.contains("PRIVATE"));
}

#[test]
fn failures_leave_the_last_good_one_and_are_not_repeated_at_once() {
    let lab = Lab::start();
    let Some(pebble) = Pebble::start(&lab, false) else { return };
    let roots = pebble.roots();
    lab.json(&[&["add", "shop.example"], &pebble.arguments(&roots)[..]].concat());
    let issuer = issuer_of(&lab, "shop.example");
    let first = lab.shown("shop.example", &issuer).unwrap();
    // The port that is asked leads nowhere now.
    let (https, elsewhere) = (lab.https.to_string(), free_port().to_string());
    assert!(lab.run(&["listen", "--http", &elsewhere, "--https", &https]).status.success());
    let other = [&["add", "shop.example", "new.example"], &pebble.arguments(&roots)[..]].concat();
    let outcome = lab.json(&other);
    assert_eq!(became(&outcome), ["failed"], "{outcome}");
    let error = outcome["certificates"][0]["error"].as_str().unwrap();
    assert!(error.contains(".example: ") && error.contains("connection: "), "{error}");
    assert_eq!(lab.challenges(), 0, "proofs are taken back");
    assert_eq!(lab.shown("shop.example", &issuer).unwrap(), first);
    assert_eq!(became(&lab.json(&["--renew"])), ["waiting"]);
    // Without any such port the authority is not even asked.
    assert!(lab.run(&["listen", "--https", &https]).status.success());
    let orders = pebble.log().matches("/order-plz").count();
    let outcome = lab.json(&["--renew", "--now"]);
    let error = outcome["certificates"][0]["error"].as_str().unwrap();
    assert!(error.contains("no listener of the edge is for HTTP without TLS"), "{error}");
    assert_eq!(pebble.log().matches("/order-plz").count(), orders);
    let listed = lab.json(&[]);
    assert_eq!(listed["certificates"][0]["failures"], 2);
    // An authority that is not there, and then is again.
    let http = lab.http.to_string();
    assert!(lab.run(&["listen", "--http", &http, "--https", &https]).status.success());
    assert_eq!(became(&lab.json(&["--renew", "--now"])), ["renewed"]);
    drop(pebble);
    assert_eq!(became(&lab.json(&["--renew", "--now"])), ["failed"]);
    lab.shown("new.example", &issuer).unwrap();
}

#[test]
fn an_account_that_the_authority_has_forgotten_is_made_again() {
    let lab = Lab::start();
    let Some(pebble) = Pebble::start(&lab, false) else { return };
    let roots = pebble.roots();
    lab.json(&[&["add", "shop.example"], &pebble.arguments(&roots)[..]].concat());
    drop(pebble);
    // Pebble keeps nothing, so this one knows nobody.
    let again = Pebble::start(&lab, false).unwrap();
    let account = fs::read_dir(lab.kept("accounts")).unwrap().next().unwrap().unwrap().path();
    let text = fs::read_to_string(&account).unwrap();
    let roots = again.roots();
    let add = [&["add", "shop.example"], &again.arguments(&roots)[..]].concat();
    let outcome = lab.json(&add);
    assert_eq!(became(&outcome), ["renewed"], "{outcome} {}", again.log());
    // As if it had been at the new one's address.
    let mut known: Value = serde_json::from_str(&text).unwrap();
    let of_new = fs::read_dir(lab.kept("accounts")).unwrap().map(|entry| entry.unwrap().path());
    let of_new = of_new.into_iter().find(|path| *path != account).unwrap();
    let new: Value = serde_json::from_slice(&fs::read(&of_new).unwrap()).unwrap();
    known["directory"] = new["directory"].clone();
    let (host, id) = (again.directory.trim_end_matches("/dir"), known["id"].as_str().unwrap());
    known["id"] = format!("{host}/{}", id.splitn(4, '/').nth(3).unwrap()).into();
    fs::write(&of_new, known.to_string()).unwrap();
    let outcome = lab.json(&["--renew", "--now"]);
    assert_eq!(became(&outcome), ["renewed"], "{outcome}");
}

#[test]
fn an_account_can_be_bound_to_one_that_is_known() {
    let lab = Lab::start();
    let Some(pebble) = Pebble::start(&lab, true) else { return };
    let roots = pebble.roots();
    let outcome = lab.json(&[&["add", "shop.example"], &pebble.arguments(&roots)[..]].concat());
    let error = outcome["certificates"][0]["error"].as_str().unwrap();
    assert!(error.contains("externalAccountRequired"), "{error}");
    let key = lab.folder.path().join("eab");
    fs::write(&key, "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W\n").unwrap();
    let bound = ["--eab-key-id", "kid-1", "--eab-key-file", key.to_str().unwrap()];
    let outcome =
        lab.json(&[&["add", "shop.example"], &pebble.arguments(&roots)[..], &bound].concat());
    assert_eq!(became(&outcome), ["renewed"], "{outcome}");
}
