//! The life of one worker, seen from the supervisor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use tokio::io::unix::AsyncFd;
use tokio::process::Child;

use super::{Held, Signals, Supervisor};
use crate::channel::{self, Ask, FromSupervisor, Notice, Place, Reply, Request, Seen, Sighting};
use crate::containers;
use crate::log::event;
use crate::sockets;

/// A worker that does not take its messages for so long hangs, and is replaced.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// What a stopping worker may take beyond its grace.
const STOP_MARGIN: Duration = Duration::from_secs(5);

/// How a worker ended.
pub(super) enum End {
    /// By itself, with this status.
    Exited(String),
    /// It must be killed, for this reason.
    Broken(String),
}

/// What happens during a session.
enum Event {
    Asked(io::Result<Option<(Request, Vec<OwnedFd>)>>),
    Ended(End),
    Exited(String),
    Seek,
    Stop,
    StopOverdue,
    Successor(tokio::net::UnixStream),
    SuccessorServes(bool),
}

impl Supervisor {
    pub(super) async fn session(
        &mut self,
        child: &mut Child,
        channel: &AsyncFd<OwnedFd>,
        signals: &mut Signals,
    ) -> End {
        let mut stop_by: Option<Instant> = None;
        let mut successor: Option<tokio::net::UnixStream> = None;
        loop {
            let next = self.next(child, channel, signals, stop_by, &mut successor).await;
            let done = match next {
                Event::Asked(Ok(Some((request, _)))) => self.answer(channel, request).await,
                Event::Asked(Ok(None)) => {
                    // It is gone, or about to be.
                    let status = tokio::time::timeout(STOP_MARGIN, child.wait()).await;
                    return match status {
                        Ok(Ok(status)) => End::Exited(status.to_string()),
                        Ok(Err(_)) | Err(_) => End::Broken("it closed its channel".to_owned()),
                    };
                }
                Event::Asked(Err(error)) => return End::Broken(error.to_string()),
                Event::Ended(end) => return end,
                Event::Exited(container) => {
                    let sighting = Sighting { container, seen: Seen::Absent };
                    self.notice(channel, Notice::Sighting(sighting), None).await
                }
                Event::Seek => self.seek(channel).await,
                Event::Stop => {
                    self.stopping = true;
                    stop_by = Some(Instant::now() + self.config.stop_grace + STOP_MARGIN);
                    self.stop(channel, self.config.stop_grace, successor.is_none()).await
                }
                Event::StopOverdue => return End::Broken("it did not stop in time".to_owned()),
                Event::Successor(stream) => {
                    successor = self.hand_over(stream).await;
                    Ok(())
                }
                Event::SuccessorServes(false) => {
                    event("supervisor", "handover-failed", &[]);
                    successor = None;
                    Ok(())
                }
                Event::SuccessorServes(true) => {
                    event("supervisor", "handed-over", &[]);
                    self.stopping = true;
                    self.held.clear();
                    stop_by = Some(Instant::now() + self.config.handover_grace + STOP_MARGIN);
                    self.stop(channel, self.config.handover_grace, false).await
                }
            };
            if let Err(error) = done {
                return End::Broken(error.to_string());
            }
        }
    }

    async fn next(
        &mut self,
        child: &mut Child,
        channel: &AsyncFd<OwnedFd>,
        signals: &mut Signals,
        stop_by: Option<Instant>,
        successor: &mut Option<tokio::net::UnixStream>,
    ) -> Event {
        let seek = self.watch.next_seek();
        let handed_over = self.stopping;
        tokio::select! {
            message = receive(channel) => Event::Asked(message),
            status = child.wait() => Event::Ended(match status {
                Ok(status) => End::Exited(status.to_string()),
                Err(error) => End::Broken(error.to_string()),
            }),
            container = self.watch.exited() => Event::Exited(container),
            () = until(seek) => Event::Seek,
            () = signals.next() => Event::Stop,
            () = until(stop_by) => Event::StopOverdue,
            Ok((stream, _)) = self.successors.accept(), if successor.is_none() && !handed_over
                => Event::Successor(stream),
            serves = super::handover::serves(successor.as_ref()), if !handed_over
                => Event::SuccessorServes(serves),
        }
    }

    async fn answer(&mut self, channel: &AsyncFd<OwnedFd>, request: Request) -> io::Result<()> {
        let id = request.id;
        match request.ask {
            Ask::Start => self.answer_start(channel, id).await,
            Ask::Listen(place) => {
                let reply = self.listen(&place);
                let socket = self.held.get(&place_of(&place, &reply)).map(|held| &held.socket);
                let sent = matches!(reply, Reply::Listening { .. }).then_some(socket).flatten();
                say(channel, id, reply, sent.map(AsFd::as_fd).as_slice()).await
            }
            Ask::Close(place) => {
                self.held.remove(&place);
                self.asked.remove(&place);
                say(channel, id, Reply::Done, &[]).await
            }
            Ask::Serving => {
                self.serves_since = Some(Instant::now());
                self.held.retain(|place, _| self.asked.contains(place));
                if let Some(predecessor) = self.predecessor.take() {
                    predecessor.release();
                }
                event("supervisor", "worker-serves", &[("sockets", &self.held.len())]);
                say(channel, id, Reply::Done, &[]).await
            }
            Ask::Watch(ids) => {
                let sightings = self.watch.add(ids);
                say(channel, id, Reply::Sightings(sightings), &[]).await
            }
            Ask::Unwatch(ids) => {
                self.watch.remove(&ids);
                say(channel, id, Reply::Done, &[]).await
            }
            Ask::Look(container) => {
                let sighting = self.watch.look(container);
                say(channel, id, Reply::Sightings(vec![sighting]), &[]).await
            }
            Ask::Ports(container) => say(channel, id, self.ports(&container), &[]).await,
            Ask::Table => {
                let table = self.store.table();
                say(channel, id, Reply::Done, table.as_ref().map(AsFd::as_fd).as_slice()).await
            }
            Ask::NewTable => match self.store.start() {
                Ok(file) => say(channel, id, Reply::Done, &[file.as_fd()]).await,
                Err(error) => say(channel, id, Reply::Failed(error.to_string()), &[]).await,
            },
            Ask::AccessLog => match self.store.access_log() {
                Ok(file) => say(channel, id, Reply::Done, &[file.as_fd()]).await,
                Err(error) => say(channel, id, Reply::Failed(error.to_string()), &[]).await,
            },
            Ask::Certificate(certificate) => match self.store.certificate(&certificate) {
                Ok(file) => say(channel, id, Reply::Done, &[file.as_fd()]).await,
                Err(error) => say(channel, id, Reply::Failed(error.to_string()), &[]).await,
            },
            Ask::NewCertificate => match self.store.start_certificate() {
                Ok(file) => say(channel, id, Reply::Done, &[file.as_fd()]).await,
                Err(error) => say(channel, id, Reply::Failed(error.to_string()), &[]).await,
            },
            Ask::CommitCertificate(certificate) => {
                let result = match self.stopping {
                    true => Err(io::Error::other("this edge is stopping")),
                    false => self.store.commit_certificate(&certificate),
                };
                say(channel, id, done(result), &[]).await
            }
            Ask::KeepCertificates(ids) => {
                let result = match self.stopping {
                    true => Ok(()),
                    false => self.store.keep_certificates(&ids),
                };
                say(channel, id, done(result), &[]).await
            }
            Ask::CommitTable { replaces_good } => {
                // After a handover the directory belongs to the successor.
                let result = match self.stopping {
                    true => Err(io::Error::other("this edge is stopping")),
                    false => self.store.commit(replaces_good),
                };
                say(channel, id, done(result), &[]).await
            }
        }
    }

    async fn answer_start(&mut self, channel: &AsyncFd<OwnedFd>, id: u64) -> io::Result<()> {
        self.seed.advance(SystemTime::now());
        let (table, previous) = (self.store.table(), self.store.previous());
        let mut fds = vec![self.admin.as_fd()];
        fds.extend(table.as_ref().map(AsFd::as_fd));
        fds.extend(previous.as_ref().map(AsFd::as_fd));
        let reply = Reply::Start {
            supervisor_pid: std::process::id(),
            supervisor_uptime_ms: self.started.elapsed().as_millis() as u64,
            worker_restarts: self.restarts,
            has_table: table.is_some(),
            has_previous: previous.is_some(),
            seed: self.seed.clone(),
        };
        say(channel, id, reply, &fds).await
    }

    fn listen(&mut self, place: &Place) -> Reply {
        match self.open(place) {
            Ok(port) => {
                self.asked.insert(Place { port, ..place.clone() });
                Reply::Listening { port }
            }
            Err(error) => {
                let reason = sockets::bind_error(&error);
                Reply::NotListening { reason, detail: error.to_string() }
            }
        }
    }

    /// Opens a socket, unless it is open already; answers its port.
    fn open(&mut self, place: &Place) -> io::Result<u16> {
        let Some(container) = &place.namespace else {
            if self.held.contains_key(place) {
                return Ok(place.port);
            }
            let (socket, port) = sockets::listen(place.address, place.port)?;
            self.hold(place, port, socket, None);
            return Ok(port);
        };
        let not_there = || io::Error::new(io::ErrorKind::NotFound, "the container does not run");
        let pid = self.watch.pid(container).ok_or_else(not_there)?;
        let namespace = Some(sockets::namespace_of(pid)?);
        if self.held.get(place).is_some_and(|held| held.namespace == namespace) {
            return Ok(place.port);
        }
        let (socket, port) = sockets::listen_in(pid, place.address, place.port)?;
        self.hold(place, port, socket, namespace);
        Ok(port)
    }

    fn hold(&mut self, place: &Place, port: u16, socket: OwnedFd, namespace: Option<(u64, u64)>) {
        let place = Place { port, ..place.clone() };
        self.held.insert(place, Held { socket, namespace });
    }

    fn ports(&self, container: &str) -> Reply {
        if !containers::is_container_id(container) {
            return Reply::Failed(format!("`{container}` is not a full container id"));
        }
        match self.watch.pid(container).map(containers::listening_ports) {
            Some(Ok(ports)) => Reply::Ports(ports),
            Some(Err(error)) => Reply::Failed(error.to_string()),
            None => Reply::Failed("the container does not run, or cannot be seen".to_owned()),
        }
    }

    async fn seek(&mut self, channel: &AsyncFd<OwnedFd>) -> io::Result<()> {
        for (sighting, _) in self.watch.seek() {
            let places: Vec<Place> = self.held.keys().cloned().collect();
            let container = Some(&sighting.container);
            for place in places.iter().filter(|place| place.namespace.as_ref() == container) {
                let before = self.held.get(place).and_then(|held| held.namespace);
                match self.open(place) {
                    Err(error) => {
                        let fields: [(&str, &dyn std::fmt::Display); 2] =
                            [("container", &sighting.container), ("error", &error)];
                        event("supervisor", "reopen-failed", &fields);
                        self.watch.lose(&sighting.container);
                    }
                    Ok(_) => {
                        let held = &self.held[place];
                        if held.namespace != before {
                            let notice = Notice::Reopened(place.clone());
                            self.notice(channel, notice, Some(held.socket.as_fd())).await?;
                        }
                    }
                }
            }
            self.notice(channel, Notice::Sighting(sighting), None).await?;
        }
        Ok(())
    }

    async fn stop(
        &self,
        channel: &AsyncFd<OwnedFd>,
        grace: Duration,
        accepting: bool,
    ) -> io::Result<()> {
        let notice = Notice::Stop { grace_ms: grace.as_millis() as u64, accepting };
        self.notice(channel, notice, None).await
    }

    async fn notice(
        &self,
        channel: &AsyncFd<OwnedFd>,
        notice: Notice,
        fd: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        send(channel, &FromSupervisor::Notice(notice), fd.as_slice()).await
    }
}

fn done(result: io::Result<()>) -> Reply {
    result.map_or_else(|error| Reply::Failed(error.to_string()), |()| Reply::Done)
}

/// The place a socket is held at: with the port that was taken, if it was left open.
fn place_of(asked: &Place, reply: &Reply) -> Place {
    let port = if let Reply::Listening { port } = reply { *port } else { asked.port };
    Place { port, ..asked.clone() }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}

async fn receive(channel: &AsyncFd<OwnedFd>) -> io::Result<Option<(Request, Vec<OwnedFd>)>> {
    loop {
        let mut ready = channel.readable().await?;
        if let Ok(message) = ready.try_io(channel::receive) {
            return message;
        }
    }
}

async fn say(
    channel: &AsyncFd<OwnedFd>,
    id: u64,
    reply: Reply,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    send(channel, &FromSupervisor::Reply { id, reply }, fds).await
}

async fn send(
    channel: &AsyncFd<OwnedFd>,
    message: &impl Serialize,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let sending = async {
        loop {
            let mut ready = channel.writable().await?;
            match ready.try_io(|socket| channel::send(socket, message, fds)) {
                // It is gone; that it has ended is seen elsewhere.
                Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
                Ok(result) => return result,
                Err(_) => {}
            }
        }
    };
    tokio::time::timeout(SEND_TIMEOUT, sending)
        .await
        .unwrap_or_else(|_| Err(io::Error::other("it does not take its messages")))
}
