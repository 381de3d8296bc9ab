//! What to load, and what comes of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use crate::diagnostic::{Diagnostic, Location};
use crate::model::Project;
use crate::spans::Spans;

/// What to do with attributes that the specification does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tolerance {
    /// An unknown attribute is an error.
    #[default]
    Strict,
    /// An unknown attribute is left out, with a warning; so is what Coolify and Dokploy add.
    Tolerant,
}

/// Who wrote the files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// The files may name any other file.
    #[default]
    Trusted,
    /// `include`, `extends`, `env_file` and `label_file` must stay inside the project directory.
    Untrusted,
}

/// What to load.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The Compose files, merged in this order; empty: `COMPOSE_FILE`, then default discovery.
    pub files: Vec<PathBuf>,
    /// Files of variables instead of `.env`.
    pub env_files: Vec<PathBuf>,
    /// Active profiles, besides those of `COMPOSE_PROFILES`; `*` is all.
    pub profiles: Vec<String>,
    /// Only these services and what they depend on; all if it is empty.
    pub services: Vec<String>,
    /// The project name; else `COMPOSE_PROJECT_NAME`, `name:`, the folder's name.
    pub project_name: Option<String>,
    /// The folder that relative paths start from; else the first file's.
    pub project_directory: Option<PathBuf>,
    /// An absolute path: where discovery starts and what relative arguments are relative to.
    pub working_dir: PathBuf,
    /// The variables of the process.
    pub environment: BTreeMap<String, String>,
    /// Unknown attributes: refuse or leave out.
    pub tolerance: Tolerance,
    /// Whether the files may reach outside the project directory.
    pub trust: Trust,
}

/// A loaded project.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The project with its active services only. They may still name inactive ones in `depends_on`
    /// with `required: false`.
    pub project: Project,
    /// The same as JSON.
    pub canonical: Value,
    /// What deserves a look.
    pub warnings: Vec<Diagnostic>,
    /// Names of services that no active profile asks for.
    pub inactive: Vec<String>,
    /// Every Compose file that was read, the given ones first.
    pub files: Vec<PathBuf>,
    /// The folder that relative paths start from.
    pub project_directory: PathBuf,
    /// The variables that interpolation saw: the process's, then those of `.env`.
    pub environment: BTreeMap<String, String>,
    /// The active profiles.
    pub profiles: Vec<String>,
    /// Every profile that a service names, sorted.
    pub all_profiles: Vec<String>,
    pub(crate) spans: Spans,
}

impl Loaded {
    /// Where a value of the project was written: `["services", "api", "image"]`. List items are
    /// named by their index, variables and labels by their name. For a value that the loader
    /// added, the nearest thing around it.
    pub fn span(&self, path: &[&str]) -> Option<Location> {
        self.spans.locate(path)
    }
}
