//! One request's entry in the books, made when its answer is complete or broken off.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Core;
use super::access_log::Line;
use super::replica::Replica;
use super::rules::Rule;

pub(super) struct Record {
    started: Instant,
    core: Arc<Core>,
    rule: Option<Arc<Rule>>,
    line: Option<Box<Line>>,
    /// Set when there is an answer.
    pub status: u16,
    /// Of its body.
    pub bytes: u64,
    /// Who gave it, if it is not our own.
    pub replica: Option<Arc<Replica>>,
}

impl Record {
    pub(super) fn new(core: &Arc<Core>, started: Instant) -> Record {
        let core = core.clone();
        Record { started, core, rule: None, line: None, status: 0, bytes: 0, replica: None }
    }

    /// It is known what the request is about.
    pub(super) fn set_rule(&mut self, rule: Arc<Rule>) {
        self.rule = Some(rule);
    }

    pub(super) fn set_line(&mut self, line: Line) {
        self.line = Some(Box::new(line));
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn finish(self) {
        let took = self.elapsed();
        match &self.rule {
            Some(rule) => rule.shared.tally.count(self.status, took),
            None => self.core.unrouted.count(self.status, took),
        }
        if let Some(replica) = &self.replica {
            replica.count(self.status, took);
        }
        if let Some(line) = &self.line {
            let replica = self.replica.as_ref().map(|replica| replica.id.as_str());
            line.write(self.status, self.bytes, took, replica);
        }
    }
}
