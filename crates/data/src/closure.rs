//! Which rows are taken: the least set that satisfies the rules.
//!
//! Two kinds of membership. *Core* rows are chosen: rows of the root by the rate, others because
//! a `via` edge leads to a core row and all their `require` edges do, too. *Extra* rows are there
//! because some row that is in refers to them. In terms of logic:
//!
//! ```text
//! core(root)   if the rate takes it; core(row) of a table that comes whole
//! core(child)  if core(parent) over some via edge, and core(parent) over all require edges
//! in(row)      if core(row)
//! in(parent)   if in(child), over every edge but null
//! in(child)    if in(parent), over a with edge
//! ```
//!
//! All of it is positive, so there is exactly one least solution: whatever the order, however
//! many connections ask, and with cycles among the tables. References of `null` edges are emptied
//! afterwards, where the parent is not in.
//!
//! [`Closure`] does no I/O: it says what it needs to know, and is told.

mod members;
mod selection;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use indexmap::IndexMap;

use crate::chance::Chance;
use crate::config::Policy;
use crate::key::Key;
use crate::rules::{EdgeId, Mode, Rules};
use crate::schema::{Schema, TableId};
use members::Members;
pub use selection::Selection;

/// One row's keys and references.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// A value for each of the table's keys; the first tells the row apart.
    pub keys: Vec<Option<Key>>,
    /// What it refers to, for each of the table's `out` edges.
    pub refers: Vec<Option<Key>>,
    /// Whether it comes in any case. Only of the root.
    pub pinned: bool,
}

/// What the closure needs to know next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Every row of the root that may be chosen.
    Root,
    /// Every row of a table.
    Whole(TableId),
    /// The rows whose edge leads to one of these parents.
    Children {
        /// Which edge.
        edge: EdgeId,
        /// Keys of its parents; each is asked for once.
        parents: Vec<Key>,
    },
    /// The rows of a table with these keys.
    Parents {
        /// Which table.
        table: TableId,
        /// Which of its keys.
        key: usize,
        /// Its values.
        values: Vec<Key>,
    },
    /// What the chosen rows of a leaf refer to over its pulling edges: [`Closure::leaf_refers`].
    LeafParents(TableId),
}

/// Which key of which table.
type KeyOfTable = (TableId, usize);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Begin,
    Core,
    Leaves,
    Extra,
}

/// The fixpoint under way.
pub struct Closure<'a> {
    rules: &'a Rules,
    shared: Arc<Rules>,
    names: Vec<String>,
    chance: Chance,
    phase: Phase,
    members: Vec<Members>,
    /// For each edge, how many of the parent's rows its children were asked for.
    followed: Vec<usize>,
    /// Rows that wait for a parent to be chosen, by table, key and its value.
    waiting: HashMap<KeyOfTable, HashMap<Key, Vec<(TableId, Row)>>>,
    /// Rows of which only some are taken for each parent, with their draws.
    ranked: BTreeMap<EdgeId, HashMap<Key, Vec<(u64, Row)>>>,
    /// Parents that must be in, by table and key, with the first edge that wants them.
    wanted: BTreeMap<KeyOfTable, IndexMap<Key, EdgeId>>,
    /// Those that were asked for in the last batch.
    sought: BTreeMap<KeyOfTable, IndexMap<Key, EdgeId>>,
    /// How many extra rows each edge brought.
    growth: Vec<u64>,
    /// How many keys each edge wanted that no row has.
    orphans: Vec<u64>,
}

impl<'a> Closure<'a> {
    /// Begins.
    pub fn new(schema: &Schema, rules: &'a Arc<Rules>, chance: Chance) -> Self {
        let members = rules.tables.iter().map(|table| Members::new(table.keys.len())).collect();
        Self {
            rules: rules.as_ref(),
            shared: rules.clone(),
            names: schema.tables.iter().map(|table| table.name.to_string()).collect(),
            chance,
            phase: Phase::Begin,
            members,
            followed: vec![0; rules.edges.len()],
            waiting: HashMap::new(),
            ranked: BTreeMap::new(),
            wanted: BTreeMap::new(),
            sought: BTreeMap::new(),
            growth: vec![0; rules.edges.len()],
            orphans: vec![0; rules.edges.len()],
        }
    }

    /// What to find out next; nothing, when the rows are known. To be called when everything of
    /// the batch before was told.
    pub fn asks(&mut self) -> Vec<Ask> {
        self.take_ranked();
        self.count_orphans();
        loop {
            let asks = match self.phase {
                Phase::Begin => self.begin(),
                Phase::Core => self.follow(Policy::Via),
                Phase::Leaves => self.leaves(),
                Phase::Extra => self.seek(),
            };
            if !asks.is_empty() {
                // What `begin` asks for is answered before anything is followed.
                if self.phase == Phase::Begin {
                    self.phase = Phase::Core;
                } else if self.phase == Phase::Leaves {
                    self.phase = Phase::Extra;
                }
                return asks;
            }
            self.phase = match self.phase {
                Phase::Begin => Phase::Core,
                Phase::Core => {
                    self.members.iter_mut().for_each(Members::close_core);
                    self.waiting.clear();
                    Phase::Leaves
                }
                Phase::Leaves => Phase::Extra,
                Phase::Extra => return Vec::new(),
            };
        }
    }

    /// Tells of a row that was asked for. Rows that came already do no harm.
    pub fn answer(&mut self, ask: &Ask, row: Row) {
        match ask {
            Ask::Root => {
                let root = self.rules.root;
                let rate = self.rules.table(root).rate;
                if row.pinned || rate.takes(self.draw(root, &row)) {
                    self.choose(root, row);
                }
            }
            Ask::Whole(table) => self.choose(*table, row),
            Ask::Children { edge, .. } => self.child(*edge, row),
            Ask::Parents { table, key, .. } => {
                let wanting = row.keys[*key].as_ref().and_then(|value| {
                    self.sought.get(&(*table, *key)).and_then(|sought| sought.get(value).copied())
                });
                self.extra(*table, row, wanting);
            }
            Ask::LeafParents(_) => unreachable!("leaves tell by `leaf_refers`"),
        }
    }

    /// Tells that a chosen row of a leaf refers to this parent.
    pub fn leaf_refers(&mut self, edge: EdgeId, parent: Key) {
        self.want(edge, parent);
    }

    /// The rules.
    pub fn rules(&self) -> &'a Rules {
        self.rules
    }

    /// The keys of an edge's parents that are chosen. Not before leaves are asked for.
    pub fn core_parents(&self, edge: EdgeId) -> impl Iterator<Item = &Key> {
        selection::core_parents(self.rules, &self.members, edge)
    }

    /// Whether a leaf's row is taken, by what it refers to. Not before leaves are asked for.
    pub fn takes_leaf(&self, leaf: TableId, refers: &[Option<Key>]) -> bool {
        selection::takes_leaf(self.rules, &self.members, leaf, refers)
    }

    /// The rows, when [`Self::asks`] has nothing more to ask.
    pub fn finish(self) -> Selection {
        assert!(self.phase == Phase::Extra, "the closure was not run to its end");
        Selection::new(self.shared, self.members, self.growth, self.orphans)
    }

    fn begin(&mut self) -> Vec<Ask> {
        let mut asks = vec![Ask::Root];
        for (at, table) in self.rules.tables.iter().enumerate() {
            if table.mode == Mode::All && !table.leaf {
                asks.push(Ask::Whole(TableId(at)));
            }
        }
        asks
    }

    /// Children of parents that came since they were last asked for.
    fn follow(&mut self, policy: Policy) -> Vec<Ask> {
        let mut asks = Vec::new();
        for (id, edge) in self.rules.edges() {
            let child = self.rules.table(edge.child);
            if edge.policy != policy || child.leaf || child.mode == Mode::All {
                continue;
            }
            let parent = &self.members[edge.parent.0];
            let from = std::mem::replace(&mut self.followed[id.0], parent.len());
            let new = (from..parent.len()).filter_map(|row| parent.key(row, edge.parent_key));
            let parents: Vec<Key> = new.cloned().collect();
            if !parents.is_empty() {
                asks.push(Ask::Children { edge: id, parents });
            }
        }
        asks
    }

    fn leaves(&self) -> Vec<Ask> {
        let tables = self.rules.tables.iter().enumerate().map(|(at, table)| (TableId(at), table));
        let leaves = tables.filter(|(_, table)| table.leaf && table.mode != Mode::None);
        let pulling = leaves.filter(|(id, _)| !self.rules.pulls_of_leaf(*id).is_empty());
        pulling.map(|(id, _)| Ask::LeafParents(id)).collect()
    }

    fn seek(&mut self) -> Vec<Ask> {
        let mut asks = self.follow(Policy::With);
        for (place, mut values) in std::mem::take(&mut self.wanted) {
            let (table, key) = place;
            let members = &self.members[table.0];
            values.retain(|value, _| members.row(key, value).is_none());
            if !values.is_empty() {
                let values_asked = values.keys().cloned().collect();
                asks.push(Ask::Parents { table, key, values: values_asked });
                self.sought.insert(place, values);
            }
        }
        asks
    }

    fn draw(&self, table: TableId, row: &Row) -> u64 {
        let identity = row.keys.first().and_then(Option::as_ref);
        let identity = identity.expect("rows that are told apart have an identity");
        self.chance.draw(&self.names[table.0], identity)
    }

    fn child(&mut self, edge: EdgeId, row: Row) {
        let Edge { child, policy, limit, place } = self.edge(edge);
        if policy == Policy::With {
            // Counted as growth of its edge, like a parent that is pulled.
            self.extra(child, row, Some(edge));
            return;
        }
        let draw = self.draw(child, &row);
        if !self.rules.table(child).rate.takes(draw) {
            return;
        }
        match (limit, row.refers[place].clone()) {
            (Some(limit), Some(parent)) => {
                let limit = limit as usize;
                let of_parent = self.ranked.entry(edge).or_default().entry(parent).or_default();
                of_parent.push((draw, row));
                // Twice the limit, so that what is dropped is sorted once in a while only.
                if of_parent.len() > 2 * limit {
                    of_parent.sort_unstable_by(|a, b| (a.0, &a.1.keys).cmp(&(b.0, &b.1.keys)));
                    of_parent.truncate(limit);
                }
            }
            (None, _) | (Some(_), None) => self.offer(child, row),
        }
    }

    fn edge(&self, id: EdgeId) -> Edge {
        let edge = self.rules.edge(id);
        let out = &self.rules.table(edge.child).out;
        let place = out.iter().position(|&at| at == id).expect("an edge is out of its child");
        Edge { child: edge.child, policy: edge.policy, limit: edge.limit, place }
    }

    fn take_ranked(&mut self) {
        for (edge, parents) in std::mem::take(&mut self.ranked) {
            let limit = self.rules.edge(edge).limit.expect("only limited edges are ranked");
            let child = self.rules.edge(edge).child;
            for mut rows in parents.into_values() {
                rows.sort_unstable_by(|a, b| (a.0, &a.1.keys).cmp(&(b.0, &b.1.keys)));
                rows.truncate(limit as usize);
                rows.into_iter().for_each(|(_, row)| self.offer(child, row));
            }
        }
    }

    /// Chooses a row if all that it requires is chosen; else it waits for the first that is not.
    fn offer(&mut self, table: TableId, row: Row) {
        if self.members[table.0].has(&row) {
            return;
        }
        match self.lacks(table, &row) {
            Some((place, parent)) => {
                let waiting = self.waiting.entry(place).or_default();
                waiting.entry(parent).or_default().push((table, row));
            }
            None => self.choose(table, row),
        }
    }

    /// Chooses a row, and all that waited for it.
    fn choose(&mut self, table: TableId, row: Row) {
        let mut chosen = vec![(table, row)];
        while let Some((table, row)) = chosen.pop() {
            if self.members[table.0].has(&row) {
                continue;
            }
            let mut freed = Vec::new();
            for (key, value) in row.keys.iter().enumerate() {
                let waiting = self.waiting.get_mut(&(table, key));
                if let (Some(waiting), Some(value)) = (waiting, value) {
                    freed.extend(waiting.remove(value).into_iter().flatten());
                }
            }
            self.insert(table, row);
            for (table, row) in freed {
                match self.lacks(table, &row) {
                    Some((place, parent)) => {
                        let waiting = self.waiting.entry(place).or_default();
                        waiting.entry(parent).or_default().push((table, row));
                    }
                    None => chosen.push((table, row)),
                }
            }
        }
    }

    /// A parent that the row requires and that is not chosen.
    fn lacks(&self, table: TableId, row: &Row) -> Option<(KeyOfTable, Key)> {
        let out = &self.rules.table(table).out;
        out.iter().zip(&row.refers).find_map(|(&edge, parent)| {
            let edge = self.rules.edge(edge);
            let parent = parent.as_ref().filter(|_| edge.policy == Policy::Require)?;
            let place = (edge.parent, edge.parent_key);
            // During this phase everything that is in is chosen.
            let is_core = self.members[edge.parent.0].row(edge.parent_key, parent).is_some();
            (!is_core).then(|| (place, parent.clone()))
        })
    }

    fn extra(&mut self, table: TableId, row: Row, brought_by: Option<EdgeId>) {
        if !self.members[table.0].has(&row) {
            if let Some(edge) = brought_by {
                self.growth[edge.0] += 1;
            }
            self.insert(table, row);
        }
    }

    /// Takes a row in, and wants its parents.
    fn insert(&mut self, table: TableId, row: Row) {
        let rules = self.rules;
        for (&edge, parent) in rules.table(table).out.iter().zip(row.refers) {
            if let Some(parent) = parent
                && rules.edge(edge).policy != Policy::Null
            {
                self.want(edge, parent);
            }
        }
        self.members[table.0].insert(row.keys);
    }

    fn want(&mut self, id: EdgeId, parent: Key) {
        let edge = self.rules.edge(id);
        if self.members[edge.parent.0].row(edge.parent_key, &parent).is_some() {
            return;
        }
        let wanted = self.wanted.entry((edge.parent, edge.parent_key)).or_default();
        // The lowest edge, not the first, so that the count does not depend on the order.
        wanted.entry(parent).and_modify(|by| *by = id.min(*by)).or_insert(id);
    }

    fn count_orphans(&mut self) {
        for ((table, key), values) in std::mem::take(&mut self.sought) {
            for (value, edge) in values {
                if self.members[table.0].row(key, &value).is_none() {
                    self.orphans[edge.0] += 1;
                }
            }
        }
    }
}

/// What is asked of an edge for each row.
struct Edge {
    child: TableId,
    policy: Policy,
    limit: Option<u32>,
    /// Where the edge stands among the child's references.
    place: usize,
}

#[cfg(test)]
mod tests;
