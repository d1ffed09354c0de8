//! How reads get over a database that is away for a moment: what was read last is good enough for a while, and nobody
//! waits for an answer that does not come.

use std::time::Duration;

use frontrow_domain::Timestamp;

/// For how long after it was last known to be true something is still told while the database is away.
pub(crate) const GOOD_FOR: Duration = Duration::from_secs(30);
/// A database that has not answered for so long counts as away.
const PATIENCE: Duration = Duration::from_millis(150);
/// For how long after a failure nobody waits for the next attempt.
const PAUSE: Duration = Duration::from_secs(1);

/// Whether the database answers, as far as one kind of read can tell.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Outlook {
    /// Since when a read is under way.
    reading_since: Option<Timestamp>,
    failed_at: Option<Timestamp>,
}

impl Outlook {
    /// A read begins.
    pub(crate) const fn begin(&mut self, now: Timestamp) {
        self.reading_since = Some(now);
    }

    /// The read has ended.
    pub(crate) fn end(&mut self, is_answered: bool, now: Timestamp) {
        *self = Self { reading_since: None, failed_at: (!is_answered).then_some(now) };
    }

    /// Whether what is known must do, if it will.
    pub(crate) fn is_away(&self, now: Timestamp) -> bool {
        self.reading_since.is_some_and(|since| now.since(since) > PATIENCE)
            || self.failed_at.is_some_and(|failed_at| is_within(PAUSE, failed_at, now))
    }
}

/// Whether two times lie less than a duration apart. A time far ahead is one of a clock that was set back since.
pub(crate) fn is_within(duration: Duration, one: Timestamp, other: Timestamp) -> bool {
    one.since(other) < duration && other.since(one) < duration
}

/// Whether something that was known to be true at `as_of` may still be told while the database is away.
pub(crate) fn will_do(as_of: Timestamp, now: Timestamp) -> bool {
    now.since(as_of) <= GOOD_FOR
}
