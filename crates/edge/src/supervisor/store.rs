//! The table on disk. The worker writes and reads it through file descriptors, so it needs no
//! rights in the state directory.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::certificate::is_id;

/// The table in force.
const TABLE: &str = "table.json";
/// The one before: used when `table.json` cannot be.
const PREVIOUS: &str = "table.previous.json";
/// A table that could not be used, kept for a look.
const REFUSED: &str = "table.refused.json";
/// The one being written.
const NEW: &str = "table.new.json";
/// Certificates with their keys, each under its id.
const CERTIFICATES: &str = "certificates";
/// The one being written.
const NEW_CERTIFICATE: &str = "new";
/// A certificate that no table names is kept for so long: one is given before its table is.
const UNUSED: Duration = Duration::from_secs(3600);
/// Lines of the access log, where the table asks for a file.
const ACCESS_LOG: &str = "access.log";

pub(super) struct Store {
    folder: PathBuf,
    new: Option<File>,
    new_certificate: Option<File>,
}

impl Store {
    pub(super) fn open(folder: &Path) -> io::Result<Store> {
        let certificates = folder.join(CERTIFICATES);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&certificates)?;
        Ok(Store { folder: folder.to_owned(), new: None, new_certificate: None })
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

    /// The file of a certificate.
    pub(super) fn certificate(&self, id: &str) -> io::Result<File> {
        File::open(self.certificate_path(id)?)
    }

    /// An empty file to write a certificate into.
    pub(super) fn start_certificate(&mut self) -> io::Result<&File> {
        let path = self.folder.join(CERTIFICATES).join(NEW_CERTIFICATE);
        // One that is there may be open for reading: it is another file from now on.
        remove(&path)?;
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(path)?;
        Ok(self.new_certificate.insert(file))
    }

    /// Puts what was written in its place, on disk when this returns.
    pub(super) fn commit_certificate(&mut self, id: &str) -> io::Result<()> {
        let path = self.certificate_path(id)?;
        let file = self.new_certificate.take();
        file.ok_or_else(|| io::Error::other("no certificate was written"))?.sync_all()?;
        let folder = self.folder.join(CERTIFICATES);
        std::fs::rename(folder.join(NEW_CERTIFICATE), path)?;
        File::open(folder)?.sync_all()
    }

    /// Removes certificates that are neither among these nor new.
    pub(super) fn keep_certificates(&self, ids: &[String]) -> io::Result<()> {
        for entry in std::fs::read_dir(self.folder.join(CERTIFICATES))? {
            let entry = entry?;
            let is_kept = ids.iter().any(|id| entry.file_name().to_str() == Some(id));
            let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
            if !is_kept && age > UNUSED {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    fn certificate_path(&self, id: &str) -> io::Result<PathBuf> {
        match is_id(id) {
            true => Ok(self.folder.join(CERTIFICATES).join(id)),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a certificate's id")),
        }
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
