//! What a deployment prints while it runs: a line per finished step, to standard error.

use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use shiplap_execute::{Event, Reporter};
use shiplap_model::{Plan, Progress};

/// Between two lines about the progress of a pull.
const PULL_LINE_EVERY: Duration = Duration::from_secs(2);

/// Prints to standard error, if anybody can read it: a deployment, and its undoing, goes on when
/// its terminal was closed.
pub fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Prints lines about one thing that takes long, and not too many of them.
pub struct Steady {
    last: Mutex<Instant>,
}

impl Steady {
    pub fn new() -> Self {
        Self { last: Mutex::new(Instant::now()) }
    }

    /// Prints a line, unless there was one just now.
    pub fn say(&self, line: impl FnOnce() -> String) {
        let mut last = self.last.lock().expect("printing does not panic");
        if last.elapsed() >= PULL_LINE_EVERY {
            *last = Instant::now();
            say(&format!("{}\n", line()));
        }
    }
}

/// Prints events as lines.
pub struct Printer {
    steps: AtomicUsize,
    began: Instant,
    last_pull_line: Mutex<Instant>,
    /// Stands before what is said, where several speak.
    name: String,
}

impl Printer {
    pub fn new() -> Self {
        let now = Instant::now();
        let (steps, last_pull_line) = (AtomicUsize::new(0), Mutex::new(now));
        Self { steps, began: now, last_pull_line, name: String::new() }
    }

    /// One of several, with its name in a column of this width.
    pub fn of(name: &str, width: usize) -> Self {
        Self { name: format!("{name:width$}  "), ..Self::new() }
    }

    /// Learns how many steps to expect.
    pub fn expect(&self, plan: &Plan) {
        self.steps.store(plan.steps.len(), Ordering::Relaxed);
    }

    fn line(&self, step: u32, text: &str) {
        let steps = self.steps.load(Ordering::Relaxed);
        let width = steps.to_string().len();
        let at = self.began.elapsed().as_secs_f32();
        say(&format!("{at:6.1} s  {}[{step:width$}/{steps}] {text}\n", self.name));
    }

    /// What belongs to no step.
    fn aside(&self, text: &str) {
        let name = self.name.trim_end();
        let colon = if name.is_empty() { "" } else { ": " };
        say(&format!("{name}{colon}{text}\n"));
    }
}

impl Reporter for Printer {
    fn event(&self, event: Event) {
        match event {
            Event::Started { .. } => {}
            Event::Finished { step, what, .. } => self.line(step.0, &what),
            Event::Failed { step, what, reason } => {
                let reason = reason.replace('\n', "\n             ");
                self.line(step.0, &format!("{what} failed: {reason}"));
            }
            Event::Output { step, line } => self.line(step.0, &format!("| {}", line.trim_end())),
            Event::Waiting { step, on } => self.line(step.0, &format!("… {on}")),
            Event::Undone { step, what } => self.line(step.0, &format!("undo: {what}")),
            Event::Unwinding { .. } => self.aside("going back to the release before"),
            Event::Notice(text) => self.aside(&format!("! {text}")),
            Event::Progress { step, progress: Progress::Line(line) } => {
                let line = line.trim_end();
                if !line.is_empty() {
                    self.line(step.0, &format!("| {line}"));
                }
            }
            Event::Progress { step, progress: Progress::Bytes { done_bytes, total_bytes } } => {
                let mut last = self.last_pull_line.lock().expect("printing does not panic");
                if last.elapsed() >= PULL_LINE_EVERY {
                    *last = Instant::now();
                    let (done, total) = (done_bytes / 1_000_000, total_bytes / 1_000_000);
                    self.line(step.0, &format!("… {done} of {total} MB"));
                }
            }
        }
    }
}
