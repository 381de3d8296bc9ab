//! Accepting connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::Core;
use super::{http, tcp};
use crate::log::event;
use crate::table::Protocol;

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
    match core.protocol(listener) {
        Some(Protocol::Http) => http::serve(core, listener, stream, peer).await,
        Some(Protocol::Tcp) => tcp::serve(core, listener, stream).await,
        None => {}
    }
}

impl Core {
    fn protocol(&self, listener: u64) -> Option<Protocol> {
        let routing = self.routing.load();
        routing.by_listener.get(&listener).map(|pool| pool.protocol)
    }
}
