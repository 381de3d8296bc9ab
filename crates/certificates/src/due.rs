//! When a certificate is renewed, and when what failed is tried again. Pure.

use std::time::{Duration, SystemTime};

/// The first wait after a failure. Authorities allow few failures per host and hour (Let's Encrypt
/// five), and a person may be trying as well.
const FIRST_WAIT: Duration = Duration::from_secs(15 * 60);
/// The longest one: a host that comes back is noticed within a day.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);
/// After "too many": the shortest period that authorities count over is hours.
const RATE_LIMITED_WAIT: Duration = Duration::from_secs(3 * 3600);
/// Renewals are spread over the twentieth part of a life before two thirds of it, so that what was
/// issued together is not renewed together for ever.
const SPREAD: u32 = 20;

/// When a certificate that is valid for this time is renewed: at two thirds of it, or a little
/// before. 90 days: after 55.5 to 60.
pub(crate) fn renew_at(not_before: SystemTime, not_after: SystemTime, id: &str) -> SystemTime {
    let life = not_after.duration_since(not_before).unwrap_or(Duration::ZERO);
    // The id is as good as chance, and the same at every look.
    let part = u32::from_str_radix(id.get(..8).unwrap_or("0"), 16).unwrap_or(0);
    let early = (life / SPREAD).mul_f64(f64::from(part) / (f64::from(u32::MAX) + 1.0));
    not_before + life * 2 / 3 - early
}

/// What a failure says about when to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Advice {
    /// Nothing.
    None,
    /// We ask too often.
    RateLimited,
    /// Not before this has passed.
    After(Duration),
}

/// When to try again after so many failures in a row: in a quarter of an hour, then each time after
/// twice as long, up to a day; later if the authority says so.
pub(crate) fn try_again_at(failures: u32, advice: Advice, now: SystemTime) -> SystemTime {
    let doublings = failures.saturating_sub(1).min(16);
    let wait = (FIRST_WAIT * 2_u32.pow(doublings)).min(LONGEST_WAIT);
    let wait = match advice {
        Advice::None => wait,
        Advice::RateLimited => wait.max(RATE_LIMITED_WAIT),
        // An authority that says "in a year" is asked again after a week nevertheless.
        Advice::After(given) => wait.max(given.min(LONGEST_WAIT * 7)),
    };
    now + wait
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86400);

    #[test]
    fn renewal_is_at_two_thirds_of_life_or_a_little_before() {
        let from = SystemTime::UNIX_EPOCH + DAY * 1000;
        let days = |id: &str| {
            let at = renew_at(from, from + DAY * 90, id).duration_since(from).unwrap();
            at.as_secs_f64() / 86400.0
        };
        assert_eq!(days("00000000ffffffff"), 60.0);
        assert!((days("80000000ffffffff") - 57.75).abs() < 1e-6);
        assert!((55.5..55.51).contains(&days("ffffffff00000000")));
        // A life of six days, as short as they come.
        let at = renew_at(from, from + DAY * 6, "00000000");
        assert_eq!(at, from + DAY * 4);
        assert_eq!(renew_at(from, from, "ffffffff"), from);
    }

    #[test]
    fn waits_double_up_to_a_day_and_follow_what_the_authority_says() {
        let now = SystemTime::UNIX_EPOCH + DAY;
        let minutes = |failures, advice| {
            try_again_at(failures, advice, now).duration_since(now).unwrap().as_secs() / 60
        };
        let waits: Vec<u64> = (1..=9).map(|failures| minutes(failures, Advice::None)).collect();
        assert_eq!(waits, [15, 30, 60, 120, 240, 480, 960, 1440, 1440]);
        assert_eq!(minutes(u32::MAX, Advice::None), 1440);
        assert_eq!(minutes(1, Advice::RateLimited), 180);
        assert_eq!(minutes(7, Advice::RateLimited), 960);
        assert_eq!(minutes(1, Advice::After(DAY)), 1440);
        assert_eq!(minutes(3, Advice::After(Duration::from_secs(60))), 60);
        assert_eq!(minutes(1, Advice::After(DAY * 365)), 7 * 1440);
    }
}
