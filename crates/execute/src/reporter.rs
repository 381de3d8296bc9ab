//! What a deployment tells while it runs.

use std::time::Duration;

use shiplap_model::{Progress, StepId};

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A step began.
    Started {
        /// The step.
        step: StepId,
        /// In words.
        what: String,
        /// The service it belongs to.
        service: Option<String>,
    },
    /// Something happened within a step.
    Progress {
        /// The step.
        step: StepId,
        /// What.
        progress: Progress,
    },
    /// A command of the user's said a line.
    Output {
        /// The step.
        step: StepId,
        /// The line.
        line: String,
    },
    /// A step is waiting for something, in words.
    Waiting {
        /// The step.
        step: StepId,
        /// For what.
        on: String,
    },
    /// A step ended well.
    Finished {
        /// The step.
        step: StepId,
        /// In words.
        what: String,
        /// How long it took.
        took: Duration,
    },
    /// A step failed.
    Failed {
        /// The step.
        step: StepId,
        /// In words.
        what: String,
        /// Why.
        reason: String,
    },
    /// Undoing begins.
    Unwinding {
        /// Why.
        reason: String,
    },
    /// A step was undone.
    Undone {
        /// The step.
        step: StepId,
        /// In words.
        what: String,
    },
    /// Something to know.
    Notice(String),
}

/// Where events go. Called from several tasks; must not block.
pub trait Reporter: Send + Sync {
    /// Takes one event.
    fn event(&self, event: Event);
}

/// Throws events away.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Reporter for Silent {
    fn event(&self, _: Event) {}
}
