//! Orders and tokens as they are stored, and which order is next, whatever the database that
//! holds them.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use shiplap_model::{
    LedgerError, NewOrder, Order, OrderEnd, OrderError, OrderState, Scope, Token, Wanted,
};

use crate::host::ProcessIdentity;

/// A row of `orders`.
pub(crate) struct OrderRow {
    pub(crate) id: i64,
    pub(crate) scope: Scope,
    pub(crate) asked: String,
    pub(crate) wanted: String,
    pub(crate) who: String,
    pub(crate) token: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) revision: Option<String>,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) settle_ms: i64,
    pub(crate) at_ms: i64,
    pub(crate) due_ms: i64,
    pub(crate) standing: String,
    pub(crate) generation: i64,
    pub(crate) server: Option<String>,
    pub(crate) since_ms: Option<i64>,
    pub(crate) merged_into: Option<i64>,
    pub(crate) ended: Option<String>,
}

/// The columns of [`OrderRow`], in its order.
pub(crate) const COLUMNS: &str = "id, project, environment, asked, wanted, who, token, message, \
     revision, idempotency_key, settle_ms, at_ms, due_ms, standing, generation, server, since_ms, \
     merged_into, ended";

impl OrderRow {
    /// The order, with all that was merged into it.
    pub(crate) fn into_order(self) -> Result<Order, LedgerError> {
        let state = self.state()?;
        let (id, at_ms, wanted) = (self.id.unsigned_abs(), self.at_ms, self.wanted()?);
        Ok(Order { id, new: self.into_new(wanted), at_ms, state })
    }

    /// What was asked for when it was placed.
    pub(crate) fn into_asked(self) -> Result<NewOrder, LedgerError> {
        let asked = read_json(self.id, &self.asked)?;
        Ok(self.into_new(asked))
    }

    pub(crate) fn wanted(&self) -> Result<Wanted, LedgerError> {
        read_json(self.id, &self.wanted)
    }

    fn into_new(self, wanted: Wanted) -> NewOrder {
        NewOrder {
            scope: self.scope,
            wanted,
            who: self.who,
            token: self.token,
            message: self.message,
            revision: self.revision,
            idempotency_key: self.idempotency_key,
            settle: Duration::from_millis(self.settle_ms.unsigned_abs()),
        }
    }

    fn state(&self) -> Result<OrderState, LedgerError> {
        let state = match self.standing.as_str() {
            "waiting" => Some(OrderState::Waiting { due_ms: self.due_ms }),
            "running" => self
                .server
                .clone()
                .zip(self.since_ms)
                .map(|(server, since_ms)| OrderState::Running { server, since_ms }),
            "merged" => {
                self.merged_into.map(|into| OrderState::Merged { into: into.unsigned_abs() })
            }
            "ended" => match &self.ended {
                Some(text) => Some(OrderState::Ended(read_json(self.id, text)?)),
                None => None,
            },
            _ => None,
        };
        state.ok_or_else(|| {
            LedgerError::Damaged(format!("order {} is {} without more", self.id, self.standing))
        })
    }

    /// Whether the claim of this generation has ended it so.
    pub(crate) fn has_ended(&self, generation: i64, end: &OrderEnd) -> Result<bool, LedgerError> {
        let is_it = |state| matches!(state, OrderState::Ended(ended) if ended == *end);
        Ok(self.generation == generation && is_it(self.state()?))
    }
}

/// An order that has not ended, as far as it takes to tell which one is next. `H` tells who has it.
pub(crate) struct Open<H> {
    pub(crate) id: i64,
    pub(crate) scope: Scope,
    pub(crate) at_ms: i64,
    pub(crate) due_ms: i64,
    /// The claim of one that is running.
    pub(crate) claim: Option<H>,
}

/// Until when somebody has something.
pub(crate) struct Hold {
    pub(crate) process: ProcessIdentity,
    pub(crate) expires_ms: i64,
    pub(crate) expires_uptime_ms: i64,
}

/// The order that is next, of `open` in the order of their numbers, if one is.
///
/// A wall clock that was set back would make orders wait for what was the future when they came,
/// so one that came in the future is due.
pub(crate) fn next<H>(
    open: &[Open<H>],
    now_ms: i64,
    is_over: impl Fn(&H) -> bool,
) -> Option<&Open<H>> {
    let running = open.iter().filter(|order| order.claim.is_some());
    let busy: BTreeSet<&Scope> = running.map(|order| &order.scope).collect();
    open.iter().find(|order| match &order.claim {
        Some(claim) => is_over(claim),
        None => {
            let is_due = now_ms >= order.due_ms || now_ms < order.at_ms;
            is_due && !busy.contains(&order.scope)
        }
    })
}

/// Several orders made one.
pub(crate) struct Merged {
    /// The one that is done.
    pub(crate) into: OrderRow,
    /// What it does, as JSON.
    pub(crate) wanted: String,
    /// Those that end with it.
    pub(crate) older: Vec<i64>,
}

/// Makes one of the first of `waiting`, which are all of a scope in order, and those that follow
/// it, up to the first that it cannot be merged with. Nothing where there is none.
pub(crate) fn merge(waiting: Vec<OrderRow>) -> Result<Option<Merged>, LedgerError> {
    let mut waiting = waiting.into_iter();
    let Some(mut into) = waiting.next() else { return Ok(None) };
    let (mut wanted, mut older) = (into.wanted()?, Vec::new());
    for next in waiting {
        let Some(both) = wanted.merged(&next.wanted()?) else { break };
        wanted = both;
        older.push(into.id);
        into = next;
    }
    Ok(Some(Merged { into, wanted: write_json(&wanted), older }))
}

/// What an order under a key that is there already comes to.
pub(crate) fn repeat(there: OrderRow, new: &NewOrder) -> Result<u64, OrderError> {
    let id = there.id.unsigned_abs();
    match there.into_asked()?.asks_the_same(new) {
        true => Ok(id),
        false => Err(OrderError::KeyReused(id)),
    }
}

/// A token with its scope, of a row.
pub(crate) fn with_scope((token, scope): (Token, String)) -> Result<Token, LedgerError> {
    let scope = serde_json::from_str(&scope).map_err(|error| {
        LedgerError::Damaged(format!("the scope of token {} cannot be read: {error}", token.id))
    })?;
    Ok(Token { scope, ..token })
}

/// An id that is there already.
pub(crate) fn taken(id: &str) -> LedgerError {
    LedgerError::Storage(format!("there is a token `{id}` already"))
}

/// The text of what is stored as JSON.
pub(crate) fn write_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("it has text for keys and nothing that fails")
}

fn read_json<T: DeserializeOwned>(id: i64, text: &str) -> Result<T, LedgerError> {
    serde_json::from_str(text)
        .map_err(|error| LedgerError::Damaged(format!("order {id} cannot be read: {error}")))
}

/// Milliseconds as a column holds them.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(id: i64, environment: &str, due_ms: i64) -> Open<Hold> {
        let scope = Scope { project: "shop".into(), environment: environment.into() };
        Open { id, scope, at_ms: 100, due_ms, claim: None }
    }

    fn running(id: i64, environment: &str, expires_ms: i64) -> Open<Hold> {
        let process = ProcessIdentity {
            boot_id: String::new(),
            pid_namespace: String::new(),
            pid: 1,
            start_ticks: 1,
        };
        let claim = Some(Hold { process, expires_ms, expires_uptime_ms: expires_ms });
        Open { claim, ..open(id, environment, 100) }
    }

    fn at(now_ms: i64, orders: &[Open<Hold>]) -> Option<i64> {
        next(orders, now_ms, |hold| hold.expires_ms <= now_ms).map(|order| order.id)
    }

    #[test]
    fn a_clock_that_was_set_back_makes_nobody_wait() {
        let orders = [open(1, "prod", 200)];
        assert_eq!((at(150, &orders), at(200, &orders)), (None, Some(1)));
        assert_eq!(at(99, &orders), Some(1));
    }

    #[test]
    fn what_ran_out_comes_first_and_keeps_the_others_of_its_scope_waiting() {
        let orders = [running(1, "prod", 200), open(2, "prod", 100), open(3, "dev", 100)];
        assert_eq!((at(150, &orders), at(200, &orders)), (Some(3), Some(1)));
    }
}
