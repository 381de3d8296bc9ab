//! The store.
//!
//! ```text
//! FOLDER/key.txt                                the key, as `age-keygen` writes one
//! FOLDER/recipients.txt                         further public keys, by hand; optional
//! FOLDER/lock                                   held while something is written
//! FOLDER/values/PROJECT/ENVIRONMENT/index.json  versions, times and origins; no value
//! FOLDER/values/PROJECT/ENVIRONMENT/NAME/3.age  one version: the value, encrypted by age
//! ```
//!
//! A version counts once the index names it, so a writer that dies leaves the state before. Files
//! of versions are never written again; the index is replaced as a whole. Readers need no lock.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use shiplap_model::{Scope, Secret};

use crate::files::{self, Lock};
use crate::index::{Index, Known, Secrets};
use crate::key::Keys;
use crate::{Name, Origin, StoreError};

/// A value is this long at most, in bytes: as much as is kept of a config or secret file.
pub const LARGEST_VALUE: usize = 1 << 20;
/// What encryption adds is far less.
const LARGEST_FILE: u64 = 2 * LARGEST_VALUE as u64;

/// The secrets of all environments below one folder.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
}

/// A value, and which version it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// From 1.
    pub version: u32,
    /// The value.
    pub value: Secret<Vec<u8>>,
}

/// A secret as it can be told to anybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: Name,
    /// Its versions, the oldest first; at least one.
    pub versions: Vec<Version>,
    /// Since when it does not count any more, milliseconds since 1970.
    pub removed_ms: Option<i64>,
}

impl Entry {
    /// The newest version.
    ///
    /// # Panics
    /// Never: there is at least one.
    #[must_use]
    pub fn newest(&self) -> &Version {
        self.versions.last().expect("there is at least one")
    }
}

/// A version without its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// From 1; numbers grow, and may have gaps.
    pub number: u32,
    /// When it was set, milliseconds since 1970.
    pub set_ms: i64,
    /// Where it came from.
    pub origin: Origin,
}

/// What setting a value came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is this new version.
    New(u32),
    /// It is what this version, the current one, holds already.
    Same(u32),
}

impl Store {
    /// The store below a folder, which is made when something is first written.
    #[must_use]
    pub fn open(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// All secrets of an environment by name, the removed ones too.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn list(&self, scope: &Scope) -> Result<Vec<Entry>, StoreError> {
        let index = self.index(scope)?;
        let version = |(number, known): (&u32, &Known)| Version {
            number: *number,
            set_ms: known.set_ms,
            origin: known.origin,
        };
        let entries = index.secrets.iter().filter(|(_, secret)| !secret.versions.is_empty());
        Ok(entries
            .map(|(name, secret)| Entry {
                name: name.clone(),
                versions: secret.versions.iter().map(version).collect(),
                removed_ms: secret.removed_ms,
            })
            .collect())
    }

    /// The current version of each secret that counts. Decrypts nothing.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn versions(&self, scope: &Scope) -> Result<BTreeMap<Name, u32>, StoreError> {
        let index = self.index(scope)?;
        let current = index.secrets.iter().filter_map(|(name, secret)| {
            let (number, _) = secret.current()?;
            Some((name.clone(), number))
        });
        Ok(current.collect())
    }

    /// The current value of each secret that counts.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub fn current(&self, scope: &Scope) -> Result<BTreeMap<Name, Stored>, StoreError> {
        self.at(scope, &self.versions(scope)?)
    }

    /// The values of given versions, those of removed secrets too.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub fn at(
        &self,
        scope: &Scope,
        versions: &BTreeMap<Name, u32>,
    ) -> Result<BTreeMap<Name, Stored>, StoreError> {
        if versions.is_empty() {
            return Ok(BTreeMap::new());
        }
        let (index, keys) = (self.index(scope)?, Keys::load(&self.folder)?);
        let read = versions.iter().map(|(name, number)| {
            let value = self.value(scope, name, *number, &index, &keys)?;
            Ok((name.clone(), Stored { version: *number, value }))
        });
        read.collect()
    }

    /// The current value of a secret, or one of its versions; of a removed one only the latter.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn get(
        &self,
        scope: &Scope,
        name: &Name,
        version: Option<u32>,
    ) -> Result<Stored, StoreError> {
        let index = self.index(scope)?;
        let missing = || StoreError::NoSuchSecret(scope.clone(), name.clone());
        let secret = index.secrets.get(name).ok_or_else(missing)?;
        let number = match version {
            Some(version) => version,
            None => secret.current().ok_or_else(missing)?.0,
        };
        let value = self.value(scope, name, number, &index, &Keys::load(&self.folder)?)?;
        Ok(Stored { version: number, value })
    }

    /// Sets a value. One that is the current one makes no new version.
    ///
    /// # Errors
    /// See [`StoreError`]. The secret is then what it was before.
    pub fn set(
        &self,
        scope: &Scope,
        name: &Name,
        value: &Secret<Vec<u8>>,
        origin: Origin,
    ) -> Result<Written, StoreError> {
        let mut writer = self.writer(scope)?;
        if let Some(current) = writer.current(name)?
            && current.value == *value
        {
            return Ok(Written::Same(current.version));
        }
        writer.add(name, value, origin).map(Written::New)
    }

    /// The current value of a secret, which is made now if there is none. Of several who ask at
    /// the same time one makes it, and all get that one.
    ///
    /// # Errors
    /// See [`StoreError`], and those of `make`.
    pub fn ensure(
        &self,
        scope: &Scope,
        name: &Name,
        make: impl FnOnce() -> Result<Secret<Vec<u8>>, StoreError>,
    ) -> Result<Stored, StoreError> {
        let mut writer = self.writer(scope)?;
        if let Some(current) = writer.current(name)? {
            return Ok(current);
        }
        let value = make()?;
        let version = writer.add(name, &value, Origin::Generated)?;
        Ok(Stored { version, value })
    }

    /// Takes a secret out of use. Its versions stay, for rollbacks; a value that is set later is
    /// its next version.
    ///
    /// # Errors
    /// When there is none, or the index cannot be written.
    pub fn remove(&self, scope: &Scope, name: &Name) -> Result<(), StoreError> {
        // Looked at before, so that a mistyped name makes no folder.
        if !self.versions(scope)?.contains_key(name) {
            return Err(StoreError::NoSuchSecret(scope.clone(), name.clone()));
        }
        self.writer(scope)?.remove(name)
    }

    fn writer(&self, scope: &Scope) -> Result<Writer<'_>, StoreError> {
        let place = self.place(scope)?;
        files::make_folder(&self.folder)?;
        let lock = Lock::take(&self.folder)?;
        let keys = match Keys::load(&self.folder) {
            // A new key beside old values would make them look foreign for good.
            Err(StoreError::KeyMissing(path)) if self.folder.join("values").exists() => {
                return Err(StoreError::KeyMissing(path));
            }
            Err(StoreError::KeyMissing(_)) => {
                Keys::create(&self.folder, &Timestamp::now().to_string())?
            }
            loaded => loaded?,
        };
        files::make_folder(&place)?;
        let index = self.index(scope)?;
        Ok(Writer { store: self, scope: scope.clone(), place, index, keys, _lock: lock })
    }

    fn index(&self, scope: &Scope) -> Result<Index, StoreError> {
        Index::load(&self.place(scope)?.join("index.json"))
    }

    fn value(
        &self,
        scope: &Scope,
        name: &Name,
        number: u32,
        index: &Index,
        keys: &Keys,
    ) -> Result<Secret<Vec<u8>>, StoreError> {
        let missing = || StoreError::NoSuchVersion {
            scope: scope.clone(),
            name: name.clone(),
            version: number,
        };
        let secret = index.secrets.get(name).ok_or_else(missing)?;
        let known = secret.versions.get(&number).ok_or_else(missing)?;
        let path = version_path(&self.place(scope)?, name, number);
        let Some(encrypted) = files::read(&path, LARGEST_FILE)? else {
            return Err(StoreError::damaged(&path, "is missing; put it back from a backup"));
        };
        let value = keys.decrypt(&path, &encrypted, LARGEST_VALUE)?;
        // After decrypting: what age says is wrong with a file is the better reason.
        if blake3::hash(&encrypted) != known.digest {
            let what = "is not the file that was written there; put that one back from a backup";
            return Err(StoreError::damaged(&path, what));
        }
        Ok(value)
    }

    fn place(&self, scope: &Scope) -> Result<PathBuf, StoreError> {
        let values = self.folder.join("values");
        Ok(values.join(folder_name(&scope.project)?).join(folder_name(&scope.environment)?))
    }
}

fn version_path(place: &Path, name: &Name, number: u32) -> PathBuf {
    place.join(name.as_str()).join(format!("{number}.age"))
}

/// A name that stays inside of the folder above it.
fn folder_name(name: &str) -> Result<&str, StoreError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let good = !name.is_empty() && !name.starts_with('.') && name.chars().all(fits);
    if good { Ok(name) } else { Err(StoreError::BadScope(name.to_owned())) }
}

/// One who may write, with what is there.
struct Writer<'a> {
    store: &'a Store,
    scope: Scope,
    place: PathBuf,
    index: Index,
    keys: Keys,
    _lock: Lock,
}

impl Writer<'_> {
    fn current(&self, name: &Name) -> Result<Option<Stored>, StoreError> {
        let secret = self.index.secrets.get(name);
        let Some((version, _)) = secret.and_then(Secrets::current) else {
            return Ok(None);
        };
        let value = self.store.value(&self.scope, name, version, &self.index, &self.keys)?;
        Ok(Some(Stored { version, value }))
    }

    fn add(
        &mut self,
        name: &Name,
        value: &Secret<Vec<u8>>,
        origin: Origin,
    ) -> Result<u32, StoreError> {
        let bytes = value.expose().len();
        if bytes > LARGEST_VALUE {
            return Err(StoreError::TooLarge { name: name.clone(), bytes, most: LARGEST_VALUE });
        }
        let encrypted = self.keys.encrypt(&self.store.folder, value)?;
        let number = self.next(name)?;
        let path = version_path(&self.place, name, number);
        files::make_folder(path.parent().expect("it is in a folder"))?;
        files::write(&path, &encrypted)?;
        let set_ms = Timestamp::now().as_millisecond();
        let secret = self.index.secrets.entry(name.clone()).or_default();
        let digest = blake3::hash(&encrypted);
        secret.versions.insert(number, Known { set_ms, origin, digest });
        secret.removed_ms = None;
        self.index.save(&self.place.join("index.json"))?;
        Ok(number)
    }

    /// The next number. A file that the index does not know is what a writer left that died, or
    /// newer than an index from a backup: either way it is not overwritten.
    fn next(&self, name: &Name) -> Result<u32, StoreError> {
        let secret = self.index.secrets.get(name);
        let known = secret.and_then(|secret| secret.versions.last_key_value());
        let known = known.map_or(0, |(number, _)| *number);
        let folder = self.place.join(name.as_str());
        let listed = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(known + 1),
            listed => listed.map_err(StoreError::at("read", &folder))?,
        };
        let numbers = listed.flatten().filter_map(|entry| {
            let name = entry.file_name();
            name.to_str()?.strip_suffix(".age")?.parse::<u32>().ok()
        });
        Ok(numbers.fold(known, u32::max) + 1)
    }

    fn remove(&mut self, name: &Name) -> Result<(), StoreError> {
        let secret = self.index.secrets.get_mut(name);
        let Some(secret) = secret.filter(|secret| secret.current().is_some()) else {
            return Err(StoreError::NoSuchSecret(self.scope.clone(), name.clone()));
        };
        secret.removed_ms = Some(Timestamp::now().as_millisecond());
        self.index.save(&self.place.join("index.json"))
    }
}
