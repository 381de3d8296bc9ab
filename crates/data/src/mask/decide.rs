//! What becomes of every column: the configuration's word, or a refusal.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use super::cell::{Cell, Derivation};
use super::class::Class;
use super::classify::Finding;
use super::fake::{Faker, Widths};
use super::originals::Originals;
use super::value::ColumnMask;
use crate::config::{Config, MaskRule, SampleConfig, TableMode, place};
use crate::diagnostic::{Diagnostic, Place};
use crate::schema::{Column, Schema, TableId};

/// What the configuration says of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    Keep,
    Class(Class),
    Set(String),
    Derive(Derivation, String),
}

/// The rules of all columns that have one.
pub struct Decisions {
    /// By table and column.
    rules: BTreeMap<(usize, usize), (Rule, Option<Place>)>,
    without_rows: Vec<bool>,
}

/// What becomes of all columns.
pub struct Cells {
    /// For each table, the columns that are copied, and what becomes of each.
    pub tables: Vec<(Vec<usize>, Vec<Cell>)>,
    /// Fills with what is masked.
    pub originals: Arc<Originals>,
}

/// `users.email`
pub fn column_name(schema: &Schema, table: TableId, column: usize) -> String {
    let table = schema.table(table);
    format!("{}.{}", table.name, table.columns[column].name)
}

impl Decisions {
    /// Reads the rules.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(schema: &Schema, config: &Config) -> Result<Self, Vec<Diagnostic>> {
        let config = &config.sample;
        let mut problems = Vec::new();
        let mut rules = BTreeMap::new();
        // Rules for one column count more than those for a name, so they come later.
        let (all, single): (Vec<_>, Vec<_>) =
            config.mask.iter().partition(|(key, _)| key.starts_with("*."));
        for reviewed in &config.reviewed {
            let at = place(reviewed);
            match columns(schema, &reviewed.value).as_slice() {
                [] => problems.push(unknown(&reviewed.value, at)),
                found => rules.extend(found.iter().map(|c| (*c, (Rule::Keep, Some(at))))),
            }
        }
        for (key, given) in all.into_iter().chain(single) {
            let at = place(given);
            let found = columns(schema, key);
            if found.is_empty() {
                problems.push(unknown(key, at));
            }
            match rule(&given.value) {
                Ok(rule) => rules.extend(found.into_iter().map(|c| (c, (rule.clone(), Some(at))))),
                Err(message) => problems.push(Diagnostic::new("data/mask", message).at(at)),
            }
        }
        follow_references(schema, &mut rules);
        let without_rows = without_rows(schema, config);
        let decisions = Self { rules, without_rows };
        problems.extend(decisions.differing_keys(schema));
        if problems.is_empty() { Ok(decisions) } else { Err(problems) }
    }

    /// Whether a column of a table that comes has no rule.
    pub fn is_open(&self, table: TableId, column: usize) -> bool {
        !self.without_rows[table.0] && !self.rules.contains_key(&(table.0, column))
    }

    /// Both ends of a reference must become the same.
    fn differing_keys(&self, schema: &Schema) -> Vec<Diagnostic> {
        let mut problems = Vec::new();
        for key in &schema.foreign_keys {
            for (&child, &parent) in key.child_columns.iter().zip(&key.parent_columns) {
                let rule = |table: TableId, column: usize| self.rules.get(&(table.0, column));
                let of = |found: Option<&(Rule, Option<Place>)>| match found {
                    None => Rule::Keep,
                    Some((rule, _)) => rule.clone(),
                };
                let ends = (rule(key.child, child), rule(key.parent, parent));
                // A reference that is emptied refers to nothing.
                if of(ends.0) == of(ends.1) || of(ends.0) == Rule::Class(Class::Null) {
                    continue;
                }
                let message = format!(
                    "`{}` refers to `{}`, but they are masked differently",
                    column_name(schema, key.child, child),
                    column_name(schema, key.parent, parent)
                );
                let problem = Diagnostic::new("data/key-masks-differ", message)
                    .help("give both the same class, or `keep` both");
                let at = ends.0.or(ends.1).and_then(|(_, at)| *at);
                problems.push(match at {
                    Some(at) => problem.at(at),
                    None => problem,
                });
            }
        }
        problems
    }

    /// The narrowest columns of the classes whose fakes have a width.
    fn widths(&self, schema: &Schema) -> Widths {
        let narrowest = |class: Class| {
            let of_class = self.rules.iter().filter(|(_, (rule, _))| *rule == Rule::Class(class));
            let widths = of_class
                .filter_map(|(&(table, column), _)| schema.tables[table].columns[column].max_chars);
            widths.min().map_or(usize::MAX, |most| most as usize)
        };
        Widths { email: narrowest(Class::Email), phone: narrowest(Class::Phone) }
    }

    /// What becomes of each table's columns; those that the database computes are not among them.
    ///
    /// # Errors
    /// Rules that columns cannot follow.
    pub fn cells(
        &self,
        schema: &Schema,
        secret: &[u8],
        chance: &[u8; 32],
    ) -> Result<Cells, Vec<Diagnostic>> {
        let faker = Arc::new(Faker::new(secret, chance, self.widths(schema)));
        let mut problems = Vec::new();
        let mut tables = Vec::new();
        for (at, table) in schema.tables.iter().enumerate() {
            let copied: Vec<usize> =
                (0..table.columns.len()).filter(|&c| !table.columns[c].generated).collect();
            let mut cells = Vec::new();
            for &column in &copied {
                let cell = self.cell(&faker, (at, column), &table.columns, &copied);
                cells.push(cell.unwrap_or_else(|(why, place)| {
                    let name = column_name(schema, TableId(at), column);
                    let problem = Diagnostic::new("data/mask", format!("`{name}`: {why}"));
                    problems.push(match place {
                        Some(place) => problem.at(place),
                        None => problem,
                    });
                    Cell::Keep
                }));
            }
            tables.push((copied, cells));
        }
        let originals = faker.originals().clone();
        if problems.is_empty() { Ok(Cells { tables, originals }) } else { Err(problems) }
    }

    fn cell(
        &self,
        faker: &Arc<Faker>,
        at: (usize, usize),
        columns: &[Column],
        copied: &[usize],
    ) -> Result<Cell, (String, Option<Place>)> {
        let Some((rule, place)) = self.rules.get(&at) else { return Ok(Cell::Keep) };
        let column = &columns[at.1];
        let failed = |why: super::value::Unmaskable| (why.to_string(), *place);
        match rule {
            Rule::Keep => Ok(Cell::Keep),
            Rule::Class(class) => {
                ColumnMask::new(faker, *class, column).map(Cell::Mask).map_err(failed)
            }
            Rule::Set(text) => ColumnMask::set(faker, text, column).map(Cell::Mask).map_err(failed),
            Rule::Derive(how, from) => {
                let from = copied.iter().position(|&at| columns[at].name == *from);
                match from {
                    Some(from) => Ok(Cell::Derive { from, how: *how }),
                    None => Err(("it is derived from a column that is not copied".into(), *place)),
                }
            }
        }
    }
}

/// A column without a rule that refers to one with a rule follows it: their values are the same.
fn follow_references(schema: &Schema, rules: &mut BTreeMap<(usize, usize), (Rule, Option<Place>)>) {
    loop {
        let mut followed = Vec::new();
        for key in &schema.foreign_keys {
            for (&child, &parent) in key.child_columns.iter().zip(&key.parent_columns) {
                let child = (key.child.0, child);
                match rules.get(&(key.parent.0, parent)) {
                    Some(rule @ (Rule::Keep | Rule::Class(_) | Rule::Set(_), _))
                        if !rules.contains_key(&child) =>
                    {
                        followed.push((child, rule.clone()));
                    }
                    Some(_) | None => {}
                }
            }
        }
        if followed.is_empty() {
            return;
        }
        rules.extend(followed);
    }
}

fn without_rows(schema: &Schema, config: &SampleConfig) -> Vec<bool> {
    let is_none = |id: TableId| {
        let rule = config.tables.get(&schema.table(id).name.to_string());
        rule.is_some_and(|rule| rule.value.mode == Some(TableMode::None))
    };
    schema.ids().map(is_none).collect()
}

fn unknown(key: &str, at: Place) -> Diagnostic {
    Diagnostic::new("data/unknown-column", format!("there is no column `{key}`"))
        .at(at)
        .help("write `table.column`, or `*.column` for all of that name")
}

fn rule(given: &MaskRule) -> Result<Rule, String> {
    match given {
        MaskRule::Class(None) => Ok(Rule::Class(Class::Null)),
        MaskRule::Class(Some(word)) if word == "keep" => Ok(Rule::Keep),
        MaskRule::Class(Some(word)) => Class::parse(word)
            .map(Rule::Class)
            .ok_or_else(|| format!("`{word}` is not one of keep, {}", Class::words())),
        MaskRule::Set { set } => Ok(Rule::Set(set.clone())),
        MaskRule::Derive { derive } => Derivation::parse(derive)
            .map(|(how, column)| Rule::Derive(how, column.to_owned()))
            .ok_or_else(|| format!("`{derive}` is not a column, or lower, upper, trim of one")),
    }
}

/// The columns that a key names.
fn columns(schema: &Schema, key: &str) -> Vec<(usize, usize)> {
    let tables = schema.tables.iter().enumerate();
    match key.strip_prefix("*.") {
        Some(column) => {
            tables.filter_map(|(at, table)| Some((at, table.column(column)?))).collect()
        }
        None => {
            // Names may hold dots: the table's is whatever fits.
            let fits = tables.filter_map(|(at, table)| {
                let rest = key.strip_prefix(&table.name.to_string())?.strip_prefix('.')?;
                Some((at, table.column(rest)?))
            });
            fits.collect()
        }
    }
}

/// A column that looks personal or secret and has no rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unclassified {
    /// `users.email`
    pub column: String,
    /// What it looks like, and why.
    pub finding: Finding,
    /// Whether the database computes it, so that it follows from what is masked.
    pub generated: bool,
    /// Whether it may be NULL.
    pub nullable: bool,
}

/// Rules for these columns, to paste under `sample:`.
pub fn block(columns: &[Unclassified]) -> String {
    let mut text = String::from("  mask:\n");
    for column in columns {
        let key = yaml_key(&column.column);
        let why = &column.finding.why;
        let word = match column.finding.class {
            Class::Null if !column.nullable => "keep",
            class => class.word(),
        };
        match column.generated {
            true => writeln!(text, "    # {key} is computed from other columns"),
            false => writeln!(text, "    {key}: {word}  # {why}"),
        }
        .expect("writing to a string works");
    }
    text
}

/// A key of a mapping, in quotes where it needs them.
pub fn yaml_key(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    match name.chars().all(plain) && name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        true => name.to_owned(),
        false => format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\"")),
    }
}
