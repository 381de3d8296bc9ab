//! Accepting connections.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::Core;
use super::client::{Client, Counted, Scheme};
use super::connection::Negotiated;
use super::doors::Doors;
use super::policy::inside;
use super::refusal::Refusal;
use super::stream::SharedStream;
use super::{connection, proxied, tcp, tls};
use crate::log::event;
use crate::table::{Limits, ListenerTls, Protocol};

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
    doors: &Arc<Doors>,
) -> io::Result<Vec<JoinHandle<()>>> {
    let start_one = |shard: &tokio::runtime::Handle| {
        let socket = socket.try_clone()?;
        Ok(shard.spawn(accept(core.clone(), listener, socket, doors.clone())))
    };
    core.shards.iter().map(start_one).collect()
}

async fn accept(core: Arc<Core>, listener: u64, socket: std::net::TcpListener, doors: Arc<Doors>) {
    let socket = match TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => return core.problem(format!("cannot accept on a socket: {error}")),
    };
    let mut told: Option<Instant> = None;
    loop {
        match socket.accept().await {
            Ok((stream, peer)) => {
                tokio::spawn(serve(core.clone(), listener, stream, peer, doors.clone()));
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

async fn serve(
    core: Arc<Core>,
    listener: u64,
    mut stream: TcpStream,
    peer: SocketAddr,
    doors: Arc<Doors>,
) {
    // These only fail on a connection that is already gone.
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_tcp_keepidle(&stream, KEEP_ALIVE);
    let _ = sockopt::set_socket_keepalive(&stream, true);
    let Some(entrance) = core.entrance(listener, peer.ip()) else { return };
    let Entrance { protocol, limits, exempt, is_proxied, tls } = entrance;
    let address = (!exempt).then_some(peer.ip().to_canonical());
    let Some(_inside) = doors.enter(address, &limits) else {
        if protocol != Protocol::Tcp && tls.is_none() {
            // What does not fit into the socket at once is not worth waiting for.
            let _ = stream.try_write(&Refusal::TooManyConnections.as_http1());
        }
        return;
    };
    let _counted = Counted::new(&core);
    let mut peer = peer.ip();
    if is_proxied {
        match said_of_client(&mut stream, &limits).await {
            Some(said) => peer = said.unwrap_or(peer),
            None => return,
        }
    }
    match (protocol, tls) {
        (Protocol::Tcp, _) => tcp::serve(core, listener, stream).await,
        (Protocol::Http | Protocol::H2c, Some(tls)) => {
            // Boxed, so that a connection without TLS has no room for it.
            Box::pin(serve_tls(core, listener, stream, peer, limits, tls)).await;
        }
        (Protocol::Http | Protocol::H2c, None) => {
            let stream = SharedStream::new(stream);
            let client = Client::new(peer, Scheme::Http, limits, stream.clone());
            connection::serve(core, listener, stream, client, Negotiated::Nothing).await;
        }
    }
}

async fn serve_tls(
    core: Arc<Core>,
    listener: u64,
    stream: TcpStream,
    peer: IpAddr,
    limits: Limits,
    tls: ListenerTls,
) {
    let stream = SharedStream::new(stream);
    // What a handshake needs goes with it.
    let taken_off = Box::pin(tls::take_off(&core, stream.clone(), &limits, tls.unnamed)).await;
    let Some((plain, negotiated)) = taken_off else { return };
    let client = Client::new(peer, Scheme::Https, limits, stream);
    connection::serve(core, listener, plain, client, negotiated).await;
}

/// What a proxy says of its client, if it says anything in time and as it must. Boxed, so that
/// other connections have no room for it.
async fn said_of_client(stream: &mut TcpStream, limits: &Limits) -> Option<Option<IpAddr>> {
    let limit = Duration::from_millis(limits.handshake_timeout_ms);
    let said = tokio::time::timeout(limit, Box::pin(proxied::read(stream))).await;
    said.ok()?.ok()
}

/// What is known of a connection before anything was read of it.
struct Entrance {
    protocol: Protocol,
    limits: Limits,
    /// Many clients may come from its address.
    exempt: bool,
    /// It begins with what a proxy says of its client.
    is_proxied: bool,
    tls: Option<ListenerTls>,
}

impl Core {
    fn entrance(&self, listener: u64, peer: IpAddr) -> Option<Entrance> {
        let routing = self.routing.load();
        let front = routing.fronts.get(&listener)?;
        let peer = peer.to_canonical();
        let is_proxied = inside(&front.proxies, peer);
        let exempt = front.is_inside || is_proxied || inside(&routing.trusted, peer);
        let (protocol, limits, tls) = (front.protocol(), front.limits, front.tls.clone());
        Some(Entrance { protocol, limits, exempt, is_proxied, tls })
    }
}
