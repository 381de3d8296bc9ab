//! Telling people how an order ended.

mod post;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use shiplap_model::{Order, OrderEnd};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

pub use self::post::Webhook;

use crate::core::Core;

/// Notices under way at the same time; more are given up, with a line in the log.
const MAX_UNDER_WAY: usize = 32;
/// The waits between tries.
const WAITS: [Duration; 3] =
    [Duration::from_secs(2), Duration::from_secs(10), Duration::from_secs(60)];
/// For one try.
const LIMIT: Duration = Duration::from_secs(15);

/// How an order ended, for people. Holds no value of the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The order's number.
    pub order: u64,
    /// Its project.
    pub project: String,
    /// Its environment.
    pub environment: String,
    /// `deploy`, `rollback`, `promote`.
    pub kind: String,
    /// Who asked.
    pub who: String,
    /// Why.
    pub message: String,
    /// `done`, `failed`, `rolled back`, `stuck`.
    pub outcome: String,
    /// The exit code that the command would have had.
    pub exit: u8,
    /// The deployment's number, where it came to one.
    pub deployment: Option<u64>,
    /// What happened in a line.
    pub summary: String,
}

impl Notice {
    fn new(order: &Order, end: &OrderEnd) -> Self {
        let scope = order.new.scope.clone();
        Self {
            order: order.id,
            project: scope.project,
            environment: scope.environment,
            kind: order.new.wanted.word().to_owned(),
            who: order.new.who.clone(),
            message: order.new.message.clone().unwrap_or_default(),
            outcome: outcome(end.exit).to_owned(),
            exit: end.exit,
            deployment: end.deployment,
            summary: end.summary.clone(),
        }
    }

    /// A template with its words filled in: in all texts, `{project}`, `{environment}`, `{kind}`,
    /// `{who}`, `{message}`, `{outcome}`, `{exit}`, `{order}`, `{deployment}` and `{summary}` are
    /// replaced. What is filled in is a text inside of a text, whatever it holds.
    #[must_use]
    pub fn fill(&self, template: &Value) -> Value {
        match template {
            Value::String(text) => Value::String(self.fill_text(text)),
            Value::Array(items) => items.iter().map(|item| self.fill(item)).collect(),
            Value::Object(map) => {
                map.iter().map(|(key, value)| (key.clone(), self.fill(value))).collect()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => template.clone(),
        }
    }

    /// One text with its words filled in. What was filled in is not looked at again.
    #[must_use]
    pub fn fill_text(&self, template: &str) -> String {
        let mut filled = String::with_capacity(template.len());
        let mut rest = template;
        while let Some(at) = rest.find('{') {
            filled.push_str(&rest[..at]);
            let word = rest[at + 1..].split_once('}');
            match word.and_then(|(word, after)| Some((self.word(word)?, after))) {
                Some((text, after)) => {
                    filled.push_str(&text);
                    rest = after;
                }
                None => {
                    filled.push('{');
                    rest = &rest[at + 1..];
                }
            }
        }
        filled + rest
    }

    fn word(&self, word: &str) -> Option<String> {
        Some(match word {
            "order" => self.order.to_string(),
            "project" => self.project.clone(),
            "environment" => self.environment.clone(),
            "kind" => self.kind.clone(),
            "who" => self.who.clone(),
            "message" => self.message.clone(),
            "outcome" => self.outcome.clone(),
            "exit" => self.exit.to_string(),
            "deployment" => self.deployment.map_or_else(String::new, |number| number.to_string()),
            "summary" => self.summary.clone(),
            _ => return None,
        })
    }
}

/// The word for an exit code; see docs/exit-codes.md.
fn outcome(exit: u8) -> &'static str {
    match exit {
        0 => "done",
        3 => "rolled back",
        4 => "stuck",
        _ => "failed",
    }
}

/// Of what to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnlyFailures {
    /// Of every end.
    No,
    /// Of those that are no success.
    Yes,
}

impl OnlyFailures {
    fn wants(self, notice: &Notice) -> bool {
        match self {
            Self::No => true,
            Self::Yes => notice.exit != 0,
        }
    }
}

/// A way to tell people.
#[async_trait]
pub trait Channel: Send + Sync {
    /// A name for the log. Addresses may hold secrets, so they are not used.
    fn name(&self) -> &str;
    /// Whether it tells of this.
    fn wants(&self, notice: &Notice) -> bool;
    /// Tells it, once. The error is for the log and holds no secret.
    async fn send(&self, notice: &Notice) -> Result<(), String>;
}

/// All ways to tell people.
#[derive(Clone)]
pub struct Notifier {
    channels: Vec<Arc<dyn Channel>>,
    under_way: Arc<Semaphore>,
    waits: Arc<[Duration]>,
}

impl Default for Notifier {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Notifier {
    /// Tells through these.
    #[must_use]
    pub fn new(channels: Vec<Arc<dyn Channel>>) -> Self {
        let under_way = Arc::new(Semaphore::new(MAX_UNDER_WAY));
        Self { channels, under_way, waits: WAITS.into() }
    }

    /// Tells how an order ended. Nobody waits for it: what does not arrive is in the log.
    pub(crate) fn tell(&self, core: &Arc<Core>, order: &Order, end: &OrderEnd) {
        let notice = Notice::new(order, end);
        for channel in self.channels.iter().filter(|channel| channel.wants(&notice)) {
            let Ok(permit) = self.under_way.clone().try_acquire_owned() else {
                core.log.trouble(&format!("{}: too many notices are under way", channel.name()));
                continue;
            };
            let (core, channel, notice) = (core.clone(), channel.clone(), notice.clone());
            let waits = self.waits.clone();
            tokio::spawn(async move {
                let _permit = permit;
                if let Err(why) = deliver(&*channel, &notice, &waits).await {
                    let (name, order) = (channel.name(), notice.order);
                    core.log.trouble(&format!("{name}: order {order} was not told of: {why}"));
                }
            });
        }
    }
}

/// Tries, and tries again.
async fn deliver(channel: &dyn Channel, notice: &Notice, waits: &[Duration]) -> Result<(), String> {
    let mut waits = waits.iter();
    loop {
        let sent = timeout(LIMIT, channel.send(notice)).await;
        let why = match sent {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(why)) => why,
            Err(_) => "no answer in time".to_owned(),
        };
        match waits.next() {
            Some(wait) => sleep(*wait).await,
            None => return Err(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;

    use super::*;

    fn notice() -> Notice {
        Notice {
            order: 12,
            project: "shop".into(),
            environment: "prod".into(),
            kind: "deploy".into(),
            who: "ci".into(),
            message: "say \"{who}\"\n<b>".into(),
            outcome: "done".into(),
            exit: 0,
            deployment: Some(7),
            summary: "api abc123".into(),
        }
    }

    #[test]
    fn what_is_filled_in_is_text_and_nothing_else() {
        let template = json!({"text": "{project}/{environment}: {outcome} ({message}) {unknown} {",
            "blocks": [{"n": 1, "t": "#{order} #{deployment}"}]});
        let filled = notice().fill(&template);
        assert_eq!(filled["text"], "shop/prod: done (say \"{who}\"\n<b>) {unknown} {");
        assert_eq!(filled["blocks"][0], json!({"n": 1, "t": "#12 #7"}));
    }

    struct Flaky(AtomicUsize);

    #[async_trait]
    impl Channel for Flaky {
        fn name(&self) -> &'static str {
            "flaky"
        }
        fn wants(&self, _: &Notice) -> bool {
            true
        }
        async fn send(&self, _: &Notice) -> Result<(), String> {
            match self.0.fetch_add(1, Ordering::Relaxed) {
                0 | 1 => Err("not yet".to_owned()),
                _ => Ok(()),
            }
        }
    }

    #[tokio::test]
    async fn a_notice_is_tried_again_but_not_for_ever() {
        let zero = [Duration::ZERO; 2];
        let channel = Flaky(AtomicUsize::new(0));
        assert_eq!(deliver(&channel, &notice(), &zero).await, Ok(()));
        let channel = Flaky(AtomicUsize::new(0));
        assert_eq!(deliver(&channel, &notice(), &zero[..1]).await, Err("not yet".to_owned()));
        assert_eq!(channel.0.load(Ordering::Relaxed), 2);
    }
}
