//! A ledger in memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use shiplap_model::{
    Deployment, DeploymentState, Journal, JournalEntry, JournalFact, JournalState, Lease,
    LeaseHeld, LeaseKey, Ledger, LedgerError, NewDeployment, Outcome, Resumption, Rules, Scope,
    Secret, StoredRelease,
};
use tokio::time::Instant;

use crate::calls::{Calls, Fate};
use crate::queue::Queue;

#[derive(Clone)]
struct Record {
    deployment: Deployment,
    binding: Secret<Vec<u8>>,
    journal: Journal,
    state: JournalState,
}

impl Record {
    /// Adds what may follow.
    fn add(&mut self, fact: JournalFact) -> Result<(), LedgerError> {
        self.state.admit(&fact).map_err(|illegal| LedgerError::Illegal {
            scope: self.deployment.scope.clone(),
            number: self.deployment.number,
            reason: illegal.to_string(),
        })?;
        self.journal.facts.push(fact);
        Ok(())
    }
}

#[derive(Clone)]
struct Held {
    generation: u64,
    holder: Option<String>,
    until: Instant,
}

#[derive(Clone, Default)]
struct Inner {
    records: Vec<Record>,
    leases: BTreeMap<Scope, Held>,
}

/// Ids of ledgers.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// A ledger in memory.
pub struct MemoryLedger {
    inner: Mutex<Inner>,
    queue: Mutex<Queue>,
    calls: Calls,
    id: u64,
}

pub(crate) fn injected() -> LedgerError {
    LedgerError::Storage("injected".to_owned())
}

impl MemoryLedger {
    pub(crate) fn new(calls: Calls) -> Self {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { inner: Mutex::default(), queue: Mutex::default(), calls, id }
    }

    pub(crate) fn fork(&self, calls: Calls) -> Self {
        let (inner, queue) = (self.inner().clone(), self.queue().clone());
        Self { inner: Mutex::new(inner), queue: Mutex::new(queue), calls, id: self.id }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while holding it")
    }

    pub(crate) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("nothing panics while holding it")
    }

    pub(crate) async fn enter(&self, text: String) -> Result<Fate, LedgerError> {
        self.calls.enter(format!("ledger.{text}")).await.map_err(|_| injected())
    }

    /// Somebody else takes the lease, whoever has it.
    pub fn steal(&self, scope: &Scope) {
        let mut inner = self.inner();
        let generation = inner.leases.get(scope).map_or(1, |held| held.generation + 1);
        let until = Instant::now() + Duration::from_secs(3600);
        let held = Held { generation, holder: Some("a thief".to_owned()), until };
        inner.leases.insert(scope.clone(), held);
    }

    /// The holder of the lease dies, and everybody knows.
    pub fn holder_dies(&self, scope: &Scope) {
        if let Some(held) = self.inner().leases.get_mut(scope) {
            held.holder = None;
        }
    }

    /// Everything that was written down in the clear, for a look at what it gives away.
    #[must_use]
    pub fn in_the_clear(&self) -> String {
        let inner = self.inner();
        let texts = inner.records.iter().map(|r| format!("{:?} {:?}", r.deployment, r.journal));
        texts.collect::<Vec<_>>().join("\n")
    }
}

impl Inner {
    fn check(&self, key: &LeaseKey) -> Result<(), LedgerError> {
        let held = self.leases.get(&key.scope);
        let ours = held.is_some_and(|h| h.generation == key.generation && h.holder.is_some());
        if ours { Ok(()) } else { Err(LedgerError::LeaseLost(key.scope.clone())) }
    }

    /// A deployment to which something can be added.
    fn unfinished(&mut self, scope: &Scope, number: u64) -> Result<&mut Record, LedgerError> {
        let record = self.record(scope, number)?;
        if record.deployment.state == DeploymentState::Unfinished {
            return Ok(record);
        }
        Err(LedgerError::Storage(format!("deployment {number} of {scope} has ended")))
    }

    fn record(&mut self, scope: &Scope, number: u64) -> Result<&mut Record, LedgerError> {
        self.records
            .iter_mut()
            .find(|r| r.deployment.scope == *scope && r.deployment.number == number)
            .ok_or_else(|| LedgerError::NoSuchDeployment(scope.clone(), number))
    }
}

#[async_trait]
impl Ledger for MemoryLedger {
    async fn acquire(
        &self,
        scope: &Scope,
        holder: &str,
        ttl: Duration,
    ) -> Result<Result<Lease, LeaseHeld>, LedgerError> {
        let fate = self.enter("acquire".to_owned()).await?;
        let answer = {
            let mut inner = self.inner();
            let held = inner.leases.get(scope);
            let free = held.is_none_or(|h| h.holder.is_none() || h.until <= Instant::now());
            if free {
                let generation = held.map_or(1, |held| held.generation + 1);
                let until = Instant::now() + ttl;
                let held = Held { generation, holder: Some(holder.to_owned()), until };
                inner.leases.insert(scope.clone(), held);
                let key = LeaseKey { scope: scope.clone(), generation };
                Ok(Lease { key, expires_ms: 0 })
            } else {
                let holder = held.and_then(|held| held.holder.clone()).unwrap_or_default();
                Err(LeaseHeld { scope: scope.clone(), holder, since_ms: 0, expires_ms: 0 })
            }
        };
        fate.end().await.map_err(|_| injected())?;
        Ok(answer)
    }

    async fn raise(&self, key: &LeaseKey, generation: u64) -> Result<Lease, LedgerError> {
        let fate = self.enter("raise".to_owned()).await?;
        let key = {
            let mut inner = self.inner();
            inner.check(key)?;
            let held = inner.leases.get_mut(&key.scope).expect("just checked");
            held.generation = held.generation.max(generation);
            LeaseKey { scope: key.scope.clone(), generation: held.generation }
        };
        fate.end().await.map_err(|_| injected())?;
        Ok(Lease { key, expires_ms: 0 })
    }

    async fn renew(&self, key: &LeaseKey, ttl: Duration) -> Result<Lease, LedgerError> {
        let mut inner = self.inner();
        inner.check(key)?;
        inner.leases.get_mut(&key.scope).expect("just checked").until = Instant::now() + ttl;
        Ok(Lease { key: key.clone(), expires_ms: 0 })
    }

    async fn release(&self, key: &LeaseKey) -> Result<(), LedgerError> {
        let fate = self.enter("release".to_owned()).await?;
        {
            let mut inner = self.inner();
            if inner.check(key).is_ok() {
                inner.leases.get_mut(&key.scope).expect("just checked").holder = None;
            }
        }
        fate.end().await.map_err(|_| injected())
    }

    async fn holder(&self, scope: &Scope) -> Result<Option<LeaseHeld>, LedgerError> {
        let inner = self.inner();
        let held = inner.leases.get(scope).filter(|held| held.until > Instant::now());
        Ok(held.and_then(|held| held.holder.clone()).map(|holder| LeaseHeld {
            scope: scope.clone(),
            holder,
            since_ms: 0,
            expires_ms: 0,
        }))
    }

    async fn begin(&self, new: &NewDeployment) -> Result<u64, LedgerError> {
        let fate = self.enter("begin".to_owned()).await?;
        let number = {
            let mut inner = self.inner();
            inner.check(&new.lease)?;
            let of_scope = inner.records.iter().filter(|r| r.deployment.scope == new.scope);
            let number = of_scope.map(|r| r.deployment.number).max().unwrap_or(0);
            let number = number.max(new.after) + 1;
            let deployment = Deployment {
                scope: new.scope.clone(),
                number,
                kind: new.kind.clone(),
                who: new.who.clone(),
                message: new.message.clone(),
                release: new.release.clone(),
                plan: new.plan.clone(),
                request: Some(new.request.clone()),
                started_ms: 0,
                state: DeploymentState::Unfinished,
            };
            let binding = new.binding.clone();
            let generation = new.lease.generation;
            let journal = Journal { generation, rules: Rules::Checked, facts: Vec::new() };
            let state = JournalState::begun(generation, Rules::Checked);
            inner.records.push(Record { deployment, binding, journal, state });
            number
        };
        fate.end().await.map_err(|_| injected())?;
        Ok(number)
    }

    async fn record(
        &self,
        lease: &LeaseKey,
        number: u64,
        entry: &JournalEntry,
    ) -> Result<(), LedgerError> {
        let fate = self.enter(format!("record {:?} {}", entry.state, entry.what)).await?;
        {
            let mut inner = self.inner();
            inner.check(lease)?;
            inner.unfinished(&lease.scope, number)?.add(JournalFact::Step(entry.clone()))?;
        }
        fate.end().await.map_err(|_| injected())
    }

    async fn resume(
        &self,
        lease: &LeaseKey,
        number: u64,
        resumption: &Resumption,
    ) -> Result<(), LedgerError> {
        let fate = self.enter(format!("resume {}", resumption.direction)).await?;
        {
            let mut inner = self.inner();
            inner.check(lease)?;
            let record = inner.record(&lease.scope, number)?;
            let resumption = Resumption { generation: lease.generation, ..resumption.clone() };
            record.add(JournalFact::Resumed(resumption))?;
            record.deployment.state = DeploymentState::Unfinished;
        }
        fate.end().await.map_err(|_| injected())
    }

    async fn end(
        &self,
        lease: &LeaseKey,
        number: u64,
        outcome: Outcome,
        reason: Option<&str>,
        release: &StoredRelease,
    ) -> Result<(), LedgerError> {
        let fate = self.enter(format!("end {outcome}")).await?;
        {
            let mut inner = self.inner();
            inner.check(lease)?;
            let record = inner.unfinished(&lease.scope, number)?;
            let reason = reason.map(str::to_owned);
            record.add(JournalFact::Ended(outcome))?;
            record.deployment.state = DeploymentState::Ended { at_ms: 0, outcome, reason };
            record.deployment.release = release.clone();
        }
        fate.end().await.map_err(|_| injected())
    }

    async fn deployments(&self, scope: &Scope, limit: u32) -> Result<Vec<Deployment>, LedgerError> {
        let inner = self.inner();
        let of_scope = inner.records.iter().rev().filter(|r| r.deployment.scope == *scope);
        Ok(of_scope.take(limit as usize).map(|r| r.deployment.clone()).collect())
    }

    async fn deployment(
        &self,
        scope: &Scope,
        number: u64,
    ) -> Result<Option<Deployment>, LedgerError> {
        Ok(self.inner().record(scope, number).ok().map(|r| r.deployment.clone()))
    }

    async fn facts(&self, scope: &Scope, number: u64) -> Result<Journal, LedgerError> {
        Ok(self.inner().record(scope, number)?.journal.clone())
    }

    async fn binding(&self, scope: &Scope, number: u64) -> Result<Secret<Vec<u8>>, LedgerError> {
        Ok(self.inner().record(scope, number)?.binding.clone())
    }

    async fn scopes(&self) -> Result<Vec<Scope>, LedgerError> {
        let inner = self.inner();
        let mut scopes: Vec<Scope> =
            inner.records.iter().map(|r| r.deployment.scope.clone()).collect();
        scopes.sort();
        scopes.dedup();
        Ok(scopes)
    }

    fn id(&self) -> String {
        format!("memory {}", self.id)
    }

    async fn verify(&self) -> Result<u64, LedgerError> {
        let inner = self.inner();
        let entries = inner.records.iter().map(|record| 1 + record.journal.facts.len());
        Ok(u64::try_from(entries.sum::<usize>()).expect("few"))
    }
}
