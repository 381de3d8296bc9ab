//! Schemas of others, with rows made for them: nothing written by hand, nothing fails.
//!
//! They are the `*.sql` files of the folder that `SHIPLAP_TEST_SCHEMAS` names, such as what
//! `pg_dump --schema-only` writes of an application's database; without it the test says so. Each is
//! sampled from several roots with what `init` proposes.

use shiplap_data::app;
use shiplap_data::config::Config;

use crate::lab::{KEY, Lab};

const FOLDER_VARIABLE: &str = "SHIPLAP_TEST_SCHEMAS";
const ROWS: &str = include_str!("rows.sql");
/// Of each table, before rows that break a key are deleted.
const ROWS_OF_EACH: u32 = 500;
/// The tables that most others refer to, and one that nobody does.
const ROOTS: &str = r"
    (SELECT t.name, t.refs FROM (SELECT
        CASE n.nspname WHEN 'public' THEN c.relname ELSE n.nspname || '.' || c.relname END AS name,
        (SELECT count(*) FROM pg_constraint k WHERE k.contype = 'f' AND k.confrelid = c.oid) AS refs
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname !~ '^pg_'
        AND n.nspname <> 'information_schema' AND c.reltuples > 50
        AND EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)) t
     ORDER BY t.refs DESC, t.name LIMIT 4)";

#[tokio::test]
async fn schemas_of_others_are_sampled_with_what_init_proposes() {
    let Some(folder) = std::env::var_os(FOLDER_VARIABLE) else {
        eprintln!("skipped: {FOLDER_VARIABLE} names no folder of schemas");
        return;
    };
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder can be read")
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .collect();
    files.sort();
    let mut failures = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("the schema can be read");
        // What `psql` itself would read, and no server does.
        let text: String =
            text.lines().filter(|l| !l.starts_with('\\')).map(|l| format!("{l}\n")).collect();
        let Some(lab) = Lab::with(&text).await else { return };
        let filled = format!("{ROWS}; SELECT pg_temp.rows({ROWS_OF_EACH}); RESET ALL; ANALYZE");
        lab.execute(&lab.source, &filled).await;
        let client = lab.connect(&lab.source).await;
        for root in client.query(ROOTS, &[]).await.expect("the catalogs can be read") {
            let root: String = root.get(0);
            let name = format!("{} from {root}", file.file_name().unwrap_or_default().display());
            match sample(&lab, &root).await {
                Ok(rows) => println!("{name}: {rows} rows"),
                Err(why) => failures.push(format!("{name}: {why}")),
            }
        }
        drop(client);
        lab.end().await;
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

async fn sample(lab: &Lab, root: &str) -> Result<u64, String> {
    let source = lab.server(&lab.source);
    let config = Config::default();
    let job = app::Job {
        source: &source,
        config: &config,
        secret: KEY,
        sessions: 2,
        keys_at_once: lab.keys_at_once,
        listener: &|_| (),
    };
    let proposed = app::init(&job, root, "10%").await.map_err(|p| format!("init: {p:?}"))?;
    let sampled = match Config::parse(&proposed) {
        // The server has checked every key when this is done.
        Ok(_) => lab.sample(&proposed).await,
        Err(diagnostic) => return Err(format!("{diagnostic:?}\n{proposed}")),
    };
    let report = sampled.map_err(|problem| format!("{problem:?}\n{proposed}"))?;
    let unchecked = "SELECT count(*)::text FROM pg_constraint WHERE NOT convalidated";
    match lab.value(&lab.target, unchecked).await.as_str() {
        "0" => Ok(report.rows),
        unchecked => Err(format!("{unchecked} keys are not checked")),
    }
}
