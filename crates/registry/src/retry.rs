//! When to ask once more, and after how long.

use std::time::{Duration, SystemTime};

/// How often is asked in all.
pub const ATTEMPTS: u32 = 4;
/// The wait before the second time; it doubles from there.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// Whoever asks us to come back later than this is answered with an error at once: a limit per
/// hour does not pass while somebody waits for a deployment to begin.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// How long to wait after a number of attempts, from 1; nothing when it is not worth it.
pub fn wait(attempts: u32, asked_for: Option<Duration>) -> Option<Duration> {
    if attempts >= ATTEMPTS {
        return None;
    }
    let own = FIRST_WAIT * 2u32.pow(attempts.saturating_sub(1));
    match asked_for {
        Some(asked_for) if asked_for > LONGEST_WAIT => None,
        Some(asked_for) => Some(asked_for.max(own)),
        None => Some(own),
    }
}

/// Reads `Retry-After`: seconds. Its other form, a date, is read as the time from `now` until then.
pub fn after(header: &str, now: SystemTime) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let then = httpdate::parse_http_date(header).ok()?;
    Some(then.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_end() {
        let ms = |attempts| wait(attempts, None).map(|wait| wait.as_millis());
        assert_eq!([ms(1), ms(2), ms(3), ms(4)], [Some(500), Some(1000), Some(2000), None]);
        let asked = |seconds| wait(1, Some(Duration::from_secs(seconds)));
        assert_eq!(asked(7), Some(Duration::from_secs(7)));
        assert_eq!(asked(3600), None);
    }

    #[test]
    fn both_forms_of_retry_after_are_read() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
        assert_eq!(after(" 12 ", now), Some(Duration::from_secs(12)));
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(after(date, now), Some(Duration::from_secs(7)));
        assert_eq!(after("soon", now), None);
    }
}
