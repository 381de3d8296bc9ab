//! Accepting connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::Core;
use super::client::{Client, Scheme};
use super::connection::Negotiated;
use super::stream::SharedStream;
use super::{connection, tcp};
use crate::log::event;
use crate::table::{Limits, Protocol};

/// After an error such as too many open files: connections wait in the kernel meanwhile.
const PAUSE: Duration = Duration::from_millis(20);
/// Such errors are told so often at most.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// A client that is silent for so long is asked by the kernel whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// Accepts on every thread; ends when the tasks are aborted.
pub(super) fn start(
    core: &Arc<Core>,
    listener: u64,
    socket: &std::net::TcpListener,
) -> io::Result<Vec<JoinHandle<()>>> {
    let start_one = |shard: &tokio::runtime::Handle| {
        let socket = socket.try_clone()?;
        Ok(shard.spawn(accept(core.clone(), listener, socket)))
    };
    core.shards.iter().map(start_one).collect()
}

async fn accept(core: Arc<Core>, listener: u64, socket: std::net::TcpListener) {
    let socket = match TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => return core.problem(format!("cannot accept on a socket: {error}")),
    };
    let mut told: Option<Instant> = None;
    loop {
        match socket.accept().await {
            Ok((stream, peer)) => {
                tokio::spawn(serve(core.clone(), listener, stream, peer));
            }
            // The client has left before we came to it.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                if told.is_none_or(|told| told.elapsed() > TELL_EVERY) {
                    event("worker", "accept-failed", &[("error", &error)]);
                    told = Some(Instant::now());
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn serve(core: Arc<Core>, listener: u64, stream: TcpStream, peer: SocketAddr) {
    // These only fail on a connection that is already gone.
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_tcp_keepidle(&stream, KEEP_ALIVE);
    let _ = sockopt::set_socket_keepalive(&stream, true);
    let Some((protocol, limits)) = core.front(listener) else { return };
    match protocol {
        Protocol::Http | Protocol::H2c => {
            let stream = SharedStream::new(stream);
            let client = Client::new(peer.ip(), Scheme::Http, stream.clone());
            let negotiated = Negotiated::Nothing;
            connection::serve(core, listener, stream, client, negotiated, limits).await;
        }
        Protocol::Tcp => tcp::serve(core, listener, stream).await,
    }
}

impl Core {
    /// What to speak at a listener. Where only routes lead on, it is HTTP.
    fn front(&self, listener: u64) -> Option<(Protocol, Limits)> {
        let routing = self.routing.load();
        let front = routing.fronts.get(&listener)?;
        let protocol = front.pool.as_ref().map_or(Protocol::Http, |pool| pool.protocol);
        Some((protocol, front.limits))
    }
}
