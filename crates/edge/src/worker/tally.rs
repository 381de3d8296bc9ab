//! Counting what was answered, and how long it took. Nothing here waits for anything.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::api::GroupStatus;

/// Upper bounds of the histogram's buckets; one more has no bound.
pub(super) const BOUNDS: [Duration; 12] = [
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(10),
];
/// `1xx` to `5xx`, and what was not answered.
pub(super) const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "none"];

/// Answers by class, and a histogram of how long they took.
#[derive(Default)]
pub(super) struct Tally {
    classes: [AtomicU64; CLASSES.len()],
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

/// What was counted so far.
pub(super) struct Counts {
    pub classes: [u64; CLASSES.len()],
    pub buckets: [u64; BOUNDS.len() + 1],
    pub duration: Duration,
}

impl Tally {
    /// Status 0: there was no answer.
    pub(super) fn count(&self, status: u16, duration: Duration) {
        let class = usize::from(status / 100).wrapping_sub(1).min(CLASSES.len() - 1);
        self.classes[class].fetch_add(1, Ordering::Relaxed);
        let bucket = BOUNDS.partition_point(|bound| *bound < duration);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(duration.as_micros() as u64, Ordering::Relaxed);
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            classes: std::array::from_fn(|class| self.classes[class].load(Ordering::Relaxed)),
            buckets: std::array::from_fn(|bucket| self.buckets[bucket].load(Ordering::Relaxed)),
            duration: Duration::from_micros(self.micros.load(Ordering::Relaxed)),
        }
    }

    pub(super) fn status(&self) -> GroupStatus {
        let counts = self.counts();
        let [.., failed, none] = counts.classes;
        GroupStatus {
            requests: counts.classes.iter().sum(),
            errors: failed + none,
            duration_ms: counts.duration.as_millis() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_class_and_time() {
        let tally = Tally::default();
        for (status, ms) in [(101, 0), (200, 1), (204, 3), (503, 20_000), (0, 7), (999, 1)] {
            tally.count(status, Duration::from_millis(ms));
        }
        let counts = tally.counts();
        assert_eq!(counts.classes, [1, 2, 0, 0, 1, 2]);
        assert_eq!(counts.buckets[..4], [3, 0, 1, 1]);
        assert_eq!(counts.buckets[BOUNDS.len()], 1);
        let status = tally.status();
        assert_eq!((status.requests, status.errors, status.duration_ms), (6, 3, 20_012));
    }
}
