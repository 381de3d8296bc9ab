//! Handing the sockets to a newer supervisor: an upgrade refuses nobody.
//!
//! The new one connects to a Unix socket in the state directory and is given every listening
//! socket. Both accept until the new worker serves; then the old one stops accepting and closes
//! softly. If the new one dies before that, nothing has happened.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

use super::{Held, Supervisor};
use crate::channel::{self, Place};
use crate::log::event;
use crate::sockets;
use crate::tickets::Seed;

/// Handing over one socket takes microseconds.
const TIMEOUT: Duration = Duration::from_secs(5);
/// What the new one sends when its worker serves.
const SERVES: &[u8] = b"serves\n";

/// Old to new. The two may be of different builds: only add.
#[derive(Debug, Serialize, Deserialize)]
struct Handed {
    /// With the socket; none says that these were all.
    place: Option<Place>,
    namespace: Option<(u64, u64)>,
    /// With the last one.
    #[serde(default)]
    seed: Option<Seed>,
}

/// The supervisor we take over from.
pub(super) struct Predecessor {
    socket: OwnedFd,
    /// For session tickets.
    pub seed: Option<Seed>,
}

impl Predecessor {
    /// Tells it to close softly.
    pub(super) fn release(self) {
        if let Err(error) = rustix::io::write(&self.socket, SERVES) {
            event("supervisor", "predecessor-gone", &[("error", &error)]);
        }
    }
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("handover.sock")
}

/// Takes the sockets of a supervisor that runs on this state directory, if there is one.
pub(super) fn take(state_dir: &Path, held: &mut HashMap<Place, Held>) -> Option<Predecessor> {
    let connected = (|| {
        let address = SocketAddrUnix::new(path(state_dir))?;
        let flags = SocketFlags::CLOEXEC;
        let family = AddressFamily::UNIX;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        rustix::net::connect(&socket, &address)?;
        let timeout = rustix::net::sockopt::Timeout::Recv;
        rustix::net::sockopt::set_socket_timeout(&socket, timeout, Some(TIMEOUT))?;
        Ok::<_, io::Error>(socket)
    })();
    let socket = connected.ok()?;
    let mut seed = None;
    loop {
        match receive_one(&socket) {
            Ok(Received::Socket(place, one)) => {
                held.insert(place, one);
            }
            Ok(Received::Last(handed)) => {
                seed = handed;
                break;
            }
            Err(error) => {
                // What has come is good; the rest is opened, or fails visibly.
                event("supervisor", "handover-failed", &[("error", &error)]);
                break;
            }
        }
    }
    event("supervisor", "taking-over", &[("sockets", &held.len())]);
    Some(Predecessor { socket, seed })
}

/// What one message has brought.
enum Received {
    Socket(Place, Held),
    Last(Option<Seed>),
}

fn receive_one(socket: &OwnedFd) -> io::Result<Received> {
    let received = channel::receive::<Handed>(socket)?;
    // A stream could join messages; an answer to each keeps them apart.
    rustix::io::write(socket, b"+")?;
    let (handed, mut fds) = received.ok_or(io::ErrorKind::UnexpectedEof)?;
    let Some(place) = handed.place else { return Ok(Received::Last(handed.seed)) };
    let socket = fds.pop().ok_or(io::ErrorKind::InvalidData)?;
    Ok(Received::Socket(place, Held { socket, namespace: handed.namespace }))
}

/// Where successors ask.
pub(super) fn listen(state_dir: &Path) -> io::Result<tokio::net::UnixListener> {
    tokio::net::UnixListener::from_std(sockets::listen_unix(&path(state_dir), None)?)
}

/// Waits until the successor says that it serves; false if it is gone.
pub(super) async fn serves(successor: Option<&tokio::net::UnixStream>) -> bool {
    let Some(stream) = successor else { return std::future::pending().await };
    loop {
        let mut text = [0; SERVES.len()];
        match stream.readable().await.and_then(|()| stream.try_read(&mut text)) {
            Ok(length) => return &text[..length] == SERVES,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
    }
}

impl Supervisor {
    /// Gives all sockets to a successor; answers the connection it will say more on.
    pub(super) async fn hand_over(
        &self,
        stream: tokio::net::UnixStream,
    ) -> Option<tokio::net::UnixStream> {
        let all = async {
            for (place, held) in &self.held {
                let (place, namespace) = (Some(place.clone()), held.namespace);
                let handed = Handed { place, namespace, seed: None };
                give(&stream, &handed, &[held.socket.as_fd()]).await?;
            }
            let seed = Some(self.seed.clone());
            give(&stream, &Handed { place: None, namespace: None, seed }, &[]).await
        };
        match tokio::time::timeout(TIMEOUT, all).await {
            Ok(Ok(())) => Some(stream),
            Ok(Err(error)) => {
                event("supervisor", "handover-failed", &[("error", &error)]);
                None
            }
            Err(_) => {
                event("supervisor", "handover-failed", &[("error", &"too slow")]);
                None
            }
        }
    }
}

async fn give(
    stream: &tokio::net::UnixStream,
    handed: &Handed,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    channel::send(stream, handed, fds)?;
    loop {
        stream.readable().await?;
        match stream.try_read(&mut [0]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
