//! Tokens as callers hold them: `shiplap_<id>_<secret>`.

use std::io;

use shiplap_model::{Secret, Token, TokenScope};
use subtle::ConstantTimeEq;

/// What all tokens begin with, so that scanners of repositories find them.
const PREFIX: &str = "shiplap_";
/// The id is looked up, not guessed: 8 bytes keep it short and unique.
const ID_BYTES: usize = 8;
/// The secret is guessed by nobody.
const SECRET_BYTES: usize = 32;
/// Compared with where no token has the id, so that both cost the same. Nothing has this hash.
const NOBODY: [u8; 32] = [0; 32];

/// A token that was just made: the only moment in which its secret is known.
#[derive(Debug)]
pub struct NewToken {
    /// What is kept.
    pub token: Token,
    /// What its holder gets: `shiplap_<id>_<secret>`.
    pub shown: Secret<String>,
}

impl NewToken {
    /// Makes one. `now_ms` and `expires_ms` are milliseconds since 1970.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn make(
        name: &str,
        scope: TokenScope,
        made_by: &str,
        now_ms: i64,
        expires_ms: Option<i64>,
    ) -> io::Result<Self> {
        let mut random = [0; ID_BYTES + SECRET_BYTES];
        fill(&mut random)?;
        let (id, secret) = random.split_at(ID_BYTES);
        let (id, secret) = (hex(id), hex(secret));
        let token = Token {
            id: id.clone(),
            name: name.to_owned(),
            hash: hash(&secret),
            scope,
            made_by: made_by.to_owned(),
            made_ms: now_ms,
            expires_ms,
            used_ms: None,
            revoked_ms: None,
        };
        Ok(Self { token, shown: Secret::new(format!("{PREFIX}{id}_{secret}")) })
    }
}

/// A token as somebody presents it, of the right form.
pub(crate) struct Presented {
    pub id: String,
    hash: [u8; 32],
}

impl Presented {
    /// Reads `shiplap_<id>_<secret>`. What has another form cannot be a token, which everybody
    /// knows.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let is_hex = |text: &str, bytes: usize| {
            text.len() == bytes * 2
                && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        (is_hex(id, ID_BYTES) && is_hex(secret, SECRET_BYTES))
            .then(|| Self { id: id.to_owned(), hash: hash(secret) })
    }

    /// Whether it is this token, at this moment. Takes the same time for every answer, also where
    /// there is no such token.
    pub(crate) fn proves(&self, token: Option<&Token>, now_ms: i64) -> bool {
        let expected = token.map_or(&NOBODY, |token| &token.hash);
        let same = bool::from(expected.ct_eq(&self.hash));
        let live = token.is_some_and(|token| token.works(now_ms));
        same & live
    }
}

fn hash(secret: &str) -> [u8; 32] {
    *blake3::hash(secret.as_bytes()).as_bytes()
}

fn fill(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        let flags = rustix::rand::GetRandomFlags::empty();
        match rustix::rand::getrandom(&mut bytes[filled..], flags) {
            Ok(more) => filled += more,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(expires_ms: Option<i64>) -> (Token, String) {
        let new = NewToken::make("ci", TokenScope::default(), "root@vm", 1000, expires_ms).unwrap();
        (new.token, new.shown.expose().clone())
    }

    #[test]
    fn a_token_proves_itself_and_no_other() {
        let (token, shown) = made(None);
        let (other, _) = made(None);
        let presented = Presented::parse(&shown).unwrap();
        assert_eq!(presented.id, token.id);
        assert!(presented.proves(Some(&token), 2000));
        assert!(!presented.proves(Some(&other), 2000));
        assert!(!presented.proves(None, 2000));
    }

    #[test]
    fn an_expired_or_revoked_token_proves_nothing() {
        let (mut token, shown) = made(Some(5000));
        let presented = Presented::parse(&shown).unwrap();
        assert!(presented.proves(Some(&token), 4999) && !presented.proves(Some(&token), 5000));
        token.revoked_ms = Some(1);
        assert!(!presented.proves(Some(&token), 2000));
    }

    #[test]
    fn what_is_kept_and_printed_does_not_hold_the_secret() {
        let new = NewToken::make("ci", TokenScope::default(), "me", 0, None).unwrap();
        let secret = new.shown.expose().rsplit('_').next().unwrap().to_owned();
        assert!(!format!("{new:?}").contains(&secret));
        assert_eq!(new.token.hash, *blake3::hash(secret.as_bytes()).as_bytes());
    }

    #[test]
    fn only_the_exact_form_is_a_token() {
        let (_, shown) = made(None);
        assert!(Presented::parse(&shown).is_some());
        for bad in [
            "",
            "shiplap_",
            "shiplap__",
            &shown[1..],
            &shown[..shown.len() - 1],
            &shown.to_uppercase(),
        ] {
            assert!(Presented::parse(bad).is_none(), "{bad}");
        }
        assert!(Presented::parse(&format!("{shown}0")).is_none());
    }
}
