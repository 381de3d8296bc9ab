//! All files of a vault.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;
use serde::Serialize;

use super::copy::{Copied, copy};
use super::error::{Doing, Error};
use super::folder::Folder;
use super::pace::Pace;
use super::path::{Pattern, VaultPath};
use super::prune::prune;

/// A file in the target's folder that says: what is in here is ours to remove.
pub(super) const MARK: &str = ".shiplap-vault";
/// Copying waits for disks, so a few more than there are processors do no harm; many would.
const WORKERS: usize = 4;
/// Files that a worker takes at once; those of one folder, which is opened once for them.
const BATCH: usize = 256;
/// How many paths of each kind a report names.
const NAMED: usize = 1_000;

/// Where files come from and go to.
#[derive(Clone, Debug)]
pub struct Vault {
    /// The folder beneath which they are.
    pub from: PathBuf,
    /// The folder beneath which they come.
    pub to: PathBuf,
    /// What belongs to each of them, where it exists.
    pub variants: Vec<Pattern>,
    /// The most that is copied in a second, in bytes.
    pub bytes_per_second: Option<u64>,
}

/// What came of a vault's files.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FilesReport {
    /// Where they are now.
    pub to: String,
    /// Files that rows name, each once.
    pub named: u64,
    /// Files that were copied, with variants.
    pub copied: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were there already, with variants.
    pub unchanged: u64,
    /// Files that rows name and the source does not have.
    pub missing: u64,
    /// The first of them.
    pub missing_paths: Vec<String>,
    /// What rows name and is no path in the vault, or no file: a link, a folder.
    pub refused: u64,
    /// The first of it.
    pub refused_paths: Vec<String>,
    /// Files that were there and no row names any more.
    pub removed: u64,
    /// All that is to stay.
    #[serde(skip)]
    keep: HashSet<String>,
}

impl FilesReport {
    fn count(&mut self, path: &str, is_variant: bool, copied: Copied) {
        match copied {
            Copied::New(bytes) => {
                self.copied += 1;
                self.bytes += bytes;
            }
            Copied::Unchanged => self.unchanged += 1,
            // Not every file has every variant.
            Copied::Missing if is_variant => return,
            Copied::Missing => {
                self.missing += 1;
                remember(&mut self.missing_paths, path);
                return;
            }
            Copied::NoFile => {
                self.refused += 1;
                remember(&mut self.refused_paths, path);
                return;
            }
        }
        self.keep.insert(path.to_owned());
    }

    fn add(&mut self, other: Self) {
        self.copied += other.copied;
        self.bytes += other.bytes;
        self.unchanged += other.unchanged;
        self.missing += other.missing;
        self.refused += other.refused;
        other.missing_paths.iter().for_each(|path| remember(&mut self.missing_paths, path));
        other.refused_paths.iter().for_each(|path| remember(&mut self.refused_paths, path));
        self.keep.extend(other.keep);
    }
}

fn remember(paths: &mut Vec<String>, path: &str) {
    if paths.len() < NAMED {
        paths.push(path.to_owned());
    }
}

/// Some files of one folder.
struct Batch {
    folder: String,
    /// Names, and whether each is a variant of another.
    names: Vec<(String, bool)>,
}

impl Vault {
    /// Whether the folders are there and apart, and the target's is empty or was filled by us.
    ///
    /// # Errors
    /// If not: nothing was changed then.
    pub fn check(&self) -> Result<(), Error> {
        let (from, to) = (Folder::root(&self.from)?, Folder::root(&self.to)?);
        let doing = || format!("looking at {}", self.to.display());
        let (from_path, to_path) = (canonical(&self.from)?, canonical(&self.to)?);
        let is_same = from.identity().doing(doing)? == to.identity().doing(doing)?;
        if is_same || from_path.starts_with(&to_path) || to_path.starts_with(&from_path) {
            let cause = format!("it and {} are not apart", self.from.display());
            return Err(Error::said(doing(), cause));
        }
        let is_ours = to.look(MARK).doing(doing)?.is_some();
        if !is_ours && !to.names().doing(doing)?.is_empty() {
            let cause = format!(
                "it has files that are not ours, and what no row names would be removed; empty it, \
                 or make a file `{MARK}` in it"
            );
            return Err(Error::said(doing(), cause));
        }
        Ok(())
    }

    /// Copies what these rows name, and nothing that is there already. Nothing is removed.
    ///
    /// # Errors
    /// If a file that is there cannot be read, or there is no room.
    pub fn copy(&self, paths: impl IntoIterator<Item = String>) -> Result<FilesReport, Error> {
        self.check()?;
        let (from, to) = (Folder::root(&self.from)?, Folder::root(&self.to)?);
        let marking = || format!("writing {}/{MARK}", self.to.display());
        if to.look(MARK).doing(marking)?.is_none() {
            to.new_file(MARK).doing(marking)?;
        }
        let mut report =
            FilesReport { to: self.to.display().to_string(), ..FilesReport::default() };
        let mut named = BTreeSet::new();
        for path in paths {
            match VaultPath::parse(&path).filter(|path| path.to_string() != MARK) {
                Some(path) => {
                    named.insert(path);
                }
                None => {
                    report.refused += 1;
                    remember(&mut report.refused_paths, &path);
                }
            }
        }
        report.named = named.len() as u64;
        let work = Mutex::new(self.batches(&named));
        let pace = Pace::new(self.bytes_per_second);
        let done: Result<Vec<FilesReport>, Error> = std::thread::scope(|scope| {
            let worker = || self.work(&from, &to, &work, &pace);
            let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(worker)).collect();
            let joined = workers.into_iter().map(|worker| worker.join());
            joined.map(|done| done.expect("a worker does not panic")).collect()
        });
        done?.into_iter().for_each(|part| report.add(part));
        report.missing_paths.sort();
        report.refused_paths.sort();
        Ok(report)
    }

    /// Removes what is beneath the target's folder and no row names any more. To be called when
    /// nothing uses it: after the database was swapped.
    ///
    /// # Errors
    /// If something cannot be removed. It is safe to try again.
    pub fn prune(&self, report: &mut FilesReport) -> Result<(), Error> {
        let to = Folder::root(&self.to)?;
        let doing = || format!("removing files of {}", self.to.display());
        if to.look(MARK).doing(doing)?.is_none() {
            return Err(Error::said(doing(), "it is not ours any more"));
        }
        report.removed = prune(&to, &report.keep).doing(doing)?;
        Ok(())
    }

    /// Files by folder, with their variants.
    fn batches(&self, named: &BTreeSet<VaultPath>) -> VecDeque<Batch> {
        let mut batches: VecDeque<Batch> = VecDeque::new();
        for path in named {
            let variants = self.variants.iter().filter_map(|pattern| pattern.of(path));
            let variants = variants.filter(|variant| !named.contains(variant));
            let mut names: Vec<(String, bool)> =
                variants.map(|variant| (variant.name().to_owned(), true)).collect();
            names.push((path.name().to_owned(), false));
            match batches.back_mut() {
                Some(last) if last.folder == path.folder() && last.names.len() < BATCH => {
                    last.names.extend(names);
                }
                _ => batches.push_back(Batch { folder: path.folder().to_owned(), names }),
            }
        }
        batches
    }

    fn work(
        &self,
        from: &Folder,
        to: &Folder,
        work: &Mutex<VecDeque<Batch>>,
        pace: &Pace,
    ) -> Result<FilesReport, Error> {
        let mut report = FilesReport::default();
        loop {
            let next = work.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(batch) = next else { return Ok(report) };
            let done = self.batch(from, to, &batch, pace, &mut report);
            if let Err(error) = done {
                // Then the others have nothing to do any more.
                work.lock().unwrap_or_else(PoisonError::into_inner).clear();
                return Err(error);
            }
        }
    }

    fn batch(
        &self,
        from: &Folder,
        to: &Folder,
        batch: &Batch,
        pace: &Pace,
        report: &mut FilesReport,
    ) -> Result<(), Error> {
        let path = |name: &str| match batch.folder.as_str() {
            "" => name.to_owned(),
            folder => format!("{folder}/{name}"),
        };
        let source = match from.beneath(&batch.folder) {
            Ok(source) => source,
            // There is none, or a link or a file stands on the way.
            Err(error @ (Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::XDEV)) => {
                let copied = if error == Errno::NOENT { Copied::Missing } else { Copied::NoFile };
                let names = batch.names.iter().filter(|(_, is_variant)| !is_variant);
                names.for_each(|(name, _)| report.count(&path(name), false, copied));
                return Ok(());
            }
            Err(error) => {
                return Err(error)
                    .doing(|| format!("opening {}/{}", self.from.display(), batch.folder));
            }
        };
        let target = to.made_beneath(&batch.folder);
        let target = target.doing(|| format!("making {}/{}", self.to.display(), batch.folder))?;
        for (name, is_variant) in &batch.names {
            let path = path(name);
            let copied = copy(&source, &target, name, pace);
            let copied = copied.doing(|| format!("copying {path} to {}", self.to.display()))?;
            report.count(&path, *is_variant, copied);
        }
        Ok(())
    }
}

fn canonical(path: &Path) -> Result<PathBuf, Error> {
    path.canonicalize()
        .map_err(|error| Error::said(format!("looking at {}", path.display()), error.to_string()))
}

#[cfg(test)]
mod tests;
