//! So many bytes a second, and not more.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A limit that all workers share.
pub(super) struct Pace {
    bytes_per_second: Option<u64>,
    /// When what was let through so far has had its time.
    free: Mutex<Instant>,
}

/// The most that is copied at once where there is a limit, so that it holds within a second, too.
const PIECE: usize = 1 << 20;
/// And where there is none: enough that asking costs nothing.
const LARGEST_PIECE: usize = 64 << 20;

impl Pace {
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second, free: Mutex::new(Instant::now()) }
    }

    /// How much to copy before asking again.
    pub fn piece(&self) -> usize {
        match self.bytes_per_second {
            Some(_) => PIECE,
            None => LARGEST_PIECE,
        }
    }

    /// Waits until so many bytes that were just copied have had their time.
    pub fn wait(&self, bytes: u64) {
        let Some(rate) = self.bytes_per_second else { return };
        let took = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        let until = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            *free = (*free).max(Instant::now()) + took;
            *free
        };
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_kept_by_several_together() {
        let pace = Pace::new(Some(1_000_000));
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| (0..4).for_each(|_| pace.wait(10_000)));
            }
        });
        // 120 kB at a megabyte a second.
        assert!(begun.elapsed() >= Duration::from_millis(119), "{:?}", begun.elapsed());
    }
}
