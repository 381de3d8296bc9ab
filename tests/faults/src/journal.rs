//! The journal of a lab, read while it is written.

use std::cell::RefCell;
use std::fmt;
use std::path::Path;

use shiplap_ledger::SqliteLedger;
use shiplap_model::{DeploymentState, JournalEntry, Ledger as _, Scope, StepState};
use shiplap_scenarios::Lab;

/// A ledger, read by others than its deployer.
pub struct Journal {
    ledger: SqliteLedger,
    scope: Scope,
    runtime: tokio::runtime::Runtime,
    /// What was read last: whoever waits for a line looks thousands of times in a second.
    known: RefCell<Option<Known>>,
}

/// The journal of a deployment, and the revision of the ledger that it was read from.
struct Known {
    revision: i64,
    number: u64,
    lines: Vec<Line>,
}

/// One line of a journal, worded alike in each deployment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    /// The step, with `.dN` for the number of any deployment.
    pub what: String,
    /// What happened to it.
    pub state: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.what, self.state)
    }
}

impl Journal {
    /// Opens the ledger of a lab, which must have one.
    ///
    /// # Panics
    /// If there is none, or it cannot be read.
    #[must_use]
    pub fn of(lab: &Lab) -> Self {
        Self::at(&lab.state(), lab)
    }

    /// Opens the ledger of a lab that keeps it elsewhere.
    ///
    /// # Panics
    /// If there is none, or it cannot be read.
    #[must_use]
    pub fn at(folder: &Path, lab: &Lab) -> Self {
        let ledger = SqliteLedger::open_existing(folder);
        let ledger = ledger.expect("the ledger can be read").expect("the lab has a ledger");
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let scope = Scope { project: lab.project.clone(), environment: "default".to_owned() };
        let runtime = runtime.expect("a runtime can be made");
        Self { ledger, scope, runtime, known: RefCell::default() }
    }

    /// The number of the newest deployment, 0 before the first.
    ///
    /// # Panics
    /// If the ledger cannot be read.
    #[must_use]
    pub fn newest(&self) -> u64 {
        let deployments = self.runtime.block_on(self.ledger.deployments(&self.scope, 1));
        deployments.expect("the ledger can be read").first().map_or(0, |newest| newest.number)
    }

    /// How a deployment ended; `None` while it has not, or has not begun.
    ///
    /// # Panics
    /// If the ledger cannot be read.
    #[must_use]
    pub fn outcome(&self, number: u64) -> Option<String> {
        let deployment = self.runtime.block_on(self.ledger.deployment(&self.scope, number));
        match deployment.expect("the ledger can be read")?.state {
            DeploymentState::Unfinished => None,
            DeploymentState::Ended { outcome, .. } => Some(outcome.to_string()),
        }
    }

    /// The journal of a deployment; empty before it has begun. A database that is busy for a
    /// moment counts as one that says nothing new.
    #[must_use]
    pub fn lines(&self, number: u64) -> Vec<Line> {
        // Before it is read: what is written meanwhile makes the next look read it again.
        let revision = self.ledger.revision().ok();
        let mut known = self.known.borrow_mut();
        if let Some(known) = known.as_ref()
            && (Some(known.revision), known.number) == (revision, number)
        {
            return known.lines.clone();
        }
        let Ok(read) = self.runtime.block_on(self.ledger.journal(&self.scope, number)) else {
            return Vec::new();
        };
        let line =
            |entry: JournalEntry| Line { what: plain(&entry.what), state: word(entry.state) };
        let lines: Vec<Line> = read.into_iter().map(line).collect();
        *known = revision.map(|revision| Known { revision, number, lines: lines.clone() });
        lines
    }

    /// Who deploys now.
    ///
    /// # Panics
    /// If the ledger cannot be read.
    #[must_use]
    pub fn holder(&self) -> Option<String> {
        let holder = self.runtime.block_on(self.ledger.holder(&self.scope));
        holder.expect("the ledger can be read").map(|held| held.holder)
    }
}

fn word(state: StepState) -> String {
    match state {
        StepState::Started => "started",
        StepState::Finished => "finished",
        StepState::Failed => "failed",
        StepState::UndoStarted => "undo-started",
        StepState::Undone => "undone",
        StepState::UndoFailed => "undo-failed",
    }
    .to_owned()
}

/// `start shop-api-1.d17` as `start shop-api-1.dN`.
fn plain(what: &str) -> String {
    let mut plain = String::new();
    let mut rest = what;
    while let Some(at) = rest.find(".d") {
        let (before, after) = rest.split_at(at + 2);
        let digits = after.chars().take_while(char::is_ascii_digit).count();
        plain.push_str(before);
        if digits > 0 {
            plain.push('N');
        }
        rest = &after[digits..];
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn the_number_of_a_deployment_is_left_out() {
        assert_eq!(plain("rename a-1.d12 to a-1"), "rename a-1.dN to a-1");
        assert_eq!(plain("create a.db-1.d3.failed"), "create a.db-1.dN.failed");
        assert_eq!(plain("create network a_default"), "create network a_default");
    }
}
