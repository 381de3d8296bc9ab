//! Names and passwords.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderValue;
use tokio::sync::Semaphore;

use crate::table::BasicAuth;

/// Verifications at once: each keeps a core busy for a tenth of a second.
static VERIFYING: Semaphore = Semaphore::const_new(2);
/// Those that wait for it. More are told to come back, so that guessing passwords costs no more
/// than two cores.
static WAITING: AtomicUsize = AtomicUsize::new(0);
const MAX_WAITING: usize = 64;
/// Compared with where there is no such name, so that names cannot be told by time: of no password.
const NOBODY: &str = "$2y$10$abcdefghijklmnopqrstuuGZ2yrzmkaOVrnoWlsS0hEhO0ymQbJzu";

/// Who is let in.
pub(super) struct Auth {
    config: BasicAuth,
    challenge: HeaderValue,
    /// By name, of the password that was right last.
    known: Mutex<HashMap<String, u128>>,
    keys: [RandomState; 2],
}

/// What came of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Right,
    Wrong,
    /// Too many are being verified.
    Busy,
}

impl Auth {
    /// `before` is kept if it says the same, with what it knows.
    pub(super) fn new(config: &BasicAuth, before: Option<&Arc<Auth>>) -> Arc<Auth> {
        if let Some(before) = before
            && before.config == *config
        {
            return before.clone();
        }
        let challenge = format!("Basic realm=\"{}\", charset=\"UTF-8\"", config.realm);
        Arc::new(Auth {
            config: config.clone(),
            challenge: HeaderValue::from_str(&challenge).expect("realms are checked"),
            known: Mutex::default(),
            keys: [RandomState::new(), RandomState::new()],
        })
    }

    /// The value of `WWW-Authenticate`.
    pub(super) fn challenge(&self) -> HeaderValue {
        self.challenge.clone()
    }

    /// Judges the value of `Authorization`.
    pub(super) async fn judge(self: Arc<Self>, header: Option<&HeaderValue>) -> Verdict {
        let Some((name, password)) = header.and_then(credentials) else { return Verdict::Wrong };
        // What is remembered is not the password, and not what it could be found out from: a
        // keyed digest, whose keys are this process's own.
        let tag = self.tag(&password);
        if self.known.lock().expect("no panic while held").get(&name) == Some(&tag) {
            return Verdict::Right;
        }
        if WAITING.fetch_add(1, Ordering::Relaxed) >= MAX_WAITING {
            WAITING.fetch_sub(1, Ordering::Relaxed);
            return Verdict::Busy;
        }
        let verifying = VERIFYING.acquire().await.expect("never closed");
        WAITING.fetch_sub(1, Ordering::Relaxed);
        let hash = self.config.users.get(&name).map_or(NOBODY, String::as_str).to_owned();
        let verified = tokio::task::spawn_blocking(move || {
            let _verifying = verifying;
            bcrypt::verify(password, &hash).unwrap_or(false)
        });
        // There may be a password that fits nobody.
        if verified.await.unwrap_or(false) && self.config.users.contains_key(&name) {
            self.known.lock().expect("no panic while held").insert(name, tag);
            return Verdict::Right;
        }
        Verdict::Wrong
    }

    fn tag(&self, password: &[u8]) -> u128 {
        let [high, low] = &self.keys;
        (u128::from(high.hash_one(password)) << 64) | u128::from(low.hash_one(password))
    }
}

/// Name and password of a header.
fn credentials(header: &HeaderValue) -> Option<(String, Vec<u8>)> {
    let (scheme, value) = header.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = STANDARD.decode(value.trim()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let (name, password) = (&decoded[..colon], &decoded[colon + 1..]);
    let name = String::from_utf8(name.to_vec()).ok()?;
    (password.len() <= crate::password::LONGEST).then(|| (name, password.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn passwords_are_verified_once_and_known_from_then_on() {
        let hash = bcrypt::hash("secret", 8).unwrap();
        let config = BasicAuth {
            realm: "dev".to_owned(),
            users: [("ann".to_owned(), hash)].into_iter().collect(),
        };
        let auth = Auth::new(&config, None);
        let header = |text: &str| {
            HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(text))).unwrap()
        };
        let began = std::time::Instant::now();
        assert_eq!(auth.clone().judge(Some(&header("ann:secret"))).await, Verdict::Right);
        let once = began.elapsed();
        let began = std::time::Instant::now();
        let right = header("ann:secret");
        for _ in 0..100 {
            assert_eq!(auth.clone().judge(Some(&right)).await, Verdict::Right);
        }
        assert!(began.elapsed() < once * 10, "it costs a bcrypt each time");
        for wrong in ["ann:Secret", "bob:secret", "ann"] {
            assert_eq!(auth.clone().judge(Some(&header(wrong))).await, Verdict::Wrong, "{wrong}");
        }
        assert_eq!(auth.clone().judge(None).await, Verdict::Wrong);
        let bearer = HeaderValue::from_static("Bearer YW5uOnNlY3JldA==");
        assert_eq!(auth.clone().judge(Some(&bearer)).await, Verdict::Wrong);
        // The same configuration keeps what is known, another does not.
        assert!(Arc::ptr_eq(&auth, &Auth::new(&config, Some(&auth))));
        let other = BasicAuth { realm: "x".to_owned(), ..config };
        assert!(!Arc::ptr_eq(&auth, &Auth::new(&other, Some(&auth))));
    }

    #[test]
    fn the_hash_of_nobody_is_one() {
        assert!(!bcrypt::verify("", NOBODY).unwrap());
    }
}
