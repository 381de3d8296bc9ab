//! Folders of a vault, opened such that nothing leads out of it: the kernel itself refuses links
//! and `..` on the way, also those that somebody puts there meanwhile.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::error::{Doing, Error};

/// New folders; the umask takes away from it.
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o777);
const FOLDER_FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// An open folder.
pub(super) struct Folder(OwnedFd);

impl Folder {
    /// Opens a vault's own folder. Its path is the configuration's, and may have links.
    pub fn root(path: &Path) -> Result<Self, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = fs::open(path, flags, Mode::empty());
        opened.map(Self).doing(|| format!("opening {}", path.display()))
    }

    /// The same folder once more, for another worker.
    pub fn again(&self) -> Result<Self, Errno> {
        self.beneath("")
    }

    /// Opens a folder beneath this one; empty for itself.
    pub fn beneath(&self, path: &str) -> Result<Self, Errno> {
        let path = if path.is_empty() { "." } else { path };
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        fs::openat2(&self.0, path, FOLDER_FLAGS, Mode::empty(), resolve).map(Self)
    }

    /// The same, after making what is missing of it.
    pub fn made_beneath(&self, path: &str) -> Result<Self, Errno> {
        match self.beneath(path) {
            Err(Errno::NOENT) => {}
            found => return found,
        }
        let mut folder = self.again()?;
        for part in path.split('/') {
            match fs::mkdirat(&folder.0, part, FOLDER_MODE) {
                // Another worker may have been first.
                Ok(()) | Err(Errno::EXIST) => folder = folder.beneath(part)?,
                Err(error) => return Err(error),
            }
        }
        Ok(folder)
    }

    /// What a name in it is, without following it; nothing, if there is nothing.
    pub fn look(&self, name: &str) -> Result<Option<Stat>, Errno> {
        match fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens a regular file in it for reading; nothing, if it is something else.
    pub fn file(&self, name: &str) -> Result<Option<(OwnedFd, Stat)>, Errno> {
        // Opening a pipe would wait for somebody to write.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match fs::openat(&self.0, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::LOOP | Errno::NXIO) => return Ok(None),
            Err(error) => return Err(error),
        };
        let stat = fs::fstat(&file)?;
        Ok(is_file(&stat).then_some((file, stat)))
    }

    /// Makes a file that nobody else has, in the place of one that was left.
    pub fn new_file(&self, name: &str) -> Result<OwnedFd, Errno> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        match fs::openat(&self.0, name, flags, mode) {
            Err(Errno::EXIST) => {
                self.remove(name)?;
                fs::openat(&self.0, name, flags, mode)
            }
            opened => opened,
        }
    }

    /// Gives a file its name, in the place of what had it.
    pub fn rename(&self, from: &str, to: &str) -> Result<(), Errno> {
        fs::renameat(&self.0, from, &self.0, to)
    }

    /// Removes a file or a link; not what a link leads to.
    pub fn remove(&self, name: &str) -> Result<(), Errno> {
        fs::unlinkat(&self.0, name, AtFlags::empty())
    }

    /// Removes a folder, if it is empty.
    pub fn remove_folder(&self, name: &str) -> Result<(), Errno> {
        fs::unlinkat(&self.0, name, AtFlags::REMOVEDIR)
    }

    /// The names in it.
    pub fn names(&self) -> Result<Vec<(String, FileType)>, Errno> {
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(&self.0)? {
            let entry = entry?;
            // One that is no text is none of ours, and nobody could say it in a row.
            let Ok(name) = entry.file_name().to_str() else { continue };
            if !matches!(name, "." | "..") {
                names.push((name.to_owned(), entry.file_type()));
            }
        }
        Ok(names)
    }

    /// What tells it from every other folder of the machine.
    pub fn identity(&self) -> Result<(u64, u64), Errno> {
        let stat = fs::fstat(&self.0)?;
        Ok((stat.st_dev, stat.st_ino))
    }
}

/// Whether it is a regular file.
pub(super) fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}
