//! An engine of one's own, which may be stopped, killed and filled up.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, geteuid, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use shiplap_scenarios::{Engine, skip, until};

/// Names of their folders and control groups begin so: short, since the path of a socket has at
/// most 107 bytes.
const PREFIX: &str = "slflt-";
/// A machine under load starts one in a few seconds.
const START_LIMIT: Duration = Duration::from_secs(60);

/// What an engine is started with.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Containers go on while it is away.
    pub live_restore: bool,
    /// Networks that it can give out; `None` as usual, a good thirty.
    pub address_pools: Option<&'static str>,
}

/// A `dockerd` with a network, mounts and processes of its own: the machine's engine, its packet
/// filter and its ports are not touched. Its images and containers are on a file system in memory.
/// Dropping it ends every process in it, and with them everything is gone.
///
/// The thread that made it, and threads and programs which that one starts from then on, are in
/// its network: its published ports are theirs.
#[derive(Debug)]
pub struct PrivateEngine {
    folder: tempfile::TempDir,
    settings: Settings,
    keeper: Child,
    /// The first process inside.
    inside: Pid,
    cgroup: String,
}

impl PrivateEngine {
    /// Starts one whose disk holds `size`, such as `2g`; says why where it cannot.
    ///
    /// # Panics
    /// If it does not come up.
    #[must_use]
    pub fn start(size: &str, settings: Settings) -> Option<Self> {
        if !geteuid().is_root() {
            return skip("an engine of one's own needs root");
        }
        for tool in ["dockerd", "unshare", "nsenter", "ip", "mount"] {
            if !on_path(tool) {
                return skip(&format!("an engine of one's own needs `{tool}`"));
            }
        }
        sweep();
        let folder = tempfile::Builder::new().prefix(&prefix()).tempdir();
        let folder = folder.expect("a temporary folder can be made");
        let data = folder.path().join("data");
        fs::create_dir(&data).expect("a folder can be made");
        // The loop reaps those whose parents have gone; killing it ends all others.
        let script = r#"mount -t tmpfs -o "size=$1" faults "$2" && ip link set lo up &&
            touch "$2/ready" && while :; do sleep 1; done"#;
        let keeper = Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["sh", "-c", script, "sh", size])
            .arg(&data)
            .stdin(Stdio::null())
            .spawn();
        let mut keeper = keeper.expect("unshare can be started");
        let inside = until("a process is inside", START_LIMIT, || {
            assert!(
                keeper.try_wait().ok()?.is_none(),
                "unshare ended: are namespaces allowed here?"
            );
            child_of(keeper.id())
        });
        let seen = format!("/proc/{}/root{}/ready", inside.as_raw_nonzero(), data.display());
        until("its disk is there", START_LIMIT, || Path::new(&seen).exists().then_some(()));
        let name = folder.path().file_name().expect("it has a name").to_string_lossy();
        let cgroup = format!("/{name}");
        let engine = Self { settings, keeper, inside, cgroup, folder };
        let network = fs::File::open(format!("/proc/{}/ns/net", inside.as_raw_nonzero()));
        let network = network.expect("a process of ours has a network");
        move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&network),
            Some(LinkNameSpaceType::Network),
        )
        .expect("root may enter a network");
        engine.up();
        Some(engine)
    }

    /// To talk to it.
    #[must_use]
    pub fn engine(&self) -> Engine {
        Engine::at(self.socket())
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }

    /// Starts it, where it does not run, and waits until it answers.
    ///
    /// # Panics
    /// If it does not.
    pub fn up(&self) {
        let at = |name: &str| self.folder.path().join(name);
        let log = fs::File::options().create(true).append(true).open(at("log"));
        let log = log.expect("a file can be made");
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.inside.as_raw_nonzero()))
            .args(["--net", "--mount", "--pid", "dockerd", "--log-level=warn"])
            .arg(format!("--data-root={}", at("data").display()))
            .arg(format!("--exec-root={}", at("exec").display()))
            .arg(format!("--pidfile={}", at("pid").display()))
            .arg(format!("--host=unix://{}", self.socket().display()))
            .arg(format!("--cgroup-parent={}", self.cgroup))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a handle can be copied"))
            .stderr(log);
        if self.settings.live_restore {
            command.arg("--live-restore");
        }
        if let Some(pools) = self.settings.address_pools {
            command.arg(format!("--default-address-pool={pools}"));
        }
        let mut child = command.spawn().expect("nsenter can be started");
        until("its engine answers", START_LIMIT, || {
            if let Ok(Some(status)) = child.try_wait() {
                let log = fs::read_to_string(at("log")).unwrap_or_default();
                panic!("dockerd ended with {status}: {log}");
            }
            self.engine().ping().ok()
        });
        // It is ours to wait for, which must not keep anybody waiting.
        std::thread::spawn(move || child.wait());
    }

    /// Sends a signal to it, and waits until it is gone if that is what the signal means.
    ///
    /// # Panics
    /// If it does not go.
    pub fn signal(&self, signal: Signal) {
        let Some(daemon) = self.daemon() else { return };
        // It may have ended just now.
        let _ = kill_process(daemon, signal);
        if matches!(signal, Signal::KILL | Signal::TERM) {
            until("the engine is gone", START_LIMIT, || self.daemon().is_none().then_some(()));
            // One that was killed leaves its number behind, which another process may have by then.
            let _ = fs::remove_file(self.folder.path().join("pid"));
        }
    }

    /// Fills its disk but for `leave` bytes.
    ///
    /// # Panics
    /// If that cannot be done.
    pub fn fill_disk(&self, leave: u64) {
        let data = self.disk();
        let space = rustix::fs::statvfs(&data).expect("its disk is there");
        let free = space.f_bavail * space.f_frsize;
        let mut file = fs::File::create(data.join("filler")).expect("a file can be made");
        let block = vec![1; 1024 * 1024];
        let mut left = free.saturating_sub(leave);
        while left > 0 {
            let part = block.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            if file.write_all(&block[..part]).is_err() {
                break;
            }
            left -= part as u64;
        }
    }

    /// Gives the space back.
    pub fn free_disk(&self) {
        // It was not filled, then.
        let _ = fs::remove_file(self.disk().join("filler"));
    }

    /// Its disk, seen from outside.
    fn disk(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.inside.as_raw_nonzero()));
        let data = self.folder.path().join("data");
        root.join(data.strip_prefix("/").expect("a temporary folder has a full path"))
    }

    /// The process of `dockerd`, while it runs.
    fn daemon(&self) -> Option<Pid> {
        let own = format!("--data-root={}", self.folder.path().join("data").display());
        processes().find(|pid| {
            let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero()));
            let line = line.unwrap_or_default();
            let mut words = line.split(|byte| *byte == 0);
            words.next().is_some_and(|word| word.ends_with(b"dockerd"))
                && words.any(|word| word == own.as_bytes())
        })
    }
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        // The kernel ends everybody else inside along with the first.
        let _ = kill_process(self.inside, Signal::KILL);
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
        remove_cgroups(&self.cgroup);
    }
}

fn prefix() -> String {
    format!("{PREFIX}{}-", std::process::id())
}

/// Ends what tests left that were killed: their process is gone.
fn sweep() {
    let folders = fs::read_dir(std::env::temp_dir());
    for folder in folders.expect("there is a folder for temporary files").flatten() {
        let name = folder.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let Some(owner) = owner.filter(|owner| !Path::new("/proc").join(owner).exists()) else {
            continue;
        };
        let data = folder.path().join("data");
        for pid in processes() {
            let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero()));
            let line = line.unwrap_or_default();
            let mut words = line.split(|byte| *byte == 0);
            let keeper = words.next() == Some(b"sh")
                && words.next_back().is_some()
                && String::from_utf8_lossy(&line).contains(&*data.to_string_lossy());
            if keeper {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        remove_cgroups(&format!("/{name}"));
        if fs::remove_dir_all(folder.path()).is_ok() {
            eprintln!("removed what process {owner} left");
        }
    }
}

/// Empty ones that an engine had no time to remove.
fn remove_cgroups(name: &str) {
    let name = name.trim_start_matches('/');
    let controllers = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    let places = controllers.map(|folder| folder.path().join(name));
    for place in places.chain([Path::new("/sys/fs/cgroup").join(name)]) {
        remove_folders(&place);
    }
}

fn remove_folders(place: &Path) {
    let inside = fs::read_dir(place).into_iter().flatten().flatten();
    for folder in inside.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_folders(&folder.path());
    }
    // One that a process is still leaving goes with the next run.
    let _ = fs::remove_dir(place);
}

fn processes() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
}

fn child_of(parent: u32) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
}

fn on_path(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(tool).is_file())
}
