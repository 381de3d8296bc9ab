//! What is seen while the demo runs: one block that is redrawn, or plain lines.

use crate::traffic::SERVICES;
use shiplap_load::Running;
use std::future::Future;
use std::io::{IsTerminal, Write};
use std::pin::pin;
use std::time::{Duration, Instant};

const REDRAW: Duration = Duration::from_millis(100);
const PLAIN_LINE: Duration = Duration::from_secs(1);

/// The view, on standard error.
pub struct View {
    kind: Kind,
}

enum Kind {
    Terminal,
    Plain,
}

impl View {
    /// A block on a terminal, lines anywhere else.
    pub fn new() -> View {
        let terminal = std::io::stderr().is_terminal();
        View { kind: if terminal { Kind::Terminal } else { Kind::Plain } }
    }

    /// Shows the load while `work` is done.
    pub async fn during<T>(
        &self,
        title: &str,
        load: &[Running],
        work: impl Future<Output = T>,
    ) -> T {
        let start = Instant::now();
        let mut work = pin!(work);
        let mut tick = tokio::time::interval(match self.kind {
            Kind::Terminal => REDRAW,
            Kind::Plain => PLAIN_LINE,
        });
        let mut drawn = 0;
        loop {
            tokio::select! {
                biased;
                result = &mut work => {
                    self.erase(drawn);
                    return result;
                }
                _ = tick.tick() => {
                    let lines = self.lines(title, start.elapsed(), load);
                    self.erase(drawn);
                    lines.iter().for_each(|line| self.say(line));
                    drawn = lines.len();
                }
            }
        }
    }

    /// A line that stays.
    pub fn say(&self, line: &str) {
        // Nobody to show it to is no reason to stop.
        let _ = writeln!(std::io::stderr(), "{line}");
    }

    fn lines(&self, title: &str, elapsed: Duration, load: &[Running]) -> Vec<String> {
        let seconds = elapsed.as_secs_f64();
        let now: Vec<_> = load.iter().map(Running::snapshot).collect();
        match self.kind {
            Kind::Terminal => {
                let mut lines = vec![format!("▸ {title}  {seconds:.1} s")];
                if !now.is_empty() {
                    lines.push("  service  answers     sent   failed  waiting  longest gap".into());
                }
                lines.extend(SERVICES.iter().zip(&now).map(|(service, now)| {
                    format!(
                        "  {service:<8} {:<8} {:>7}  {:>7}  {:>7}  {:>8} ms",
                        now.latest_tag.as_deref().unwrap_or("-"),
                        now.sent,
                        now.failed,
                        now.in_flight,
                        now.max_gap.as_millis()
                    )
                }));
                lines
            }
            Kind::Plain => {
                let services = SERVICES.iter().zip(&now).map(|(service, now)| {
                    format!(
                        "; {service} {}: sent {}, failed {}, gap {} ms",
                        now.latest_tag.as_deref().unwrap_or("-"),
                        now.sent,
                        now.failed,
                        now.max_gap.as_millis()
                    )
                });
                vec![format!("  {title}, {seconds:.0} s{}", services.collect::<String>())]
            }
        }
    }

    fn erase(&self, lines: usize) {
        match self.kind {
            Kind::Terminal if lines > 0 => {
                let _ = write!(std::io::stderr(), "\x1b[{lines}A\x1b[J");
            }
            Kind::Terminal | Kind::Plain => {}
        }
    }
}
