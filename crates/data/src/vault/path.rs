//! Paths in a vault: relative, and leading down only.

use std::fmt;

/// A path of a file beneath a vault's folder. It says nothing of links: those are not followed by
/// whoever opens it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VaultPath {
    /// Without the file's name; empty for the vault's own folder.
    folder: String,
    name: String,
}

impl VaultPath {
    /// Reads what a row holds. Nothing, if it leads out of the vault or names no file: it is
    /// absolute, or has `..` or an end that is none.
    pub fn parse(text: &str) -> Option<Self> {
        let is_part = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        if !text.split('/').all(is_part) {
            return None;
        }
        let (folder, name) = text.rsplit_once('/').unwrap_or(("", text));
        Some(Self { folder: folder.to_owned(), name: name.to_owned() })
    }

    /// The folder that it is in; empty for the vault's own.
    pub fn folder(&self) -> &str {
        &self.folder
    }

    /// The file's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for VaultPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.folder.as_str() {
            "" => f.write_str(&self.name),
            folder => write!(f, "{folder}/{}", self.name),
        }
    }
}

/// A name that is made from a file's: `{stem}_small.{ext}`, in the same folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// Reads it.
    ///
    /// # Errors
    /// If it leads elsewhere, or holds other words in braces.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rest = text.replace("{stem}", "").replace("{ext}", "").replace("{name}", "");
        if rest.contains(['/', '{', '}', '\0']) || rest == text {
            return Err(format!("`{text}` is not a pattern such as {{stem}}_small.{{ext}}"));
        }
        Ok(Self(text.to_owned()))
    }

    /// What belongs to a file.
    pub fn of(&self, path: &VaultPath) -> Option<VaultPath> {
        let name = path.name();
        // `.hidden` has a stem, and no extension.
        let cut = name.rfind('.').filter(|at| *at > 0);
        let (stem, ext) = cut.map_or((name, ""), |at| (&name[..at], &name[at + 1..]));
        // One after the other, from the left: a stem may hold braces itself.
        let mut made = String::new();
        let mut rest = self.0.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            let (word, after) = after.split_once('}')?;
            made.push_str(before);
            made.push_str(match word {
                "stem" => stem,
                "ext" => ext,
                _ => name,
            });
            rest = after;
        }
        made.push_str(rest);
        let folder = path.folder();
        VaultPath::parse(&if folder.is_empty() { made } else { format!("{folder}/{made}") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_down() {
        for good in ["a", "a/b.webp", "ab/cd/ef", "..a/b..", "a b/ü"] {
            assert_eq!(VaultPath::parse(good).map(|p| p.to_string()).as_deref(), Some(good));
        }
        for bad in ["", "/a", "a/", "a//b", "../a", "a/../b", "a/..", ".", "./a", "a\0b"] {
            assert_eq!(VaultPath::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn variants_stand_beside_their_file() {
        let of = |pattern: &str, path: &str| {
            let made = Pattern::parse(pattern).unwrap().of(&VaultPath::parse(path).unwrap());
            made.map(|path| path.to_string()).unwrap_or_default()
        };
        assert_eq!(of("{stem}_small.{ext}", "a/b/c.tar.gz"), "a/b/c.tar_small.gz");
        assert_eq!(of("{stem}_up.webp", "c"), "c_up.webp");
        assert_eq!(of("{name}.json", "x/.hidden"), "x/.hidden.json");
        assert_eq!(of("{stem}2.png", "x/{ext}.png"), "x/{ext}2.png");
        for bad in ["../{stem}", "thumb.png", "{other}.png", "{stem", "a/{name}"] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
    }
}
