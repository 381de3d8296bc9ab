//! Files that are whole or not there, and the one lock.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::StoreError;

/// A write takes milliseconds; whoever holds the lock for longer is stopped or on a dead disk.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Between two attempts to get the lock.
const PAUSE: Duration = Duration::from_millis(20);
/// Every file is written under this name first. Writers hold the lock, so one name will do, and
/// what a writer that died left is replaced by the next one.
const DRAFT: &str = "draft";

/// Makes a folder and those above it, for its owner alone.
pub(crate) fn make_folder(path: &Path) -> Result<(), StoreError> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    make_folder(parent)?;
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(StoreError::at("make the folder", path)(error));
        }
        Ok(()) | Err(_) => {}
    }
    // Its name must be on disk before what stands below it is relied on.
    sync_folder(parent)
}

/// Puts a file in place: whole and on disk when this returns, or not there. The folder must be
/// there, and the lock held.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let folder = path.parent().expect("a file is in a folder");
    let draft = folder.join(DRAFT);
    let written = remove(&draft)
        .and_then(|()| write_synced(&draft, content))
        .and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        // The draft may be what fills the disk.
        let _ = remove(&draft);
    }
    written.map_err(StoreError::at("write", path))?;
    sync_folder(folder)
}

fn write_synced(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn sync_folder(path: &Path) -> Result<(), StoreError> {
    let synced = File::open(path).and_then(|folder| folder.sync_all());
    synced.map_err(StoreError::at("write", path))
}

/// Reads a file of at most `most` bytes; nothing where there is none.
pub(crate) fn read(path: &Path, most: u64) -> Result<Option<Vec<u8>>, StoreError> {
    let mut content = Vec::new();
    // Below a file there is nothing: whoever writes there says better what is wrong.
    let is_absent = |kind| matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    let file = match File::open(path) {
        Err(error) if is_absent(error.kind()) => return Ok(None),
        opened => opened.map_err(StoreError::at("read", path))?,
    };
    file.take(most + 1).read_to_end(&mut content).map_err(StoreError::at("read", path))?;
    if content.len() as u64 > most {
        return Err(StoreError::damaged(path, "is larger than anything that is written there"));
    }
    Ok(Some(content))
}

/// The right to write; given back when dropped, or when the process ends.
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lock of a folder, but not for ever.
    pub(crate) fn take(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join("lock");
        let file = open_lock(&path).map_err(StoreError::at("open", &path))?;
        let until = Instant::now() + LONGEST_WAIT;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) if Instant::now() < until => {
                    std::thread::sleep(PAUSE);
                }
                Err(TryLockError::WouldBlock) => return Err(StoreError::Busy(path)),
                Err(TryLockError::Error(error)) => {
                    return Err(StoreError::at("lock", &path)(error));
                }
            }
        }
    }
}

fn open_lock(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}
