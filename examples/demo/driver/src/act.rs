//! What an act is expected to do, and what it did.

use crate::tool::Order;
use shiplap_load::Report;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// One act: an order to the program, and what must come of it.
pub struct Act {
    /// For people.
    pub title: &'static str,
    /// What the program is told.
    pub order: Order,
    /// The exit code it must end with.
    pub exit: i32,
    /// The versions that may answer meanwhile.
    pub may_answer: &'static [&'static str],
    /// The only version that answers afterwards.
    pub answers: &'static str,
    /// Whether the containers stay the ones they were.
    pub containers: Containers,
}

/// What becomes of the running containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Containers {
    /// Others take their place.
    Replaced,
    /// Not one is touched.
    Untouched,
}

/// The acts under load, in their order. The first deployment comes before the load and the removal
/// after it.
pub const UNDER_LOAD: [Act; 4] = [
    Act {
        title: "deploy v2",
        order: Order::Deploy("v2"),
        exit: 0,
        may_answer: &["v1", "v2"],
        answers: "v2",
        containers: Containers::Replaced,
    },
    Act {
        title: "deploy v3, broken",
        order: Order::Deploy("v3"),
        exit: 3,
        may_answer: &["v2"],
        answers: "v2",
        containers: Containers::Untouched,
    },
    Act {
        title: "roll back to v1",
        order: Order::RollBack("v1"),
        exit: 0,
        may_answer: &["v1", "v2"],
        answers: "v1",
        containers: Containers::Replaced,
    },
    Act {
        title: "deploy v1 again",
        order: Order::Deploy("v1"),
        exit: 0,
        may_answer: &["v1"],
        answers: "v1",
        containers: Containers::Untouched,
    },
];

/// What an act did.
pub struct Done {
    pub title: &'static str,
    pub expected_exit: i32,
    pub exit: Option<i32>,
    /// From the start of the program to its end.
    pub took: Duration,
    /// From the start of the program until each service answered with the new version; empty
    /// where none was to.
    pub answered_after: Vec<Option<Duration>>,
    /// By service; empty where there was no load.
    pub reports: Vec<Report>,
    /// What was not as expected.
    pub problems: Vec<String>,
    /// What the program printed.
    pub output: String,
}

impl Done {
    pub fn sent(&self) -> u64 {
        self.reports.iter().map(|report| report.sent).sum()
    }

    pub fn failed(&self) -> u64 {
        self.reports.iter().map(Report::failed).sum()
    }

    /// The longest gap of each service.
    pub fn gaps(&self) -> Vec<Duration> {
        self.reports.iter().map(|report| report.max_gap).collect()
    }

    pub fn longest_gap(&self) -> Option<Duration> {
        self.gaps().into_iter().max()
    }

    /// The versions that answered.
    pub fn versions(&self) -> BTreeSet<&str> {
        self.reports.iter().flat_map(|report| report.tags.keys().map(String::as_str)).collect()
    }

    /// Failures by kind, answers from 400 to 499 among them.
    pub fn failures(&self) -> BTreeMap<String, u64> {
        let mut failures = BTreeMap::new();
        for report in &self.reports {
            for (kind, count) in &report.drops {
                *failures.entry(kind.to_string()).or_default() += count;
            }
            if report.client_errors > 0 {
                *failures.entry("4xx".into()).or_default() += report.client_errors;
            }
        }
        failures
    }

    /// Compares what was seen with what must be.
    pub fn judge(&mut self, act: &Act) {
        if self.exit != Some(act.exit) {
            self.problems.push(format!("exit code {}, not {}", shown(self.exit), act.exit));
        }
        if self.failed() > 0 {
            self.problems.push(format!("{} of {} requests failed", self.failed(), self.sent()));
        }
        let versions = self.versions();
        let strange: Vec<_> = versions.iter().filter(|v| !act.may_answer.contains(v)).collect();
        if !strange.is_empty() {
            let strange = strange.iter().map(|v| v.to_string()).collect::<Vec<_>>().join(", ");
            self.problems.push(format!("answered by {strange}"));
        }
    }
}

/// An exit code, or a dash for none.
pub fn shown(exit: Option<i32>) -> String {
    exit.map_or("-".into(), |code| code.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use shiplap_load::{DropKind, Tag};

    /// What is wrong with an act that ended with `exit`, with these answers by version.
    fn problems(act: &Act, exit: i32, drops: u64, tags: &[(&str, u64)]) -> String {
        let ok = tags.iter().map(|(_, count)| count).sum();
        let tag = |count| Tag { count, first: Duration::ZERO, last: Duration::ZERO };
        let report = Report {
            elapsed: Duration::from_secs(1),
            sent: ok + drops,
            ok,
            client_errors: 0,
            drops: BTreeMap::from([(DropKind::Refused, drops)]),
            status: BTreeMap::from([(200, ok)]),
            max_gap: Duration::from_millis(10),
            max_gap_at: Duration::ZERO,
            dropped_between: None,
            latency: None,
            slow: 0,
            tags: tags.iter().map(|(name, count)| (name.to_string(), tag(*count))).collect(),
            connections: 1,
            peak_in_flight: 1,
        };
        let mut done = Done {
            title: act.title,
            expected_exit: act.exit,
            exit: Some(exit),
            took: Duration::from_secs(1),
            answered_after: Vec::new(),
            reports: vec![report],
            problems: Vec::new(),
            output: String::new(),
        };
        done.judge(act);
        done.problems.join("; ")
    }

    #[test]
    fn an_act_that_went_as_it_must_has_no_problems() {
        let [update, broken, back, again] = &UNDER_LOAD;
        assert_eq!(problems(update, 0, 0, &[("v1", 50), ("v2", 50)]), "");
        assert_eq!(problems(broken, 3, 0, &[("v2", 100)]), "");
        assert_eq!(problems(back, 0, 0, &[("v1", 50), ("v2", 50)]), "");
        assert_eq!(problems(again, 0, 0, &[("v1", 100)]), "");
    }

    #[test]
    fn exit_code_failures_and_strange_versions_are_problems() {
        let [update, broken, ..] = &UNDER_LOAD;
        assert_eq!(
            problems(broken, 1, 0, &[("v2", 9), ("v3", 1)]),
            "exit code 1, not 3; answered by v3"
        );
        assert_eq!(problems(update, 0, 2, &[("v1", 4), ("v2", 4)]), "2 of 10 requests failed");
    }
}
