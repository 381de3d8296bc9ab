//! A few rows of each table, to see what columns hold.

use futures_util::{StreamExt as _, pin_mut};

use super::copy::Reader;
use super::error::Error;
use super::source::{Failed, Source};
use crate::mask::{Content, Finding};
use crate::schema::{Schema, TableId, quoted};

/// Rows of a table that are looked at.
const ROWS: u64 = 2_000;
/// Characters of a value that are looked at.
const CHARS: usize = 4_000;
/// From this many rows on, pages are chosen by chance instead of from the front.
const MANY: u64 = 40_000;
/// Times as many pages as rows need, since some are nearly empty.
const SLACK: f64 = 4.0;

impl Source {
    /// What these columns of a table look like by what rows hold.
    pub async fn look(
        &self,
        schema: &Schema,
        table: TableId,
        columns: &[usize],
    ) -> Result<Vec<Option<Finding>>, Error> {
        let of = schema.table(table);
        let values: Vec<String> = columns
            .iter()
            .map(|&at| format!("left({}::text, {CHARS})", quoted(&of.columns[at].name)))
            .collect();
        let only = if of.partitioned { "" } else { "ONLY " };
        let sample = match of.rows {
            0..MANY => String::new(),
            rows => {
                let percent = (ROWS as f64 * SLACK / rows as f64 * 100.0).min(100.0);
                format!(" TABLESAMPLE SYSTEM ({percent}) REPEATABLE (1)")
            }
        };
        let sql = format!(
            "COPY (SELECT {} FROM {only}{}{sample} LIMIT {ROWS}) TO STDOUT (FORMAT binary)",
            values.join(", "),
            of.name.sql()
        );
        let mut contents: Vec<Content> = columns.iter().map(|_| Content::default()).collect();
        let name = of.name.to_string();
        let stream = self.first().copy_out(sql.as_str()).await;
        let stream = stream.map_err(|error| Failed::Database(error).of(&name))?;
        pin_mut!(stream);
        let mut reader = Reader::default();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| Failed::Database(error).of(&name))?;
            let read = reader.feed::<Failed>(&chunk, |tuple| {
                for ((field, content), &at) in tuple.fields().zip(&mut contents).zip(columns) {
                    if let Some(field) = field {
                        content.look(&of.columns[at], &String::from_utf8_lossy(field));
                    }
                }
                Ok(())
            });
            read.map_err(|failed| failed.of(&name))?;
        }
        let found = columns.iter().zip(&contents);
        Ok(found.map(|(&at, content)| content.finding(&of.columns[at])).collect())
    }
}
