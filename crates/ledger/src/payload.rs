//! What an entry holds, as JSON.
//!
//! Each form has a version of its own and is read for ever. The text is the canonical one:
//! compact, with the keys of every object sorted.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shiplap_model::{
    Direction, JournalEntry, LedgerError, NewDeployment, Outcome, Resumption, Rules, StepState,
    StoredImage, StoredRelease, StoredRequest,
};

use crate::failure::damaged;

/// A form of payload.
pub(crate) trait Form: Serialize + DeserializeOwned {
    /// The version that is written; it and all before it are read.
    const VERSION: u32;
}

/// A deployment begins.
///
/// Version 2 added `request`, and journals that keep the order of their facts.
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
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) request: Option<StoredRequest>,
    /// Keyed hash of the encrypted binding, in hexadecimal.
    pub(crate) binding_seal: String,
}

impl Form for Begun {
    const VERSION: u32 = 2;
}

impl Begun {
    pub(crate) fn new(deployment: &NewDeployment, binding_seal: &blake3::Hash) -> Self {
        Self {
            version: Self::VERSION,
            generation: deployment.lease.generation,
            kind: deployment.kind.clone(),
            who: deployment.who.clone(),
            message: deployment.message.clone(),
            release: deployment.release.clone(),
            plan: deployment.plan.clone(),
            request: Some(deployment.request.clone()),
            binding_seal: binding_seal.to_hex().to_string(),
        }
    }

    /// Which facts may follow.
    pub(crate) fn rules(&self) -> Rules {
        rules(self.version)
    }
}

const fn rules(version: u32) -> Rules {
    if version == 1 { Rules::AsWritten } else { Rules::Checked }
}

/// What each later entry of a deployment asks of the first: without its plan, which is long.
#[derive(Debug, Deserialize)]
struct BegunHead {
    version: u32,
    generation: u64,
}

/// The generation under which a deployment began, and which facts may follow.
pub(crate) fn read_head(seq: i64, text: &str) -> Result<(u64, Rules), LedgerError> {
    let head: BegunHead = serde_json::from_str(text)
        .map_err(|error| damaged(format!("entry {seq} cannot be read: {error}")))?;
    check_version::<Begun>(seq, head.version)?;
    Ok((head.generation, rules(head.version)))
}

/// A line of the journal.
///
/// Version 2 added `made`.
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
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) made: Option<StoredImage>,
}

impl Form for Step {
    const VERSION: u32 = 2;
}

impl Step {
    pub(crate) fn new(entry: &JournalEntry, generation: u64) -> Self {
        Self {
            version: Self::VERSION,
            generation,
            step: entry.step,
            what: entry.what.clone(),
            state: entry.state,
            at_ms: entry.at_ms,
            detail: entry.detail.clone(),
            made: entry.made.clone(),
        }
    }

    pub(crate) fn into_entry(self) -> JournalEntry {
        JournalEntry {
            step: self.step,
            what: self.what,
            state: self.state,
            at_ms: self.at_ms,
            detail: self.detail,
            made: self.made,
        }
    }
}

/// A deployment is taken up again.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Resumed {
    version: u32,
    pub(crate) generation: u64,
    pub(crate) who: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) message: Option<String>,
    pub(crate) direction: Direction,
    pub(crate) found: Vec<String>,
    pub(crate) plan: serde_json::Value,
    pub(crate) at_ms: i64,
}

impl Form for Resumed {
    const VERSION: u32 = 1;
}

impl Resumed {
    pub(crate) fn new(resumption: &Resumption) -> Self {
        Self {
            version: Self::VERSION,
            generation: resumption.generation,
            who: resumption.who.clone(),
            message: resumption.message.clone(),
            direction: resumption.direction,
            found: resumption.found.clone(),
            plan: resumption.plan.clone(),
            at_ms: resumption.at_ms,
        }
    }

    pub(crate) fn into_resumption(self) -> Resumption {
        Resumption {
            who: self.who,
            message: self.message,
            generation: self.generation,
            direction: self.direction,
            found: self.found,
            plan: self.plan,
            at_ms: self.at_ms,
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

impl Form for Ended {
    const VERSION: u32 = 1;
}

impl Ended {
    pub(crate) fn new(
        generation: u64,
        outcome: Outcome,
        reason: Option<&str>,
        release: &StoredRelease,
    ) -> Self {
        Self {
            version: Self::VERSION,
            generation,
            outcome,
            reason: reason.map(str::to_owned),
            release: release.clone(),
        }
    }
}

/// The canonical text of a payload.
pub(crate) fn write<T: Form>(payload: &T) -> String {
    let mut value =
        serde_json::to_value(payload).expect("payloads have text for keys and nothing that fails");
    value.sort_all_objects();
    value.to_string()
}

/// Reads the payload of the entry `seq`.
pub(crate) fn read<T: Form>(seq: i64, text: &str) -> Result<T, LedgerError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let unreadable = |error| damaged(format!("entry {seq} cannot be read: {error}"));
    let Versioned { version } = serde_json::from_str(text).map_err(unreadable)?;
    check_version::<T>(seq, version)?;
    serde_json::from_str(text).map_err(unreadable)
}

fn check_version<T: Form>(seq: i64, version: u32) -> Result<(), LedgerError> {
    if version == 0 || version > T::VERSION {
        return Err(damaged(format!("entry {seq} has the unknown version {version}")));
    }
    Ok(())
}
