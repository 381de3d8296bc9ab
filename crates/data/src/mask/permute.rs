//! Keyed permutations: what goes in differs, what comes out differs.

use std::hash::Hasher as _;

use siphasher::sip::SipHasher24;

/// Rounds of the Feistel network; four make it a permutation that looks random, the others are
/// for the small domains in which short values live.
const ROUNDS: u64 = 8;

/// A permutation of `0..domain`, for any domain, chosen by a key.
#[derive(Clone)]
pub(super) struct Permutation {
    hasher: SipHasher24,
}

impl Permutation {
    pub fn new(key: &[u8; 16]) -> Self {
        Self { hasher: SipHasher24::new_with_key(key) }
    }

    /// Where `value` goes. `tweak` chooses among independent permutations of the domain.
    pub fn of(&self, domain: u64, tweak: u64, value: u64) -> u64 {
        assert!(value < domain, "{value} is not below {domain}");
        if domain < 2 {
            return value;
        }
        let bits = u64::BITS - (domain - 1).leading_zeros();
        // A network permutes a power of two, less than twice the domain where it can be; walking
        // on until the value is inside makes that a permutation of the domain.
        let mut value = value;
        loop {
            value = self.network(bits, tweak, value);
            if value < domain {
                return value;
            }
        }
    }

    fn network(&self, bits: u32, tweak: u64, value: u64) -> u64 {
        let low_bits = bits / 2;
        let high_bits = bits - low_bits;
        let (low_mask, high_mask) = (mask(low_bits), mask(high_bits));
        let (mut high, mut low) = (value >> low_bits, value & low_mask);
        for round in 0..ROUNDS {
            match round % 2 {
                0 => high ^= self.round(tweak, round, low) & high_mask,
                _ => low ^= self.round(tweak, round, high) & low_mask,
            }
        }
        (high << low_bits) | low
    }

    fn round(&self, tweak: u64, round: u64, half: u64) -> u64 {
        let mut hasher = self.hasher;
        hasher.write_u64(tweak);
        hasher.write_u64((round << 32) ^ half);
        hasher.finish()
    }
}

fn mask(bits: u32) -> u64 {
    (1_u64 << bits) - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_value_of_any_domain_is_met_once() {
        let permutation = Permutation::new(&[7; 16]);
        for domain in [1, 2, 3, 10, 26, 100, 1000, 2600, 4096] {
            let met: BTreeSet<u64> = (0..domain).map(|v| permutation.of(domain, 3, v)).collect();
            assert_eq!(met, (0..domain).collect(), "{domain}");
        }
        let moved = (0..1000).filter(|&v| permutation.of(1000, 3, v) != v).count();
        assert!(moved > 980, "{moved}");
    }

    #[test]
    fn the_largest_domains_work() {
        let permutation = Permutation::new(&[7; 16]);
        let met: BTreeSet<u64> =
            (0..1000).map(|v| permutation.of(u64::MAX, 0, u64::MAX - 1 - v)).collect();
        assert_eq!(met.len(), 1000);
    }
}
