//! Which rows a rate takes: decided by a keyed hash of the row's key, so that the same rows are
//! taken next time, and a higher rate keeps those that a lower one took.

use serde::Deserialize;

use crate::key::Key;

/// A share of all rows, from nothing to everything.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate(f64);

impl Rate {
    /// Every row.
    pub const ALL: Self = Self(1.0);

    /// A share between 0 and 1.
    pub fn new(share: f64) -> Option<Self> {
        (0.0..=1.0).contains(&share).then_some(Self(share))
    }

    /// Between 0 and 1.
    pub fn share(self) -> f64 {
        self.0
    }

    /// Whether a row with this draw is taken.
    pub fn takes(self, draw: u64) -> bool {
        // 2^64 is exact as a float, and the cast saturates: a rate of 1 takes every draw.
        self.0 >= 1.0 || draw < (self.0 * 18_446_744_073_709_551_616.0) as u64
    }
}

impl std::str::FromStr for Rate {
    type Err = String;

    /// Reads `10%`, `0.1`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a rate such as 10% or 0.1");
        let (number, scale) = match text.strip_suffix('%') {
            Some(percent) => (percent.trim_end(), 100.0),
            None => (text, 1.0),
        };
        let share: f64 = number.parse().map_err(|_| wrong())?;
        Self::new(share / scale).ok_or_else(wrong)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Draws a number for each row.
#[derive(Clone)]
pub struct Chance {
    key: [u8; 32],
}

impl Chance {
    /// Draws under a secret: without it nobody can tell who was sampled from an id alone.
    pub fn new(secret: &[u8]) -> Self {
        Self { key: blake3::derive_key("shiplap data 2026-11 which rows are taken", secret) }
    }

    /// Uniform in all of `u64`, the same for the same table and row.
    pub fn draw(&self, table: &str, row: &Key) -> u64 {
        let mut bytes = Vec::with_capacity(64);
        bytes.extend_from_slice(table.as_bytes());
        bytes.push(0);
        row.write_to(&mut bytes);
        let hash = blake3::keyed_hash(&self.key, &bytes);
        let first: [u8; 8] = hash.as_bytes()[..8].try_into().expect("a hash has 32 bytes");
        u64::from_be_bytes(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_higher_rate_keeps_what_a_lower_one_took() {
        let chance = Chance::new(b"key");
        let [low, high] = [0.1, 0.3].map(|share| Rate::new(share).unwrap());
        let draws: Vec<u64> = (0..20_000).map(|id| chance.draw("users", &Key::Int(id))).collect();
        let taken = draws.iter().filter(|&&draw| low.takes(draw)).count();
        assert!((1_850..2_150).contains(&taken), "{taken} of 20000 at 10 %");
        assert!(draws.iter().all(|&draw| !low.takes(draw) || high.takes(draw)));
        assert!(draws.iter().all(|&draw| Rate::ALL.takes(draw)));
    }

    #[test]
    fn rates_are_read_from_percent_and_shares() {
        assert_eq!("10%".parse(), Ok(Rate(0.1)));
        assert_eq!("0.25".parse(), Ok(Rate(0.25)));
        assert!("110%".parse::<Rate>().is_err() && "x".parse::<Rate>().is_err());
        assert!("NaN".parse::<Rate>().is_err());
    }
}
