//! Ledgers of earlier schemas, committed as SQL, are read for ever.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use shiplap_model::{DeploymentState, Direction, JournalEntry, Ledger, Outcome, Rules, StepState};

use crate::support::{
    BINDING, Bench, Machine, START_MS, deployment, image, line, release, request, resumption, scope,
};

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
    assert_eq!(done_request(&ledger, &prod).await, None, "it was not written down then");
    assert_eq!(ledger.facts(&dev, 1).await.unwrap().rules, Rules::AsWritten);
}

async fn done_request(
    ledger: &shiplap_ledger::SqliteLedger,
    scope: &shiplap_model::Scope,
) -> Option<shiplap_model::StoredRequest> {
    ledger.deployment(scope, 1).await.unwrap().unwrap().request
}

#[tokio::test]
async fn a_deployment_that_a_ledger_of_schema_1_left_unfinished_is_resumed() {
    let dir = restore(1);
    let machine = Machine::new();
    let ledger = machine.open(2, dir.path());
    machine.kill(1);
    let dev = scope("dev");
    let lease = ledger.acquire(&dev, "bob@ci", crate::support::TTL).await.unwrap().unwrap().key;
    ledger.resume(&lease, 1, &resumption(Direction::Back)).await.unwrap();
    ledger.record(&lease, 1, &line(StepState::Started)).await.unwrap();
    ledger.end(&lease, 1, Outcome::RolledBack, None, &release("b")).await.unwrap();
    assert_eq!(ledger.verify().await.unwrap(), 9);
}

#[tokio::test]
async fn a_ledger_of_schema_2_is_read_and_continued() {
    let dir = restore(2);
    let machine = Machine::new();
    let ledger = machine.open(2, dir.path());
    let (prod, dev) = (scope("prod"), scope("dev"));
    assert_eq!(ledger.verify().await.unwrap(), 9);
    assert_eq!(done_request(&ledger, &prod).await, Some(request()));
    let made = ledger.journal(&prod, 1).await.unwrap()[1].made.clone();
    assert_eq!(made, Some(image("a")));
    let journal = ledger.facts(&dev, 1).await.unwrap();
    let state = journal.state().unwrap();
    assert_eq!((state.end(), state.attempts().len(), state.goes_back()), (None, 2, true));
    assert_eq!(journal.resumptions().next().unwrap().found.len(), 1);
    machine.kill(1);
    let lease = ledger.acquire(&dev, "bob@ci", crate::support::TTL).await.unwrap().unwrap().key;
    ledger.end(&lease, 1, Outcome::Interrupted, None, &release("b")).await.unwrap();
    assert_eq!(ledger.verify().await.unwrap(), 10);
}

/// Run with `--ignored` once when the schema gets a new number; a fixture is never replaced.
#[tokio::test]
#[ignore = "writes the fixture of a new schema"]
async fn write_the_fixture_of_the_current_schema() {
    let bench = Bench::new();
    let ledger = &bench.ledger;
    let lease = bench.lease(&scope("prod")).await;
    ledger.begin(&deployment(&lease, "a")).await.unwrap();
    ledger.record(&lease, 1, &line(StepState::Started)).await.unwrap();
    let finished = JournalEntry { made: Some(image("a")), ..line(StepState::Finished) };
    ledger.record(&lease, 1, &finished).await.unwrap();
    ledger.end(&lease, 1, Outcome::Done, None, &release("a")).await.unwrap();
    let lease = bench.lease(&scope("dev")).await;
    ledger.begin(&deployment(&lease, "b")).await.unwrap();
    ledger.record(&lease, 1, &line(StepState::Started)).await.unwrap();
    ledger.end(&lease, 1, Outcome::Stuck, Some("no route to vm1"), &release("b")).await.unwrap();
    ledger.release(&lease).await.unwrap();
    let lease = bench.lease(&scope("dev")).await;
    ledger.resume(&lease, 1, &resumption(Direction::Back)).await.unwrap();
    ledger.record(&lease, 1, &line(StepState::Started)).await.unwrap();

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
