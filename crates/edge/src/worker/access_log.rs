//! A line for every request, written by a thread of its own: when the disk cannot keep up, lines
//! are dropped and counted, and no request waits.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::link::{Link, refusal};
use crate::channel::{Ask, Reply};
use crate::table::{AccessLog, LogFormat, LogTarget};

/// Lines on their way: some 4 MB at most.
const MAX_WAITING: usize = 16_384;
/// What clients say of themselves is cut here.
const MAX_FIELD: usize = 1024;

/// Where lines go.
pub(super) struct Log {
    config: AccessLog,
    lines: SyncSender<String>,
    dropped: Arc<AtomicU64>,
}

/// What is known of a request when it comes.
pub(super) struct Line {
    pub log: Arc<Log>,
    pub client: String,
    pub method: String,
    pub host: String,
    pub target: String,
    pub version: &'static str,
    pub referer: String,
    pub agent: String,
}

impl Log {
    /// `before` goes on if it says the same.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub(super) async fn open(
        link: &Link,
        config: &AccessLog,
        before: Option<&Arc<Log>>,
    ) -> io::Result<Arc<Log>> {
        if let Some(before) = before
            && before.config == *config
        {
            return Ok(before.clone());
        }
        let out = match config.to {
            LogTarget::Stdout => None,
            // We have no rights in its folder.
            LogTarget::File => match link.ask(Ask::AccessLog).await? {
                (Reply::Done, mut files) => files.pop().map(File::from),
                (reply, _) => return Err(io::Error::other(refusal("opening it", reply))),
            },
        };
        let (lines, receiver) = sync_channel(MAX_WAITING);
        let thread = std::thread::Builder::new().name("access-log".to_owned());
        thread.spawn(move || write(out, &receiver))?;
        Ok(Arc::new(Log { config: config.clone(), lines, dropped: Arc::default() }))
    }

    pub(super) fn with_query(&self) -> bool {
        self.config.query
    }

    /// Lines that came too fast.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Line {
    pub(super) fn write(&self, status: u16, bytes: u64, took: Duration, replica: Option<&str>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let text = match self.log.config.format {
            LogFormat::Json => {
                let line = json!({
                    "time": timestamp(now), "client": cut(&self.client), "method": self.method,
                    "host": cut(&self.host), "target": cut(&self.target), "version": self.version,
                    "status": status, "bytes": bytes, "ms": took.as_secs_f64() * 1000.0,
                    "replica": replica.map(|id| id.get(..12).unwrap_or(id)),
                    "referer": cut(&self.referer), "agent": cut(&self.agent),
                });
                format!("{line}\n")
            }
            LogFormat::Combined => format!(
                "{} - - [{}] \"{} {} {}\" {status} {bytes} \"{}\" \"{}\"\n",
                plain(&self.client),
                common_time(now),
                plain(&self.method),
                plain(&self.target),
                self.version,
                plain(&self.referer),
                plain(&self.agent)
            ),
        };
        if self.log.lines.try_send(text).is_err() {
            self.log.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write(file: Option<File>, lines: &Receiver<String>) {
    let mut out: BufWriter<Box<dyn Write>> = BufWriter::new(match file {
        Some(file) => Box::new(file),
        None => Box::new(io::stdout()),
    });
    while let Ok(line) = lines.recv() {
        let mut next = Some(line);
        while let Some(line) = next {
            // Nobody could be told of an error here.
            let _ = out.write_all(line.as_bytes());
            next = lines.try_recv().ok();
        }
        let _ = out.flush();
    }
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(MAX_FIELD);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Without what would end a field, or a line.
fn plain(text: &str) -> String {
    let text = cut(text);
    if text.is_empty() {
        return "-".to_owned();
    }
    let odd = |c: char| c.is_control() || matches!(c, '"' | '\\');
    text.chars().map(|c| if odd(c) { '?' } else { c }).collect()
}

/// Year, month, day, hour, minute, second of the civil calendar (Howard Hinnant's algorithm).
fn civil(since: Duration) -> (u64, u64, u64, u64, u64, u64) {
    let (days, rest) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day, rest / 3600, rest / 60 % 60, rest % 60)
}

/// `2026-11-21T12:00:00.123Z`.
fn timestamp(since: Duration) -> String {
    let (year, month, day, hour, minute, second) = civil(since);
    let ms = since.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// `21/Nov/2026:12:00:00 +0000`.
fn common_time(since: Duration) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (year, month, day, hour, minute, second) = civil(since);
    let month = MONTHS[month as usize - 1];
    format!("{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_of_the_civil_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_795_262_400, "2026-11-21T12:00:00.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(timestamp(Duration::from_secs(seconds)), expected);
        }
        assert_eq!(common_time(Duration::from_secs(1_795_262_400)), "21/Nov/2026:12:00:00 +0000");
    }

    #[test]
    fn what_clients_say_stays_in_its_field() {
        assert_eq!(plain("a\"b\\c\nd"), "a?b?c?d");
        assert_eq!(plain(""), "-");
        assert_eq!(plain(&"ü".repeat(2000)).len(), MAX_FIELD);
    }
}
