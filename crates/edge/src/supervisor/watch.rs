//! Which containers the worker wants to know about, and where they are.

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::channel::{Seen, Sighting};
use crate::{containers, sockets};

/// How often to look for a container that has just gone. One look costs some milliseconds.
const SEEK_SOON: Duration = Duration::from_millis(100);
/// A restart takes no longer as a rule; after that, look less often.
const SOON: Duration = Duration::from_secs(60);
/// How often then.
const SEEK_LATER: Duration = Duration::from_secs(1);

pub(super) struct Watch {
    containers: HashMap<String, Watched>,
    exited: mpsc::UnboundedSender<Exit>,
    exits: mpsc::UnboundedReceiver<Exit>,
    next_seek: Instant,
}

/// A container and its process that has ended.
type Exit = (String, u32);

struct Watched {
    seen: Seen,
    pid: Option<u32>,
    since: Instant,
    waiting: Option<AbortHandle>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(waiting) = &self.waiting {
            waiting.abort();
        }
    }
}

impl Watch {
    pub(super) fn new() -> Watch {
        let (exited, exits) = mpsc::unbounded_channel();
        Watch { containers: HashMap::new(), exited, exits, next_seek: Instant::now() }
    }

    pub(super) fn clear(&mut self) {
        self.containers.clear();
    }

    pub(super) fn remove(&mut self, ids: &[String]) {
        for id in ids {
            self.containers.remove(id);
        }
    }

    /// Adds containers and says where they are.
    pub(super) fn add(&mut self, ids: Vec<String>) -> Vec<Sighting> {
        let visible = containers::sees_host_processes();
        let pids = containers::find(&ids.iter().cloned().collect());
        let mut sightings = Vec::new();
        for id in ids {
            let seen = match pids.get(&id) {
                Some(pid) => self.found(&id, *pid).unwrap_or(Seen::Absent),
                None if visible => Seen::Absent,
                None => Seen::Unknown,
            };
            if !matches!(seen, Seen::Running { .. }) {
                self.put(&id, None, seen.clone(), None);
            }
            sightings.push(Sighting { container: id, seen });
        }
        self.next_seek = Instant::now() + SEEK_SOON;
        sightings
    }

    /// Looks again at the addresses of one container.
    pub(super) fn look(&mut self, id: String) -> Sighting {
        let seen = match self.containers.get(&id).map(|watched| watched.pid) {
            Some(Some(pid)) => self.found(&id, pid).unwrap_or(Seen::Absent),
            Some(None) => Seen::Absent,
            None => Seen::Unknown,
        };
        Sighting { container: id, seen }
    }

    /// The process of a container, of those watched if it is, else by a look.
    pub(super) fn pid(&self, id: &str) -> Option<u32> {
        let watched = self.containers.get(id).and_then(|watched| watched.pid);
        watched.or_else(|| containers::find(&HashSet::from([id.to_owned()])).remove(id))
    }

    /// Waits until a container's process has ended; answers the container.
    pub(super) async fn exited(&mut self) -> String {
        loop {
            let (id, pid) = self.exits.recv().await.expect("we hold a sender");
            let current = self.containers.get(&id).and_then(|watched| watched.pid);
            if current == Some(pid) {
                self.put(&id, None, Seen::Absent, None);
                self.next_seek = Instant::now() + SEEK_SOON;
                return id;
            }
        }
    }

    /// When to [`Watch::seek`] next, if anything is missing.
    pub(super) fn next_seek(&self) -> Option<Instant> {
        let missing = self.containers.values().any(|watched| watched.seen == Seen::Absent);
        missing.then_some(self.next_seek)
    }

    /// Looks for what is missing; answers what was found, with its process.
    pub(super) fn seek(&mut self) -> Vec<(Sighting, u32)> {
        let missing = self.containers.iter().filter(|(_, watched)| watched.seen == Seen::Absent);
        let recent = missing.clone().any(|(_, watched)| watched.since.elapsed() < SOON);
        let missing: HashSet<String> = missing.map(|(id, _)| id.clone()).collect();
        let mut found = Vec::new();
        for (id, pid) in containers::find(&missing) {
            if let Ok(seen) = self.found(&id, pid) {
                found.push((Sighting { container: id, seen }, pid));
            }
        }
        self.next_seek = Instant::now() + if recent { SEEK_SOON } else { SEEK_LATER };
        found
    }

    /// Something about a found container has failed: look for it again.
    pub(super) fn lose(&mut self, id: &str) {
        self.put(id, None, Seen::Absent, None);
    }

    fn found(&mut self, id: &str, pid: u32) -> io::Result<Seen> {
        let addresses = containers::addresses(pid)?;
        if addresses.is_empty() {
            return Err(io::Error::other("no network yet"));
        }
        let seen = Seen::Running { addresses };
        if let Some(watched) = self.containers.get_mut(id)
            && watched.pid == Some(pid)
        {
            watched.seen = seen.clone();
            return Ok(seen);
        }
        let process = Pid::from_raw(pid as i32).ok_or_else(|| io::Error::other("no process 0"))?;
        let process = sockets::watched(rustix::process::pidfd_open(process, PidfdFlags::empty())?)?;
        let (exits, name) = (self.exited.clone(), id.to_owned());
        let waiting = tokio::spawn(async move {
            // Readable when the process has ended.
            let _ = process.readable().await;
            let _ = exits.send((name, pid));
        });
        self.put(id, Some(pid), seen.clone(), Some(waiting.abort_handle()));
        Ok(seen)
    }

    fn put(&mut self, id: &str, pid: Option<u32>, seen: Seen, waiting: Option<AbortHandle>) {
        let watched = Watched { seen, pid, since: Instant::now(), waiting };
        self.containers.insert(id.to_owned(), watched);
    }
}
