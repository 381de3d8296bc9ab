//! A file or a folder as an archive, and as a hash.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;

/// The most that one mount may bring: it is read for every plan.
const LARGEST: u64 = 64 << 20;
/// The most files and folders of one mount.
const MOST_ENTRIES: usize = 20_000;
/// The permission bits, as a mode has them besides what it is.
const PERMISSIONS: u32 = 0o7777;

/// One thing in a tree.
enum Entry {
    Folder,
    File(Vec<u8>),
    Link(PathBuf),
}

/// The hash of what a container would see: names, contents, links, owners and permissions. Times are
/// not in it. What is not there is an empty folder.
///
/// # Errors
/// What cannot be read, and what is too large.
pub(super) fn hash(source: &Path) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    // Each part with its length, so that no two trees make the same bytes.
    let mut add = |part: &[u8]| {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    };
    walk(source, &mut |relative, data, entry| {
        add(relative.as_os_str().as_bytes());
        add(format!("{:o} {} {}", data.mode(), data.uid(), data.gid()).as_bytes());
        match entry {
            Entry::Folder => add(b""),
            Entry::File(content) => add(&content),
            Entry::Link(target) => add(target.as_os_str().as_bytes()),
        }
        Ok(())
    })?;
    Ok(hasher.finalize().to_hex()[..32].to_owned())
}

/// An archive that holds it at a path, with the folders that lead there, and behind it an empty file:
/// where that is, the rest is too.
///
/// # Errors
/// As with [`hash`].
pub(super) fn archive(source: &Path, path: &Path, last: &Path) -> io::Result<Bytes> {
    let mut tar = tar::Builder::new(Vec::new());
    for folder in [path.parent(), last.parent()].into_iter().flatten() {
        for way in ways(folder) {
            tar.append_data(&mut folder_header(0o755), way, io::empty())?;
        }
    }
    if !source.exists() {
        tar.append_data(&mut folder_header(0o755), path, io::empty())?;
    }
    walk(source, &mut |relative, data, entry| {
        let path =
            if relative.as_os_str().is_empty() { path.to_owned() } else { path.join(relative) };
        let mut header = tar::Header::new_gnu();
        header.set_mode(data.mode() & PERMISSIONS);
        header.set_uid(u64::from(data.uid()));
        header.set_gid(u64::from(data.gid()));
        // Servers tell by the time whether a file has changed.
        header.set_mtime(u64::try_from(data.mtime()).unwrap_or_default());
        match entry {
            Entry::Folder => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_size(0);
                tar.append_data(&mut header, path, io::empty())
            }
            Entry::File(content) => {
                header.set_size(content.len() as u64);
                tar.append_data(&mut header, path, content.as_slice())
            }
            Entry::Link(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                tar.append_link(&mut header, path, target)
            }
        }
    })?;
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o444);
    header.set_size(1);
    tar.append_data(&mut header, last, b"\n".as_slice())?;
    Ok(tar.into_inner()?.into())
}

/// The folders that lead to one, and itself, the first one first.
fn ways(folder: &Path) -> Vec<&Path> {
    let mut ways: Vec<&Path> = folder.ancestors().filter(|way| *way != Path::new("")).collect();
    ways.reverse();
    ways
}

fn folder_header(mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(mode);
    header.set_size(0);
    header
}

/// Visits all that is there, folders before what is in them, in order of name.
fn walk(
    source: &Path,
    visit: &mut dyn FnMut(&Path, &Metadata, Entry) -> io::Result<()>,
) -> io::Result<()> {
    let mut left = LARGEST;
    let mut entries = 0;
    let mut open = vec![PathBuf::new()];
    while let Some(relative) = open.pop() {
        entries += 1;
        if entries > MOST_ENTRIES {
            return Err(io::Error::other(format!("it has more than {MOST_ENTRIES} files")));
        }
        // Not `join`, which adds a slash to a file's own path.
        let path = match relative.as_os_str().is_empty() {
            true => source.to_path_buf(),
            false => source.join(&relative),
        };
        // The one that is named may be a link to what is meant.
        let data = match relative.as_os_str().is_empty() {
            true => fs::metadata(&path),
            false => fs::symlink_metadata(&path),
        };
        let data = match data {
            Err(error) if error.kind() == io::ErrorKind::NotFound && entries == 1 => return Ok(()),
            data => data.map_err(|error| at(&path, &error))?,
        };
        if data.is_dir() {
            visit(&relative, &data, Entry::Folder)?;
            let mut names = Vec::new();
            for entry in fs::read_dir(&path).map_err(|error| at(&path, &error))? {
                names.push(entry?.file_name());
            }
            names.sort();
            open.extend(names.into_iter().rev().map(|name| relative.join(name)));
        } else if data.is_symlink() {
            let target = fs::read_link(&path).map_err(|error| at(&path, &error))?;
            visit(&relative, &data, Entry::Link(target))?;
        } else if data.is_file() {
            let content = read(&path, &mut left).map_err(|error| at(&path, &error))?;
            visit(&relative, &data, Entry::File(content))?;
        } else {
            let error = io::Error::other("it is neither a file nor a folder");
            return Err(at(&path, &error));
        }
    }
    Ok(())
}

fn read(path: &Path, left: &mut u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(*left + 1).read_to_end(&mut content)?;
    match left.checked_sub(content.len() as u64) {
        Some(rest) => *left = rest,
        None => {
            let most = LARGEST >> 20;
            return Err(io::Error::other(format!("there are more than {most} MiB")));
        }
    }
    Ok(content)
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn tree() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let site = folder.path().join("site");
        fs::create_dir_all(site.join("b")).unwrap();
        fs::write(site.join("b/index.html"), "hello").unwrap();
        fs::write(site.join("a"), "").unwrap();
        symlink("b/index.html", site.join("c")).unwrap();
        folder
    }

    #[test]
    fn an_archive_holds_the_tree_and_ends_with_what_says_so() {
        let folder = tree();
        let bytes = archive(
            &folder.path().join("site"),
            Path::new("same/1/site"),
            Path::new("same/1/.whole"),
        );
        let bytes = bytes.unwrap();
        let mut archive = tar::Archive::new(bytes.as_ref());
        let names: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        let expected = [
            "same",
            "same/1",
            "same",
            "same/1",
            "same/1/site",
            "same/1/site/a",
            "same/1/site/b",
            "same/1/site/b/index.html",
            "same/1/site/c",
            "same/1/.whole",
        ];
        assert_eq!(names.iter().map(|n| n.trim_end_matches('/')).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_hash_is_of_what_a_container_sees_and_of_no_time() {
        let folder = tree();
        let site = folder.path().join("site");
        let first = hash(&site).unwrap();
        let file = File::options().append(true).open(site.join("a")).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(hash(&site).unwrap(), first);
        fs::set_permissions(site.join("a"), fs::Permissions::from_mode(0o700)).unwrap();
        let second = hash(&site).unwrap();
        assert_ne!(second, first);
        fs::rename(site.join("a"), site.join("d")).unwrap();
        assert_ne!(hash(&site).unwrap(), second);
    }

    #[test]
    fn a_socket_is_nothing_that_can_be_delivered() {
        let folder = tree();
        let site = folder.path().join("site");
        let _socket = std::os::unix::net::UnixListener::bind(site.join("s")).unwrap();
        let error = hash(&site).unwrap_err().to_string();
        assert!(error.ends_with("site/s: it is neither a file nor a folder"), "{error}");
    }
}
