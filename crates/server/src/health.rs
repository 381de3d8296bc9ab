//! Whether the ledger answers.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use shiplap_model::{LedgerError, OrderError};

use crate::audit::Log;

/// Whether the ledger answered when it was asked last.
pub(crate) struct Health {
    away_since: Mutex<Option<Instant>>,
    log: Arc<dyn Log>,
}

impl Health {
    pub(crate) fn new(log: Arc<dyn Log>) -> Self {
        Self { away_since: Mutex::default(), log }
    }

    /// Takes note of what the ledger answered, and hands it on.
    pub(crate) fn seen<T, E: FromLedger>(&self, answer: Result<T, E>) -> Result<T, E> {
        let trouble = answer.as_ref().err().and_then(FromLedger::ledger);
        let mut since = self.away_since.lock().unwrap_or_else(PoisonError::into_inner);
        match (trouble, *since) {
            (Some(error), None) => {
                *since = Some(Instant::now());
                self.log.trouble(&format!("the ledger cannot be used: {error}"));
            }
            (None, Some(began)) => {
                *since = None;
                let seconds = began.elapsed().as_secs();
                self.log.trouble(&format!("the ledger can be used again after {seconds} s"));
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
        drop(since);
        answer
    }

    /// Since when it does not answer, if it does not.
    pub(crate) fn away_since(&self) -> Option<Instant> {
        *self.away_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error that may be the ledger's.
pub(crate) trait FromLedger {
    /// The ledger's own error, if it is one.
    fn ledger(&self) -> Option<&LedgerError>;
}

impl FromLedger for LedgerError {
    fn ledger(&self) -> Option<&LedgerError> {
        Some(self)
    }
}

impl FromLedger for OrderError {
    fn ledger(&self) -> Option<&LedgerError> {
        match self {
            Self::Ledger(error) => Some(error),
            Self::KeyReused(_) | Self::Full(_) | Self::Lost(_) => None,
        }
    }
}
