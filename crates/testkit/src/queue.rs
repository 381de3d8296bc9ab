//! Orders and tokens in memory.

use std::time::Duration;

use async_trait::async_trait;
use shiplap_model::{
    Claim, DeploymentState, KEY_LASTS, Ledger as _, LedgerError, MAX_WAITING, NewOrder,
    ORDERS_KEPT, Order, OrderEnd, OrderError, OrderState, Orders, Outcome, Placed, Scope, Store,
    StoredImage, Token, Tokens, Wanted, minute_of,
};
use tokio::time::Instant;

use crate::ledger::{MemoryLedger, injected};

/// When the clock of a queue begins, milliseconds since 1970.
const START_MS: i64 = 1_700_000_000_000;

#[derive(Clone)]
struct Stored {
    order: Order,
    /// What was asked for, before others were merged into it.
    asked: Wanted,
    generation: u64,
    until_ms: i64,
    /// Since when it is kept only for a look.
    closed_ms: Option<i64>,
}

/// The orders, the tokens, and what time it is for them.
#[derive(Clone)]
pub(crate) struct Queue {
    orders: Vec<Stored>,
    tokens: Vec<Token>,
    /// Orders so far, also those that were forgotten.
    placed: u64,
    revision: u64,
    began: Instant,
    passed: Duration,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            orders: Vec::new(),
            tokens: Vec::new(),
            placed: 0,
            revision: 0,
            began: Instant::now(),
            passed: Duration::ZERO,
        }
    }
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).expect("tests end earlier")
}

impl Queue {
    /// The clock goes on.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.passed += time;
    }

    fn now_ms(&self) -> i64 {
        START_MS + ms(self.began.elapsed() + self.passed)
    }

    fn place(&mut self, new: &NewOrder) -> Result<Placed, OrderError> {
        let now = self.now_ms();
        if let Some(there) = self.under_key(new, now) {
            let asked = NewOrder { wanted: there.asked.clone(), ..there.order.new.clone() };
            return match asked.asks_the_same(new) {
                true => Ok(Placed { id: there.order.id, repeated: true }),
                false => Err(OrderError::KeyReused(there.order.id)),
            };
        }
        let due = now + ms(new.settle);
        let waiting: Vec<usize> = self.waiting(&new.scope).collect();
        if waiting.len() >= MAX_WAITING as usize {
            return Err(OrderError::Full(MAX_WAITING));
        }
        self.orders.retain(|one| one.closed_ms.is_none_or(|at| now - at <= ms(ORDERS_KEPT)));
        for one in self.orders.iter_mut().filter(|one| one.order.new.scope == new.scope) {
            if let OrderState::Waiting { due_ms } = &mut one.order.state {
                *due_ms = due.min(*due_ms);
            }
        }
        self.placed += 1;
        self.revision += 1;
        let id = self.placed;
        let state = OrderState::Waiting { due_ms: due };
        let order = Order { id, new: new.clone(), at_ms: now, state };
        let asked = new.wanted.clone();
        self.orders.push(Stored { order, asked, generation: 0, until_ms: 0, closed_ms: None });
        Ok(Placed { id, repeated: false })
    }

    fn under_key(&self, new: &NewOrder, now: i64) -> Option<&Stored> {
        let key = new.idempotency_key.as_ref()?;
        self.orders.iter().rev().find(|one| {
            let there = &one.order.new;
            there.idempotency_key.as_ref() == Some(key)
                && there.token == new.token
                && now - one.order.at_ms < ms(KEY_LASTS)
        })
    }

    fn waiting<'a>(&'a self, scope: &'a Scope) -> impl Iterator<Item = usize> + 'a {
        let waits = move |one: &Stored| {
            one.order.new.scope == *scope && matches!(one.order.state, OrderState::Waiting { .. })
        };
        (0..self.orders.len()).filter(move |index| waits(&self.orders[*index]))
    }

    fn claim(&mut self, server: &str, ttl: Duration) -> Option<Claim> {
        let now = self.now_ms();
        let can_be_taken = |one: &Stored| match &one.order.state {
            OrderState::Waiting { due_ms } => *due_ms <= now && !self.is_busy(&one.order.new.scope),
            OrderState::Running { .. } => one.until_ms <= now,
            OrderState::Merged { .. } | OrderState::Ended(_) => false,
        };
        let first = self.orders.iter().position(can_be_taken)?;
        let resumed = matches!(self.orders[first].order.state, OrderState::Running { .. });
        let taken = if resumed { first } else { self.merge(first, now) };
        self.revision += 1;
        let one = &mut self.orders[taken];
        one.generation += 1;
        one.until_ms = now + ms(ttl);
        one.order.state = OrderState::Running { server: server.to_owned(), since_ms: now };
        Some(Claim { order: one.order.clone(), resumed, generation: one.generation })
    }

    fn is_busy(&self, scope: &Scope) -> bool {
        self.orders.iter().any(|one| {
            one.order.new.scope == *scope && matches!(one.order.state, OrderState::Running { .. })
        })
    }

    /// Merges what follows `first` into one; returns which.
    fn merge(&mut self, first: usize, now: i64) -> usize {
        let scope = self.orders[first].order.new.scope.clone();
        let waiting: Vec<usize> = self.waiting(&scope).collect();
        let mut wanted = self.orders[first].order.new.wanted.clone();
        let mut merged = vec![first];
        for &next in &waiting[1..] {
            let Some(both) = wanted.merged(&self.orders[next].order.new.wanted) else { break };
            wanted = both;
            merged.push(next);
        }
        let newest = merged.pop().expect("the first is one");
        let into = self.orders[newest].order.id;
        for older in merged {
            self.orders[older].order.state = OrderState::Merged { into };
            self.orders[older].closed_ms = Some(now);
        }
        self.orders[newest].order.new.wanted = wanted;
        newest
    }

    fn running(&mut self, claim: &Claim) -> Result<&mut Stored, OrderError> {
        let id = claim.order.id;
        let held = |one: &&mut Stored| {
            one.order.id == id
                && one.generation == claim.generation
                && matches!(one.order.state, OrderState::Running { .. })
        };
        self.orders.iter_mut().find(held).ok_or(OrderError::Lost(id))
    }

    fn finish(&mut self, claim: &Claim, end: &OrderEnd) -> Result<(), OrderError> {
        let now = self.now_ms();
        let ended = OrderState::Ended(end.clone());
        let is_said = |one: &Stored| {
            one.order.id == claim.order.id
                && one.generation == claim.generation
                && one.order.state == ended
        };
        if self.orders.iter().any(is_said) {
            return Ok(());
        }
        let one = self.running(claim)?;
        one.order.state = ended.clone();
        one.closed_ms = Some(now);
        self.revision += 1;
        Ok(())
    }
}

impl MemoryLedger {
    /// The clock of the orders goes on.
    pub fn pass(&self, time: Duration) {
        self.queue().pass(time);
    }

    async fn entering<T>(
        &self,
        call: String,
        work: impl FnOnce(&mut Queue) -> Result<T, OrderError> + Send,
    ) -> Result<T, OrderError> {
        let fate = self.enter(call).await?;
        let answer = work(&mut self.queue());
        fate.end().await.map_err(|_| injected())?;
        answer
    }
}

#[async_trait]
impl Orders for MemoryLedger {
    async fn place(&self, order: &NewOrder) -> Result<Placed, OrderError> {
        self.entering("place".to_owned(), |queue| queue.place(order)).await
    }

    async fn claim(&self, server: &str, ttl: Duration) -> Result<Option<Claim>, OrderError> {
        self.entering(format!("claim {server}"), |queue| Ok(queue.claim(server, ttl))).await
    }

    async fn keep(&self, claim: &Claim, ttl: Duration) -> Result<(), OrderError> {
        let mut queue = self.queue();
        let until = queue.now_ms() + ms(ttl);
        queue.running(claim)?.until_ms = until;
        Ok(())
    }

    async fn finish(&self, claim: &Claim, end: &OrderEnd) -> Result<(), OrderError> {
        self.entering(format!("finish {}", claim.order.id), |queue| queue.finish(claim, end)).await
    }

    async fn order(&self, id: u64) -> Result<Option<Order>, OrderError> {
        let queue = self.queue();
        Ok(queue.orders.iter().find(|one| one.order.id == id).map(|one| one.order.clone()))
    }

    async fn orders(&self, scope: Option<&Scope>, limit: u32) -> Result<Vec<Order>, OrderError> {
        let queue = self.queue();
        let asked = |one: &&Stored| scope.is_none_or(|scope| one.order.new.scope == *scope);
        let newest = queue.orders.iter().rev().filter(asked).take(limit as usize);
        Ok(newest.map(|one| one.order.clone()).collect())
    }

    async fn orders_revision(&self) -> Result<u64, OrderError> {
        Ok(self.queue().revision)
    }
}

#[async_trait]
impl Tokens for MemoryLedger {
    async fn add_token(&self, token: &Token) -> Result<(), LedgerError> {
        let mut queue = self.queue();
        if queue.tokens.iter().any(|one| one.id == token.id) {
            return Err(LedgerError::Storage(format!("there is a token `{}` already", token.id)));
        }
        queue.tokens.push(token.clone());
        Ok(())
    }

    async fn token(&self, id: &str) -> Result<Option<Token>, LedgerError> {
        Ok(self.queue().tokens.iter().find(|one| one.id == id).cloned())
    }

    async fn tokens(&self) -> Result<Vec<Token>, LedgerError> {
        Ok(self.queue().tokens.clone())
    }

    async fn token_used(&self, id: &str, at_ms: i64) -> Result<(), LedgerError> {
        if let Some(token) = self.queue().tokens.iter_mut().find(|one| one.id == id) {
            token.used_ms = token.used_ms.max(Some(minute_of(at_ms)));
        }
        Ok(())
    }

    async fn revoke_token(&self, id: &str, at_ms: i64) -> Result<bool, LedgerError> {
        let mut queue = self.queue();
        let found = queue.tokens.iter_mut().find(|one| one.id == id && one.works(at_ms));
        let Some(token) = found else { return Ok(false) };
        token.revoked_ms = Some(at_ms);
        Ok(true)
    }
}

#[async_trait]
impl Store for MemoryLedger {
    async fn retained_images(
        &self,
        keep: u32,
    ) -> Result<Vec<(Scope, u64, StoredImage)>, LedgerError> {
        let mut images = Vec::new();
        for scope in self.scopes().await? {
            let deployments = self.deployments(&scope, u32::MAX).await?;
            let done = deployments.into_iter().filter(|deployment| match deployment.state {
                DeploymentState::Ended { outcome, .. } => outcome == Outcome::Done,
                DeploymentState::Unfinished => false,
            });
            for deployment in done.take(keep as usize) {
                let services = deployment.release.services.into_values();
                images.extend(
                    services.map(|service| (scope.clone(), deployment.number, service.image)),
                );
            }
        }
        Ok(images)
    }
}
