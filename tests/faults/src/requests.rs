//! What became of requests in a while.

use std::collections::BTreeMap;

use shiplap_scenarios::Traffic;

/// Requests that ended in a while.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Requests {
    /// All of them.
    pub sent: u64,
    /// Those that were not answered well, by how they ended.
    pub failures: BTreeMap<String, u64>,
}

impl Requests {
    /// Those that ended since this was asked last; none where none are sent.
    #[must_use]
    pub fn since_last(traffic: Option<&Traffic>) -> Self {
        let mut requests = Self::default();
        let reports = traffic.map(Traffic::cut).unwrap_or_default();
        for (name, report) in reports {
            requests.sent += report.sent;
            let drops = report.drops.iter().map(|(kind, number)| (kind.to_string(), *number));
            let refused =
                (report.client_errors > 0).then(|| ("4xx".to_owned(), report.client_errors));
            for (kind, number) in drops.chain(refused) {
                *requests.failures.entry(format!("{kind} of {name}")).or_default() += number;
            }
        }
        requests
    }

    /// How many were not answered well.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// A complaint, if there were any.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        let kinds: Vec<String> =
            self.failures.iter().map(|(kind, number)| format!("{number} {kind}")).collect();
        (!kinds.is_empty()).then(|| {
            format!("{} of {} requests failed: {}", self.failed(), self.sent, kinds.join(", "))
        })
    }
}
