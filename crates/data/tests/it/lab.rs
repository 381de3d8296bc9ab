//! A server, and databases on it that go when a test ends.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use shiplap_data::app::{self, Event, Job, Problem, Report};
use shiplap_data::config::Config;
use shiplap_data::postgres::{KEYS_AT_ONCE, Server};
use tokio_postgres::{Client, NoTls};

/// Names a server to test on: the URL of a superuser and any database.
const SERVER_VARIABLE: &str = "SHIPLAP_TEST_POSTGRES";
/// The shared server listens on no port; its socket is named after this one.
const PORT: u16 = 5432;
const STARTING: Duration = Duration::from_secs(60);
/// A key for tests.
pub const KEY: &[u8] = b"a key for tests, no secret at all";

/// A server, as long as a test uses it.
struct Running {
    url: String,
    /// None, if somebody else started it.
    started: Option<Started>,
}

/// A server that this process started.
pub struct Started {
    child: Child,
    folder: tempfile::TempDir,
    port: u16,
}

impl Started {
    /// Where its socket is.
    pub fn url(&self) -> String {
        let folder = self.folder.path().display();
        format!("host={folder} port={} user=postgres dbname=postgres", self.port)
    }
}

/// Whether everything is tried that takes long, and not a little of it.
pub fn thorough() -> bool {
    std::env::var("SHIPLAP_TEST_DATA").is_ok_and(|word| word == "all")
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Its files are another user's, whose folder this is.
        let _ = std::fs::remove_dir_all(self.folder.path());
    }
}

/// The server, started if no test at work has one, or why there is none.
fn server() -> Result<Arc<Running>, String> {
    static SHARED: Mutex<Weak<Running>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(running) = shared.upgrade() {
        return Ok(running);
    }
    let running = match std::env::var(SERVER_VARIABLE) {
        Ok(url) => Running { url, started: None },
        Err(_) => {
            let started = start(&|_| vec!["listen_addresses=".to_owned()], PORT)?;
            Running { url: started.url(), started: Some(started) }
        }
    };
    let running = Arc::new(running);
    *shared = Arc::downgrade(&running);
    Ok(running)
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

/// A folder of the user as whom the server runs.
fn folder() -> Result<tempfile::TempDir, String> {
    let folder = tempfile::Builder::new().prefix("shiplap-pg-").tempdir();
    let folder = folder.map_err(|error| error.to_string())?;
    match give(folder.path()) {
        true => Ok(folder),
        false => Err("there is no user `postgres`".into()),
    }
}

/// Makes the server's user the owner of something.
pub fn give(path: &Path) -> bool {
    let given = || Command::new("chown").arg("postgres").arg(path).status();
    !rustix::process::geteuid().is_root() || given().is_ok_and(|status| status.success())
}

/// Makes a server and starts it, with these settings, which may be about files in its folder.
fn start(settings: &dyn Fn(&Path) -> Vec<String>, port: u16) -> Result<Started, String> {
    let programs = programs().ok_or("PostgreSQL is not installed (scripts/postgres-up)")?;
    let folder = folder()?;
    let path = folder.path();
    let data = path.join("data");
    let made = command(&programs.join("initdb"))
        .args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8"])
        .args(["--no-sync", "-D"])
        .arg(&data)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("initdb: {error}"))?;
    if !made.status.success() {
        return Err(format!("initdb: {}", String::from_utf8_lossy(&made.stderr)));
    }
    let settings = settings(path);
    run(&programs, folder, settings, port)
}

/// Runs a server whose files are there, until it answers.
fn run(
    programs: &Path,
    folder: tempfile::TempDir,
    settings: Vec<String>,
    port: u16,
) -> Result<Started, String> {
    let path = folder.path();
    let mut postgres = command(&programs.join("postgres"));
    postgres
        .arg("-D")
        .arg(path.join("data"))
        .args(["-c", "fsync=off", "-c", "max_connections=200", "-p", &port.to_string()])
        .arg("-c")
        .arg(format!("unix_socket_directories={}", path.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    for setting in settings {
        postgres.arg("-c").arg(setting);
    }
    let child = spawn(postgres).map_err(|error| format!("postgres: {error}"))?;
    let ready = || {
        let mut asked = Command::new(programs.join("pg_isready"));
        asked.args(["--quiet", "--port", &port.to_string(), "--host"]).arg(path);
        asked.status().is_ok_and(|status| status.success())
    };
    let begun = Instant::now();
    while !ready() {
        if begun.elapsed() > STARTING {
            return Err("the server did not start".into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(Started { child, folder, port })
}

/// A port that nobody listens on now.
fn free_port() -> u16 {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("there are free ports");
    socket.local_addr().expect("it is bound").port()
}

/// Two databases: one that is sampled, and the name of one that is filled.
pub struct Lab {
    running: Arc<Running>,
    pub source: String,
    pub target: String,
    /// Keys in one statement.
    pub keys_at_once: usize,
}

impl Lab {
    /// Makes a source from these statements; nothing, where there is no server.
    pub async fn with(sql: &str) -> Option<Self> {
        match server() {
            Ok(running) => Some(Self::on(running, sql).await),
            Err(why) => {
                eprintln!("skipped: {why}");
                None
            }
        }
    }

    /// The same on a server of its own, which also listens on a port.
    pub async fn alone(sql: &str, settings: &dyn Fn(&Path) -> Vec<String>) -> Option<Self> {
        match start(settings, free_port()) {
            Ok(started) => {
                let running = Running { url: started.url(), started: Some(started) };
                Some(Self::on(Arc::new(running), sql).await)
            }
            Err(why) => {
                eprintln!("skipped: {why}");
                None
            }
        }
    }

    /// Its server, as a superuser.
    pub fn url(&self) -> &str {
        &self.running.url
    }

    /// The port of its server.
    pub fn port(&self) -> u16 {
        self.running.started.as_ref().map_or(PORT, |started| started.port)
    }

    /// The folder of its server.
    pub fn folder(&self) -> &Path {
        self.running.started.as_ref().expect("the server was started by us").folder.path()
    }

    /// A server that follows this one and is only read.
    pub fn standby(&self) -> Started {
        let programs = programs().expect("the server's programs are there");
        let folder = folder().expect("there was a folder for the first one");
        let copied = command(&programs.join("pg_basebackup"))
            .args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync", "-D"])
            .arg(folder.path().join("data"))
            .args(["-h", &self.folder().display().to_string(), "-U", "postgres"])
            .args(["-p", &self.port().to_string()])
            .output();
        let copied = copied.expect("pg_basebackup is there");
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        let settings = vec!["listen_addresses=".to_owned()];
        run(&programs, folder, settings, free_port()).expect("the standby starts")
    }

    async fn on(running: Arc<Running>, sql: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = |end: &str| format!("data-{}-{number}-{end}", std::process::id());
        let lab = Self {
            running,
            source: name("source"),
            target: name("target"),
            keys_at_once: KEYS_AT_ONCE,
        };
        lab.execute("postgres", &format!("CREATE DATABASE \"{}\"", lab.source)).await;
        lab.execute(&lab.source, sql).await;
        lab.execute(&lab.source, "ANALYZE").await;
        lab
    }

    pub fn server(&self, database: &str) -> Server {
        Server::parse(&self.running.url).expect("the test's URL is valid").with_database(database)
    }

    /// The same server, as another role.
    pub fn server_as(&self, database: &str, role: &str) -> Server {
        let quoted = role.replace('\'', "\\'");
        let url = format!("{} user='{quoted}'", self.running.url);
        Server::parse(&url).expect("the test's URL is valid").with_database(database)
    }

    pub async fn connect(&self, database: &str) -> Client {
        let mut config: tokio_postgres::Config =
            self.running.url.parse().expect("the URL is valid");
        config.dbname(database);
        // A server that just started may still refuse.
        for _ in 0..100 {
            if let Ok((client, connection)) = config.connect(NoTls).await {
                tokio::spawn(connection);
                return client;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{database} cannot be connected to");
    }

    pub async fn execute(&self, database: &str, sql: &str) {
        let client = self.connect(database).await;
        client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// The only value that a query returns, as text.
    pub async fn value(&self, database: &str, sql: &str) -> String {
        let client = self.connect(database).await;
        let row = client.query_one(sql, &[]).await;
        let row = row.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        row.get::<_, Option<String>>(0).unwrap_or_default()
    }

    /// Takes a sample.
    pub async fn sample(&self, config: &str) -> Result<Report, Problem> {
        self.sample_telling(config, &|_: Event| ()).await
    }

    /// Takes a sample, and tells how it goes.
    pub async fn sample_telling(
        &self,
        config: &str,
        listener: &dyn app::Listener,
    ) -> Result<Report, Problem> {
        self.sample_from(&self.server(&self.source), config, listener).await
    }

    /// Takes a sample of another source.
    pub async fn sample_from(
        &self,
        source: &Server,
        config: &str,
        listener: &dyn app::Listener,
    ) -> Result<Report, Problem> {
        let config = Config::parse(config).expect("the test's configuration can be read");
        let job = Job {
            source,
            config: &config,
            secret: KEY,
            sessions: 2,
            keys_at_once: self.keys_at_once,
            listener,
        };
        app::sample(&job, &self.server(&self.target)).await
    }

    /// Databases whose name begins as the target's does.
    pub async fn targets(&self) -> String {
        let sql = format!(
            "SELECT string_agg(replace(datname, '{0}', 'target'), ' ' ORDER BY datname)
             FROM pg_database WHERE starts_with(datname, '{0}')",
            self.target
        );
        self.value("postgres", &sql).await
    }

    /// Drops its databases, if the server stays.
    pub async fn end(self) {
        if self.running.started.is_some() {
            return;
        }
        for name in [&self.source, &self.target] {
            let sql = format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)");
            self.execute("postgres", &sql).await;
        }
    }
}
