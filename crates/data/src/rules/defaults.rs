//! What a reference means where the configuration says nothing.

use std::collections::VecDeque;

use crate::config::Policy;
use crate::schema::{ForeignKey, Schema, TableId};

/// For each table, the foreign key by which it was first reached from the root; for each foreign
/// key, its policy.
pub(super) struct Defaults {
    /// Whether rows of the table come by references, starting at the root.
    pub reached: Vec<bool>,
    /// For each of the schema's foreign keys.
    pub policies: Vec<Policy>,
}

/// Decides by the shape of the schema alone.
///
/// A row belongs to a parent that it cannot be without; of several, to the one that is farthest
/// from the root: a like belongs to its comment rather than to whoever likes. That reference is
/// `via`. Another one to the same table is `require`, if it cannot be empty (a follow within the
/// sample). All others are `pull`. Where a table has only references that may be empty, it
/// belongs to the first of them.
///
/// A parent that was itself found through the table does not count: with memberships found
/// through users, and teams through memberships, a team does not bring its other members.
pub(super) fn defaults(schema: &Schema, root: TableId, excluded: &[bool]) -> Defaults {
    let mut search = Search {
        schema,
        excluded,
        found_by: vec![None; schema.tables.len()],
        reached: vec![false; schema.tables.len()],
        level: vec![0; schema.tables.len()],
    };
    search.reached[root.0] = true;
    // First along keys that are never empty, as far as they go; then one step along a key that
    // may be empty, and again.
    search.spread(VecDeque::from([root]));
    while let Some(table) = search.step_along_nullable() {
        search.spread(VecDeque::from([table]));
    }
    let policies = search.policies(root);
    Defaults { reached: search.reached, policies }
}

struct Search<'a> {
    schema: &'a Schema,
    excluded: &'a [bool],
    /// The foreign key by which a table was found.
    found_by: Vec<Option<usize>>,
    /// How many references it is from the root.
    level: Vec<usize>,
    reached: Vec<bool>,
}

impl Search<'_> {
    fn spread(&mut self, mut queue: VecDeque<TableId>) {
        while let Some(parent) = queue.pop_front() {
            for (at, key) in self.schema.foreign_keys.iter().enumerate() {
                let child = key.child;
                if key.parent == parent
                    && !self.reached[child.0]
                    && !self.excluded[child.0]
                    && !self.schema.is_nullable(key)
                {
                    self.reached[child.0] = true;
                    self.found_by[child.0] = Some(at);
                    self.level[child.0] = self.level[parent.0] + 1;
                    queue.push_back(child);
                }
            }
        }
    }

    fn step_along_nullable(&mut self) -> Option<TableId> {
        let (at, key) = self.schema.foreign_keys.iter().enumerate().find(|(_, key)| {
            self.reached[key.parent.0] && !self.reached[key.child.0] && !self.excluded[key.child.0]
        })?;
        self.reached[key.child.0] = true;
        self.found_by[key.child.0] = Some(at);
        self.level[key.child.0] = self.level[key.parent.0] + 1;
        Some(key.child)
    }

    /// Whether `table` was found through `through`.
    fn found_through(&self, table: TableId, through: TableId) -> bool {
        let mut at = table;
        while let Some(key) = self.found_by[at.0] {
            at = self.schema.foreign_keys[key].parent;
            if at == through {
                return true;
            }
        }
        false
    }

    fn policies(&self, root: TableId) -> Vec<Policy> {
        let keys = &self.schema.foreign_keys;
        let belongs_by: Vec<Option<usize>> =
            self.schema.ids().map(|table| self.belongs_by(table, root)).collect();
        let policy = |(at, key): (usize, &ForeignKey)| match belongs_by[key.child.0] {
            Some(via) if via == at => Policy::Via,
            Some(via) if keys[via].parent == key.parent && !self.schema.is_nullable(key) => {
                Policy::Require
            }
            Some(_) | None => Policy::Pull,
        };
        keys.iter().enumerate().map(policy).collect()
    }

    /// The foreign key to what rows of the table belong to.
    fn belongs_by(&self, table: TableId, root: TableId) -> Option<usize> {
        if table == root || !self.reached[table.0] {
            return None;
        }
        let keys = self.schema.foreign_keys.iter().enumerate();
        let possible = keys.filter(|(_, key)| {
            key.child == table
                && key.parent != table
                && self.reached[key.parent.0]
                && !self.schema.is_nullable(key)
                && !self.found_through(key.parent, table)
        });
        // The first of those that are equally far.
        let farthest =
            possible.max_by_key(|(at, key)| (self.level[key.parent.0], std::cmp::Reverse(*at)));
        farthest.map(|(at, _)| at).or(self.found_by[table.0])
    }
}
