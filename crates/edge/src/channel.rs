//! What the supervisor and its worker say to each other, over a socket pair that keeps message
//! boundaries and passes file descriptors.
//!
//! Both ends are always of one build, so this format has no version.

use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize};

use crate::api::{BindError, ListeningPort};
use crate::tickets::Seed;

/// No message is larger. The kernel's default limit for one message is about 200 KiB.
const MAX_MESSAGE_BYTES: usize = 128 << 10;
/// No message carries more file descriptors: the admin socket and two tables.
const MAX_FDS: usize = 4;
/// So many containers fit into one message, with room for their addresses.
pub(crate) const MAX_CONTAINERS: usize = 200;

/// Where a listening socket is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Place {
    pub namespace: Option<String>,
    pub address: IpAddr,
    pub port: u16,
}

/// Where a container is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sighting {
    pub container: String,
    pub seen: Seen,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Seen {
    /// It runs, and has these addresses.
    Running { addresses: Vec<IpAddr> },
    /// It does not run, or has no network yet.
    Absent,
    /// The supervisor cannot see the processes of containers.
    Unknown,
}

/// From the worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub id: u64,
    pub ask: Ask,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// The first message. Answered by `Start`, with the admin socket, then the tables there are.
    Start,
    /// Answered by `Listening` with the socket, or `NotListening`.
    Listen(Place),
    /// Close it. Answered by `Done`.
    Close(Place),
    /// The worker serves; sockets it has not asked for are closed. Answered by `Done`.
    Serving,
    /// Tell where these containers are, now (`Sightings`) and whenever that changes.
    Watch(Vec<String>),
    /// No longer. Answered by `Done`.
    Unwatch(Vec<String>),
    /// Look again at a container that is watched. Answered by `Sightings`.
    Look(String),
    /// Answered by `Ports` or `Failed`.
    Ports(String),
    /// The table on disk. Answered by `Done` with the file, if there is one.
    Table,
    /// A certificate's file. Answered by `Done` with it, or `Failed`.
    Certificate(String),
    /// A file to write a certificate into. Answered by `Done` with the file, or `Failed`.
    NewCertificate,
    /// The file is complete: it is that of this certificate. Answered by `Done` when it is on disk,
    /// or `Failed`.
    CommitCertificate(String),
    /// All others that are not new may be removed. Answered by `Done`.
    KeepCertificates(Vec<String>),
    /// The access log. Answered by `Done` with the file to append to, or `Failed`.
    AccessLog,
    /// A file to write a table into. Answered by `Done` with the file, or `Failed`.
    NewTable,
    /// The file is complete. Answered by `Done` when it is on disk in the place of the table, or
    /// `Failed`. The table it replaces becomes the previous one if it is good.
    CommitTable { replaces_good: bool },
}

/// To the worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromSupervisor {
    Reply { id: u64, reply: Reply },
    Notice(Notice),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Start {
        supervisor_pid: u32,
        supervisor_uptime_ms: u64,
        worker_restarts: u64,
        has_table: bool,
        has_previous: bool,
        /// For session tickets.
        seed: Seed,
    },
    Listening {
        port: u16,
    },
    NotListening {
        reason: BindError,
        detail: String,
    },
    Sightings(Vec<Sighting>),
    Ports(Vec<ListeningPort>),
    Done,
    Failed(String),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Notice {
    /// A watched container has come, gone or moved.
    Sighting(Sighting),
    /// The holder of a namespace has restarted: a new socket in the place of the old one.
    Reopened(Place),
    /// Close softly, within this time.
    Stop { grace_ms: u64, accepting: bool },
}

/// Sends one message; may block if the socket does.
pub(crate) fn send(
    socket: impl AsFd,
    message: &impl Serialize,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let text = serde_json::to_vec(message).map_err(io::Error::other)?;
    if text.len() > MAX_MESSAGE_BYTES || fds.len() > MAX_FDS {
        return Err(io::Error::other("the message is too large"));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(fds)), "the space is for MAX_FDS");
    }
    let parts = [io::IoSlice::new(&text)];
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(&socket, &parts, &mut control, SendFlags::NOSIGNAL)
    })?;
    Ok(())
}

/// Receives one message; none when the other end is gone.
pub(crate) fn receive<M: for<'a> Deserialize<'a>>(
    socket: impl AsFd,
) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
    let mut text = vec![0; MAX_MESSAGE_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        let mut parts = [io::IoSliceMut::new(&mut text)];
        rustix::net::recvmsg(&socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    let message = serde_json::from_slice(&text[..received.bytes]).map_err(io::Error::other)?;
    Ok(Some((message, fds)))
}
