//! Opening the database and bringing its tables up to date.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use shiplap_model::LedgerError;

use super::failure::{Failure, sqlite};
use crate::failure::damaged;

/// `Shlp`, in the header of the file.
const APPLICATION_ID: i64 = 0x5368_6c70;

/// Each brings the schema from its index to the next number. Written once, never edited; a new
/// version of a stored payload takes a new one too, so that an older program stops at the door.
const MIGRATIONS: [&str; 3] = [
    include_str!("migrations/0001.sql"),
    include_str!("migrations/0002.sql"),
    include_str!("migrations/0003.sql"),
];
const KNOWN: i64 = MIGRATIONS.len() as i64;

/// A transaction lasts milliseconds; who waits longer than this stands behind a stopped process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Turning a new file into WAL mode fails at once while another process looks at it.
const WAL_ATTEMPTS: u32 = 200;
const WAL_PAUSE: Duration = Duration::from_millis(10);

/// What stands in the file.
pub(crate) enum Found {
    /// Nothing yet.
    Empty,
    /// A ledger of this schema, not newer than ours.
    Ledger(i64),
}

/// Opens an existing file, without changing anything.
pub(crate) fn connect(path: &Path) -> Result<Connection, LedgerError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")?;
        Ok(connection)
    };
    open().map_err(|error| sqlite(path, &error))
}

/// Looks what stands in the file.
///
/// # Errors
/// `TooNew` for a later schema, `Damaged` for what is no ledger.
pub(crate) fn inspect(connection: &Connection) -> Result<Found, Failure> {
    let (application, schema, tables): (i64, i64, i64) = connection.query_row(
        "SELECT (SELECT application_id FROM pragma_application_id), \
                (SELECT user_version FROM pragma_user_version), \
                (SELECT count(*) FROM sqlite_schema)",
        [],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    match (application, schema, tables) {
        (0, 0, 0) => Ok(Found::Empty),
        (APPLICATION_ID, found, _) if found > KNOWN => {
            Err(LedgerError::TooNew { found, known: KNOWN }.into())
        }
        (APPLICATION_ID, found, _) if found > 0 => Ok(Found::Ledger(found)),
        _ => {
            let path = connection.path().unwrap_or_default();
            Err(damaged(format!("`{path}` holds a database of something else")).into())
        }
    }
}

/// Brings the file up to date. Writes nothing where that is the case already.
pub(crate) fn prepare(connection: &mut Connection, found: &Found) -> Result<(), Failure> {
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    if mode != "wal" {
        switch_to_wal(connection)?;
    }
    match found {
        Found::Ledger(KNOWN) => Ok(()),
        Found::Ledger(_) | Found::Empty => migrate(connection),
    }
}

fn switch_to_wal(connection: &Connection) -> Result<(), Failure> {
    for _ in 0..WAL_ATTEMPTS {
        let mode =
            connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0));
        match mode {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(mode) => {
                let text = format!("its file system allows no WAL (journal mode stays {mode})");
                return Err(LedgerError::Storage(text).into());
            }
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                std::thread::sleep(WAL_PAUSE);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(LedgerError::Storage("another process keeps it busy, trying again is safe".into()).into())
}

fn migrate(connection: &mut Connection) -> Result<(), Failure> {
    // A table that others refer to is replaced; what refers to nothing then is looked for before
    // it is committed. Inside of a transaction this setting cannot be changed.
    connection.execute_batch("PRAGMA foreign_keys = OFF;")?;
    let migrated = migrate_unchecked(connection);
    connection.execute_batch("PRAGMA foreign_keys = ON;")?;
    migrated
}

fn migrate_unchecked(connection: &mut Connection) -> Result<(), Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Asked again, now that nobody else can write: another process may have been faster.
    let from = match inspect(&transaction)? {
        Found::Empty => 0,
        Found::Ledger(schema) => schema,
    };
    if from == KNOWN {
        return Ok(());
    }
    let done = usize::try_from(from).expect("`inspect` lets none but positive schemas pass");
    for migration in &MIGRATIONS[done..] {
        transaction.execute_batch(migration)?;
    }
    let lost: i64 =
        transaction.query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |r| r.get(0))?;
    if lost > 0 {
        return Err(damaged(format!("{lost} bindings belong to no entry")).into());
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", KNOWN)?;
    transaction.commit()?;
    Ok(())
}
