//! The entries and their hash chain.

use rusqlite::types::{FromSql, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use shiplap_model::{JournalFact, JournalState, Scope};
use std::collections::BTreeMap;
use std::path::Path;

use crate::failure::{Failure, damaged};
use crate::key::{Key, SealedBinding};
use crate::payload::{self, Begun, Ended, Resumed, Step};

/// Bytes to be hashed: fields, each behind its length, so that no two lists give the same.
///
/// `ab`, `c` is `2 a b 1 c` and `a`, `bc` is `1 a 2 b c`, each length in eight bytes.
pub(crate) struct Fields(Vec<u8>);

impl Fields {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    pub(crate) fn number(&mut self, number: i64) -> &mut Self {
        self.bytes(&number.to_le_bytes())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What an entry tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Begun,
    Step,
    Resumed,
    Ended,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Step => "step",
            Self::Resumed => "resumed",
            Self::Ended => "ended",
        }
    }
}

/// An entry, all but its place in the chain.
pub(crate) struct Fact<'a> {
    pub(crate) kind: Kind,
    pub(crate) scope: &'a Scope,
    pub(crate) number: i64,
    pub(crate) payload: String,
    pub(crate) at_ms: i64,
}

/// A row of `entries`.
struct Entry {
    seq: i64,
    kind: String,
    project: String,
    environment: String,
    number: i64,
    payload: String,
    at_ms: i64,
    prev_hash: StoredHash,
    hash: StoredHash,
}

impl Entry {
    fn computed_hash(&self) -> blake3::Hash {
        let mut fields = Fields::new();
        fields
            .bytes(self.prev_hash.0.as_bytes())
            .number(self.seq)
            .text(&self.kind)
            .text(&self.project)
            .text(&self.environment)
            .number(self.number)
            .text(&self.payload)
            .number(self.at_ms);
        blake3::hash(fields.as_bytes())
    }
}

/// Where the chain stands.
struct Head {
    seq: i64,
    hash: blake3::Hash,
}

impl Head {
    /// Before the first entry: number 0, and a hash of zeros.
    const START: Self = Self { seq: 0, hash: blake3::Hash::from_bytes([0; 32]) };

    fn of_last_entry(connection: &Connection) -> Result<Self, Failure> {
        let last = connection
            .prepare_cached("SELECT seq, hash FROM entries ORDER BY seq DESC LIMIT 1")?
            .query_row([], |row| {
                Ok(Self { seq: row.get(0)?, hash: row.get::<_, StoredHash>(1)?.0 })
            })
            .optional()?;
        Ok(last.unwrap_or(Self::START))
    }
}

/// The row of `chain`.
struct Anchor {
    key_check: blake3::Hash,
    head_seq: i64,
    head_seal: blake3::Hash,
}

impl Anchor {
    fn read(connection: &Connection) -> Result<Option<Self>, Failure> {
        let anchor = connection
            .prepare_cached("SELECT key_check, head_seq, head_seal FROM chain")?
            .query_row([], |row| {
                Ok(Self {
                    key_check: row.get::<_, StoredHash>(0)?.0,
                    head_seq: row.get(1)?,
                    head_seal: row.get::<_, StoredHash>(2)?.0,
                })
            })
            .optional()?;
        Ok(anchor)
    }
}

/// The key of a ledger that holds something.
pub(crate) fn key_for_reading(connection: &Connection, dir: &Path) -> Result<Key, Failure> {
    let anchor = Anchor::read(connection)?.ok_or_else(|| damaged("its anchor is missing"))?;
    Ok(Key::load(dir, &anchor.key_check)?)
}

/// The key for the next entry. Made only where there is no entry yet, and only where the chain
/// ends as it should: writing on would hide that its end was cut off.
pub(crate) fn key_for_writing(transaction: &Transaction, dir: &Path) -> Result<Key, Failure> {
    let head = Head::of_last_entry(transaction)?;
    match Anchor::read(transaction)? {
        None if head.seq == 0 => Ok(Key::load_or_create(dir)?),
        None => Err(damaged("its anchor is missing")),
        Some(anchor) => {
            let key = Key::load(dir, &anchor.key_check)?;
            check_head(&key, &anchor, &head)?;
            Ok(key)
        }
    }
}

fn check_head(key: &Key, anchor: &Anchor, head: &Head) -> Result<(), Failure> {
    if anchor.head_seq != head.seq {
        return Err(damaged(format!(
            "entry {} is the last, but {} were written",
            head.seq, anchor.head_seq
        )));
    }
    if anchor.head_seal != key.seal_head(head.seq, &head.hash) {
        return Err(damaged(format!("entry {} is not the one that was written last", head.seq)));
    }
    Ok(())
}

/// Adds an entry and returns its number in the chain. `key` is from [`key_for_writing`], of the
/// same transaction.
pub(crate) fn append(transaction: &Transaction, key: &Key, fact: Fact) -> Result<i64, Failure> {
    let head = Head::of_last_entry(transaction)?;
    let mut entry = Entry {
        seq: head.seq + 1,
        kind: fact.kind.as_str().to_owned(),
        project: fact.scope.project.clone(),
        environment: fact.scope.environment.clone(),
        number: fact.number,
        payload: fact.payload,
        at_ms: fact.at_ms,
        prev_hash: StoredHash(head.hash),
        hash: StoredHash(head.hash),
    };
    entry.hash = StoredHash(entry.computed_hash());
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
            entry.prev_hash,
            entry.hash,
        ])?;
    transaction
        .prepare_cached(
            "INSERT INTO chain (id, key_check, head_seq, head_seal) VALUES (1, ?1, ?2, ?3) \
             ON CONFLICT (id) DO UPDATE SET head_seq = ?2, head_seal = ?3",
        )?
        .execute(params![
            StoredHash(key.check()),
            entry.seq,
            StoredHash(key.seal_head(entry.seq, &entry.hash.0)),
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
pub(crate) fn verify(connection: &Connection, dir: &Path) -> Result<u64, Failure> {
    let chain = walk(connection)?;
    if chain.head.seq == 0 {
        return Ok(0);
    }
    let anchor = Anchor::read(connection)?.ok_or_else(|| damaged("its anchor is missing"))?;
    let key = Key::load(dir, &anchor.key_check)?;
    check_head(&key, &anchor, &chain.head)?;
    check_bindings(connection, &key, &chain.binding_seals)?;
    let sound: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if sound != "ok" {
        return Err(damaged(sound));
    }
    Ok(chain.head.seq.unsigned_abs())
}

struct Walked {
    head: Head,
    /// The entries that began a deployment, with the seal of its binding.
    binding_seals: Vec<(i64, String)>,
    /// How far each deployment has come: by project, environment and number.
    deployments: BTreeMap<(String, String, i64), JournalState>,
}

fn walk(connection: &Connection) -> Result<Walked, Failure> {
    let mut walked =
        Walked { head: Head::START, binding_seals: Vec::new(), deployments: BTreeMap::new() };
    let mut statement = connection.prepare(
        "SELECT seq, kind, project, environment, number, payload, at_ms, prev_hash, hash \
         FROM entries ORDER BY seq",
    )?;
    let mut rows = statement.query([])?;
    loop {
        let next = walked.head.seq + 1;
        let Some(row) = rows.next()? else { return Ok(walked) };
        let read = || -> rusqlite::Result<Entry> {
            Ok(Entry {
                seq: row.get(0)?,
                kind: row.get(1)?,
                project: row.get(2)?,
                environment: row.get(3)?,
                number: row.get(4)?,
                payload: row.get(5)?,
                at_ms: row.get(6)?,
                prev_hash: row.get(7)?,
                hash: row.get(8)?,
            })
        };
        let entry =
            read().map_err(|error| damaged(format!("entry {next} cannot be read: {error}")))?;
        if entry.seq != next {
            return Err(damaged(format!("entry {next} is missing")));
        }
        if entry.prev_hash.0 != walked.head.hash {
            return Err(damaged(format!("entry {next} does not follow the one before it")));
        }
        if entry.computed_hash() != entry.hash.0 {
            return Err(damaged(format!("entry {next} was changed after it was written")));
        }
        walked.follow(&entry)?;
        walked.head = Head { seq: entry.seq, hash: entry.hash.0 };
    }
}

impl Walked {
    /// Checks that an entry can be read, and that it may follow what its deployment has so far.
    fn follow(&mut self, entry: &Entry) -> Result<(), Failure> {
        let deployment = (entry.project.clone(), entry.environment.clone(), entry.number);
        if entry.kind == Kind::Begun.as_str() {
            let begun: Begun = payload::read(entry.seq, &entry.payload)?;
            let state = JournalState::begun(begun.generation, begun.rules());
            self.binding_seals.push((entry.seq, begun.binding_seal));
            self.deployments.insert(deployment, state);
            return Ok(());
        }
        let fact = fact_of(entry.seq, &entry.kind, &entry.payload)?;
        let Some(state) = self.deployments.get_mut(&deployment) else {
            let number = entry.number;
            return Err(damaged(format!(
                "entry {} continues deployment {number}, which never began",
                entry.seq
            )));
        };
        state.admit(&fact).map_err(|illegal| {
            damaged(format!("entry {} cannot stand there: {illegal}", entry.seq))
        })
    }
}

/// What an entry tells of a deployment that has begun.
pub(crate) fn fact_of(seq: i64, kind: &str, text: &str) -> Result<JournalFact, Failure> {
    match kind {
        "step" => Ok(JournalFact::Step(payload::read::<Step>(seq, text)?.into_entry())),
        "resumed" => {
            Ok(JournalFact::Resumed(payload::read::<Resumed>(seq, text)?.into_resumption()))
        }
        "ended" => Ok(JournalFact::Ended(payload::read::<Ended>(seq, text)?.outcome)),
        kind => Err(damaged(format!("entry {seq} is of the unknown kind `{kind}`"))),
    }
}

fn check_bindings(
    connection: &Connection,
    key: &Key,
    seals: &[(i64, String)],
) -> Result<(), Failure> {
    for (seq, seal) in seals {
        let Some(binding) = kept_binding(connection, *seq)? else {
            return Err(damaged(format!("entry {seq} has lost its binding")));
        };
        if key.seal_binding(&binding).to_hex().as_str() != seal {
            return Err(damaged(format!("the binding of entry {seq} was changed")));
        }
    }
    Ok(())
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
