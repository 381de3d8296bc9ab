//! Running a program and what came of it.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Well above the slowest deployment of a test.
const RUN_LIMIT: Duration = Duration::from_secs(120);

/// A binary of this workspace, beside the one that runs.
///
/// # Panics
/// If the path of the running program is unknown.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("the running program has a path");
    let mut folder = own.parent().expect("a program is in a folder").to_owned();
    if folder.ends_with("deps") {
        folder.pop();
    }
    folder.join(name)
}

/// A program to be run.
#[derive(Debug)]
pub struct Program {
    command: Command,
    words: String,
}

/// A program that runs. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    words: String,
    began: Instant,
    output: File,
    errors: File,
}

/// How a run ended.
#[derive(Debug)]
pub struct Run {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// From start to end.
    pub took: Duration,
    words: String,
}

impl Program {
    /// A command with its words for messages.
    #[must_use]
    pub fn new(command: Command) -> Self {
        let mut words = vec![command.get_program().to_string_lossy().into_owned()];
        words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
        Self { command, words: words.join(" ") }
    }

    /// Starts it; what it prints is kept in files, which do not fill up as pipes do.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start(mut self) -> Running {
        let file = || tempfile::tempfile().expect("a temporary file can be made");
        let (output, errors) = (file(), file());
        let of = |file: &File| Stdio::from(file.try_clone().expect("a handle can be copied"));
        self.command.stdin(Stdio::null()).stdout(of(&output)).stderr(of(&errors));
        let began = Instant::now();
        let child = self.command.spawn();
        let child = child.unwrap_or_else(|error| panic!("starting {}: {error}", self.words));
        Running { child, words: self.words, began, output, errors }
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// If it does not end in time.
    #[must_use]
    pub fn run(self) -> Run {
        self.start().finish()
    }
}

impl Running {
    /// Whether it still runs.
    ///
    /// # Panics
    /// If the kernel does not say.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("our own child can be waited for").is_none()
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let id = self.child.id().try_into().expect("process ids are small");
        // It may have ended just now.
        let _ = kill_process(Pid::from_raw(id).expect("process ids are not zero"), signal);
    }

    /// What it has printed to standard error so far.
    #[must_use]
    pub fn said(&self) -> String {
        read(&self.errors)
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If that does not come in time.
    #[must_use]
    pub fn finish(self) -> Run {
        self.finish_within(RUN_LIMIT)
    }

    /// Waits for its end, where that may take longer or must not take as long.
    ///
    /// # Panics
    /// If that does not come in time.
    #[must_use]
    pub fn finish_within(mut self, limit: Duration) -> Run {
        let (child, began) = (&mut self.child, self.began);
        let status = loop {
            match child.try_wait().expect("our own child can be waited for") {
                Some(status) => break status,
                None if began.elapsed() > limit => {
                    panic!("{} ran over {limit:?}: {}", self.words, read(&self.errors))
                }
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        Run {
            code: status.code(),
            took: began.elapsed(),
            stdout: read(&self.output),
            stderr: read(&self.errors),
            words: self.words.clone(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already where all went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Run {
    /// Asserts how it ended.
    ///
    /// # Panics
    /// If it ended otherwise, with all that it said.
    #[track_caller]
    #[must_use]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}", self.all());
        self
    }

    /// Asserts that it was done.
    ///
    /// # Panics
    /// If it ended otherwise, with all that it said.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// Asserts that it printed a text, to either stream.
    ///
    /// # Panics
    /// If it did not, with all that it said.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        let said = self.stdout.contains(text) || self.stderr.contains(text);
        assert!(said, "`{text}` is missing\n{}", self.all());
        self
    }

    /// Asserts that it did not print a text.
    ///
    /// # Panics
    /// If it did, with all that it said.
    #[track_caller]
    pub fn hides(self, text: &str) -> Self {
        let said = self.stdout.contains(text) || self.stderr.contains(text);
        assert!(!said, "`{text}` is there\n{}", self.all());
        self
    }

    /// Its standard output as JSON.
    ///
    /// # Panics
    /// If it is none, with all that it said.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON: {error}\n{}", self.all()))
    }

    /// All that it said.
    #[must_use]
    pub fn all(&self) -> String {
        let (out, err) = (&self.stdout, &self.stderr);
        let code = self.code.map_or("a signal".into(), |code| code.to_string());
        format!("$ {}\n{out}{err}ended with {code} after {:?}\n", self.words, self.took)
    }
}

/// All of a file, wherever another handle is writing.
fn read(file: &File) -> String {
    use std::os::unix::fs::FileExt as _;
    let length = file.metadata().map_or(0, |data| data.len());
    let mut bytes = vec![0; usize::try_from(length).expect("outputs fit into memory")];
    file.read_exact_at(&mut bytes, 0).expect("a file of ours can be read");
    String::from_utf8_lossy(&bytes).into_owned()
}
