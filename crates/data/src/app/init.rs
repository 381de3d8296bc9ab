//! Writing a configuration from what the source's schema holds.

use std::fmt::Write as _;
use std::sync::Arc;

use super::{Event, Job, Problem, Stage, columns};
use crate::closure::Selection;
use crate::config::{Config, Policy};
use crate::mask::{self, Decisions, yaml_key};
use crate::rules::{Edge, EdgeId, Mode, Rules, resolve};
use crate::schema::{Schema, TableId};

/// A reference that brings more than one in so many of its parent's rows is worth a word.
const GROWTH_WORTH_A_WORD: u64 = 20;

/// A configuration for this root and rate, with every policy that would hold anyway written out,
/// and a rule proposed for each column that looks personal.
pub async fn init(job: &Job<'_>, root: &str, rate: &str) -> Result<String, Problem> {
    let (source, schema) = job.begin().await?;
    let head = format!("sample:\n  root: {{ table: {}, rate: {rate} }}\n", yaml_key(root));
    let config = Config::parse(&head).map_err(|problem| Problem::Configuration(vec![problem]))?;
    let decisions = Decisions::read(&schema, &config).map_err(Problem::Configuration)?;
    let open = columns::open(job, &source, &schema, &decisions).await?;
    let mut text = head;
    match resolve(&schema, &config) {
        Ok(rules) => {
            let rules = Arc::new(rules);
            job.tell(Event::Begins(Stage::Keys));
            let selection = source.close(&schema, &rules, job.chance()).await?;
            tables(&schema, &selection, &mut text);
        }
        Err(problems) => {
            // The rest is worth having, and these say what is to be added.
            for problem in problems {
                let help = problem.help.map(|help| format!("; {help}")).unwrap_or_default();
                writeln!(text, "  # {}{help}", problem.message).expect("a string takes everything");
            }
        }
    }
    text.push_str(&mask::block(&open));
    text.push_str(&columns::fingerprint_block(&schema));
    Ok(text)
}

fn tables(schema: &Schema, selection: &Selection, text: &mut String) {
    let rules = selection.rules();
    text.push_str("  tables:\n");
    for (at, table) in rules.tables.iter().enumerate() {
        let name = yaml_key(&schema.tables[at].name.to_string());
        let line = match table.mode {
            Mode::All => Some("all".to_owned()),
            Mode::None => Some("none".to_owned()),
            Mode::Root | Mode::Reached => policies(schema, rules, TableId(at)),
        };
        if let Some(line) = line {
            writeln!(text, "    {name}: {line}").expect("a string takes everything");
        }
        for growth in growths(schema, selection, TableId(at)) {
            writeln!(text, "    # {growth}").expect("a string takes everything");
        }
    }
}

/// What is worth a second thought: references that bring many rows that nobody asked for.
fn growths(schema: &Schema, selection: &Selection, table: TableId) -> Vec<String> {
    let rules = selection.rules();
    let out = rules.table(table).out.iter().map(|&id| (id, rules.edge(id)));
    let growing = out.filter(|(id, edge)| {
        edge.policy == Policy::Pull
            && selection.growth(*id) * GROWTH_WORTH_A_WORD > schema.table(edge.parent).rows
    });
    let word = |(id, edge): (EdgeId, &Edge)| {
        let parent = &schema.table(edge.parent).name;
        let other = if edge.emptied.is_empty() { "require" } else { "null" };
        let growth = selection.growth(id);
        format!("{} brings {growth} more rows of {parent}; `{other}` would not", edge.label)
    };
    growing.map(word).collect()
}

/// `{ via: post_id, author_id: pull }`
fn policies(schema: &Schema, rules: &Rules, table: TableId) -> Option<String> {
    let keys = schema.foreign_keys.iter().filter(|key| key.child == table);
    let edges = rules.table(table).out.iter().map(|&edge| rules.edge(edge));
    let words: Vec<String> = keys
        .zip(edges)
        .map(|(key, edge)| {
            let columns = &schema.table(table).columns;
            // One column names it, unless another key has it too.
            let unique = key.child_columns.iter().map(|&at| &columns[at].name).find(|name| {
                let others = schema.foreign_keys.iter().filter(|other| other.child == table);
                let has = |other: &&crate::schema::ForeignKey| {
                    other.child_columns.iter().any(|&at| columns[at].name == **name)
                };
                others.filter(has).count() == 1
            });
            let name = yaml_key(unique.unwrap_or(&key.name));
            match edge.policy {
                Policy::Via => format!("via: {name}"),
                policy => format!("{name}: {}", policy.word()),
            }
        })
        .collect();
    (!words.is_empty()).then(|| format!("{{ {} }}", words.join(", ")))
}
