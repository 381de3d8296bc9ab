//! A small file system in memory, to be filled up.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::geteuid;
use shiplap_scenarios::{skip, until};

const START_LIMIT: Duration = Duration::from_secs(20);

/// A small disk. A process of its own takes it away in the end, also if this one is killed.
#[derive(Debug)]
pub struct SmallDisk {
    folder: tempfile::TempDir,
    keeper: Child,
}

impl SmallDisk {
    /// Makes one that holds `size`, such as `4m`; says why where it cannot.
    ///
    /// # Panics
    /// If it does not come about.
    #[must_use]
    pub fn start(size: &str) -> Option<Self> {
        if !geteuid().is_root() {
            return skip("a small disk needs root");
        }
        let folder = tempfile::Builder::new().prefix("sldsk-").tempdir();
        let folder = folder.expect("a temporary folder can be made");
        // Its standard input ends when we do. Programs that still look at it keep it until they end.
        let script = r#"mount -t tmpfs -o "size=$1" faults "$2" && touch "$2/ready" && cat
            umount --lazy "$2""#;
        let keeper = Command::new("sh")
            .args(["-c", script, "sh", size])
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        let keeper = keeper.expect("a shell can be started");
        let disk = Self { folder, keeper };
        let ready = disk.path().join("ready");
        until("the disk is there", START_LIMIT, || ready.exists().then_some(()));
        Some(disk)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves no space.
    ///
    /// # Panics
    /// If it is gone.
    pub fn fill(&self) {
        let mut file = fs::File::create(self.path().join("filler")).expect("a file can be made");
        for size in [64 * 1024, 4096, 1] {
            let block = vec![1; size];
            while file.write_all(&block).is_ok() {}
        }
    }

    /// Gives it back.
    pub fn free(&self) {
        // It was not filled, then.
        let _ = fs::remove_file(self.path().join("filler"));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Its folder can only be removed once nothing is mounted there.
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}
