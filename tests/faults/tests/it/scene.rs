//! One deployment that is disturbed while requests are sent, and what it must come to.

use std::path::Path;
use std::time::{Duration, Instant};

use shiplap_faults::{Journal, Recorder, Requests};
use shiplap_scenarios::{Lab, Run, Running, Traffic, get};

use crate::shapes::{Shape, Stage, Standing};

/// Between two looks at a journal.
const LOOK: Duration = Duration::from_millis(1);
/// The longest that a deployment may take, whatever is done to it: each wait in it has a limit.
const END_LIMIT: Duration = Duration::from_secs(240);

/// Until the engine has started everything again, and the edge has found it.
const ANSWER_LIMIT: Duration = Duration::from_secs(40);

/// A stage with requests and a record.
pub struct Scene {
    /// The stage.
    pub stage: Stage,
    /// Its journal.
    pub journal: Journal,
    /// What is seen.
    pub recorder: Recorder,
    traffic: Option<Traffic>,
    tolerance: Tolerance,
}

/// What may happen to requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tolerance {
    /// Each is answered.
    None,
    /// What broke had them in its hands, or everything was away: they are counted.
    WhatBrokeHadThem,
}

impl Scene {
    /// Deploys what a shape starts from, and sends requests from then on.
    pub fn open(lab: Lab, shape: Shape, section: &str, fault: &str, promise: &str) -> Self {
        let state = lab.state();
        Self::open_at(lab, shape, section, fault, promise, &state)
    }

    /// The same, where the ledger is elsewhere.
    pub fn open_at(
        lab: Lab,
        shape: Shape,
        section: &str,
        fault: &str,
        promise: &str,
        state: &Path,
    ) -> Self {
        let stage = Stage::set(lab, shape);
        let journal = Journal::at(state, &stage.lab);
        let traffic = stage.traffic();
        let recorder = Recorder::new(section, fault, promise);
        let tolerance = Tolerance::None;
        Self { stage, journal, recorder, traffic, tolerance }
    }

    /// What may happen to requests from now on.
    pub fn tolerate(&mut self, tolerance: Tolerance) {
        self.tolerance = tolerance;
    }

    /// The number that the next deployment gets.
    pub fn next(&self) -> u64 {
        self.journal.newest() + 1
    }

    /// Starts the disturbed command, with more in its environment.
    pub fn start(&mut self, variables: &[(&str, &str)]) -> Running {
        self.begin();
        let words = self.stage.words(self.stage.target());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.stage.lab.start_with(&words, variables)
    }

    /// Counts requests from now on.
    pub fn begin(&mut self) {
        let _before = Requests::since_last(self.traffic.as_ref());
    }

    /// Waits for a line of the journal; false if the deployer ended before.
    pub fn reaches(&self, number: u64, what: &str, state: &str, deployer: &mut Running) -> bool {
        let began = Instant::now();
        loop {
            let lines = self.journal.lines(number);
            if lines.iter().any(|line| line.what.starts_with(what) && line.state == state) {
                return true;
            }
            if !deployer.is_running() {
                return false;
            }
            assert!(began.elapsed() < END_LIMIT, "`{what}` never {state}: {}", deployer.said());
            std::thread::sleep(LOOK);
        }
    }

    /// Waits for the end and judges it.
    pub fn end_of(&mut self, deployer: Running, place: &str) -> Option<Standing> {
        let run = deployer.finish_within(END_LIMIT);
        self.judge(&run, place)
    }

    /// Waits until requests are answered again; complains if they are not.
    pub fn answers(&mut self, run: &Run, place: &str) -> bool {
        let lab = &self.stage.lab;
        let (port, path) = match self.stage.shape.services {
            ["store"] => (lab.store, "/count"),
            _ => (lab.api, "/version"),
        };
        let began = Instant::now();
        while began.elapsed() < ANSWER_LIMIT {
            if get(port, path).is_ok_and(|answer| answer.status == 200) {
                return true;
            }
            std::thread::sleep(LOOK);
        }
        let edge = lab.run(&["edge", "status", "--json"]).all();
        let wrong =
            [format!("nobody answered for {ANSWER_LIMIT:?}"), lab.run(&["status"]).all(), edge];
        self.broke(place, &wrong, run);
        false
    }

    /// Judges a disturbed command by its exit code: 0 is the new release, 1 and 3 are the old one,
    /// and nothing else may come of it. Then looks at everything.
    pub fn judge(&mut self, run: &Run, place: &str) -> Option<Standing> {
        let (old, new) = (self.stage.now, self.stage.target());
        let came = match run.code {
            // What could not be tidied up is named, and left for the next one.
            Some(0) if run.stderr.contains("! left:") => {
                let next = self.stage.lab.run(&["deploy", "--yes", "--standby", "0"]);
                if next.code != Some(0) {
                    let wrong = format!("the next one could not tidy up: {}", next.all());
                    self.broke(place, &[wrong], run);
                    return None;
                }
                Some((new, "new release, tidied up by the next deployment"))
            }
            Some(0) => Some((new, "new release")),
            Some(1) => Some((old, "old release, nothing changed")),
            Some(3) => Some((old, "old release, undone")),
            _ => None,
        };
        let Some((standing, words)) = came else {
            self.broke(place, &[format!("it ended with {:?}", run.code)], run);
            return None;
        };
        self.settle(standing, words, place, run).then_some(standing)
    }

    /// Judges a command after which something may be amiss that nobody but the next one can mend:
    /// whichever release it came to, deploying that one puts everything in order.
    pub fn mend(&mut self, run: &Run, place: &str) {
        let (standing, words) = match run.code {
            Some(0) => (self.stage.target(), "new release"),
            Some(1 | 3 | 4) => (self.stage.now, "old release"),
            _ => {
                self.broke(place, &[format!("it ended with {:?}", run.code)], run);
                return;
            }
        };
        self.stage.announce(standing);
        let next = self.stage.lab.run(&["deploy", "--yes", "--standby", "0"]);
        if next.code == Some(0) {
            self.settle(standing, &format!("{words}, whole after the next command"), place, run);
        } else {
            let wrong = format!("the next deployment could not mend it: {}", next.all());
            self.broke(place, &[wrong], run);
        }
    }

    /// Looks at everything, and takes it that a release is current from now on.
    pub fn settle(&mut self, standing: Standing, words: &str, place: &str, run: &Run) -> bool {
        let inspection = self.stage.inspect(standing);
        self.recorder.seen.leaks += inspection.leaks;
        let mut wrong = inspection.wrong;
        wrong.extend(self.requests());
        if wrong.is_empty() {
            self.recorder.came(words);
            self.stage.now = standing;
            return true;
        }
        self.broke(place, &wrong, run);
        false
    }

    /// Counts requests since the beginning of what happened; a complaint if too many failed.
    fn requests(&mut self) -> Option<String> {
        let requests = Requests::since_last(self.traffic.as_ref());
        self.recorder.seen.requests += requests.sent;
        self.recorder.seen.failed += requests.failed();
        requests.complaint().filter(|_| self.tolerance == Tolerance::None)
    }

    fn broke(&mut self, place: &str, wrong: &[String], run: &Run) {
        self.recorder.broke(format!("{place}:\n    {}\n{}", wrong.join("\n    "), run.all()));
        // What is not answered while things are put in order is nobody's fault.
        drop(self.traffic.take().map(Traffic::end));
        self.stage.heal();
        self.traffic = self.stage.traffic();
        self.begin();
    }

    /// Writes down what was seen.
    pub fn close(mut self) {
        if let Some(traffic) = self.traffic.take() {
            drop(traffic.end());
        }
        self.recorder.finish();
    }
}
