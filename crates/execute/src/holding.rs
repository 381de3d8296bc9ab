//! The right to deploy an environment, for as long as it is surely ours.
//!
//! The ledger gives it (one lease per environment, with a generation) and keeps deployers of one
//! ledger apart. The engine's mark keeps deployers of different ledgers apart. Both are renewed
//! while a deployment runs, and both end by themselves when their holder says nothing any more.
//!
//! A deployer that was stopped for longer than that (a laptop that slept, a SIGSTOP) does not know
//! it when it wakes up. So before each change it looks at a clock that runs on meanwhile: until
//! which moment was the lease surely ours? Past it, the lease is renewed first, or it is lost and
//! nothing is touched any more.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use shiplap_model::{
    Engine, EngineError, LeaseHeld, LeaseKey, Ledger, LedgerError, Mark, MarkStanding, Scope,
};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::app::{App, AppError};
use crate::{Cancel, Event, Reporter, now_ms};

/// A lease is renewed so often within the time for which it lasts: two renewals may fail.
const RENEWALS: u32 = 3;
/// How often it is tried to take the engine's mark, and to give it back.
const ATTEMPTS: u32 = 3;
/// Between two tries: an engine that breaks a connection takes the next one at once, as a rule.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(100);
/// How often a mark of another ledger's deployer is looked at, at most, to see whether it lives.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A moment, on the clock of this process and on one that also runs while the machine sleeps.
#[derive(Debug, Clone, Copy)]
struct Moment {
    process: Instant,
    boot: Duration,
}

impl Moment {
    fn now() -> Self {
        let boot = clock_gettime(ClockId::Boottime);
        let boot = Duration::new(
            u64::try_from(boot.tv_sec).unwrap_or(0),
            u32::try_from(boot.tv_nsec).unwrap_or(0),
        );
        Self { process: Instant::now(), boot }
    }

    fn after(self, time: Duration) -> Self {
        Self { process: self.process + time, boot: self.boot + time }
    }

    /// Whether it has come, by whichever clock is ahead.
    fn has_come(self) -> bool {
        let now = Self::now();
        now.process >= self.process || now.boot >= self.boot
    }
}

/// Why something may not be changed at the moment.
#[derive(Debug)]
pub(crate) enum NotNow {
    /// Another deployer has the lease; who, in words.
    Lost(String),
    /// The engine could not be asked.
    Engine(EngineError),
    /// The ledger could not be asked.
    Ledger(LedgerError),
}

/// Whether a plan that was made before is still good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claimed {
    /// Nobody else had the engine's mark meanwhile.
    AsPlanned,
    /// Somebody may have changed something meanwhile: look again.
    LookAgain,
}

/// The right to deploy an environment. Clones share it.
#[derive(Clone)]
pub struct Holding(Arc<Inner>);

struct Inner {
    ledger: Arc<dyn Ledger>,
    engine: Arc<dyn Engine>,
    reporter: Arc<dyn Reporter>,
    cancel: Cancel,
    who: String,
    ttl: Duration,
    nonce: String,
    since_ms: i64,
    /// The newest mark when the lease was taken, if there was one.
    seen: Option<Mark>,
    /// Whether some of them were left by somebody who is gone.
    found_leftovers: bool,
    state: Mutex<State>,
    /// Held while renewing: two at once would take each other for strangers.
    renewing: tokio::sync::Mutex<()>,
    renewer: Mutex<Option<JoinHandle<()>>>,
}

struct State {
    key: LeaseKey,
    /// Until when it is surely ours.
    until: Moment,
    /// Our newest mark on the engine, once there is one.
    mark: Option<Mark>,
    /// Whether there was nothing of the project when it was made.
    fresh: bool,
    /// Who has it instead of us, once that is so.
    lost: Option<String>,
}

impl Holding {
    /// Takes the lease of a scope, and looks at the engine's marks meanwhile. It is renewed until
    /// [`Holding::release`].
    ///
    /// # Errors
    /// `LeaseHeld` where somebody of the same ledger has it.
    pub(crate) async fn take(app: &App, scope: &Scope, ttl: Duration) -> Result<Self, AppError> {
        let began = Moment::now();
        let (lease, marks) =
            tokio::join!(app.ledger.acquire(scope, &app.who, ttl), app.engine.marks(scope));
        let key = lease??.key;
        let marks = match marks {
            Ok(marks) => marks,
            Err(error) => {
                app.ledger.release(&key).await?;
                return Err(error.into());
            }
        };
        let state = State { key, until: began.after(ttl), mark: None, fresh: false, lost: None };
        let holding = Self(Arc::new(Inner {
            ledger: app.ledger.clone(),
            engine: app.engine.clone(),
            reporter: app.reporter.clone(),
            cancel: app.cancel.clone(),
            who: app.who.clone(),
            ttl,
            // Not from the holder's name: two machines may have one name.
            nonce: format!("{:016x}", RandomState::new().hash_one(&app.who)),
            since_ms: now_ms(),
            seen: marks.last().cloned(),
            found_leftovers: are_left_over(&marks, &app.ledger.id()),
            state: Mutex::new(state),
            renewing: tokio::sync::Mutex::default(),
            renewer: Mutex::default(),
        }));
        let renewer = tokio::spawn(keep_renewing(Arc::downgrade(&holding.0), ttl));
        *holding.0.renewer.lock().expect("no holder panics") = Some(renewer);
        Ok(holding)
    }

    fn state<T>(&self, of: impl FnOnce(&mut State) -> T) -> T {
        of(&mut self.0.state.lock().expect("no holder panics"))
    }

    /// The proof, for the ledger. Its generation may grow once, when the engine's mark is taken.
    pub(crate) fn key(&self) -> LeaseKey {
        self.state(|state| state.key.clone())
    }

    /// Takes the engine's mark as well; once there is something to change.
    ///
    /// `edge` is the highest generation that the edge has seen of this environment; `fresh` says that
    /// there is nothing of it yet.
    ///
    /// # Errors
    /// `LeaseHeld` where a deployer of another ledger has it and lives.
    pub(crate) async fn claim(&self, edge: u64, fresh: bool) -> Result<Claimed, AppError> {
        if self.state(|state| state.mark.is_some()) {
            return Ok(Claimed::AsPlanned);
        }
        let seen = self.0.seen.clone();
        let (newest, claimed) = match seen {
            Some(mark) if self.is_of_a_stranger(&mark) => {
                (self.wait_for_the_end_of(mark).await?, Claimed::LookAgain)
            }
            other => (other, Claimed::AsPlanned),
        };
        let known = newest.as_ref().map_or(0, |mark| mark.generation).max(edge);
        let key = self.key();
        if key.generation <= known {
            let raised = self.0.ledger.raise(&key, known + 1).await?.key;
            self.state(|state| state.key = raised);
        }
        let sequence = newest.as_ref().map_or(0, |mark| mark.sequence) + 1;
        let mark = self.own_mark(sequence, MarkStanding::Held);
        // Taking it twice is taking it once: whose it is, the answer tells.
        let there = again(|| self.0.engine.mark(&mark)).await?;
        if there.nonce != mark.nonce {
            return Err(held(&there).into());
        }
        self.state(|state| {
            state.mark = Some(mark);
            state.fresh = fresh;
        });
        Ok(claimed)
    }

    /// Whether a deployer that wrote to our ledger has left marks on the engine: it is gone, or we
    /// would not have got the lease.
    pub(crate) fn found_leftovers(&self) -> bool {
        self.0.found_leftovers
    }

    /// Held by somebody who does not write to our ledger: whoever does is gone, or we would not
    /// have got the lease.
    fn is_of_a_stranger(&self, mark: &Mark) -> bool {
        mark.standing == MarkStanding::Held && mark.ledger != self.0.ledger.id()
    }

    /// Looks at a mark until it is clear whether its holder lives: then somebody else has the
    /// lease. One that stays the newest for as long as it may says nothing any more; only our own
    /// clock is asked, since the holder's may be another.
    async fn wait_for_the_end_of(&self, mark: Mark) -> Result<Option<Mark>, AppError> {
        let ttl = Duration::from_millis(mark.ttl_ms);
        self.0.reporter.event(Event::Notice(format!(
            "{} has the lease of {} on this engine; waiting up to {} s to see whether it lives",
            mark.holder,
            mark.scope,
            ttl.as_secs().max(1),
        )));
        let mut since = Instant::now();
        loop {
            let pause = LOOK_EVERY.min(ttl / 10);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = self.0.cancel.cancelled() => return Err(held(&mark).into()),
            }
            match self.0.engine.marks(&mark.scope).await.map(|marks| marks.last().cloned()) {
                Ok(Some(newest)) if newest == mark => {
                    if since.elapsed() >= ttl {
                        return Ok(Some(newest));
                    }
                }
                Ok(Some(newest)) if self.is_of_a_stranger(&newest) => {
                    return Err(held(&newest).into());
                }
                Ok(newest) => return Ok(newest),
                // Nobody could renew anything meanwhile: begin again.
                Err(_) => since = Instant::now(),
            }
        }
    }

    fn own_mark(&self, sequence: u64, standing: MarkStanding) -> Mark {
        let key = self.key();
        Mark {
            scope: key.scope,
            sequence,
            generation: key.generation,
            standing,
            holder: self.0.who.clone(),
            nonce: self.0.nonce.clone(),
            ledger: self.0.ledger.id(),
            since_ms: self.0.since_ms,
            ttl_ms: u64::try_from(self.0.ttl.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// To be asked right before each change. As good as free while the lease is surely ours.
    ///
    /// # Errors
    /// `Lost` from the moment on when it is known that somebody else has it.
    pub(crate) async fn check(&self) -> Result<(), NotNow> {
        let (until, lost) = self.state(|state| (state.until, state.lost.clone()));
        match lost {
            Some(who) => Err(NotNow::Lost(who)),
            None if !until.has_come() => Ok(()),
            None => match self.renew().await {
                // A ledger that cannot be written can be taken over by nobody, and going back
                // must be possible with a full disk.
                Ok(()) | Err(Failed::Unwritable(_)) => Ok(()),
                Err(Failed::Unreadable(error)) => Err(NotNow::Ledger(error)),
                Err(Failed::Engine(error)) => Err(NotNow::Engine(error)),
                Err(Failed::Lost(who)) => Err(NotNow::Lost(who)),
            },
        }
    }

    /// Who has the lease instead of us, once that is so.
    pub(crate) fn lost_to(&self) -> Option<String> {
        self.state(|state| state.lost.clone())
    }

    async fn renew(&self) -> Result<(), Failed> {
        let _alone = self.0.renewing.lock().await;
        if let Some(who) = self.lost_to() {
            return Err(Failed::Lost(who));
        }
        let began = Moment::now();
        let key = self.key();
        match self.0.ledger.renew(&key, self.0.ttl).await {
            Ok(_) => {}
            Err(LedgerError::LeaseLost(_)) => {
                let who = self.successor(&key.scope).await;
                return Err(self.lose(who));
            }
            Err(error) => match self.0.ledger.holder(&key.scope).await {
                Ok(Some(other)) if other.holder != self.0.who => {
                    return Err(self.lose(other.holder));
                }
                Ok(_) => return Err(Failed::Unwritable(error)),
                Err(_) => return Err(Failed::Unreadable(error)),
            },
        }
        if let Some(mark) = self.state(|state| state.mark.clone()) {
            self.renew_mark(&mark).await?;
        }
        self.state(|state| state.until = began.after(self.0.ttl));
        Ok(())
    }

    async fn renew_mark(&self, mark: &Mark) -> Result<(), Failed> {
        let next = self.own_mark(mark.sequence + 1, MarkStanding::Held);
        let there = self.0.engine.mark(&next).await.map_err(Failed::Engine)?;
        if there.nonce != next.nonce {
            return Err(self.lose(there.holder));
        }
        let marks = self.0.engine.marks(&mark.scope).await.map_err(Failed::Engine)?;
        // Marks can be removed by hand. Then two may hold one for a while; the higher one counts.
        let stranger = |other: &&Mark| other.sequence > next.sequence && other.nonce != next.nonce;
        if let Some(other) = marks.iter().find(stranger) {
            return Err(self.lose(other.holder.clone()));
        }
        self.state(|state| state.mark = Some(next));
        for old in marks.iter().filter(|old| old.sequence <= mark.sequence) {
            let _ = self.0.engine.unmark(&mark.scope, old.sequence).await;
        }
        Ok(())
    }

    /// Who took over, as far as the ledger tells.
    async fn successor(&self, scope: &Scope) -> String {
        if let Ok(Some(held)) = self.0.ledger.holder(scope).await {
            return held.holder;
        }
        let newest = self.0.ledger.deployments(scope, 1).await.unwrap_or_default();
        let other = newest.into_iter().map(|newest| newest.who).find(|who| *who != self.0.who);
        other.unwrap_or_else(|| "another deployer".to_owned())
    }

    fn lose(&self, who: String) -> Failed {
        let who = self.state(|state| state.lost.get_or_insert(who).clone());
        self.0.cancel.cancel(&lost_words(&who));
        Failed::Lost(who)
    }

    /// Gives it back. Somebody else's is left alone.
    ///
    /// # Errors
    /// Where the ledger cannot be written; the lease then ends by itself.
    pub(crate) async fn release(&self, last: Last) -> Result<(), AppError> {
        if let Some(renewer) = self.0.renewer.lock().expect("no holder panics").take() {
            renewer.abort();
        }
        let _alone = self.0.renewing.lock().await;
        if self.lost_to().is_none()
            && let Some(mark) = self.state(|state| state.mark.take())
            && let Err(error) = self.release_mark(&mark, last).await
        {
            let text = format!(
                "the engine's mark of this deployment could not be removed, and ends by itself \
                 within {} s: {error}",
                self.0.ttl.as_secs()
            );
            self.0.reporter.event(Event::Notice(text));
        }
        Ok(self.0.ledger.release(&self.key()).await?)
    }

    async fn release_mark(&self, mark: &Mark, last: Last) -> Result<(), EngineError> {
        let remembers = match last {
            Last::Something => true,
            Last::Nothing => false,
            Last::AsBefore => !self.state(|state| state.fresh),
        };
        let end = remembers.then(|| self.own_mark(mark.sequence + 1, MarkStanding::Released));
        // Each call is safe to repeat. One that got lost would leave marks for the next deployer.
        again(|| self.replace_marks(mark, end.as_ref())).await
    }

    async fn replace_marks(&self, mark: &Mark, end: Option<&Mark>) -> Result<(), EngineError> {
        if let Some(end) = end {
            self.0.engine.mark(end).await?;
        }
        for old in self.0.engine.marks(&mark.scope).await? {
            if old.sequence <= mark.sequence {
                self.0.engine.unmark(&mark.scope, old.sequence).await?;
            }
        }
        Ok(())
    }
}

/// Does what is safe to repeat once more where it failed, a few times.
async fn again<T, F>(attempt: impl Fn() -> F) -> Result<T, EngineError>
where
    F: Future<Output = Result<T, EngineError>>,
{
    let mut attempts = 1..=ATTEMPTS;
    loop {
        attempts.next();
        match attempt().await {
            Err(_) if !attempts.is_empty() => tokio::time::sleep(ATTEMPT_PAUSE).await,
            result => return result,
        }
    }
}

/// Renews a lease until it is given back or nobody has the right any more.
async fn keep_renewing(inner: Weak<Inner>, ttl: Duration) {
    loop {
        tokio::time::sleep(ttl / RENEWALS).await;
        let Some(inner) = inner.upgrade() else { return };
        let holding = Holding(inner);
        match holding.renew().await {
            Ok(()) => {}
            Err(Failed::Lost(_)) => return,
            // Who needs the engine says so.
            Err(Failed::Engine(_)) => {}
            Err(Failed::Unwritable(error) | Failed::Unreadable(error)) => {
                let text = format!("the lease was not renewed: {error}");
                holding.0.reporter.event(Event::Notice(text));
            }
        }
    }
}

/// What remains of a project on the engine: where there is nothing, no mark remembers it either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Last {
    /// Something.
    Something,
    /// Nothing.
    Nothing,
    /// What was there before.
    AsBefore,
}

/// Why a lease was not renewed.
enum Failed {
    Lost(String),
    Engine(EngineError),
    /// The ledger can be read, and nobody else has the lease.
    Unwritable(LedgerError),
    /// The ledger cannot even be read.
    Unreadable(LedgerError),
}

/// That the lease was lost, in words.
pub(crate) fn lost_words(who: &str) -> String {
    format!("{who} has taken over; this deployer changes nothing any more, and has undone nothing")
}

/// Whether nobody is going to remove some of these marks who lives: one is held by a deployer that
/// wrote to this ledger, where that has no deployer any more; or one that was given back has older
/// ones beside it, by whoever died before it removed them.
pub(crate) fn are_left_over(marks: &[Mark], ledger: &str) -> bool {
    let Some(newest) = marks.last() else { return false };
    match newest.standing {
        MarkStanding::Held => newest.ledger == ledger,
        MarkStanding::Released => marks.len() > 1,
    }
}

/// Who holds the newest of these marks, where it is somebody with another ledger.
pub(crate) fn stranger(marks: &[Mark], ledger: &str) -> Option<LeaseHeld> {
    let newest = marks.last()?;
    let held = newest.standing == MarkStanding::Held && newest.ledger != ledger;
    held.then(|| self::held(newest))
}

fn held(mark: &Mark) -> LeaseHeld {
    let ttl = i64::try_from(mark.ttl_ms).unwrap_or(i64::MAX);
    LeaseHeld {
        scope: mark.scope.clone(),
        holder: mark.holder.clone(),
        since_ms: mark.since_ms,
        expires_ms: now_ms().saturating_add(ttl),
    }
}
