//! All that can be told by looking.

use crate::finding::{Finding, Tried};
use crate::seen::Snapshot;
use crate::{Container, control, mounts, namespaces, networks, pointing, ports, secrets};

/// What was found, and what was looked at for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// What was looked at.
    pub tried: Vec<Tried>,
    /// Sorted: leaks come first.
    pub findings: Vec<Finding>,
}

impl Report {
    pub(crate) fn add(&mut self, tried: Tried, findings: impl IntoIterator<Item = Finding>) {
        self.tried.push(tried);
        self.findings.extend(findings);
    }

    /// Puts findings into the order in which they are shown, each once.
    pub fn settle(&mut self) {
        self.findings.sort_by(|a, b| (a.code.severity(), a).cmp(&(b.code.severity(), b)));
        self.findings.dedup();
    }
}

/// Looks for what environments share. `strangers` are containers of other Compose projects, with
/// the project of each: of interest only where they touch one of these.
///
/// Deterministic, and safe to print: no value of a variable and nothing of a file is in the report.
#[must_use]
pub fn check(all: &[Snapshot], strangers: &[(String, Container)]) -> Report {
    let mut report = Report::default();
    networks::check(all, strangers, &mut report);
    mounts::check(all, strangers, &mut report);
    secrets::check(all, &mut report);
    pointing::check(all, &mut report);
    ports::check(all, &mut report);
    namespaces::check(all, &mut report);
    control::check(all, &mut report);
    report.settle();
    report
}
