//! The rows that are taken.

use std::sync::Arc;

use super::members::Members;
use crate::config::Policy;
use crate::key::Key;
use crate::rules::{ArrayEdge, EdgeId, Mode, Rules};
use crate::schema::TableId;

/// The least solution of the rules.
pub struct Selection {
    rules: Arc<Rules>,
    members: Vec<Members>,
    growth: Vec<u64>,
    orphans: Vec<u64>,
}

impl Selection {
    pub(super) fn new(
        rules: Arc<Rules>,
        members: Vec<Members>,
        growth: Vec<u64>,
        orphans: Vec<u64>,
    ) -> Self {
        Self { rules, members, growth, orphans }
    }

    /// The rules that it satisfies.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// How many rows are chosen. Not known of leaves.
    pub fn core(&self, table: TableId) -> usize {
        self.members[table.0].core()
    }

    /// How many rows come only because others refer to them. Leaves have none.
    pub fn extra(&self, table: TableId) -> usize {
        self.members[table.0].len() - self.members[table.0].core()
    }

    /// How many extra rows came first over this edge.
    pub fn growth(&self, edge: EdgeId) -> u64 {
        self.growth[edge.0]
    }

    /// How many keys this edge refers to that no row has.
    pub fn orphans(&self, edge: EdgeId) -> u64 {
        self.orphans[edge.0]
    }

    /// What tells the rows that are in apart. Not of leaves.
    pub fn rows(&self, table: TableId) -> impl ExactSizeIterator<Item = &Key> {
        let members = &self.members[table.0];
        (0..members.len()).map(|row| members.key(row, 0).expect("every row has an identity"))
    }

    /// Whether the parent of a reference is in.
    pub fn is_in(&self, edge: EdgeId, parent: &Key) -> bool {
        let edge = self.rules.edge(edge);
        self.members[edge.parent.0].row(edge.parent_key, parent).is_some()
    }

    /// Whether the row that an array's element refers to is in.
    pub fn has_element(&self, array: &ArrayEdge, element: &Key) -> bool {
        self.members[array.parent.0].row(array.parent_key, element).is_some()
    }

    /// The keys of an edge's parents that are chosen.
    pub fn core_parents(&self, edge: EdgeId) -> impl Iterator<Item = &Key> {
        core_parents(&self.rules, &self.members, edge)
    }

    /// Whether a leaf's row is taken, by what it refers to, for each of the leaf's `out` edges.
    /// The statements that read leaves say the same in SQL.
    pub fn takes_leaf(&self, leaf: TableId, refers: &[Option<Key>]) -> bool {
        takes_leaf(&self.rules, &self.members, leaf, refers)
    }

    /// Whether the row with this identity is in, but was not chosen.
    pub fn is_extra(&self, table: TableId, identity: &Key) -> bool {
        let members = &self.members[table.0];
        members.row(0, identity).is_some_and(|row| row >= members.core())
    }

    /// Whether the row with this identity is in.
    pub fn has_row(&self, table: TableId, identity: &Key) -> bool {
        self.members[table.0].row(0, identity).is_some()
    }
}

pub(super) fn core_parents<'m>(
    rules: &Rules,
    members: &'m [Members],
    edge: EdgeId,
) -> impl Iterator<Item = &'m Key> + use<'m> {
    let edge = rules.edge(edge);
    let (members, key) = (&members[edge.parent.0], edge.parent_key);
    (0..members.core()).filter_map(move |row| members.key(row, key))
}

pub(super) fn takes_leaf(
    rules: &Rules,
    members: &[Members],
    leaf: TableId,
    refers: &[Option<Key>],
) -> bool {
    let table = rules.table(leaf);
    let core = |edge: EdgeId, parent: &Option<Key>| {
        let edge = rules.edge(edge);
        let members = &members[edge.parent.0];
        let row = parent.as_ref().and_then(|parent| members.row(edge.parent_key, parent));
        row.is_some_and(|row| row < members.core())
    };
    let edges = || table.out.iter().copied().zip(refers);
    let by = |policy| edges().filter(move |(edge, _)| rules.edge(*edge).policy == policy);
    match table.mode {
        Mode::None => false,
        Mode::All => true,
        Mode::Root | Mode::Reached => {
            by(Policy::Via).any(|(edge, parent)| core(edge, parent))
                && by(Policy::Require).all(|(edge, parent)| parent.is_none() || core(edge, parent))
        }
    }
}
