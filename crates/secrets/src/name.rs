//! Names of secrets.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

/// Longer ones are a mistake.
const LONGEST: usize = 128;
/// Variables with these names steer the programs that load and deploy a project.
const STEERING: [&str; 3] = ["COMPOSE_", "DOCKER_", "SHIPLAP_"];

/// The name of a secret, which can be that of a variable.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let first = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
        let fits = text.as_bytes().first().is_some_and(first)
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !fits || text.len() > LONGEST {
            return Err(BadName::Form);
        }
        if let Some(prefix) = STEERING.iter().find(|prefix| text.starts_with(**prefix)) {
            return Err(BadName::Steering(prefix));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Why a text is no name of a secret. Does not hold the text: it may be a value in the wrong place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Not of the form.
    #[error(
        "a secret's name holds letters, digits and `_`, starts with no digit, and has at most 128 characters"
    )]
    Form,
    /// Taken.
    #[error("names that start with `{0}` steer programs and cannot be secrets")]
    Steering(&'static str),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_variables() {
        for good in ["A", "_x", "DB_PASSWORD", "key2", &"a".repeat(LONGEST)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", "2A", "A-B", "A.B", "../A", "A/B", "Ä", " A", "A\n", &"a".repeat(129)] {
            assert_eq!(bad.parse::<Name>(), Err(BadName::Form), "{bad:?}");
        }
        assert_eq!("COMPOSE_FILE".parse::<Name>(), Err(BadName::Steering("COMPOSE_")));
    }
}
