//! What is known of an environment's secrets without their values: one file, replaced as a whole.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Name, StoreError, files};

/// Version of the stored form.
const VERSION: u32 = 1;
/// Tens of thousands of versions.
const LARGEST_FILE: u64 = 16 << 20;

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A person gave it.
    Given,
    /// It was generated here.
    Generated,
}

/// All secrets of an environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) secrets: BTreeMap<Name, Secrets>,
}

/// One secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Secrets {
    /// By number, from 1.
    pub(crate) versions: BTreeMap<u32, Known>,
    /// Since when it does not count any more, milliseconds since 1970.
    pub(crate) removed_ms: Option<i64>,
}

/// One version of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) set_ms: i64,
    pub(crate) origin: Origin,
    /// Of the encrypted file: tells one that was changed or moved here.
    pub(crate) digest: blake3::Hash,
}

impl Secrets {
    /// The newest version, where the secret counts.
    pub(crate) fn current(&self) -> Option<(u32, &Known)> {
        let newest = self.versions.last_key_value().map(|(number, known)| (*number, known));
        newest.filter(|_| self.removed_ms.is_none())
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    secrets: BTreeMap<String, StoredSecret>,
}

#[derive(Serialize, Deserialize)]
struct StoredSecret {
    versions: BTreeMap<u32, StoredVersion>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    removed_ms: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct StoredVersion {
    set_ms: i64,
    origin: Origin,
    /// BLAKE3 of the encrypted file, in hexadecimal digits.
    digest: String,
}

impl Index {
    /// Reads an environment's index; an empty one where there is none.
    pub(crate) fn load(path: &Path) -> Result<Self, StoreError> {
        match files::read(path, LARGEST_FILE)? {
            Some(content) => Self::parse(path, &content),
            None => Ok(Self::default()),
        }
    }

    fn parse(path: &Path, content: &[u8]) -> Result<Self, StoreError> {
        let damaged = |what: &str| StoreError::damaged(path, what);
        let form = "is damaged; put it back from a backup";
        // The error of the parser may quote the file.
        let stored: Stored = serde_json::from_slice(content).map_err(|_| damaged(form))?;
        if stored.version != VERSION {
            return Err(damaged("was written by a newer version of this program"));
        }
        let mut secrets = BTreeMap::new();
        for (name, secret) in stored.secrets {
            let name: Name = name.parse().map_err(|_| damaged(form))?;
            let mut versions = BTreeMap::new();
            for (number, version) in secret.versions {
                let digest = blake3::Hash::from_hex(&version.digest).map_err(|_| damaged(form))?;
                let StoredVersion { set_ms, origin, .. } = version;
                versions.insert(number, Known { set_ms, origin, digest });
            }
            secrets.insert(name, Secrets { versions, removed_ms: secret.removed_ms });
        }
        Ok(Self { secrets })
    }

    /// Replaces an environment's index. The lock must be held.
    pub(crate) fn save(&self, path: &Path) -> Result<(), StoreError> {
        let version = |known: &Known| StoredVersion {
            set_ms: known.set_ms,
            origin: known.origin,
            digest: known.digest.to_hex().to_string(),
        };
        let secrets = self.secrets.iter().map(|(name, secret)| {
            let versions = secret.versions.iter();
            let versions = versions.map(|(number, known)| (*number, version(known))).collect();
            (name.to_string(), StoredSecret { versions, removed_ms: secret.removed_ms })
        });
        let stored = Stored { version: VERSION, secrets: secrets.collect() };
        files::write(path, &serde_json::to_vec_pretty(&stored).expect("an index is JSON"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_is_read() {
        let digest = blake3::hash(b"").to_hex();
        let text = format!(
            r#"{{"version":1,"secrets":{{"A":{{"versions":{{"1":{{"set_ms":5,"origin":"generated",
            "digest":"{digest}"}}}},"removed_ms":7}}}}}}"#
        );
        let index = Index::parse(Path::new("index.json"), text.as_bytes()).unwrap();
        let secret = &index.secrets["A"];
        assert_eq!(secret.versions[&1].origin, Origin::Generated);
        assert_eq!((secret.versions[&1].set_ms, secret.removed_ms), (5, Some(7)));
        assert_eq!(secret.current(), None);
    }

    #[test]
    fn a_newer_version_is_refused() {
        let index = Index::parse(Path::new("index.json"), br#"{"version":2,"secrets":{}}"#);
        assert!(index.unwrap_err().to_string().contains("newer"));
    }
}
