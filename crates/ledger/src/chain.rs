//! The entries and their hash chain, whatever the database that holds them.

use std::collections::BTreeMap;

use shiplap_model::{JournalFact, JournalState, LedgerError, Scope};

use crate::failure::damaged;
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
    pub(crate) fn as_str(self) -> &'static str {
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
pub(crate) struct Entry {
    pub(crate) seq: i64,
    pub(crate) kind: String,
    pub(crate) project: String,
    pub(crate) environment: String,
    pub(crate) number: i64,
    pub(crate) payload: String,
    pub(crate) at_ms: i64,
    pub(crate) prev_hash: blake3::Hash,
    pub(crate) hash: blake3::Hash,
}

impl Entry {
    /// The one that follows `head`.
    pub(crate) fn after(head: &Head, fact: Fact) -> Self {
        let mut entry = Self {
            seq: head.seq + 1,
            kind: fact.kind.as_str().to_owned(),
            project: fact.scope.project.clone(),
            environment: fact.scope.environment.clone(),
            number: fact.number,
            payload: fact.payload,
            at_ms: fact.at_ms,
            prev_hash: head.hash,
            hash: head.hash,
        };
        entry.hash = entry.computed_hash();
        entry
    }

    fn computed_hash(&self) -> blake3::Hash {
        let mut fields = Fields::new();
        fields
            .bytes(self.prev_hash.as_bytes())
            .number(self.seq)
            .text(&self.kind)
            .text(&self.project)
            .text(&self.environment)
            .number(self.number)
            .text(&self.payload)
            .number(self.at_ms);
        blake3::hash(fields.as_bytes())
    }

    /// Where the chain stands after it.
    pub(crate) fn head(&self) -> Head {
        Head { seq: self.seq, hash: self.hash }
    }
}

/// Where the chain stands.
pub(crate) struct Head {
    pub(crate) seq: i64,
    pub(crate) hash: blake3::Hash,
}

impl Head {
    /// Before the first entry: number 0, and a hash of zeros.
    pub(crate) const START: Self = Self { seq: 0, hash: blake3::Hash::from_bytes([0; 32]) };
}

/// The row of `chain`: which key it is, and the last entry sealed with it.
pub(crate) struct Anchor {
    pub(crate) key_check: blake3::Hash,
    pub(crate) head_seq: i64,
    pub(crate) head_seal: blake3::Hash,
}

impl Anchor {
    pub(crate) fn missing() -> LedgerError {
        damaged("its anchor is missing")
    }

    /// Whether the chain ends where it was written to.
    pub(crate) fn check(&self, key: &Key, head: &Head) -> Result<(), LedgerError> {
        if self.head_seq != head.seq {
            return Err(damaged(format!(
                "entry {} is the last, but {} were written",
                head.seq, self.head_seq
            )));
        }
        if self.head_seal != key.seal_head(head.seq, &head.hash) {
            let text = format!("entry {} is not the one that was written last", head.seq);
            return Err(damaged(text));
        }
        Ok(())
    }
}

/// A walk along the chain, from its beginning.
pub(crate) struct Walk {
    pub(crate) head: Head,
    /// The entries that began a deployment, with the seal of its binding.
    binding_seals: Vec<(i64, String)>,
    /// How far each deployment has come: by project, environment and number.
    deployments: BTreeMap<(String, String, i64), JournalState>,
}

impl Walk {
    pub(crate) fn begin() -> Self {
        Self { head: Head::START, binding_seals: Vec::new(), deployments: BTreeMap::new() }
    }

    /// Checks the next entry: its place, its hash, that it can be read, and that it may follow
    /// what its deployment has so far.
    pub(crate) fn follow(&mut self, entry: &Entry) -> Result<(), LedgerError> {
        let next = self.head.seq + 1;
        if entry.seq != next {
            return Err(damaged(format!("entry {next} is missing")));
        }
        if entry.prev_hash != self.head.hash {
            return Err(damaged(format!("entry {next} does not follow the one before it")));
        }
        if entry.computed_hash() != entry.hash {
            return Err(damaged(format!("entry {next} was changed after it was written")));
        }
        self.admit(entry)?;
        self.head = entry.head();
        Ok(())
    }

    fn admit(&mut self, entry: &Entry) -> Result<(), LedgerError> {
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

impl Walk {
    /// The entries that began a deployment: each has a binding.
    pub(crate) fn begun(&self) -> impl Iterator<Item = i64> {
        self.binding_seals.iter().map(|(seq, _)| *seq)
    }

    /// Checks the bindings of [`Walk::begun`], in the same order.
    pub(crate) fn check_binding(
        &self,
        key: &Key,
        seq: i64,
        binding: Option<&SealedBinding>,
    ) -> Result<(), LedgerError> {
        let binding =
            binding.ok_or_else(|| damaged(format!("entry {seq} has lost its binding")))?;
        let found = self.binding_seals.binary_search_by_key(&seq, |(seq, _)| *seq);
        let seal = found.ok().map(|at| self.binding_seals[at].1.as_str());
        if seal != Some(key.seal_binding(binding).to_hex().as_str()) {
            return Err(damaged(format!("the binding of entry {seq} was changed")));
        }
        Ok(())
    }
}

/// What an entry tells of a deployment that has begun.
pub(crate) fn fact_of(seq: i64, kind: &str, text: &str) -> Result<JournalFact, LedgerError> {
    match kind {
        "step" => Ok(JournalFact::Step(payload::read::<Step>(seq, text)?.into_entry())),
        "resumed" => {
            Ok(JournalFact::Resumed(payload::read::<Resumed>(seq, text)?.into_resumption()))
        }
        "ended" => Ok(JournalFact::Ended(payload::read::<Ended>(seq, text)?.outcome)),
        kind => Err(damaged(format!("entry {seq} is of the unknown kind `{kind}`"))),
    }
}
