//! Points in time, as storage can keep them.

use std::fmt;
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A point in time: UTC, whole microseconds, from year 1 to year 9999.
///
/// Microseconds because PostgreSQL keeps no more: what is read is what was written. The range is the one
/// that RFC 3339 can write.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// A text that is no RFC 3339 time between the years 1 and 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 time such as 2026-11-22T20:00:00Z")]
pub struct InvalidTimestamp;

impl Timestamp {
    /// 0001-01-01T00:00:00Z.
    pub const MIN: Self = Self(-62_135_596_800_000_000);
    /// 9999-12-31T23:59:59.999999Z.
    pub const MAX: Self = Self(253_402_300_799_999_999);

    /// Takes microseconds since 1970-01-01T00:00:00Z; `None` out of range.
    #[must_use]
    pub const fn from_unix_micros(micros: i64) -> Option<Self> {
        if micros < Self::MIN.0 || micros > Self::MAX.0 { None } else { Some(Self(micros)) }
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn unix_micros(self) -> i64 {
        self.0
    }

    /// Reads an RFC 3339 time; what is finer than a microsecond is cut off.
    ///
    /// # Errors
    /// [`InvalidTimestamp`] for any other text.
    pub fn parse(text: &str) -> Result<Self, InvalidTimestamp> {
        let parsed = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| InvalidTimestamp)?;
        Self::try_from(parsed)
    }

    /// The time that is `duration` later, or [`Timestamp::MAX`].
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(micros).min(Self::MAX.0))
    }

    /// The time that is this many seconds later, or [`Timestamp::MAX`].
    #[must_use]
    pub fn plus_seconds(self, seconds: u32) -> Self {
        self.plus(Duration::from_secs(u64::from(seconds)))
    }

    /// The time that is this many seconds earlier, or [`Timestamp::MIN`].
    #[must_use]
    pub fn minus_seconds(self, seconds: u32) -> Self {
        let micros = i64::from(seconds).saturating_mul(1_000_000);
        Self(self.0.saturating_sub(micros).max(Self::MIN.0))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl TryFrom<OffsetDateTime> for Timestamp {
    type Error = InvalidTimestamp;

    fn try_from(time: OffsetDateTime) -> Result<Self, InvalidTimestamp> {
        let micros = time.unix_timestamp_nanos().div_euclid(1_000);
        i64::try_from(micros).ok().and_then(Self::from_unix_micros).ok_or(InvalidTimestamp)
    }
}

impl From<Timestamp> for OffsetDateTime {
    fn from(timestamp: Timestamp) -> Self {
        // Every `Timestamp` is within the range of `OffsetDateTime`, so the epoch is never used.
        Self::from_unix_timestamp_nanos(i128::from(timestamp.0) * 1_000).unwrap_or(Self::UNIX_EPOCH)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&OffsetDateTime::from(*self).format(&Rfc3339).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::UtcOffset;

    use super::*;

    #[test]
    fn the_extremes_are_written_and_read() {
        assert_eq!(Timestamp::MIN.to_string(), "0001-01-01T00:00:00Z");
        assert_eq!(Timestamp::MAX.to_string(), "9999-12-31T23:59:59.999999Z");
        assert_eq!(Timestamp::parse("9999-12-31T23:59:59.9999999Z"), Ok(Timestamp::MAX));
        assert_eq!(Timestamp::parse("0000-12-31T23:59:59Z"), Err(InvalidTimestamp));
        assert_eq!(Timestamp::parse("9999-12-31T23:59:59-01:00"), Err(InvalidTimestamp));
        assert_eq!(Timestamp::parse("yesterday"), Err(InvalidTimestamp));
    }

    #[test]
    fn offsets_are_folded_into_utc() {
        assert_eq!(Timestamp::parse("2026-11-22T09:00:00+09:00"), Timestamp::parse("2026-11-22T00:00:00Z"));
    }

    proptest! {
        #[test]
        fn any_text_is_a_time_that_we_can_write_or_none(text in prop_oneof![
            ".*",
            concat!(
                "[0-9]{4}-[01][0-9]-[0-3][0-9][Tt ][0-2][0-9]:[0-6][0-9]:[0-6][0-9]",
                "(\\.[0-9]{0,12})?(Z|z|[+-][0-2][0-9]:[0-6][0-9])?",
            ),
        ]) {
            match Timestamp::parse(&text) {
                Err(error) => prop_assert_eq!(error, InvalidTimestamp),
                Ok(time) => {
                    prop_assert!((Timestamp::MIN..=Timestamp::MAX).contains(&time));
                    prop_assert_eq!(Timestamp::parse(&time.to_string()), Ok(time));
                }
            }
        }

        #[test]
        fn a_time_is_read_as_it_is_written_in_every_offset(
            micros in Timestamp::MIN.0..=Timestamp::MAX.0,
            minutes in -1_439..=1_439_i32,
        ) {
            let time = Timestamp(micros);
            prop_assert_eq!(Timestamp::parse(&time.to_string()), Ok(time));
            let offset = UtcOffset::from_whole_seconds(minutes * 60).unwrap();
            // Near the ends of time the year is none that RFC 3339 can write.
            let elsewhere = OffsetDateTime::from(time).checked_to_offset(offset);
            if let Some(Ok(text)) = elsewhere.map(|time| time.format(&Rfc3339)) {
                prop_assert_eq!(Timestamp::parse(&text), Ok(time), "{}", text);
            }
        }

        #[test]
        fn adding_stops_at_the_end(micros in Timestamp::MIN.0..=Timestamp::MAX.0, seconds in any::<u32>()) {
            let later = Timestamp(micros).plus_seconds(seconds);
            prop_assert!(later <= Timestamp::MAX);
            if later < Timestamp::MAX {
                prop_assert_eq!(later.since(Timestamp(micros)), Duration::from_secs(u64::from(seconds)));
            }
        }
    }
}
