//! Single rules of the configuration, as people write them.

use std::fmt;
use std::path::PathBuf;

use indexmap::IndexMap;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_saphyr::Spanned;

use crate::chance::Rate;

/// What a reference means for the sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// The child comes because this parent was chosen.
    Via,
    /// The child comes only if this parent was chosen, too.
    Require,
    /// The parent comes along with the child, but not its other children.
    Pull,
    /// The child comes whenever the parent does, chosen or not.
    With,
    /// The reference is emptied unless its parent came for another reason.
    Null,
}

impl Policy {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Via => "via",
            Self::Require => "require",
            Self::Pull => "pull",
            Self::With => "with",
            Self::Null => "null",
        }
    }
}

/// A policy in a table's rule, where `null` is YAML's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyWord(pub Policy);

impl<'de> Deserialize<'de> for PolicyWord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word: Option<String> = Option::deserialize(deserializer)?;
        policy(word.as_deref()).map(Self).ok_or_else(|| {
            let word = word.unwrap_or_default();
            de::Error::custom(format!("`{word}` is not one of via, require, pull, with, null"))
        })
    }
}

/// How a whole table is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableMode {
    /// Every row, with its parents.
    All,
    /// No row.
    None,
}

/// `via: owner_id` or `via: [owner_id, team_id]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum ViaWord {
    /// One.
    One(String),
    /// Any of these.
    Several(Vec<String>),
}

impl ViaWord {
    /// The columns or constraints named.
    pub fn names(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Several(names) => names,
        }
    }
}

/// `200/post_id`: at most so many rows for each parent that this column refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// How many, at most, for one parent.
    pub rows: u32,
    /// The referring column, or the constraint's name.
    pub by: String,
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parts = text.split_once('/').and_then(|(rows, by)| Some((rows.parse().ok()?, by)));
        match parts {
            Some((rows, by)) if !by.is_empty() => Ok(Self { rows, by: by.to_owned() }),
            _ => Err(de::Error::custom(format!("`{text}` is not a limit such as 200/post_id"))),
        }
    }
}

/// A reference that the database does not know of.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceRule {
    /// Only where this SQL condition holds.
    #[serde(default)]
    pub when: Option<String>,
    /// A column, or an SQL expression over the row; `column[]` for an array of references.
    pub column: String,
    /// `table.column`; the column must be unique.
    pub to: String,
    /// What it means. `null` is refused unless `column` is a plain column.
    pub policy: ReferenceWord,
}

impl ReferenceRule {
    /// The column whose elements are references, if it is written so.
    pub fn array(&self) -> Option<&str> {
        self.column.strip_suffix("[]")
    }
}

/// What a reference that the database does not know of means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferenceWord {
    /// As with a foreign key.
    Policy(Policy),
    /// Elements of an array whose row does not come are left out of it.
    Prune,
}

impl<'de> Deserialize<'de> for ReferenceWord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word: Option<String> = Option::deserialize(deserializer)?;
        match word.as_deref() {
            Some("prune") => Ok(Self::Prune),
            word => policy(word).map(Self::Policy).ok_or_else(|| {
                let word = word.unwrap_or_default();
                de::Error::custom(format!(
                    "`{word}` is not one of via, require, pull, with, null, prune"
                ))
            }),
        }
    }
}

fn policy(word: Option<&str>) -> Option<Policy> {
    Some(match word {
        None | Some("null") => Policy::Null,
        Some("via") => Policy::Via,
        Some("require") => Policy::Require,
        Some("pull") => Policy::Pull,
        Some("with") => Policy::With,
        Some(_) => return None,
    })
}

/// What is said of one table.
#[derive(Clone, Debug, Default)]
pub struct TableRule {
    /// `all` or `none`; then nothing else.
    pub mode: Option<TableMode>,
    /// The references by which its rows come.
    pub via: Option<Spanned<ViaWord>>,
    /// At most so many for each parent.
    pub limit: Option<Spanned<Limit>>,
    /// Only this share of the rows that would come.
    pub rate: Option<Rate>,
    /// References that the database does not know of.
    pub refs: Vec<Spanned<ReferenceRule>>,
    /// Policies by referring column, or by the constraint's name.
    pub columns: IndexMap<String, Spanned<PolicyWord>>,
}

impl<'de> Deserialize<'de> for TableRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TableRuleVisitor)
    }
}

struct TableRuleVisitor;

impl<'de> Visitor<'de> for TableRuleVisitor {
    type Value = TableRule;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`all`, `none`, or policies by column")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<TableRule, E> {
        let mode = match word {
            "all" => TableMode::All,
            "none" => TableMode::None,
            _ => return Err(E::custom(format!("`{word}` is neither `all` nor `none`"))),
        };
        Ok(TableRule { mode: Some(mode), ..TableRule::default() })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TableRule, A::Error> {
        let mut rule = TableRule::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "via" => rule.via = Some(map.next_value()?),
                "limit" => rule.limit = Some(map.next_value()?),
                "rate" => rule.rate = Some(map.next_value()?),
                "refs" => rule.refs = map.next_value()?,
                _ => {
                    rule.columns.insert(key, map.next_value()?);
                }
            }
        }
        Ok(rule)
    }
}

/// What becomes of a column.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum MaskRule {
    /// A class such as `email`, or `keep`.
    Class(Option<String>),
    /// One value for all rows.
    Set {
        /// The value as text.
        set: String,
    },
    /// Computed from another column after that one was masked: `lower(email)`.
    Derive {
        /// `column`, `lower(column)`, `upper(column)` or `trim(column)`.
        derive: String,
    },
}

/// A number of bytes, such as `500MB` or `2GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let unit: Option<u64> = match text[digits..].trim() {
            "" | "B" => Some(1),
            "kB" | "KB" => Some(1_000),
            "MB" => Some(1_000_000),
            "GB" => Some(1_000_000_000),
            "KiB" => Some(1 << 10),
            "MiB" => Some(1 << 20),
            "GiB" => Some(1 << 30),
            _ => None,
        };
        let amount: Option<u64> = text[..digits].parse().ok();
        match amount.zip(unit).and_then(|(amount, unit)| amount.checked_mul(unit)) {
            Some(bytes) => Ok(Self(bytes)),
            None => Err(de::Error::custom(format!("`{text}` is not a size such as 500MB"))),
        }
    }
}

/// Files that belong to the sample's rows.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilesRule {
    /// The folder beneath which the source's files are.
    pub from: PathBuf,
    /// The folder beneath which they come.
    pub to: PathBuf,
    /// A query over the sample: one column, relative paths.
    pub paths: String,
    /// What belongs to each of them where it exists: `{stem}_small.{ext}`.
    #[serde(default)]
    pub variants: Vec<String>,
    /// The most that is copied in a second.
    #[serde(default)]
    pub bandwidth: Option<Bytes>,
}
