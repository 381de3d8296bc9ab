//! A PostgreSQL server that goes with whoever started it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How long a server may take to start.
const STARTING: Duration = Duration::from_secs(60);

/// A running server with a superuser `postgres`, behind a Unix socket.
pub struct Postgres {
    child: Mutex<Child>,
    settings: Vec<(String, String)>,
    programs: PathBuf,
    folder: tempfile::TempDir,
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
        // Its files are another user's, whose folder this is.
        let _ = std::fs::remove_dir_all(self.folder.path());
    }
}

impl Postgres {
    /// The server of this process, started if no test at work has one.
    ///
    /// # Errors
    /// Why there is none.
    pub fn shared() -> Result<Arc<Self>, String> {
        static SHARED: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = shared.upgrade() {
            return Ok(running);
        }
        let running = Arc::new(Self::start(&[])?);
        *shared = Arc::downgrade(&running);
        Ok(running)
    }

    /// A server of its own, with these settings besides.
    ///
    /// # Errors
    /// Why there is none: PostgreSQL is not installed, above all.
    pub fn start(settings: &[(&str, &str)]) -> Result<Self, String> {
        let programs = programs().ok_or("PostgreSQL is not installed")?;
        let folder = tempfile::Builder::new()
            .prefix("shiplap-pg-")
            .tempdir()
            .map_err(|error| error.to_string())?;
        give(folder.path())?;
        let made = command(&programs.join("initdb"))
            .args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8"])
            .args(["--no-sync", "-D"])
            .arg(folder.path().join("data"))
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("initdb: {error}"))?;
        if !made.status.success() {
            return Err(format!("initdb: {}", String::from_utf8_lossy(&made.stderr)));
        }
        let settings =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let settings: Vec<(String, String)> = settings.collect();
        let child = Mutex::new(run(&programs, folder.path(), &settings)?);
        Ok(Self { child, settings, programs, folder })
    }

    /// Where its socket and its data are; files for it can be put there with [`Postgres::give`].
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join(".s.PGSQL.5432")
    }

    /// The URL of a database, for a role that it lets in without a password.
    #[must_use]
    pub fn url(&self, role: &str, database: &str) -> String {
        let folder = self.folder.path().to_string_lossy().replace('/', "%2F");
        format!("postgres://{role}@{folder}/{database}")
    }

    /// Ends it without a word, as a machine does that loses its power.
    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Starts it again on what it has written.
    ///
    /// # Errors
    /// Why it cannot be.
    pub fn revive(&self) -> Result<(), String> {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        *child = run(&self.programs, self.folder.path(), &self.settings)?;
        Ok(())
    }

    /// Makes a file or a folder the server's own.
    ///
    /// # Errors
    /// Why it cannot be.
    pub fn give(path: &Path) -> Result<(), String> {
        give(path)
    }
}

fn give(path: &Path) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let owned = Command::new("chown").arg("postgres").arg(path).status();
    if owned.is_ok_and(|status| status.success()) {
        Ok(())
    } else {
        Err("there is no user `postgres`".into())
    }
}

fn programs() -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .filter(|folder| folder.join("initdb").is_file())
        .collect();
    folders.sort();
    folders.pop()
}

/// PostgreSQL refuses to run as root; then it runs as the user that its package made. It ends
/// with us, however we end.
fn command(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.arg("--pdeathsig=KILL");
    if rustix::process::geteuid().is_root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    command.arg(program);
    command
}

fn run(programs: &Path, folder: &Path, settings: &[(String, String)]) -> Result<Child, String> {
    let mut postgres = command(&programs.join("postgres"));
    postgres
        .arg("-D")
        .arg(folder.join("data"))
        .args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=200"])
        .arg("-c")
        .arg(format!("unix_socket_directories={}", folder.display()));
    for (name, value) in settings {
        postgres.arg("-c").arg(format!("{name}={value}"));
    }
    postgres.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = spawn(postgres).map_err(|error| format!("postgres: {error}"))?;
    let begun = Instant::now();
    // The file may be that of one that was killed. Its first line is the process, its last one
    // says whether it is ready, which it is later than its socket.
    let pid = child.id().to_string();
    let is_ready = || {
        let file = std::fs::read_to_string(folder.join("data/postmaster.pid")).unwrap_or_default();
        file.lines().next() == Some(&pid)
            && file.lines().last().is_some_and(|l| l.trim() == "ready")
    };
    while !is_ready() {
        if begun.elapsed() > STARTING || child.try_wait().is_ok_and(|ended| ended.is_some()) {
            let _ = child.kill();
            return Err("the server did not start".into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(child)
}

/// Starts a program from a thread that stays: what ends with its parent ends with the thread.
fn spawn(mut command: Command) -> std::io::Result<Child> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = sender.send(command.spawn());
        loop {
            std::thread::park();
        }
    });
    receiver.recv().expect("the thread sends before it stays")
}
