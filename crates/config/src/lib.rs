//! `shiplap.yaml`: the environments of a project, with their routes, gates and limits. Text in,
//! typed [`Settings`] out, every value knowing its file and line.
//!
//! The JSON Schema ([`schema`]) is made from the same types that are read, and is what a file is
//! checked against; all problems are reported at once.

mod check;
mod file;
mod gates;
mod groups;
mod htpasswd;
mod project;
mod routes;
mod settings;
mod triggers;

use std::path::{Path, PathBuf};

use shiplap_compose::document::{Cursor, Document, nearest_word};
use shiplap_compose::{Diagnostic, FileSource};

pub use check::{is_name, schema};
pub use file::{Challenge, GitHost, Plain, Ports, ReportFormat, Sharing, Weight};
pub use project::Shaped;
pub use routes::{Generated, address_block, plain_routes};
pub use settings::{
    AcmeSettings, Approval, Certificates, EntryPoint, GateSettings, HookSettings, JobSettings,
    RegistryAccess, ReportSettings, ScanSettings, Settings, SignatureSettings, SignedBy, Target,
    TlsSettings,
};

pub use triggers::{
    DispatchTrigger, ImageTrigger, Place, PushTrigger, RegistryTrigger, TriggerSettings,
};

/// The names under which the file is found, the first one there wins.
pub const FILE_NAMES: [&str; 2] = ["shiplap.yaml", "shiplap.yml"];

/// The most bytes that the file, or one that it names, may have.
const LARGEST_FILE: u64 = 4 << 20;

/// The file, read and checked.
#[derive(Debug, Clone)]
pub struct Config {
    path: PathBuf,
    folder: PathBuf,
    document: Document,
    file: file::File,
}

impl Config {
    /// Looks for the file in a folder and in those above it.
    #[must_use]
    pub fn find(start: &Path, files: &dyn FileSource) -> Option<PathBuf> {
        start.ancestors().find_map(|folder| {
            let there = FILE_NAMES.map(|name| folder.join(name));
            there.into_iter().find(|path| files.exists(path) && !files.is_dir(path))
        })
    }

    /// Reads and checks the file.
    ///
    /// # Errors
    /// Everything that is wrong with it, in any environment.
    pub fn read(path: &Path, files: &dyn FileSource) -> Result<Self, Vec<Diagnostic>> {
        let unreadable = |why: String| {
            let message = format!("cannot read `{}`: {why}", path.display());
            vec![Diagnostic::error("config/unreadable", message)]
        };
        let bytes =
            files.read(path, LARGEST_FILE).map_err(|error| unreadable(error.to_string()))?;
        let text =
            String::from_utf8(bytes).map_err(|_| unreadable("it is not UTF-8".to_owned()))?;
        Self::parse(path, &text)
    }

    /// The same, of a text.
    ///
    /// # Errors
    /// Everything that is wrong with it, in any environment.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Vec<Diagnostic>> {
        let document = Document::parse(path, text).map_err(|problem| vec![*problem])?;
        let problems = check::check(&document.root());
        if !problems.is_empty() {
            return Err(problems);
        }
        let json = without_empty(with_environments(document.root().to_json()));
        let file: file::File = serde_json::from_value(json).map_err(|error| {
            // The schema comes from the types; what it lets through, they take.
            let message = format!("`{}` cannot be used: {error}", path.display());
            vec![Diagnostic::error("config/wrong-value", message)]
        })?;
        let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
        let config = Self { path: path.to_path_buf(), folder, document, file };
        let problems = config.problems();
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    /// The file's path, as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder that its paths start from.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The project's name, where the file says one.
    #[must_use]
    pub fn project(&self) -> Option<&str> {
        self.file.project.as_deref()
    }

    /// The environments' names, in the order of the file.
    pub fn environments(&self) -> impl Iterator<Item = &str> {
        self.file.environments.keys().map(String::as_str)
    }

    /// Everything that one environment says. `project` is the project's name where the file says
    /// none.
    ///
    /// # Errors
    /// `config/unknown-environment`, with those that there are.
    pub fn environment(&self, name: &str, project: &str) -> Result<Settings, Vec<Diagnostic>> {
        match self.file.environments.get(name) {
            Some(environment) => Ok(Settings::new(self, name, project, environment)),
            None => {
                if let Some(members) = self.group(name) {
                    return Err(vec![self.is_group(name, members)]);
                }
                let message = format!("there is no environment `{name}`");
                let diagnostic = Diagnostic::error("config/unknown-environment", message)
                    .at(self.root().nearest(&["environments"]).key_location(), "not among these");
                let known: Vec<&str> = self.environments().collect();
                Err(vec![match nearest_word(name, known.iter().copied()) {
                    Some(near) => diagnostic.help(format!("did you mean `{near}`?")),
                    None => diagnostic.help(format!("there are {}", known.join(", "))),
                }])
            }
        }
    }

    /// The settings of an environment that is not in the file, made from those of one that is: the
    /// same, with a Compose project, host ports and hosts of its own.
    ///
    /// # Errors
    /// `config/unknown-environment` where the file has no `base`.
    pub fn derived(
        &self,
        base: &str,
        name: &str,
        project: &str,
    ) -> Result<Settings, Vec<Diagnostic>> {
        Ok(self.environment(base, project)?.derive(name))
    }

    pub(crate) fn root(&self) -> Cursor<'_> {
        self.document.root()
    }

    /// The value at a path, or the nearest thing around it.
    pub(crate) fn at(&self, path: &[&str]) -> Cursor<'_> {
        self.root().nearest(path)
    }

    fn problems(&self) -> Vec<Diagnostic> {
        let mut problems = Vec::new();
        for (name, environment) in &self.file.environments {
            let here = self.root().nearest(&["environments", name]);
            if !check::is_name(name) {
                problems.push(
                    Diagnostic::error(
                        "config/wrong-value",
                        format!("an environment cannot be called `{name}`"),
                    )
                    .at(here.key_location(), "not a name")
                    .help("lower-case letters, digits, `-` and `_`, the first a letter or a digit"),
                );
            }
            settings::check(self, &here, environment, &mut problems);
            routes::check(&here, environment, &mut problems);
        }
        settings::check_names(self, &mut problems);
        settings::check_entries(self, &mut problems);
        groups::check(self, &mut problems);
        gates::check_registries(self, &mut problems);
        triggers::check(self, &mut problems);
        problems
    }
}

/// An environment of which nothing is said is one all the same.
fn with_environments(mut json: serde_json::Value) -> serde_json::Value {
    let environments = json.get_mut("environments").and_then(|all| all.as_object_mut());
    for environment in environments.into_iter().flat_map(|all| all.values_mut()) {
        if environment.is_null() {
            *environment = serde_json::json!({});
        }
    }
    json
}

/// What is left empty is as if it was not there.
fn without_empty(json: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match json {
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(
                kept.map(|(key, value)| (key, without_empty(value)))
                    .filter(|(key, _)| !key.starts_with("x-"))
                    .collect(),
            )
        }
        Value::Array(list) => Value::Array(list.into_iter().map(without_empty).collect()),
        other => other,
    }
}
