//! Ids that no node gives twice, made from the time of the process's clock (ADR 0017).

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use frontrow_domain::ports::{Clock, IdGenerator};
use uuid::Uuid;

use crate::clock::SystemClock;

/// The cell that every id belongs to: the database that stores what the id names. There is one so far.
const CELL: u16 = 0;
/// The number of bits of the counter.
const COUNTER_BITS: u32 = 14;
/// A millisecond's first counter value is a random one below this, which leaves as many again for the same millisecond.
const COUNTER_SEED: u128 = 1 << (COUNTER_BITS - 1);

/// UUID v7: `unix_ms(48) | 7 | cell(12) | variant(2) | counter(14) | random(48)`.
///
/// Ordered within one generator, also while its clock stands still or goes back: the counter goes on, and runs over into
/// the next millisecond.
pub struct UuidV7 {
    clock: Arc<dyn Clock>,
    last: Mutex<Position>,
}

/// The part of an id that orders it.
#[derive(Clone, Copy, Default)]
struct Position {
    millis: u64,
    counter: u16,
}

impl UuidV7 {
    /// Makes ids of the time of `clock`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, last: Mutex::default() }
    }

    /// The position after the last one. Taken under a lock that is held for some nanoseconds.
    fn advance(&self, millis: u64, seed: u16) -> Position {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let counter = last.counter.saturating_add(1);
        *last = if millis > last.millis {
            Position { millis, counter: seed }
        } else if counter >> COUNTER_BITS == 0 {
            Position { counter, ..*last }
        } else {
            Position { millis: last.millis.saturating_add(1), counter: 0 }
        };
        *last
    }
}

impl fmt::Debug for UuidV7 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UuidV7").finish_non_exhaustive()
    }
}

/// Ids of this machine's time, for commands that need no database.
impl Default for UuidV7 {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock::default()))
    }
}

impl IdGenerator for UuidV7 {
    #[allow(clippy::disallowed_methods, reason = "this is the generator that everything else asks")]
    fn next_id(&self) -> Uuid {
        let random = Uuid::new_v4().as_u128();
        let seed = u16::try_from(random % COUNTER_SEED).unwrap_or(0);
        let millis = u64::try_from(self.clock.now().unix_micros().div_euclid(1_000)).unwrap_or(0);
        let Position { millis, counter } = self.advance(millis, seed);
        Uuid::from_u128(
            u128::from(millis) << 80
                | 7 << 76
                | u128::from(CELL) << 64
                | 2 << 62
                | u128::from(counter) << 48
                // The first bits of a v4 are random, and none of the seed.
                | random >> 80,
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::thread;

    use frontrow_domain::Timestamp;
    use proptest::prelude::*;
    use uuid::{Variant, Version};

    use super::*;

    /// A clock that takes times from a list, again and again.
    struct Listed(Mutex<(Vec<i64>, usize)>);

    impl Clock for Listed {
        fn now(&self) -> Timestamp {
            let (times, at) = &mut *self.0.lock().unwrap();
            *at += 1;
            Timestamp::from_unix_micros(times[*at % times.len()]).unwrap()
        }
    }

    fn generator(times: Vec<i64>) -> UuidV7 {
        UuidV7::new(Arc::new(Listed(Mutex::new((times, 0)))))
    }

    fn cell_of(id: Uuid) -> u128 {
        id.as_u128() >> 64 & 0xfff
    }

    #[test]
    fn a_million_ids_are_unique_ordered_and_of_cell_0() {
        let ids = UuidV7::default();
        let mut last = Uuid::nil();
        for _ in 0..1_000_000 {
            let id = ids.next_id();
            assert!(id > last, "{last} {id}");
            assert_eq!((id.get_version(), id.get_variant()), (Some(Version::SortRand), Variant::RFC4122));
            assert_eq!(cell_of(id), 0);
            last = id;
        }
        let (seconds, _) = last.get_timestamp().unwrap().to_unix();
        let now = SystemClock::uncorrected().unix_micros() / 1_000_000;
        assert!(i64::try_from(seconds).unwrap().abs_diff(now) < 60, "the time of an id is that of its clock");
    }

    #[test]
    fn threads_share_one_order() {
        let ids = UuidV7::default();
        let made: Vec<Vec<Uuid>> = thread::scope(|scope| {
            let maker = || (0..20_000).map(|_| ids.next_id()).collect();
            let makers: Vec<_> = (0..4).map(|_| scope.spawn(maker)).collect();
            makers.into_iter().map(|maker| maker.join().unwrap()).collect()
        });
        assert!(made.iter().all(|ids| ids.is_sorted()));
        assert_eq!(made.iter().flatten().collect::<HashSet<_>>().len(), 80_000);
    }

    #[test]
    fn generators_of_the_same_moment_give_different_ids() {
        let moment = vec![1_800_000_000_000_000];
        let made = (0..10_000).map(|_| generator(moment.clone()).next_id());
        assert_eq!(made.collect::<HashSet<_>>().len(), 10_000);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn ids_are_ordered_whatever_the_clock_does(
            times in prop::collection::vec(0..2_000_000_000_000_000_i64, 1..20),
        ) {
            let ids = generator(times);
            // More than two milliseconds have room for.
            let made: Vec<Uuid> = (0..40_000).map(|_| ids.next_id()).collect();
            prop_assert!(made.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(made.iter().all(|id| cell_of(*id) == 0 && id.get_version() == Some(Version::SortRand)));
        }
    }
}
