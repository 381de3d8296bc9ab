//! What a deployment should bring about.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use crate::{ImagePin, RouteTable, Secret};

/// A project with its images pinned and its files read: the planner's left hand.
#[derive(Debug, Clone)]
pub struct Desired {
    /// The project's name, as Compose would call it.
    pub project: String,
    /// The environment's name.
    pub environment: String,
    /// The project's folder, for Compose's own labels.
    pub working_dir: String,
    /// The Compose files, for Compose's own labels.
    pub config_files: Vec<String>,
    /// The normalised project. Only active services are in it.
    pub compose: shiplap_compose::Project,
    /// The active services.
    pub services: BTreeMap<String, ServiceSpec>,
    /// Which requests from outside go where.
    pub routes: RouteTable,
}

/// One service as it should be.
#[derive(Debug, Clone)]
pub struct ServiceSpec {
    /// The service's name.
    pub name: String,
    /// The normalised service.
    pub service: shiplap_compose::model::Service,
    /// How many replicas.
    pub replicas: u32,
    /// Its ports that routes lead to.
    pub routed: BTreeSet<u16>,
    /// The image, pinned.
    pub image: ImagePin,
    /// Files that are written into each container before it starts.
    pub files: Vec<InjectedFile>,
    /// Everything of the service that makes a container what it is, by field.
    pub fields: Fields,
    /// The same in the engine's own terms, with defaults filled in, to compare with a container
    /// that somebody else made.
    pub facts: Fields,
}

/// A file that is copied into a container before it starts: a config or a secret whose content
/// comes from the environment or from the Compose file itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InjectedFile {
    /// Where it appears in the container, an absolute path.
    pub target: String,
    /// Its content.
    pub content: Secret<Vec<u8>>,
    /// Owner, numeric.
    pub uid: u32,
    /// Group, numeric.
    pub gid: u32,
    /// Permission bits, such as `0o444`.
    pub mode: u32,
}

/// Named values that make a container what it is: `environment.PORT`, `command`,
/// `volumes./app/data`.
///
/// Values stay on this machine; what is written down are salted digests of them, see
/// [`Fields::digests`]. Printing shows the names only.
#[derive(Clone, PartialEq, Default)]
pub struct Fields(BTreeMap<String, Value>);

impl Fields {
    /// No fields.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a field.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        self.0.insert(name.into(), value.into());
    }

    /// The value of a field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Removes a field.
    pub fn unset(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    /// The names and values, in order of name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Names of the fields in which the two differ, in order.
    #[must_use]
    pub fn differing(&self, other: &Self) -> Vec<String> {
        let mut names: Vec<&String> = self.0.keys().chain(other.0.keys()).collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter().filter(|name| self.0.get(*name) != other.0.get(*name)).cloned().collect()
    }

    /// Digests that tell later which field changed without telling what it was.
    #[must_use]
    pub fn digests(&self, salt: &str) -> FieldDigests {
        let digests = self.0.iter().map(|(n, v)| (n.clone(), digest(salt, n, v))).collect();
        FieldDigests { salt: salt.to_owned(), digests }
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Digests of [`Fields`], as a label on a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldDigests {
    salt: String,
    digests: BTreeMap<String, String>,
}

impl FieldDigests {
    /// Version of the label's form. A label of another version is not read.
    const VERSION: &str = "1";

    /// Names of the fields in which `desired` differs from what was digested, in order.
    #[must_use]
    pub fn differing(&self, desired: &Fields) -> Vec<String> {
        let now = desired.digests(&self.salt).digests;
        let mut names: Vec<&String> = now.keys().chain(self.digests.keys()).collect();
        names.sort_unstable();
        names.dedup();
        names
            .into_iter()
            .filter(|name| now.get(*name) != self.digests.get(*name))
            .cloned()
            .collect()
    }

    /// The label's text.
    #[must_use]
    pub fn to_label(&self) -> String {
        let map = serde_json::to_string(&self.digests).expect("a map of strings serialises");
        format!("{};{};{map}", Self::VERSION, self.salt)
    }

    /// Reads a label's text; `None` when it is not of a form that this version knows.
    #[must_use]
    pub fn parse(label: &str) -> Option<Self> {
        let rest = label.strip_prefix(Self::VERSION)?.strip_prefix(';')?;
        let (salt, map) = rest.split_once(';')?;
        Some(Self { salt: salt.to_owned(), digests: serde_json::from_str(map).ok()? })
    }

    /// One digest over all fields, for Compose's `config-hash` label.
    #[must_use]
    pub fn whole(&self) -> String {
        blake3::hash(self.to_label().as_bytes()).to_hex().to_string()
    }
}

/// Sixty-four bits tell fields apart; the salt keeps equal values of two containers unlike.
fn digest(salt: &str, name: &str, value: &Value) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [salt, name, &value.to_string()] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::new();
        for (name, value) in pairs {
            fields.set(*name, *value);
        }
        fields
    }

    #[test]
    fn digests_tell_which_field_changed_and_not_its_value() {
        let old = fields(&[("environment.KEY", "hunter2"), ("user", "app")]);
        let new = fields(&[("environment.KEY", "hunter3"), ("user", "app"), ("command", "x")]);
        let label = old.digests("salt").to_label();
        assert!(!label.contains("hunter2"));
        let read = FieldDigests::parse(&label).expect("own label");
        assert_eq!(read.differing(&old), Vec::<String>::new());
        assert_eq!(read.differing(&new), ["command", "environment.KEY"]);
    }

    #[test]
    fn printing_fields_shows_names_only() {
        let text = format!("{:?}", fields(&[("environment.KEY", "hunter2")]));
        assert!(text.contains("environment.KEY") && !text.contains("hunter2"));
    }
}
