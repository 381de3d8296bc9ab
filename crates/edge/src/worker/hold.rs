//! Holding: what comes in while nothing can answer waits, bounded in number and time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Core;
use super::replica::Claim;
use super::routing::{Pool, PoolShared, Route};
use super::rules::Address;

/// How soon a client's leaving is noticed while it is held.
const LOOK_FOR_CLIENT: Duration = Duration::from_millis(200);

/// Why a request gets no replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rejection {
    /// Too many are held already.
    TooMany,
    /// It was held for as long as may be.
    TooLong,
    /// The listener has left the table.
    Nowhere,
    /// The client has left.
    ClientGone,
}

/// One request's right to wait: the clock starts when it is first held, and runs on when it is
/// held again.
#[derive(Default)]
pub(super) struct Patience {
    since: Option<Instant>,
}

/// A place among the held.
struct Place(Arc<PoolShared>);

impl Place {
    fn take(pool: &Pool) -> Option<Place> {
        let held = pool.shared.held.fetch_add(1, Ordering::Relaxed);
        pool.shared.held_ever.fetch_add(1, Ordering::Relaxed);
        let place = Place(pool.shared.clone());
        (held < u64::from(pool.hold.max_requests)).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Core {
    /// Claims a replica, waiting for one if need be. `gone` tells whether the client has left;
    /// `held` is called before it waits.
    pub(super) async fn claim(
        &self,
        address: &Address,
        patience: &mut Patience,
        gone: impl Fn() -> bool,
        held: impl FnOnce(),
    ) -> Result<Claim, Rejection> {
        match self.route(address) {
            Route::To(claim) => Ok(claim),
            Route::Nowhere => Err(Rejection::Nowhere),
            // Boxed: requests that need not wait, which is nearly all, have no room for it.
            Route::Hold(pool) => Box::pin(self.wait(pool, address, patience, gone, held)).await,
        }
    }

    async fn wait(
        &self,
        pool: Arc<Pool>,
        address: &Address,
        patience: &mut Patience,
        gone: impl Fn() -> bool,
        held: impl FnOnce(),
    ) -> Result<Claim, Rejection> {
        let rejected = |pool: &Pool, rejection| {
            pool.shared.rejected.fetch_add(1, Ordering::Relaxed);
            Err(rejection)
        };
        let since = *patience.since.get_or_insert_with(Instant::now);
        let Some(mut place) = Place::take(&pool) else {
            return rejected(&pool, Rejection::TooMany);
        };
        held();
        loop {
            let shared = place.0.clone();
            // Listen before looking, so that no change falls in between.
            let mut changed = std::pin::pin!(shared.changed.notified());
            changed.as_mut().enable();
            let pool = match self.route(address) {
                Route::To(claim) => return Ok(claim),
                Route::Nowhere => return Err(Rejection::Nowhere),
                Route::Hold(pool) => pool,
            };
            if !Arc::ptr_eq(&pool.shared, &shared) {
                // The listener leads to another pool now: wait for that one.
                let Some(other) = Place::take(&pool) else {
                    return rejected(&pool, Rejection::TooMany);
                };
                place = other;
                continue;
            }
            let left = Duration::from_millis(pool.hold.max_wait_ms).saturating_sub(since.elapsed());
            if left.is_zero() {
                return rejected(&pool, Rejection::TooLong);
            }
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(left.min(LOOK_FOR_CLIENT)) => {
                    if gone() {
                        return Err(Rejection::ClientGone);
                    }
                }
            }
        }
    }
}
