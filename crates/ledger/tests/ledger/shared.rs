//! What several machines that share a database are to each other, and what it is to them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use shiplap_ledger::{Address, PostgresLedger, Server};
use shiplap_model::{
    Direction, JournalEntry, Ledger, LedgerError, NewOrder, OrderEnd, Orders, Outcome, Scope,
    StepState, Store, Token, Tokens, Wanted,
};
use shiplap_testkit::Postgres;

use crate::database::{Database, MACHINE, connect};
use crate::support::{BINDING, Machine, START_MS, TTL, deployment, line, release, scope};

/// A database whose clock is the server's, and a folder for keys.
async fn ground() -> Option<(Database, tempfile::TempDir)> {
    Some((Database::new().await?, tempfile::tempdir().unwrap()))
}

async fn open_as(database: &Database, machine: &str, pid: u32, key: &Path) -> PostgresLedger {
    let server = Server::parse(&database.url()).unwrap();
    let host = Machine::new().process(pid);
    PostgresLedger::open_on(server, key.to_owned(), host, machine).await.unwrap()
}

fn storage(error: LedgerError) -> String {
    match error {
        LedgerError::Storage(text) => text,
        other => panic!("{other:?}"),
    }
}

/// Two processes append to four deployments at once, line by line and side by side.
#[tokio::test]
async fn two_that_append_at_once_make_one_chain_without_a_hole() {
    const LINES: u32 = 12;
    let Some((database, dir)) = ground().await else { return };
    let key = dir.path().join("key");
    let one = Arc::new(open_as(&database, "vm1", 1, &key).await);
    let other = Arc::new(open_as(&database, "vm2", 1, &key).await);
    let mut deployers = Vec::new();
    for (number, ledger) in [&one, &other, &one, &other].into_iter().enumerate() {
        let ledger = Arc::clone(ledger);
        deployers.push(tokio::spawn(async move {
            let scope = scope(&format!("env-{number}"));
            let lease = ledger.acquire(&scope, "ada", TTL).await.unwrap().unwrap().key;
            let deployed = ledger.begin(&deployment(&lease, "a")).await.unwrap();
            for state in [StepState::Started, StepState::Finished] {
                let lines: Vec<JournalEntry> =
                    (1..=LINES).map(|step| JournalEntry { step, ..line(state) }).collect();
                let written = lines.iter().map(|line| ledger.record(&lease, deployed, line));
                for result in join_all(written).await {
                    result.unwrap();
                }
            }
            ledger.end(&lease, deployed, Outcome::Done, None, &release("a")).await.unwrap();
            ledger.release(&lease).await.unwrap();
            assert_eq!(ledger.journal(&scope, deployed).await.unwrap().len(), 2 * LINES as usize);
        }));
    }
    for deployer in deployers {
        deployer.await.unwrap();
    }
    assert_eq!(one.verify().await.unwrap(), u64::from(4 * (2 + 2 * LINES)));
    assert_eq!(one.id(), other.id());
}

#[tokio::test]
async fn of_two_that_want_every_lease_each_lease_has_one_holder() {
    let Some((database, dir)) = ground().await else { return };
    let key = dir.path().join("key");
    let one = open_as(&database, "vm1", 1, &key).await;
    let other = open_as(&database, "vm2", 1, &key).await;
    for number in 0..10 {
        let scope = scope(&format!("env-{number}"));
        let (a, b) =
            tokio::join!(one.acquire(&scope, "ada", TTL), other.acquire(&scope, "bob", TTL));
        let (a, b) = (a.unwrap(), b.unwrap());
        assert!(a.is_ok() != b.is_ok(), "{a:?} {b:?}");
    }
}

#[tokio::test]
async fn a_process_that_is_gone_loses_its_lease_at_once_on_its_machine_and_later_on_others() {
    let Some((database, dir)) = ground().await else { return };
    database.open(&Machine::new(), 9, dir.path()).await;
    database.fix_clock(START_MS).await;
    let machine = Machine::new();
    let prod = scope("prod");
    let ours = database.open(&machine, 1, dir.path()).await;
    ours.acquire(&prod, "ada", TTL).await.unwrap().unwrap();
    machine.kill(1);
    let server = Server::parse(&database.url()).unwrap();
    let key = dir.path().join("key");
    // The same boot, namespace and number, as after a copy of a running machine.
    let elsewhere =
        PostgresLedger::open_on(server, key, machine.process(2), "another").await.unwrap();
    assert!(elsewhere.acquire(&prod, "bob", TTL).await.unwrap().is_err());
    database.set_clock(START_MS + i64::try_from(TTL.as_millis()).unwrap() - 1).await;
    assert!(elsewhere.acquire(&prod, "bob", TTL).await.unwrap().is_err());
    let neighbour = database.open(&machine, 2, dir.path()).await;
    let taken = neighbour.acquire(&prod, "eve", TTL).await.unwrap().unwrap();
    assert_eq!(taken.key.generation, 2);
}

#[tokio::test]
async fn all_that_share_a_ledger_need_its_key() {
    let Some((database, dir)) = ground().await else { return };
    let (right, other) = (dir.path().join("right/key"), dir.path().join("other/key"));
    let one = open_as(&database, "vm1", 1, &right).await;
    let prod = scope("prod");
    let lease = one.acquire(&prod, "ada", TTL).await.unwrap().unwrap().key;
    one.begin(&deployment(&lease, "a")).await.unwrap();

    let two = open_as(&database, "vm2", 1, &other).await;
    assert_eq!(two.deployments(&prod, 9).await.unwrap().len(), 1, "names can be read");
    let help = "copy the key from a machine that has deployed with this ledger, or name the file \
                that holds it with SHIPLAP_LEDGER_KEY_FILE";
    let missing = storage(two.binding(&prod, 1).await.unwrap_err());
    assert_eq!(missing, format!("its key `{}` is missing; {help}", other.display()));
    assert!(!other.exists(), "none is made");

    std::fs::create_dir(dir.path().join("other")).unwrap();
    std::fs::write(&other, [7; 32]).unwrap();
    let wrong = storage(two.begin(&deployment(&lease, "b")).await.unwrap_err());
    let text = format!("`{}` is not the key it was written with; {help}", other.display());
    assert_eq!(wrong, text);

    std::fs::copy(&right, &other).unwrap();
    assert_eq!(two.binding(&prod, 1).await.unwrap().expose(), BINDING.as_bytes());
}

#[tokio::test]
async fn many_processes_may_make_the_tables_at_once() {
    let Some((database, dir)) = ground().await else { return };
    let key = dir.path().join("key");
    let opened = join_all((0..6).map(|pid| open_as(&database, "vm1", pid, &key))).await;
    assert!(opened.iter().all(|ledger| ledger.id() == opened[0].id()));
}

#[tokio::test]
async fn a_later_schema_and_a_schema_of_something_else_are_refused() {
    let Some((database, dir)) = ground().await else { return };
    let key = dir.path().join("key");
    drop(open_as(&database, "vm1", 1, &key).await);
    database.execute("UPDATE ledger SET schema = 99").await.unwrap();
    let address = Address::shared(&database.url(), &key).unwrap();
    let refused = shiplap_ledger::open(&address).await.err().expect("must not open");
    assert!(matches!(refused, LedgerError::TooNew { found: 99, known: 1 }), "{refused}");

    database.execute("DROP TABLE ledger").await.unwrap();
    let refused = shiplap_ledger::open(&address).await.err().expect("must not open");
    assert!(matches!(&refused, LedgerError::Damaged(text) if text.contains("something else")));
}

/// The privileges that docs/ledger.md gives are enough, and no more than enough.
#[tokio::test]
async fn a_role_with_the_documented_privileges_deploys_and_changes_no_entry() {
    let server = match Postgres::start(&[]) {
        Ok(server) => server,
        Err(why) => return eprintln!("skipped: {why}"),
    };
    let docs = include_str!("../../../../docs/ledger.md");
    let mut blocks = docs.split("```sql\n").skip(1).filter_map(|rest| rest.split("```").next());
    let (make, grant) = (blocks.next().unwrap(), blocks.next().unwrap());
    let admin = connect(&server.url("postgres", "postgres")).await;
    for statement in make.split_inclusive(";\n") {
        admin.batch_execute(statement).await.unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    let open = async |role: &str| {
        let address = Address::shared(&server.url(role, "shiplap"), &key).unwrap();
        shiplap_ledger::open(&address).await
    };
    let refused = open("shiplap").await.err().expect("it makes no tables");
    assert!(storage(refused).contains("docs/ledger.md"));
    open("shiplap_owner").await.unwrap();
    let refused = open("shiplap").await.err().expect("nothing is granted yet");
    assert!(storage(refused).contains("docs/ledger.md"));
    let owner = connect(&server.url("shiplap_owner", "shiplap")).await;
    owner.batch_execute(grant).await.unwrap();

    let ledger = open("shiplap").await.unwrap();
    everything(ledger.as_ref(), || {}).await;
    let raw = connect(&server.url("shiplap", "shiplap")).await;
    for sql in [
        "UPDATE shiplap.entries SET payload = ''",
        "DELETE FROM shiplap.entries",
        "TRUNCATE shiplap.entries",
        "DELETE FROM shiplap.bindings",
        "DELETE FROM shiplap.chain",
        "DROP TRIGGER entries_stay ON shiplap.entries",
        "ALTER TABLE shiplap.entries DISABLE TRIGGER ALL",
    ] {
        let refused = raw.batch_execute(sql).await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "42501", "{sql}");
    }
}

/// Each call that writes something, once; `before` each of them.
async fn everything(ledger: &dyn Store, before: impl Fn()) {
    let prod = scope("prod");
    before();
    let lease = ledger.acquire(&prod, "ada", TTL).await.unwrap().unwrap().key;
    assert_eq!(lease.generation, 1);
    before();
    ledger.renew(&lease, TTL).await.unwrap();
    before();
    let lease = ledger.raise(&lease, 10).await.unwrap().key;
    assert_eq!(lease.generation, 10);
    before();
    assert_eq!(ledger.begin(&deployment(&lease, "a")).await.unwrap(), 1);
    for state in [StepState::Started, StepState::Finished] {
        before();
        ledger.record(&lease, 1, &line(state)).await.unwrap();
    }
    before();
    ledger.end(&lease, 1, Outcome::Stuck, None, &release("a")).await.unwrap();
    before();
    let back = crate::support::resumption(Direction::Back);
    ledger.resume(&lease, 1, &back).await.unwrap();
    before();
    ledger.end(&lease, 1, Outcome::RolledBack, None, &release("a")).await.unwrap();
    before();
    ledger.release(&lease).await.unwrap();
    before();
    assert_eq!(ledger.deployments(&prod, 9).await.unwrap().len(), 1);
    assert_eq!(ledger.facts(&prod, 1).await.unwrap().facts.len(), 5);
    assert_eq!(ledger.verify().await.unwrap(), 6);
    assert_eq!(ledger.holder(&prod).await.unwrap(), None);

    before();
    let placed = ledger.place(&order()).await.unwrap();
    assert!(!placed.repeated);
    before();
    let claim = ledger.claim("one", TTL).await.unwrap().unwrap();
    assert_eq!((claim.order.id, claim.generation, claim.resumed), (placed.id, 1, false));
    before();
    ledger.keep(&claim, TTL).await.unwrap();
    before();
    let end = OrderEnd { at_ms: 1, exit: 0, deployment: None, summary: "done".into() };
    ledger.finish(&claim, &end).await.unwrap();
    assert_eq!(ledger.orders(None, 9).await.unwrap().len(), 1);
    assert_eq!(ledger.orders_revision().await.unwrap(), 3);

    let token = token();
    before();
    ledger.add_token(&token).await.unwrap();
    before();
    ledger.token_used("a1", 60_000).await.unwrap();
    before();
    assert!(ledger.revoke_token("a1", 7).await.unwrap());
    let kept = Token { used_ms: Some(60_000), revoked_ms: Some(7), ..token };
    assert_eq!(ledger.tokens().await.unwrap(), [kept]);
}

fn order() -> NewOrder {
    NewOrder {
        scope: Scope { project: "shop".into(), environment: "prod".into() },
        wanted: Wanted::Rollback { services: Default::default(), to: None },
        who: "ada".into(),
        token: None,
        message: None,
        revision: None,
        idempotency_key: None,
        settle: Duration::ZERO,
    }
}

fn token() -> Token {
    Token {
        id: "a1".into(),
        name: "ci".into(),
        hash: [7; 32],
        scope: Default::default(),
        made_by: "ada".into(),
        made_ms: 0,
        expires_ms: None,
        used_ms: None,
        revoked_ms: None,
    }
}

#[tokio::test]
async fn texts_that_the_database_cannot_hold_are_taken_all_the_same() {
    let Some((database, dir)) = ground().await else { return };
    let ledger = open_as(&database, "vm1", 1, &dir.path().join("key")).await;
    let key = Some("k\0".to_owned());
    let order = NewOrder { message: Some("a\0b".into()), idempotency_key: key, ..order() };
    let id = ledger.place(&order).await.unwrap().id;
    assert!(ledger.place(&order).await.unwrap().repeated);
    let message = ledger.order(id).await.unwrap().unwrap().new.message;
    assert_eq!(message.as_deref(), Some("a\u{fffd}b"));
    assert_eq!(ledger.token("a\0").await.unwrap(), None);
}

mod broken {
    //! Connections that break, before and after something was written for good.

    use std::sync::atomic::{AtomicU8, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream, UnixStream};

    use super::*;

    /// When the next transaction loses its connection.
    const BEFORE: u8 = 1;
    const AFTER: u8 = 2;

    /// Passes on what clients and the server say to each other, and cuts.
    async fn cutter(database: &Database) -> (String, Arc<AtomicU8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cut, socket) = (Arc::new(AtomicU8::new(0)), database.server.socket());
        let armed = cut.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = UnixStream::connect(&socket).await.unwrap();
                tokio::spawn(pass_on(client, server, armed.clone()));
            }
        });
        let name = &database.name;
        (format!("postgres://postgres@127.0.0.1:{port}/{name}?sslmode=disable"), cut)
    }

    async fn pass_on(mut client: TcpStream, mut server: UnixStream, cut: Arc<AtomicU8>) {
        let (mut there, mut back) = (vec![0; 65_536], vec![0; 65_536]);
        loop {
            tokio::select! {
                read = client.read(&mut there) => {
                    let Ok(length @ 1..) = read else { return };
                    let said = &there[..length];
                    let commits = said.windows(7).any(|text| text == b"COMMIT\0");
                    let how = if commits { cut.swap(0, Ordering::SeqCst) } else { 0 };
                    if how == BEFORE || server.write_all(said).await.is_err() {
                        return;
                    }
                    if how == AFTER {
                        // The answer comes when it is written, and goes nowhere.
                        let _ = server.read(&mut back).await;
                        return;
                    }
                }
                read = server.read(&mut back) => {
                    let Ok(length @ 1..) = read else { return };
                    if client.write_all(&back[..length]).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn each_call_is_done_once_when_its_connection_is_cut(when: u8) {
        let Some((database, dir)) = ground().await else { return };
        let (url, cut) = cutter(&database).await;
        let server = Server::parse(&url).unwrap();
        let host = Machine::new().process(1);
        let key = dir.path().join("key");
        let ledger = PostgresLedger::open_on(server, key, host, MACHINE).await.unwrap();
        let arm = || {
            let before = cut.swap(when, Ordering::SeqCst);
            assert_eq!(before, 0, "the call before was not cut");
        };
        everything(&ledger, arm).await;
        assert_eq!(ledger.verify().await.unwrap(), 6);
    }

    #[tokio::test]
    async fn what_was_not_written_when_a_connection_broke_is_written_once() {
        // `everything` begins by arming; what only reads is cut as well.
        each_call_is_done_once_when_its_connection_is_cut(BEFORE).await;
    }

    #[tokio::test]
    async fn what_was_written_when_a_connection_broke_is_not_written_again() {
        each_call_is_done_once_when_its_connection_is_cut(AFTER).await;
    }

    #[tokio::test]
    async fn a_server_that_is_started_again_is_waited_for() {
        let server = match Postgres::start(&[]) {
            Ok(server) => Arc::new(server),
            Err(why) => return eprintln!("skipped: {why}"),
        };
        let database = Database::on(server.clone()).await;
        let dir = tempfile::tempdir().unwrap();
        let ledger = open_as(&database, "vm1", 1, &dir.path().join("key")).await;
        let prod = scope("prod");
        let lease = ledger.acquire(&prod, "ada", TTL).await.unwrap().unwrap().key;
        ledger.begin(&deployment(&lease, "a")).await.unwrap();
        server.kill();
        let reviving = tokio::task::spawn_blocking(move || server.revive().unwrap());
        ledger.record(&lease, 1, &line(StepState::Started)).await.unwrap();
        reviving.await.unwrap();
        assert_eq!(ledger.verify().await.unwrap(), 2);
    }

    #[tokio::test]
    async fn who_finds_nobody_is_told_so_without_the_password() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let url = format!("postgres://me:s3cret@127.0.0.1:{port}/shop");
        let address = Address::shared(&url, Path::new("/nowhere/key")).unwrap();
        let error = shiplap_ledger::open(&address).await.err().expect("nobody is there");
        let text = error.to_string();
        assert!(matches!(error, LedgerError::Unreachable(_)), "{text}");
        assert!(text.contains(&format!("`shop on 127.0.0.1:{port}`")), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
    }
}

mod protected {
    //! TLS.

    use super::*;

    struct Certificates {
        authority: String,
        certificate: String,
        key: String,
    }

    fn certificates(name: &str) -> Certificates {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = parameters.self_signed(&key).unwrap().pem();
        let issuer = rcgen::Issuer::new(parameters, key);
        let own = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = leaf.signed_by(&own, &issuer).unwrap().pem();
        Certificates { authority, certificate, key: own.serialize_pem() }
    }

    fn put(folder: &Path, name: &str, text: &str) -> String {
        use std::os::unix::fs::PermissionsExt;
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        Postgres::give(&path).unwrap();
        path.to_str().unwrap().to_owned()
    }

    #[tokio::test]
    async fn the_server_must_be_who_the_url_asks_for() {
        use std::os::unix::fs::PermissionsExt;
        let (made, others) = (certificates("localhost"), certificates("localhost"));
        let files = tempfile::Builder::new().prefix("shiplap-tls-").tempdir().unwrap();
        std::fs::set_permissions(files.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let server = Postgres::start(&[
            ("listen_addresses", "127.0.0.1"),
            ("port", &port.to_string()),
            ("ssl", "on"),
            ("ssl_cert_file", &put(files.path(), "server.pem", &made.certificate)),
            ("ssl_key_file", &put(files.path(), "server.key", &made.key)),
        ]);
        if let Err(why) = &server {
            return eprintln!("skipped: {why}");
        }
        let right = put(files.path(), "right.pem", &made.authority);
        let wrong = put(files.path(), "wrong.pem", &others.authority);
        let open = async |host: &str, query: &str| {
            let url = format!("postgres://postgres@{host}:{port}/postgres?{query}");
            let address = Address::shared(&url, &files.path().join("key")).unwrap();
            shiplap_ledger::open(&address).await.map(drop)
        };
        let verified = |file: &str| format!("sslmode=verify-full&sslrootcert={file}");
        open("localhost", &verified(&right)).await.unwrap();
        open("localhost", "sslmode=require").await.unwrap();
        open("127.0.0.1", "sslmode=require").await.unwrap();
        for (host, query) in [
            ("localhost", verified(&wrong)),
            ("localhost", "sslmode=verify-full".to_owned()),
            ("127.0.0.1", verified(&right)),
        ] {
            let refused = storage(open(host, &query).await.unwrap_err());
            assert!(refused.contains("certificate"), "{host} {query}: {refused}");
        }
        let missing = files.path().join("missing.pem");
        let refused =
            storage(open("localhost", &verified(missing.to_str().unwrap())).await.unwrap_err());
        assert!(refused.contains("missing.pem"), "{refused}");
    }
}
