//! The files, and what is wrong with them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rusqlite::Connection;
use shiplap_ledger::SqliteLedger;
use shiplap_model::{Ledger, LedgerError, Outcome};

use crate::support::{BINDING, Bench, Machine, TTL, deployment, scope};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A state directory with one deployment, closed.
async fn closed() -> (tempfile::TempDir, Machine) {
    let bench = Bench::sqlite();
    bench.deploy(&scope("prod"), "a", Outcome::Done).await;
    let Bench { dir, machine, ledger, .. } = bench;
    drop(ledger);
    (dir, machine)
}

fn refusal(dir: &Path) -> LedgerError {
    SqliteLedger::open(dir).err().expect("must not open")
}

#[tokio::test]
async fn only_the_owner_may_read_the_files() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("state/shiplap");
    let ledger = SqliteLedger::open(&dir).unwrap();
    let prod = scope("prod");
    let lease = ledger.acquire(&prod, "ada", crate::support::TTL).await.unwrap().unwrap().key;
    ledger.begin(&deployment(&lease, "a")).await.unwrap();
    assert_eq!(mode(&dir), 0o700);
    let files = ["key", "ledger.db", "ledger.db-shm", "ledger.db-wal"];
    let mut found: Vec<_> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    assert_eq!(found, files);
    for file in files {
        assert_eq!(mode(&dir.join(file)), 0o600, "{file}");
    }
}

#[tokio::test]
async fn no_value_of_a_binding_is_in_any_file() {
    let bench = Bench::sqlite();
    let prod = scope("prod");
    bench.deploy(&prod, "a", Outcome::Done).await;
    let check = |dir: &Path| {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            for word in ["DATABASE_PASSWORD", "battery", &BINDING[20..32]] {
                let found = bytes.windows(word.len()).any(|window| window == word.as_bytes());
                assert!(!found, "{word} in {}", path.display());
            }
        }
    };
    check(bench.dir.path());
    drop(bench.ledger);
    check(bench.dir.path());
}

#[tokio::test]
async fn opening_a_current_ledger_writes_nothing() {
    let (dir, machine) = closed().await;
    let path = dir.path().join("ledger.db");
    let before = fs::read(&path).unwrap();
    let watcher = Connection::open(&path).unwrap();
    let version = || watcher.query_row("PRAGMA data_version", [], |row| row.get::<_, i64>(0));
    let seen = version().unwrap();
    let ledger = machine.open(2, dir.path());
    ledger.deployments(&scope("prod"), 1).await.unwrap();
    assert_eq!(version().unwrap(), seen);
    drop(ledger);
    drop(watcher);
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn its_revision_is_another_one_when_somebody_else_has_written() {
    let bench = Bench::sqlite();
    let ours = bench.machine.open(3, bench.dir.path());
    let before = ours.revision().unwrap();
    assert_eq!(ours.revision().unwrap(), before);
    let theirs = bench.machine.open(2, bench.dir.path());
    let prod = scope("prod");
    let lease = theirs.acquire(&prod, "ada", TTL).await.unwrap().unwrap().key;
    let acquired = ours.revision().unwrap();
    assert_ne!(acquired, before);
    theirs.holder(&prod).await.unwrap();
    assert_eq!(ours.revision().unwrap(), acquired, "who reads changes nothing");
    theirs.release(&lease).await.unwrap();
    assert_ne!(ours.revision().unwrap(), acquired);
}

#[test]
fn a_reading_command_makes_no_ledger() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("state");
    assert!(SqliteLedger::open_existing(&dir).unwrap().is_none());
    assert!(!dir.exists());
    drop(SqliteLedger::open(&dir).unwrap());
    assert!(SqliteLedger::open_existing(&dir).unwrap().is_some());
}

#[test]
fn many_processes_may_make_the_ledger_at_once() {
    for _ in 0..5 {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|threads| {
            for _ in 0..8 {
                threads.spawn(|| drop(SqliteLedger::open(dir.path()).unwrap()));
            }
        });
    }
}

#[tokio::test]
async fn a_later_schema_is_refused_and_left_alone() {
    let (dir, _) = closed().await;
    let path = dir.path().join("ledger.db");
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let before = fs::read(&path).unwrap();
    let refused = refusal(dir.path());
    assert!(matches!(refused, LedgerError::TooNew { found: 99, known: 3 }), "{refused}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_file_that_is_no_ledger_is_refused_and_left_alone() {
    let text = b"I am a diary, and by no means a database. ".repeat(100);
    let other = {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("other.db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE birds (name)").unwrap();
        fs::read(path).unwrap()
    };
    for bytes in [text, other] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db");
        fs::write(&path, &bytes).unwrap();
        let refused = refusal(dir.path());
        assert!(
            matches!(&refused, LedgerError::Damaged(text)
            if text.contains(path.to_str().unwrap())),
            "{refused}"
        );
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}

#[tokio::test]
async fn a_truncated_file_is_refused_and_left_alone() {
    let (dir, _) = closed().await;
    let path = dir.path().join("ledger.db");
    let whole = fs::read(&path).unwrap();
    for length in [whole.len() / 2, 4096, 1000, 50, 0] {
        fs::write(&path, &whole[..length]).unwrap();
        let refused = refusal(dir.path());
        assert!(matches!(refused, LedgerError::Damaged(_)), "{length}: {refused}");
        assert_eq!(fs::metadata(&path).unwrap().len(), length as u64);
    }
}

#[tokio::test]
async fn overwritten_pages_are_found() {
    let (dir, machine) = closed().await;
    let path = dir.path().join("ledger.db");
    let mut bytes = fs::read(&path).unwrap();
    for page in bytes.chunks_mut(4096).skip(1) {
        page[..2048].fill(0x5a);
    }
    fs::write(&path, bytes).unwrap();
    // The tables' own definitions may stand there, without which it cannot be opened.
    let found = match SqliteLedger::open_on(dir.path(), machine.process(2)) {
        Ok(ledger) => ledger.verify().await.unwrap_err(),
        Err(refused) => refused,
    };
    assert!(matches!(found, LedgerError::Damaged(_)), "{found}");
}

#[tokio::test]
async fn without_its_key_or_with_another_nothing_is_written_and_no_key_is_made() {
    let (dir, machine) = closed().await;
    let key = dir.path().join("key");
    let right = fs::read(&key).unwrap();
    let prod = scope("prod");
    for (wrong, word) in [
        (None, "is missing"),
        (Some(vec![7; 32]), "is not the key"),
        (Some(right[..31].to_vec()), "31 bytes"),
    ] {
        fs::remove_file(&key).unwrap();
        if let Some(bytes) = &wrong {
            fs::write(&key, bytes).unwrap();
        }
        let ledger = machine.open(2, dir.path());
        let lease = ledger.acquire(&prod, "ada", crate::support::TTL).await.unwrap().unwrap().key;
        let clear = |error: LedgerError| {
            let text = error.to_string();
            assert!(matches!(error, LedgerError::Storage(_)), "{text}");
            assert!(text.contains(word) && text.contains(key.to_str().unwrap()), "{text}");
        };
        clear(ledger.begin(&deployment(&lease, "b")).await.unwrap_err());
        clear(ledger.binding(&prod, 1).await.unwrap_err());
        clear(ledger.verify().await.unwrap_err());
        assert_eq!(ledger.deployments(&prod, 9).await.unwrap().len(), 1, "names can be read");
        ledger.release(&lease).await.unwrap();
        assert_eq!(fs::read(&key).ok(), wrong);
        fs::write(&key, &right).unwrap();
    }
    let ledger = machine.open(2, dir.path());
    assert_eq!(ledger.binding(&prod, 1).await.unwrap().expose(), BINDING.as_bytes());
}

#[test]
fn a_refusal_of_the_file_system_names_the_path() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("ledger.db")).unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for state_dir in [dir.path(), &file] {
        let refused = refusal(state_dir);
        assert!(
            matches!(&refused, LedgerError::Storage(text)
            if text.contains(state_dir.to_str().unwrap())),
            "{refused}"
        );
    }
}

/// A state directory as a machine that lost power left it: nothing moved from the log to the
/// database. Two deployments were written down.
async fn without_power() -> (tempfile::TempDir, Machine) {
    let bench = Bench::sqlite();
    bench.deploy(&scope("prod"), "a", Outcome::Done).await;
    bench.deploy(&scope("prod"), "b", Outcome::Done).await;
    let dir = tempfile::tempdir().unwrap();
    for file in ["ledger.db", "ledger.db-wal", "key"] {
        fs::copy(bench.dir.path().join(file), dir.path().join(file)).unwrap();
    }
    (dir, bench.machine)
}

#[tokio::test]
async fn a_torn_end_of_the_log_loses_what_was_never_confirmed_and_nothing_else() {
    let whole = without_power().await.0;
    let length = fs::metadata(whole.path().join("ledger.db-wal")).unwrap().len();
    let mut seen = std::collections::BTreeSet::new();
    for cut in (0..length).step_by(1_000) {
        let (dir, machine) = without_power().await;
        let wal = dir.path().join("ledger.db-wal");
        fs::File::options().write(true).open(&wal).unwrap().set_len(length - cut).unwrap();
        // Where not even the first transaction is whole, the file looks as if it had been emptied.
        let Ok(ledger) = SqliteLedger::open_on(dir.path(), machine.process(2)) else { continue };
        let entries = ledger.verify().await.unwrap();
        seen.insert(entries);
        let prod = scope("prod");
        let lease = ledger.acquire(&prod, "ada", crate::support::TTL).await.unwrap();
        if let Ok(lease) = lease {
            ledger.begin(&deployment(&lease.key, "c")).await.unwrap();
            assert_eq!(ledger.verify().await.unwrap(), entries + 1, "cut by {cut}");
        }
    }
    assert!(seen.contains(&8) && seen.len() > 4, "{seen:?}");
}

/// What stood only in the log is gone with it, and nothing that is left can tell: the chain ends
/// where it ended when the database was last brought up to date.
#[tokio::test]
async fn a_deleted_log_is_survived() {
    let (dir, machine) = without_power().await;
    fs::remove_file(dir.path().join("ledger.db-wal")).unwrap();
    match SqliteLedger::open_on(dir.path(), machine.process(2)) {
        Ok(ledger) => assert!(ledger.verify().await.unwrap() <= 8),
        Err(refused) => assert!(matches!(refused, LedgerError::Damaged(_)), "{refused}"),
    }
}
