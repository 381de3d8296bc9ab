//! Passwords of those who are let in: bcrypt, as `htpasswd -B` writes it.

use std::fmt;

/// bcrypt looks at no more bytes; a longer one would be cut without a word.
pub(crate) const LONGEST: usize = 72;
/// A tenth of a second on a small server: slow for whoever tries many, and verified passwords are
/// remembered for a while.
const COST: u32 = 10;

/// A password that cannot be hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PasswordError {
    /// It is empty.
    Empty,
    /// It has more than 72 bytes.
    TooLong,
    /// It has a NUL, behind which bcrypt does not look.
    Nul,
    /// The machine has no randomness for a salt.
    NoSalt,
}

impl fmt::Display for PasswordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "a password cannot be empty",
            Self::TooLong => "a password has 72 bytes at most",
            Self::Nul => "a password cannot have a NUL",
            Self::NoSalt => "the machine has no randomness",
        })
    }
}

impl std::error::Error for PasswordError {}

/// The hash of a password, `$2y$…`.
///
/// # Errors
/// See [`PasswordError`].
pub fn hash_password(password: &str) -> Result<String, PasswordError> {
    match password.len() {
        0 => return Err(PasswordError::Empty),
        length if length > LONGEST => return Err(PasswordError::TooLong),
        _ if password.contains('\0') => return Err(PasswordError::Nul),
        _ => {}
    }
    let parts = bcrypt::hash_with_result(password, COST).map_err(|_| PasswordError::NoSalt)?;
    Ok(parts.format_for_version(bcrypt::Version::TwoY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hashed_is_recognised() {
        let hash = hash_password("open sesame").expect("fine");
        assert!(hash.starts_with("$2y$10$") && hash.len() == 60, "{hash}");
        assert!(bcrypt::verify("open sesame", &hash).expect("a hash"));
        assert!(!bcrypt::verify("open", &hash).expect("a hash"));
        assert_eq!(hash_password(""), Err(PasswordError::Empty));
        assert_eq!(hash_password(&"x".repeat(73)), Err(PasswordError::TooLong));
        assert_eq!(hash_password("a\0b"), Err(PasswordError::Nul));
    }
}
