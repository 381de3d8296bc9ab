//! The tables of a database, their columns, keys and references, without any of their rows.

use std::fmt;

/// A table's name with its schema; never quoted, never folded.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    /// `public` for most.
    pub schema: String,
    /// The name as the catalog holds it.
    pub name: String,
}

impl TableName {
    /// `schema` and `name` as the catalog holds them.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }

    /// `"schema"."name"`, to stand in a statement.
    pub fn sql(&self) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&self.name))
    }
}

impl fmt::Display for TableName {
    /// `users`, `billing.invoices`: as people write it in the configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.schema.as_str() {
            "public" => f.write_str(&self.name),
            schema => write!(f, "{schema}.{}", self.name),
        }
    }
}

/// An identifier in double quotes.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string in single quotes, whatever `standard_conforming_strings` says.
pub fn literal(text: &str) -> String {
    let escaped = text.replace('\'', "''");
    match escaped.contains('\\') {
        true => format!("E'{}'", escaped.replace('\\', "\\\\")),
        false => format!("'{escaped}'"),
    }
}

/// Which table of a [`Schema`]: its place in `tables`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableId(pub usize);

/// What a column's values are, domains resolved to what they rest on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// `text`, `varchar`, `char`, `name`; `citext` with `folds`.
    Text {
        /// Whether upper and lower case are equal.
        folds: bool,
    },
    /// `smallint`, `integer`, `bigint`: how many bytes.
    Int(u8),
    /// `numeric`
    Numeric,
    /// `real`, `double precision`: how many bytes.
    Float(u8),
    /// `boolean`
    Bool,
    /// `uuid`
    Uuid,
    /// `date`
    Date,
    /// `timestamp` with and without time zone.
    Timestamp,
    /// `json`
    Json,
    /// `jsonb`
    Jsonb,
    /// `bytea`
    Bytes,
    /// `inet` and `cidr`
    Inet,
    /// An enum.
    Enum,
    /// An array of these.
    Array(Box<ValueKind>),
    /// A composite type.
    Composite,
    /// Something else, such as a range or an extension's type.
    Other,
}

impl ValueKind {
    /// How such a value stands in a key.
    pub fn key_kind(&self) -> KeyKind {
        match self {
            Self::Int(_) => KeyKind::Int,
            Self::Uuid => KeyKind::Uuid,
            Self::Text { folds: true } => KeyKind::FoldedText,
            Self::Numeric => KeyKind::Numeric,
            Self::Text { folds: false }
            | Self::Float(_)
            | Self::Bool
            | Self::Date
            | Self::Timestamp
            | Self::Json
            | Self::Jsonb
            | Self::Bytes
            | Self::Inet
            | Self::Enum
            | Self::Array(_)
            | Self::Composite
            | Self::Other => KeyKind::Text,
        }
    }
}

/// How a value is written down in a [`crate::key::Key`], such that equal values of the database
/// are equal bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// Eight bytes.
    Int,
    /// Sixteen bytes.
    Uuid,
    /// Lower case, since `citext` finds `A` equal to `a`.
    FoldedText,
    /// Without trailing zeros, since 1.0 equals 1.
    Numeric,
    /// The type's own text.
    Text,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// As the catalog holds it.
    pub name: String,
    /// With its length: `character varying(24)`.
    pub type_name: String,
    /// What its values are.
    pub kind: ValueKind,
    /// How many characters fit, where there is a limit.
    pub max_chars: Option<u32>,
    /// Whether it can hold no value; also by its domain.
    pub nullable: bool,
    /// Whether the database computes it from others.
    pub generated: bool,
    /// Whether a unique index holds it, alone or with others.
    pub unique: bool,
    /// Whether a CHECK, or the condition of a partial index, looks at it.
    pub checked: bool,
}

/// A table, or the root of a partitioned one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: TableName,
    /// In order; dropped ones are left out.
    pub columns: Vec<Column>,
    /// The columns that tell its rows apart: the primary key, else a unique one without nulls.
    pub identity: Option<Vec<usize>>,
    /// Whether its rows are in partitions.
    pub partitioned: bool,
    /// About how many rows, as the statistics have it.
    pub rows: u64,
    /// Bytes of its rows, with what is stored beside them, without indexes.
    pub bytes: u64,
    /// Whether policies decide which rows a role sees.
    pub row_security: bool,
}

impl Table {
    /// `ONLY "public"."users"`: rows of tables that inherit from it are theirs.
    pub fn only(&self) -> String {
        match self.partitioned {
            true => self.name.sql(),
            false => format!("ONLY {}", self.name.sql()),
        }
    }

    /// The place of a column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}

/// A foreign key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignKey {
    /// The constraint's name.
    pub name: String,
    /// Who refers.
    pub child: TableId,
    /// By which columns.
    pub child_columns: Vec<usize>,
    /// To whom.
    pub parent: TableId,
    /// To which columns, in the same order. Any unique ones, not only the primary key.
    pub parent_columns: Vec<usize>,
    /// Whether the database has checked every row.
    pub validated: bool,
}

/// Everything that is known of a database before a row is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schema {
    /// In order of their names.
    pub tables: Vec<Table>,
    /// In order of child and name.
    pub foreign_keys: Vec<ForeignKey>,
}

impl Schema {
    /// The table with this id.
    pub fn table(&self, id: TableId) -> &Table {
        &self.tables[id.0]
    }

    /// Finds a table by how people write it: `users`, `billing.invoices`.
    pub fn find(&self, written: &str) -> Option<TableId> {
        self.tables.iter().position(|table| table.name.to_string() == written).map(TableId)
    }

    /// Every table's id.
    pub fn ids(&self) -> impl Iterator<Item = TableId> + use<> {
        (0..self.tables.len()).map(TableId)
    }

    /// Whether every column of the key can be without a value.
    pub fn is_nullable(&self, key: &ForeignKey) -> bool {
        let columns = &self.table(key.child).columns;
        key.child_columns.iter().any(|&at| columns[at].nullable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_whatever_they_hold() {
        assert_eq!(TableName::new("a\"b", "c;d").sql(), "\"a\"\"b\".\"c;d\"");
        assert_eq!(literal("o'neill"), "'o''neill'");
        assert_eq!(literal("a\\'b"), "E'a\\\\''b'");
    }
}
