//! Durations counted in buckets under one per cent wide, in constant memory.

use std::time::Duration;

/// Values below this are counted exactly; above it each power of two has half as many buckets.
const EXACT: u64 = 256;
const HALF: u64 = EXACT / 2;
/// Up to 2^36 µs, which is 19 hours.
const BUCKETS: usize = (EXACT + HALF * 28) as usize;

/// Counts durations in microseconds.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    total: u64,
    max_us: u64,
}

impl Histogram {
    pub fn new() -> Self {
        Histogram { buckets: vec![0; BUCKETS], total: 0, max_us: 0 }
    }

    pub fn add(&mut self, value: Duration) {
        let value_us = value.as_micros() as u64;
        self.buckets[bucket(value_us).min(BUCKETS - 1)] += 1;
        self.total += 1;
        self.max_us = self.max_us.max(value_us);
    }

    /// The value that the share `q` of all values does not exceed, or `None` if there is none.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let rank = ((self.total as f64 * q) as u64).min(self.total.checked_sub(1)?);
        let mut seen = 0;
        let index = self.buckets.iter().position(|count| {
            seen += count;
            seen > rank
        })?;
        Some(Duration::from_micros(top_of(index).min(self.max_us)))
    }

    pub fn max(&self) -> Option<Duration> {
        (self.total > 0).then(|| Duration::from_micros(self.max_us))
    }
}

/// For example 255 → 255, 256 and 257 → 256, 258 → 257, 511 → 383, 512 to 515 → 384.
fn bucket(value: u64) -> usize {
    let shift = (64 - value.leading_zeros()).saturating_sub(8) as u64;
    (shift * HALF + (value >> shift)) as usize
}

/// The largest value in a bucket.
fn top_of(index: usize) -> u64 {
    let index = index as u64;
    if index < EXACT {
        return index;
    }
    let shift = index / HALF - 1;
    ((index - shift * HALF + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_a_bucket_less_than_one_per_cent_wide() {
        for value in (0..5000).chain((1..36).map(|power| (1 << power) + 12_345)) {
            let index = bucket(value);
            assert!(index < BUCKETS, "{value}");
            assert!(value <= top_of(index), "{value} in {index}");
            assert!(index == 0 || value > top_of(index - 1), "{value} in {index}");
            assert!((top_of(index) - value) * 100 < value.max(1), "{value}");
        }
    }

    #[test]
    fn quantiles_of_nothing_are_nothing_and_of_one_value_are_it() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.quantile(0.5), None);
        histogram.add(Duration::from_micros(777));
        assert_eq!(histogram.quantile(0.0), Some(Duration::from_micros(777)));
        assert_eq!(histogram.quantile(1.0), Some(Duration::from_micros(777)));
    }
}
