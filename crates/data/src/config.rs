//! The `data:` section: which rows are taken, and what becomes of personal data in them.

mod rule;

use indexmap::IndexMap;
use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::chance::Rate;
use crate::diagnostic::{Diagnostic, Place};
use crate::vault::{Pattern, Vault};
pub use rule::{
    FilesRule, Limit, MaskRule, Policy, PolicyWord, ReferenceRule, ReferenceWord, TableMode,
    TableRule, ViaWord,
};

/// The whole section.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How a sample is taken.
    pub sample: SampleConfig,
}

/// How a sample is taken.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SampleConfig {
    /// The table whose rows are chosen; all others follow.
    pub root: Option<RootConfig>,
    /// What the plan must not pass.
    pub max: MaxConfig,
    /// What comes of rows that are there only because others refer to them.
    pub extra: Extra,
    /// Rules for tables, by name.
    pub tables: IndexMap<String, Spanned<TableRule>>,
    /// What becomes of columns: `table.column`, or `*.column` for all of that name.
    pub mask: IndexMap<String, Spanned<MaskRule>>,
    /// Columns that somebody looked at and found not personal.
    pub reviewed: Vec<Spanned<String>>,
    /// What the schema was when somebody last looked, by table.
    pub fingerprint: IndexMap<String, String>,
    /// Files that belong to the sample's rows.
    pub files: Vec<Spanned<FilesRule>>,
}

/// The table whose rows are chosen.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootConfig {
    /// Its name.
    pub table: Spanned<String>,
    /// How many of its rows.
    #[serde(default)]
    pub rate: Option<Spanned<Rate>>,
    /// Only among rows for which this SQL condition holds.
    #[serde(default, rename = "where")]
    pub condition: Option<String>,
    /// Rows for which one of these holds come in any case.
    #[serde(default)]
    pub always: Vec<String>,
}

/// What comes of rows that are there only because others refer to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Extra {
    /// All of their columns, masked like those of other rows.
    #[default]
    Real,
    /// Keys, references and what cannot be empty; the rest is emptied.
    Stub,
}

/// What the plan must not pass.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MaxConfig {
    /// Rows of the sample.
    pub rows: Option<u64>,
    /// Bytes of the sample, such as `500MB`.
    pub bytes: Option<rule::Bytes>,
    /// Share of a table's source rows that come only because others refer to them.
    pub extra: Option<Rate>,
}

impl Config {
    /// Reads the section's text.
    pub fn parse(text: &str) -> Result<Self, Diagnostic> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_saphyr::from_str(text).map_err(|error| {
            // The library's own text repeats the place and the line, which we show ourselves.
            let message = error.without_snippet().to_string();
            let message = message.lines().next().unwrap_or_default().to_owned();
            let diagnostic = Diagnostic::new("data/configuration", message);
            match error.location() {
                Some(location) => diagnostic.at(place_of(&location)),
                None => diagnostic,
            }
        })
    }
}

impl SampleConfig {
    /// The vaults whose files come.
    ///
    /// # Errors
    /// Patterns that are none.
    pub fn vaults(&self) -> Result<Vec<Vault>, Vec<Diagnostic>> {
        let mut problems = Vec::new();
        let vault = |rule: &Spanned<FilesRule>| {
            let FilesRule { from, to, variants, bandwidth, .. } = &rule.value;
            let mut patterns = Vec::new();
            for variant in variants {
                match Pattern::parse(variant) {
                    Ok(pattern) => patterns.push(pattern),
                    Err(why) => {
                        problems.push(Diagnostic::new("data/variant", why).at(place(rule)));
                    }
                }
            }
            Vault {
                from: from.clone(),
                to: to.clone(),
                variants: patterns,
                bytes_per_second: bandwidth.map(|bytes| bytes.0),
            }
        };
        let vaults = self.files.iter().map(vault).collect();
        if problems.is_empty() { Ok(vaults) } else { Err(problems) }
    }
}

/// Where a value stands.
pub fn place<T>(value: &Spanned<T>) -> Place {
    place_of(&value.referenced)
}

fn place_of(location: &serde_saphyr::Location) -> Place {
    Place { line: location.line(), column: location.column() }
}

#[cfg(test)]
mod tests;
