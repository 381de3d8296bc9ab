//! What a sample would hold, found out by reading keys, and a few rows for a look.

use serde::Serialize;

use super::{Event, Job, Problem, Stage, columns};
use crate::closure::Selection;
use crate::config::{MaxConfig, Policy};
use crate::mask::Decisions;
use crate::postgres::Source;
use crate::rules::Mode;
use crate::schema::{Schema, TableId};

/// What a sample would hold.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// In order of their names.
    pub tables: Vec<TablePlan>,
    /// Every reference.
    pub edges: Vec<EdgePlan>,
    /// What the configuration allows less of.
    pub passed: Vec<String>,
    /// Columns that look personal or secret and have no rule, each with why.
    pub unclassified: Vec<(String, String)>,
}

/// What would come of a table.
#[derive(Clone, Debug, Serialize)]
pub struct TablePlan {
    /// Its name.
    pub table: String,
    /// `root`, `reached`, `all` or `none`.
    pub mode: &'static str,
    /// About how many rows the source has.
    pub source_rows: u64,
    /// Rows that are chosen.
    pub core_rows: u64,
    /// Rows that come because others refer to them.
    pub extra_rows: u64,
    /// About how many bytes.
    pub bytes: u64,
}

impl TablePlan {
    /// All that would come.
    pub fn rows(&self) -> u64 {
        self.core_rows + self.extra_rows
    }
}

/// What a reference means, and costs.
#[derive(Clone, Debug, Serialize)]
pub struct EdgePlan {
    /// `posts.owner_id`
    pub reference: String,
    /// The table that it refers to.
    pub to: String,
    /// What it means.
    pub policy: Policy,
    /// Extra rows that come over it first.
    pub growth: u64,
    /// Keys that it refers to and no row has.
    pub orphans: u64,
}

/// Finds out what a sample would hold. Changes nothing, anywhere.
pub async fn plan(job: &Job<'_>) -> Result<Plan, Problem> {
    let (source, schema) = job.begin().await?;
    let rules = job.rules(&schema)?;
    let decisions = Decisions::read(&schema, job.config).map_err(Problem::Configuration)?;
    let open = columns::open(job, &source, &schema, &decisions).await?;
    let unclassified = open.into_iter().filter(|column| !column.generated);
    let unclassified = unclassified.map(|column| (column.column, column.finding.why)).collect();
    job.tell(Event::Begins(Stage::Keys));
    let selection = source.close(&schema, &rules, job.chance()).await?;
    let plan = of(&source, &schema, &selection, &job.config.sample.max).await?;
    Ok(Plan { unclassified, ..plan })
}

/// What a selection comes to.
pub(super) async fn of(
    source: &Source,
    schema: &Schema,
    selection: &Selection,
    max: &MaxConfig,
) -> Result<Plan, Problem> {
    let mut tables = Vec::new();
    for id in schema.ids() {
        tables.push(table(source, schema, selection, id).await?);
    }
    let edge = |(id, edge): (crate::rules::EdgeId, &crate::rules::Edge)| EdgePlan {
        reference: edge.label.clone(),
        to: schema.table(edge.parent).name.to_string(),
        policy: edge.policy,
        growth: selection.growth(id),
        orphans: selection.orphans(id),
    };
    let edges = selection.rules().edges().map(edge).collect();
    let passed = passed(&tables, max);
    Ok(Plan { tables, edges, passed, unclassified: Vec::new() })
}

async fn table(
    source: &Source,
    schema: &Schema,
    selection: &Selection,
    id: TableId,
) -> Result<TablePlan, Problem> {
    let rules = selection.rules().table(id);
    let table = schema.table(id);
    let (core, extra) = match (rules.mode, rules.leaf) {
        (Mode::None, _) => (0, 0),
        (_, true) => (source.count_leaf(schema, selection, id).await?, 0),
        (_, false) => (selection.core(id) as u64, selection.extra(id) as u64),
    };
    let each = table.bytes as f64 / table.rows.max(1) as f64;
    Ok(TablePlan {
        table: table.name.to_string(),
        mode: match rules.mode {
            Mode::Root => "root",
            Mode::Reached => "reached",
            Mode::All => "all",
            Mode::None => "none",
        },
        source_rows: table.rows,
        core_rows: core,
        extra_rows: extra,
        bytes: ((core + extra) as f64 * each) as u64,
    })
}

/// What is more than the configuration allows.
fn passed(tables: &[TablePlan], max: &MaxConfig) -> Vec<String> {
    let mut passed = Vec::new();
    let rows: u64 = tables.iter().map(TablePlan::rows).sum();
    if let Some(most) = max.rows.filter(|most| rows > *most) {
        passed.push(format!("{rows} rows, where `max.rows` is {most}"));
    }
    let bytes: u64 = tables.iter().map(|table| table.bytes).sum();
    if let Some(most) = max.bytes.filter(|most| bytes > most.0) {
        passed.push(format!("about {bytes} bytes, where `max.bytes` is {}", most.0));
    }
    if let Some(most) = max.extra {
        for table in tables {
            let share = table.extra_rows as f64 / table.source_rows.max(1) as f64;
            if share > most.share() {
                passed.push(format!(
                    "{} extra rows of `{}`, {:.1} % of its rows, where `max.extra` is {:.1} %",
                    table.extra_rows,
                    table.table,
                    share * 100.0,
                    most.share() * 100.0
                ));
            }
        }
    }
    passed
}
