//! Removing what no row of the new database names any more.

use std::collections::HashSet;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::folder::Folder;
use super::run::MARK;

/// Removes all files and links beneath a folder that are not among these paths, and folders that
/// are empty then. How many files went.
pub(super) fn prune(root: &Folder, keep: &HashSet<String>) -> Result<u64, Errno> {
    beneath(root, "", keep)
}

fn beneath(folder: &Folder, path: &str, keep: &HashSet<String>) -> Result<u64, Errno> {
    let mut removed = 0;
    for (name, kind) in folder.names()? {
        let whole = match path {
            "" => name.clone(),
            path => format!("{path}/{name}"),
        };
        if whole == MARK || keep.contains(&whole) {
            continue;
        }
        // Some file systems do not say what a name is until they are asked.
        let kind = match kind {
            FileType::Unknown => match folder.look(&name)? {
                Some(stat) => FileType::from_raw_mode(stat.st_mode),
                None => continue,
            },
            kind => kind,
        };
        match kind {
            FileType::Directory => {
                removed += beneath(&folder.beneath(&name)?, &whole, keep)?;
                match folder.remove_folder(&name) {
                    Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => {}
                    Err(error) => return Err(error),
                }
            }
            _ => {
                folder.remove(&name)?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}
