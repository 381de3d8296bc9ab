//! The entries in SQLite.

use rusqlite::types::{FromSql, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::failure::Failure;
use crate::chain::{Anchor, Entry, Fact, Head, Walk};
use crate::failure::damaged;
use crate::key::{Key, KeyPlace, SealedBinding};

fn last_entry(connection: &Connection) -> Result<Head, Failure> {
    let last = connection
        .prepare_cached("SELECT seq, hash FROM entries ORDER BY seq DESC LIMIT 1")?
        .query_row([], |row| Ok(Head { seq: row.get(0)?, hash: row.get::<_, StoredHash>(1)?.0 }))
        .optional()?;
    Ok(last.unwrap_or(Head::START))
}

fn anchor(connection: &Connection) -> Result<Option<Anchor>, Failure> {
    let anchor = connection
        .prepare_cached("SELECT key_check, head_seq, head_seal FROM chain")?
        .query_row([], |row| {
            Ok(Anchor {
                key_check: row.get::<_, StoredHash>(0)?.0,
                head_seq: row.get(1)?,
                head_seal: row.get::<_, StoredHash>(2)?.0,
            })
        })
        .optional()?;
    Ok(anchor)
}

/// The key of a ledger that holds something.
pub(crate) fn key_for_reading(connection: &Connection, place: &KeyPlace) -> Result<Key, Failure> {
    let anchor = anchor(connection)?.ok_or_else(Anchor::missing)?;
    Ok(place.load(&anchor.key_check)?)
}

/// The key for the next entry. Made only where there is no entry yet, and only where the chain
/// ends as it should: writing on would hide that its end was cut off.
pub(crate) fn key_for_writing(transaction: &Transaction, place: &KeyPlace) -> Result<Key, Failure> {
    let head = last_entry(transaction)?;
    match anchor(transaction)? {
        None if head.seq == 0 => Ok(place.load_or_create()?),
        None => Err(Anchor::missing().into()),
        Some(anchor) => {
            let key = place.load(&anchor.key_check)?;
            anchor.check(&key, &head)?;
            Ok(key)
        }
    }
}

/// Adds an entry and returns its number in the chain. `key` is from [`key_for_writing`], of the
/// same transaction.
pub(crate) fn append(transaction: &Transaction, key: &Key, fact: Fact) -> Result<i64, Failure> {
    let entry = Entry::after(&last_entry(transaction)?, fact);
    transaction
        .prepare_cached(
            "INSERT INTO entries (seq, kind, project, environment, number, payload, at_ms, \
             prev_hash, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            entry.seq,
            entry.kind,
            entry.project,
            entry.environment,
            entry.number,
            entry.payload,
            entry.at_ms,
            StoredHash(entry.prev_hash),
            StoredHash(entry.hash),
        ])?;
    transaction
        .prepare_cached(
            "INSERT INTO chain (id, key_check, head_seq, head_seal) VALUES (1, ?1, ?2, ?3) \
             ON CONFLICT (id) DO UPDATE SET head_seq = ?2, head_seal = ?3",
        )?
        .execute(params![
            StoredHash(key.check()),
            entry.seq,
            StoredHash(key.seal_head(entry.seq, &entry.hash)),
        ])?;
    Ok(entry.seq)
}

/// Keeps the encrypted binding of the deployment that entry `seq` began.
pub(crate) fn keep_binding(
    transaction: &Transaction,
    seq: i64,
    binding: &SealedBinding,
) -> Result<(), Failure> {
    transaction
        .prepare_cached("INSERT INTO bindings (entry, nonce, sealed) VALUES (?1, ?2, ?3)")?
        .execute(params![seq, binding.nonce, binding.ciphertext])?;
    Ok(())
}

/// The encrypted binding of the deployment that entry `seq` began.
pub(crate) fn kept_binding(
    connection: &Connection,
    seq: i64,
) -> Result<Option<SealedBinding>, Failure> {
    let binding = connection
        .prepare_cached("SELECT nonce, sealed FROM bindings WHERE entry = ?1")?
        .query_row([seq], |row| Ok(SealedBinding { nonce: row.get(0)?, ciphertext: row.get(1)? }))
        .optional()?;
    Ok(binding)
}

/// Checks everything: the chain entry by entry, its end, the encrypted bindings, and the file
/// itself. Returns how many entries there are.
pub(crate) fn verify(connection: &Connection, place: &KeyPlace) -> Result<u64, Failure> {
    let walk = walk(connection)?;
    if walk.head.seq == 0 {
        return Ok(0);
    }
    let anchor = anchor(connection)?.ok_or_else(Anchor::missing)?;
    let key = place.load(&anchor.key_check)?;
    anchor.check(&key, &walk.head)?;
    for seq in walk.begun() {
        walk.check_binding(&key, seq, kept_binding(connection, seq)?.as_ref())?;
    }
    let sound: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if sound != "ok" {
        return Err(damaged(sound).into());
    }
    Ok(walk.head.seq.unsigned_abs())
}

fn walk(connection: &Connection) -> Result<Walk, Failure> {
    let mut walk = Walk::begin();
    let mut statement = connection.prepare(
        "SELECT seq, kind, project, environment, number, payload, at_ms, prev_hash, hash \
         FROM entries ORDER BY seq",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let read = || -> rusqlite::Result<Entry> {
            Ok(Entry {
                seq: row.get(0)?,
                kind: row.get(1)?,
                project: row.get(2)?,
                environment: row.get(3)?,
                number: row.get(4)?,
                payload: row.get(5)?,
                at_ms: row.get(6)?,
                prev_hash: row.get::<_, StoredHash>(7)?.0,
                hash: row.get::<_, StoredHash>(8)?.0,
            })
        };
        let next = walk.head.seq + 1;
        let unreadable = |error| damaged(format!("entry {next} cannot be read: {error}"));
        walk.follow(&read().map_err(unreadable)?)?;
    }
    Ok(walk)
}

/// A hash as it stands in a column.
struct StoredHash(blake3::Hash);

impl ToSql for StoredHash {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Blob(self.0.as_bytes())))
    }
}

impl FromSql for StoredHash {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        <[u8; 32]>::column_result(value).map(|bytes| Self(blake3::Hash::from_bytes(bytes)))
    }
}
