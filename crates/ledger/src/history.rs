//! Deployments as they stand in the entries, whatever the database that holds them.

use shiplap_model::{
    Deployment, DeploymentState, IllegalFact, Journal, JournalFact, LedgerError, NewDeployment,
    Outcome, Scope,
};

use crate::chain::{Kind, fact_of};
use crate::payload::{self, Begun, Ended, Resumed, Step};

/// What is added to a deployment.
pub(crate) enum Happened {
    Step(Step),
    Resumed(Resumed),
    Ended(Ended),
}

impl Happened {
    /// The entry's kind and text, and what it tells.
    pub(crate) fn into_parts(self) -> (Kind, String, JournalFact) {
        match self {
            Self::Step(step) => {
                (Kind::Step, payload::write(&step), JournalFact::Step(step.into_entry()))
            }
            Self::Resumed(resumed) => {
                let text = payload::write(&resumed);
                (Kind::Resumed, text, JournalFact::Resumed(resumed.into_resumption()))
            }
            Self::Ended(ended) => {
                (Kind::Ended, payload::write(&ended), JournalFact::Ended(ended.outcome))
            }
        }
    }
}

/// A deployment as it stands in `entries`.
pub(crate) struct DeploymentRow {
    pub(crate) number: i64,
    pub(crate) begun: EntryText,
    pub(crate) ended: Option<EntryText>,
}

/// An entry, without what its deployment says of it.
pub(crate) struct EntryText {
    pub(crate) seq: i64,
    pub(crate) at_ms: i64,
    pub(crate) payload: String,
}

/// Deployments of a scope (the first two parameters): the columns of [`DeploymentRow`]. The end is
/// the last one, unless it was taken up again since.
pub(crate) const DEPLOYMENTS: &str = "\
    SELECT begun.number, begun.seq, begun.at_ms, begun.payload, \
           ended.seq, ended.at_ms, ended.payload \
    FROM entries AS begun LEFT JOIN entries AS ended \
      ON ended.kind = 'ended' AND ended.seq = ( \
         SELECT max(last.seq) FROM entries AS last \
         WHERE last.project = begun.project AND last.environment = begun.environment \
           AND last.number = begun.number AND last.kind IN ('resumed', 'ended')) \
    WHERE begun.kind = 'begun' AND begun.project = ?1 AND begun.environment = ?2";

impl DeploymentRow {
    /// What it tells.
    pub(crate) fn into_deployment(self, scope: &Scope) -> Result<Deployment, LedgerError> {
        let begun: Begun = payload::read(self.begun.seq, &self.begun.payload)?;
        let ended = match self.ended {
            Some(text) => Some((text.at_ms, payload::read::<Ended>(text.seq, &text.payload)?)),
            None => None,
        };
        let (release, state) = match ended {
            None => (begun.release, DeploymentState::Unfinished),
            Some((at_ms, Ended { outcome, reason, release, .. })) => {
                (release, DeploymentState::Ended { at_ms, outcome, reason })
            }
        };
        Ok(Deployment {
            scope: scope.clone(),
            number: self.number.unsigned_abs(),
            kind: begun.kind,
            who: begun.who,
            message: begun.message,
            release,
            plan: begun.plan,
            request: begun.request,
            started_ms: self.begun.at_ms,
            state,
        })
    }

    /// Its journal, of the entries that followed.
    pub(crate) fn journal(
        &self,
        followed: impl IntoIterator<Item = (i64, String, String)>,
    ) -> Result<Journal, LedgerError> {
        let (generation, rules) = payload::read_head(self.begun.seq, &self.begun.payload)?;
        let facts = followed.into_iter().map(|(seq, kind, text)| fact_of(seq, &kind, &text));
        Ok(Journal { generation, rules, facts: facts.collect::<Result<_, LedgerError>>()? })
    }
}

/// A fact that cannot be added to a deployment.
pub(crate) fn illegal(scope: &Scope, number: u64, fact: &IllegalFact) -> LedgerError {
    LedgerError::Illegal { scope: scope.clone(), number, reason: fact.to_string() }
}

/// The number that the target knows of, as a column holds it.
pub(crate) fn after(deployment: &NewDeployment) -> Result<i64, LedgerError> {
    i64::try_from(deployment.after)
        .map_err(|_| LedgerError::Storage(format!("{} is no number", deployment.after)))
}

/// Ends of a scope, the newest first, as far as they are done.
pub(crate) fn newest_done(
    ends: impl IntoIterator<Item = (i64, i64, String)>,
    keep: u32,
) -> Result<Vec<(u64, Ended)>, LedgerError> {
    let keep = usize::try_from(keep).unwrap_or(usize::MAX);
    let read = ends.into_iter().map(|(seq, number, text)| {
        Ok((number.unsigned_abs(), payload::read::<Ended>(seq, &text)?))
    });
    let done = read.filter(|end| match end {
        Ok((_, ended)) => ended.outcome == Outcome::Done,
        Err(_) => true,
    });
    done.take(keep).collect()
}
