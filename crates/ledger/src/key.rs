//! The key, and what is sealed with it.
//!
//! Nothing is used as it stands in the file; each purpose has a key derived from it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use chacha20poly1305::aead::rand_core::RngCore;
use chacha20poly1305::aead::{Aead, KeyInit, OsRng, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use shiplap_model::{LedgerError, Scope, Secret};

use crate::chain::Fields;
use crate::failure::file;

const KEY_BYTES: usize = 32;
pub(crate) const NONCE_BYTES: usize = 24;

const FOR_BINDINGS: &str = "shiplap ledger 1: encryption of bindings";
const FOR_BINDING_SEALS: &str = "shiplap ledger 1: seals of encrypted bindings";
const FOR_HEADS: &str = "shiplap ledger 1: seals of the last entry";
const FOR_CHECKS: &str = "shiplap ledger 1: telling one key from another";

/// Where the key is, and who has it.
#[derive(Debug, Clone)]
pub(crate) struct KeyPlace {
    pub(crate) path: PathBuf,
    pub(crate) sharing: Sharing,
}

/// Who has a ledger's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// One state directory.
    Alone,
    /// Every machine that deploys with the ledger.
    Shared,
}

/// The key of a ledger.
pub(crate) struct Key {
    bytes: Secret<[u8; KEY_BYTES]>,
}

/// An encrypted binding.
pub(crate) struct SealedBinding {
    pub(crate) nonce: [u8; NONCE_BYTES],
    pub(crate) ciphertext: Vec<u8>,
}

impl KeyPlace {
    /// The key of a state directory.
    pub(crate) fn of(state_dir: &Path) -> Self {
        Self { path: state_dir.join("key"), sharing: Sharing::Alone }
    }

    /// Reads the key of a ledger that was written with it: one whose check is `check`.
    pub(crate) fn load(&self, check: &blake3::Hash) -> Result<Key, LedgerError> {
        let (path, help) = (self.path.display(), self.help());
        let key = self
            .read()?
            .ok_or_else(|| LedgerError::Storage(format!("its key `{path}` is missing; {help}")))?;
        if key.check() != *check {
            let text = format!("`{path}` is not the key it was written with; {help}");
            return Err(LedgerError::Storage(text));
        }
        Ok(key)
    }

    fn help(&self) -> &'static str {
        match self.sharing {
            Sharing::Alone => "put the right one back from a backup of the state directory",
            Sharing::Shared => {
                "copy the key from a machine that has deployed with this ledger, or name the file \
                 that holds it with SHIPLAP_LEDGER_KEY_FILE"
            }
        }
    }

    /// Reads the key of a ledger that holds nothing yet, or makes one.
    pub(crate) fn load_or_create(&self) -> Result<Key, LedgerError> {
        if let Some(key) = self.read()? {
            return Ok(key);
        }
        create(&self.path)?;
        self.read()?.ok_or_else(|| {
            let path = self.path.display();
            LedgerError::Storage(format!("`{path}` vanished while it was made"))
        })
    }

    fn read(&self) -> Result<Option<Key>, LedgerError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(file("read the key", &self.path, &error)),
        };
        let bytes = <[u8; KEY_BYTES]>::try_from(bytes).map_err(|bytes| {
            LedgerError::Storage(format!(
                "the key `{}` holds {} bytes instead of {KEY_BYTES}; {}",
                self.path.display(),
                bytes.len(),
                self.help()
            ))
        })?;
        Ok(Some(Key { bytes: Secret::new(bytes) }))
    }
}

impl Key {
    /// Tells one key from another without giving it away.
    pub(crate) fn check(&self) -> blake3::Hash {
        self.keyed(FOR_CHECKS, &Fields::new())
    }

    /// Seals the last entry, so that cutting entries off is noticed.
    pub(crate) fn seal_head(&self, seq: i64, hash: &blake3::Hash) -> blake3::Hash {
        self.keyed(FOR_HEADS, Fields::new().number(seq).bytes(hash.as_bytes()))
    }

    /// Seals an encrypted binding; this goes into the chain.
    pub(crate) fn seal_binding(&self, binding: &SealedBinding) -> blake3::Hash {
        let mut fields = Fields::new();
        self.keyed(FOR_BINDING_SEALS, fields.bytes(&binding.nonce).bytes(&binding.ciphertext))
    }

    /// Encrypts a binding for one deployment; it cannot be read as that of another.
    pub(crate) fn encrypt(
        &self,
        scope: &Scope,
        number: i64,
        binding: &Secret<Vec<u8>>,
    ) -> Result<SealedBinding, LedgerError> {
        let mut nonce = [0; NONCE_BYTES];
        fill_random(&mut nonce)?;
        let aad = place(scope, number);
        let payload = Payload { msg: binding.expose(), aad: aad.as_bytes() };
        let ciphertext = self
            .cipher()
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| LedgerError::Storage("the binding is too large to encrypt".into()))?;
        Ok(SealedBinding { nonce, ciphertext })
    }

    /// Decrypts the binding of a deployment; `None` if it was changed or is another's.
    pub(crate) fn decrypt(
        &self,
        scope: &Scope,
        number: i64,
        binding: &SealedBinding,
    ) -> Option<Secret<Vec<u8>>> {
        let aad = place(scope, number);
        let payload = Payload { msg: &binding.ciphertext, aad: aad.as_bytes() };
        self.cipher().decrypt(&XNonce::from(binding.nonce), payload).ok().map(Secret::new)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&blake3::derive_key(FOR_BINDINGS, self.bytes.expose()).into())
    }

    fn keyed(&self, purpose: &str, fields: &Fields) -> blake3::Hash {
        let key = blake3::derive_key(purpose, self.bytes.expose());
        blake3::keyed_hash(&key, fields.as_bytes())
    }
}

fn place(scope: &Scope, number: i64) -> Fields {
    let mut fields = Fields::new();
    fields.text(&scope.project).text(&scope.environment).number(number);
    fields
}

/// Makes a key, unless another process is faster. It appears whole or not at all: written under
/// a name of its own, then linked, which fails where the name is taken.
fn create(path: &Path) -> Result<(), LedgerError> {
    let mut bytes = [0; KEY_BYTES];
    let mut suffix = [0; 8];
    fill_random(&mut bytes)?;
    fill_random(&mut suffix)?;
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| file("create the folder of the key", folder, &error))?;
    let draft = folder.join(format!("key.{:016x}.draft", u64::from_le_bytes(suffix)));
    let linked = write_synced(&draft, &bytes).and_then(|()| fs::hard_link(&draft, path));
    let removed = fs::remove_file(&draft);
    match linked {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(file("make the key", path, &error)),
    }
    removed
        .and_then(|()| File::open(folder)?.sync_all())
        .map_err(|error| file("make the key", path, &error))
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut draft = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    draft.write_all(bytes)?;
    draft.sync_all()
}

pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<(), LedgerError> {
    OsRng
        .try_fill_bytes(bytes)
        .map_err(|error| LedgerError::Storage(format!("the system has no randomness: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn racing_processes_end_with_one_key() {
        let dir = tempfile::tempdir().unwrap();
        let checks: Vec<blake3::Hash> = std::thread::scope(|threads| {
            let makers: Vec<_> = (0..8)
                .map(|_| {
                    threads.spawn(|| KeyPlace::of(dir.path()).load_or_create().unwrap().check())
                })
                .collect();
            makers.into_iter().map(|maker| maker.join().unwrap()).collect()
        });
        assert!(checks.iter().all(|check| *check == checks[0]));
        let mode = fs::metadata(KeyPlace::of(dir.path()).path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no drafts are left");
    }

    #[test]
    fn a_binding_cannot_be_moved_to_another_deployment() {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPlace::of(dir.path()).load_or_create().unwrap();
        let scope = Scope { project: "shop".into(), environment: "prod".into() };
        // Same bytes when put one after the other, but another scope.
        let shifted = Scope { project: "shopp".into(), environment: "rod".into() };
        let binding = Secret::new(b"PASSWORD=hunter2".to_vec());
        let sealed = key.encrypt(&scope, 3, &binding).unwrap();
        assert_eq!(key.decrypt(&scope, 3, &sealed), Some(binding));
        assert_eq!(key.decrypt(&scope, 4, &sealed), None);
        assert_eq!(key.decrypt(&shifted, 3, &sealed), None);
    }
}
