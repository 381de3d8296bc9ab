//! Counting calls, and trouble at one of them.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shiplap_model::EngineErrorKind;
use tokio::sync::Notify;
use tokio::time::Instant;

/// What goes wrong at a call.
#[derive(Clone)]
pub enum Trouble {
    /// It fails and has done nothing.
    Before,
    /// It fails although it has done what it was asked: the answer was lost.
    After,
    /// It fails with an error of this kind (of the engine; elsewhere as [`Trouble::Before`]) and
    /// has done nothing.
    Fails(EngineErrorKind),
    /// It never returns; whoever waits for it has to be dropped, as if the process had died.
    Hang,
    /// It does what it was asked and hangs then.
    HangAfter,
    /// Something happens just before it.
    Do(Arc<dyn Fn() + Send + Sync>),
}

impl fmt::Debug for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Before => "Before",
            Self::After => "After",
            Self::Fails(_) => "Fails",
            Self::Hang => "Hang",
            Self::HangAfter => "HangAfter",
            Self::Do(_) => "Do",
        })
    }
}

/// Where in time a piece of trouble stands.
#[derive(Clone)]
enum When {
    /// At this call, counted from 0.
    Call(usize),
    /// At every call whose text begins so.
    Text(String),
}

#[derive(Default)]
struct Inner {
    log: Vec<String>,
    troubles: Vec<(When, Trouble)>,
    /// Until when nothing whose text begins so answers.
    away: Vec<(&'static str, Instant)>,
    /// How long each call takes whose text begins so.
    slow: Option<(&'static str, Duration)>,
}

/// The calls so far. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Calls(Arc<Mutex<Inner>>, Arc<Notify>);

/// An injected failure.
#[derive(Clone, Copy)]
pub(crate) enum Injected {
    /// Something went wrong.
    Fault,
    /// This went wrong.
    Kind(EngineErrorKind),
    /// Nobody is there.
    Away,
}

/// How a call that was let in ends.
pub(crate) struct Fate {
    fails: bool,
    hangs: Option<Arc<Notify>>,
}

impl Fate {
    /// To be asked once the call has done its work.
    pub(crate) async fn end(self) -> Result<(), Injected> {
        if let Some(hung) = self.hangs {
            hung.notify_one();
            std::future::pending::<()>().await;
        }
        if self.fails { Err(Injected::Fault) } else { Ok(()) }
    }
}

impl Calls {
    /// Notes a call.
    pub(crate) async fn enter(&self, text: String) -> Result<Fate, Injected> {
        let (trouble, slow) = {
            let mut inner = self.0.lock().expect("no call panics");
            let number = inner.log.len();
            let found = inner.troubles.iter().find(|(when, _)| match when {
                When::Call(at) => *at == number,
                When::Text(prefix) => text.starts_with(prefix.as_str()),
            });
            let trouble = found.map(|(_, trouble)| trouble.clone());
            inner.log.push(text.clone());
            (trouble, inner.slow.filter(|(of, _)| text.starts_with(of)))
        };
        if let Some((_, each)) = slow {
            tokio::time::sleep(each).await;
        }
        let fate = |fails, hangs| Ok(Fate { fails, hangs });
        match trouble {
            None => self.present(&text).and_then(|()| fate(false, None)),
            Some(Trouble::Before) => Err(Injected::Fault),
            Some(Trouble::Fails(kind)) => Err(Injected::Kind(kind)),
            Some(Trouble::After) => fate(true, None),
            Some(Trouble::HangAfter) => fate(false, Some(self.1.clone())),
            Some(Trouble::Hang) => {
                self.1.notify_one();
                std::future::pending().await
            }
            Some(Trouble::Do(act)) => {
                act();
                self.present(&text).and_then(|()| fate(false, None))
            }
        }
    }

    /// Whether there is anybody to answer a call.
    fn present(&self, text: &str) -> Result<(), Injected> {
        let inner = self.0.lock().expect("no call panics");
        let is_away =
            |(of, until): &(&str, Instant)| text.starts_with(of) && Instant::now() < *until;
        if inner.away.iter().any(is_away) { Err(Injected::Away) } else { Ok(()) }
    }

    /// Nothing whose text begins so answers for a while.
    pub(crate) fn leave(&self, of: &'static str, during: Duration) {
        let until = Instant::now() + during;
        self.0.lock().expect("no call panics").away.push((of, until));
    }

    /// Makes every call take so long whose text begins so.
    pub(crate) fn slow(&self, of: &'static str, each: Duration) {
        self.0.lock().expect("no call panics").slow = Some((of, each));
    }

    pub(crate) async fn hung(&self) {
        self.1.notified().await;
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.0.lock().expect("no call panics").log.clone()
    }

    pub(crate) fn reset(&self) {
        *self.0.lock().expect("no call panics") = Inner::default();
    }

    pub(crate) fn at(&self, call: usize, trouble: Trouble) {
        self.0.lock().expect("no call panics").troubles.push((When::Call(call), trouble));
    }

    pub(crate) fn on(&self, prefix: &str, trouble: Trouble) {
        let when = When::Text(prefix.to_owned());
        self.0.lock().expect("no call panics").troubles.push((when, trouble));
    }

    pub(crate) fn calm(&self) {
        let mut inner = self.0.lock().expect("no call panics");
        inner.troubles.clear();
        inner.away.clear();
        inner.slow = None;
    }
}
