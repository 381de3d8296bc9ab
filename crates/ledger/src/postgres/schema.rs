//! Bringing the tables up to date.

use shiplap_model::LedgerError;
use tokio_postgres::{IsolationLevel, Transaction};

use super::failure::Failure;
use super::pool::Pooled;
use super::sql::{Sql, params};
use crate::failure::damaged;
use crate::key::fill_random;

/// Each brings the schema from its index to the next number. Written once, never edited.
const MIGRATIONS: [&str; 1] = [include_str!("migrations/0001.sql")];
const KNOWN: i64 = MIGRATIONS.len() as i64;

/// `Shlp`: whoever makes the tables keeps others from making them too.
const LOCK: i64 = 0x5368_6c70;

/// Brings the tables up to date. Writes nothing where that is the case already, and needs no
/// privilege to then.
///
/// # Errors
/// `TooNew` for a ledger of a later version, `Damaged` for a schema that is none.
pub(crate) async fn prepare(client: &mut Pooled) -> Result<(), Failure> {
    let reading = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await?;
    let found = inspect(&reading).await?;
    reading.commit().await?;
    if let Found::Ledger(KNOWN) = found {
        return Ok(());
    }
    let transaction = client.transaction().await?;
    transaction.rows("SELECT pg_advisory_xact_lock($1)", params![LOCK]).await?;
    // Asked again, now that nobody else makes them: another process may have been faster.
    let from = match inspect(&transaction).await? {
        Found::Nothing => {
            transaction.batch_execute("CREATE SCHEMA shiplap").await?;
            0
        }
        Found::Empty => 0,
        Found::Ledger(KNOWN) => return Ok(()),
        Found::Ledger(schema) => schema,
    };
    let done = usize::try_from(from).expect("`inspect` lets none but known schemas pass");
    for migration in &MIGRATIONS[done..] {
        transaction.batch_execute(migration).await?;
    }
    if from == 0 {
        let mut name = [0; 16];
        fill_random(&mut name)?;
        let name = blake3::hash(&name).to_hex()[..32].to_owned();
        let sql = "INSERT INTO shiplap.ledger (id, schema, name) VALUES (1, $1::bigint, $2)";
        transaction.act(sql, params![KNOWN, name]).await?;
    } else {
        transaction.act("UPDATE shiplap.ledger SET schema = $1::bigint", params![KNOWN]).await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// What stands in the database.
enum Found {
    /// Nothing, not even the schema.
    Nothing,
    /// An empty schema.
    Empty,
    /// A ledger of this schema, not newer than ours.
    Ledger(i64),
}

/// Asks the catalogs, by one snapshot: `to_regclass` and its like may answer from before somebody
/// else has made the tables, since waiting for an advisory lock brings no news of them.
const CATALOGS: &str = "\
    SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = 'shiplap'), \
           coalesce(bool_or(relname = 'ledger' AND relkind = 'r'), false), count(relname) > 0 \
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace \
    WHERE nspname = 'shiplap'";

async fn inspect(transaction: &Transaction<'_>) -> Result<Found, Failure> {
    let row = transaction.row(CATALOGS, params![]).await?.expect("an aggregate is one row");
    match (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?) {
        (false, ..) => return Ok(Found::Nothing),
        (true, false, false) => return Ok(Found::Empty),
        (true, false, true) => {
            return Err(damaged("the schema `shiplap` holds something else").into());
        }
        (true, true, _) => {}
    }
    let row = transaction.row("SELECT schema::bigint FROM shiplap.ledger", params![]).await?;
    let found: i64 = row.ok_or_else(|| damaged("the table `ledger` is empty"))?.try_get(0)?;
    match found {
        found if found > KNOWN => Err(LedgerError::TooNew { found, known: KNOWN }.into()),
        found if found > 0 => Ok(Found::Ledger(found)),
        found => Err(damaged(format!("there is no schema {found}")).into()),
    }
}

/// A text that no other ledger has: a copy in another database or on another server is another
/// ledger, a server that took over from the one that it replicates is not.
pub(crate) async fn identity(client: &mut Pooled) -> Result<String, Failure> {
    let transaction = client.transaction().await?;
    let sql = "SELECT name, (SELECT oid::bigint FROM pg_database \
               WHERE datname = current_database()) FROM shiplap.ledger";
    let row = transaction.row(sql, params![]).await?;
    let row = row.ok_or_else(|| damaged("the table `ledger` is empty"))?;
    let (name, database): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
    // Some services that run PostgreSQL do not tell.
    let sql = "SELECT system_identifier FROM pg_control_system()";
    let system: i64 = match transaction.row(sql, params![]).await {
        Ok(Some(row)) => row.try_get(0)?,
        Ok(None) => 0,
        Err(error) if error.as_db_error().is_some() => 0,
        Err(error) => return Err(error.into()),
    };
    drop(transaction);
    let text = format!("{name}\n{database}\n{system}");
    Ok(blake3::hash(text.as_bytes()).to_hex()[..16].to_owned())
}
