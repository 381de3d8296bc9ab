//! The database that is filled: a new one beside the old one, which answers until the last moment.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Client;

use super::dump::{Definition, Section};
use super::error::{Doing, Error};
use super::server::Server;
use super::source::Source;
use crate::schema::{TableName, literal, quoted};

/// The database that is connected to while the others are made and renamed.
const MAINTENANCE: &str = "postgres";
/// What a database of ours says of itself, so that nothing else is ever dropped.
const MARK: &str = "shiplap data: a sample on its way; dropped by the next run";
/// What the one that was replaced says of itself.
const MARK_OLD: &str = "shiplap data: replaced by a newer sample; dropped by the next run";
/// How often sessions are ended before a swap is given up: an application that reconnects in a
/// loop needs a few.
const SWAP_TRIES: u32 = 20;
/// Between two tries.
const SWAP_PAUSE: Duration = Duration::from_millis(250);
/// Sequences that are set by one statement.
const SEQUENCES_AT_ONCE: usize = 100;
/// The longest name of a database, in bytes.
const NAME_BYTES: usize = 63;

/// The new database.
pub struct Target {
    server: Server,
    new: Server,
    old_name: String,
    maintenance: Client,
    sessions: Vec<Arc<Client>>,
}

impl Target {
    /// Makes a new database beside the one that `server` names, and drops what an earlier run that
    /// was cut off left. Only one run at a time fills the same database.
    pub async fn create(server: &Server, source: &Source) -> Result<Self, Error> {
        let name = server.database();
        let doing = || format!("making a database beside {server}");
        if name == MAINTENANCE || name.len() + "~new".len() > NAME_BYTES {
            return Err(Error::said(doing(), "its name is reserved, or too long"));
        }
        let maintenance = server.with_database(MAINTENANCE).connect().await?;
        let lock = "SELECT pg_try_advisory_lock(hashtextextended('shiplap data ' || $1, 0))";
        if !maintenance.query_one(lock, &[&name]).await.doing(doing)?.get::<_, bool>(0) {
            return Err(Error::said(doing(), "another run is filling it; wait for its end"));
        }
        let (new_name, old_name) = (format!("{name}~new"), format!("{name}~old"));
        for (stray, mark) in [(&new_name, MARK), (&old_name, MARK_OLD)] {
            drop_ours(server, &maintenance, stray, mark).await?;
        }
        let options = locale(source).await?;
        let create = format!("CREATE DATABASE {} TEMPLATE template0 {options}", quoted(&new_name));
        maintenance.batch_execute(&create).await.doing(doing)?;
        let comment = format!("COMMENT ON DATABASE {} IS {}", quoted(&new_name), literal(MARK));
        maintenance.batch_execute(&comment).await.doing(doing)?;
        let new = server.with_database(&new_name);
        Ok(Self { server: server.clone(), new, old_name, maintenance, sessions: Vec::new() })
    }

    /// Makes the tables, and opens sessions to fill them.
    pub(super) async fn prepare(
        &mut self,
        definition: &Definition,
        sessions: usize,
    ) -> Result<(), Error> {
        definition.make(Section::PreData, &self.new, 1).await?;
        for _ in 0..sessions {
            let client = self.new.connect().await?;
            // A crash loses the whole database anyway; its swap is what must be safe.
            let settings =
                "SET synchronous_commit = off; SET search_path = ''; SET statement_timeout = 0;
                 SET row_security = off; SET maintenance_work_mem = '128MB'";
            client.batch_execute(settings).await.doing(|| format!("preparing {}", self.new))?;
            self.sessions.push(Arc::new(client));
        }
        Ok(())
    }

    pub(super) fn sessions(&self) -> &[Arc<Client>] {
        &self.sessions
    }

    /// Indexes, constraints and triggers: every key is checked by the server.
    pub(super) async fn constrain(
        &self,
        definition: &Definition,
        jobs: usize,
    ) -> Result<(), Error> {
        definition.make(Section::PostData, &self.new, jobs).await?;
        // Keys that the source never checked hold here: rows that broke them were left out.
        let unchecked = "SELECT n.nspname::text, c.relname::text, k.conname::text
            FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
            JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE k.contype = 'f' AND NOT k.convalidated AND k.conparentid = 0";
        let doing = || "checking keys that the source left unchecked".to_owned();
        let client = &self.sessions[0];
        for row in client.query(unchecked, &[]).await.doing(doing)? {
            let table = TableName::new(row.get::<_, &str>(0), row.get::<_, &str>(1));
            let validate =
                format!("ALTER TABLE {} VALIDATE CONSTRAINT {}", table.sql(), quoted(row.get(2)));
            client.batch_execute(&validate).await.doing(doing)?;
        }
        Ok(())
    }

    /// Sequences go on where the source's are, so that no new row meets a copied one.
    pub(super) async fn sequences(&self, values: &[(TableName, i64)]) -> Result<(), Error> {
        let call = |(name, value): &(TableName, i64)| {
            format!("setval({}::regclass, {value})", literal(&name.sql()))
        };
        for part in values.chunks(SEQUENCES_AT_ONCE) {
            let calls: Vec<String> = part.iter().map(call).collect();
            let sql = format!("SELECT {}", calls.join(", "));
            let set = self.sessions[0].simple_query(&sql).await;
            set.doing(|| "setting sequences".to_owned())?;
        }
        Ok(())
    }

    /// Fills these materialised views, in the order of their making, which is that of what they
    /// need.
    pub(super) async fn views(&self, filled: &[TableName]) -> Result<(), Error> {
        let doing = || "filling materialised views".to_owned();
        let client = &self.sessions[0];
        for view in views(client, "ORDER BY c.oid").await? {
            if filled.contains(&view) {
                // Queries of views may rely on the usual search path.
                let refresh = format!(
                    "RESET search_path; REFRESH MATERIALIZED VIEW {}; SET search_path = ''",
                    view.sql()
                );
                client.batch_execute(&refresh).await.doing(doing)?;
            }
        }
        Ok(())
    }

    /// Statistics, so that the first queries of developers are planned as in production.
    pub(super) async fn analyze(&self) -> Result<(), Error> {
        self.sessions[0].batch_execute("ANALYZE").await.doing(|| "collecting statistics".to_owned())
    }

    /// The paths that a query over the new database returns, each row's first column.
    pub(crate) async fn paths(&self, query: &str) -> Result<Vec<String>, Error> {
        let doing = || "asking the sample for its files".to_owned();
        let client = &self.sessions[0];
        // As people write it elsewhere: with the usual search path.
        let begin = "BEGIN READ ONLY; SET LOCAL search_path = \"$user\", public";
        client.batch_execute(begin).await.doing(doing)?;
        let query = query.trim().trim_end_matches(';');
        let query =
            format!("SELECT path::text FROM ({query}\n) AS files(path) WHERE path IS NOT NULL");
        let rows = client.query(&query, &[]).await.doing(doing)?;
        client.batch_execute("COMMIT").await.doing(doing)?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Whether what the server says of the new database is as it must be.
    pub(super) async fn verify(&self) -> Result<(), Error> {
        let doing = || "verifying the new database".to_owned();
        let broken = "SELECT 'index ' || indexrelid::regclass FROM pg_index
                WHERE NOT indisvalid OR NOT indisready
            UNION ALL SELECT 'constraint ' || conname || ' of ' || conrelid::regclass
                FROM pg_constraint WHERE NOT convalidated AND contype = 'f'";
        let rows = self.sessions[0].query(broken, &[]).await.doing(doing)?;
        let broken: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        if broken.is_empty() {
            return Ok(());
        }
        Err(Error::said(doing(), format!("not valid: {}", broken.join(", "))))
    }

    /// Puts the new database in the place of the old one, at once or not at all. When that is
    /// done, what may still go wrong is dropping the old one.
    pub async fn swap(self) -> Result<Option<Error>, Error> {
        let name = self.server.database().to_owned();
        let doing = || format!("putting the new database in the place of `{name}`");
        let Self { server, maintenance, sessions, new, old_name } = self;
        drop(sessions);
        let exists = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)";
        let has_old: bool = maintenance.query_one(exists, &[&name]).await.doing(doing)?.get(0);
        let (new_name, old) = (quoted(new.database()), quoted(&old_name));
        let place = quoted(&name);
        let aside = match has_old {
            true => format!(
                "ALTER DATABASE {place} RENAME TO {old}; COMMENT ON DATABASE {old} IS {};",
                literal(MARK_OLD)
            ),
            false => String::new(),
        };
        let swap = format!(
            "BEGIN; {aside} ALTER DATABASE {new_name} RENAME TO {place};
             COMMENT ON DATABASE {place} IS NULL; COMMIT"
        );
        let end_sessions = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname IN ($1, $2) AND pid <> pg_backend_pid()";
        for tries in 1.. {
            let ended = maintenance.query(end_sessions, &[&name, &new.database()]).await;
            let swapped = match ended {
                Ok(_) => maintenance.batch_execute(&swap).await,
                Err(error) => Err(error),
            };
            match swapped.doing(doing) {
                Ok(()) => break,
                Err(error) if tries == SWAP_TRIES => return Err(error),
                Err(_) => {
                    // Outside of a transaction this does nothing but warn.
                    maintenance.batch_execute("ROLLBACK").await.doing(doing)?;
                    tokio::time::sleep(SWAP_PAUSE).await;
                }
            }
        }
        Ok(drop_ours(&server, &maintenance, &old_name, MARK_OLD).await.err())
    }

    /// Drops the new database after a failure; the old one was never touched.
    pub async fn abandon(self) -> Result<(), Error> {
        let Self { server, maintenance, sessions, new, .. } = self;
        drop(sessions);
        drop_ours(&server, &maintenance, new.database(), MARK).await
    }
}

/// Materialised views.
pub(super) async fn views(client: &Client, which: &str) -> Result<Vec<TableName>, Error> {
    let list = format!(
        "SELECT n.nspname::text, c.relname::text FROM pg_class c
         JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'm' {which}"
    );
    let rows = client.query(&list, &[]).await;
    let rows = rows.doing(|| "reading materialised views".to_owned())?;
    Ok(rows.iter().map(|r| TableName::new(r.get::<_, &str>(0), r.get::<_, &str>(1))).collect())
}

/// Drops a database if it says that it is ours.
async fn drop_ours(
    server: &Server,
    maintenance: &Client,
    name: &str,
    mark: &str,
) -> Result<(), Error> {
    let doing = || format!("dropping the database `{name}`");
    let find = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = $1";
    let Some(row) = maintenance.query_opt(find, &[&name]).await.doing(doing)? else {
        return Ok(());
    };
    // A run that was cut off between making and marking leaves one that is empty.
    let is_ours = match row.get::<_, Option<&str>>(0) {
        Some(said) => said == mark,
        None => is_empty(&server.with_database(name)).await?,
    };
    if !is_ours {
        return Err(Error::said(doing(), "it is somebody else's: its comment is not ours"));
    }
    let end_sessions = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
    maintenance.query(end_sessions, &[&name]).await.doing(doing)?;
    let force = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted(name));
    let plain = format!("DROP DATABASE IF EXISTS {}", quoted(name));
    if mark == MARK {
        // On a full disk a server cannot write down what it must before it drops a database, and
        // the room that it needs is in there. Where this fails, dropping says why.
        let _ = drop_tables(&server.with_database(name)).await;
    }
    match maintenance.batch_execute(&force).await {
        Ok(()) => Ok(()),
        // Before PostgreSQL 13 there is no force.
        Err(_) => maintenance.batch_execute(&plain).await.doing(doing),
    }
}

/// Drops all tables of a database, one after the other, so that each gives room to the next.
async fn drop_tables(server: &Server) -> Result<(), Error> {
    let doing = || format!("making room in {server}");
    let client = server.connect().await?;
    // Nobody misses one that is still there after a crash.
    client.batch_execute("SET synchronous_commit = off").await.doing(doing)?;
    let tables = "SELECT n.nspname::text, c.relname::text FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";
    for row in client.query(tables, &[]).await.doing(doing)? {
        let table = TableName::new(row.get::<_, &str>(0), row.get::<_, &str>(1));
        let drop = format!("DROP TABLE IF EXISTS {} CASCADE", table.sql());
        client.batch_execute(&drop).await.doing(doing)?;
    }
    Ok(())
}

/// Whether a database has no table of anybody.
async fn is_empty(server: &Server) -> Result<bool, Error> {
    let any =
        "SELECT NOT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema')";
    let row = server.connect().await?.query_one(any, &[]).await;
    Ok(row.doing(|| format!("looking into {server}"))?.get(0))
}

/// The source's encoding and order of text, without which unique keys may differ.
async fn locale(source: &Source) -> Result<String, Error> {
    let read = "SELECT pg_encoding_to_char(encoding)::text, datcollate::text, datctype::text
        FROM pg_database WHERE datname = current_database()";
    let row = source.first().query_one(read, &[]).await;
    let row = row.doing(|| "reading the source's locale".to_owned())?;
    let [encoding, collate, ctype] = [0, 1, 2].map(|at| literal(row.get(at)));
    Ok(format!("ENCODING {encoding} LC_COLLATE {collate} LC_CTYPE {ctype}"))
}
