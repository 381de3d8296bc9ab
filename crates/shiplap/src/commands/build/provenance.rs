//! Where an image comes from, as git knows it.

use std::path::Path;
use std::process::{Command, Stdio};

/// The commit.
const REVISION: &str = "org.opencontainers.image.revision";
/// The repository.
const SOURCE: &str = "org.opencontainers.image.source";
/// When.
const CREATED: &str = "org.opencontainers.image.created";
/// All labels of it.
pub const LABELS: [&str; 3] = [REVISION, SOURCE, CREATED];

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    revision: String,
    source: Option<String>,
    /// When the commit was made: the same commit gives the same image.
    created: String,
}

impl Provenance {
    /// Asks git about a folder; nothing where it is in no repository, or there is no git.
    pub fn of(folder: &Path) -> Option<Self> {
        let commit = git(folder, &["rev-parse", "--verify", "HEAD"])?;
        let changed = git(folder, &["status", "--porcelain", "--", "."])?;
        let revision = if changed.is_empty() { commit } else { format!("{commit}-dirty") };
        let seconds: i64 = git(folder, &["log", "-1", "--format=%ct"])?.parse().ok()?;
        let created = jiff::Timestamp::from_second(seconds).ok()?.to_string();
        let remote = git(folder, &["remote", "get-url", "origin"]);
        let source = remote.as_deref().and_then(address);
        Some(Self { revision, source, created })
    }

    /// Labels with their values.
    pub fn labels(self) -> impl Iterator<Item = (&'static str, String)> {
        let source = self.source.map(|source| (SOURCE, source));
        [(REVISION, self.revision), (CREATED, self.created)].into_iter().chain(source)
    }
}

fn git(folder: &Path, words: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(words)
        // Looking takes no lock, and asks nobody.
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// The address of a repository for people: `git@host:team/api.git` and
/// `https://user:token@host/team/api` to `https://host/team/api`. What leads to a folder of this
/// machine says nothing elsewhere.
pub fn address(remote: &str) -> Option<String> {
    let rest = match remote.split_once("://") {
        Some(("http" | "https" | "ssh" | "git", rest)) => rest.to_owned(),
        Some(_) => return None,
        None => {
            let (host, path) = remote.split_once(':')?;
            (!host.contains('/')).then(|| format!("{host}/{}", path.trim_start_matches('/')))?
        }
    };
    let (host, path) = rest.split_once('/')?;
    let host = host.rsplit('@').next().unwrap_or(host);
    let host = match (remote.starts_with("http"), host.split_once(':')) {
        // The port of ssh leads no browser anywhere.
        (false, Some((name, _))) => name,
        (true, _) | (false, None) => host,
    };
    let path = path.trim_end_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    let scheme = if remote.starts_with("http://") { "http" } else { "https" };
    (!host.is_empty() && !path.is_empty()).then(|| format!("{scheme}://{host}/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_for_people_and_hold_no_secret() {
        for (remote, expected) in [
            ("git@git.example:team/api.git", Some("https://git.example/team/api")),
            ("https://me:token@git.example/team/api.git", Some("https://git.example/team/api")),
            ("ssh://git@git.example:2222/team/api", Some("https://git.example/team/api")),
            ("http://git.example:3000/team/api/", Some("http://git.example:3000/team/api")),
            ("/srv/git/api.git", None),
            ("file:///srv/git/api.git", None),
            ("../api", None),
        ] {
            assert_eq!(address(remote).as_deref(), expected, "{remote}");
        }
    }

    #[test]
    fn a_commit_is_named_and_what_was_changed_since_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        assert_eq!(Provenance::of(path), None);
        let run = |words: &[&str]| {
            let identity =
                ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"];
            let done = Command::new("git").arg("-C").arg(path).args(identity).args(words).output();
            assert!(done.unwrap().status.success(), "{words:?}");
        };
        run(&["init", "-q"]);
        std::fs::write(path.join("a"), "1").unwrap();
        run(&["add", "a"]);
        run(&["commit", "-q", "-m", "first"]);
        run(&["remote", "add", "origin", "git@git.example:team/api.git"]);
        let clean = Provenance::of(path).unwrap();
        assert_eq!(clean.revision.len(), 40);
        assert_eq!(clean.source.as_deref(), Some("https://git.example/team/api"));
        assert_eq!(Provenance::of(path), Some(clean.clone()));
        std::fs::write(path.join("a"), "2").unwrap();
        let dirty = Provenance::of(path).unwrap();
        assert_eq!(dirty.revision, format!("{}-dirty", clean.revision));
    }
}
