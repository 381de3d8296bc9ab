//! Searching the new database for what should not be in it.

use std::sync::{Arc, Mutex};

use futures_util::{StreamExt as _, pin_mut};
use tokio_postgres::Client;

use super::copy::Reader;
use super::error::Error;
use super::source::Failed;
use super::transfer::RowPlan;
use crate::mask::{Cell, Originals, has_content};
use crate::schema::{Schema, TableId, quoted};

/// A column that was kept and holds values that were masked elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leak {
    /// The table.
    pub table: TableId,
    /// The column's place in it.
    pub column: usize,
    /// In how many rows.
    pub rows: u64,
}

/// The kept columns of a table that could hold anything.
fn kept(schema: &Schema, table: TableId, plan: &RowPlan) -> Vec<usize> {
    let columns = &schema.table(table).columns;
    let cells = plan.columns.iter().zip(&plan.cells);
    let kept = cells.filter(|(at, cell)| matches!(cell, Cell::Keep) && has_content(&columns[**at]));
    kept.map(|(at, _)| *at).collect()
}

/// Searches every row of these tables, on all sessions.
pub(super) async fn search(
    sessions: &[Arc<Client>],
    schema: &Schema,
    tables: &[(TableId, RowPlan)],
    originals: &Arc<Originals>,
) -> Result<Vec<Leak>, Error> {
    let work = tables.iter().map(|(table, plan)| (*table, kept(schema, *table, plan)));
    let queue: Vec<(TableId, Vec<usize>)> =
        work.filter(|(_, kept)| !kept.is_empty()).rev().collect();
    let queue = Mutex::new(queue);
    let session = |client: Arc<Client>| {
        let queue = &queue;
        async move {
            let mut leaks = Vec::new();
            loop {
                let next = queue.lock().expect("nobody panics while holding it").pop();
                let Some((table, columns)) = next else { return Ok::<_, Error>(leaks) };
                leaks.extend(in_table(&client, schema, table, &columns, originals).await?);
            }
        }
    };
    let found = futures_util::future::try_join_all(sessions.iter().cloned().map(session)).await?;
    let mut leaks: Vec<Leak> = found.into_iter().flatten().collect();
    leaks.sort_by_key(|leak| (leak.table, leak.column));
    Ok(leaks)
}

async fn in_table(
    client: &Client,
    schema: &Schema,
    table: TableId,
    columns: &[usize],
    originals: &Originals,
) -> Result<Vec<Leak>, Error> {
    let of = schema.table(table);
    let name = of.name.to_string();
    let values: Vec<String> =
        columns.iter().map(|&at| format!("{}::text", quoted(&of.columns[at].name))).collect();
    let sql = format!(
        "COPY (SELECT {} FROM {}) TO STDOUT (FORMAT binary)",
        values.join(", "),
        of.name.sql()
    );
    let stream = client.copy_out(sql.as_str()).await;
    let stream = stream.map_err(|error| Failed::Database(error).of(&name))?;
    pin_mut!(stream);
    let mut reader = Reader::default();
    let mut rows = vec![0; columns.len()];
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| Failed::Database(error).of(&name))?;
        let read = reader.feed::<Failed>(&chunk, |tuple| {
            for (field, rows) in tuple.fields().zip(&mut rows) {
                let found =
                    field.is_some_and(|field| originals.are_in(&String::from_utf8_lossy(field)));
                *rows += u64::from(found);
            }
            Ok(())
        });
        read.map_err(|failed| failed.of(&name))?;
    }
    let found = columns.iter().zip(rows).filter(|(_, rows)| *rows > 0);
    Ok(found.map(|(&column, rows)| Leak { table, column, rows }).collect())
}
