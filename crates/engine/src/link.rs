//! A connection to another machine, kept by the user's own `ssh`.
//!
//! One `ssh` per machine and process. It listens on Unix sockets here, in a folder of its own, and
//! leads each connection to a socket over there. It brings the user's configuration, agent and jump
//! hosts with it. When it ends it is started again, at the same sockets: whoever calls meanwhile
//! finds nobody, as with an engine that is restarted.

mod keeper;
mod transport;
mod words;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;

use shiplap_model::EngineError;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use crate::address::SshAddress;
use keeper::{Keeper, Kept};

pub(crate) use transport::transport;
use words::Refusal;
pub(crate) use words::Trouble;

/// Names of the folders of links begin so.
const FOLDER: &str = "shiplap-ssh-";
/// In such a folder: locked for as long as its link is there.
const LOCK: &str = "lock";
/// The longest path of a folder, in bytes: a socket in it has at most 107 with its name.
const LONGEST_FOLDER: usize = 90;

/// What a link is to be, besides where it leads.
#[derive(Debug, Clone)]
pub struct LinkOptions {
    /// How `ssh` is started: a program and its first words, to which those for ssh are added.
    pub program: Vec<OsString>,
    /// Sockets over there that are to be reached too.
    pub sockets: Vec<PathBuf>,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self { program: vec!["ssh".into()], sockets: Vec::new() }
    }
}

/// A connection to another machine. It ends when the last copy is dropped.
#[derive(Debug, Clone)]
pub struct Link {
    ends: Arc<Ends>,
}

#[derive(Debug)]
struct Ends {
    address: SshAddress,
    /// Sockets here, with those that they lead to.
    sockets: Vec<(PathBuf, PathBuf)>,
    kept: Arc<Kept>,
    /// Dropped before the thread is waited for, which ends it.
    stop: Mutex<Option<mpsc::Sender<()>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    _lock: File,
    _folder: TempDir,
}

impl Link {
    /// Connects.
    ///
    /// # Errors
    /// Why ssh did not get there: `HostKey`, `Denied`, `Unreachable`, or `Invalid` where there is no
    /// `ssh`.
    pub async fn open(address: &SshAddress, options: LinkOptions) -> Result<Self, EngineError> {
        let failed = |trouble: Trouble| trouble.during("connecting");
        let (folder, lock) =
            folder().map_err(|error| failed(words::of_no_start(address, &error)))?;
        let over_there = std::iter::once(address.socket.clone()).chain(options.sockets);
        let sockets: Vec<(PathBuf, PathBuf)> = over_there
            .enumerate()
            .map(|(number, there)| (folder.path().join(number.to_string()), there))
            .collect();
        let kept = Arc::new(Kept::new(folder.path().join("words")));
        let keeper = Keeper {
            address: address.clone(),
            program: options.program,
            sockets: sockets.clone(),
            kept: Arc::clone(&kept),
        };
        let (stop, stopped) = mpsc::channel();
        let (ready, is_ready) = oneshot::channel();
        // A thread, since the child is to end with whoever started it, and the threads of a runtime
        // come and go.
        let thread = std::thread::Builder::new()
            .name("ssh".to_owned())
            .spawn(move || keeper.keep(&stopped, ready))
            .map_err(|error| failed(words::of_no_start(address, &error)))?;
        let link = Self {
            ends: Arc::new(Ends {
                address: address.clone(),
                sockets,
                kept,
                stop: Mutex::new(Some(stop)),
                thread: Mutex::new(Some(thread)),
                _lock: lock,
                _folder: folder,
            }),
        };
        match is_ready.await {
            Ok(Ok(())) => Ok(link),
            Ok(Err(trouble)) => Err(failed(trouble)),
            Err(_) => unreachable!("it is told before the thread ends"),
        }
    }

    /// Where it leads.
    #[must_use]
    pub fn address(&self) -> &SshAddress {
        &self.ends.address
    }

    /// The socket here that leads to one over there, if it was asked for.
    #[must_use]
    pub fn socket(&self, over_there: &Path) -> Option<&Path> {
        let found = self.ends.sockets.iter().find(|(_, there)| there == over_there);
        found.map(|(here, _)| here.as_path())
    }

    /// Connects to the engine.
    pub(crate) async fn connect(&self) -> io::Result<UnixStream> {
        let (here, _) = &self.ends.sockets[0];
        UnixStream::connect(here).await.map_err(|error| self.why_down().unwrap_or(error))
    }

    /// Why nobody listens at the sockets here, where nobody does: the link is down. It is being made
    /// again.
    #[must_use]
    pub fn why_down(&self) -> Option<io::Error> {
        let trouble = self.ends.kept.why_down(&self.ends.address)?;
        Some(io::Error::new(io::ErrorKind::NotConnected, trouble))
    }

    /// Why a connection to a socket over there ended before anything had come over it, where nobody
    /// took it: ssh takes it in any case, and ends it when it hears of that.
    #[must_use]
    pub fn why_refused(&self, over_there: &Path) -> Option<io::Error> {
        let refusal = self.ends.kept.why_refused()?;
        let kind = match refusal {
            Refusal::Server => io::ErrorKind::PermissionDenied,
            Refusal::Socket => io::ErrorKind::ConnectionRefused,
        };
        let trouble = words::of_a_refusal(&self.ends.address, over_there, refusal);
        Some(io::Error::new(kind, trouble))
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        drop(self.stop.lock().expect("nothing panics while holding it").take());
        let thread = self.thread.lock().expect("nothing panics while holding it").take();
        if let Some(thread) = thread {
            // It has nothing to say any more.
            let _ = thread.join();
        }
    }
}

/// A folder that only this user can enter, and the lock that says that it is in use.
fn folder() -> io::Result<(TempDir, File)> {
    let usual = std::env::temp_dir();
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let fits = |folder: &PathBuf| {
        folder.is_absolute() && folder.as_os_str().len() + FOLDER.len() + 8 <= LONGEST_FOLDER
    };
    let candidates = [own.filter(|own| own.is_dir()), Some(usual), Some("/tmp".into())];
    let base = candidates.into_iter().flatten().find(fits).unwrap_or_else(|| "/tmp".into());
    let folder = tempfile::Builder::new().prefix(FOLDER).tempdir_in(&base)?;
    sweep(&base, folder.path().metadata()?.uid());
    // It has its name when it is locked, so that nobody finds it before.
    let (new, lock) = (folder.path().join("new"), folder.path().join(LOCK));
    let file = File::create(&new)?;
    file.lock()?;
    std::fs::rename(new, lock)?;
    Ok((folder, file))
}

/// Removes what links of a user left whose process was killed.
fn sweep(base: &Path, user: u32) {
    for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
        // What somebody else has put there under such a name is no folder of ours.
        let is_own = entry.metadata().is_ok_and(|data| data.is_dir() && data.uid() == user);
        if !is_own || !entry.file_name().to_string_lossy().starts_with(FOLDER) {
            continue;
        }
        // One that has no lock yet is being made.
        let Ok(lock) = File::options().write(true).open(entry.path().join(LOCK)) else { continue };
        if lock.try_lock().is_ok() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_killed_links_go_and_those_in_use_stay() {
        let base = tempfile::tempdir().unwrap();
        let user = base.path().metadata().unwrap().uid();
        let made = |name: &str| {
            let folder = base.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            (folder.clone(), File::create(folder.join(LOCK)).unwrap())
        };
        let (left, _) = made("shiplap-ssh-left");
        let (used, lock) = made("shiplap-ssh-used");
        lock.lock().unwrap();
        let (other, _) = made("other");
        let new = base.path().join("shiplap-ssh-new");
        std::fs::create_dir(&new).unwrap();
        sweep(base.path(), user + 1);
        assert!(left.exists(), "it is somebody else's");
        sweep(base.path(), user);
        assert!(!left.exists());
        assert!(used.exists() && other.exists() && new.exists());
    }

    /// A program that stands for ssh: what it does with the sockets is its own business.
    fn options(folder: &Path, script: &str) -> LinkOptions {
        let program = folder.join("ssh");
        std::fs::write(&program, script).unwrap();
        LinkOptions { program: vec!["sh".into(), program.into()], sockets: Vec::new() }
    }

    fn address() -> SshAddress {
        match crate::Address::parse("ssh://ada@vm1").unwrap() {
            crate::Address::Ssh(address) => address,
            other => panic!("{other} is not reached by ssh"),
        }
    }

    #[tokio::test]
    async fn an_ssh_that_ends_says_why_and_is_not_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let script = format!(
            "echo x >> {}/runs; echo 'ssh: connect to host vm1 port 22: No route to host' >&2; exit 255",
            folder.path().display()
        );
        let error = Link::open(&address(), options(folder.path(), &script)).await.unwrap_err();
        assert_eq!(error.kind, shiplap_model::EngineErrorKind::Unreachable);
        assert!(error.message.ends_with("No route to host"), "{}", error.message);
        assert_eq!(std::fs::read_to_string(folder.path().join("runs")).unwrap(), "x\n");
    }

    #[tokio::test]
    async fn a_link_that_ends_is_down_until_it_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        // Its socket is the word before the first colon behind `-L`; it ends when told to, once.
        let script = format!(
            "while [ \"$1\" != -L ]; do shift; done; touch \"${{2%%:*}}\"\n\
             while [ ! -e {folder}/end ]; do sleep 0.01; done; rm {folder}/end\n\
             echo 'Timeout, server vm1 not responding.' >&2; exit 255",
            folder = folder.path().display()
        );
        let link = Link::open(&address(), options(folder.path(), &script)).await.unwrap();
        assert!(link.why_down().is_none());
        let here = link.socket(Path::new(crate::address::DEFAULT_SOCKET)).unwrap().to_owned();
        std::fs::write(folder.path().join("end"), "").unwrap();
        let why = loop {
            if let Some(why) = link.why_down() {
                break why;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(why.kind(), io::ErrorKind::NotConnected);
        assert!(why.to_string().ends_with("not responding."), "{why}");
        while link.why_down().is_some() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        assert!(here.exists(), "at the same place");
        drop(link);
        assert!(!here.exists(), "with its folder");
    }
}
