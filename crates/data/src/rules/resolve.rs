//! From the configuration's words to [`Rules`], with everything that is wrong with them.

use crate::chance::Rate;
use crate::config::{
    Config, Policy, ReferenceRule, ReferenceWord, SampleConfig, TableMode, TableRule, place,
};
use crate::diagnostic::Diagnostic;
use crate::schema::{Schema, TableId, ValueKind, quoted};
use serde_saphyr::Spanned;

use super::defaults::{Defaults, defaults};
use super::{
    ArrayEdge, Edge, KeyColumns, KeyPart, Mode, RootConditions, Rules, TableRules, column_part,
};

/// Tables that no reference reaches come whole up to this many rows; reference data has fewer,
/// and more would dwarf the sample unasked.
pub const WHOLE_TABLE_ROWS: u64 = 50_000;

/// Decides one policy for each reference and one mode for each table.
///
/// # Errors
/// Everything in the configuration that does not fit the schema, and tables that are too large
/// to be copied whole without being named.
pub fn resolve(schema: &Schema, config: &Config) -> Result<Rules, Vec<Diagnostic>> {
    let mut resolver = Resolver { schema, config: &config.sample, problems: Vec::new() };
    let rules = resolver.rules();
    match rules {
        Some(rules) if resolver.problems.is_empty() => Ok(rules),
        _ => Err(resolver.problems),
    }
}

struct Resolver<'a> {
    schema: &'a Schema,
    config: &'a SampleConfig,
    problems: Vec<Diagnostic>,
}

impl<'a> Resolver<'a> {
    fn rules(&mut self) -> Option<Rules> {
        let (root, rate, conditions) = self.root()?;
        self.known_tables();
        let excluded: Vec<bool> =
            self.schema.ids().map(|id| self.given(id).is_some_and(|r| r.mode.is_some())).collect();
        let found = defaults(self.schema, root, &excluded);
        let tables = self.tables(root, rate, &found);
        let mut rules = Rules { root, conditions, tables, edges: Vec::new(), arrays: Vec::new() };
        self.foreign_keys(&mut rules, &found);
        self.references(&mut rules);
        self.tables_without_rows(&mut rules);
        rules.derive();
        self.check(&rules);
        Some(rules)
    }

    fn root(&mut self) -> Option<(TableId, Rate, RootConditions)> {
        let Some(root) = &self.config.root else {
            let problem = Diagnostic::new("data/no-root", "no root table is named")
                .help("sample: { root: { table: users, rate: 10% } }");
            self.problems.push(problem);
            return None;
        };
        let id = self.find(&root.table)?;
        let rate = root.rate.as_ref().map_or(Rate::ALL, |rate| rate.value);
        let conditions =
            RootConditions { only: root.condition.clone(), always: root.always.clone() };
        Some((id, rate, conditions))
    }

    fn find(&mut self, name: &Spanned<String>) -> Option<TableId> {
        let found = self.schema.find(&name.value);
        if found.is_none() {
            self.unknown_table(&name.value, place(name));
        }
        found
    }

    fn unknown_table(&mut self, name: &str, at: crate::diagnostic::Place) {
        let message = format!("there is no table `{name}`");
        let problem = Diagnostic::new("data/unknown-table", message).at(at);
        let names = self.schema.tables.iter().map(|table| table.name.to_string());
        self.problems.push(match nearest(name, names) {
            Some(near) => problem.help(format!("did you mean `{near}`?")),
            None => problem,
        });
    }

    fn known_tables(&mut self) {
        let config = self.config;
        for (name, rule) in &config.tables {
            if self.schema.find(name).is_none() {
                self.unknown_table(name, place(rule));
            }
        }
    }

    fn given(&self, id: TableId) -> Option<&'a TableRule> {
        let name = self.schema.table(id).name.to_string();
        self.config.tables.get(&name).map(|rule| &rule.value)
    }

    fn tables(&mut self, root: TableId, rate: Rate, found: &Defaults) -> Vec<TableRules> {
        let ids: Vec<TableId> = self.schema.ids().collect();
        ids.into_iter()
            .map(|id| {
                let given = self.given(id);
                let mode = match given.and_then(|rule| rule.mode) {
                    Some(TableMode::All) => Mode::All,
                    Some(TableMode::None) => Mode::None,
                    None if id == root => Mode::Root,
                    None if found.reached[id.0] || given.is_some_and(brings_rows) => Mode::Reached,
                    None => self.whole(id),
                };
                let rate = match mode {
                    Mode::Root => rate,
                    Mode::Reached | Mode::All | Mode::None => {
                        given.and_then(|rule| rule.rate).unwrap_or(Rate::ALL)
                    }
                };
                let identity = self.schema.table(id).identity.as_ref();
                let keys = identity.map(|columns| self.key(id, columns)).into_iter().collect();
                TableRules { mode, rate, keys, leaf: false, out: Vec::new() }
            })
            .collect()
    }

    /// A table that nothing reaches: reference data, if it is small.
    fn whole(&mut self, id: TableId) -> Mode {
        let table = self.schema.table(id);
        if table.rows > WHOLE_TABLE_ROWS {
            let message = format!(
                "no reference leads from the root to `{}`, which has about {} rows",
                table.name, table.rows
            );
            let help = format!("sample: {{ tables: {{ {}: all }} }}, or `none`", table.name);
            self.problems.push(Diagnostic::new("data/large-table", message).help(help));
        }
        Mode::All
    }

    fn key(&self, table: TableId, columns: &[usize]) -> KeyColumns {
        let kind = |&at: &usize| self.schema.table(table).columns[at].kind.key_kind();
        let parts =
            columns.iter().map(|at| column_part(self.schema, table, *at, kind(at))).collect();
        KeyColumns { parts }
    }

    /// The place of this key among the parent's, which is added if it is new. A key that cannot
    /// tell rows apart because they have no identity becomes the identity.
    fn parent_key(&self, rules: &mut Rules, parent: TableId, columns: &[usize]) -> usize {
        let key = self.key(parent, columns);
        let keys = &mut rules.tables[parent.0].keys;
        keys.iter().position(|known| *known == key).unwrap_or_else(|| {
            keys.push(key);
            keys.len() - 1
        })
    }

    fn foreign_keys(&mut self, rules: &mut Rules, found: &Defaults) {
        for (at, key) in self.schema.foreign_keys.iter().enumerate() {
            let child = self.schema.table(key.child);
            let names: Vec<&str> =
                key.child_columns.iter().map(|&at| child.columns[at].name.as_str()).collect();
            let label = format!("{}.{}", child.name, names.join("+"));
            let nullable =
                |at: &usize| child.columns[*at].nullable && !child.columns[*at].generated;
            let emptied: Vec<usize> = key.child_columns.iter().copied().filter(nullable).collect();
            let parent_key = self.parent_key(rules, key.parent, &key.parent_columns);
            let kinds = rules.tables[key.parent.0].keys[parent_key].parts.iter().map(|p| p.kind);
            let parts = key.child_columns.iter().zip(kinds);
            let parts =
                parts.map(|(&at, kind)| column_part(self.schema, key.child, at, kind)).collect();
            let is_named = |word: &str| word == key.name || names.contains(&word);
            let given = self.given(key.child);
            let policy = self.policy(given, is_named, found.policies[at], key, rules);
            let limit =
                given.and_then(|rule| rule.limit.as_ref()).filter(|l| is_named(&l.value.by));
            rules.edges.push(Edge {
                label,
                child: key.child,
                parent: key.parent,
                parent_key,
                refers: KeyColumns { parts },
                emptied,
                policy,
                limit: limit.filter(|_| policy == Policy::Via).map(|limit| limit.value.rows),
                guaranteed: key.validated,
            });
        }
    }

    /// What the configuration says of this key, else what it implies, else the default.
    fn policy(
        &self,
        given: Option<&TableRule>,
        is_named: impl Fn(&str) -> bool,
        default: Policy,
        key: &crate::schema::ForeignKey,
        rules: &Rules,
    ) -> Policy {
        // Rows that come whole are chosen without a reference; their parents come along.
        let default = match rules.tables[key.child.0].mode {
            Mode::All | Mode::Root if default == Policy::Require => Policy::Pull,
            Mode::All | Mode::Root if default == Policy::Via => Policy::Pull,
            Mode::All | Mode::Root | Mode::Reached | Mode::None => default,
        };
        let Some(rule) = given else { return default };
        let named = rule.columns.iter().find(|(word, _)| is_named(word));
        if let Some((_, word)) = named {
            return word.value.0;
        }
        let Some(via) = &rule.via else { return default };
        if via.value.names().iter().any(|word| is_named(word)) {
            return Policy::Via;
        }
        // Where the configuration names the ways in, there is no other.
        let same_parent = self.schema.foreign_keys.iter().any(|other| {
            let columns = &self.schema.table(other.child).columns;
            let is_via = |at: &usize| via.value.names().contains(&columns[*at].name);
            other.child == key.child
                && other.parent == key.parent
                && (other.child_columns.iter().any(is_via)
                    || via.value.names().contains(&other.name))
        });
        match same_parent && !self.schema.is_nullable(key) {
            true => Policy::Require,
            false => Policy::Pull,
        }
    }

    fn references(&mut self, rules: &mut Rules) {
        let config = self.config;
        for (name, rule) in &config.tables {
            let Some(child) = self.schema.find(name) else { continue };
            for reference in &rule.value.refs {
                self.reference(rules, child, reference);
            }
        }
    }

    fn reference(&mut self, rules: &mut Rules, child: TableId, given: &Spanned<ReferenceRule>) {
        let ReferenceRule { when, column, to, policy } = &given.value;
        let policy = match (policy, given.value.array()) {
            (ReferenceWord::Prune, Some(array)) => {
                return self.array(rules, child, given, array);
            }
            (ReferenceWord::Policy(policy), None) => *policy,
            (ReferenceWord::Policy(_), Some(_)) | (ReferenceWord::Prune, None) => {
                let message = "elements of an array are pruned, and nothing else is";
                let problem = Diagnostic::new("data/array", message).at(place(given));
                let help = "{ column: \"post_ids[]\", to: posts.id, policy: prune }";
                return self.problems.push(problem.help(help));
            }
        };
        let Some((parent, parent_column)) = self.referred_to(given, to) else { return };
        let child_table = self.schema.table(child);
        let plain = child_table.column(column);
        let sql = match plain {
            Some(_) => quoted(column),
            None => format!("({column})"),
        };
        let sql = match when {
            Some(when) => format!("CASE WHEN ({when}) THEN {sql} END"),
            None => sql,
        };
        let parent_key = self.parent_key(rules, parent, &[parent_column]);
        let kind = self.schema.table(parent).columns[parent_column].kind.key_kind();
        let emptied: Vec<usize> =
            plain.filter(|&at| child_table.columns[at].nullable).into_iter().collect();
        if policy == Policy::Null && emptied.is_empty() {
            let message = format!("`{column}` cannot be emptied: it is not a nullable column");
            self.problems.push(Diagnostic::new("data/not-nullable", message).at(place(given)));
        }
        rules.edges.push(Edge {
            label: format!("{}.{column}", child_table.name),
            child,
            parent,
            parent_key,
            refers: KeyColumns { parts: vec![KeyPart { sql, kind, plain: None }] },
            emptied,
            policy,
            limit: None,
            // No constraint breaks where there is no parent.
            guaranteed: true,
        });
    }

    /// The column that `to` names.
    fn referred_to(
        &mut self,
        given: &Spanned<ReferenceRule>,
        to: &str,
    ) -> Option<(TableId, usize)> {
        let found = to.rsplit_once('.').and_then(|(table, column)| {
            let table = self.schema.find(table)?;
            Some((table, self.schema.table(table).column(column)?))
        });
        if found.is_none() {
            let message = format!("there is no column `{to}`");
            let problem = Diagnostic::new("data/unknown-column", message).at(place(given));
            self.problems.push(problem.help("write `to: table.column`"));
        }
        found
    }

    fn array(
        &mut self,
        rules: &mut Rules,
        child: TableId,
        given: &Spanned<ReferenceRule>,
        array: &str,
    ) {
        let Some((parent, parent_column)) = self.referred_to(given, &given.value.to) else {
            return;
        };
        let child_table = self.schema.table(child);
        let column = child_table.column(array);
        let refused = |message: String| Diagnostic::new("data/array", message).at(place(given));
        let Some(column) = column.filter(|_| given.value.when.is_none()) else {
            let message =
                format!("`{array}[]` is not an array of `{}`, or has a `when`", child_table.name);
            return self.problems.push(refused(message));
        };
        let kind = &self.schema.table(parent).columns[parent_column].kind;
        match &child_table.columns[column].kind {
            ValueKind::Array(element) if is_comparable(element, kind) => {
                let parent_key = self.parent_key(rules, parent, &[parent_column]);
                let element = element.as_ref().clone();
                rules.arrays.push(ArrayEdge { child, column, element, parent, parent_key });
            }
            _ => {
                let message = format!(
                    "elements of `{array}` cannot be compared with `{}`: both must be whole numbers, \
                     UUIDs or texts",
                    given.value.to
                );
                self.problems.push(refused(message));
            }
        }
    }

    /// References to tables without rows are emptied; those that cannot be are refused.
    fn tables_without_rows(&mut self, rules: &mut Rules) {
        let is_none: Vec<bool> = rules.tables.iter().map(|t| t.mode == Mode::None).collect();
        rules.edges.retain(|edge| !is_none[edge.child.0]);
        for edge in rules.edges.iter_mut().filter(|edge| is_none[edge.parent.0]) {
            edge.policy = Policy::Null;
            if edge.emptied.is_empty() {
                let parent = &self.schema.table(edge.parent).name;
                let message = format!("`{parent}` is `none`, but `{}` cannot be empty", edge.label);
                self.problems.push(Diagnostic::new("data/needed", message));
            }
        }
    }

    fn check(&mut self, rules: &Rules) {
        for edge in &rules.edges {
            let child = self.schema.table(edge.child);
            if edge.policy == Policy::Null && edge.emptied.is_empty() {
                let message = format!("`{}` cannot be emptied: it is NOT NULL", edge.label);
                self.problem_of(edge.child, "data/not-nullable", message);
            }
            let checked = edge.emptied.iter().find(|&&at| child.columns[at].checked);
            if let (Policy::Null, Some(&at)) = (edge.policy, checked) {
                let message = format!(
                    "`{}` is not emptied: a CHECK or a partial index looks at `{}`",
                    edge.label, child.columns[at].name
                );
                self.problem_of(edge.child, "data/checked-column", message);
            }
        }
        for (at, table) in rules.tables.iter().enumerate() {
            let id = TableId(at);
            if !table.leaf && table.keys.is_empty() && table.mode != Mode::None {
                let name = &self.schema.table(id).name;
                let message =
                    format!("nothing tells the rows of `{name}` apart: it has no unique key");
                self.problem_of(id, "data/no-key", message);
            }
        }
        self.unknown_columns();
    }

    fn problem_of(&mut self, table: TableId, code: &'static str, message: String) {
        let name = self.schema.table(table).name.to_string();
        let problem = Diagnostic::new(code, message);
        self.problems.push(match self.config.tables.get(&name) {
            Some(rule) => problem.at(place(rule)),
            None => problem,
        });
    }

    /// Words in a table's rule that name none of its references.
    fn unknown_columns(&mut self) {
        let config = self.config;
        for (name, rule) in &config.tables {
            let Some(id) = self.schema.find(name) else { continue };
            let table = self.schema.table(id);
            let keys: Vec<_> =
                self.schema.foreign_keys.iter().filter(|key| key.child == id).collect();
            let refers = |word: &str| {
                keys.iter().any(|key| {
                    key.name == word
                        || key.child_columns.iter().any(|&at| table.columns[at].name == word)
                })
            };
            let via =
                rule.value.via.iter().flat_map(|via| {
                    via.value.names().iter().map(|word| (word.as_str(), place(via)))
                });
            let columns = rule.value.columns.iter().map(|(word, at)| (word.as_str(), place(at)));
            let limit = rule.value.limit.iter().map(|l| (l.value.by.as_str(), place(l)));
            for (word, at) in via.chain(columns).chain(limit).filter(|(word, _)| !refers(word)) {
                let message = format!("`{name}` has no reference `{word}`");
                let help = format!(
                    "write a referring column, a constraint's name, or `refs:` for what the \
                     database does not know; `{name}` has {}",
                    references_of(self.schema, &keys)
                );
                self.problems
                    .push(Diagnostic::new("data/unknown-reference", message).at(at).help(help));
            }
        }
    }
}

fn references_of(schema: &Schema, keys: &[&crate::schema::ForeignKey]) -> String {
    let name = |key: &&crate::schema::ForeignKey| {
        let columns = &schema.table(key.child).columns;
        let names: Vec<&str> =
            key.child_columns.iter().map(|&at| columns[at].name.as_str()).collect();
        format!("`{}`", names.join("+"))
    };
    match keys {
        [] => "none".to_owned(),
        _ => keys.iter().map(name).collect::<Vec<_>>().join(", "),
    }
}

/// Whether an element's bytes tell whether it equals a key.
fn is_comparable(element: &ValueKind, key: &ValueKind) -> bool {
    match (element, key) {
        (ValueKind::Int(_), ValueKind::Int(_)) | (ValueKind::Uuid, ValueKind::Uuid) => true,
        (ValueKind::Text { folds }, ValueKind::Text { folds: key }) => !folds && !key,
        _ => false,
    }
}

/// Whether the rule says how rows come.
fn brings_rows(rule: &TableRule) -> bool {
    let by_column = |policy: Policy| matches!(policy, Policy::Via | Policy::With);
    rule.via.is_some()
        || rule.columns.values().any(|word| by_column(word.value.0))
        || rule.refs.iter().any(|reference| match reference.value.policy {
            ReferenceWord::Policy(policy) => by_column(policy),
            ReferenceWord::Prune => false,
        })
}

/// A name that is at most two letters away, for help.
fn nearest(word: &str, names: impl Iterator<Item = String>) -> Option<String> {
    let distance = |name: &str| {
        let name: Vec<char> = name.chars().collect();
        let mut row: Vec<usize> = (0..=name.len()).collect();
        for (i, a) in word.chars().enumerate() {
            let mut diagonal = row[0];
            row[0] = i + 1;
            for (j, b) in name.iter().enumerate() {
                let substituted = diagonal + usize::from(a != *b);
                diagonal = row[j + 1];
                row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
            }
        }
        row[name.len()]
    };
    names.map(|name| (distance(&name), name)).filter(|(far, _)| *far <= 2).min().map(|(_, n)| n)
}
