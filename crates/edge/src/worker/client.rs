//! What is known of one client's connection, by all who serve it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use hyper::header::HeaderValue;

use super::Core;
use super::framing::Place;
use super::refusal::Refusal;
use super::stream::SharedStream;
use super::tunnel::Upgraded;
use crate::table::Limits;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

fn now_ms() -> u64 {
    // 0 means "not".
    START.elapsed().as_millis() as u64 + 1
}

/// How a client came to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    /// Over TLS, which has been taken off already.
    Https,
}

impl Scheme {
    pub(super) fn name(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

/// One client's connection.
pub(super) struct Client {
    pub peer: IpAddr,
    pub scheme: Scheme,
    pub limits: Limits,
    /// The peer, as the header says it.
    pub peer_text: HeaderValue,
    /// The socket below everything, to look at.
    socket: SharedStream,
    /// Requests that are not answered in full.
    open: AtomicU32,
    place: AtomicU8,
    /// Since when it has been where it is.
    since_ms: AtomicU64,
    /// Since when the client has not taken what we have for it; 0 if it does.
    stalled_ms: AtomicU64,
    /// From now on bytes are not HTTP.
    upgraded: AtomicBool,
    /// Seldom used: an upgrade that was agreed on, or what is wrong with what came.
    rare: Mutex<Rare>,
}

#[derive(Default)]
struct Rare {
    upgrade: Option<Upgraded>,
    refused: Option<Refusal>,
}

const BETWEEN: u8 = 0;
const HEAD: u8 = 1;
const BODY: u8 = 2;

/// What a connection is doing, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    /// Nothing: no request is under way.
    Idle(Duration),
    /// It sends a head.
    Head(Duration),
    /// At least one request is being served.
    Busy,
    /// The same, but the client does not take its answer.
    Stalled(Duration),
}

impl Client {
    pub(super) fn new(
        peer: IpAddr,
        scheme: Scheme,
        limits: Limits,
        socket: SharedStream,
    ) -> Arc<Client> {
        let peer = peer.to_canonical();
        let peer_text = HeaderValue::try_from(peer.to_string()).expect("an address is plain text");
        Arc::new(Client {
            peer,
            scheme,
            limits,
            peer_text,
            socket,
            open: AtomicU32::new(0),
            place: AtomicU8::new(BETWEEN),
            since_ms: AtomicU64::new(now_ms()),
            stalled_ms: AtomicU64::new(0),
            upgraded: AtomicBool::new(false),
            rare: Mutex::default(),
        })
    }

    /// A request's head is complete.
    pub(super) fn request_began(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// Its answer is complete, or will never be.
    pub(super) fn request_ended(&self) {
        if self.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.since_ms.store(now_ms(), Ordering::Relaxed);
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }

    /// Where in its bytes the client is.
    pub(super) fn is_at(&self, place: Place) {
        let place = match place {
            Place::Between => BETWEEN,
            Place::Head => HEAD,
            Place::Body => BODY,
        };
        if self.place.swap(place, Ordering::Relaxed) != place {
            self.since_ms.store(now_ms(), Ordering::Relaxed);
        }
    }

    /// Whether it takes what we have for it.
    pub(super) fn takes(&self, takes: bool) {
        let stalled = self.stalled_ms.load(Ordering::Relaxed);
        match (takes, stalled) {
            (true, 0) => {}
            (true, _) => self.stalled_ms.store(0, Ordering::Relaxed),
            (false, 0) => self.stalled_ms.store(now_ms(), Ordering::Relaxed),
            (false, _) => {}
        }
    }

    pub(super) fn doing(&self) -> Doing {
        let now = now_ms();
        let since =
            |ms: &AtomicU64| Duration::from_millis(now.saturating_sub(ms.load(Ordering::Relaxed)));
        if self.stalled_ms.load(Ordering::Relaxed) != 0 {
            return Doing::Stalled(since(&self.stalled_ms));
        }
        match (self.is_busy(), self.place.load(Ordering::Relaxed)) {
            (true, _) => Doing::Busy,
            (false, BETWEEN) => Doing::Idle(since(&self.since_ms)),
            // Also the rest of a body that nobody wants.
            (false, _) => Doing::Head(since(&self.since_ms)),
        }
    }

    /// The client has closed its connection, or its half of it.
    pub(super) fn is_gone(&self) -> bool {
        self.socket.is_closed()
    }

    pub(super) fn is_upgraded(&self) -> bool {
        self.upgraded.load(Ordering::Relaxed)
    }

    /// The replica has agreed: what comes after this answer is between the two.
    pub(super) fn upgrade(&self, upgrade: Upgraded) {
        self.upgraded.store(true, Ordering::Relaxed);
        self.rare.lock().expect("no panic while held").upgrade = Some(upgrade);
    }

    pub(super) fn take_upgrade(&self) -> Option<Upgraded> {
        self.rare.lock().expect("no panic while held").upgrade.take()
    }

    /// What came is not taken.
    pub(super) fn refuse(&self, refusal: Refusal) {
        self.rare.lock().expect("no panic while held").refused = Some(refusal);
    }

    pub(super) fn refused(&self) -> Option<Refusal> {
        self.rare.lock().expect("no panic while held").refused
    }
}

/// Counts an open connection.
pub(super) struct Counted(Arc<Core>);

impl Counted {
    pub(super) fn new(core: &Arc<Core>) -> Counted {
        core.connections.fetch_add(1, Ordering::SeqCst);
        Counted(core.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::SeqCst);
    }
}
