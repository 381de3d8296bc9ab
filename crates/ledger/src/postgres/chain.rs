//! The entries in PostgreSQL.

use shiplap_model::LedgerError;
use tokio_postgres::{Row, Transaction};

use super::failure::Failure;
use super::sql::{Sql, params};
use crate::chain::{Anchor, Entry, Fact, Head, Walk};
use crate::failure::damaged;
use crate::key::{Key, KeyPlace, SealedBinding};

/// Entries that are read at once when all of them are.
const AT_ONCE: i64 = 1_000;

/// The right to append, which one transaction has at a time, until it ends.
pub(crate) struct Appending {
    pub(crate) key: Key,
    head: Head,
    written: Vec<Entry>,
}

fn hash(row: &Row, column: usize) -> Result<blake3::Hash, Failure> {
    let bytes: &[u8] = row.try_get(column)?;
    let wrong = |_| damaged(format!("a hash has {} bytes", bytes.len()));
    Ok(blake3::Hash::from_bytes(<[u8; 32]>::try_from(bytes).map_err(wrong)?))
}

/// Nothing before the first entry.
async fn anchor(transaction: &Transaction<'_>, lock: &str) -> Result<Option<Anchor>, Failure> {
    let sql = format!("SELECT key_check, head_seq, head_seal FROM chain WHERE id = 1 {lock}");
    let row = transaction.row(&sql, params![]).await?.ok_or_else(Anchor::missing)?;
    let head_seq: i64 = row.try_get(1)?;
    if head_seq == 0 {
        return Ok(None);
    }
    let (key_check, head_seal) = (hash(&row, 0)?, hash(&row, 2)?);
    Ok(Some(Anchor { key_check, head_seq, head_seal }))
}

impl Appending {
    /// Waits until nobody else appends. A key is made only where there is no entry yet, and entries
    /// are added only where the chain ends as it should: writing on would hide that its end was cut
    /// off.
    pub(crate) async fn begin(
        transaction: &Transaction<'_>,
        place: &KeyPlace,
    ) -> Result<Self, Failure> {
        let anchor = anchor(transaction, "FOR UPDATE").await?;
        let sql = "SELECT seq, hash FROM entries ORDER BY seq DESC LIMIT 1";
        let head = match transaction.row(sql, params![]).await? {
            Some(row) => Head { seq: row.try_get(0)?, hash: hash(&row, 1)? },
            None => Head::START,
        };
        let key = match anchor {
            None if head.seq == 0 => place.load_or_create()?,
            None => return Err(Anchor::missing().into()),
            Some(anchor) => {
                let key = place.load(&anchor.key_check)?;
                anchor.check(&key, &head)?;
                key
            }
        };
        Ok(Self { key, head, written: Vec::new() })
    }

    /// Adds an entry and returns its number in the chain.
    pub(crate) fn append(&mut self, fact: Fact) -> i64 {
        let entry = Entry::after(&self.head, fact);
        self.head = entry.head();
        self.written.push(entry);
        self.head.seq
    }

    /// Writes down what was added.
    pub(crate) async fn write(self, transaction: &Transaction<'_>) -> Result<(), Failure> {
        if self.written.is_empty() {
            return Ok(());
        }
        let entries = &self.written;
        let numbers = |of: fn(&Entry) -> i64| entries.iter().map(of).collect::<Vec<i64>>();
        let texts = |of: fn(&Entry) -> &str| entries.iter().map(of).collect::<Vec<&str>>();
        let hashes = |of: fn(&Entry) -> &blake3::Hash| {
            entries.iter().map(|entry| of(entry).as_bytes().as_slice()).collect::<Vec<&[u8]>>()
        };
        transaction
            .act(
                "INSERT INTO entries (seq, kind, project, environment, number, payload, at_ms, \
                 prev_hash, hash) SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], \
                 $4::text[], $5::bigint[], $6::text[], $7::bigint[], $8::bytea[], $9::bytea[]) \
                 AS entry (seq, kind, project, environment, number, payload, at_ms, prev_hash, \
                 hash) ORDER BY seq",
                params![
                    numbers(|entry| entry.seq),
                    texts(|entry| &entry.kind),
                    texts(|entry| &entry.project),
                    texts(|entry| &entry.environment),
                    numbers(|entry| entry.number),
                    texts(|entry| &entry.payload),
                    numbers(|entry| entry.at_ms),
                    hashes(|entry| &entry.prev_hash),
                    hashes(|entry| &entry.hash),
                ],
            )
            .await?;
        let (check, seal) = (self.key.check(), self.key.seal_head(self.head.seq, &self.head.hash));
        transaction
            .act(
                "UPDATE chain SET key_check = $1, head_seq = $2, head_seal = $3 WHERE id = 1",
                params![check.as_bytes().as_slice(), self.head.seq, seal.as_bytes().as_slice()],
            )
            .await?;
        Ok(())
    }
}

/// Keeps the encrypted binding of the deployment that entry `seq`, which is written, began.
pub(crate) async fn keep_binding(
    transaction: &Transaction<'_>,
    seq: i64,
    binding: &SealedBinding,
) -> Result<(), Failure> {
    let sql = "INSERT INTO bindings (entry, nonce, sealed) VALUES ($1, $2, $3)";
    let (nonce, sealed) = (binding.nonce.as_slice(), binding.ciphertext.as_slice());
    transaction.act(sql, params![seq, nonce, sealed]).await?;
    Ok(())
}

/// The encrypted binding of the deployment that entry `seq` began.
pub(crate) async fn kept_binding(
    transaction: &Transaction<'_>,
    seq: i64,
) -> Result<Option<SealedBinding>, Failure> {
    let sql = "SELECT nonce, sealed FROM bindings WHERE entry = $1";
    let Some(row) = transaction.row(sql, params![seq]).await? else { return Ok(None) };
    let nonce: &[u8] = row.try_get(0)?;
    let nonce = nonce.try_into().map_err(|_| damaged(format!("the nonce of entry {seq}")))?;
    Ok(Some(SealedBinding { nonce, ciphertext: row.try_get(1)? }))
}

/// The key of a ledger that holds something.
pub(crate) async fn key_for_reading(
    transaction: &Transaction<'_>,
    place: &KeyPlace,
) -> Result<Key, Failure> {
    let anchor = anchor(transaction, "").await?.ok_or_else(Anchor::missing)?;
    Ok(place.load(&anchor.key_check)?)
}

/// Checks everything: the chain entry by entry, its end, and the encrypted bindings. Returns how
/// many entries there are.
pub(crate) async fn verify(
    transaction: &Transaction<'_>,
    place: &KeyPlace,
) -> Result<u64, Failure> {
    let walk = walk(transaction).await?;
    let anchor = anchor(transaction, "").await?;
    let Some(anchor) = anchor else {
        return if walk.head.seq == 0 { Ok(0) } else { Err(Anchor::missing().into()) };
    };
    let key = place.load(&anchor.key_check)?;
    anchor.check(&key, &walk.head)?;
    for seq in walk.begun() {
        walk.check_binding(&key, seq, kept_binding(transaction, seq).await?.as_ref())?;
    }
    Ok(walk.head.seq.unsigned_abs())
}

async fn walk(transaction: &Transaction<'_>) -> Result<Walk, Failure> {
    let mut walk = Walk::begin();
    let mut last = 0_i64;
    loop {
        let sql = "SELECT seq, kind, project, environment, number, payload, at_ms, prev_hash, hash \
                   FROM entries WHERE seq > $1 ORDER BY seq LIMIT $2";
        let rows = transaction.rows(sql, params![last, AT_ONCE]).await?;
        for row in &rows {
            let entry = read(row)?;
            last = entry.seq;
            walk.follow(&entry)?;
        }
        if rows.is_empty() {
            return Ok(walk);
        }
    }
}

fn read(row: &Row) -> Result<Entry, Failure> {
    Ok(Entry {
        seq: row.try_get(0)?,
        kind: row.try_get(1)?,
        project: row.try_get(2)?,
        environment: row.try_get(3)?,
        number: row.try_get(4)?,
        payload: row.try_get(5)?,
        at_ms: row.try_get(6)?,
        prev_hash: hash(row, 7)?,
        hash: hash(row, 8)?,
    })
}

/// What time it is for all that use the ledger.
pub(crate) async fn now_ms(transaction: &Transaction<'_>) -> Result<i64, Failure> {
    let row = transaction.row("SELECT now_ms()", params![]).await?;
    let row = row.ok_or_else(|| LedgerError::Damaged("there is no clock".to_owned()))?;
    Ok(row.try_get(0)?)
}
