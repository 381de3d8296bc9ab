//! Which columns look personal and have no rule, and what the schema was when somebody looked.

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;

use super::{Event, Job, Problem, Stage};
use crate::config::Config;
use crate::mask::{self, Decisions, Originals, Unclassified};
use crate::postgres::{RowPlan, Source};
use crate::schema::{Schema, TableId};

/// Bytes of a table's fingerprint: enough that no change goes unnoticed by chance.
const FINGERPRINT_BYTES: usize = 6;

/// Decides what becomes of every column; the second will hold what was masked.
///
/// # Errors
/// [`Problem::Unclassified`] if a column looks personal or secret and has no rule,
/// [`Problem::Changed`] if the schema is not what it was when somebody looked.
pub(super) async fn row_plans(
    job: &Job<'_>,
    source: &Source,
    schema: &Schema,
) -> Result<(Vec<RowPlan>, Arc<Originals>), Problem> {
    let decisions = Decisions::read(schema, job.config).map_err(Problem::Configuration)?;
    let open = open(job, source, schema, &decisions).await?;
    if open.iter().any(|column| !column.generated) {
        let block = mask::block(&open);
        return Err(Problem::Unclassified { columns: open, block });
    }
    unchanged(schema, job.config)?;
    let mut chance = [0; 32];
    fill_with_chance(&mut chance);
    let cells = decisions.cells(schema, job.secret, &chance).map_err(Problem::Configuration)?;
    let plan = |(columns, cells)| RowPlan { columns, cells };
    Ok((cells.tables.into_iter().map(plan).collect(), cells.originals))
}

/// Columns that look personal or secret and have no rule.
pub(super) async fn open(
    job: &Job<'_>,
    source: &Source,
    schema: &Schema,
    decisions: &Decisions,
) -> Result<Vec<Unclassified>, Problem> {
    job.tell(Event::Begins(Stage::Columns));
    let mut findings = BTreeMap::new();
    for id in schema.ids() {
        for (column, finding) in of_table(source, schema, decisions, id).await? {
            findings.insert((id, column), finding);
        }
    }
    ask_once(schema, decisions, &mut findings);
    let unclassified = |((id, at), finding): ((TableId, usize), mask::Finding)| {
        let column = &schema.table(id).columns[at];
        Unclassified {
            column: mask::column_name(schema, id, at),
            finding,
            generated: column.generated,
            nullable: column.nullable,
        }
    };
    Ok(findings.into_iter().map(unclassified).collect())
}

/// A column that refers to another follows that one's rule, so only the other is asked about: for
/// its own sake, or for that of what refers to it.
fn ask_once(
    schema: &Schema,
    decisions: &Decisions,
    findings: &mut BTreeMap<(TableId, usize), mask::Finding>,
) {
    // Along each chain of references a finding moves once per key; around a cycle it stays.
    for _ in 0..=schema.foreign_keys.len() {
        let mut moved = false;
        for key in &schema.foreign_keys {
            for (&child, &parent) in key.child_columns.iter().zip(&key.parent_columns) {
                let (child, parent) = ((key.child, child), (key.parent, parent));
                if child == parent || !decisions.is_open(parent.0, parent.1) {
                    continue;
                }
                let Some(finding) = findings.remove(&child) else { continue };
                moved = true;
                let why =
                    format!("what `{}` refers to", mask::column_name(schema, child.0, child.1));
                let finding = mask::Finding { why, ..finding };
                findings.entry(parent).or_insert(finding);
            }
        }
        if !moved {
            return;
        }
    }
}

async fn of_table(
    source: &Source,
    schema: &Schema,
    decisions: &Decisions,
    id: TableId,
) -> Result<Vec<(usize, mask::Finding)>, Problem> {
    let table = schema.table(id);
    let without_rule = (0..table.columns.len()).filter(|&column| decisions.is_open(id, column));
    let mut findings: Vec<(usize, Option<mask::Finding>)> =
        without_rule.map(|at| (at, mask::by_name(&table.columns[at]))).collect();
    let looked_at: Vec<usize> = findings
        .iter()
        .filter(|(at, finding)| finding.is_none() && mask::has_content(&table.columns[*at]))
        .map(|(at, _)| *at)
        .collect();
    if !looked_at.is_empty() {
        let found = source.look(schema, id, &looked_at).await?;
        for (at, finding) in looked_at.into_iter().zip(found) {
            let place = findings.iter_mut().find(|(column, _)| *column == at);
            place.expect("it was looked at because it is there").1 = finding;
        }
    }
    Ok(findings.into_iter().filter_map(|(at, finding)| Some((at, finding?))).collect())
}

/// What each table's columns are, as a few hexadecimal digits.
pub(super) fn fingerprint(schema: &Schema) -> IndexMap<String, String> {
    let of = |table: &crate::schema::Table| {
        let mut hasher = blake3::Hasher::new();
        for column in &table.columns {
            for part in [&column.name, &column.type_name] {
                hasher.update(&(part.len() as u64).to_be_bytes());
                hasher.update(part.as_bytes());
            }
        }
        let hash = hasher.finalize();
        let digits = hash.as_bytes()[..FINGERPRINT_BYTES].iter().map(|byte| format!("{byte:02x}"));
        (table.name.to_string(), digits.collect())
    };
    schema.tables.iter().map(of).collect()
}

/// A configuration without fingerprints asks for no such check.
fn unchanged(schema: &Schema, config: &Config) -> Result<(), Problem> {
    let known = &config.sample.fingerprint;
    if known.is_empty() {
        return Ok(());
    }
    let now = fingerprint(schema);
    let differs = |(table, print): (&String, &String)| {
        (known.get(table) != Some(print)).then(|| table.clone())
    };
    let tables: Vec<String> = now.iter().filter_map(differs).collect();
    match tables.is_empty() {
        true => Ok(()),
        false => Err(Problem::Changed { tables, block: fingerprint_block(schema) }),
    }
}

/// The fingerprints, to paste under `sample:`.
pub(super) fn fingerprint_block(schema: &Schema) -> String {
    let mut text = String::from("  fingerprint:\n");
    for (table, print) in fingerprint(schema) {
        text.push_str(&format!("    {}: \"{print}\"\n", mask::yaml_key(&table)));
    }
    text
}

fn fill_with_chance(bytes: &mut [u8; 32]) {
    let filled = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
    // Up to 256 bytes are given at once (getrandom(2)).
    assert_eq!(filled, Ok(bytes.len()), "the kernel gives random numbers");
}
