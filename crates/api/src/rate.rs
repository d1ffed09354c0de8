//! How often somebody may call: a caller, and an address. Off unless configured (ADR 0010).
//!
//! What is kept is bounded: 100,000 callers or addresses, some 10 MB; whoever was not seen for longest is forgotten then, and
//! starts anew. A crowd of strangers pushes out strangers, not those who keep calling.

use std::convert::Infallible;
use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::Arc;

use actix_web::HttpRequest;
use frontrow_domain::UserId;
use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter};
use quick_cache::sync::Cache;

use crate::client::{TrustedProxies, subscriber};
use crate::problem::{Code, Problem};
use crate::query::whole_number;

/// How many callers, and how many addresses, are remembered.
const REMEMBERED: usize = 100_000;

/// `20/s` or `600/m`: so many calls a second or a minute, evenly; after a pause so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    calls: NonZeroU32,
    unit: Unit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Second,
    Minute,
}

/// A text that is no [`Rate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidRate;

impl std::fmt::Display for InvalidRate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a rate is a number from 1 to 1000000 and a unit, as in 20/s or 600/m")
    }
}

impl std::error::Error for InvalidRate {}

impl FromStr for Rate {
    type Err = InvalidRate;

    fn from_str(text: &str) -> Result<Self, InvalidRate> {
        let (calls, unit) = text.split_once('/').ok_or(InvalidRate)?;
        let unit = match unit {
            "s" => Unit::Second,
            "m" => Unit::Minute,
            _ => return Err(InvalidRate),
        };
        let calls = whole_number(calls).filter(|calls: &NonZeroU32| calls.get() <= 1_000_000);
        Ok(Self { calls: calls.ok_or(InvalidRate)?, unit })
    }
}

impl Rate {
    fn quota(self) -> Quota {
        match self.unit {
            Unit::Second => Quota::per_second(self.calls),
            Unit::Minute => Quota::per_minute(self.calls),
        }
    }
}

/// Which rates hold, and who may speak for others.
#[derive(Debug, Clone, Default)]
pub struct RateRules {
    /// Of each access token's user.
    pub per_caller: Option<Rate>,
    /// Of each client address; of each /64 of IPv6, which is what one subscriber has.
    pub per_address: Option<Rate>,
    /// Who is believed when it names the address of its client.
    pub trusted_proxies: TrustedProxies,
}

/// Counts calls by [`RateRules`].
pub(crate) struct RateLimits {
    callers: Option<Limiter<UserId>>,
    addresses: Option<Limiter<IpAddr>>,
    trusted_proxies: TrustedProxies,
}

impl RateLimits {
    /// Limits by these rules.
    pub(crate) fn new(rules: RateRules) -> Self {
        let RateRules { per_caller, per_address, trusted_proxies } = rules;
        Self {
            callers: per_caller.map(Limiter::new),
            addresses: per_address.map(Limiter::new),
            trusted_proxies,
        }
    }

    /// Counts a call from the address that a request came from.
    ///
    /// # Errors
    /// 429 when there were too many.
    pub(crate) fn admit_address(&self, req: &HttpRequest) -> Result<(), Problem> {
        let Some(addresses) = &self.addresses else { return Ok(()) };
        // Without a peer there is no network: only tests call so.
        let Some(peer) = req.peer_addr() else { return Ok(()) };
        let client = self.trusted_proxies.client(peer.ip(), req.headers());
        addresses.admit(&subscriber(client)).map_err(|wait| too_many("address", wait))
    }

    /// Counts a call of a caller.
    ///
    /// # Errors
    /// 429 when there were too many.
    pub(crate) fn admit_caller(&self, user_id: UserId) -> Result<(), Problem> {
        let Some(callers) = &self.callers else { return Ok(()) };
        callers.admit(&user_id).map_err(|wait| too_many("caller", wait))
    }
}

fn too_many(who: &str, wait_seconds: u64) -> Problem {
    let detail = format!("Too many requests of this {who}.");
    Problem::new(Code::RateLimited, detail).with_retry_after(wait_seconds)
}

/// governor's arithmetic (GCRA) over a bounded number of keys.
struct Limiter<K: Hash + Eq + Clone, C: Clock = MonotonicClock> {
    limiter: RateLimiter<K, Remembered<K>, C, NoOpMiddleware<C::Instant>>,
}

impl<K: Hash + Eq + Clone> Limiter<K> {
    fn new(rate: Rate) -> Self {
        Self::with(rate, REMEMBERED, MonotonicClock)
    }
}

impl<K: Hash + Eq + Clone, C: Clock> Limiter<K, C> {
    fn with(rate: Rate, remembered: usize, clock: C) -> Self {
        Self { limiter: RateLimiter::new(rate.quota(), Remembered(Cache::new(remembered)), clock) }
    }

    /// Counts a call, or says after how many seconds to come back.
    fn admit(&self, key: &K) -> Result<(), u64> {
        self.limiter.check_key(key).map_err(|not_until| {
            let wait = not_until.wait_time_from(self.limiter.clock().now());
            wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
        })
    }
}

/// The state of each key that was seen lately.
struct Remembered<K>(Cache<K, Arc<InMemoryState>>);

impl<K: Hash + Eq + Clone> StateStore for Remembered<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let Ok(state) = self.0.get_or_insert_with::<K, Infallible>(key, || Ok(Arc::default()));
        state.measure_and_replace(&NotKeyed::NonKey, measure)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use governor::clock::FakeRelativeClock;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_is_a_rate_that_is_written_so_or_none(
            text in prop_oneof!["[+0-9 ]{0,8}/[smh]", "[0-9]{1,7}/[sm]", ".*"],
        ) {
            match text.parse::<Rate>() {
                Err(error) => prop_assert_eq!(error, InvalidRate),
                Ok(Rate { calls, unit }) => {
                    let unit = if unit == Unit::Second { "s" } else { "m" };
                    prop_assert!(calls.get() <= 1_000_000);
                    prop_assert_eq!(format!("{calls}/{unit}"), text.trim_start_matches('0'));
                }
            }
        }

        #[test]
        fn every_rate_is_read_as_it_is_written(calls in 1..=1_000_000_u32, second in any::<bool>()) {
            let (text, unit) = if second { ("s", Unit::Second) } else { ("m", Unit::Minute) };
            let rate = Rate { calls: NonZeroU32::new(calls).unwrap(), unit };
            prop_assert_eq!(format!("{calls}/{text}").parse(), Ok(rate));
        }
    }

    fn limiter(rate: &str, remembered: usize) -> (Limiter<u32, FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (Limiter::with(rate.parse().unwrap(), remembered, clock.clone()), clock)
    }

    #[test]
    fn rates_have_a_number_and_a_unit() {
        for good in ["1/s", "20/s", "600/m", "1000000/s"] {
            assert!(good.parse::<Rate>().is_ok(), "{good}");
        }
        for bad in ["", "20", "/s", "0/s", "-1/s", "+1/s", "1.5/s", "20/h", "20/s/s", " 20/s", "1000001/s"] {
            assert_eq!(bad.parse::<Rate>(), Err(InvalidRate), "{bad}");
        }
    }

    #[test]
    fn so_many_at_once_and_then_evenly() {
        let (limiter, clock) = limiter("3/s", 100);
        let admitted = || (0..10).filter(|_| limiter.admit(&1).is_ok()).count();
        assert_eq!(admitted(), 3);
        clock.advance(Duration::from_millis(340));
        assert_eq!(admitted(), 1, "a third of a second later, a third of it");
        clock.advance(Duration::from_secs(60));
        assert_eq!(admitted(), 3, "what was not used is not saved up");
        assert_eq!(limiter.admit(&2), Ok(()), "others are not concerned");
    }

    #[test]
    fn whoever_waits_as_told_is_admitted() {
        let (limiter, clock) = limiter("2/m", 100);
        assert_eq!([limiter.admit(&1), limiter.admit(&1)], [Ok(()), Ok(())]);
        let wait = limiter.admit(&1).unwrap_err();
        assert_eq!(wait, 30);
        clock.advance(Duration::from_secs(wait - 1));
        assert_eq!(limiter.admit(&1), Err(1));
        clock.advance(Duration::from_secs(1));
        assert_eq!(limiter.admit(&1), Ok(()));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_busy_are_not_forgotten() {
        let (limiter, _) = limiter("5/m", 1_000);
        while limiter.admit(&0).is_ok() {}
        for stranger in 1..=100_000 {
            assert_eq!(limiter.admit(&stranger), Ok(()));
            if stranger % 100 == 0 {
                assert!(limiter.admit(&0).is_err(), "after {stranger} strangers");
            }
        }
        let remembered = limiter.limiter.into_state_store().0.len();
        assert!(remembered <= 1_100, "{remembered}");
    }
}
