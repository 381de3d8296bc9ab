//! Tokens.

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use shiplap_model::{Token, minute_of};

use super::failure::Failure;
use crate::queue::{taken, with_scope, write_json};

const COLUMNS: &str = "id, name, hash, scope, made_by, made_ms, expires_ms, used_ms, revoked_ms";

fn read(row: &Row) -> rusqlite::Result<(Token, String)> {
    let token = Token {
        id: row.get(0)?,
        name: row.get(1)?,
        hash: row.get(2)?,
        scope: Default::default(),
        made_by: row.get(4)?,
        made_ms: row.get(5)?,
        expires_ms: row.get(6)?,
        used_ms: row.get(7)?,
        revoked_ms: row.get(8)?,
    };
    Ok((token, row.get(3)?))
}

/// Keeps a new one.
pub(crate) fn add(transaction: &Transaction, token: &Token) -> Result<(), Failure> {
    let added = transaction
        .prepare_cached(&format!(
            "INSERT INTO tokens ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) \
             ON CONFLICT (id) DO NOTHING"
        ))?
        .execute(params![
            token.id,
            token.name,
            token.hash,
            write_json(&token.scope),
            token.made_by,
            token.made_ms,
            token.expires_ms,
            token.used_ms,
            token.revoked_ms,
        ])?;
    if added == 1 { Ok(()) } else { Err(taken(&token.id).into()) }
}

/// The token with this id.
pub(crate) fn find(connection: &Connection, id: &str) -> Result<Option<Token>, Failure> {
    let found = connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM tokens WHERE id = ?1"))?
        .query_row([id], read)
        .optional()?;
    Ok(found.map(with_scope).transpose()?)
}

/// All, in the order in which they were added.
pub(crate) fn all(connection: &Connection) -> Result<Vec<Token>, Failure> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM tokens ORDER BY seq"))?;
    let rows = statement.query_map([], read)?;
    rows.map(|row| Ok(with_scope(row?)?)).collect()
}

/// Whether noting a use would change anything: it does once in a minute, and is asked for with
/// every request.
pub(crate) fn is_news(connection: &Connection, id: &str, at_ms: i64) -> Result<bool, Failure> {
    let news = connection
        .prepare_cached("SELECT 1 FROM tokens WHERE id = ?1 AND coalesce(used_ms, -1) < ?2")?
        .exists(params![id, minute_of(at_ms)])?;
    Ok(news)
}

/// Writes down the minute in which it was used.
pub(crate) fn used(transaction: &Transaction, id: &str, at_ms: i64) -> Result<(), Failure> {
    transaction
        .prepare_cached(
            "UPDATE tokens SET used_ms = ?2 WHERE id = ?1 AND coalesce(used_ms, -1) < ?2",
        )?
        .execute(params![id, minute_of(at_ms)])?;
    Ok(())
}

/// Makes it not work any more.
pub(crate) fn revoke(transaction: &Transaction, id: &str, at_ms: i64) -> Result<bool, Failure> {
    let revoked = transaction
        .prepare_cached(
            "UPDATE tokens SET revoked_ms = ?2 WHERE id = ?1 AND revoked_ms IS NULL \
             AND (expires_ms IS NULL OR expires_ms > ?2)",
        )?
        .execute(params![id, at_ms])?;
    Ok(revoked == 1)
}
