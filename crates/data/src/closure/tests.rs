//! The closure against an evaluator that knows no tricks, on random schemas.

use std::collections::{BTreeSet, HashMap};

use super::*;
use crate::chance::Rate;
use crate::rules::{Edge as RuleEdge, KeyColumns, RootConditions, TableRules};
use crate::schema::{Table, TableName};

/// Numbers that look random, the same for the same seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

struct World {
    schema: Schema,
    rules: Arc<Rules>,
    /// For each table, its rows.
    rows: Vec<Vec<Row>>,
}

const TABLES: usize = 7;

fn table_named(at: usize) -> Table {
    Table {
        name: TableName::new("public", format!("t{at}")),
        columns: Vec::new(),
        identity: None,
        partitioned: false,
        rows: 0,
        bytes: 0,
        row_security: false,
    }
}

/// Tables with up to three references each, to any table and themselves, over the identity or a
/// second key, which some rows lack; some references lead nowhere.
fn world(seed: u64) -> World {
    let dice = &mut Dice(seed);
    let tables = 2 + dice.below(TABLES);
    let schema =
        Schema { tables: (0..tables).map(table_named).collect(), foreign_keys: Vec::new() };
    let no_columns = || KeyColumns { parts: Vec::new() };
    let mode = |dice: &mut Dice| match dice.below(12) {
        0 => Mode::All,
        _ => Mode::Reached,
    };
    let table = |dice: &mut Dice, at: usize| TableRules {
        mode: if at == 0 { Mode::Root } else { mode(dice) },
        rate: match dice.chance(15) || at == 0 {
            true => Rate::new(0.1 + dice.below(8) as f64 / 10.0).unwrap(),
            false => Rate::ALL,
        },
        keys: vec![no_columns(), no_columns()],
        leaf: false,
        out: Vec::new(),
    };
    let mut rules = Rules {
        root: TableId(0),
        conditions: RootConditions::default(),
        tables: (0..tables).map(|at| table(dice, at)).collect(),
        edges: Vec::new(),
        arrays: Vec::new(),
    };
    for child in 0..tables {
        for _ in 0..dice.below(4) {
            let policies = [
                Policy::Via,
                Policy::Via,
                Policy::Require,
                Policy::Pull,
                Policy::With,
                Policy::Null,
            ];
            let policy = policies[dice.below(policies.len())];
            let limit = policy == Policy::Via && dice.chance(20);
            rules.edges.push(RuleEdge {
                label: format!("t{child}"),
                child: TableId(child),
                parent: TableId(dice.below(tables)),
                parent_key: dice.below(2),
                refers: no_columns(),
                emptied: Vec::new(),
                policy,
                limit: limit.then(|| 1 + dice.below(3) as u32),
                guaranteed: false,
            });
        }
    }
    rules.derive();
    let sizes: Vec<usize> = (0..tables).map(|_| 1 + dice.below(40)).collect();
    let rows = (0..tables)
        .map(|at| {
            let row = |number: usize| {
                let refers = rules.tables[at].out.iter().map(|&edge| {
                    let edge = &rules.edges[edge.0];
                    // One past the end, sometimes: an orphan.
                    let number = dice.below(sizes[edge.parent.0] + 1);
                    dice.chance(80).then(|| key(edge.parent_key, number))
                });
                let refers = refers.collect();
                let second = dice.chance(90).then(|| key(1, number));
                Row { keys: vec![Some(key(0, number)), second], refers, pinned: dice.chance(3) }
            };
            (0..sizes[at]).map(row).collect()
        })
        .collect();
    World { schema, rules: Arc::new(rules), rows }
}

fn key(which: usize, number: usize) -> Key {
    match which {
        0 => Key::Int(number as i64),
        _ => Key::from(format!("k{number}").as_str()),
    }
}

impl World {
    fn run(&self, chance: Chance, reversed: bool) -> Vec<BTreeSet<Key>> {
        let mut closure = Closure::new(&self.schema, &self.rules, chance);
        loop {
            let mut asks = closure.asks();
            if asks.is_empty() {
                break;
            }
            if reversed {
                asks.reverse();
            }
            for ask in asks {
                self.tell(&mut closure, &ask, reversed);
            }
        }
        let selection = closure.finish();
        let taken = |(at, rows): (usize, &Vec<Row>)| {
            let table = TableId(at);
            if !self.rules.table(table).leaf {
                return selection.rows(table).cloned().collect();
            }
            let taken = rows.iter().filter(|row| selection.takes_leaf(table, &row.refers));
            taken.map(|row| row.keys[0].clone().unwrap()).collect()
        };
        self.rows.iter().enumerate().map(taken).collect()
    }

    fn tell(&self, closure: &mut Closure, ask: &Ask, reversed: bool) {
        let place = |id: EdgeId| {
            let child = self.rules.edge(id).child;
            self.rules.table(child).out.iter().position(|&e| e == id).unwrap()
        };
        let rows = |table: TableId| {
            let mut rows: Vec<&Row> = self.rows[table.0].iter().collect();
            if reversed {
                rows.reverse();
            }
            rows.into_iter()
        };
        match ask {
            Ask::Root => rows(TableId(0)).for_each(|row| closure.answer(ask, row.clone())),
            Ask::Whole(table) => rows(*table).for_each(|row| closure.answer(ask, row.clone())),
            Ask::Children { edge, parents } => {
                for row in rows(self.rules.edge(*edge).child) {
                    if row.refers[place(*edge)].as_ref().is_some_and(|p| parents.contains(p)) {
                        closure.answer(ask, row.clone());
                    }
                }
            }
            Ask::Parents { table, key, values } => {
                for row in rows(*table) {
                    if row.keys[*key].as_ref().is_some_and(|value| values.contains(value)) {
                        closure.answer(ask, row.clone());
                    }
                }
            }
            Ask::LeafParents(leaf) => {
                let chosen: Vec<&Row> =
                    rows(*leaf).filter(|row| closure.takes_leaf(*leaf, &row.refers)).collect();
                for row in chosen {
                    for edge in self.rules.pulls_of_leaf(*leaf) {
                        if let Some(parent) = &row.refers[place(edge)] {
                            closure.leaf_refers(edge, parent.clone());
                        }
                    }
                }
            }
        }
    }

    /// The rules word by word, over and over until nothing changes.
    fn naive(&self, chance: &Chance) -> Vec<BTreeSet<Key>> {
        let mut core: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); self.rows.len()];
        let draw = |table: usize, row: &Row| {
            chance.draw(&format!("t{table}"), row.keys[0].as_ref().unwrap())
        };
        for (at, row) in self.rows[0].iter().enumerate() {
            if row.pinned || self.rules.tables[0].rate.takes(draw(0, row)) {
                core[0].insert(at);
            }
        }
        let admitted = self.admitted(&draw);
        self.until_stable(&mut core, |core, table, at, row| {
            let refers = || self.rules.tables[table].out.iter().zip(&row.refers);
            let is_core = |edge: &EdgeId, parent: &Key| {
                let edge = self.rules.edge(*edge);
                self.find(edge.parent.0, edge.parent_key, parent)
                    .is_some_and(|row| core[edge.parent.0].contains(&row))
            };
            let required = refers().all(|(edge, parent)| {
                self.rules.edge(*edge).policy != Policy::Require
                    || parent.as_ref().is_none_or(|parent| is_core(edge, parent))
            });
            let via = refers().any(|(edge, parent)| {
                self.rules.edge(*edge).policy == Policy::Via
                    && admitted[edge].contains(&at)
                    && parent.as_ref().is_some_and(|parent| is_core(edge, parent))
            });
            match self.rules.tables[table].mode {
                Mode::All => true,
                Mode::Reached | Mode::Root => via && required,
                Mode::None => false,
            }
        });
        let mut all = core;
        self.until_stable(&mut all, |all, table, at, row| {
            let with =
                self.rules.tables[table].out.iter().zip(&row.refers).any(|(edge, parent)| {
                    let edge = self.rules.edge(*edge);
                    edge.policy == Policy::With
                        && self.rules.tables[table].mode != Mode::All
                        && parent.as_ref().is_some_and(|parent| {
                            self.find(edge.parent.0, edge.parent_key, parent)
                                .is_some_and(|row| all[edge.parent.0].contains(&row))
                        })
                });
            let pulled = self.rules.edges().any(|(id, edge)| {
                edge.parent.0 == table
                    && edge.policy != Policy::Null
                    && all[edge.child.0].iter().any(|&child| {
                        let out = &self.rules.table(edge.child).out;
                        let place = out.iter().position(|&e| e == id).unwrap();
                        let parent = &self.rows[edge.child.0][child].refers[place];
                        parent.as_ref().is_some_and(|parent| {
                            self.find(table, edge.parent_key, parent) == Some(at)
                        })
                    })
            });
            with || pulled
        });
        let identity = |table: usize, at: &usize| self.rows[table][*at].keys[0].clone().unwrap();
        let of = |(table, rows): (usize, &BTreeSet<usize>)| {
            rows.iter().map(|at| identity(table, at)).collect()
        };
        all.iter().enumerate().map(of).collect()
    }

    /// For each edge, the rows that the child's rate and the edge's limit let through.
    fn admitted(&self, draw: &dyn Fn(usize, &Row) -> u64) -> HashMap<EdgeId, BTreeSet<usize>> {
        let of_edge = |(id, edge): (EdgeId, &RuleEdge)| {
            let rules = self.rules.table(edge.child);
            let place = rules.out.iter().position(|&e| e == id).unwrap();
            let mut by_parent: HashMap<Option<Key>, Vec<(u64, Key, usize)>> = HashMap::new();
            for (at, row) in self.rows[edge.child.0].iter().enumerate() {
                let draw = draw(edge.child.0, row);
                if rules.rate.takes(draw) {
                    let identity = row.keys[0].clone().unwrap();
                    by_parent
                        .entry(row.refers[place].clone())
                        .or_default()
                        .push((draw, identity, at));
                }
            }
            let mut let_through = BTreeSet::new();
            for mut rows in by_parent.into_values() {
                rows.sort();
                let limit = edge.limit.map_or(usize::MAX, |limit| limit as usize);
                let_through.extend(rows.into_iter().take(limit).map(|(_, _, at)| at));
            }
            (id, let_through)
        };
        self.rules.edges().map(of_edge).collect()
    }

    fn find(&self, table: usize, which: usize, value: &Key) -> Option<usize> {
        self.rows[table].iter().position(|row| row.keys[which].as_ref() == Some(value))
    }

    fn until_stable(
        &self,
        sets: &mut [BTreeSet<usize>],
        holds: impl Fn(&[BTreeSet<usize>], usize, usize, &Row) -> bool,
    ) {
        loop {
            let before: usize = sets.iter().map(BTreeSet::len).sum();
            for table in 0..self.rows.len() {
                for (at, row) in self.rows[table].iter().enumerate() {
                    if !sets[table].contains(&at) && holds(sets, table, at, row) {
                        sets[table].insert(at);
                    }
                }
            }
            if sets.iter().map(BTreeSet::len).sum::<usize>() == before {
                return;
            }
        }
    }
}

#[test]
fn the_rows_are_those_of_a_naive_evaluator() {
    let chance = Chance::new(b"a key");
    let (mut taken, mut all, mut leaves) = (0, 0, 0);
    for seed in 0..300 {
        let world = world(seed);
        let expected = world.naive(&chance);
        for reversed in [false, true] {
            let rows = world.run(chance.clone(), reversed);
            assert_eq!(rows, expected, "seed {seed}, reversed: {reversed}");
        }
        taken += expected.iter().map(BTreeSet::len).sum::<usize>();
        all += world.rows.iter().map(Vec::len).sum::<usize>();
        leaves += world.rules.tables.iter().filter(|table| table.leaf).count();
    }
    // Neither nothing nor everything is taken, or agreement would mean little.
    assert!(taken > all / 10 && taken < all * 9 / 10, "{taken} of {all}");
    assert!(leaves > 100, "{leaves} leaves");
}
