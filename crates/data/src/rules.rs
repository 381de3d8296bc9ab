//! What the configuration and the schema come to: one policy for each reference, one mode for
//! each table. Decided before any row is read.

mod defaults;
mod resolve;

use crate::chance::Rate;
use crate::config::Policy;
use crate::schema::{KeyKind, Schema, TableId, ValueKind};

pub use resolve::resolve;

/// Which edge of [`Rules`]: its place in `edges`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EdgeId(pub usize);

/// How rows of a table come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Those that the rate chooses.
    Root,
    /// Those that references bring.
    Reached,
    /// All of them.
    All,
    /// None, and references to it are emptied.
    None,
}

/// One column, or an expression over the row, as it goes into a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPart {
    /// SQL over the row, whose columns carry no prefix.
    pub sql: String,
    /// How its values are compared.
    pub kind: KeyKind,
    /// The type whose arrays `sql`, a plain column, is compared with by its own equality, so that
    /// an index may serve.
    pub plain: Option<&'static str>,
}

/// The columns of a unique key, or what refers to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyColumns {
    /// In the order of the key.
    pub parts: Vec<KeyPart>,
}

/// How a table's rows are chosen.
#[derive(Clone, Debug)]
pub struct TableRules {
    /// How its rows come.
    pub mode: Mode,
    /// The share of the rows that would come by `via`; of the root, of all.
    pub rate: Rate,
    /// The first tells its rows apart; the others are unique keys that edges refer to. Empty if
    /// nothing tells them apart: then nothing refers to them either.
    pub keys: Vec<KeyColumns>,
    /// Whether its rows are never held in memory: nothing refers to them, and conditions over a
    /// single row choose them.
    pub leaf: bool,
    /// Edges of which it is the child.
    pub out: Vec<EdgeId>,
}

/// A reference with what it means.
#[derive(Clone, Debug)]
pub struct Edge {
    /// `posts.owner_id`, for people.
    pub label: String,
    /// Who refers.
    pub child: TableId,
    /// To whom.
    pub parent: TableId,
    /// Which of the parent's keys.
    pub parent_key: usize,
    /// What of the child's row makes that key. No value in any part: no reference.
    pub refers: KeyColumns,
    /// The child's columns that are emptied if the parent does not come; none if that cannot be.
    pub emptied: Vec<usize>,
    /// What it means.
    pub policy: Policy,
    /// At most so many rows of the child for one parent. Only of `via`.
    pub limit: Option<u32>,
    /// Whether the database guarantees that the parent exists.
    pub guaranteed: bool,
}

/// An array whose elements refer to rows. It brings none: elements whose row does not come are
/// left out.
#[derive(Clone, Debug)]
pub struct ArrayEdge {
    /// Whose array.
    pub child: TableId,
    /// Which of the child's columns.
    pub column: usize,
    /// What an element is.
    pub element: ValueKind,
    /// To whom it refers.
    pub parent: TableId,
    /// By which of the parent's keys.
    pub parent_key: usize,
}

/// Conditions on the root's rows, in SQL.
#[derive(Clone, Debug, Default)]
pub struct RootConditions {
    /// Only among these.
    pub only: Option<String>,
    /// These in any case.
    pub always: Vec<String>,
}

/// Everything that decides which rows are taken.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The table whose rows are chosen.
    pub root: TableId,
    /// Which of its rows may be chosen, and which must.
    pub conditions: RootConditions,
    /// For each table of the schema.
    pub tables: Vec<TableRules>,
    /// All references.
    pub edges: Vec<Edge>,
    /// Arrays of references.
    pub arrays: Vec<ArrayEdge>,
}

impl Rules {
    /// A table's rules.
    pub fn table(&self, id: TableId) -> &TableRules {
        &self.tables[id.0]
    }

    /// An edge.
    pub fn edge(&self, id: EdgeId) -> &Edge {
        &self.edges[id.0]
    }

    /// Every edge with its id.
    pub fn edges(&self) -> impl Iterator<Item = (EdgeId, &Edge)> {
        self.edges.iter().enumerate().map(|(at, edge)| (EdgeId(at), edge))
    }

    /// The edges of a child with this policy.
    pub fn out(&self, child: TableId, policy: Policy) -> impl Iterator<Item = EdgeId> + '_ {
        let out = self.table(child).out.iter().copied();
        out.filter(move |&edge| self.edge(edge).policy == policy)
    }

    /// Fills in what follows from the edges: `out` and `leaf`.
    pub fn derive(&mut self) {
        for (at, table) in self.tables.iter_mut().enumerate() {
            let out = self.edges.iter().enumerate().filter(|(_, edge)| edge.child.0 == at);
            table.out = out.map(|(edge, _)| EdgeId(edge)).collect();
            let referred_to = self.edges.iter().any(|edge| edge.parent.0 == at)
                || self.arrays.iter().any(|array| array.parent.0 == at);
            // Ranks, draws and extra rows are decided row by row, with the rows at hand.
            let simple = |&EdgeId(edge): &EdgeId| {
                let edge = &self.edges[edge];
                edge.limit.is_none() && edge.policy != Policy::With
            };
            table.leaf = !referred_to
                && table.mode != Mode::Root
                && table.rate == Rate::ALL
                && table.out.iter().all(simple);
        }
    }

    /// Which edges of a leaf can bring parents that were not chosen: all but those whose parent
    /// is chosen whenever the row is taken.
    pub fn pulls_of_leaf(&self, leaf: TableId) -> Vec<EdgeId> {
        let by_via: Vec<EdgeId> = self.out(leaf, Policy::Via).collect();
        let whole = self.table(leaf).mode == Mode::All;
        let mut pulls: Vec<EdgeId> = self.out(leaf, Policy::Pull).collect();
        if whole || by_via.len() > 1 {
            pulls.extend(by_via);
        }
        if whole {
            pulls.extend(self.out(leaf, Policy::Require));
        }
        pulls.retain(|&edge| self.table(self.edge(edge).parent).mode != Mode::All);
        pulls.sort();
        pulls
    }
}

/// A column of a table as part of a key, compared as values of `kind` are.
pub(crate) fn column_part(schema: &Schema, table: TableId, at: usize, kind: KeyKind) -> KeyPart {
    let column = &schema.table(table).columns[at];
    let plain = match (&column.kind, kind) {
        (ValueKind::Int(2), KeyKind::Int) => Some("int2"),
        (ValueKind::Int(4), KeyKind::Int) => Some("int4"),
        (ValueKind::Int(_), KeyKind::Int) => Some("int8"),
        (ValueKind::Uuid, KeyKind::Uuid) => Some("uuid"),
        (ValueKind::Text { folds: false }, KeyKind::Text) => Some("text"),
        _ => None,
    };
    KeyPart { sql: crate::schema::quoted(&column.name), kind, plain }
}
