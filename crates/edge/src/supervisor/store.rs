//! The table on disk. The worker writes and reads it through file descriptors, so it needs no
//! rights in the state directory.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The table in force.
const TABLE: &str = "table.json";
/// The one before: used when `table.json` cannot be.
const PREVIOUS: &str = "table.previous.json";
/// A table that could not be used, kept for a look.
const REFUSED: &str = "table.refused.json";
/// The one being written.
const NEW: &str = "table.new.json";
/// Lines of the access log, where the table asks for a file.
const ACCESS_LOG: &str = "access.log";

pub(super) struct Store {
    folder: PathBuf,
    new: Option<File>,
}

impl Store {
    pub(super) fn open(folder: &Path) -> io::Result<Store> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        Ok(Store { folder: folder.to_owned(), new: None })
    }

    /// The table in force, if there is one.
    pub(super) fn table(&self) -> Option<File> {
        File::open(self.folder.join(TABLE)).ok()
    }

    /// The one before, if there is one.
    pub(super) fn previous(&self) -> Option<File> {
        File::open(self.folder.join(PREVIOUS)).ok()
    }

    /// The access log, to append to.
    pub(super) fn access_log(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o640).open(self.folder.join(ACCESS_LOG))
    }

    /// An empty file to write a table into.
    pub(super) fn start(&mut self) -> io::Result<&File> {
        let path = self.folder.join(NEW);
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
        Ok(self.new.insert(file))
    }

    /// Puts what was written in the place of the table, on disk when this returns.
    pub(super) fn commit(&mut self, replaces_good: bool) -> io::Result<()> {
        let file = self.new.take().ok_or_else(|| io::Error::other("no table was written"))?;
        file.sync_all()?;
        let table = self.folder.join(TABLE);
        if table.exists() {
            if replaces_good {
                // By a second name first, so that `table.json` exists at every moment.
                let second = self.folder.join("table.previous.new.json");
                remove(&second)?;
                std::fs::hard_link(&table, &second)?;
                std::fs::rename(&second, self.folder.join(PREVIOUS))?;
            } else {
                std::fs::rename(&table, self.folder.join(REFUSED))?;
            }
        }
        std::fs::rename(self.folder.join(NEW), &table)?;
        File::open(&self.folder)?.sync_all()
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
