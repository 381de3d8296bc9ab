//! What is kept on disk: what is wanted and how it stands, the last good certificates, accounts at
//! authorities, and our own authority. All of it is for its owner only.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::wanted::Wanted;

/// The version of [`Book`] that is written, and the highest that is read.
const VERSION: u32 = 1;
const BOOK: &str = "certificates.json";
const LOCK: &str = "lock";

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file cannot be read or written.
    #[error("{}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what we have written.
    #[error("{} cannot be read: {why}", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Why; without any content.
        why: String,
    },
    /// Somebody else renews at this moment.
    #[error("another `shiplap edge certificates` is at work")]
    Busy,
}

/// What is wanted, and how it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Book {
    version: u32,
    #[serde(default)]
    pub entries: Vec<Entry>,
}

/// One certificate that is wanted, and how it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    #[serde(flatten)]
    pub wanted: Wanted,
    #[serde(default)]
    pub standing: Standing,
}

/// What became of it so far. The certificate itself is a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Standing {
    /// In a row.
    pub failures: u32,
    /// Not before, in seconds since 1970.
    pub try_again_s: Option<u64>,
    pub last_error: Option<String>,
    /// The one that is there came from elsewhere.
    pub source_changed: bool,
}

/// The folder.
#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
    /// Nobody else changes it meanwhile.
    _lock: Option<File>,
}

impl Store {
    /// The folder, to look at.
    pub(crate) fn look(folder: &Path) -> Store {
        Store { folder: folder.to_owned(), _lock: None }
    }

    /// Opens the folder, or makes it. Nobody else can until this is dropped.
    pub(crate) fn open(folder: &Path) -> Result<Store, StoreError> {
        let fail = |source| StoreError::Io { path: folder.to_owned(), source };
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        for part in ["live", "accounts", "authority"] {
            builder.create(folder.join(part)).map_err(fail)?;
        }
        let mut options = OpenOptions::new();
        let lock = options.write(true).create(true).truncate(false).mode(0o600);
        let lock = lock.open(folder.join(LOCK)).map_err(fail)?;
        match lock.try_lock() {
            Ok(()) => Ok(Store { folder: folder.to_owned(), _lock: Some(lock) }),
            Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::Busy),
            Err(std::fs::TryLockError::Error(source)) => Err(fail(source)),
        }
    }

    /// What is wanted; nothing at first.
    pub(crate) fn book(&self) -> Result<Book, StoreError> {
        let path = self.folder.join(BOOK);
        let Some(text) = self.read(BOOK)? else { return Ok(Book::default()) };
        let malformed = |why: String| StoreError::Malformed { path: path.clone(), why };
        let book: Book =
            serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
        match book.version {
            ..=VERSION => Ok(book),
            later => Err(malformed(format!("it is of version {later}, this knows {VERSION}"))),
        }
    }

    pub(crate) fn write_book(&self, book: &Book) -> Result<(), StoreError> {
        let book = Book { version: VERSION, ..book.clone() };
        let text = serde_json::to_vec_pretty(&book).expect("a book has only text keys");
        self.write(BOOK, &text)
    }

    /// The last good certificate of what has this name.
    pub(crate) fn live(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(&live(name))
    }

    pub(crate) fn write_live(&self, name: &str, pem: &[u8]) -> Result<(), StoreError> {
        self.write(&live(name), pem)
    }

    pub(crate) fn remove_live(&self, name: &str) -> Result<(), StoreError> {
        let path = self.folder.join(live(name));
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::Io { path, source })
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// A file's content, if there is one.
    pub(crate) fn read(&self, file: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.folder.join(file);
        match std::fs::read(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Io { path, source }),
        }
    }

    /// Replaces a file as a whole: on disk when this returns, for its owner only.
    pub(crate) fn write(&self, file: &str, text: &[u8]) -> Result<(), StoreError> {
        let path = self.folder.join(file);
        let mut new = path.clone().into_os_string();
        new.push(".new");
        let written = (|| {
            let mut options = OpenOptions::new();
            let options = options.write(true).create(true).truncate(true).mode(0o600);
            let mut out = options.open(&new)?;
            out.write_all(text)?;
            out.sync_all()?;
            std::fs::rename(&new, &path)?;
            File::open(path.parent().expect("it is in the folder"))?.sync_all()
        })();
        written.map_err(|source| StoreError::Io { path, source })
    }
}

/// Names of hosts have no slash; a star is awkward in a shell.
fn live(name: &str) -> String {
    format!("live/{}.pem", name.replace('*', "_"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_kept_is_for_its_owner_only_and_one_works_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("certificates");
        let store = Store::open(&folder).unwrap();
        assert!(matches!(Store::open(&folder), Err(StoreError::Busy)));
        store.write_live("*.shop.example", b"pem").unwrap();
        assert_eq!(store.live("*.shop.example").unwrap().unwrap(), b"pem");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&folder.join("live/_.shop.example.pem")), 0o600);
        drop(store);
        Store::open(&folder).unwrap();
    }

    #[test]
    fn a_book_of_a_later_version_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(store.book().unwrap(), Book::default());
        store
            .write(
                BOOK,
                br#"{ "version": 1, "entries": [ { "names": [ "a" ],
            "source": { "kind": "internal" } } ] }"#,
            )
            .unwrap();
        assert_eq!(store.book().unwrap().entries[0].wanted.names, ["a"]);
        store.write(BOOK, br#"{ "version": 2 }"#).unwrap();
        assert!(matches!(store.book(), Err(StoreError::Malformed { .. })));
    }
}
