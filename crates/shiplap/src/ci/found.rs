//! What a service's repository holds.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::commands::build::address;

/// Where a Dockerfile usually is, from the folder.
const DOCKERFILES: [&str; 4] =
    ["Dockerfile", "docker/Dockerfile", "build/Dockerfile", "deploy/Dockerfile"];

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The repository's root.
    pub root: Option<PathBuf>,
    /// The Dockerfile, from the root.
    pub dockerfile: Option<String>,
    /// The git host.
    pub host: Option<String>,
    /// `owner/name`
    pub repository: Option<String>,
    /// The branch that is checked out.
    pub branch: Option<String>,
}

impl Found {
    /// Looks at a folder.
    pub fn look(here: &Path) -> Self {
        let root = git(here, &["rev-parse", "--show-toplevel"]).map(PathBuf::from);
        let whole = std::fs::canonicalize(here).unwrap_or_else(|_| here.to_path_buf());
        let dockerfile = DOCKERFILES.iter().map(|name| whole.join(name)).find(|p| p.is_file());
        let dockerfile = dockerfile.and_then(|path| {
            let base = root.as_ref().map_or(whole.clone(), |root| {
                std::fs::canonicalize(root).unwrap_or_else(|_| root.clone())
            });
            Some(path.strip_prefix(base).ok()?.to_str()?.to_owned())
        });
        let branch = git(here, &["symbolic-ref", "--short", "HEAD"]);
        let remote = git(here, &["remote", "get-url", "origin"]).unwrap_or_default();
        Self { root, dockerfile, branch, ..Self::default() }.with_remote(&remote)
    }

    /// The same with what a remote's address says.
    pub fn with_remote(self, remote: &str) -> Self {
        let address = address(remote);
        let rest = address.as_deref().and_then(|address| address.split_once("://"));
        let parts = rest.and_then(|(_, rest)| rest.split_once('/'));
        let (host, repository) = parts.unzip();
        Self { host: host.map(str::to_owned), repository: repository.map(str::to_owned), ..self }
    }
}

fn git(folder: &Path, words: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(words)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
