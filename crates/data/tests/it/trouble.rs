//! What can happen while a sample is taken, and what values and names can be.

use std::io::BufRead as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use shiplap_data::app::{self, Event, Stage};
use shiplap_data::config::Config;
use shiplap_data::postgres::{KEYS_AT_ONCE, Server, Source};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_postgres::error::SqlState;

use crate::lab::{KEY, Lab, thorough};
use crate::sampling::{CONFIG, SHOP};

const PEOPLE: &str = "SELECT count(*)::text FROM people";

/// Where the run that is killed finds its databases: two URLs, one to a line.
const CHILD_VARIABLE: &str = "SHIPLAP_TEST_CHILD";

/// Waits until a part of a run begins.
async fn begins(events: &mut UnboundedReceiver<Event>, stage: Stage) {
    let wait = async {
        while events.recv().await.expect("the run has such a part") != Event::Begins(stage) {}
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("it gets there");
}

/// Not a test: what another test starts and kills. Tells each event on its standard error.
#[tokio::test]
#[ignore = "is started by another test"]
async fn a_run_to_be_killed() {
    let urls = std::env::var(CHILD_VARIABLE).expect("it is started by another test");
    let (source, target) = urls.split_once('\n').expect("there are two");
    let [source, target] = [source, target].map(|url| Server::parse(url).expect("it is valid"));
    let config = Config::parse(CONFIG).expect("it is valid");
    let job = app::Job {
        source: &source,
        config: &config,
        secret: KEY,
        sessions: 2,
        keys_at_once: KEYS_AT_ONCE,
        listener: &|_: Event| eprintln!("event"),
    };
    app::sample(&job, &target).await.expect("it is killed or succeeds");
}

/// Starts a run in a process of its own, and kills that so long after its nth event.
fn killed_after(lab: &Lab, event: usize, pause: Duration) {
    let url = |database: &str| format!("{} dbname='{database}'", lab.url());
    let mut child = Command::new(std::env::current_exe().expect("this is a program"))
        .args(["trouble::a_run_to_be_killed", "--exact", "--ignored", "--nocapture"])
        .env(CHILD_VARIABLE, format!("{}\n{}", url(&lab.source), url(&lab.target)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it can be started");
    let stderr = std::io::BufReader::new(child.stderr.take().expect("it is a pipe"));
    let events = stderr.lines().map_while(Result::ok).filter(|line| line == "event");
    assert_eq!(events.take(event).count(), event, "it has that many events");
    std::thread::sleep(pause);
    child.kill().expect("it can be killed");
    child.wait().expect("it was started by us");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_killed_leaves_an_answer_and_nothing_for_the_next() {
    let Some(lab) = Lab::with(SHOP).await else { return };
    lab.sample(CONFIG).await.expect("the first sample is taken");
    // Stages are told when they begin: half of the points are inside of one.
    let points: Vec<(usize, u64)> = match thorough() {
        true => (1..=15).flat_map(|event| [(event, 0), (event, 7)]).collect(),
        false => vec![(3, 0), (4, 60), (6, 0), (17, 5)],
    };
    for (event, pause) in points {
        let pause = Duration::from_millis(pause);
        // Waits on pipes and processes, and must not keep the runtime from its own.
        tokio::task::block_in_place(|| killed_after(&lab, event, pause));
        assert_ne!(lab.value(&lab.target, PEOPLE).await, "0", "after event {event}");
    }
    lab.sample(CONFIG).await.expect("the next run succeeds");
    assert_eq!(lab.targets().await, "target");
    lab.end().await;
}

#[tokio::test]
async fn a_connection_that_is_lost_fails_the_run_with_a_word() {
    let Some(lab) = Lab::with(SHOP).await else { return };
    lab.sample(CONFIG).await.expect("the first sample is taken");
    let before = lab.value(&lab.target, PEOPLE).await;
    let new = format!("{}~new", lab.target);
    for database in [lab.source.as_str(), new.as_str()] {
        let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
        let listener = move |event: Event| {
            let _ = sender.send(event);
        };
        let end = async {
            begins(&mut events, Stage::Rows).await;
            let end = format!(
                "SELECT count(pg_terminate_backend(pid))::text FROM pg_stat_activity
                 WHERE datname = '{database}' AND application_name = 'shiplap data'"
            );
            assert_ne!(lab.value("postgres", &end).await, "0", "{database}");
        };
        let (run, ()) = tokio::join!(lab.sample_telling(CONFIG, &listener), end);
        let failed = format!("{}", Failed(run.expect_err("its sessions were ended")));
        assert!(
            ["terminating connection", "connection closed"].iter().any(|w| failed.contains(w)),
            "{failed}"
        );
        assert_eq!(lab.value(&lab.target, PEOPLE).await, before);
    }
    lab.sample(CONFIG).await.expect("the next run succeeds");
    assert_eq!(lab.targets().await, "target");
    lab.end().await;
}

#[tokio::test]
async fn tables_keep_their_form_until_their_rows_were_read() {
    let Some(lab) = Lab::with(SHOP).await else { return };
    let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
    let listener = move |event: Event| {
        let _ = sender.send(event);
    };
    let altering = async {
        begins(&mut events, Stage::Keys).await;
        let client = lab.connect(&lab.source).await;
        let mut refused = Vec::new();
        for change in [
            "ALTER TABLE people ADD COLUMN more int",
            "ALTER TABLE people ALTER COLUMN friend TYPE bigint",
            "DROP TABLE follows",
            "TRUNCATE visits",
        ] {
            let tried = format!("SET lock_timeout = '50ms'; {change}");
            let error = client.batch_execute(&tried).await.expect_err("it has to wait");
            refused.push(error.as_db_error().expect("the server said it").code().clone());
        }
        refused
    };
    let (sampled, refused) = tokio::join!(lab.sample_telling(CONFIG, &listener), altering);
    sampled.expect("the sample is taken");
    assert_eq!(refused, vec![SqlState::LOCK_NOT_AVAILABLE; 4]);
    let visits = "SELECT (count(*) > 0)::text FROM visits";
    assert_eq!(lab.value(&lab.target, visits).await, "true");
    lab.execute(&lab.source, "ALTER TABLE people ADD COLUMN more int").await;
    lab.end().await;
}

#[tokio::test]
async fn a_table_that_was_emptied_as_we_began_is_not_taken_for_an_empty_one() {
    let Some(lab) = Lab::with(SHOP).await else { return };
    let source = Source::open(&lab.server(&lab.source), 1, 1_000).await.expect("it is there");
    lab.execute(&lab.source, "TRUNCATE visits").await;
    let refused = source.schema().await.expect_err("its snapshot would see no rows").to_string();
    assert!(refused.contains("visits_1") && refused.contains("try again"), "{refused}");
    lab.end().await;
}

#[tokio::test]
async fn names_may_hold_anything() {
    let Some(mut lab) = Lab::with(
        r#"CREATE SCHEMA "we""ird; --";
           CREATE TYPE "we""ird; --"."it's" AS ENUM ('a''b', 'c"d', 'e\f');
           CREATE TABLE "we""ird; --"."a""b; DROP TABLE x; --" (
               "i""d'" int PRIMARY KEY, "e-mail; --" text NOT NULL UNIQUE, "it's" "we""ird; --"."it's");
           CREATE TABLE "we""ird; --"."PUBLICATION \ $1 %s" (
               "key" text PRIMARY KEY, "of'" int NOT NULL REFERENCES "we""ird; --"."a""b; DROP TABLE x; --");
           INSERT INTO "we""ird; --"."a""b; DROP TABLE x; --"
               SELECT n, 'p' || n || '@mail.example', 'a''b' FROM generate_series(1, 100) n;
           INSERT INTO "we""ird; --"."PUBLICATION \ $1 %s" SELECT 'k''\"{}' || n, n FROM generate_series(1, 100) n"#,
    )
    .await
    else {
        return;
    };
    lab.target = format!("{}'\"; x", lab.target);
    let config = r#"
sample:
  root: { table: "we\"ird; --.a\"b; DROP TABLE x; --", rate: 40% }
  mask:
    "we\"ird; --.a\"b; DROP TABLE x; --.e-mail; --": email
"#;
    lab.sample(config).await.expect("the sample is taken");
    lab.sample(config).await.expect("and replaced");
    let both = r#"SELECT ((SELECT count(*) FROM "we""ird; --"."a""b; DROP TABLE x; --") = count(*)
        AND count(*) BETWEEN 20 AND 60)::text FROM "we""ird; --"."PUBLICATION \ $1 %s""#;
    assert_eq!(lab.value(&lab.target, both).await, "true");
    let originals = r#"SELECT count(*)::text FROM "we""ird; --"."a""b; DROP TABLE x; --"
        WHERE "e-mail; --" LIKE '%mail.example'"#;
    assert_eq!(lab.value(&lab.target, originals).await, "0");
    let drop = format!("DROP DATABASE \"{}\"", lab.target.replace('"', "\"\""));
    lab.execute("postgres", &drop).await;
    lab.end().await;
}

#[tokio::test]
async fn bytes_that_are_no_text_stay_what_they_are() {
    let Some(lab) = Lab::with("SELECT").await else { return };
    lab.execute("postgres", &format!("DROP DATABASE \"{}\"", lab.source)).await;
    let ascii = "ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";
    lab.execute("postgres", &format!("CREATE DATABASE \"{}\" {ascii}", lab.source)).await;
    let rows = r"CREATE TABLE people (id int PRIMARY KEY, email text NOT NULL, note text);
        INSERT INTO people SELECT n, E'm\xfcller' || n || '@mail.example', E'na\xefve \xff' || n
        FROM generate_series(1, 50) n";
    lab.execute(&lab.source, rows).await;
    let config = "
sample:
  root: { table: people }
  mask: { people.email: email }
";
    lab.sample(config).await.expect("the sample is taken");
    let notes =
        "SELECT md5(string_agg(encode(convert_to(note, 'SQL_ASCII'), 'hex'), ',' ORDER BY id))
        FROM people";
    let expected = lab.value(&lab.source, notes).await;
    assert_eq!(lab.value(&lab.target, notes).await, expected);
    let masked = "SELECT count(DISTINCT email)::text FROM people WHERE email LIKE '%@mail.invalid'";
    assert_eq!(lab.value(&lab.target, masked).await, "50");
    // Rows are told apart by what keys hold, which must be text then.
    let key = r"CREATE TABLE codes (code text PRIMARY KEY); INSERT INTO codes VALUES (E'\xff')";
    lab.execute(&lab.source, &format!("{key}; ALTER TABLE people ADD code text REFERENCES codes"))
        .await;
    lab.execute(&lab.source, r"UPDATE people SET code = E'\xff'").await;
    let refused = format!("{}", Failed(lab.sample(config).await.expect_err("a key is no text")));
    assert!(refused.contains("a key is not valid in its encoding"), "{refused}");
    lab.end().await;
}

#[tokio::test]
async fn a_value_of_a_gigabyte_comes_along() {
    if !thorough() {
        eprintln!("skipped: needs SHIPLAP_TEST_DATA=all, and some gigabytes of memory");
        return;
    }
    let Some(lab) = Lab::with(
        "CREATE TABLE files (id int PRIMARY KEY, title text, body bytea);
         INSERT INTO files VALUES (1, repeat('x', 1000000000), NULL), (2, 'small', '\\x01'),
             (3, 'bytes', decode(repeat('ab', 300000000), 'hex'))",
    )
    .await
    else {
        return;
    };
    let config = "
sample:
  root: { table: files }
  mask: { files.body: keep }
";
    lab.sample(config).await.expect("the sample is taken");
    let sizes =
        "SELECT string_agg(concat(length(title), '/', length(body)), ' ' ORDER BY id) FROM files";
    assert_eq!(lab.value(&lab.target, sizes).await, "1000000000/ 5/1 5/300000000");
    lab.end().await;
}

/// A problem for people, without the parts that only a front end words.
struct Failed(app::Problem);

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            app::Problem::World(error) => write!(f, "{error}"),
            other => write!(f, "{other:?}"),
        }
    }
}
