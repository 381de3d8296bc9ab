//! How long, and how often.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shiplap_model::{EngineError, EngineErrorKind, Limit, Limits, RouterError, Span};
use tokio::time::Instant;

use crate::holding::{Holding, NotNow, lost_words};
use crate::{Cancel, Event, Reporter};

/// How often a call is repeated that the other side failed at. Once for a passing trouble, and
/// once more for one that lasts a second.
pub const MOST_FAULTS: u32 = 2;
/// Before such a repetition; the second one waits four times as long.
const FAULT_PAUSE: Duration = Duration::from_millis(200);
/// Between the first two calls to somebody who is away; doubled each time.
const AWAY_FIRST: Duration = Duration::from_millis(100);
/// The longest of these pauses: who is back is noticed so soon.
const AWAY_LONGEST: Duration = Duration::from_secs(2);

/// One attempt at a call.
pub(super) type Attempt<'a, T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'a>>;

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// It looks.
    Looks,
    /// It changes something, and may be repeated.
    Changes,
    /// It changes something, and is only repeated where nobody was there.
    ChangesAtLength,
}

/// Whom a call did not reach, or what an error says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Nobody is there.
    Away(Peer),
    /// It may work the next time.
    Fault,
    /// It is an answer.
    Answer,
}

/// Somebody who can be away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    Engine,
    Edge,
}

impl Peer {
    const fn limit(self) -> Limit {
        match self {
            Self::Engine => Limit::EngineAway,
            Self::Edge => Limit::EdgeAway,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Engine => "the engine",
            Self::Edge => "the edge",
        }
    }
}

/// An error that a call of ours can end with.
pub(super) trait CallError: Sized {
    fn trouble(&self) -> Trouble;
    /// The same, saying that nobody came back within a limit.
    fn after_waiting(self, words: String) -> Self;
    fn not_now(doing: &str, why: NotNow) -> Self;
}

impl CallError for EngineError {
    fn trouble(&self) -> Trouble {
        match self.kind {
            EngineErrorKind::Unreachable => Trouble::Away(Peer::Engine),
            EngineErrorKind::Broken | EngineErrorKind::Internal => Trouble::Fault,
            EngineErrorKind::Denied
            | EngineErrorKind::HostKey
            | EngineErrorKind::TooOld
            | EngineErrorKind::NotFound
            | EngineErrorKind::Conflict
            | EngineErrorKind::DiskFull
            | EngineErrorKind::NoAddresses
            | EngineErrorKind::PortTaken
            | EngineErrorKind::Invalid
            | EngineErrorKind::Timeout
            | EngineErrorKind::LeaseLost => Trouble::Answer,
        }
    }

    fn after_waiting(self, words: String) -> Self {
        Self { message: format!("{}; {words}", self.message), ..self }
    }

    fn not_now(doing: &str, why: NotNow) -> Self {
        let (kind, message) = match why {
            NotNow::Lost(who) => (EngineErrorKind::LeaseLost, lost_words(&who)),
            NotNow::Engine(error) => return error,
            NotNow::Ledger(error) => {
                (EngineErrorKind::Internal, format!("the lease could not be renewed: {error}"))
            }
        };
        Self { kind, doing: doing.to_owned(), message, help: None }
    }
}

impl CallError for RouterError {
    fn trouble(&self) -> Trouble {
        match self {
            Self::Unreachable(_) => Trouble::Away(Peer::Edge),
            Self::Engine(error) => error.trouble(),
            Self::PortTaken { .. } | Self::LeaseLost(_) | Self::Refused(_) => Trouble::Answer,
        }
    }

    fn after_waiting(self, words: String) -> Self {
        match self {
            Self::Unreachable(text) => Self::Unreachable(format!("{text}; {words}")),
            Self::Engine(error) => Self::Engine(error.after_waiting(words)),
            other => other,
        }
    }

    fn not_now(doing: &str, why: NotNow) -> Self {
        match why {
            NotNow::Lost(who) => Self::LeaseLost(lost_words(&who)),
            other => Self::Engine(EngineError::not_now(doing, other)),
        }
    }
}

/// How long somebody has been away; told of once, however many calls wait.
#[derive(Default)]
struct Absence {
    since: Option<Instant>,
    /// Since when those wait who go back: they have the whole limit once more.
    since_going_back: Option<Instant>,
}

/// Limits, and what is known of who is away.
#[derive(Clone)]
pub(super) struct Patience {
    limits: Limits,
    holding: Option<Holding>,
    reporter: Arc<dyn Reporter>,
    cancel: Cancel,
    engine: Arc<Mutex<Absence>>,
    edge: Arc<Mutex<Absence>>,
}

impl Patience {
    pub(super) fn new(limits: &Limits, reporter: Arc<dyn Reporter>, cancel: Cancel) -> Self {
        Self {
            limits: *limits,
            holding: None,
            reporter,
            cancel,
            engine: Arc::default(),
            edge: Arc::default(),
        }
    }

    pub(super) fn under(self, holding: Holding) -> Self {
        Self { holding: Some(holding), ..self }
    }

    /// Whether the lease is surely ours.
    pub(super) async fn check<E: CallError>(&self, doing: &str) -> Result<(), E> {
        match &self.holding {
            Some(holding) => holding.check().await.map_err(|why| E::not_now(doing, why)),
            None => Ok(()),
        }
    }

    /// That somebody else has the lease by now, once that is known for sure.
    pub(super) async fn overtaken<E: CallError>(&self, doing: &str) -> Option<E> {
        match self.holding.as_ref()?.check().await {
            Err(why @ NotNow::Lost(_)) => Some(E::not_now(doing, why)),
            // Whatever is done next finds out.
            Ok(()) | Err(NotNow::Engine(_) | NotNow::Ledger(_)) => None,
        }
    }

    /// Says something.
    pub(super) fn tell(&self, text: String) {
        self.reporter.event(Event::Notice(text));
    }

    /// The generation under which things are made.
    pub(super) fn generation(&self) -> Option<u64> {
        self.holding.as_ref().map(|holding| holding.key().generation)
    }

    /// Makes a call, and makes it again where that helps.
    ///
    /// `between` is done before each repetition of a call whose peer was away.
    pub(super) async fn call<'a, T, E: CallError>(
        &self,
        doing: &str,
        effect: Effect,
        attempt: impl Fn() -> Attempt<'a, T, E>,
        between: impl Fn() -> Attempt<'a, (), E>,
    ) -> Result<T, E> {
        // Whoever goes back has been asked to stop before: that must not end its waits too.
        let going_back = self.cancel.reason().is_some();
        let (mut faults, mut pause) = (0, AWAY_FIRST);
        loop {
            let error = match self.once(doing, effect, &attempt).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            match error.trouble() {
                Trouble::Away(peer) => {
                    let limit = self.limits.get(peer.limit());
                    let Some(left) = self.left_for(peer, going_back, limit) else {
                        return Err(error.after_waiting(format!(
                            "it was not back within {} ({})",
                            Span(limit),
                            peer.limit().raise(limit)
                        )));
                    };
                    if !self.sleep(pause.min(left), going_back).await {
                        return Err(error);
                    }
                    pause = (pause * 2).min(AWAY_LONGEST);
                    let _ = between().await;
                }
                Trouble::Fault if faults < MOST_FAULTS && effect != Effect::ChangesAtLength => {
                    faults += 1;
                    if !self.sleep(FAULT_PAUSE * 4_u32.pow(faults - 1), going_back).await {
                        return Err(error);
                    }
                }
                Trouble::Fault | Trouble::Answer => return Err(error),
            }
        }
    }

    async fn once<'a, T, E: CallError>(
        &self,
        doing: &str,
        effect: Effect,
        attempt: &impl Fn() -> Attempt<'a, T, E>,
    ) -> Result<T, E> {
        if effect != Effect::Looks {
            self.check(doing).await?;
        }
        attempt().await
    }

    fn absence<T>(&self, peer: Peer, of: impl FnOnce(&mut Absence) -> T) -> T {
        let absence = match peer {
            Peer::Engine => &self.engine,
            Peer::Edge => &self.edge,
        };
        of(&mut absence.lock().expect("no holder panics"))
    }

    /// How much longer somebody is waited for who was just found away.
    fn left_for(&self, peer: Peer, going_back: bool, limit: Duration) -> Option<Duration> {
        let now = Instant::now();
        let (since, is_new) = self.absence(peer, |absence| {
            let is_new = absence.since.is_none();
            let since = absence.since.get_or_insert(now);
            let since =
                if going_back { absence.since_going_back.get_or_insert(now) } else { since };
            (*since, is_new)
        });
        if is_new && !limit.is_zero() {
            let text =
                format!("{} does not answer; waiting up to {} s", peer.name(), limit.as_secs());
            self.reporter.event(Event::Notice(text));
        }
        limit.checked_sub(now - since).filter(|left| !left.is_zero())
    }

    /// Notes that somebody has answered, if so.
    pub(super) fn heard<T, E: CallError>(&self, peer: Peer, answer: &Result<T, E>) {
        let is_answer = match answer {
            Ok(_) => true,
            Err(error) => error.trouble() == Trouble::Answer,
        };
        if !is_answer {
            return;
        }
        let since = self.absence(peer, |absence| {
            absence.since_going_back = None;
            absence.since.take()
        });
        if let Some(since) = since {
            let away = since.elapsed().as_secs_f32();
            let text = format!("{} is back after {away:.1} s", peer.name());
            self.reporter.event(Event::Notice(text));
        }
    }

    /// Whether the pause was slept to its end.
    async fn sleep(&self, pause: Duration, going_back: bool) -> bool {
        if going_back {
            tokio::time::sleep(pause).await;
            return true;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => true,
            _ = self.cancel.cancelled() => false,
        }
    }
}

/// Nothing to do between two attempts.
pub(super) fn nothing<'a, E>() -> Attempt<'a, (), E> {
    Box::pin(async { Ok(()) })
}
