//! What an entry holds, as JSON.
//!
//! Each form has a version of its own and is read for ever. The text is the canonical one:
//! compact, with the keys of every object sorted.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shiplap_model::{JournalEntry, NewDeployment, Outcome, StepState, StoredRelease};

use crate::failure::{Failure, damaged};

const VERSION: u32 = 1;

/// A deployment begins.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Begun {
    version: u32,
    pub(crate) generation: u64,
    pub(crate) kind: String,
    pub(crate) who: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) message: Option<String>,
    pub(crate) release: StoredRelease,
    pub(crate) plan: serde_json::Value,
    /// Keyed hash of the encrypted binding, in hexadecimal.
    pub(crate) binding_seal: String,
}

impl Begun {
    pub(crate) fn new(deployment: &NewDeployment, binding_seal: &blake3::Hash) -> Self {
        Self {
            version: VERSION,
            generation: deployment.lease.generation,
            kind: deployment.kind.clone(),
            who: deployment.who.clone(),
            message: deployment.message.clone(),
            release: deployment.release.clone(),
            plan: deployment.plan.clone(),
            binding_seal: binding_seal.to_hex().to_string(),
        }
    }
}

/// A line of the journal.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Step {
    version: u32,
    pub(crate) generation: u64,
    pub(crate) step: u32,
    pub(crate) what: String,
    pub(crate) state: StepState,
    pub(crate) at_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) detail: Option<String>,
}

impl Step {
    pub(crate) fn new(entry: &JournalEntry, generation: u64) -> Self {
        Self {
            version: VERSION,
            generation,
            step: entry.step,
            what: entry.what.clone(),
            state: entry.state,
            at_ms: entry.at_ms,
            detail: entry.detail.clone(),
        }
    }

    pub(crate) fn into_entry(self) -> JournalEntry {
        JournalEntry {
            step: self.step,
            what: self.what,
            state: self.state,
            at_ms: self.at_ms,
            detail: self.detail,
        }
    }
}

/// A deployment has ended.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ended {
    version: u32,
    pub(crate) generation: u64,
    pub(crate) outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) reason: Option<String>,
    pub(crate) release: StoredRelease,
}

impl Ended {
    pub(crate) fn new(
        generation: u64,
        outcome: Outcome,
        reason: Option<&str>,
        release: &StoredRelease,
    ) -> Self {
        Self {
            version: VERSION,
            generation,
            outcome,
            reason: reason.map(str::to_owned),
            release: release.clone(),
        }
    }
}

/// The canonical text of a payload.
pub(crate) fn write<T: Serialize>(payload: &T) -> String {
    let mut value =
        serde_json::to_value(payload).expect("payloads have text for keys and nothing that fails");
    value.sort_all_objects();
    value.to_string()
}

/// Reads the payload of the entry `seq`.
pub(crate) fn read<T: DeserializeOwned>(seq: i64, text: &str) -> Result<T, Failure> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let unreadable = |error| damaged(format!("entry {seq} cannot be read: {error}"));
    let Versioned { version } = serde_json::from_str(text).map_err(unreadable)?;
    if version != VERSION {
        return Err(damaged(format!("entry {seq} has the unknown version {version}")));
    }
    serde_json::from_str(text).map_err(unreadable)
}
