//! Sockets, connections and their limits.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tower_service::Service;

use crate::caller::Origin;
use crate::core::Core;
use crate::rates::network;
use crate::tls::TlsKeys;

/// After an error such as too many open files: connections wait in the kernel meanwhile.
const PAUSE: Duration = Duration::from_millis(50);
/// Whom the file of users is about is looked up in here.
const USERS: &str = "/etc/passwd";
/// Only the socket's owner and group may connect. Those of the group need a token.
const SOCKET_MODE: u32 = 0o660;

/// A socket that is listened on.
#[derive(Debug)]
pub enum Listener {
    /// For this machine: the server's own user and root need no token.
    Unix(UnixListener),
    /// Plain, for a proxy in front or a private network.
    Tcp(TcpListener),
    /// With TLS.
    Tls(TcpListener, TlsKeys),
}

impl Listener {
    /// Listens on a Unix socket; a file that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// When somebody listens there, when something else than a socket is there, or the system refuses.
    pub fn unix(path: &Path) -> io::Result<Self> {
        if let Ok(found) = fs::symlink_metadata(path) {
            let taken = |why: &str| {
                io::Error::new(io::ErrorKind::AddrInUse, format!("{}: {why}", path.display()))
            };
            if !found.file_type().is_socket() {
                return Err(taken("something else than a socket is there"));
            }
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(taken("another server listens there"));
            }
            fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
        Ok(Self::Unix(listener))
    }
}

/// Serves until it is dropped; connections then end when they have answered what they were asked.
pub(crate) async fn serve(core: Arc<Core>, router: Router, listener: Listener, doors: Arc<Doors>) {
    let mut connections = JoinSet::new();
    let shared = Arc::new(Shared { core, router });
    let mut leaving = shared.core.leaving.subscribe();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &doors) => accepted,
            // Those that have ended make room.
            Some(_) = connections.join_next() => continue,
            _ = leaving.wait_for(|leaving| *leaving) => break,
        };
        match accepted {
            Ok(Some(accepted)) => {
                connections.spawn(shared.clone().connection(accepted));
            }
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                shared.core.log.trouble(&format!("a connection could not be accepted: {error}"));
                sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

enum Accepted {
    Unix(UnixStream, Origin),
    Tcp(TcpStream, Origin, Inside),
    Tls(TcpStream, Origin, TlsKeys, Inside),
}

async fn accept(listener: &Listener, doors: &Arc<Doors>) -> io::Result<Option<Accepted>> {
    match listener {
        Listener::Unix(listener) => {
            let (stream, _) = listener.accept().await?;
            let origin = local(&stream)?;
            Ok(Some(Accepted::Unix(stream, origin)))
        }
        Listener::Tcp(listener) => {
            let (stream, peer) = listener.accept().await?;
            let (origin, inside) = (Origin::Address(peer.ip()), doors.enter(peer.ip()));
            Ok(inside.map(|inside| Accepted::Tcp(stream, origin, inside)))
        }
        Listener::Tls(listener, keys) => {
            let (stream, peer) = listener.accept().await?;
            let (origin, inside) = (Origin::Address(peer.ip()), doors.enter(peer.ip()));
            Ok(inside.map(|inside| Accepted::Tls(stream, origin, keys.clone(), inside)))
        }
    }
}

/// The other end of a Unix socket, as the kernel knows it.
fn local(stream: &UnixStream) -> io::Result<Origin> {
    let user = stream.peer_cred()?.uid();
    let own = rustix::process::geteuid().as_raw();
    Ok(Origin::Local { user: user_name(user), is_admin: user == 0 || user == own })
}

/// The name of a user of this machine, or their number.
fn user_name(user: u32) -> String {
    let number = user.to_string();
    let users = fs::read_to_string(USERS).unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    });
    name.unwrap_or(number)
}

struct Shared {
    core: Arc<Core>,
    router: Router,
}

impl Shared {
    async fn connection(self: Arc<Self>, accepted: Accepted) {
        match accepted {
            Accepted::Unix(stream, origin) => self.http(stream, origin).await,
            Accepted::Tcp(stream, origin, _inside) => {
                // Only fails on a connection that is already gone.
                let _ = stream.set_nodelay(true);
                self.http(stream, origin).await;
            }
            Accepted::Tls(stream, origin, keys, _inside) => {
                let _ = stream.set_nodelay(true);
                let limit = self.core.settings.limits.handshake_within;
                let handshake = TlsAcceptor::from(keys.current()).accept(stream);
                if let Ok(Ok(stream)) = timeout(limit, handshake).await {
                    self.http(stream, origin).await;
                }
            }
        }
    }

    async fn http(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send, origin: Origin) {
        let limits = &self.core.settings.limits;
        let service = service_fn(|mut request: hyper::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(origin.clone());
            let mut router = self.router.clone();
            async move { router.call(request.map(axum::body::Body::new)).await }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head_within)
            .max_headers(limits.headers)
            .max_buf_size(limits.head_bytes)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let mut leaving = self.core.leaving.subscribe();
        tokio::select! {
            // What went wrong there is the client's own.
            _ = connection.as_mut() => return,
            _ = leaving.wait_for(|leaving| *leaving) => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

/// Counts connections: of all, and of each address.
pub(crate) struct Doors {
    all: usize,
    each: usize,
    inside: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection, until it is dropped.
pub(crate) struct Inside {
    doors: Arc<Doors>,
    address: IpAddr,
}

impl Doors {
    pub(crate) fn new(all: usize, each: usize) -> Arc<Self> {
        Arc::new(Self { all, each, inside: Mutex::default() })
    }

    fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Inside> {
        let address = network(address);
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let here = inside.get(&address).copied().unwrap_or_default();
        if here >= self.each || inside.values().sum::<usize>() >= self.all {
            return None;
        }
        inside.insert(address, here + 1);
        Some(Inside { doors: self.clone(), address })
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let mut inside = self.doors.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(here) = inside.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                inside.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_all_connections() {
        let doors = Doors::new(3, 2);
        let (one, two) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let first = doors.enter(one).unwrap();
        let _second = doors.enter(one).unwrap();
        assert!(doors.enter(one).is_none());
        let _third = doors.enter(two).unwrap();
        assert!(doors.enter(two).is_none());
        drop(first);
        assert!(doors.enter(two).is_some());
    }

    #[test]
    fn root_has_a_name() {
        assert_eq!(user_name(0), "root");
        assert_eq!(user_name(3_999_999_999), "3999999999");
    }
}
