//! Opening listening sockets, here and inside the network namespaces of containers.

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::io::unix::AsyncFd;

use crate::api::BindError;

/// Connections the kernel keeps for us while the worker restarts.
const BACKLOG: i32 = 4096;
/// How often it is looked whether a socket still has its name.
const LOOK_FOR_NAME: Duration = Duration::from_millis(500);

/// Opens a listening socket in the network namespace of this thread; answers it and its port.
pub(crate) fn listen(address: IpAddr, port: u16) -> io::Result<(OwnedFd, u16)> {
    let family = match address {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &SocketAddr::new(address, port))?;
    rustix::net::listen(&socket, BACKLOG)?;
    let socket = TcpListener::from(socket);
    let port = socket.local_addr()?.port();
    Ok((socket.into(), port))
}

/// As [`listen`], in the network namespace of a process.
pub(crate) fn listen_in(pid: u32, address: IpAddr, port: u16) -> io::Result<(OwnedFd, u16)> {
    let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
    // Entering a namespace cannot be left undone: the thread ends with it.
    let thread = std::thread::Builder::new().spawn(move || {
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(namespace.as_fd(), kind)?;
        listen(address, port)
    })?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread has panicked")))
}

/// Tells one network namespace from another.
pub(crate) fn namespace_of(pid: u32) -> io::Result<(u64, u64)> {
    let namespace = std::fs::metadata(format!("/proc/{pid}/ns/net"))?;
    Ok((namespace.dev(), namespace.ino()))
}

/// The kind of an error of [`listen`].
pub(crate) fn bind_error(error: &io::Error) -> BindError {
    match error.kind() {
        io::ErrorKind::AddrInUse => BindError::AddressInUse,
        io::ErrorKind::PermissionDenied => BindError::Permission,
        io::ErrorKind::AddrNotAvailable => BindError::AddressNotAvailable,
        io::ErrorKind::NotFound => BindError::NoNamespace,
        _ => BindError::Failed,
    }
}

/// Opens a Unix socket at this path, for owner and group only. It takes the place of one that is
/// there in one step, so that no caller finds nothing.
pub(crate) fn listen_unix(path: &Path, gid: Option<u32>) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = Path::new(&temporary);
    match std::fs::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Err(_) | Ok(()) => {}
    }
    // The supervisor has one thread when this runs, so nobody else sees this mask.
    let mask = rustix::process::umask(Mode::from_bits_truncate(0o117));
    let socket = UnixListener::bind(temporary);
    rustix::process::umask(mask);
    let socket = socket?;
    socket.set_nonblocking(true)?;
    if let Some(gid) = gid {
        std::os::unix::fs::chown(temporary, None, Some(gid))?;
    }
    std::fs::rename(temporary, path)?;
    Ok(socket)
}

/// Keeps a second name for the socket at `path`, beside it, and gives it back its first one when
/// somebody has removed that: a socket that nobody can name is lost, although it still listens.
///
/// Does nothing more once another socket has taken the path, as that of a successor does.
pub(crate) async fn keep_named(path: PathBuf) {
    let mut second = path.clone().into_os_string();
    second.push(".kept");
    let second = PathBuf::from(second);
    let _ = std::fs::remove_file(&second);
    if std::fs::hard_link(&path, &second).is_err() {
        return;
    }
    let inode = |path: &Path| std::fs::symlink_metadata(path).map(|found| found.ino());
    let Ok(ours) = inode(&second) else { return };
    loop {
        tokio::time::sleep(LOOK_FOR_NAME).await;
        match inode(&path) {
            Ok(there) if there == ours => {}
            Ok(_) => return,
            // What cannot be given back now can perhaps later.
            Err(_) => drop(std::fs::hard_link(&second, &path)),
        }
    }
}

/// A file descriptor whose readiness can be awaited.
#[allow(deprecated, reason = "sound for an `OwnedFd`; what replaces it is unsafe to call")]
pub(crate) fn watched(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}

/// Whether this machine has IPv6, so that "all addresses" means both.
pub fn has_ipv6() -> bool {
    std::fs::read("/proc/net/if_inet6").is_ok_and(|text| !text.is_empty())
}
