//! What was masked, remembered so that the target can be searched for it.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, PoisonError};

use super::class::Class;
use super::detect;

/// Sets that are locked on their own, so that sessions seldom wait for each other.
const SHARDS: usize = 16;
/// Shorter values are met by chance.
const SHORTEST: usize = 8;
/// Longer ones are texts, and are found by their parts.
const LONGEST: usize = 512;

/// Hashes of the values that were masked: eight bytes each, of 64 bits, so that among a million
/// of them a value is taken for another once in some ten million million.
pub struct Originals {
    hasher: RandomState,
    shards: Vec<Mutex<HashSet<u64>>>,
}

impl Default for Originals {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { hasher: RandomState::new(), shards }
    }
}

impl Originals {
    /// Remembers a value, if it is of a class that nobody meets by chance: people share names,
    /// birthdays and streets.
    pub fn remember(&self, class: Class, value: &str) {
        match class {
            Class::Email | Class::Phone | Class::Ip | Class::Digest | Class::Id | Class::Secret => {
                if let Some(hash) = self.hash(value) {
                    self.shard(hash).insert(hash);
                }
            }
            Class::Name
            | Class::Handle
            | Class::Address
            | Class::Date
            | Class::Text
            | Class::Json
            // All passwords become the same; a hash of one is remembered as a secret.
            | Class::Password
            | Class::Null => {}
        }
    }

    /// Whether a value, or something that is recognised in it, was masked elsewhere.
    pub fn are_in(&self, text: &str) -> bool {
        self.knows(text) || detect::found(text).into_iter().any(|(_, part)| self.knows(part))
    }

    fn knows(&self, value: &str) -> bool {
        self.hash(value).is_some_and(|hash| self.shard(hash).contains(&hash))
    }

    fn hash(&self, value: &str) -> Option<u64> {
        let value = value.trim();
        let fits = (SHORTEST..=LONGEST).contains(&value.len());
        fits.then(|| self.hasher.hash_one(value.to_lowercase()))
    }

    fn shard(&self, hash: u64) -> std::sync::MutexGuard<'_, HashSet<u64>> {
        // The lowest bits place it inside of a set.
        let shard = &self.shards[(hash >> 32) as usize % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_masked_is_known_again_wherever_it_stands() {
        let originals = Originals::default();
        originals.remember(Class::Email, "Ada@uni.example");
        originals.remember(Class::Name, "Ada Lovelace");
        assert!(originals.are_in("ada@UNI.example "));
        assert!(originals.are_in("write to ada@uni.example, please"));
        assert!(!originals.are_in("bo@uni.example") && !originals.are_in("Ada Lovelace"));
    }
}
