//! Files such as `.env.versions`: plain variables that people, CI and `git log` read.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::Path;

/// Gives the variables of a file the values that they have elsewhere, and leaves everything else as
/// it is. Returns what changed, as `NAME=value`.
///
/// # Errors
/// When the file cannot be read or replaced; it is as before then.
pub fn update(path: &Path, values: &BTreeMap<String, String>) -> io::Result<Vec<String>> {
    let text = std::fs::read_to_string(path)?;
    let (new, changed) = replaced(&text, values);
    if changed.is_empty() {
        return Ok(changed);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.{}", std::process::id()));
    let written = || -> io::Result<()> {
        let mut file = std::fs::File::create(&temporary)?;
        file.set_permissions(std::fs::metadata(path)?.permissions())?;
        file.write_all(new.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        std::fs::File::open(folder)?.sync_all()
    };
    written().inspect_err(|_| {
        let _ = std::fs::remove_file(&temporary);
    })?;
    Ok(changed)
}

fn replaced(text: &str, values: &BTreeMap<String, String>) -> (String, Vec<String>) {
    let mut changed = Vec::new();
    let mut new = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let bare = line.trim_end_matches(['\r', '\n']);
        let end = &line[bare.len()..];
        match with_value(bare, values) {
            Some((name, replaced)) if replaced != bare => {
                changed.push(format!("{name}={}", values[name]));
                new.push_str(&replaced);
                new.push_str(end);
            }
            Some(_) | None => new.push_str(line),
        }
    }
    (new, changed)
}

/// A line `NAME=value` with the value from elsewhere; a comment behind it stays.
fn with_value<'a>(line: &'a str, values: &BTreeMap<String, String>) -> Option<(&'a str, String)> {
    let (left, right) = line.split_once('=')?;
    let bare = left.trim();
    let name = bare.strip_prefix("export ").unwrap_or(bare).trim();
    let value = values.get(name)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-:/@+".contains(c);
    if !value.chars().all(plain) || name.starts_with('#') {
        return None;
    }
    let comment = right.find(" #").map_or("", |at| &right[at..]);
    Some((name, format!("{left}={value}{comment}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_values_that_differ_change_and_all_else_stays() {
        let text =
            "# versions\r\nAPI_TAG=v1 # by CI\nexport WEB_TAG=v7\n\nOTHER=x\nQUOTED=\"a\"\nlast=1";
        let values = [("API_TAG", "v2"), ("WEB_TAG", "v7"), ("OTHER", "a b"), ("last", "2")];
        let values = values.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let (new, changed) = replaced(text, &values);
        assert_eq!(
            new,
            "# versions\r\nAPI_TAG=v2 # by CI\nexport WEB_TAG=v7\n\nOTHER=x\nQUOTED=\"a\"\nlast=2"
        );
        assert_eq!(changed, ["API_TAG=v2", "last=2"]);
    }

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(".env.versions");
        std::fs::write(&path, "TAG=v1\n").expect("written");
        let values = [("TAG".to_owned(), "v2".to_owned())].into();
        assert_eq!(update(&path, &values).expect("updated"), ["TAG=v2"]);
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "TAG=v2\n");
        assert_eq!(std::fs::read_dir(folder.path()).expect("read").count(), 1);
        assert!(update(&folder.path().join("none"), &values).is_err());
    }
}
