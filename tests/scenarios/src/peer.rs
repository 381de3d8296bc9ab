//! Docker Compose v2, to compare with and to take over from.

use std::path::PathBuf;
use std::process::Command;

use crate::{Lab, Program, Run, skip};

/// A Docker Compose v2.
#[derive(Clone, Debug)]
pub struct Peer {
    words: Vec<String>,
    /// What it says of itself.
    pub version: String,
}

/// What `COMPOSE` names, else `docker compose`, else `docker-compose` if that is not version 1.
#[must_use]
pub fn peer(lab: &Lab) -> Option<Peer> {
    let named = std::env::var("COMPOSE").unwrap_or_default();
    let candidates = [named.as_str(), "docker compose", "docker-compose"];
    let found = candidates.iter().find_map(|candidate| {
        let words: Vec<String> = candidate.split_whitespace().map(str::to_owned).collect();
        let (program, first) = words.split_first()?;
        let answer =
            Command::new(program).args(first).args(["version", "--short"]).output().ok()?;
        let version = String::from_utf8_lossy(&answer.stdout).trim().to_owned();
        let fits = answer.status.success() && !version.is_empty() && !version.starts_with("1.");
        fits.then_some(Peer { words, version })
    });
    if found.is_none() {
        return skip(&format!("{}: no Docker Compose v2; COMPOSE can name one", lab.project));
    }
    found
}

impl Peer {
    /// Runs it in a project's folder.
    #[must_use]
    pub fn run(&self, lab: &Lab, words: &[&str]) -> Run {
        self.start(lab, words).finish()
    }

    /// Starts it in a project's folder.
    #[must_use]
    pub fn start(&self, lab: &Lab, words: &[&str]) -> crate::Running {
        let (program, first) = self.words.split_first().expect("a peer has a name");
        let first: Vec<&str> = first.iter().map(String::as_str).collect();
        let command = lab.program(&PathBuf::from(program), &[&first, words].concat());
        Program::new(command).start()
    }
}
