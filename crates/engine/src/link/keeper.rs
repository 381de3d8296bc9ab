//! Keeps an `ssh` running.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::words::{self, Refusal, Trouble};
use crate::address::SshAddress;

/// How often is looked whether it still runs, or listens already.
const POLL: Duration = Duration::from_millis(10);
/// How long it may take until it listens: a name, a connection, keys, and those of jump hosts.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// Before the second attempt to get there again; doubled each time.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
/// The longest of these pauses: a machine that is back is noticed so soon.
const PAUSE_LONGEST: Duration = Duration::from_secs(2);
/// How long ago a connection over there may have been refused to be the one that is asked about:
/// ssh says it before it ends the connection here.
const REFUSED_WITHIN: Duration = Duration::from_secs(1);
/// As much of what ssh says is read; its words at an end are below a kilobyte.
const MOST_WORDS: u64 = 64 << 10;

/// Options of ours, over those of the user's configuration.
///
/// Nobody answers questions, and a key is never accepted unseen. Somebody who does not answer is
/// noticed after 9 s: requests of stop-first services are held for 30 s at most. What the
/// configuration may open for the host besides (forwarded ports, agent, X11, a command, a shared
/// connection) has no place here.
const OPTIONS: &[&str] = &[
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "UpdateHostKeys=no",
    "ConnectTimeout=10",
    "ServerAliveInterval=3",
    "ServerAliveCountMax=2",
    "Compression=no",
    "ControlMaster=no",
    "ControlPath=none",
    "ExitOnForwardFailure=no",
    "ForwardAgent=no",
    "ForwardX11=no",
    "LogLevel=INFO",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
    "StreamLocalBindMask=0177",
    "StreamLocalBindUnlink=yes",
];

/// What is known of an `ssh`.
#[derive(Debug)]
pub(super) struct Kept {
    /// What it says.
    words: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// While it runs and listens.
    child: Option<Child>,
    /// Why it does not.
    down: Option<Trouble>,
    /// How much of its words has been read.
    read: u64,
    /// When it said last that nobody over there took a connection.
    refused: Option<(Instant, Refusal)>,
}

impl Kept {
    pub(super) const fn new(words: PathBuf) -> Self {
        let state = State { child: None, down: None, read: 0, refused: None };
        Self { words, state: Mutex::new(state) }
    }

    fn with<T>(&self, of: impl FnOnce(&mut State) -> T) -> T {
        of(&mut self.state.lock().expect("nothing panics while holding it"))
    }

    /// Why it does not listen, where it does not.
    pub(super) fn why_down(&self, address: &SshAddress) -> Option<Trouble> {
        self.with(|state| {
            self.look(state, address);
            state.down.clone()
        })
    }

    /// Why nobody over there took a connection, where that happened just now.
    pub(super) fn why_refused(&self) -> Option<Refusal> {
        self.with(|state| {
            let new = read_from(&self.words, state.read).unwrap_or_default();
            state.read += new.len() as u64;
            if let Some(refusal) = words::refusal(&new) {
                state.refused = Some((Instant::now(), refusal));
            }
            let (when, refusal) = state.refused?;
            (when.elapsed() < REFUSED_WITHIN).then_some(refusal)
        })
    }

    /// Notes that it has ended, if so.
    fn look(&self, state: &mut State, address: &SshAddress) {
        let Some(child) = &mut state.child else { return };
        if !matches!(child.try_wait(), Ok(None)) {
            state.child = None;
            let trouble = words::of_an_end(address, &self.all_words());
            state.down = Some(trouble.of_a_lost_link());
        }
    }

    fn all_words(&self) -> String {
        read_from(&self.words, 0).unwrap_or_default()
    }
}

fn read_from(path: &PathBuf, from: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let from = from.max(file.metadata()?.len().saturating_sub(MOST_WORDS));
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(MOST_WORDS).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whoever keeps it.
pub(super) struct Keeper {
    pub(super) address: SshAddress,
    pub(super) program: Vec<OsString>,
    pub(super) sockets: Vec<(PathBuf, PathBuf)>,
    pub(super) kept: Arc<Kept>,
}

/// That the link is not wanted any more.
struct Stopped;

impl Keeper {
    /// Keeps it until the other side of `stop` is dropped. How the first attempt went goes to
    /// `ready`; when it failed there is no second one.
    pub(super) fn keep(self, stop: &Receiver<()>, ready: oneshot::Sender<Result<(), Trouble>>) {
        match self.start(stop) {
            Err(Stopped) => return self.end(),
            Ok(Err(trouble)) => {
                let _ = ready.send(Err(trouble));
                return;
            }
            Ok(Ok(())) => {}
        }
        if ready.send(Ok(())).is_ok() {
            self.go_on(stop);
        }
        self.end();
    }

    /// Waits for its end, and starts it again, until it is not wanted any more.
    fn go_on(&self, stop: &Receiver<()>) {
        let (mut pause, mut next) = (PAUSE_FIRST, POLL);
        while sleep(stop, next).is_ok() {
            next = POLL;
            if self.kept.why_down(&self.address).is_none() {
                pause = PAUSE_FIRST;
                continue;
            }
            match self.start(stop) {
                Err(Stopped) => return,
                Ok(Ok(())) => {}
                Ok(Err(trouble)) => {
                    self.kept.with(|state| state.down = Some(trouble.of_a_lost_link()));
                    next = pause;
                    pause = (pause * 2).min(PAUSE_LONGEST);
                }
            }
        }
    }

    /// Starts it, and waits until it listens.
    fn start(&self, stop: &Receiver<()>) -> Result<Result<(), Trouble>, Stopped> {
        let mut child = match self.spawn() {
            Ok(child) => child,
            Err(error) => return Ok(Err(words::of_no_start(&self.address, &error))),
        };
        let began = Instant::now();
        let ended = loop {
            if let Err(stopped) = sleep(stop, POLL) {
                kill(&mut child);
                return Err(stopped);
            }
            // The last one is made last. What lies between a socket's name and its first listening
            // is over by the next look.
            let listens = self.sockets.iter().all(|(here, _)| here.exists());
            if !matches!(child.try_wait(), Ok(None)) {
                break words::of_an_end(&self.address, &self.kept.all_words());
            }
            if listens {
                self.kept.with(|state| {
                    state.child = Some(child);
                    state.down = None;
                });
                sleep(stop, POLL)?;
                return Ok(Ok(()));
            }
            if began.elapsed() > READY_LIMIT {
                kill(&mut child);
                let said = self.kept.all_words();
                let words = format!("{said}\nnot there within {} s", READY_LIMIT.as_secs());
                break words::of_an_end(&self.address, &words);
            }
        };
        Ok(Err(ended))
    }

    fn spawn(&self) -> io::Result<Child> {
        for (here, _) in &self.sockets {
            // Left by the one before, which listens there no more.
            let _ = fs::remove_file(here);
        }
        let words = File::create(&self.kept.words)?;
        self.kept.with(|state| state.read = 0);
        let (program, first) = self.program.split_first().expect("a program has a name");
        let mut command = Command::new(program);
        command.args(first).args(["-N", "-T", "-x", "-a"]);
        for option in OPTIONS {
            command.args(["-o", option]);
        }
        for (here, there) in &self.sockets {
            let mut pair = here.clone().into_os_string();
            pair.push(":");
            pair.push(there);
            command.arg("-L").arg(pair);
        }
        command.args(self.address.words());
        command.stdin(Stdio::null()).stdout(words.try_clone()?).stderr(words);
        // Ctrl-C is for us: what was begun is undone over this very link.
        command.process_group(0);
        command.spawn()
    }

    fn end(&self) {
        if let Some(mut child) = self.kept.with(|state| state.child.take()) {
            kill(&mut child);
        }
    }
}

/// Ends it, and waits for that.
fn kill(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// Sleeps, unless the link is not wanted any more.
fn sleep(stop: &Receiver<()>, time: Duration) -> Result<(), Stopped> {
    match stop.recv_timeout(time) {
        Err(RecvTimeoutError::Timeout) => Ok(()),
        Ok(()) | Err(RecvTimeoutError::Disconnected) => Err(Stopped),
    }
}
