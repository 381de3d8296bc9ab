//! Ledgers of earlier schemas, committed as SQL, are read for ever.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use shiplap_model::{DeploymentState, Ledger, Outcome, StepState};

use crate::support::{BINDING, Bench, Machine, START_MS, deployment, line, release, scope};

const KEY: &str = "-- key: ";

fn fixture(schema: i64) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/schema-{schema}.sql"))
}

/// Makes a state directory of a fixture.
fn restore(schema: i64) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let sql = std::fs::read_to_string(fixture(schema)).unwrap();
    Connection::open(dir.path().join("ledger.db")).unwrap().execute_batch(&sql).unwrap();
    let key = sql.lines().next().and_then(|line| line.strip_prefix(KEY)).unwrap();
    let key: Vec<u8> = (0..key.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&key[at..at + 2], 16).unwrap())
        .collect();
    std::fs::write(dir.path().join("key"), key).unwrap();
    dir
}

#[tokio::test]
async fn a_ledger_of_schema_1_is_read_and_continued() {
    let dir = restore(1);
    let machine = Machine::new();
    let ledger = machine.open(2, dir.path());
    let (prod, dev) = (scope("prod"), scope("dev"));
    assert_eq!(ledger.verify().await.unwrap(), 6);
    assert_eq!(ledger.scopes().await.unwrap(), [dev.clone(), prod.clone()]);

    let done = ledger.deployment(&prod, 1).await.unwrap().unwrap();
    assert_eq!(done.message.as_deref(), Some("Grüße, \"new\" web"));
    assert_eq!((done.kind.as_str(), done.who.as_str()), ("deploy", "ada@laptop"));
    assert_eq!((done.release, done.started_ms), (release("a"), START_MS));
    assert_eq!(done.plan["steps"][0]["what"], "pull b on vm1");
    assert_eq!(
        done.state,
        DeploymentState::Ended { at_ms: START_MS, outcome: Outcome::Done, reason: None }
    );
    assert_eq!(
        ledger.journal(&prod, 1).await.unwrap(),
        [StepState::Started, StepState::Finished].map(line)
    );
    assert_eq!(ledger.binding(&prod, 1).await.unwrap().expose(), BINDING.as_bytes());
    let unfinished = ledger.deployment(&dev, 1).await.unwrap().unwrap();
    assert_eq!(unfinished.state, DeploymentState::Unfinished);
    assert_eq!(ledger.journal(&dev, 1).await.unwrap(), [line(StepState::Failed)]);

    let held = ledger.holder(&dev).await.unwrap().unwrap();
    assert_eq!((held.holder.as_str(), held.since_ms), ("ada@laptop", START_MS));
    machine.kill(1);
    let lease = ledger.acquire(&dev, "bob@ci", crate::support::TTL).await.unwrap().unwrap().key;
    assert_eq!(lease.generation, 2);
    ledger.end(&lease, 1, Outcome::Interrupted, None, &release("b")).await.unwrap();
    assert_eq!(ledger.begin(&deployment(&lease, "c")).await.unwrap(), 2);
    assert_eq!(ledger.verify().await.unwrap(), 8);
}

/// Run with `--ignored` once when the schema gets a new number; a fixture is never replaced.
#[tokio::test]
#[ignore = "writes the fixture of a new schema"]
async fn write_the_fixture_of_the_current_schema() {
    let bench = Bench::new();
    bench.deploy(&scope("prod"), "a", Outcome::Done).await;
    let lease = bench.lease(&scope("dev")).await;
    bench.ledger.begin(&deployment(&lease, "b")).await.unwrap();
    bench.ledger.record(&lease, 1, &line(StepState::Failed)).await.unwrap();

    let raw = bench.raw();
    let pragma = |name| raw.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
    let schema = pragma("user_version");
    let mut sql = KEY.to_owned();
    for byte in std::fs::read(bench.dir.path().join("key")).unwrap() {
        write!(sql, "{byte:02x}").unwrap();
    }
    sql.push('\n');
    for statement in texts(&raw, "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL") {
        writeln!(sql, "{statement};").unwrap();
    }
    for table in ["entries", "bindings", "chain", "leases"] {
        let columns = texts(&raw, &format!("SELECT name FROM pragma_table_info('{table}')"));
        let quoted: Vec<_> = columns.iter().map(|name| format!("quote({name})")).collect();
        let rows = format!("SELECT {} FROM {table} ORDER BY 1", quoted.join(" || ', ' || "));
        let rows = match table {
            "entries" => rows.replace("ORDER BY 1", "ORDER BY seq"),
            _ => rows,
        };
        for row in texts(&raw, &rows) {
            writeln!(sql, "INSERT INTO {table} VALUES ({row});").unwrap();
        }
    }
    writeln!(sql, "PRAGMA application_id = {};", pragma("application_id")).unwrap();
    writeln!(sql, "PRAGMA user_version = {schema};").unwrap();
    let path = fixture(schema);
    assert!(!path.exists(), "{} stays as it is", path.display());
    std::fs::write(path, sql).unwrap();
}

fn texts(raw: &Connection, sql: &str) -> Vec<String> {
    let mut statement = raw.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.map(|row| row.unwrap()).collect()
}
