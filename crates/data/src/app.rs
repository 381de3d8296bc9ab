//! What front ends call: plan, init, sample.

mod columns;
mod event;
mod files;
mod init;
mod plan;
mod problem;
mod run;

pub use event::{Event, Listener, Stage};
pub use init::init;
pub use plan::{EdgePlan, Plan, TablePlan, plan};
pub use problem::Problem;
pub use run::{Report, TableReport, sample};

use std::sync::Arc;

use crate::chance::Chance;
use crate::config::Config;
use crate::postgres::{Server, Source};
use crate::rules::{Rules, resolve};
use crate::schema::Schema;

/// What every use case needs.
pub struct Job<'a> {
    /// The database that is sampled.
    pub source: &'a Server,
    /// What to take.
    pub config: &'a Config,
    /// The secret under which rows are drawn and values masked. It stays with the source.
    pub secret: &'a [u8],
    /// Sessions that work at the same time, on each side.
    pub sessions: usize,
    /// Keys in one statement, at most: [`crate::postgres::KEYS_AT_ONCE`].
    pub keys_at_once: usize,
    /// Who is told how it goes.
    pub listener: &'a dyn Listener,
}

impl Job<'_> {
    fn chance(&self) -> Chance {
        Chance::new(self.secret)
    }

    fn tell(&self, event: Event) {
        self.listener.tell(event);
    }

    /// Opens the source and reads its schema.
    async fn begin(&self) -> Result<(Source, Schema), Problem> {
        self.tell(Event::Begins(Stage::Schema));
        let source = Source::open(self.source, self.sessions, self.keys_at_once).await?;
        let schema = source.schema().await?;
        Ok((source, schema))
    }

    fn rules(&self, schema: &Schema) -> Result<Arc<Rules>, Problem> {
        resolve(schema, self.config).map(Arc::new).map_err(Problem::Configuration)
    }
}
