//! Two in turns, and what came of it.

use crate::measure::Sample;
use serde_json::{Value, json};

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Ours,
    Theirs,
}

/// One turn of one of them.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    pub who: Who,
    /// From 0, which is the turn that does not count.
    pub number: usize,
    pub is_last: bool,
}

/// What is to be reached.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    ratio: f64,
    seconds: Option<f64>,
}

impl Goal {
    pub fn ratio(ratio: f64) -> Goal {
        Goal { ratio, seconds: None }
    }

    pub fn within_seconds(self, seconds: f64) -> Goal {
        Goal { seconds: Some(seconds), ..self }
    }
}

/// An act, done by both.
pub struct Contest {
    name: &'static str,
    goal: Goal,
    ours: Vec<Sample>,
    theirs: Vec<Sample>,
}

impl Contest {
    /// Lets both do an act in turns; who begins changes from turn to turn.
    pub fn new(
        name: &'static str,
        goal: Goal,
        turns: usize,
        act: impl Fn(Turn) -> Sample,
    ) -> Contest {
        let mut contest = Contest { name, goal, ours: Vec::new(), theirs: Vec::new() };
        for number in 0..=turns {
            let mut order = [Who::Ours, Who::Theirs];
            if number % 2 == 1 {
                order.reverse();
            }
            for who in order {
                let sample = act(Turn { who, number, is_last: number == turns });
                match who {
                    _ if number == 0 => {}
                    Who::Ours => contest.ours.push(sample),
                    Who::Theirs => contest.theirs.push(sample),
                }
            }
        }
        contest
    }

    /// The ratio of each turn, in order of size.
    fn ratios(&self) -> Vec<f64> {
        let pairs = self.ours.iter().zip(&self.theirs);
        sorted(pairs.map(|(ours, theirs)| ours.seconds / theirs.seconds))
    }

    fn reached(&self) -> bool {
        let seconds = median(&seconds(&self.ours));
        let failed: u64 = self.ours.iter().map(|sample| sample.failed).sum();
        failed == 0
            && median(&self.ratios()) <= self.goal.ratio
            && self.goal.seconds.is_none_or(|limit| seconds <= limit)
    }

    /// The heads of the columns of [`Contest::line`].
    pub fn heading() -> String {
        format!(
            "{:<26} {:>9} {:>9}   {:<24} {:<16} failed of sent, shiplap and peer",
            "", "shiplap", "peer", "ratio [min..max]", "goal"
        )
    }

    /// The contest in one line.
    pub fn line(&self) -> String {
        let ratios = self.ratios();
        let (ours, theirs) = (median(&seconds(&self.ours)), median(&seconds(&self.theirs)));
        let (least, most) = (ratios.first(), ratios.last());
        let spread = format!(
            "{:.2} [{:.2}..{:.2}]",
            median(&ratios),
            least.unwrap_or(&f64::NAN),
            most.unwrap_or(&f64::NAN)
        );
        let limit = self.goal.seconds.map_or(String::new(), |limit| format!(", ≤ {limit} s"));
        let goal = format!("≤ {}{limit}", self.goal.ratio);
        let verdict = if self.reached() { "reached" } else { "MISSED" };
        let requests = |samples: &[Sample]| {
            let failed: u64 = samples.iter().map(|sample| sample.failed).sum();
            let sent: u64 = samples.iter().map(|sample| sample.sent).sum();
            if sent == 0 { "-".to_owned() } else { format!("{failed} of {sent}") }
        };
        format!(
            "{:<26} {ours:>7.3} s {theirs:>7.3} s   {spread:<24} {goal:<16} {}, {}  {verdict}",
            self.name,
            requests(&self.ours),
            requests(&self.theirs),
        )
    }

    fn json(&self) -> Value {
        let ratios = self.ratios();
        json!({
            "act": self.name,
            "goal": {"ratio": self.goal.ratio, "seconds": self.goal.seconds},
            "reached": self.reached(),
            "ratio": {"median": median(&ratios), "min": ratios.first(), "max": ratios.last()},
            "shiplap": samples(&self.ours),
            "peer": samples(&self.theirs),
        })
    }
}

/// All contests as one document.
pub fn json(peer: &str, contests: &[Contest]) -> Value {
    json!({
        "version": 1,
        "peer": format!("Docker Compose {peer}"),
        "acts": contests.iter().map(Contest::json).collect::<Vec<_>>(),
    })
}

fn samples(samples: &[Sample]) -> Value {
    json!({
        "median_seconds": median(&seconds(samples)),
        "seconds": samples.iter().map(|sample| sample.seconds).collect::<Vec<_>>(),
        "command_seconds": samples.iter().map(|sample| sample.command_seconds).collect::<Vec<_>>(),
        "sent": samples.iter().map(|sample| sample.sent).sum::<u64>(),
        "failed": samples.iter().map(|sample| sample.failed).sum::<u64>(),
    })
}

fn seconds(samples: &[Sample]) -> Vec<f64> {
    sorted(samples.iter().map(|sample| sample.seconds))
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Of values in order; the upper one of two in the middle.
fn median(values: &[f64]) -> f64 {
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
