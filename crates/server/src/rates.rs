//! How often one may ask.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::caller::Origin;
use crate::problem::Problem;
use crate::settings;

/// Beyond so many tokens or addresses that are remembered, those that were not heard of lately are
/// forgotten: some 100 bytes each.
const MAX_REMEMBERED: usize = 10_000;

/// What was asked for lately.
pub(crate) struct Rates {
    tokens: DefaultKeyedRateLimiter<String>,
    failures: DefaultKeyedRateLimiter<String>,
    clock: DefaultClock,
}

impl Rates {
    pub(crate) fn new(rates: &settings::Rates) -> Self {
        let quota = |per_second, burst| Quota::per_second(per_second).allow_burst(burst);
        Self {
            tokens: RateLimiter::keyed(quota(rates.token_per_second, rates.token_burst)),
            failures: RateLimiter::keyed(quota(rates.failures_per_second, rates.failures_burst)),
            clock: DefaultClock::default(),
        }
    }

    /// A token that works was used. Known tokens only: there are as many as admins made.
    pub(crate) fn used(&self, token: &str) -> Result<(), Problem> {
        self.check(&self.tokens, token.to_owned(), "too many requests with this token")
    }

    /// Authentication failed. Tokens that work are let in whatever others at the same address do: a
    /// guess costs one look by key, and there are 2^256 of them, so nobody is locked out for a
    /// neighbour.
    pub(crate) fn failed(&self, origin: &Origin) -> Result<(), Problem> {
        self.check(&self.failures, key(origin), "too many requests without a token that works")
    }

    fn check(
        &self,
        limiter: &DefaultKeyedRateLimiter<String>,
        key: String,
        message: &str,
    ) -> Result<(), Problem> {
        if limiter.len() > MAX_REMEMBERED {
            limiter.retain_recent();
            // An attack from very many addresses: they are all refused, and those with tokens are
            // not.
            if limiter.len() > MAX_REMEMBERED {
                return Err(Problem::too_many(message, Duration::from_secs(10)));
            }
        }
        limiter.check_key(&key).map_err(|not_until| {
            Problem::too_many(message, not_until.wait_time_from(self.clock.now()))
        })
    }
}

fn key(origin: &Origin) -> String {
    match origin {
        Origin::Address(address) => network(*address).to_string(),
        Origin::Local { user, .. } => format!("unix:{user}"),
    }
}

/// The address, or the network that one client of IPv6 has for itself.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn rates() -> Rates {
        let one = NonZeroU32::new(1).unwrap();
        Rates::new(&settings::Rates {
            token_per_second: one,
            token_burst: NonZeroU32::new(3).unwrap(),
            failures_per_second: one,
            failures_burst: NonZeroU32::new(2).unwrap(),
        })
    }

    #[test]
    fn each_token_has_its_own_budget() {
        let rates = rates();
        assert!((0..3).all(|_| rates.used("a").is_ok()));
        let problem = rates.used("a").unwrap_err();
        assert_eq!(problem.status, 429);
        assert!(problem.retry_after.is_some_and(|after| after <= Duration::from_secs(1)));
        assert!(rates.used("b").is_ok());
    }

    #[test]
    fn failures_are_counted_by_address_and_ipv6_network() {
        let rates = rates();
        let from = |text: &str| rates.failed(&Origin::Address(text.parse().unwrap()));
        assert!(from("2001:db8::1").is_ok() && from("2001:db8::2").is_ok());
        assert!(from("2001:db8::3").is_err());
        assert!(from("192.0.2.1").is_ok() && from("::ffff:192.0.2.1").is_ok());
        assert!(from("192.0.2.1").is_err() && from("192.0.2.2").is_ok());
    }

    #[test]
    fn addresses_that_are_remembered_are_limited() {
        let rates = rates();
        let refused = (0..=u32::try_from(MAX_REMEMBERED).unwrap() + 10)
            .filter(|n| rates.failed(&Origin::Address(IpAddr::V4((*n).into()))).is_err())
            .count();
        assert!(refused >= 9, "{refused}");
    }
}
