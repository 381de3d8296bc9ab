//! Keys for session tickets, with which clients come back without a full handshake.
//!
//! The supervisor keeps a seed in memory and hands it to every worker, and to the supervisor that
//! takes over from it; so a ticket outlives a crash and an upgrade. Each period has a seed of its
//! own, which is made of the one before and does not lead back: who learns today's keys cannot
//! read what was said the day before yesterday.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use chacha20poly1305::aead::{Aead, KeyInit};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rustls::server::ProducesTickets;
use serde::{Deserialize, Serialize};

use crate::certificate::seconds;

/// For so long a key makes tickets; for as long again they are taken.
const PERIOD: Duration = Duration::from_secs(12 * 3600);
const NONCE_BYTES: usize = 24;
const NEXT_SEED: &str = "shiplap edge 2026-11 next seed of session tickets";
const KEY: &str = "shiplap edge 2026-11 key of session tickets";

/// What the keys of a period, and of all after it, are made of.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Seed {
    period: u64,
    bytes: [u8; 32],
}

/// Not for logs.
impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seed").field("period", &self.period).finish_non_exhaustive()
    }
}

impl Seed {
    /// A new one, by chance.
    pub(crate) fn new() -> std::io::Result<Seed> {
        let bytes = random()?;
        Ok(Seed { period: period_at(SystemTime::now()).saturating_sub(1), bytes })
    }

    /// Moves on to the period before this moment's, whose tickets are still taken. A clock that was
    /// set back moves nothing.
    pub(crate) fn advance(&mut self, now: SystemTime) {
        let wanted = period_at(now).saturating_sub(1);
        // A clock that jumps ahead by a hundred years costs a tenth of a second.
        while self.period < wanted {
            self.bytes = blake3::derive_key(NEXT_SEED, &self.bytes);
            self.period += 1;
        }
    }

    fn next(&self) -> Seed {
        Seed { period: self.period + 1, bytes: blake3::derive_key(NEXT_SEED, &self.bytes) }
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&blake3::derive_key(KEY, &self.bytes).into())
    }
}

fn period_at(time: SystemTime) -> u64 {
    seconds(time) / PERIOD.as_secs()
}

fn random<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    // The kernel gives up to 256 bytes at once.
    if got == N { Ok(bytes) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
}

/// Seals tickets, and opens those of this period and the one before.
pub(crate) struct Tickets(Mutex<Keys>);

struct Keys {
    seed: Seed,
    current: XChaCha20Poly1305,
    before: XChaCha20Poly1305,
}

impl Keys {
    fn of(seed: Seed) -> Keys {
        Keys { current: seed.next().cipher(), before: seed.cipher(), seed }
    }
}

/// Keys are not for logs.
impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets")
    }
}

impl Tickets {
    pub(crate) fn new(mut seed: Seed) -> Tickets {
        seed.advance(SystemTime::now());
        Tickets(Mutex::new(Keys::of(seed)))
    }

    fn with<T>(&self, now: SystemTime, use_them: impl FnOnce(&Keys) -> T) -> T {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.seed.period + 1 < period_at(now) {
            let mut seed = keys.seed.clone();
            seed.advance(now);
            *keys = Keys::of(seed);
        }
        use_them(&keys)
    }

    fn seal(&self, plain: &[u8], now: SystemTime) -> Option<Vec<u8>> {
        let nonce: [u8; NONCE_BYTES] = random().ok()?;
        let sealed = self.with(now, |keys| keys.current.encrypt(&XNonce::from(nonce), plain));
        Some([&nonce[..], &sealed.ok()?].concat())
    }

    fn open(&self, ticket: &[u8], now: SystemTime) -> Option<Vec<u8>> {
        let (nonce, sealed) = ticket.split_at_checked(NONCE_BYTES)?;
        let nonce = XNonce::from_slice(nonce);
        self.with(now, |keys| {
            let opened = keys.current.decrypt(nonce, sealed);
            opened.or_else(|_| keys.before.decrypt(nonce, sealed)).ok()
        })
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        PERIOD.as_secs() as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, SystemTime::now())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.open(ticket, SystemTime::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_outlive_their_process_for_two_periods_and_no_longer() {
        let seed = Seed::new().unwrap();
        let now = SystemTime::now();
        let ticket = Tickets::new(seed.clone()).seal(b"session", now).unwrap();
        assert_eq!(Tickets::new(seed.clone()).open(&ticket, now).unwrap(), b"session");
        let tickets = Tickets::new(seed.clone());
        assert_eq!(tickets.open(&ticket, now + PERIOD).unwrap(), b"session");
        assert_eq!(tickets.open(&ticket, now + PERIOD * 2), None);
        // What is forgotten stays so, whatever the clock says.
        assert_eq!(tickets.open(&ticket, now), None);
        assert_eq!(Tickets::new(Seed::new().unwrap()).open(&ticket, now), None);
    }

    #[test]
    fn a_seed_is_the_same_whoever_moves_it_on_and_what_was_changed_is_refused() {
        let (mut one, now) = (Seed::new().unwrap(), SystemTime::now());
        let other = one.clone();
        one.advance(now + PERIOD * 3);
        let later = now + PERIOD * 3;
        let mut ticket = Tickets::new(one).seal(b"session", later).unwrap();
        assert!(Tickets::new(other.clone()).open(&ticket, later).is_some());
        *ticket.last_mut().unwrap() ^= 1;
        assert_eq!(Tickets::new(other.clone()).open(&ticket, later), None);
        assert_eq!(Tickets::new(other).open(b"short", later), None);
    }
}
