//! The time of this process (ADR 0017): the machine's uptime, sleep included, plus a disciplined offset. A step of the
//! machine's time of day changes nothing.

mod discipline;

use std::sync::{PoisonError, RwLock};

use frontrow_domain::Timestamp;
use frontrow_domain::ports::Clock;
use rustix::time::{ClockId, clock_gettime};
use time::OffsetDateTime;

use self::discipline::Discipline;
pub use self::discipline::{Policy, Reading, Verdict};

/// How often the reference is read for one reading: the quickest answer counts.
pub(crate) const ROUNDS: usize = 5;

/// A disciplined clock. It costs no system call where the kernel maps its clocks into the process.
#[derive(Debug)]
pub struct SystemClock(RwLock<Discipline>);

impl SystemClock {
    /// A clock that starts at a reading of its reference.
    #[must_use]
    pub fn following(policy: Policy, first: Reading) -> Self {
        Self(RwLock::new(Discipline::start(policy, first, read_machine().offset, uptime_micros())))
    }

    /// The machine's time of day, which may step.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "this is the clock that everything else asks")]
    pub fn uncorrected() -> Timestamp {
        Timestamp::try_from(OffsetDateTime::now_utc()).unwrap_or(Timestamp::MAX)
    }

    /// Whether decisions that other nodes take as well may be based on this clock: no step of its reference is suspected.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).is_settled()
    }

    /// Whether it is time for another reading of the reference.
    #[must_use]
    pub fn wants_reading(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).wants_reading(uptime_micros())
    }

    /// Takes in a reading of the reference.
    pub fn observe(&self, reading: Reading) -> Verdict {
        // The uptime is read under the lock, here and in `now`, so that no caller has seen a later time by the old offset.
        let mut discipline = self.0.write().unwrap_or_else(PoisonError::into_inner);
        discipline.observe(reading, uptime_micros())
    }
}

/// Follows the machine's time of day.
impl Default for SystemClock {
    fn default() -> Self {
        Self::following(Policy::MACHINE, read_machine())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let discipline = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Timestamp::from_unix_micros(discipline.now(uptime_micros())).unwrap_or(Timestamp::MAX)
    }
}

/// The time since the machine was started, sleep included, in microseconds.
pub(crate) fn uptime_micros() -> i64 {
    #[cfg(target_os = "linux")]
    const UPTIME: ClockId = ClockId::Boottime;
    // Of the others, macOS counts sleep by this one.
    #[cfg(not(target_os = "linux"))]
    const UPTIME: ClockId = ClockId::Monotonic;
    let uptime = clock_gettime(UPTIME);
    uptime.tv_sec.saturating_mul(1_000_000).saturating_add(uptime.tv_nsec / 1_000)
}

/// A reading of the machine's time of day.
#[must_use]
pub fn read_machine() -> Reading {
    let read = |_| reading(uptime_micros(), SystemClock::uncorrected(), uptime_micros());
    (0..ROUNDS)
        .map(read)
        .min_by_key(|reading| reading.error)
        .unwrap_or(Reading { offset: 0, error: i64::MAX })
}

/// A reading that was asked for at one uptime and answered at another; taken to be of half way.
pub(crate) const fn reading(asked_at: i64, answer: Timestamp, answered_at: i64) -> Reading {
    let error = answered_at.saturating_sub(asked_at) / 2;
    Reading { offset: answer.unix_micros().saturating_sub(asked_at.saturating_add(error)), error }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_clock_starts_at_the_time_of_day_and_goes_on() {
        let clock = SystemClock::default();
        let (before, now) = (SystemClock::uncorrected(), clock.now());
        assert!(now.since(before) < Duration::from_secs(1) && before.since(now) < Duration::from_secs(1));
        thread::sleep(Duration::from_millis(20));
        assert!(clock.now().since(now) >= Duration::from_millis(19));
    }

    #[test]
    fn the_clock_follows_its_reference() {
        let ahead = Reading { offset: read_machine().offset + 3_600_000_000, error: 0 };
        let clock = SystemClock::following(Policy::DATABASE, ahead);
        let ahead = clock.now().since(SystemClock::uncorrected());
        assert!(ahead.abs_diff(Duration::from_secs(3_600)) < Duration::from_secs(1), "{ahead:?}");
        assert!(!clock.is_settled(), "the machine's time of day says otherwise");
    }

    #[test]
    fn time_never_goes_back_while_the_offset_moves() {
        let clock = SystemClock::default();
        let offset = read_machine().offset;
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut last = clock.now();
                    for _ in 0..100_000 {
                        let now = clock.now();
                        assert!(now >= last, "{last} {now}");
                        last = now;
                    }
                });
            }
            for n in 0..1_000 {
                let difference = if n % 2 == 0 { 900_000 } else { -900_000 };
                clock.observe(Reading { offset: offset + difference, error: 0 });
            }
        });
    }
}
