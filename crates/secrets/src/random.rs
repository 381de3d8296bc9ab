//! Random texts, from the system's own source.

use std::io;

use shiplap_model::Secret;

use crate::StoreError;

/// Letters and digits, in the order of their codes.
pub const ALPHANUMERIC: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// What needs no escaping in a URL: 64 characters, so each is worth six bits.
pub const URL_SAFE: &[u8] = b"-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz";
/// Letters, digits and signs. Those that shells, `.env` files and Compose files give a meaning to
/// are left out: quotes, backslashes, `$`, `` ` ``, `!`, `#`, `&`.
pub const WITH_SIGNS: &[u8] =
    b"%*+,-.0123456789:=?@ABCDEFGHIJKLMNOPQRSTUVWXYZ^_abcdefghijklmnopqrstuvwxyz~";

/// Bytes.
///
/// # Errors
/// [`StoreError::NoRandomness`].
pub fn bytes(count: usize) -> Result<Secret<Vec<u8>>, StoreError> {
    let mut bytes = vec![0; count];
    let mut filled = 0;
    while filled < count {
        let flags = rustix::rand::GetRandomFlags::empty();
        match rustix::rand::getrandom(&mut bytes[filled..], flags) {
            Ok(more) => filled += more,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(StoreError::NoRandomness(io::Error::from(error))),
        }
    }
    Ok(Secret::new(bytes))
}

/// A text of `count` characters of an alphabet, each as likely as any other.
///
/// # Errors
/// [`StoreError::NoRandomness`].
///
/// # Panics
/// If the alphabet is empty or has more than 256 characters.
pub fn text(count: usize, alphabet: &[u8]) -> Result<Secret<Vec<u8>>, StoreError> {
    assert!((1..=256).contains(&alphabet.len()), "an alphabet fits a byte");
    // With 62 characters, bytes from 248 on would make the first eight more likely.
    let fair = 256 - 256 % alphabet.len();
    let mut text = Vec::with_capacity(count);
    while text.len() < count {
        let more = bytes(count - text.len())?;
        let fair = more.expose().iter().map(|byte| usize::from(*byte)).filter(|byte| *byte < fair);
        text.extend(fair.map(|byte| alphabet[byte % alphabet.len()]));
    }
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_turns_up_equally_often() {
        for alphabet in [ALPHANUMERIC, URL_SAFE, WITH_SIGNS] {
            let each = 2_000;
            let text = text(alphabet.len() * each, alphabet).unwrap();
            for character in alphabet {
                let count = text.expose().iter().filter(|c| *c == character).count();
                // The standard deviation is 45: ten of them are out of reach of chance.
                assert!(count.abs_diff(each) < 450, "{}: {count}", char::from(*character));
            }
            assert!(text.expose().iter().all(|c| alphabet.contains(c)));
        }
    }

    #[test]
    fn alphabets_name_each_character_once() {
        for alphabet in [ALPHANUMERIC, URL_SAFE, WITH_SIGNS] {
            assert!(alphabet.is_sorted_by(|a, b| a < b));
        }
        assert_eq!(URL_SAFE.len(), 64);
    }
}
