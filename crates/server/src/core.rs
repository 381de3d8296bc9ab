//! What all parts of a server share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use shiplap_model::{Orders, Token, Tokens};
use tokio::sync::{Semaphore, watch};

use crate::audit::Log;
use crate::beat::Beat;
use crate::commands::Commands;
use crate::health::Health;
use crate::notify::Notifier;
use crate::progress::Progress;
use crate::rates::Rates;
use crate::routes::RunningCommands;
use crate::settings::Settings;
use crate::stop::Stop;
use crate::works::Works;

/// The last use of a token is written down at most so often.
const USE_EVERY_MS: i64 = 60_000;

/// What all parts of a server share.
pub(crate) struct Core {
    pub works: Arc<dyn Works>,
    pub orders: Arc<dyn Orders>,
    pub tokens: Arc<dyn Tokens>,
    pub log: Arc<dyn Log>,
    pub notifier: Notifier,
    pub settings: Settings,
    pub rates: Rates,
    pub health: Health,
    pub beat: Beat,
    pub progress: Progress,
    /// Orders that this server carries out.
    pub running: Mutex<HashMap<u64, Stop>>,
    /// Runs commands for others, where it does.
    pub commands: Option<Arc<dyn Commands>>,
    pub running_commands: RunningCommands,
    /// Room for bodies of webhooks, of which nobody knows yet who sent them.
    pub hooks: Arc<Semaphore>,
    /// Whether the server leaves and nothing is carried out any more: nobody waits for anything
    /// then.
    pub leaving: watch::Sender<bool>,
    /// When each token's use was written down last.
    noted: Mutex<HashMap<String, i64>>,
}

/// What a server is made of.
pub struct Parts {
    /// The files, and whoever carries orders out.
    pub works: Arc<dyn Works>,
    /// The queue.
    pub orders: Arc<dyn Orders>,
    /// The tokens.
    pub tokens: Arc<dyn Tokens>,
    /// Where it writes what it did.
    pub log: Arc<dyn Log>,
    /// Whom it tells how an order ended.
    pub notifier: Notifier,
    /// How it behaves.
    pub settings: Settings,
}

impl Core {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { works, orders, tokens, log, notifier, settings } = parts;
        let now_ms = now_ms();
        Self {
            rates: Rates::new(&settings.rates),
            health: Health::new(log.clone()),
            beat: Beat::default(),
            // Two servers, or two lives of one, do not number their lines alike.
            progress: Progress::new(&format!("{now_ms:x}{:x}", std::process::id())),
            running: Mutex::default(),
            commands: None,
            running_commands: RunningCommands::default(),
            hooks: Arc::new(Semaphore::new(settings.limits.hooks)),
            leaving: watch::channel(false).0,
            noted: Mutex::default(),
            works,
            orders,
            tokens,
            log,
            notifier,
            settings,
        }
    }

    /// Milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> i64 {
        now_ms()
    }

    /// Has it written down that a token was used, if that was not done within a minute. Nobody
    /// waits for it, and nothing hangs on it.
    pub(crate) fn note_use(&self, token: &Token, now_ms: i64) {
        let is_recent = |used: i64| now_ms - used < USE_EVERY_MS;
        if token.used_ms.is_some_and(is_recent) {
            return;
        }
        {
            let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
            if noted.get(&token.id).is_some_and(|used| is_recent(*used)) {
                return;
            }
            noted.retain(|_, used| is_recent(*used));
            noted.insert(token.id.clone(), now_ms);
        }
        let (tokens, id) = (self.tokens.clone(), token.id.clone());
        tokio::spawn(async move { tokens.token_used(&id, now_ms).await });
    }

    pub(crate) fn running(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Stop>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
