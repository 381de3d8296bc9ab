//! Journal lines of steps that run side by side, written together.
//!
//! A line must be on disk before its step acts, and the disk takes milliseconds to confirm. Thirty
//! services that start at once would wait for a hundred and eighty confirmations, one after the
//! other. So a thread takes whatever lines are waiting and puts them into one transaction; each
//! caller gets the answer to its own line.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{Builder, JoinHandle};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use shiplap_model::{LeaseKey, LedgerError};
use tokio::sync::oneshot;

use super::failure::{Failure, sqlite};
use super::history;
use crate::history::Happened;
use crate::key::KeyPlace;
use crate::payload::Step;

/// Lines in one transaction: more than steps that run at once.
const MOST_LINES: usize = 256;

/// A journal line on its way to the disk.
pub(crate) struct Line {
    pub lease: LeaseKey,
    pub number: u64,
    pub at_ms: i64,
    pub step: Step,
}

type Answer = oneshot::Sender<Result<(), LedgerError>>;

/// The thread that writes lines. It ends with its owner.
pub(crate) struct Writer {
    lines: Option<mpsc::Sender<(Line, Answer)>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the machine does not let us have one.
    pub fn start(work: Work) -> Result<Self, LedgerError> {
        let (lines, waiting) = mpsc::channel();
        let thread = Builder::new().name("journal".to_owned()).spawn(move || work.run(&waiting));
        let thread = thread.map_err(|error| {
            LedgerError::Storage(format!("the journal's thread could not be started: {error}"))
        })?;
        Ok(Self { lines: Some(lines), thread: Some(thread) })
    }

    /// Hands a line over. The answer comes when it is on disk, or cannot be.
    pub fn write(&self, line: Line) -> oneshot::Receiver<Result<(), LedgerError>> {
        let (answer, answered) = oneshot::channel();
        let lines = self.lines.as_ref().expect("taken only when dropped");
        // A thread that is gone drops the other end of `answered`, which its reader sees.
        let _ = lines.send((line, answer));
        answered
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.lines.take());
        if let Some(thread) = self.thread.take() {
            // A panic of it was seen by whoever waited for an answer.
            let _ = thread.join();
        }
    }
}

/// What the thread writes to.
pub(crate) struct Work {
    pub connection: Arc<Mutex<Connection>>,
    pub place: KeyPlace,
    pub path: PathBuf,
}

impl Work {
    fn run(&self, waiting: &mpsc::Receiver<(Line, Answer)>) {
        while let Ok(first) = waiting.recv() {
            let mut lines = vec![first];
            lines.extend(waiting.try_iter().take(MOST_LINES - 1));
            self.write(lines);
        }
    }

    fn write(&self, lines: Vec<(Line, Answer)>) {
        let (lines, answers): (Vec<Line>, Vec<Answer>) = lines.into_iter().unzip();
        let results = self.commit(lines);
        for (index, answer) in answers.into_iter().enumerate() {
            // Whoever asked may be gone by now; the line stays true.
            let _ = answer.send(match &results {
                Ok(each) => each[index].clone(),
                Err(error) => Err(error.clone()),
            });
        }
    }

    /// All lines in one transaction; one that is refused leaves the others alone.
    fn commit(&self, lines: Vec<Line>) -> Result<Vec<Result<(), LedgerError>>, LedgerError> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let at = |error: rusqlite::Error| sqlite(&self.path, &error);
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(at)?;
        let mut results = Vec::with_capacity(lines.len());
        for line in lines {
            transaction.execute_batch("SAVEPOINT line").map_err(at)?;
            let result = self.add(&transaction, line);
            let end = match result {
                Ok(()) => "RELEASE line",
                Err(_) => "ROLLBACK TO line; RELEASE line",
            };
            transaction.execute_batch(end).map_err(at)?;
            results.push(result.map_err(|failure| failure.at(&self.path)));
        }
        transaction.commit().map_err(at)?;
        Ok(results)
    }

    fn add(&self, transaction: &Transaction, line: Line) -> Result<(), Failure> {
        let Line { lease, number, at_ms, step } = line;
        let step = Happened::Step(step);
        history::proceed(transaction, &self.place, &lease, number, at_ms, step)
    }
}
