//! Ledgers of earlier schemas, committed as SQL, are read for ever.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use shiplap_model::{
    DeploymentState, Direction, JournalEntry, Ledger, NewOrder, OrderEnd, OrderState, Orders,
    Outcome, Rules, StepState, Token, TokenAction, TokenScope, Tokens, Wanted,
};

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

#[tokio::test]
async fn a_ledger_of_schema_3_is_read_and_continued() {
    let dir = restore(3);
    let machine = Machine::new();
    let ledger = machine.open(2, dir.path());
    assert_eq!(ledger.verify().await.unwrap(), 9);
    assert_eq!(ledger.token("a1").await.unwrap(), Some(token()));
    let orders = ledger.orders(None, 9).await.unwrap();
    let [waiting, running, ended, merged] = &orders[..] else { panic!("{orders:?}") };
    let (mut first, mut second) = (order("1"), order("2"));
    first.wanted = wanted("api", "1");
    assert_eq!((&merged.new, &merged.state), (&first, &OrderState::Merged { into: 2 }));
    second.wanted = Wanted::Deploy {
        tags: [("api".to_owned(), "1".to_owned()), ("web".to_owned(), "2".to_owned())].into(),
        services: ["db".to_owned()].into(),
    };
    assert_eq!((&ended.new, &ended.state), (&second, &OrderState::Ended(order_end())));
    let rollback = Wanted::Rollback { services: ["api".to_owned()].into(), to: Some(1) };
    assert_eq!(running.new.wanted, rollback);
    let at = OrderState::Running { server: "one".into(), since_ms: START_MS };
    assert_eq!(running.state, at);
    assert_eq!(waiting.new.wanted, Wanted::Promote { from: "dev".into(), deployment: Some(1) });
    assert_eq!(waiting.state, OrderState::Waiting { due_ms: START_MS });

    assert_eq!(ledger.place(&order("2")).await.unwrap().id, 2, "its key is known");
    machine.kill(1);
    let claim = ledger.claim("two", crate::support::TTL).await.unwrap().unwrap();
    assert_eq!((claim.order.id, claim.resumed, claim.generation), (3, true, 2));
    let next = NewOrder { idempotency_key: None, ..order("3") };
    assert_eq!(ledger.place(&next).await.unwrap().id, 5);
}

fn wanted(service: &str, tag: &str) -> Wanted {
    Wanted::Deploy {
        tags: [(service.to_owned(), tag.to_owned())].into(),
        services: ["db".to_owned()].into(),
    }
}

fn order(tag: &str) -> NewOrder {
    NewOrder {
        scope: scope("prod"),
        wanted: wanted("web", tag),
        who: "ci of web".into(),
        token: Some("a1".into()),
        message: Some("Grüße".into()),
        revision: Some("0fab".into()),
        idempotency_key: Some(tag.into()),
        settle: std::time::Duration::from_secs(10),
    }
}

fn order_end() -> OrderEnd {
    OrderEnd { at_ms: START_MS, exit: 0, deployment: Some(1), summary: "done".into() }
}

fn token() -> Token {
    Token {
        id: "a1".into(),
        name: "ci of web".into(),
        hash: [7; 32],
        scope: TokenScope {
            actions: [TokenAction::Read, TokenAction::Deploy].into(),
            projects: ["shop".to_owned()].into(),
            environments: ["prod".to_owned()].into(),
            services: ["web".to_owned()].into(),
            images: ["ghcr.io/shop/web".to_owned()].into(),
        },
        made_by: "ada@laptop".into(),
        made_ms: START_MS,
        expires_ms: Some(START_MS + 1),
        used_ms: Some(START_MS - 20_000),
        revoked_ms: None,
    }
}

/// Orders and tokens of every kind there is.
async fn fill(bench: &Bench) {
    let ledger = &bench.ledger;
    ledger.add_token(&token()).await.unwrap();
    let api = NewOrder { wanted: wanted("api", "1"), ..order("1") };
    for order in [api, order("2")] {
        ledger.place(&order).await.unwrap();
    }
    bench.machine.pass(std::time::Duration::from_secs(10));
    let claim = ledger.claim("one", crate::support::TTL).await.unwrap().unwrap();
    ledger.finish(&claim, &order_end()).await.unwrap();
    bench.machine.set_wall_clock(START_MS);
    let rollback = Wanted::Rollback { services: ["api".to_owned()].into(), to: Some(1) };
    let promotion = Wanted::Promote { from: "dev".into(), deployment: Some(1) };
    for wanted in [rollback, promotion] {
        let settle = std::time::Duration::ZERO;
        let order = NewOrder { wanted, idempotency_key: None, settle, ..order("") };
        ledger.place(&order).await.unwrap();
    }
    ledger.claim("one", crate::support::TTL).await.unwrap().unwrap();
}

/// Run with `--ignored` once when the schema gets a new number; a fixture is never replaced.
#[tokio::test]
#[ignore = "writes the fixture of a new schema"]
async fn write_the_fixture_of_the_current_schema() {
    let bench = Bench::sqlite();
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

    fill(&bench).await;

    let raw = bench.raw();
    let pragma = |name| raw.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
    let schema = pragma("user_version");
    let mut sql = KEY.to_owned();
    for byte in std::fs::read(bench.dir.path().join("key")).unwrap() {
        write!(sql, "{byte:02x}").unwrap();
    }
    sql.push('\n');
    for statement in texts(
        &raw,
        "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite%'",
    ) {
        writeln!(sql, "{statement};").unwrap();
    }
    for table in ["entries", "bindings", "chain", "leases", "orders", "orders_revision", "tokens"] {
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
