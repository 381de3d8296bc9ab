//! A small file system in memory, to be filled up.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::geteuid;
use shiplap_scenarios::{skip, until};

const START_LIMIT: Duration = Duration::from_secs(20);

/// A small disk, seen by a process of its own only, and by others through that one: it is gone
/// when that process ends, however this one does.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
    keeper: Child,
    _folder: tempfile::TempDir,
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
        // It ends with its standard input, which ends with us.
        let script = r#"mount -t tmpfs -o "size=$1" faults "$2" && touch "$2/ready" && exec cat"#;
        let keeper = Command::new("unshare")
            .args(["--mount", "sh", "-c", script, "sh", size])
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        let keeper = keeper.expect("unshare can be started");
        let root = PathBuf::from(format!("/proc/{}/root", keeper.id()));
        let inside = folder.path().strip_prefix("/").expect("a temporary folder has a full path");
        let path = root.join(inside);
        until("the disk is there", START_LIMIT, || path.join("ready").exists().then_some(()));
        Some(Self { path, keeper, _folder: folder })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves no space.
    ///
    /// # Panics
    /// If it is gone.
    pub fn fill(&self) {
        let mut file = fs::File::create(self.path.join("filler")).expect("a file can be made");
        for size in [64 * 1024, 4096, 1] {
            let block = vec![1; size];
            while file.write_all(&block).is_ok() {}
        }
    }

    /// Gives it back.
    pub fn free(&self) {
        // It was not filled, then.
        let _ = fs::remove_file(self.path.join("filler"));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}
