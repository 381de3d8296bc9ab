//! Waiting for what is to become true; nothing waits for time to pass.

use std::time::{Duration, Instant};

/// Between two looks.
const POLL: Duration = Duration::from_millis(10);

/// Looks until there is something.
///
/// # Panics
/// If there is nothing within `limit`.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(POLL);
    }
}

/// Runs a future on this thread.
///
/// # Panics
/// If no runtime can be made.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be made").block_on(future)
}
