//! What was seen, written down for a table.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use shiplap_scenarios::binary;

/// What one test saw of one fault. A line of JSON in the folder of the build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// Where in the table.
    pub section: String,
    /// What was done to it.
    pub fault: String,
    /// What must come of it.
    pub promise: String,
    /// What came of it, in words, with how often.
    pub observed: BTreeMap<String, u64>,
    /// How often a deployer was stopped somewhere.
    pub crash_points: u64,
    /// How many of those places differ.
    pub distinct: u64,
    /// How often something was spoiled.
    pub faults: u64,
    /// Requests sent meanwhile.
    pub requests: u64,
    /// Those that were not answered well.
    pub failed: u64,
    /// Containers, networks, held pools and the like that should not have been left.
    pub leaks: u64,
    /// What was not as promised.
    pub broken: Vec<String>,
}

/// Collects what a test sees, and writes it down at its end, however it ends.
#[derive(Debug)]
pub struct Recorder {
    /// What is collected.
    pub seen: Observation,
    written: bool,
}

impl Recorder {
    /// Begins.
    #[must_use]
    pub fn new(section: &str, fault: &str, promise: &str) -> Self {
        let [section, fault, promise] = [section, fault, promise].map(str::to_owned);
        let seen = Observation { section, fault, promise, ..Observation::default() };
        Self { seen, written: false }
    }

    /// Counts what came of a fault.
    pub fn came(&mut self, what: &str) {
        *self.seen.observed.entry(what.to_owned()).or_default() += 1;
    }

    /// Notes what was not as promised.
    pub fn broke(&mut self, what: String) {
        eprintln!("BROKEN {}: {what}", self.seen.fault);
        self.seen.broken.push(what);
    }

    /// Writes it down, and fails if something was not as promised.
    ///
    /// # Panics
    /// If so.
    #[track_caller]
    pub fn finish(mut self) {
        self.write();
        let seen = &self.seen;
        eprintln!("{}", table(std::slice::from_ref(seen)));
        assert!(seen.broken.is_empty(), "{}:\n{}", seen.fault, seen.broken.join("\n"));
    }

    fn write(&mut self) {
        self.written = true;
        let line = serde_json::to_string(&self.seen).expect("numbers and texts are JSON");
        let path = path();
        let file = OpenOptions::new().create(true).append(true).open(&path);
        // One call: lines of tests that end at once do not mix.
        let written = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
        written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if !self.written {
            self.seen.broken.push("the test ended early".to_owned());
            self.write();
        }
    }
}

/// Beside the programs that were built.
fn path() -> PathBuf {
    binary("fault-observations.jsonl")
}

/// Everything that was seen since the file was made.
///
/// # Errors
/// If it cannot be read.
pub fn read_all() -> std::io::Result<Vec<Observation>> {
    let mut text = String::new();
    File::open(path())?.read_to_string(&mut text)?;
    let read = |line| serde_json::from_str(line).map_err(std::io::Error::other);
    text.lines().map(read).collect()
}

/// What was seen, as Markdown: a table for each section, in order of their names.
#[must_use]
pub fn table(seen: &[Observation]) -> String {
    let mut sections: BTreeMap<&str, BTreeMap<&str, Observation>> = BTreeMap::new();
    for one in seen {
        let rows = sections.entry(&one.section).or_default();
        let row = rows.entry(&one.fault).or_insert_with(|| Observation {
            promise: one.promise.clone(),
            ..Observation::default()
        });
        row.add(one);
    }
    let mut text = String::new();
    let mut sum = Observation::default();
    for (section, rows) in &sections {
        text += &format!(
            "\n## {section}\n\n\
             | fault | promised | observed | crash points | faults | failed requests | leaks |\n\
             |---|---|---|---:|---:|---:|---:|\n"
        );
        for (fault, row) in rows {
            text += &row.row(fault);
            sum.add(row);
        }
    }
    format!(
        "In all: {} crash points ({} different ones), {} other faults injected, {} of {} requests \
         failed, {} leaks.\n{text}",
        sum.crash_points, sum.distinct, sum.faults, sum.failed, sum.requests, sum.leaks
    )
}

impl Observation {
    fn add(&mut self, other: &Self) {
        for (what, count) in &other.observed {
            *self.observed.entry(what.clone()).or_default() += count;
        }
        self.crash_points += other.crash_points;
        self.distinct += other.distinct;
        self.faults += other.faults;
        self.requests += other.requests;
        self.failed += other.failed;
        self.leaks += other.leaks;
        self.broken.extend(other.broken.iter().cloned());
    }

    fn row(&self, fault: &str) -> String {
        let seen: Vec<String> =
            self.observed.iter().map(|(what, count)| format!("{what} ({count})")).collect();
        let mut seen = seen.join(", ");
        if !self.broken.is_empty() {
            seen += &format!("; **not as promised: {}**", self.broken.len());
        }
        format!(
            "| {fault} | {} | {seen} | {} | {} | {} of {} | {} |\n",
            self.promise, self.crash_points, self.faults, self.failed, self.requests, self.leaks
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{Observation, table};

    #[test]
    fn the_same_fault_is_one_row() {
        let one = Observation {
            section: "Engine".into(),
            fault: "it dies".into(),
            promise: "old or new".into(),
            observed: [("done".to_owned(), 2)].into(),
            faults: 2,
            requests: 10,
            ..Observation::default()
        };
        let text = table(&[one.clone(), one]);
        let row = "| it dies | old or new | done (4) | 0 | 4 | 0 of 20 | 0 |\n";
        assert!(text.ends_with(row), "{text}");
    }
}
