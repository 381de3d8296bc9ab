//! Waiting for the end of orders.

use std::time::Duration;

use shiplap_model::{Order, OrderState};
use tokio::time::{sleep, timeout};

use crate::core::Core;
use crate::problem::Problem;

/// An order may have been merged into one that was merged, and so on; never longer than a queue.
const MAX_MERGED: usize = 1000;
/// Asked for again after so long even if nothing was heard.
const ASK_EVERY: Duration = Duration::from_secs(30);
/// And after so long when the ledger does not answer.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// The order that does what this one asked for: itself, or the one that it was merged into.
pub(crate) async fn doing(core: &Core, id: u64) -> Result<Option<Order>, Problem> {
    let mut next = id;
    for _ in 0..MAX_MERGED {
        let Some(order) = core.health.seen(core.orders.order(next).await)? else {
            return Ok(None);
        };
        match order.state {
            OrderState::Merged { into } => next = into,
            OrderState::Waiting { .. } | OrderState::Running { .. } | OrderState::Ended(_) => {
                return Ok(Some(order));
            }
        }
    }
    Ok(None)
}

/// Waits until all of them have come to their end, for `limit` at most. Dropping it leaves nothing
/// behind.
pub(crate) async fn all_ended(core: &Core, ids: &[u64], limit: Duration) -> bool {
    let all = async {
        for id in ids {
            ended(core, *id).await;
        }
    };
    let mut leaving = core.leaving.subscribe();
    tokio::select! {
        ended = timeout(limit, all) => ended.is_ok(),
        _ = leaving.wait_for(|leaving| *leaving) => false,
    }
}

async fn ended(core: &Core, id: u64) {
    let mut beat = core.beat.listen();
    loop {
        beat.mark_unchanged();
        let again = match doing(core, id).await {
            Ok(Some(order)) if matches!(order.state, OrderState::Ended(_)) => return,
            Ok(Some(_)) => ASK_EVERY,
            Ok(None) => return,
            Err(_) => ASK_AGAIN,
        };
        tokio::select! {
            Ok(()) = beat.changed() => {}
            () = sleep(again) => {}
        }
    }
}

/// `true`, or a time: `90s`, `5m`, `1h`, `500ms`, a number of seconds. None where it is nothing of
/// these. `false` and `0` are no time at all.
pub(crate) fn time(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let seconds = |each: u64| number.checked_mul(each).map(Duration::from_secs);
    match &text[digits..] {
        "" | "s" => seconds(1),
        "ms" => Some(Duration::from_millis(number)),
        "m" => seconds(60),
        "h" => seconds(3600),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        assert_eq!(time("90s"), Some(Duration::from_secs(90)));
        assert_eq!(time("5m"), Some(Duration::from_secs(300)));
        assert_eq!(time("1h"), Some(Duration::from_secs(3600)));
        assert_eq!(time("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(time("7"), Some(Duration::from_secs(7)));
        let bad = ["", "s", "-1s", "1d", "1.5s", "99999999999999999999s", "18446744073709551615h"];
        assert!(bad.iter().all(|bad| time(bad).is_none()));
    }
}
