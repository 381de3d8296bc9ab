//! Tokens.

use shiplap_model::{LedgerError, Token, minute_of};
use tokio_postgres::{Row, Transaction};

use super::failure::{Attempt, Failure};
use super::sql::{Sql, params};
use crate::queue::{taken, with_scope, write_json};

const COLUMNS: &str = "id, name, hash, scope, made_by, made_ms, expires_ms, used_ms, revoked_ms";

fn read(row: &Row) -> Result<Token, Failure> {
    let id: String = row.try_get(0)?;
    let hash: &[u8] = row.try_get(2)?;
    let hash = hash.try_into();
    let token = Token {
        hash: hash.map_err(|_| LedgerError::Damaged(format!("the hash of token {id}")))?,
        id,
        name: row.try_get(1)?,
        scope: Default::default(),
        made_by: row.try_get(4)?,
        made_ms: row.try_get(5)?,
        expires_ms: row.try_get(6)?,
        used_ms: row.try_get(7)?,
        revoked_ms: row.try_get(8)?,
    };
    Ok(with_scope((token, row.try_get(3)?))?)
}

/// Keeps a new one.
pub(crate) async fn add(
    transaction: &Transaction<'_>,
    token: &Token,
    attempt: Attempt,
) -> Result<(), Failure> {
    let sql = format!(
        "INSERT INTO tokens ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
         ON CONFLICT (id) DO NOTHING"
    );
    let parameters = params![
        token.id,
        token.name,
        token.hash.as_slice(),
        write_json(&token.scope),
        token.made_by,
        token.made_ms,
        token.expires_ms,
        token.used_ms,
        token.revoked_ms
    ];
    let added = transaction.act(&sql, parameters).await?;
    // The attempt before may have got through: a hash is of 32 random bytes.
    let is_ours = attempt == Attempt::Repeated
        && find(transaction, &token.id).await?.is_some_and(|there| there.hash == token.hash);
    if added == 1 || is_ours { Ok(()) } else { Err(taken(&token.id).into()) }
}

/// The token with this id.
pub(crate) async fn find(
    transaction: &Transaction<'_>,
    id: &str,
) -> Result<Option<Token>, Failure> {
    let sql = format!("SELECT {COLUMNS} FROM tokens WHERE id = $1");
    let row = transaction.row(&sql, params![id]).await?;
    row.as_ref().map(read).transpose()
}

/// All, in the order in which they were added.
pub(crate) async fn all(transaction: &Transaction<'_>) -> Result<Vec<Token>, Failure> {
    let sql = format!("SELECT {COLUMNS} FROM tokens ORDER BY seq");
    transaction.rows(&sql, params![]).await?.iter().map(read).collect()
}

/// Writes down the minute in which it was used; nothing where that is known.
pub(crate) async fn used(
    transaction: &Transaction<'_>,
    id: &str,
    at_ms: i64,
) -> Result<(), Failure> {
    let sql = "UPDATE tokens SET used_ms = $2 WHERE id = $1 AND coalesce(used_ms, -1) < $2";
    transaction.act(sql, params![id, minute_of(at_ms)]).await?;
    Ok(())
}

/// Makes it not work any more.
pub(crate) async fn revoke(
    transaction: &Transaction<'_>,
    id: &str,
    at_ms: i64,
    attempt: Attempt,
) -> Result<bool, Failure> {
    let sql = "UPDATE tokens SET revoked_ms = $2 WHERE id = $1 AND revoked_ms IS NULL \
               AND (expires_ms IS NULL OR expires_ms > $2)";
    let revoked = transaction.act(sql, params![id, at_ms]).await? == 1;
    if revoked || attempt == Attempt::First {
        return Ok(revoked);
    }
    let found = find(transaction, id).await?;
    Ok(found.is_some_and(|token| token.revoked_ms == Some(at_ms)))
}
