//! Who can read values: the store's own key, and further recipients.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use age::secrecy::ExposeSecret;
use age::x25519::{Identity, Recipient};
use age::{DecryptError, Decryptor, Encryptor};
use shiplap_model::Secret;

use crate::{StoreError, files};

/// Neither keys nor recipients need more.
const LARGEST_FILE: u64 = 64 << 10;
/// How a line with a key begins.
const KEY: &str = "AGE-SECRET-KEY-";

/// The file with the key, in the form of `age-keygen`.
pub(crate) fn key_path(folder: &Path) -> PathBuf {
    folder.join("key.txt")
}

/// The file with further recipients, one per line.
pub(crate) fn recipients_path(folder: &Path) -> PathBuf {
    folder.join("recipients.txt")
}

/// The store's keys. Values are encrypted for all of them, and decrypted by any.
pub(crate) struct Keys {
    identities: Vec<Identity>,
}

impl Keys {
    /// Reads the keys.
    pub(crate) fn load(folder: &Path) -> Result<Self, StoreError> {
        let path = key_path(folder);
        let Some(content) = files::read(&path, LARGEST_FILE)? else {
            return Err(StoreError::KeyMissing(path));
        };
        let metadata = path.metadata().map_err(StoreError::at("read", &path))?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(StoreError::KeyOpen { path, mode });
        }
        let identities = lines(&path, &content)?
            .map(|(number, line)| {
                let parsed = line.parse::<Identity>();
                parsed.map_err(|_| {
                    StoreError::damaged(&path, format!("holds no key of age in line {number}"))
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        if identities.is_empty() {
            return Err(StoreError::damaged(&path, "holds no key"));
        }
        Ok(Self { identities })
    }

    /// Makes the key. The lock must be held.
    pub(crate) fn create(folder: &Path, now: &str) -> Result<Self, StoreError> {
        let identity = Identity::generate();
        let text = Secret::new(format!(
            "# created: {now}\n# public key: {}\n{}\n",
            identity.to_public(),
            identity.to_string().expose_secret()
        ));
        files::write(&key_path(folder), text.expose().as_bytes())?;
        Ok(Self { identities: vec![identity] })
    }

    /// Encrypts for our own keys and for all further recipients.
    pub(crate) fn encrypt(
        &self,
        folder: &Path,
        value: &Secret<Vec<u8>>,
    ) -> Result<Vec<u8>, StoreError> {
        let own = self.identities.iter().map(Identity::to_public);
        let recipients: Vec<Recipient> = own.chain(further(folder)?).collect();
        let recipients = recipients.iter().map(|recipient| recipient as &dyn age::Recipient);
        let encryptor = Encryptor::with_recipients(recipients).expect("all are of one kind");
        let mut encrypted = Vec::with_capacity(value.expose().len() + 512);
        let written = encryptor.wrap_output(&mut encrypted).and_then(|mut writer| {
            writer.write_all(value.expose())?;
            writer.finish()
        });
        written.expect("memory takes it");
        Ok(encrypted)
    }

    /// Decrypts what is in a file.
    pub(crate) fn decrypt(
        &self,
        path: &Path,
        encrypted: &[u8],
        most: usize,
    ) -> Result<Secret<Vec<u8>>, StoreError> {
        let identities = || self.identities.iter().map(|identity| identity as &dyn age::Identity);
        let why = |error: DecryptError| {
            let what = match error {
                DecryptError::NoMatchingKeys => "is encrypted for another key",
                _ => "is damaged, or no file of age",
            };
            StoreError::damaged(path, what)
        };
        let decryptor = Decryptor::new_buffered(encrypted).map_err(why)?;
        let reader = decryptor.decrypt(identities()).map_err(why)?;
        let mut value = Vec::new();
        let read = reader.take(most as u64 + 1).read_to_end(&mut value);
        if read.is_err() || value.len() > most {
            return Err(StoreError::damaged(path, "is damaged, or no file of age"));
        }
        Ok(Secret::new(value))
    }
}

/// Recipients besides our own keys.
fn further(folder: &Path) -> Result<Vec<Recipient>, StoreError> {
    let path = recipients_path(folder);
    let Some(content) = files::read(&path, LARGEST_FILE)? else { return Ok(Vec::new()) };
    lines(&path, &content)?
        .map(|(number, line)| {
            let wrong = |what: &str| {
                StoreError::damaged(&path, format!("{what} in line {number}; it takes age1…"))
            };
            if line.starts_with(KEY) {
                return Err(wrong("holds a secret key instead of a public one"));
            }
            line.parse().map_err(|_| wrong("holds no public key of age"))
        })
        .collect()
}

/// Lines with something in them, and their numbers.
fn lines<'a>(
    path: &Path,
    content: &'a [u8],
) -> Result<impl Iterator<Item = (usize, &'a str)>, StoreError> {
    let text = std::str::from_utf8(content).map_err(|_| StoreError::damaged(path, "is no text"))?;
    Ok(text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#')))
}
