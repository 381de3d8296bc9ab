//! The listeners of the table in force.

use std::net::TcpListener;
use std::sync::Arc;

use tokio::task::JoinHandle;

use super::doors::Doors;
use super::link::refusal;
use super::{Core, accept};
use crate::api::{BindError, ListenerStatus};
use crate::channel::{Ask, Place, Reply};
use crate::log::event;
use crate::table::Listener;

/// A listener of the table in force.
pub(super) struct Live {
    pub number: u64,
    pub listener: Listener,
    pub socket: Result<TcpListener, (BindError, String)>,
    accepting: Vec<JoinHandle<()>>,
    doors: Arc<Doors>,
}

impl Live {
    pub(super) fn status(&self) -> ListenerStatus {
        ListenerStatus {
            listener: self.listener.clone(),
            bound: self.socket.is_ok(),
            error: self.socket.as_ref().err().map(|(reason, detail)| format!("{reason}: {detail}")),
        }
    }

    pub(super) fn place(&self) -> Place {
        place(&self.listener)
    }

    pub(super) fn is_at(&self, listener: &Listener) -> bool {
        let own = (&self.listener.namespace, self.listener.address, self.listener.port);
        own == (&listener.namespace, listener.address, listener.port)
    }

    pub(super) fn accept(&mut self, core: &Arc<Core>) {
        if let Ok(socket) = &self.socket {
            match accept::start(core, self.number, socket, &self.doors) {
                Ok(accepting) => self.accepting = accepting,
                Err(error) => self.socket = Err((BindError::Failed, error.to_string())),
            }
        }
    }

    /// Nothing more is accepted when this returns.
    pub(super) async fn stop(&mut self) {
        for accepting in self.accepting.drain(..) {
            accepting.abort();
            // That it was aborted is what we want to hear.
            let _ = accepting.await;
        }
    }

    /// Somebody else has the socket now; it is not ours any more when this returns.
    pub(super) async fn hand_over(&mut self) {
        self.stop().await;
        self.socket = Err((BindError::Failed, "handed over".to_owned()));
    }

    /// The port is free when this returns.
    pub(super) async fn close(mut self, core: &Core) {
        self.stop().await;
        let place = self.place();
        drop(self.socket);
        let _ = core.link.ask(Ask::Close(place)).await;
    }
}

/// Opens a listener; the number is its name from now on.
pub(super) async fn open(core: &Core, next_number: &mut u64, mut listener: Listener) -> Live {
    let socket = listen(core, &place(&listener)).await.map(|(socket, port)| {
        listener.port = port;
        socket
    });
    *next_number += 1;
    Live { number: *next_number, listener, socket, accepting: Vec::new(), doors: Arc::default() }
}

/// Opens a socket; answers it and its port.
pub(super) async fn listen(
    core: &Core,
    place: &Place,
) -> Result<(TcpListener, u16), (BindError, String)> {
    let failed = |detail: String| Err((BindError::Failed, detail));
    match core.link.ask(Ask::Listen(place.clone())).await {
        Ok((Reply::Listening { port }, mut fds)) => match fds.pop() {
            Some(socket) => Ok((TcpListener::from(socket), port)),
            None => failed("the supervisor sent no socket".to_owned()),
        },
        Ok((Reply::NotListening { reason, detail }, _)) => Err((reason, detail)),
        Ok((reply, _)) => failed(refusal("listening", reply)),
        Err(error) => failed(error.to_string()),
    }
}

fn place(listener: &Listener) -> Place {
    Place { namespace: listener.namespace.clone(), address: listener.address, port: listener.port }
}

/// Says that a listener could not be opened.
pub(super) fn tell_unbound(listener: &Listener, detail: &str) {
    event("worker", "bind-failed", &[("listener", &listener.place()), ("error", &detail)]);
}
