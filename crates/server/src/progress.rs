//! What happens while an order is carried out, for those who watch.
//!
//! Each order has one log of limited size, and whoever watches reads from it at their own speed:
//! there is no buffer per watcher. Slow ones miss lines, and are told so.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::works::EventSink;

/// Orders whose lines are kept. With their sizes, that is 16 MiB at most.
const MAX_LOGS: usize = 64;
/// Bytes of the lines of one order.
const MAX_BYTES: usize = 256 << 10;
/// Bytes of a line.
const MAX_LINE: usize = 4 << 10;
/// What a line costs besides its text.
const LINE_COST: usize = 64;

/// The logs of this server's orders.
pub(crate) struct Progress {
    instance: String,
    logs: Mutex<BTreeMap<u64, Arc<OrderLog>>>,
}

impl Progress {
    /// `instance` is another one for each life of a server.
    pub(crate) fn new(instance: &str) -> Self {
        Self { instance: instance.to_owned(), logs: Mutex::default() }
    }

    /// Begins the log of an order. The oldest one is forgotten when there are too many; whoever
    /// watches it still has it.
    pub(crate) fn open(&self, order: u64) -> Arc<OrderLog> {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        while logs.len() >= MAX_LOGS {
            logs.pop_first();
        }
        let log = Arc::new(OrderLog::default());
        logs.insert(order, log.clone());
        log
    }

    /// The log of an order, where this server has it.
    pub(crate) fn log(&self, order: u64) -> Option<Arc<OrderLog>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).get(&order).cloned()
    }

    /// The id of a line, for `Last-Event-ID`.
    pub(crate) fn event_id(&self, order: u64, line: u64) -> String {
        format!("{}-{order}-{line}", self.instance)
    }

    /// The line after the one with this id; the first one where it is not of this order or this
    /// server.
    pub(crate) fn after(&self, order: u64, event_id: &str) -> u64 {
        let line = || {
            let rest = event_id.strip_prefix(&self.instance)?.strip_prefix('-')?;
            let (of, line) = rest.split_once('-')?;
            (of.parse() == Ok(order)).then(|| line.parse::<u64>().ok())?
        };
        line().map_or(0, |line| line.saturating_add(1))
    }
}

/// What happened while an order was carried out.
#[derive(Default)]
pub(crate) struct OrderLog {
    lines: Mutex<Lines>,
    count: watch::Sender<u64>,
}

#[derive(Default)]
struct Lines {
    /// Number of the first line that is still here.
    first: u64,
    kept: VecDeque<Line>,
    bytes: usize,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Line {
    /// A line for people.
    Text(String),
    /// The deployment that it came to.
    Deployment(u64),
}

impl OrderLog {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: Line) {
        let end = {
            let mut lines = self.lines();
            lines.bytes += cost(&line);
            lines.kept.push_back(line);
            while lines.bytes > MAX_BYTES {
                let Some(oldest) = lines.kept.pop_front() else { break };
                lines.bytes -= cost(&oldest);
                lines.first += 1;
            }
            lines.first + lines.kept.len() as u64
        };
        self.count.send_replace(end);
    }

    /// Number of the first of these lines, and the lines from `from` on that are still here; at
    /// most `limit`.
    pub(crate) fn from(&self, from: u64, limit: usize) -> (u64, Vec<Line>) {
        let lines = self.lines();
        let begin = from.max(lines.first);
        let skip = usize::try_from(begin - lines.first).unwrap_or(usize::MAX);
        (begin, lines.kept.iter().skip(skip).take(limit).cloned().collect())
    }

    /// Waits until there are lines from `from` on.
    pub(crate) async fn reaches(&self, from: u64) {
        // The sender lives in `self`, so this ends with a line or not at all.
        let _ = self.count.subscribe().wait_for(|end| *end > from).await;
    }
}

fn cost(line: &Line) -> usize {
    match line {
        Line::Text(text) => text.len() + LINE_COST,
        Line::Deployment(_) => LINE_COST,
    }
}

impl EventSink for OrderLog {
    fn line(&self, text: &str) {
        let mut end = text.len().min(MAX_LINE);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        // Events are lines: what would end one early is a space.
        self.push(Line::Text(text[..end].replace(['\r', '\n'], " ")));
    }

    fn deployment(&self, number: u64) {
        self.push(Line::Deployment(number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_one_order_is_limited_and_the_newest() {
        let log = OrderLog::default();
        for number in 0..10_000 {
            log.line(&format!("{number} {}", "x".repeat(100)));
        }
        let (first, lines) = log.from(0, usize::MAX);
        assert!(lines.len() < 2_000 && first + lines.len() as u64 == 10_000);
        assert!(matches!(lines.last(), Some(Line::Text(text)) if text.starts_with("9999 ")));
        assert_eq!(log.from(10_000, 10), (10_000, Vec::new()));
        assert_eq!(log.from(9_998, 1).1.len(), 1);
    }

    #[test]
    fn a_line_is_one_line_of_limited_length() {
        let log = OrderLog::default();
        log.line(&format!("a\r\nb{}", "ä".repeat(4000)));
        let (_, lines) = log.from(0, 1);
        let Line::Text(text) = &lines[0] else { panic!("{lines:?}") };
        assert!(text.starts_with("a  b") && text.len() <= MAX_LINE);
    }

    #[test]
    fn the_orders_that_are_remembered_are_limited() {
        let progress = Progress::new("i");
        for order in 1..=1000 {
            progress.open(order);
        }
        assert!(progress.log(1).is_none() && progress.log(1000).is_some());
        assert_eq!(progress.logs.lock().unwrap().len(), MAX_LOGS);
    }

    #[test]
    fn a_watcher_goes_on_after_the_last_line_that_it_has_seen() {
        let progress = Progress::new("abc");
        assert_eq!(progress.after(7, &progress.event_id(7, 41)), 42);
        for other in ["abc-8-41", "abd-7-41", "", "abc-7-", "abc-7-x", "abc", "-"] {
            assert_eq!(progress.after(7, other), 0, "{other}");
        }
        assert_eq!(progress.after(7, &format!("abc-7-{}", u64::MAX)), u64::MAX);
    }

    #[tokio::test]
    async fn whoever_waits_is_told_of_a_line() {
        let log = Arc::new(OrderLog::default());
        let waiting = tokio::spawn({
            let log = log.clone();
            async move { log.reaches(1).await }
        });
        log.line("one");
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        log.deployment(3);
        waiting.await.unwrap();
    }
}
