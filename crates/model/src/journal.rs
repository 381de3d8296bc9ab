//! The journal of a deployment: what may follow what, and what it comes to.
//!
//! Facts are written down one after the other and never changed. Everything else (which step is
//! under way, whether a deployment goes on or back, whether it has ended) is this projection of
//! them; nothing of it is stored. A ledger admits a fact only if the projection does, and checks
//! a history by projecting it again.
//!
//! | after | may come |
//! |---|---|
//! | nothing, for a step | started |
//! | started | finished, failed, undo started |
//! | finished, failed | undo started |
//! | undo started | undone, undo failed |
//! | undone, undo failed | nothing more in this attempt |
//! | the end as stuck | resumed |
//! | any other end | nothing |
//!
//! A deployment is not resumed under a lease that is older than that of the attempt before; whoever
//! turns round holds the same. Steps are counted anew in each attempt, since each has a plan of its
//! own.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{JournalEntry, Outcome, StepState};

/// Where an attempt leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// To what the deployment is to make current.
    Forward,
    /// To what was current before it.
    Back,
    /// Nowhere: what is left stays as it is.
    Abandon,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forward => "forward",
            Self::Back => "back",
            Self::Abandon => "abandoned",
        })
    }
}

/// A deployment is taken up again.
#[derive(Debug, Clone, PartialEq)]
pub struct Resumption {
    /// Who: user, host and process.
    pub who: String,
    /// The generation of the lease under which.
    pub generation: u64,
    /// Why, where the user said so.
    pub message: Option<String>,
    /// Where to.
    pub direction: Direction,
    /// What was found of the steps that had begun, in words.
    pub found: Vec<String>,
    /// The new plan as shown, as JSON, without values.
    pub plan: serde_json::Value,
    /// When, milliseconds since 1970.
    pub at_ms: i64,
}

/// Something that happened to a deployment after it began.
#[derive(Debug, Clone, PartialEq)]
pub enum JournalFact {
    /// To a step.
    Step(JournalEntry),
    /// It was taken up again.
    Resumed(Resumption),
    /// It ended.
    Ended(Outcome),
}

/// Which facts a journal takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rules {
    /// Those that may follow.
    Checked,
    /// Whatever was written, up to the end: journals from before there were rules.
    AsWritten,
}

/// A fact that cannot follow what is there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct IllegalFact(String);

/// All that happened to a deployment, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Journal {
    /// The generation of the lease under which it began.
    pub generation: u64,
    /// What it takes.
    pub rules: Rules,
    /// What happened since.
    pub facts: Vec<JournalFact>,
}

impl Journal {
    /// What it comes to.
    ///
    /// # Errors
    /// The first fact that cannot follow those before it.
    pub fn state(&self) -> Result<JournalState, IllegalFact> {
        let mut state = JournalState::begun(self.generation, self.rules);
        for fact in &self.facts {
            state.admit(fact)?;
        }
        Ok(state)
    }

    /// The lines about steps, with the attempt that each belongs to, from 1.
    pub fn steps(&self) -> impl Iterator<Item = (usize, &JournalEntry)> {
        let mut attempt = 1;
        self.facts.iter().filter_map(move |fact| match fact {
            JournalFact::Step(entry) => Some((attempt, entry)),
            JournalFact::Resumed(_) => {
                attempt += 1;
                None
            }
            JournalFact::Ended(_) => None,
        })
    }

    /// When it was taken up again, and how.
    pub fn resumptions(&self) -> impl Iterator<Item = &Resumption> {
        self.facts.iter().filter_map(|fact| match fact {
            JournalFact::Resumed(resumption) => Some(resumption),
            JournalFact::Step(_) | JournalFact::Ended(_) => None,
        })
    }
}

/// What a journal comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct JournalState {
    rules: Rules,
    attempts: Vec<Attempt>,
    end: Option<Outcome>,
}

/// One go at a deployment: the first, or a later one.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// Where it leads.
    pub direction: Direction,
    /// The generation of its lease.
    pub generation: u64,
    /// How far each step has come, by its number in the attempt's plan.
    pub steps: BTreeMap<u32, StepStanding>,
    /// The line that was written last, if any.
    pub last: Option<JournalEntry>,
}

/// How far a step has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepStanding {
    /// The step in words, as it was written first.
    pub what: String,
    /// How far.
    pub state: StepState,
}

impl Attempt {
    fn new(direction: Direction, generation: u64) -> Self {
        Self { direction, generation, steps: BTreeMap::new(), last: None }
    }

    /// Steps that began, or whose undoing began, and of which nobody knows how that ended.
    pub fn under_way(&self) -> impl Iterator<Item = (u32, &StepStanding)> {
        let open = |state| matches!(state, StepState::Started | StepState::UndoStarted);
        self.steps.iter().filter(move |(_, step)| open(step.state)).map(|(id, step)| (*id, step))
    }

    /// Whether the undoing of anything has begun.
    #[must_use]
    pub fn has_undone(&self) -> bool {
        self.steps.values().any(|step| match step.state {
            StepState::UndoStarted | StepState::Undone | StepState::UndoFailed => true,
            StepState::Started | StepState::Finished | StepState::Failed => false,
        })
    }

    fn admit(&mut self, entry: &JournalEntry) -> Result<(), IllegalFact> {
        let before = self.steps.get(&entry.step).map(|step| step.state);
        if !follows(before, entry.state) {
            let before = before.map_or("began", word);
            let (id, what, after) = (entry.step, &entry.what, word(entry.state));
            return Err(IllegalFact(match self.steps.get(&entry.step) {
                None => format!("step {id} ({what}) {after} before it {before}"),
                Some(_) => format!("step {id} ({what}) {after} after it {before}"),
            }));
        }
        self.put(entry);
        Ok(())
    }

    fn put(&mut self, entry: &JournalEntry) {
        let first = StepStanding { what: entry.what.clone(), state: entry.state };
        self.steps.entry(entry.step).or_insert(first).state = entry.state;
        self.last = Some(entry.clone());
    }
}

/// Whether `after` may be written of a step of which `before` was the last.
fn follows(before: Option<StepState>, after: StepState) -> bool {
    use StepState::{Failed, Finished, Started, UndoFailed, UndoStarted, Undone};
    match before {
        None => after == Started,
        Some(Started) => matches!(after, Finished | Failed | UndoStarted),
        Some(Finished | Failed) => after == UndoStarted,
        Some(UndoStarted) => matches!(after, Undone | UndoFailed),
        Some(Undone | UndoFailed) => false,
    }
}

const fn word(state: StepState) -> &'static str {
    match state {
        StepState::Started => "started",
        StepState::Finished => "finished",
        StepState::Failed => "failed",
        StepState::UndoStarted => "began to be undone",
        StepState::Undone => "was undone",
        StepState::UndoFailed => "could not be undone",
    }
}

impl JournalState {
    /// A deployment that began under a lease of this generation.
    #[must_use]
    pub fn begun(generation: u64, rules: Rules) -> Self {
        Self { rules, attempts: vec![Attempt::new(Direction::Forward, generation)], end: None }
    }

    /// Takes one more fact.
    ///
    /// # Errors
    /// A fact that cannot follow; the state is what it was.
    pub fn admit(&mut self, fact: &JournalFact) -> Result<(), IllegalFact> {
        match (self.end, fact) {
            (None | Some(Outcome::Stuck), JournalFact::Resumed(resumption)) => {
                if resumption.generation < self.attempt().generation {
                    let (now, before) = (resumption.generation, self.attempt().generation);
                    return Err(IllegalFact(format!(
                        "resumed under lease {now}, though lease {before} came before it"
                    )));
                }
                self.end = None;
                self.attempts.push(Attempt::new(resumption.direction, resumption.generation));
                Ok(())
            }
            (Some(outcome), _) => {
                Err(IllegalFact(format!("it has ended ({outcome}), nothing can be added to it")))
            }
            (None, JournalFact::Step(entry)) => {
                let rules = self.rules;
                let attempt = self.attempts.last_mut().expect("the first is made with it");
                match rules {
                    Rules::Checked => attempt.admit(entry),
                    Rules::AsWritten => {
                        attempt.put(entry);
                        Ok(())
                    }
                }
            }
            (None, JournalFact::Ended(outcome)) => {
                self.end = Some(*outcome);
                Ok(())
            }
        }
    }

    /// The last attempt.
    #[must_use]
    pub fn attempt(&self) -> &Attempt {
        self.attempts.last().expect("the first is made with it")
    }

    /// All attempts, the first one first.
    #[must_use]
    pub fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// How it ended, if it did.
    #[must_use]
    pub fn end(&self) -> Option<Outcome> {
        self.end
    }

    /// Whether it can be taken up again: it has not ended, or is stuck.
    #[must_use]
    pub fn is_open(&self) -> bool {
        match self.end {
            None | Some(Outcome::Stuck) => true,
            Some(Outcome::Done | Outcome::Failed | Outcome::RolledBack | Outcome::Interrupted) => {
                false
            }
        }
    }

    /// Whether it was on its way back when it stopped.
    #[must_use]
    pub fn goes_back(&self) -> bool {
        let attempt = self.attempt();
        match attempt.direction {
            // Undoing a way back leads nowhere new.
            Direction::Back => true,
            Direction::Forward | Direction::Abandon => attempt.has_undone(),
        }
    }

    /// Whether anything that it had done was undone, in any attempt: what is found of it may be
    /// half of a whole.
    #[must_use]
    pub fn has_undone(&self) -> bool {
        self.attempts.iter().any(|a| a.direction == Direction::Back || a.has_undone())
    }

    /// The newest line about a step.
    #[must_use]
    pub fn last(&self) -> Option<&JournalEntry> {
        self.attempts.iter().rev().find_map(|attempt| attempt.last.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use StepState::{Failed, Finished, Started, UndoFailed, UndoStarted, Undone};

    const STATES: [StepState; 6] = [Started, Finished, Failed, UndoStarted, Undone, UndoFailed];

    fn step(step: u32, state: StepState) -> JournalFact {
        JournalFact::Step(JournalEntry {
            step,
            what: format!("do {step}"),
            state,
            at_ms: 0,
            detail: None,
            made: None,
        })
    }

    fn resumed(generation: u64, direction: Direction) -> JournalFact {
        let plan = serde_json::Value::Null;
        let (who, message, found) = ("ada".to_owned(), None, Vec::new());
        let at_ms = 0;
        JournalFact::Resumed(Resumption { who, message, generation, direction, found, plan, at_ms })
    }

    fn outcomes() -> [Outcome; 5] {
        use Outcome::{Done, Failed, Interrupted, RolledBack, Stuck};
        [Done, Failed, RolledBack, Stuck, Interrupted]
    }

    fn state(facts: &[JournalFact]) -> Result<JournalState, IllegalFact> {
        Journal { generation: 1, rules: Rules::Checked, facts: facts.to_vec() }.state()
    }

    /// Small and the same every time: a linear congruential generator.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(self.0 >> 33).unwrap() % sides
        }

        fn fact(&mut self, generation: u64) -> JournalFact {
            match self.roll(10) {
                0 => JournalFact::Ended(outcomes()[self.roll(5)]),
                1 => resumed((generation + self.roll(3) as u64).max(1) - 1, Direction::Back),
                _ => step(self.roll(3) as u32, STATES[self.roll(6)]),
            }
        }
    }

    /// What an attempt may say of one step, spelled out.
    const LEGAL: [&[StepState]; 11] = [
        &[],
        &[Started],
        &[Started, Finished],
        &[Started, Failed],
        &[Started, UndoStarted],
        &[Started, UndoStarted, Undone],
        &[Started, UndoStarted, UndoFailed],
        &[Started, Finished, UndoStarted],
        &[Started, Failed, UndoStarted],
        &[Started, Finished, UndoStarted, Undone],
        &[Started, Finished, UndoStarted, UndoFailed],
    ];

    fn is_legal(states: &[StepState]) -> bool {
        let failed: &[&[StepState]] =
            &[&[Started, Failed, UndoStarted, Undone], &[Started, Failed, UndoStarted, UndoFailed]];
        LEGAL.contains(&states) || failed.contains(&states)
    }

    /// Random facts, keeping those that are admitted: what was kept obeys the table, and what was
    /// refused would have broken it.
    #[test]
    fn exactly_the_facts_that_may_follow_are_admitted() {
        for seed in 0..2_000 {
            let dice = &mut Dice(seed);
            let mut kept: Vec<JournalFact> = Vec::new();
            let mut now = JournalState::begun(1, Rules::Checked);
            for _ in 0..24 {
                let fact = dice.fact(now.attempt().generation);
                let before = now.clone();
                let admitted = now.admit(&fact);
                let open = match kept.last() {
                    Some(JournalFact::Ended(outcome)) => *outcome == Outcome::Stuck,
                    Some(JournalFact::Step(_) | JournalFact::Resumed(_)) | None => true,
                };
                let ended = matches!(kept.last(), Some(JournalFact::Ended(_)));
                let expected = match &fact {
                    JournalFact::Ended(_) => !ended,
                    JournalFact::Resumed(r) => open && r.generation >= before.attempt().generation,
                    JournalFact::Step(entry) => {
                        let since = kept
                            .iter()
                            .rposition(|f| matches!(f, JournalFact::Resumed(_)))
                            .map_or(0, |at| at + 1);
                        let mut states: Vec<StepState> = kept[since..]
                            .iter()
                            .filter_map(|f| match f {
                                JournalFact::Step(e) if e.step == entry.step => Some(e.state),
                                _ => None,
                            })
                            .collect();
                        states.push(entry.state);
                        !ended && is_legal(&states)
                    }
                };
                assert_eq!(admitted.is_ok(), expected, "seed {seed}: {fact:?} after {kept:?}");
                if admitted.is_ok() {
                    kept.push(fact);
                } else {
                    assert_eq!(now, before, "a refused fact changes nothing");
                }
            }
            assert_eq!(state(&kept).as_ref(), Ok(&now), "projecting again gives the same");
        }
    }

    #[test]
    fn a_refusal_says_what_was_expected() {
        let refused = |facts: &[JournalFact]| state(facts).unwrap_err().to_string();
        assert_eq!(refused(&[step(3, Finished)]), "step 3 (do 3) finished before it began");
        assert_eq!(
            refused(&[step(3, Started), step(3, Started)]),
            "step 3 (do 3) started after it started"
        );
        assert_eq!(
            refused(&[JournalFact::Ended(Outcome::Done), step(1, Started)]),
            "it has ended (done), nothing can be added to it"
        );
        assert_eq!(
            refused(&[resumed(0, Direction::Back)]),
            "resumed under lease 0, though lease 1 came before it"
        );
    }

    #[test]
    fn a_stuck_deployment_goes_on_and_any_other_end_is_the_end() {
        for outcome in outcomes() {
            let facts = [JournalFact::Ended(outcome), resumed(2, Direction::Back)];
            let after = state(&facts);
            assert_eq!(after.is_ok(), outcome == Outcome::Stuck, "{outcome}");
            let ended = state(&facts[..1]).unwrap();
            assert_eq!(ended.is_open(), outcome == Outcome::Stuck, "{outcome}");
        }
    }

    #[test]
    fn steps_count_anew_in_each_attempt_and_the_direction_is_that_of_the_last() {
        let facts = [
            step(1, Started),
            step(1, Finished),
            step(2, Started),
            resumed(2, Direction::Forward),
            step(1, Started),
        ];
        let now = state(&facts).unwrap();
        assert_eq!(now.attempts().len(), 2);
        assert!(!now.goes_back() && !now.has_undone());
        let open: Vec<u32> = now.attempts()[0].under_way().map(|(id, _)| id).collect();
        assert_eq!(open, [2]);
        let journal = Journal { generation: 1, rules: Rules::Checked, facts: facts.to_vec() };
        let attempts: Vec<usize> = journal.steps().map(|(attempt, _)| attempt).collect();
        assert_eq!(attempts, [1, 1, 1, 2]);
        let mut back = now.clone();
        back.admit(&step(1, UndoStarted)).unwrap();
        assert!(back.goes_back() && back.has_undone());
    }

    #[test]
    fn what_was_written_before_there_were_rules_is_taken_as_it_is() {
        let facts = vec![step(1, Failed), step(1, Finished), JournalFact::Ended(Outcome::Done)];
        let journal = Journal { generation: 1, rules: Rules::AsWritten, facts };
        assert_eq!(journal.state().unwrap().end(), Some(Outcome::Done));
    }
}
