//! What is known of one line, since when, and whether anybody cares.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use frontrow_domain::Timestamp;
use frontrow_domain::queue::{LineState, LineView};

use crate::outage::{GOOD_FOR, is_within};

/// For how long after somebody asked for it every refresh reads a line: three times the longest time between two polls.
const WATCHED_FOR: Duration = Duration::from_secs(180);
/// How exactly it is kept when somebody asked: many do at once, and most need not write it down.
const ASKED_WITHIN: Duration = Duration::from_secs(1);

/// The view of a line.
pub(super) struct KnownLine {
    pub(super) view: LineView,
    /// Everything committed before this time is in.
    as_of: Timestamp,
    /// The refresh that read it last, and what it read.
    read_by: u64,
    read: Option<LineState>,
    /// In microseconds of 1970.
    asked_for_at: AtomicI64,
}

impl KnownLine {
    /// A line that is new counts as asked for: whoever made it is going to use it.
    pub(super) const fn new(view: LineView, now: Timestamp) -> Self {
        Self { view, as_of: now, read_by: 0, read: None, asked_for_at: AtomicI64::new(now.unix_micros()) }
    }

    /// All of it was read by this refresh, which was begun at this time.
    pub(super) fn was_read(&mut self, state: LineState, at: Timestamp, by: u64) {
        self.as_of = at;
        self.read_by = by;
        self.read = Some(state);
    }

    /// Whether a refresh that began after the last one has read less than that: the data has gone back.
    pub(super) fn is_ahead_of(&self, state: &LineState) -> bool {
        self.read.is_some_and(|before| {
            before.room.version > state.room.version
                || before.last_ticket > state.last_ticket
                || before.admitted_through > state.admitted_through
                || before.departures > state.departures
        })
    }

    /// Whether any refresh has read it.
    pub(super) const fn was_read_before(&self) -> bool {
        self.read.is_some()
    }

    /// The refresh that read it last.
    pub(super) const fn read_by(&self) -> u64 {
        self.read_by
    }

    /// Whether it still answers.
    pub(super) fn answers(&self, now: Timestamp) -> bool {
        now.since(self.as_of) < GOOD_FOR
    }

    /// Somebody asks for it.
    pub(super) fn is_asked_for(&self, now: Timestamp) {
        if !is_within(ASKED_WITHIN, self.asked_for_at(), now) {
            self.asked_for_at.store(now.unix_micros(), Ordering::Relaxed);
        }
    }

    /// Whether places of inactive waiters are given up in it.
    pub(super) fn gives_up_places(&self) -> bool {
        self.read.is_none_or(|read| read.waiting > 0) && self.view.room().policy.wait_grace_seconds.is_some()
    }

    /// Whether every refresh is to read it. Where places are given up it is read without being asked for.
    pub(super) fn is_watched(&self, now: Timestamp) -> bool {
        self.gives_up_places() || is_within(WATCHED_FOR, self.asked_for_at(), now)
    }

    fn asked_for_at(&self) -> Timestamp {
        Timestamp::from_unix_micros(self.asked_for_at.load(Ordering::Relaxed)).unwrap_or(self.as_of)
    }
}
