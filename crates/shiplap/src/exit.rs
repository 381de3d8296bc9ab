//! Exit codes: a contract with scripts.

use std::process::ExitCode;

use shiplap_model::Outcome;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or nothing to do.
    Done,
    /// Failed before anything was changed.
    Failed,
    /// The command line is wrong.
    Usage,
    /// Failed, and everything was undone.
    RolledBack,
    /// Failed, and something could not be undone.
    Stuck,
    /// `plan --exit-code`: there is something to do.
    Pending,
    /// Our own promise was broken.
    OurBug,
    /// What a command in a container ended with.
    Of(u8),
}

impl From<Outcome> for Exit {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::Done,
            Outcome::Failed => Self::Failed,
            Outcome::RolledBack => Self::RolledBack,
            Outcome::Stuck | Outcome::Interrupted => Self::Stuck,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::RolledBack => 3,
            Exit::Stuck => 4,
            Exit::Pending => 5,
            Exit::OurBug => 70,
            Exit::Of(code) => code,
        })
    }
}
