//! The rows of one table that are in, by each of its keys.

use std::collections::HashMap;

use indexmap::IndexSet;

use super::Row;
use crate::key::Key;

/// Rows in the order in which they came: the chosen ones first.
pub(super) struct Members {
    identities: IndexSet<Key>,
    others: Vec<OtherKey>,
    core: usize,
}

/// A further unique key that references use.
#[derive(Default)]
struct OtherKey {
    of_row: Vec<Option<Key>>,
    rows: HashMap<Key, u32>,
}

impl Members {
    /// No rows, of a table with this many keys.
    pub fn new(keys: usize) -> Self {
        let others = (1..keys).map(|_| OtherKey::default()).collect();
        Self { identities: IndexSet::new(), others, core: usize::MAX }
    }

    pub fn len(&self) -> usize {
        self.identities.len()
    }

    /// How many are chosen.
    pub fn core(&self) -> usize {
        self.core.min(self.len())
    }

    /// From now on, rows are extra.
    pub fn close_core(&mut self) {
        self.core = self.len();
    }

    pub fn has(&self, row: &Row) -> bool {
        row.keys.first().and_then(Option::as_ref).is_some_and(|id| self.identities.contains(id))
    }

    /// The place of the row with this key.
    pub fn row(&self, key: usize, value: &Key) -> Option<usize> {
        match key {
            0 => self.identities.get_index_of(value),
            _ => self.others[key - 1].rows.get(value).map(|&row| row as usize),
        }
    }

    /// The key of the row at a place.
    pub fn key(&self, row: usize, key: usize) -> Option<&Key> {
        match key {
            0 => self.identities.get_index(row),
            _ => self.others[key - 1].of_row[row].as_ref(),
        }
    }

    /// Adds a row that is not in.
    pub fn insert(&mut self, keys: Vec<Option<Key>>) {
        let mut keys = keys.into_iter();
        let identity = keys.next().flatten().expect("rows that are held have an identity");
        let (row, is_new) = self.identities.insert_full(identity);
        assert!(is_new, "a row is inserted once");
        let row = u32::try_from(row).expect("fewer than four billion rows are held");
        for (other, value) in self.others.iter_mut().zip(keys) {
            if let Some(value) = &value {
                other.rows.insert(value.clone(), row);
            }
            other.of_row.push(value);
        }
    }
}
