//! Files such as `.env.versions`: plain variables that people, CI and `git log` read.
//!
//! What a deployment has made current is written there when it is done, so that the next one from
//! the files is no step back.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use shiplap_config::Settings;

use crate::output::time;

/// Kept up where a file has it: when something was deployed last.
const LAST_DATE: &str = "LAST_DEPLOY_DATE";
/// The same: who did it.
const LAST_BY: &str = "LAST_DEPLOY_BY";

/// What follows a variable that the file did not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// It is added at the end.
    Add,
    /// It is none of this file's.
    Leave,
}

/// Writes values into the file where an environment keeps its versions, if it has one, and says
/// so. What cannot be written is said as well: the deployment is done whatever becomes of the file.
pub fn keep(settings: &Settings, values: &BTreeMap<String, String>, absent: Absent, who: &str) {
    let Some(path) = &settings.versions else { return };
    match update(path, values, absent, who, shiplap_execute::now_ms()) {
        Ok(changed) if changed.is_empty() => {}
        Ok(changed) => {
            eprintln!("{} has {} now", path.display(), changed.join(", "));
            if settings.commit_versions {
                commit(path, &format!("{}: {}", settings.name, changed.join(", ")));
            }
        }
        Err(error) => {
            let values: Vec<String> = values.iter().map(|(n, v)| format!("{n}={v}")).collect();
            eprintln!(
                "! {} still names the versions from before: {error}; write {} there, or the next \
                 deploy goes back to them",
                path.display(),
                values.join(", ")
            );
        }
    }
}

/// Commits one file, and nothing else that may be changed or staged beside it.
fn commit(path: &Path, message: &str) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut git = Command::new("git");
    git.arg("-C").arg(folder.unwrap_or(Path::new("."))).args(["commit", "--quiet", "--only", "-m"]);
    git.arg(message).arg("--").arg(path.file_name().unwrap_or_default());
    match git.stdin(Stdio::null()).stdout(Stdio::null()).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let words = String::from_utf8_lossy(&output.stderr);
            let first = words.lines().find(|line| !line.trim().is_empty()).unwrap_or("it failed");
            eprintln!("! {} is not committed: git: {first}", path.display());
        }
        Err(error) => eprintln!("! {} is not committed: git: {error}", path.display()),
    }
}

/// Gives the variables of a file the values that they have elsewhere, and leaves everything else as
/// it is. Returns what changed, as `NAME=value`.
///
/// # Errors
/// When the file cannot be read or replaced; it is as before then.
fn update(
    path: &Path,
    values: &BTreeMap<String, String>,
    absent: Absent,
    who: &str,
    now_ms: i64,
) -> io::Result<Vec<String>> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && absent == Absent::Add => {
            String::new()
        }
        read => read?,
    };
    let mut values = values.clone();
    values.retain(|name, _| name != LAST_DATE && name != LAST_BY);
    let (mut new, changed) = replaced(&text, &values, absent);
    if changed.is_empty() {
        return Ok(changed);
    }
    let second = now_ms - now_ms.rem_euclid(1000);
    let who = who.split(" (").next().unwrap_or(who);
    let by: String = who.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    let last = [(LAST_DATE, time::stamp(second)), (LAST_BY, by)];
    let last = last.map(|(name, value)| (name.to_owned(), value)).into();
    new = replaced(&new, &last, Absent::Leave).0;
    write_whole(path, &new)?;
    Ok(changed)
}

/// Replaces a file by one that is on disk: whoever reads sees all of the old text or all of the new.
pub fn write_whole(path: &Path, text: impl AsRef<[u8]>) -> io::Result<()> {
    // A link stays one.
    let path = &std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.{}", std::process::id()));
    let written = || -> io::Result<()> {
        let mut file = std::fs::File::create(&temporary)?;
        if let Ok(there) = std::fs::metadata(path) {
            file.set_permissions(there.permissions())?;
        }
        file.write_all(text.as_ref())?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        std::fs::File::open(folder)?.sync_all()
    };
    written().inspect_err(|_| {
        let _ = std::fs::remove_file(&temporary);
    })
}

fn replaced(
    text: &str,
    values: &BTreeMap<String, String>,
    absent: Absent,
) -> (String, Vec<String>) {
    let mut changed = Vec::new();
    let mut new = String::with_capacity(text.len());
    let mut there = Vec::new();
    for line in text.split_inclusive('\n') {
        let bare = line.trim_end_matches(['\r', '\n']);
        let end = &line[bare.len()..];
        match with_value(bare, values) {
            Some((name, replaced)) => {
                there.push(name);
                if replaced == bare {
                    new.push_str(line);
                } else {
                    changed.push(format!("{name}={}", values[name]));
                    new.push_str(&replaced);
                    new.push_str(end);
                }
            }
            None => new.push_str(line),
        }
    }
    let missing = values.iter().filter(|(name, value)| {
        absent == Absent::Add && !there.contains(&name.as_str()) && value.chars().all(is_plain)
    });
    for (name, value) in missing {
        if !new.is_empty() && !new.ends_with('\n') {
            new.push('\n');
        }
        new.push_str(&format!("{name}={value}\n"));
        changed.push(format!("{name}={value}"));
    }
    (new, changed)
}

/// Characters that need no quotes, whatever reads the file.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._-:/@+".contains(c)
}

/// A line `NAME=value` with the value from elsewhere; a comment behind it stays.
fn with_value<'a>(line: &'a str, values: &BTreeMap<String, String>) -> Option<(&'a str, String)> {
    let (left, right) = line.split_once('=')?;
    let bare = left.trim();
    let name = bare.strip_prefix("export ").unwrap_or(bare).trim();
    let value = values.get(name)?;
    if !value.chars().all(is_plain) || name.starts_with('#') {
        return None;
    }
    let comment = right.find(" #").map_or("", |at| &right[at..]);
    Some((name, format!("{left}={value}{comment}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values<const N: usize>(values: [(&str, &str); N]) -> BTreeMap<String, String> {
        values.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    #[test]
    fn only_values_that_differ_change_and_all_else_stays() {
        let text =
            "# versions\r\nAPI_TAG=v1 # by CI\nexport WEB_TAG=v7\n\nOTHER=x\nQUOTED=\"a\"\nlast=1";
        let values =
            values([("API_TAG", "v2"), ("WEB_TAG", "v7"), ("OTHER", "a b"), ("last", "2")]);
        let (new, changed) = replaced(text, &values, Absent::Leave);
        assert_eq!(
            new,
            "# versions\r\nAPI_TAG=v2 # by CI\nexport WEB_TAG=v7\n\nOTHER=x\nQUOTED=\"a\"\nlast=2"
        );
        assert_eq!(changed, ["API_TAG=v2", "last=2"]);
    }

    #[test]
    fn a_variable_that_is_not_there_is_added_at_the_end_where_it_belongs_there() {
        let values = values([("API_TAG", "v2"), ("WEB_TAG", "v1")]);
        let (new, changed) = replaced("A=1\n#WEB_TAG=v1\nAPI_TAG=v2", &values, Absent::Add);
        assert_eq!(new, "A=1\n#WEB_TAG=v1\nAPI_TAG=v2\nWEB_TAG=v1\n");
        assert_eq!(changed, ["WEB_TAG=v1"]);
        assert_eq!(replaced("", &values, Absent::Leave), (String::new(), vec![]));
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_and_says_when_and_by_whom() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(".env.versions");
        std::fs::write(&path, "TAG=v1\n\n# Last deployed\nLAST_DEPLOY_DATE=x\nLAST_DEPLOY_BY=y\n")
            .expect("written");
        let wanted = values([("TAG", "v2")]);
        let update =
            |at: &Path, who: &str| update(at, &wanted, Absent::Leave, who, 1_760_000_000_123);
        assert_eq!(update(&path, "ci of api").expect("updated"), ["TAG=v2"]);
        assert_eq!(
            std::fs::read_to_string(&path).expect("read"),
            "TAG=v2\n\n# Last deployed\nLAST_DEPLOY_DATE=2025-10-09T08:53:20Z\nLAST_DEPLOY_BY=ci_of_api\n"
        );
        assert!(update(&path, "somebody else").expect("updated").is_empty(), "nothing changed");
        assert_eq!(std::fs::read_dir(folder.path()).expect("read").count(), 1);
        assert!(update(&folder.path().join("none"), "x").is_err());
    }
}
