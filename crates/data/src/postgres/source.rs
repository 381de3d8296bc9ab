//! The database that is sampled. One snapshot for all connections; nothing but reading.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use futures_util::{StreamExt as _, pin_mut};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_postgres::Client;

use super::catalog;
use super::copy::{Malformed, Reader};
use super::error::{Doing, Error};
use super::keys::Layout;
use super::server::Server;
use super::statement::Statements;
use crate::chance::Chance;
use crate::closure::{Ask, Closure, Row, Selection};
use crate::rules::{EdgeId, Rules};
use crate::schema::{Schema, TableId, TableName};

/// What each session is told: names mean what the catalogs say, no row is hidden silently, and
/// nobody waits for us behind a lock that we wait for.
const SETTINGS: &str = "
SET LOCAL search_path = ''; SET LOCAL row_security = off; SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0;
SET LOCAL jit = off; SET LOCAL datestyle = 'ISO'; SET LOCAL intervalstyle = 'iso_8601';
SET LOCAL timezone = 'UTC'; SET LOCAL extra_float_digits = 3; SET LOCAL bytea_output = 'hex'";

/// The first version with everything that is asked of it.
const OLDEST: i32 = 120_000;
/// From here on arrays in conditions are hashed.
const HASHES_ARRAYS: i32 = 140_000;
/// Keys in one statement, at most: a server holds some 300 bytes for each while it runs. Where
/// there are more, rows are read without a condition and chosen here.
pub const KEYS_AT_ONCE: usize = 300_000;
/// Tables in one statement.
const TABLES_AT_ONCE: usize = 500;
/// Rows of keys that go to the closure together.
const BATCH: usize = 1_024;
/// Batches that may wait for the closure.
const QUEUE: usize = 16;

/// A snapshot of the source, and sessions that see it.
pub struct Source {
    server: Server,
    version: i32,
    snapshot: String,
    keys_at_once: usize,
    /// The first exported the snapshot, which lasts as long as its transaction.
    sessions: Vec<Arc<Client>>,
}

impl Source {
    /// Takes a snapshot, with this many sessions besides. Statements hold at most `keys_at_once`
    /// keys, such as [`KEYS_AT_ONCE`].
    pub async fn open(
        server: &Server,
        sessions: usize,
        keys_at_once: usize,
    ) -> Result<Self, Error> {
        let doing = || format!("taking a snapshot of {server}");
        let first = server.connect().await?;
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        first.batch_execute(&format!("{begin}; {SETTINGS}")).await.doing(doing)?;
        let facts = "SELECT current_setting('server_version_num')::int4, pg_export_snapshot()";
        let row = first.query_one(facts, &[]).await.doing(doing)?;
        let (version, snapshot): (i32, String) = (row.get(0), row.get(1));
        if version < OLDEST {
            let cause = format!("it is PostgreSQL {}, and 12 is the oldest", version / 10_000);
            return Err(Error::said(doing(), cause));
        }
        let mut source = Self {
            server: server.clone(),
            version,
            snapshot,
            keys_at_once,
            sessions: vec![Arc::new(first)],
        };
        for _ in 0..sessions {
            let client = server.connect().await?;
            let join = format!("{begin}; SET TRANSACTION SNAPSHOT '{}'", source.snapshot);
            client.batch_execute(&format!("{join}; {SETTINGS}")).await.doing(doing)?;
            source.sessions.push(Arc::new(client));
        }
        Ok(source)
    }

    /// Where it is.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// For `pg_dump --snapshot`.
    pub(super) fn snapshot(&self) -> &str {
        &self.snapshot
    }

    /// Such as 150018.
    pub(super) fn version(&self) -> i32 {
        self.version
    }

    /// The session that holds the snapshot, for small questions.
    pub(super) fn first(&self) -> &Client {
        &self.sessions[0]
    }

    /// Sessions for what takes long.
    pub(super) fn workers(&self) -> &[Arc<Client>] {
        &self.sessions[1..]
    }

    /// Ends the snapshot, so that the source may tidy up behind itself again.
    pub(super) async fn end(&self) -> Result<(), Error> {
        for session in &self.sessions {
            session.batch_execute("COMMIT").await.doing(|| "ending the snapshot".to_owned())?;
        }
        Ok(())
    }

    /// Where sequences are; those that were never used are left out.
    pub(super) async fn sequences(&self) -> Result<Vec<(TableName, i64)>, Error> {
        let doing = || "reading sequences".to_owned();
        let read = "SELECT s.schemaname::text, s.sequencename::text, s.last_value,
                has_sequence_privilege(format('%I.%I', s.schemaname, s.sequencename), 'SELECT,USAGE')
            FROM pg_sequences s WHERE NOT EXISTS (SELECT FROM pg_depend d
                WHERE d.classid = 'pg_class'::regclass AND d.deptype = 'e'
                AND d.objid = format('%I.%I', s.schemaname, s.sequencename)::regclass)";
        let mut values = Vec::new();
        for row in self.first().query(read, &[]).await.doing(doing)? {
            let name = TableName::new(row.get::<_, &str>(0), row.get::<_, &str>(1));
            if !row.get::<_, bool>(3) {
                let name = name.sql();
                let cause = format!("not allowed: GRANT SELECT ON SEQUENCE {name} TO the role");
                return Err(Error::said(doing(), cause));
            }
            values.extend(row.get::<_, Option<i64>>(2).map(|value| (name, value)));
        }
        Ok(values)
    }

    /// The schema. Its tables keep their definition from here on until [`Source::end`]: a snapshot
    /// alone does not see that a table was emptied or rewritten since, and would return no rows.
    ///
    /// # Errors
    /// Also if this role would not see all rows, or a table changed since the snapshot was taken.
    pub async fn schema(&self) -> Result<Schema, Error> {
        let schema = catalog::read(self.first()).await?;
        self.hold(&schema).await?;
        Ok(schema)
    }

    /// Takes the weakest of locks on all tables, and looks whether one changed before it was held.
    async fn hold(&self, schema: &Schema) -> Result<(), Error> {
        let doing = || "holding the tables' definition".to_owned();
        let names: Vec<String> = schema.tables.iter().map(crate::schema::Table::only).collect();
        for part in names.chunks(TABLES_AT_ONCE) {
            let lock = format!("LOCK TABLE {} IN ACCESS SHARE MODE", part.join(", "));
            self.first().batch_execute(&lock).await.doing(doing)?;
        }
        // The catalog is read as of the snapshot; the function tells where rows are now.
        let rewritten = "SELECT c.oid::regclass::text FROM pg_class c
            JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
            AND c.relpersistence <> 't' AND pg_relation_filenode(c.oid) <> c.relfilenode";
        let rows = self.first().query(rewritten, &[]).await.doing(doing)?;
        let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        if names.is_empty() {
            return Ok(());
        }
        let cause = format!("emptied or rewritten while we began: {}; try again", names.join(", "));
        Err(Error::said(doing(), cause))
    }

    pub(super) fn statements<'a>(&self, schema: &'a Schema, rules: &'a Rules) -> Statements<'a> {
        Statements {
            schema,
            rules,
            hashes_arrays: self.version >= HASHES_ARRAYS,
            keys_at_once: self.keys_at_once,
        }
    }

    /// Finds out which rows the rules take, by reading keys only, and only those that matter.
    pub async fn close(
        &self,
        schema: &Schema,
        rules: &Arc<Rules>,
        chance: Chance,
    ) -> Result<Selection, Error> {
        let statements = self.statements(schema, rules);
        let mut closure = Closure::new(schema, rules, chance);
        loop {
            let asks = closure.asks();
            if asks.is_empty() {
                return Ok(closure.finish());
            }
            let mut jobs = VecDeque::new();
            for (at, ask) in asks.iter().enumerate() {
                jobs.extend(self.jobs(&closure, &statements, at, ask));
            }
            self.run(schema, &mut closure, &asks, jobs).await?;
        }
    }

    fn jobs(
        &self,
        closure: &Closure<'_>,
        statements: &Statements<'_>,
        at: usize,
        ask: &Ask,
    ) -> Vec<Job> {
        let rules = statements.rules;
        let table = table_of(rules, ask);
        if let Ask::LeafParents(leaf) = ask {
            let condition =
                statements.leaf_condition(*leaf, |edge| closure.core_parents(edge).collect());
            let (edges, condition, filtered) = match condition {
                Ok(condition) => (rules.pulls_of_leaf(*leaf), condition, true),
                // Then all edges are read, and the rows chosen here.
                Err(_) => (rules.table(*leaf).out.clone(), None, false),
            };
            let sql = statements.leaf_parents(*leaf, &edges, condition.as_deref());
            let layout = Layout::of_references(rules, &edges);
            return vec![Job { ask: at, table, sql, layout, edges, filtered }];
        }
        let layout = Layout::of_rows(rules, table);
        let job = |sql| Job {
            ask: at,
            table,
            sql,
            layout: layout.clone(),
            edges: Vec::new(),
            filtered: true,
        };
        statements.ask(ask).into_iter().map(job).collect()
    }

    /// Runs the statements on all sessions, and tells the closure what they return.
    async fn run(
        &self,
        schema: &Schema,
        closure: &mut Closure<'_>,
        asks: &[Ask],
        jobs: VecDeque<Job>,
    ) -> Result<(), Error> {
        let jobs = Arc::new(Mutex::new(jobs));
        let (sender, mut receiver) = mpsc::channel(QUEUE);
        // Dropped on an error, which ends the others.
        let mut running = JoinSet::new();
        for client in self.workers() {
            let (client, jobs, sender) = (client.clone(), jobs.clone(), sender.clone());
            running.spawn(async move {
                while let Some(job) = next(&jobs) {
                    if let Err(error) = read_keys(&client, &job, &sender).await {
                        let _ = sender.send(Err((job.table, error))).await;
                        return;
                    }
                }
            });
        }
        drop(sender);
        while let Some(batch) = receiver.recv().await {
            let batch = batch.map_err(|(table, error): (TableId, Failed)| {
                error.of(&schema.table(table).name.to_string())
            })?;
            for row in batch.rows {
                match &asks[batch.ask] {
                    Ask::LeafParents(leaf) => {
                        if batch.filtered || closure.takes_leaf(*leaf, &row.refers) {
                            tell_references(closure, *leaf, &batch.edges, row);
                        }
                    }
                    ask => closure.answer(ask, row),
                }
            }
        }
        Ok(())
    }

    /// How many rows of a leaf are chosen.
    pub async fn count_leaf(
        &self,
        schema: &Schema,
        selection: &Selection,
        leaf: TableId,
    ) -> Result<u64, Error> {
        let statements = self.statements(schema, selection.rules());
        let name = &schema.table(leaf).name;
        let condition =
            statements.leaf_condition(leaf, |edge| selection.core_parents(edge).collect());
        let condition = match condition {
            Ok(condition) => condition,
            // Counted over the statistics instead of reading a giant twice.
            Err(_) => return Ok(schema.table(leaf).rows),
        };
        let only = if schema.table(leaf).partitioned { "" } else { "ONLY " };
        let condition = condition.map(|c| format!(" WHERE {c}")).unwrap_or_default();
        let sql = format!("SELECT count(*) FROM {only}{}{condition}", name.sql());
        let row = self.first().query_one(&sql, &[]).await;
        let row = row.doing(|| format!("counting rows of {name}"))?;
        Ok(row.get::<_, i64>(0).max(0) as u64)
    }
}

fn tell_references(closure: &mut Closure<'_>, leaf: TableId, edges: &[EdgeId], row: Row) {
    let pulls = closure.rules().pulls_of_leaf(leaf);
    for (&edge, parent) in edges.iter().zip(row.refers) {
        if let Some(parent) = parent.filter(|_| pulls.contains(&edge)) {
            closure.leaf_refers(edge, parent);
        }
    }
}

fn table_of(rules: &Rules, ask: &Ask) -> TableId {
    match ask {
        Ask::Root => rules.root,
        Ask::Children { edge, .. } => rules.edge(*edge).child,
        Ask::Whole(table) | Ask::LeafParents(table) | Ask::Parents { table, .. } => *table,
    }
}

fn next(jobs: &Mutex<VecDeque<Job>>) -> Option<Job> {
    jobs.lock().expect("nobody panics while holding it").pop_front()
}

/// One statement.
struct Job {
    ask: usize,
    table: TableId,
    sql: String,
    layout: Layout,
    /// Of a leaf: the edges whose references are read.
    edges: Vec<EdgeId>,
    /// Whether all rows it returns are chosen.
    filtered: bool,
}

struct Batch {
    ask: usize,
    edges: Vec<EdgeId>,
    filtered: bool,
    rows: Vec<Row>,
}

/// Why keys could not be read.
pub(super) enum Failed {
    Database(tokio_postgres::Error),
    Malformed,
    CutOff,
}

impl From<Malformed> for Failed {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl Failed {
    pub fn of(self, table: &str) -> Error {
        let doing = format!("reading {table}");
        match self {
            Self::Database(error) => {
                Err::<(), _>(error).doing(|| doing).expect_err("it is an error")
            }
            Self::Malformed => Error::said(doing, "a key is not valid in its encoding"),
            Self::CutOff => Error::said(doing, "the stream ended in the middle"),
        }
    }
}

async fn read_keys(
    client: &Client,
    job: &Job,
    sender: &mpsc::Sender<Result<Batch, (TableId, Failed)>>,
) -> Result<(), Failed> {
    let stream = client.copy_out(job.sql.as_str()).await.map_err(Failed::Database)?;
    pin_mut!(stream);
    let mut reader = Reader::default();
    let mut rows = Vec::with_capacity(BATCH);
    let batch =
        |rows| Batch { ask: job.ask, edges: job.edges.clone(), filtered: job.filtered, rows };
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(Failed::Database)?;
        reader.feed::<Failed>(&chunk, |tuple| {
            rows.push(job.layout.read(tuple)?);
            Ok(())
        })?;
        if rows.len() >= BATCH {
            let full = std::mem::replace(&mut rows, Vec::with_capacity(BATCH));
            if sender.send(Ok(batch(full))).await.is_err() {
                return Ok(());
            }
        }
    }
    if !reader.is_complete() {
        return Err(Failed::CutOff);
    }
    // Nobody listens any more only where somebody else failed, and says so.
    let _ = sender.send(Ok(batch(rows))).await;
    Ok(())
}
