//! A place in the file system of the engine's machine.

use std::path::{Component, Path, PathBuf};

/// A file or a folder, with what tells it from others that have another name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its path, without symbolic links where they could be followed.
    pub path: PathBuf,
    /// Device and inode of each folder on the way from the root, and of the place itself, which
    /// is the last. Empty where they could not be read: then paths are compared.
    pub identities: Vec<(u64, u64)>,
}

impl Place {
    /// A place of which only the path is known. `..` and `.` are taken out.
    #[must_use]
    pub fn at(path: &str) -> Self {
        let mut clean = PathBuf::from("/");
        for part in Path::new(path).components() {
            match part {
                Component::Normal(name) => clean.push(name),
                Component::ParentDir => {
                    clean.pop();
                }
                Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
            }
        }
        Self { path: clean, identities: Vec::new() }
    }

    /// Whether one is the other, or lies below it.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.holds(other) || other.holds(self)
    }

    /// Whether it is the other place, or a folder above it.
    #[must_use]
    pub fn holds(&self, other: &Self) -> bool {
        // A bind mount of the machine's own gives a folder a second path; its inode stays.
        let by_identity = self.identities.last().is_some_and(|own| other.identities.contains(own));
        by_identity || other.path.starts_with(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_below_another_overlaps_it_under_whatever_name() {
        let overlap = |one: &str, two: &str| Place::at(one).overlaps(&Place::at(two));
        assert!(overlap("/srv", "/srv/app/data") && overlap("/srv/app/data", "/srv/"));
        assert!(overlap("/srv/app/../app/./data", "/srv/app/data") && overlap("/", "/x"));
        assert!(!overlap("/srv/app", "/srv/app-dev"), "names, not letters");

        let chain = |path: &str, identities: &[(u64, u64)]| Place {
            identities: identities.to_vec(),
            ..Place::at(path)
        };
        let data = chain("/srv/app/data", &[(1, 2), (1, 7), (1, 8), (1, 9)]);
        assert!(
            chain("/mnt/alias", &[(1, 2), (1, 3), (1, 8)]).overlaps(&data),
            "a bind of /srv/app"
        );
        assert!(!chain("/mnt/other", &[(1, 2), (1, 3), (2, 8)]).overlaps(&data), "another disk");
    }
}
