//! The machine's clock, corrected by the database's where several nodes share one.

use std::sync::atomic::{AtomicI64, Ordering};

use frontrow_domain::Timestamp;
use frontrow_domain::ports::Clock;
use time::OffsetDateTime;

/// The machine's clock plus a correction.
#[derive(Debug, Default)]
pub struct SystemClock {
    offset_micros: AtomicI64,
}

impl SystemClock {
    /// The machine's clock without the correction.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "this is the clock that everything else asks")]
    pub fn uncorrected() -> Timestamp {
        Timestamp::try_from(OffsetDateTime::now_utc()).unwrap_or(Timestamp::MAX)
    }

    /// Sets the correction: the database's time less the machine's, in microseconds.
    pub fn correct(&self, offset_micros: i64) {
        self.offset_micros.store(offset_micros, Ordering::Relaxed);
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let machine = Self::uncorrected();
        let corrected = machine.unix_micros().saturating_add(self.offset_micros.load(Ordering::Relaxed));
        Timestamp::from_unix_micros(corrected).unwrap_or(machine)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_correction_moves_the_clock() {
        let clock = SystemClock::default();
        clock.correct(-3_600_000_000);
        let corrected = clock.now();
        let behind = SystemClock::uncorrected().since(corrected);
        assert!(behind >= Duration::from_secs(3_600) && behind < Duration::from_secs(3_660), "{behind:?}");
    }
}
