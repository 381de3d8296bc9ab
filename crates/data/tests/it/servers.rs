//! Servers that are not the usual one: with TLS, read only, full.

use std::path::Path;
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use shiplap_data::postgres::Server;

use crate::lab::{Lab, give};
use crate::sampling::{CONFIG, SHOP};

/// An authority, its certificate in PEM.
fn authority() -> (Issuer<'static, KeyPair>, String) {
    let key = KeyPair::generate().expect("a key can be made");
    let mut params = CertificateParams::new([]).expect("no names are no wrong names");
    // Somebody who had the name of what it signs would be taken for that.
    params.distinguished_name.push(DnType::CommonName, "an authority for a test");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).expect("it can sign itself").pem();
    (Issuer::new(params, key), pem)
}

/// Certificates in the server's folder, for `localhost` only; settings that use them.
fn with_tls(folder: &Path) -> Vec<String> {
    let (issuer, authority) = authority();
    let key = KeyPair::generate().expect("a key can be made");
    let params = CertificateParams::new(["localhost".to_owned()]).expect("a name is a name");
    let certificate = params.signed_by(&key, &issuer).expect("it can be signed");
    let (_, another) = self::authority();
    for (name, pem) in [
        ("authority.pem", authority),
        ("another.pem", another),
        ("server.pem", certificate.pem()),
        ("server.key", key.serialize_pem()),
    ] {
        let path = folder.join(name);
        std::fs::write(&path, pem).expect("the folder is there");
        assert!(give(&path));
    }
    // PostgreSQL refuses a key that others may read.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(folder.join("server.key"), mode).expect("it is ours");
    let file = |name: &str| folder.join(name).display().to_string();
    vec![
        "ssl=on".to_owned(),
        format!("ssl_cert_file={}", file("server.pem")),
        format!("ssl_key_file={}", file("server.key")),
        "listen_addresses=127.0.0.1".to_owned(),
    ]
}

#[tokio::test]
async fn a_server_is_trusted_as_far_as_was_asked() {
    let Some(lab) = Lab::alone(SHOP, &with_tls).await else { return };
    let (port, source) = (lab.port(), &lab.source);
    let folder = lab.folder().display().to_string();
    let server = |host: &str, mode: &str, roots: &str| {
        let roots = match roots {
            "" => String::new(),
            roots => format!(" sslrootcert='{folder}/{roots}'"),
        };
        let url = format!("host={host} port={port} user=postgres dbname='{source}' sslmode={mode}");
        Server::parse(&(url + &roots)).expect("the URL is valid")
    };
    for (host, mode, roots, is_encrypted) in [
        ("localhost", "disable", "", Some(false)),
        ("localhost", "prefer", "", Some(true)),
        ("127.0.0.1", "require", "", Some(true)),
        ("127.0.0.1", "require", "another.pem", None),
        ("127.0.0.1", "verify-ca", "authority.pem", Some(true)),
        ("localhost", "verify-ca", "another.pem", None),
        ("localhost", "verify-full", "authority.pem", Some(true)),
        ("localhost", "verify-full", "server.pem", Some(true)),
        ("127.0.0.1", "verify-full", "authority.pem", None),
        ("127.0.0.1", "verify-full", "server.pem", None),
        ("localhost", "verify-full", "another.pem", None),
    ] {
        let case = format!("{host} {mode} {roots}");
        let found = match server(host, mode, roots).connect().await {
            Ok(client) => {
                let ssl = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
                Some(client.query_one(ssl, &[]).await.expect("it answers").get::<_, bool>(0))
            }
            Err(error) => {
                assert!(error.to_string().contains("certificate"), "{case}: {error}");
                None
            }
        };
        assert_eq!(found, is_encrypted, "{case}");
    }
    // The programs that read the definition are told the same.
    let strict = server("localhost", "verify-full", "authority.pem");
    lab.sample_from(&strict, CONFIG, &|_| ()).await.expect("the sample is taken");
    lab.end().await;
}

#[tokio::test]
async fn encryption_that_a_server_does_not_have_is_not_done_without() {
    let localhost = |_: &Path| vec!["listen_addresses=127.0.0.1".to_owned()];
    let Some(lab) = Lab::alone("SELECT", &localhost).await else { return };
    let url = |mode: &str| {
        let (port, source) = (lab.port(), &lab.source);
        format!("host=localhost port={port} user=postgres dbname='{source}' sslmode={mode}")
    };
    let refused = Server::parse(&url("require")).unwrap().connect().await;
    let refused = refused.expect_err("it has no TLS").to_string();
    assert!(refused.contains("does not support TLS"), "{refused}");
    Server::parse(&url("prefer")).unwrap().connect().await.expect("it is only preferred");
    lab.end().await;
}

#[tokio::test]
async fn a_standby_is_as_good_a_source() {
    let local = |_: &Path| vec!["listen_addresses=".to_owned()];
    let Some(lab) = Lab::alone(SHOP, &local).await else { return };
    let rows = "SELECT md5(string_agg(p::text, ';' ORDER BY id)) FROM people p";
    lab.sample(CONFIG).await.expect("the sample of the first is taken");
    let expected = lab.value(&lab.target, rows).await;
    let standby = lab.standby();
    let source = Server::parse(&standby.url()).expect("its URL is valid");
    let source = source.with_database(&lab.source);
    let client = source.connect().await.expect("it answers");
    let recovering = client.query_one("SELECT pg_is_in_recovery()", &[]).await.expect("it answers");
    assert!(recovering.get::<_, bool>(0), "it is a standby");
    // Secrets differ each time by design; those who have one lose it.
    lab.sample_from(&source, CONFIG, &|_| ()).await.expect("the sample of the standby is taken");
    assert_eq!(lab.value(&lab.target, rows).await, expected);
    lab.end().await;
}

/// A small file system in memory; it goes with the value.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// Nothing, where we may not mount.
    fn new(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(folder.path())
            .output();
        match mounted.is_ok_and(|output| output.status.success()) && give(folder.path()) {
            true => Some(Self(folder)),
            false => None,
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The server may still be ending.
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).output();
    }
}

#[tokio::test]
async fn a_full_disk_leaves_the_old_database_as_it_was() {
    let Some(disk) = SmallDisk::new("64m") else {
        eprintln!("skipped: not allowed to mount a file system");
        return;
    };
    let local = |_: &Path| vec!["listen_addresses=".to_owned()];
    let Some(lab) = Lab::alone(SHOP, &local).await else { return };
    // New databases are made where the template is.
    let tablespace = format!("CREATE TABLESPACE small LOCATION '{}'", disk.0.path().display());
    lab.execute("postgres", &tablespace).await;
    lab.execute("postgres", "ALTER DATABASE template0 SET TABLESPACE small").await;
    lab.sample(CONFIG).await.expect("there is room for a first sample");
    let rows = "SELECT count(*)::text FROM people";
    let before = lab.value(&lab.target, rows).await;
    let more = "INSERT INTO flags (kind, target)
        SELECT 'big', repeat(md5(n::text), 30) FROM generate_series(1, 60000) n";
    lab.execute(&lab.source, more).await;
    let all_flags = CONFIG.replace("flags: none", "flags: all");
    let failed = lab.sample_telling(&all_flags, &|event| println!("{event:?}")).await;
    let failed = format!("{:?}", failed.expect_err("there is no room for the second one"));
    assert!(failed.contains("No space left on device"), "{failed}");
    assert_eq!(lab.value(&lab.target, rows).await, before);
    lab.execute(&lab.source, "DELETE FROM flags WHERE kind = 'big'").await;
    lab.sample(&all_flags).await.expect("there is room again");
    assert_eq!(lab.targets().await, "target");
    lab.end().await;
}
