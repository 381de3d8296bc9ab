//! Statements for what the closure asks, and for the rows that it takes. All of them are
//! `COPY (SELECT …) TO STDOUT`: whoever reads the source may do nothing else.

use crate::closure::{Ask, Selection};
use crate::config::Policy;
use crate::key::Key;
use crate::rules::{EdgeId, KeyColumns, KeyPart, Mode, Rules};
use crate::schema::{KeyKind, Schema, TableId, literal, quoted};

/// Below this share of a table's rows, an index is worth its scattered reads.
const INDEX_WORTH: u64 = 30;

/// Writes statements over one schema.
pub(super) struct Statements<'a> {
    pub schema: &'a Schema,
    pub rules: &'a Rules,
    /// Whether `= ANY (array)` is looked up in a hash table (PostgreSQL 14) and not one by one.
    pub hashes_arrays: bool,
    /// Keys in one statement, at most.
    pub keys_at_once: usize,
}

/// Which rows a statement returns.
pub(super) enum Filter {
    /// Those that are taken.
    Exact,
    /// All of the table, with their keys: who reads them must choose.
    Unfiltered,
}

/// A statement for a table's rows, with what comes after its columns.
pub(super) struct Extract {
    pub sql: String,
    pub filter: Filter,
    pub tail: Tail,
}

/// What follows a row's columns.
pub(super) struct Tail {
    /// Edges whose keys come first.
    pub keys_of: Vec<EdgeId>,
    /// Whether the row's identity comes after those.
    pub identity: bool,
}

impl Statements<'_> {
    fn from(&self, table: TableId) -> String {
        self.schema.table(table).only()
    }

    /// One statement or more, each with a part of the keys; rows as [`super::keys`] reads them.
    pub fn ask(&self, ask: &Ask) -> Vec<String> {
        match ask {
            Ask::Root => vec![self.root()],
            Ask::Whole(table) => vec![self.rows(*table, None, "false")],
            Ask::Children { edge, parents } => {
                let edge = self.rules.edge(*edge);
                self.by_keys(edge.child, &edge.refers, parents)
            }
            Ask::Parents { table, key, values } => {
                self.by_keys(*table, &self.rules.table(*table).keys[*key], values)
            }
            Ask::LeafParents(_) => unreachable!("leaves have a statement of their own"),
        }
    }

    fn by_keys(&self, table: TableId, columns: &KeyColumns, keys: &[Key]) -> Vec<String> {
        let chunks = keys.chunks(self.keys_at_once);
        let condition = |chunk: &[Key]| self.among(table, columns, chunk.iter(), chunk.len());
        chunks.map(|chunk| self.rows(table, Some(&condition(chunk)), "false")).collect()
    }

    fn root(&self) -> String {
        let conditions = &self.rules.conditions;
        let always: Vec<String> = conditions.always.iter().map(|c| format!("({c})")).collect();
        let pinned = match always.as_slice() {
            [] => "false".to_owned(),
            always => format!("coalesce({}, false)", always.join(" OR ")),
        };
        let condition = match (&conditions.only, always.as_slice()) {
            (None, _) => None,
            (Some(only), []) => Some(format!("({only})")),
            (Some(only), always) => Some(format!("({only}) OR {}", always.join(" OR "))),
        };
        self.rows(self.rules.root, condition.as_deref(), &pinned)
    }

    /// A table's keys, what its rows refer to, and whether they are pinned.
    fn rows(&self, table: TableId, condition: Option<&str>, pinned: &str) -> String {
        let rules = self.rules.table(table);
        let keys = rules.keys.iter().flat_map(|key| &key.parts);
        let refers = rules.out.iter().flat_map(|&edge| &self.rules.edge(edge).refers.parts);
        let mut columns: Vec<String> = keys.chain(refers).map(value).collect();
        columns.push(pinned.to_owned());
        copy(&columns.join(", "), &self.from(table), condition)
    }

    /// What the chosen rows of a leaf refer to over these edges, each key once if it is one edge.
    pub fn leaf_parents(&self, leaf: TableId, edges: &[EdgeId], condition: Option<&str>) -> String {
        let parts = edges.iter().flat_map(|&edge| &self.rules.edge(edge).refers.parts);
        let columns: Vec<String> = parts.map(value).collect();
        let distinct = if edges.len() == 1 { "DISTINCT " } else { "" };
        copy(&format!("{distinct}{}", columns.join(", ")), &self.from(leaf), condition)
    }

    /// Which rows of a leaf are chosen, when it is known what else is: `None` for all. An error
    /// if it takes more keys than fit in a statement.
    pub fn leaf_condition<'k>(
        &self,
        leaf: TableId,
        core_parents: impl Fn(EdgeId) -> Vec<&'k Key>,
    ) -> Result<Option<String>, TooManyKeys> {
        if self.rules.table(leaf).mode == Mode::All {
            return Ok(None);
        }
        let mut room = self.keys_at_once;
        let mut among = |id: EdgeId| {
            let edge = self.rules.edge(id);
            let keys = core_parents(id);
            room = room.checked_sub(keys.len()).ok_or(TooManyKeys)?;
            Ok(self.among(leaf, &edge.refers, keys.iter().copied(), keys.len()))
        };
        let mut via = Vec::new();
        for edge in self.rules.out(leaf, Policy::Via) {
            via.push(among(edge)?);
        }
        let mut all = match via.as_slice() {
            [] => vec!["false".to_owned()],
            via => vec![format!("({})", via.join(" OR "))],
        };
        for edge in self.rules.out(leaf, Policy::Require) {
            let parts = &self.rules.edge(edge).refers.parts;
            let nulls: Vec<String> = parts.iter().map(|p| format!("{} IS NULL", p.sql)).collect();
            all.push(format!("({} OR {})", nulls.join(" OR "), among(edge)?));
        }
        Ok(Some(all.join(" AND ")))
    }

    /// The rows of a table that are taken, with these columns, and what is asked for after them.
    pub fn extract(
        &self,
        table: TableId,
        columns: &[usize],
        tail: Tail,
        selection: &Selection,
    ) -> Extract {
        let rules = self.rules.table(table);
        let condition = match (rules.leaf, rules.mode) {
            (_, Mode::All) => Ok(None),
            (_, Mode::None) => Ok(Some("false".to_owned())),
            (true, Mode::Root | Mode::Reached) => {
                self.leaf_condition(table, |edge| selection.core_parents(edge).collect())
            }
            (false, Mode::Root | Mode::Reached) => {
                let rows = selection.rows(table);
                match rows.len() <= self.keys_at_once {
                    true => {
                        let rows: Vec<&Key> = rows.collect();
                        let identity = &rules.keys[0];
                        Ok(Some(self.among(table, identity, rows.iter().copied(), rows.len())))
                    }
                    false => Err(TooManyKeys),
                }
            }
        };
        let columns = columns.iter().map(|&at| quoted(&self.schema.table(table).columns[at].name));
        let mut values: Vec<String> = columns.collect();
        // Where no condition fits, whoever reads the rows chooses: of a leaf all its edges decide,
        // of others the identity does.
        let (condition, filter, tail) = match condition {
            Ok(condition) => (condition, Filter::Exact, tail),
            Err(TooManyKeys) if rules.leaf => {
                let keys_of = rules.out.clone();
                (None, Filter::Unfiltered, Tail { keys_of, identity: false })
            }
            Err(TooManyKeys) => (None, Filter::Unfiltered, Tail { identity: true, ..tail }),
        };
        values.extend(self.values_of(&tail.keys_of));
        if tail.identity {
            values.extend(rules.keys[0].parts.iter().map(value));
        }
        let sql = copy(&values.join(", "), &self.from(table), condition.as_deref());
        Extract { sql, filter, tail }
    }

    fn values_of(&self, edges: &[EdgeId]) -> Vec<String> {
        edges.iter().flat_map(|&edge| &self.rules.edge(edge).refers.parts).map(value).collect()
    }

    /// A condition: the columns hold one of these keys.
    fn among<'k>(
        &self,
        table: TableId,
        columns: &KeyColumns,
        keys: impl Iterator<Item = &'k Key> + Clone,
        count: usize,
    ) -> String {
        if count == 0 {
            return "false".to_owned();
        }
        let few = (count as u64).saturating_mul(INDEX_WORTH) < self.schema.table(table).rows;
        if let [part] = columns.parts.as_slice() {
            let (left, element) = match part.plain.filter(|_| few) {
                Some(element) => (part.sql.clone(), element),
                // A cast keeps the planner from an index that would cost more than it saves.
                None => (value(part), element_of(part.kind)),
            };
            let array = format!("{}::{element}[]", array(element, keys));
            return match self.hashes_arrays || few {
                true => format!("{left} = ANY ({array})"),
                false => format!("{left} IN (SELECT unnest({array}))"),
            };
        }
        let element = |part: &KeyPart| part.plain.unwrap_or(element_of(part.kind));
        let left: Vec<String> = columns
            .parts
            .iter()
            .map(|part| if part.plain.is_some() { part.sql.clone() } else { value(part) })
            .collect();
        let arrays: Vec<String> = columns
            .parts
            .iter()
            .enumerate()
            .map(|(at, part)| {
                let values = keys.clone().map(|key| match key {
                    Key::Several(parts) => &parts[at],
                    Key::Int(_) | Key::Uuid(_) | Key::Text(_) => {
                        unreachable!("a key of several columns has several parts")
                    }
                });
                // All the arrays have the same length here: what does not fit becomes NULL.
                format!("{}::{}[]", array_with_nulls(element(part), values), element(part))
            })
            .collect();
        format!("({}) IN (SELECT * FROM unnest({}))", left.join(", "), arrays.join(", "))
    }
}

/// More keys than one statement should hold.
#[derive(Debug)]
pub(super) struct TooManyKeys;

fn copy(columns: &str, from: &str, condition: Option<&str>) -> String {
    let condition = condition.map(|c| format!(" WHERE {c}")).unwrap_or_default();
    format!("COPY (SELECT {columns} FROM {from}{condition}) TO STDOUT (FORMAT binary)")
}

/// A part of a key, such that equal values are equal bytes.
fn value(part: &KeyPart) -> String {
    let sql = &part.sql;
    match part.kind {
        KeyKind::Int => format!("{sql}::int8"),
        KeyKind::Uuid => format!("{sql}::uuid"),
        KeyKind::FoldedText => format!("lower({sql}::text)"),
        KeyKind::Numeric => format!("trim_scale({sql}::numeric)::text"),
        KeyKind::Text => format!("{sql}::text"),
    }
}

fn element_of(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::Int => "int8",
        KeyKind::Uuid => "uuid",
        KeyKind::FoldedText | KeyKind::Numeric | KeyKind::Text => "text",
    }
}

/// `'{1,2}'`. What the element cannot hold is left out: no row has it.
fn array<'k>(element: &str, keys: impl Iterator<Item = &'k Key>) -> String {
    let mut text = String::from("{");
    for key in keys.filter(|key| fits(element, key)) {
        if text.len() > 1 {
            text.push(',');
        }
        push_element(&mut text, key);
    }
    text.push('}');
    literal(&text)
}

fn array_with_nulls<'k>(element: &str, keys: impl Iterator<Item = &'k Key>) -> String {
    let mut text = String::from("{");
    for key in keys {
        if text.len() > 1 {
            text.push(',');
        }
        match fits(element, key) {
            true => push_element(&mut text, key),
            false => text.push_str("NULL"),
        }
    }
    text.push('}');
    literal(&text)
}

fn fits(element: &str, key: &Key) -> bool {
    match (element, key) {
        ("int2", Key::Int(number)) => i16::try_from(*number).is_ok(),
        ("int4", Key::Int(number)) => i32::try_from(*number).is_ok(),
        _ => true,
    }
}

fn push_element(text: &mut String, key: &Key) {
    use std::fmt::Write as _;
    match key {
        Key::Int(number) => write!(text, "{number}").expect("writing to a string works"),
        Key::Uuid(bytes) => {
            let number = u128::from_be_bytes(*bytes);
            write!(text, "{number:032x}").expect("writing to a string works");
        }
        Key::Text(value) => {
            text.push('"');
            for c in value.chars() {
                if c == '"' || c == '\\' {
                    text.push('\\');
                }
                text.push(c);
            }
            text.push('"');
        }
        Key::Several(_) => unreachable!("parts of a key are single values"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_hold_any_text() {
        let keys = [Key::from("a\"b"), Key::from("c\\d"), Key::from("e'f"), Key::from("{,}")];
        assert_eq!(array("text", keys.iter()), r#"E'{"a\\"b","c\\\\d","e''f","{,}"}'"#);
    }

    #[test]
    fn numbers_that_a_column_cannot_hold_are_no_error() {
        let keys = [Key::Int(5), Key::Int(5_000_000_000)];
        assert_eq!(array("int4", keys.iter()), "'{5}'");
        assert_eq!(array_with_nulls("int4", keys.iter()), "'{5,NULL}'");
    }
}
