//! The clock and the processes, behind a trait so that tests can fix them.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use rustix::time::{ClockId, clock_gettime};
use shiplap_model::LedgerError;

use crate::failure::file;

/// A process, so that it is not mistaken for a later one with the same number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessIdentity {
    /// The boot it runs in, `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// The namespace in which its number counts, `/proc/self/ns/pid`.
    pub pid_namespace: String,
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since boot: field 22 of `/proc/<pid>/stat`.
    pub start_ticks: u64,
}

impl ProcessIdentity {
    /// When it started, as a column holds it.
    pub(crate) fn start_column(&self) -> i64 {
        i64::try_from(self.start_ticks).unwrap_or(i64::MAX)
    }
}

/// Whether a process still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It does.
    Running,
    /// It ended.
    Gone,
    /// It cannot be told from here: another boot, machine or container.
    Elsewhere,
}

/// The machine as the ledger sees it.
pub trait Host: Send + Sync {
    /// The wall clock, milliseconds since 1970. May jump.
    fn now_ms(&self) -> i64;
    /// Milliseconds since boot, sleep included. Never jumps within a boot.
    fn uptime_ms(&self) -> i64;
    /// This process.
    fn process(&self) -> ProcessIdentity;
    /// Whether `process` still runs.
    fn presence(&self, process: &ProcessIdentity) -> Presence;
}

/// The machine that we run on.
#[derive(Debug, Clone)]
pub struct SystemHost {
    process: ProcessIdentity,
}

impl SystemHost {
    /// Looks up who we are.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn new() -> io::Result<Self> {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let pid_namespace = std::fs::read_link("/proc/self/ns/pid")?;
        let stat = ProcessStat::read(Path::new("/proc/self/stat"))?;
        let process = ProcessIdentity {
            boot_id: boot_id.trim().to_owned(),
            pid_namespace: pid_namespace.to_string_lossy().into_owned(),
            pid: std::process::id(),
            start_ticks: stat.start_ticks,
        };
        Ok(Self { process })
    }
}

impl Host for SystemHost {
    fn now_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn uptime_ms(&self) -> i64 {
        let uptime = clock_gettime(ClockId::Boottime);
        uptime.tv_sec * 1_000 + uptime.tv_nsec / 1_000_000
    }

    fn process(&self) -> ProcessIdentity {
        self.process.clone()
    }

    fn presence(&self, process: &ProcessIdentity) -> Presence {
        // Containers share the boot id of their host but count processes for themselves: there,
        // our number 7 says nothing about the holder's number 7.
        if process.boot_id != self.process.boot_id
            || process.pid_namespace != self.process.pid_namespace
        {
            return Presence::Elsewhere;
        }
        let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) else {
            return Presence::Gone;
        };
        // Asked first, because `/proc` may hide the processes of other users (hidepid).
        if test_kill_process(pid) == Err(Errno::SRCH) {
            return Presence::Gone;
        }
        match ProcessStat::read(Path::new(&format!("/proc/{}/stat", process.pid))) {
            Ok(stat) if stat.start_ticks != process.start_ticks => Presence::Gone,
            Ok(stat) if stat.ended => Presence::Gone,
            Ok(_) | Err(_) => Presence::Running,
        }
    }
}

/// What we need of `/proc/<pid>/stat`.
struct ProcessStat {
    start_ticks: u64,
    /// Dead, but its parent has not asked after it yet.
    ended: bool,
}

impl ProcessStat {
    fn read(path: &Path) -> io::Result<Self> {
        let text = std::fs::read_to_string(path)?;
        Self::parse(&text).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{}: not understood", path.display()),
            )
        })
    }

    /// `7 (a) b) S 1 …`: the name may hold spaces and brackets, so fields are counted from its
    /// last closing bracket; the state, field 3, comes first there.
    fn parse(text: &str) -> Option<Self> {
        const START_TIME_AFTER_NAME: usize = 22 - 3;
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        Some(Self {
            start_ticks: fields.get(START_TIME_AFTER_NAME)?.parse().ok()?,
            ended: matches!(*fields.first()?, "Z" | "X" | "x"),
        })
    }
}

/// This machine and this process.
pub(crate) fn system_host() -> Result<Arc<dyn Host>, LedgerError> {
    match SystemHost::new() {
        Ok(host) => Ok(Arc::new(host)),
        Err(error) => Err(file("learn about this process from", Path::new("/proc"), &error)),
    }
}

/// This machine, told from others.
pub(crate) fn machine() -> String {
    // Not there in most containers, whose host's name then tells them apart.
    let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let host = rustix::system::uname();
    format!("{}\n{}", host.nodename().to_string_lossy(), machine.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    use std::process::Command;

    #[test]
    fn a_process_name_with_brackets_does_not_shift_the_fields() {
        let text = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9";
        let stat = ProcessStat::parse(text).unwrap();
        assert_eq!((stat.start_ticks, stat.ended), (4711, false));
    }

    #[test]
    fn this_process_runs_and_one_with_its_number_but_another_start_does_not() {
        let host = SystemHost::new().unwrap();
        let mut process = host.process();
        assert_eq!(host.presence(&process), Presence::Running);
        process.start_ticks += 1;
        assert_eq!(host.presence(&process), Presence::Gone);
    }

    #[test]
    fn a_process_of_another_boot_or_container_cannot_be_judged() {
        let host = SystemHost::new().unwrap();
        let other_boot = ProcessIdentity { boot_id: "other".into(), ..host.process() };
        let other_container = ProcessIdentity { pid_namespace: "other".into(), ..host.process() };
        assert_eq!(host.presence(&other_boot), Presence::Elsewhere);
        assert_eq!(host.presence(&other_container), Presence::Elsewhere);
    }

    #[test]
    fn a_process_that_ended_is_gone_even_before_its_parent_asks() {
        let host = SystemHost::new().unwrap();
        let mut child = Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let stat = ProcessStat::read(Path::new(&format!("/proc/{}/stat", child.id()))).unwrap();
        let process =
            ProcessIdentity { pid: child.id(), start_ticks: stat.start_ticks, ..host.process() };
        assert_eq!(host.presence(&process), Presence::Running);

        child.kill().unwrap();
        let pid = Pid::from_child(&child);
        waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
        assert_eq!(host.presence(&process), Presence::Gone, "not reaped yet");

        child.wait().unwrap();
        assert_eq!(host.presence(&process), Presence::Gone, "reaped");
    }
}
