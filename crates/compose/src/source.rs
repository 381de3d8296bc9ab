//! The only way to files: a trait, the real file system, and one in memory.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Where the loader reads from. Everything else in this crate is pure.
pub trait FileSource {
    /// The whole content of a file, at most `limit` bytes; longer ones are an error.
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>>;
    /// Whether a file or folder is there.
    fn exists(&self, path: &Path) -> bool;
    /// Whether a folder is there.
    fn is_dir(&self, path: &Path) -> bool;
    /// The path with symbolic links resolved, for containment checks. By default only the text is
    /// looked at.
    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_path_buf())
    }
}

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsFiles;

impl FileSource for OsFiles {
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        use std::io::Read;
        let file = std::fs::File::open(path)?;
        let mut content = Vec::new();
        file.take(limit + 1).read_to_end(&mut content)?;
        if content.len() as u64 > limit {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("larger than {limit} bytes"),
            ));
        }
        Ok(content)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn is_dir(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        path.canonicalize()
    }
}

/// Files in memory, for tests and for text that never was a file.
///
/// ```
/// use shiplap_compose::{FileSource, MemoryFiles};
/// let files = MemoryFiles::from([("/app/compose.yaml", "services: {}")]);
/// assert!(files.is_dir("/app".as_ref()));
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemoryFiles {
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl MemoryFiles {
    /// Adds or replaces a file.
    pub fn insert(&mut self, path: impl Into<PathBuf>, content: impl Into<Vec<u8>>) {
        self.files.insert(path.into(), content.into());
    }
}

impl<P: Into<PathBuf>, C: Into<Vec<u8>>, const N: usize> From<[(P, C); N]> for MemoryFiles {
    fn from(files: [(P, C); N]) -> Self {
        files.into_iter().collect()
    }
}

impl<P: Into<PathBuf>, C: Into<Vec<u8>>> FromIterator<(P, C)> for MemoryFiles {
    fn from_iter<I: IntoIterator<Item = (P, C)>>(files: I) -> Self {
        Self { files: files.into_iter().map(|(path, text)| (path.into(), text.into())).collect() }
    }
}

impl FileSource for MemoryFiles {
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let content = self.files.get(path).ok_or(io::ErrorKind::NotFound)?;
        if content.len() as u64 > limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(content.clone())
    }

    fn exists(&self, path: &Path) -> bool {
        self.files.contains_key(path) || self.is_dir(path)
    }

    fn is_dir(&self, path: &Path) -> bool {
        self.files.keys().any(|file| file != path && file.starts_with(path))
    }
}
