//! One file, from one folder into another.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;

use rustix::fs::{self, Mode, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use super::folder::{Folder, is_file};
use super::pace::Pace;

/// What came of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copied {
    /// It is there, as long and as old as the source's.
    Unchanged,
    /// It was copied: so many bytes.
    New(u64),
    /// The source has none.
    Missing,
    /// The source has something else of that name: a folder, a link, a pipe.
    NoFile,
}

/// Begins the names of files that are not whole yet.
pub(super) const PART: &str = ".shiplap-part-";
/// For file systems that can copy in no better way.
const BUFFER: usize = 256 << 10;

/// Copies a file unless it is there already. It gets its name when it is whole, so whatever has a
/// name can be read, and a run that was cut off is simply repeated.
pub(super) fn copy(from: &Folder, to: &Folder, name: &str, pace: &Pace) -> Result<Copied, Errno> {
    let Some(known) = from.look(name)? else { return Ok(Copied::Missing) };
    if !is_file(&known) {
        return Ok(Copied::NoFile);
    }
    if to.look(name)?.is_some_and(|there| is_same(&known, &there)) {
        return Ok(Copied::Unchanged);
    }
    let (source, stat) = match from.file(name) {
        Ok(Some(opened)) => opened,
        Ok(None) => return Ok(Copied::NoFile),
        // It went just now.
        Err(Errno::NOENT) => return Ok(Copied::Missing),
        Err(error) => return Err(error),
    };
    let part = part_name(name);
    let target = to.new_file(&part)?;
    let filled = fill(&source, &target, pace).and_then(|bytes| {
        finish(&target, &stat)?;
        to.rename(&part, name)?;
        Ok(Copied::New(bytes))
    });
    if filled.is_err() {
        // The error is worth more than what is left; the next run takes its place.
        let _ = to.remove(&part);
    }
    filled
}

/// Names are up to 255 bytes long; a hash of one is always shorter.
fn part_name(name: &str) -> String {
    format!("{PART}{}", &blake3::hash(name.as_bytes()).to_hex()[..16])
}

fn is_same(source: &Stat, target: &Stat) -> bool {
    is_file(target)
        && source.st_size == target.st_size
        && (source.st_mtime, source.st_mtime_nsec) == (target.st_mtime, target.st_mtime_nsec)
}

/// The bytes: shared where the file system can, else copied inside of the kernel, else by us.
fn fill(source: &OwnedFd, target: &OwnedFd, pace: &Pace) -> Result<u64, Errno> {
    if fs::ioctl_ficlone(target, source).is_ok() {
        return Ok(fs::fstat(target)?.st_size as u64);
    }
    let mut bytes = 0;
    loop {
        match fs::copy_file_range(source, None, target, None, pace.piece()) {
            Ok(0) => return Ok(bytes),
            Ok(copied) => {
                bytes += copied as u64;
                pace.wait(copied as u64);
            }
            Err(Errno::INTR) => {}
            // Not between these file systems, or not by this kernel.
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM)
                if bytes == 0 =>
            {
                return by_hand(source, target, pace);
            }
            Err(error) => return Err(error),
        }
    }
}

fn by_hand(source: &OwnedFd, target: &OwnedFd, pace: &Pace) -> Result<u64, Errno> {
    let errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let own = |fd: &OwnedFd| fd.try_clone().map(std::fs::File::from).map_err(errno);
    let (mut source, mut target) = (own(source)?, own(target)?);
    let mut buffer = vec![0; BUFFER];
    let mut bytes = 0;
    loop {
        let read = match source.read(&mut buffer) {
            Ok(0) => return Ok(bytes),
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(errno(error)),
        };
        target.write_all(&buffer[..read]).map_err(errno)?;
        bytes += read as u64;
        pace.wait(read as u64);
    }
}

/// Who may read it, and its age, by which the next run knows it again.
fn finish(target: &OwnedFd, source: &Stat) -> Result<(), Errno> {
    // Nobody becomes somebody else by running a copy.
    fs::fchmod(target, Mode::from_raw_mode(source.st_mode & 0o777))?;
    let modified = Timespec { tv_sec: source.st_mtime, tv_nsec: source.st_mtime_nsec as _ };
    fs::futimens(target, &Timestamps { last_access: modified, last_modification: modified })
}
