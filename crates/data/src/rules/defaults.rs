//! What a reference means where the configuration says nothing.

use std::collections::VecDeque;

use crate::config::Policy;
use crate::schema::{Schema, TableId};

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
/// A row that cannot be without its parent belongs to it, so such a key is `via`; a second one to
/// the same parent is `require` (a follow within the sample). Others are `pull`. Where a table
/// has only references that may be empty, the first of them counts as the one that it belongs to.
///
/// A key that leads back to a table through which this one was found is `pull`: with memberships
/// found through users, and teams through memberships, a team does not bring its other members.
pub(super) fn defaults(schema: &Schema, root: TableId, excluded: &[bool]) -> Defaults {
    let mut search = Search {
        schema,
        excluded,
        found_by: vec![None; schema.tables.len()],
        reached: vec![false; schema.tables.len()],
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
        let mut policies = vec![Policy::Pull; keys.len()];
        for (at, key) in keys.iter().enumerate() {
            let belongs = self.found_by[key.child.0] == Some(at)
                || (!self.schema.is_nullable(key)
                    && self.reached[key.child.0]
                    && self.reached[key.parent.0]
                    && key.child != root
                    && key.child != key.parent
                    && !self.found_through(key.parent, key.child));
            if !belongs {
                continue;
            }
            let earlier = keys[..at].iter().zip(&policies[..at]).any(|(other, policy)| {
                other.child == key.child && other.parent == key.parent && *policy == Policy::Via
            });
            policies[at] = if earlier { Policy::Require } else { Policy::Via };
        }
        policies
    }
}
