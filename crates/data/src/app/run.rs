//! Taking a sample: into a new database, which replaces the old one when all is well.

use std::sync::Arc;

use serde::Serialize;

use super::{Event, Job, Problem, Stage, columns, files, plan};
use crate::closure::Selection;
use crate::mask::{self, Originals};
use crate::postgres::{Filling, Leak, RowPlan, Server, Source, Target, Transferred};
use crate::rules::Mode;
use crate::schema::{Schema, TableId};
use crate::vault::{FilesReport, Vault};

/// What a run did.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Tables that have rows in the sample.
    pub tables: Vec<TableReport>,
    /// What was made of it.
    pub rows: u64,
    /// In the binary format.
    pub bytes: u64,
    /// Files that belong to them, for each vault of the configuration.
    pub files: Vec<FilesReport>,
}

/// What came of a table.
#[derive(Clone, Debug, Serialize)]
pub struct TableReport {
    /// Its name.
    pub table: String,
    /// Rows that were written.
    pub rows: u64,
    /// Bytes that were written.
    pub bytes: u64,
    /// References that were emptied.
    pub emptied: u64,
    /// Rows left out because what they refer to does not exist in the source.
    pub dropped: u64,
}

/// Fills a new database beside `target`, and puts it in its place. Until that moment, and after
/// any failure, the old one answers.
pub async fn sample(job: &Job<'_>, target: &Server) -> Result<Report, Problem> {
    // What is wrong with folders is known before anything is made.
    let vaults = job.config.sample.vaults().map_err(Problem::Configuration)?;
    vaults.iter().try_for_each(Vault::check)?;
    let (source, schema) = job.begin().await?;
    // First, so that somebody with an empty configuration learns what is at stake.
    let masks = columns::row_plans(job, &source, &schema).await?;
    let rules = job.rules(&schema)?;
    job.tell(Event::Begins(Stage::Keys));
    let selection = source.close(&schema, &rules, job.chance()).await?;
    let max = &job.config.sample.max;
    if max.rows.is_some() || max.bytes.is_some() || max.extra.is_some() {
        let plan = plan::of(&source, &schema, &selection, max).await?;
        if !plan.passed.is_empty() {
            return Err(Problem::Limits(plan.passed));
        }
    }
    job.tell(Event::Begins(Stage::Definition));
    let mut new = Target::create(target, &source).await?;
    let filled = async {
        let report = fill(job, &source, &schema, Arc::new(selection), masks, &mut new).await?;
        let files = files::copy(job, &new, &vaults).await?;
        Ok(Report { files, ..report })
    };
    match filled.await {
        Ok(mut report) => {
            job.tell(Event::Begins(Stage::Swap));
            if let Some(error) = new.swap().await? {
                job.tell(Event::Note(format!("{error}; the next run does it")));
            }
            files::prune(job, vaults, &mut report.files).await;
            Ok(report)
        }
        Err(problem) => {
            if let Err(error) = new.abandon().await {
                job.tell(Event::Note(format!("{error}; the next run does it")));
            }
            Err(problem)
        }
    }
}

async fn fill(
    job: &Job<'_>,
    source: &Source,
    schema: &Schema,
    selection: Arc<Selection>,
    (plans, originals): (Vec<RowPlan>, Arc<Originals>),
    new: &mut Target,
) -> Result<Report, Problem> {
    let mut filling = Filling::begin(source, new, job.sessions).await?;
    job.tell(Event::Begins(Stage::Rows));
    let rules = selection.rules();
    let mut tables: Vec<TableId> =
        schema.ids().filter(|&id| rules.table(id).mode != Mode::None).collect();
    // The largest first, so that none is left alone at the end.
    tables.sort_by_key(|&id| std::cmp::Reverse(schema.table(id).bytes));
    let of = tables.len();
    let mut done = 0;
    let copied = |table: TableId, transferred: &Transferred| {
        done += 1;
        job.tell(Event::Copied {
            table: schema.table(table).name.to_string(),
            rows: transferred.rows,
            bytes: transferred.bytes,
            done,
            of,
        });
    };
    let tables: Vec<(TableId, RowPlan)> =
        tables.into_iter().map(|id| (id, plans[id.0].clone())).collect();
    let transferred =
        filling.rows(schema, &selection, tables.clone(), job.config.sample.extra, copied).await?;
    job.tell(Event::Begins(Stage::Constraints));
    filling.constrain().await?;
    job.tell(Event::Begins(Stage::Finishing));
    filling.finish().await?;
    job.tell(Event::Begins(Stage::Verifying));
    filling.verify().await?;
    let leaks = filling.leaks(schema, &tables, &originals).await?;
    if !leaks.is_empty() {
        let told = |leak: Leak| (mask::column_name(schema, leak.table, leak.column), leak.rows);
        return Err(Problem::Leaks(leaks.into_iter().map(told).collect()));
    }
    Ok(report(schema, transferred))
}

fn report(schema: &Schema, mut transferred: Vec<(TableId, Transferred)>) -> Report {
    transferred.sort_by_key(|(id, _)| *id);
    let table = |(id, done): (TableId, Transferred)| TableReport {
        table: schema.table(id).name.to_string(),
        rows: done.rows,
        bytes: done.bytes,
        emptied: done.emptied,
        dropped: done.dropped,
    };
    let tables: Vec<TableReport> = transferred.into_iter().map(table).collect();
    let rows = tables.iter().map(|table| table.rows).sum();
    let bytes = tables.iter().map(|table| table.bytes).sum();
    Report { tables, rows, bytes, files: Vec::new() }
}
