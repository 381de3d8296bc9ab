//! Journal lines of steps that run side by side, written together.
//!
//! A line must be on disk before its step acts, and it takes a few trips to the server until it is.
//! So a task takes whatever lines are waiting and puts them into one transaction; each caller gets
//! the answer to its own line.

use std::sync::Arc;

use shiplap_model::LedgerError;
use tokio::sync::{mpsc, oneshot};

use super::Inner;
use super::history::Addition;

/// Lines in one transaction: more than steps that run at once.
const MOST_LINES: usize = 256;

type Answer = oneshot::Sender<Result<(), LedgerError>>;

/// A journal line on its way, and who waits for it.
pub(crate) struct Line(pub(crate) Addition, pub(crate) Answer);

/// Starts the task, which ends with whoever has the sender.
pub(crate) fn start(ledger: Arc<Inner>) -> mpsc::UnboundedSender<Line> {
    let (lines, mut waiting) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut taken = Vec::new();
        while waiting.recv_many(&mut taken, MOST_LINES).await > 0 {
            let (lines, answers): (Vec<Addition>, Vec<Answer>) =
                taken.drain(..).map(|Line(addition, answer)| (addition, answer)).unzip();
            let results = ledger.proceed(&lines).await;
            for (index, answer) in answers.into_iter().enumerate() {
                // Whoever asked may be gone by now; the line stays true.
                let _ = answer.send(match &results {
                    Ok(each) => each[index].clone(),
                    Err(error) => Err(error.clone()),
                });
            }
        }
    });
    lines
}
