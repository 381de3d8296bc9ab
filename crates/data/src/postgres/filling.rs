//! Filling the new database, step by step.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::dump::Definition;
use super::error::Error;
use super::search::{Leak, search};
use super::source::Source;
use super::target::{Target, views};
use super::transfer::{RowPlan, Transfer, Transferred};
use crate::closure::Selection;
use crate::config::Extra;
use crate::mask::Originals;
use crate::schema::{Schema, TableId, TableName};

/// A new database under way.
pub struct Filling<'a> {
    source: &'a Source,
    target: &'a Target,
    definition: Definition,
    sessions: usize,
    /// Where the source's sequences were after the snapshot.
    sequences: Vec<(TableName, i64)>,
    /// Materialised views that the source has filled.
    filled_views: Vec<TableName>,
}

impl<'a> Filling<'a> {
    /// Makes the tables, without keys, indexes or triggers: none fires while rows come.
    pub async fn begin(
        source: &'a Source,
        target: &'a mut Target,
        sessions: usize,
    ) -> Result<Self, Error> {
        let definition = Definition::of(source).await?;
        let sequences = source.sequences().await?;
        let filled_views = views(source.first(), "AND c.relispopulated").await?;
        target.prepare(&definition, sessions).await?;
        Ok(Self { source, target, definition, sessions, sequences, filled_views })
    }

    /// Copies the rows of all tables, several at a time, in any order. Then the source is no longer
    /// needed, and its snapshot ends.
    pub async fn rows(
        &mut self,
        schema: &Schema,
        selection: &Arc<Selection>,
        tables: Vec<(TableId, RowPlan)>,
        extra: Extra,
        mut copied: impl FnMut(TableId, &Transferred),
    ) -> Result<Vec<(TableId, Transferred)>, Error> {
        let statements = self.source.statements(schema, selection.rules());
        let queue: VecDeque<(TableId, Transfer)> = tables
            .into_iter()
            .map(|(id, plan)| (id, Transfer::new(&statements, id, plan, selection, extra)))
            .collect();
        let queue = Arc::new(Mutex::new(queue));
        let (sender, mut receiver) = mpsc::unbounded_channel();
        // Dropped on an error, which ends the others.
        let mut running = JoinSet::new();
        for (source, target) in self.source.workers().iter().zip(self.target.sessions()) {
            let (source, target) = (source.clone(), target.clone());
            let (queue, sender) = (queue.clone(), sender.clone());
            running.spawn(async move {
                loop {
                    let next = queue.lock().expect("nobody panics while holding it").pop_front();
                    let Some((id, transfer)) = next else { return };
                    let done = transfer.run(&source, &target).await;
                    let failed = done.is_err();
                    let _ = sender.send(done.map(|done| (id, done)));
                    if failed {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut transferred = Vec::new();
        while let Some(done) = receiver.recv().await {
            let (id, done) = done?;
            copied(id, &done);
            transferred.push((id, done));
        }
        self.source.end().await?;
        Ok(transferred)
    }

    /// Makes indexes, keys, triggers; the server checks every key.
    pub async fn constrain(&self) -> Result<(), Error> {
        self.target.constrain(&self.definition, self.sessions).await
    }

    /// Sequences, materialised views, statistics.
    pub async fn finish(&self) -> Result<(), Error> {
        self.target.sequences(&self.sequences).await?;
        self.target.views(&self.filled_views).await?;
        self.target.analyze().await
    }

    /// Whether the new database is as it must be.
    pub async fn verify(&self) -> Result<(), Error> {
        self.target.verify().await
    }

    /// Kept columns with values that were masked elsewhere.
    pub async fn leaks(
        &self,
        schema: &Schema,
        tables: &[(TableId, RowPlan)],
        originals: &Arc<Originals>,
    ) -> Result<Vec<Leak>, Error> {
        search(self.target.sessions(), schema, tables, originals).await
    }
}
