//! How a room admits people, and what operators may change of it.

use crate::Timestamp;

/// Who is admitted, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RoomMode {
    /// A batch at every tick.
    #[default]
    Auto,
    /// Nobody; newcomers wait.
    Hold,
    /// Everyone at once.
    Open,
    /// Nobody; newcomers are refused.
    Closed,
    /// A stop of the sale: no admission, not by hand either, and no new hold. ACTIVE tokens keep their remaining time;
    /// holds stay payable; newcomers wait.
    Paused,
}

impl RoomMode {
    /// Every mode with its name in the contract and in storage.
    pub const NAMES: [(Self, &'static str); 5] = [
        (Self::Auto, "AUTO"),
        (Self::Hold, "HOLD"),
        (Self::Open, "OPEN"),
        (Self::Closed, "CLOSED"),
        (Self::Paused, "PAUSED"),
    ];
}

/// The policy of a room. Made by [`RoomPolicy::default`] and [`RoomPolicy::patched`], so its numbers are in range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomPolicy {
    /// How many are admitted a tick (1 to [`RoomPolicy::MAX_COUNT`]).
    pub admit_batch: u32,
    /// Time between ticks, in seconds (1 to [`RoomPolicy::MAX_SECONDS`]).
    pub admit_interval_seconds: u32,
    /// How long an admitted token stays ACTIVE, in seconds (1 to [`RoomPolicy::MAX_SECONDS`]).
    pub active_ttl_seconds: u32,
    /// The most tokens that may be ACTIVE at once; `None` is no limit.
    pub max_active: Option<u32>,
    /// The most people that may wait; `None` is no limit.
    pub max_waiting: Option<u32>,
    /// How long the holder of a place near the head may stay away before the place is given up, in seconds
    /// ([`RoomPolicy::MIN_GRACE_SECONDS`] to [`RoomPolicy::MAX_SECONDS`]); `None` gives up no place.
    pub wait_grace_seconds: Option<u32>,
    /// The opening: the first tick is at this time, and none is before it. `None` leaves it to the dates of the room's
    /// concert, see [`crate::queue::Room::sales_open_at`].
    pub opens_at: Option<Timestamp>,
    /// Who is admitted, and when.
    pub mode: RoomMode,
}

/// The seed's rule: 10 people every 10 minutes.
impl Default for RoomPolicy {
    fn default() -> Self {
        Self {
            admit_batch: 10,
            admit_interval_seconds: 600,
            active_ttl_seconds: 600,
            max_active: None,
            max_waiting: None,
            wait_grace_seconds: None,
            opens_at: None,
            mode: RoomMode::Auto,
        }
    }
}

/// The fields of a policy that an operator gives; the others stay. Numbers are unchecked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RoomPolicyPatch {
    /// See [`RoomPolicy::admit_batch`].
    pub admit_batch: Option<i64>,
    /// See [`RoomPolicy::admit_interval_seconds`].
    pub admit_interval_seconds: Option<i64>,
    /// See [`RoomPolicy::active_ttl_seconds`].
    pub active_ttl_seconds: Option<i64>,
    /// See [`RoomPolicy::max_active`]; `Some(None)` lifts the limit.
    pub max_active: Option<Option<i64>>,
    /// See [`RoomPolicy::max_waiting`]; `Some(None)` lifts the limit.
    pub max_waiting: Option<Option<i64>>,
    /// See [`RoomPolicy::wait_grace_seconds`]; `Some(None)` gives up no place any more.
    pub wait_grace_seconds: Option<Option<i64>>,
    /// See [`RoomPolicy::opens_at`]; `Some(None)` clears it.
    pub opens_at: Option<Option<Timestamp>>,
    /// See [`RoomPolicy::mode`].
    pub mode: Option<RoomMode>,
}

/// A number of a policy is out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field} must be from {min} to {max}")]
pub struct InvalidPolicy {
    /// The field, as the contract names it.
    pub field: &'static str,
    /// The least allowed.
    pub min: u32,
    /// The most allowed.
    pub max: u32,
}

/// A room takes no newcomers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RoomRefusal {
    /// The room is CLOSED.
    #[error("this waiting room is closed")]
    Closed,
    /// As many people wait as may.
    #[error("this waiting room is full")]
    Full,
}

/// The state in which a newcomer enters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entrance {
    /// At the tail of the line.
    Wait,
    /// Straight through.
    Active,
}

impl RoomPolicy {
    /// The largest count of people in a policy.
    pub const MAX_COUNT: u32 = 10_000_000;
    /// The largest number of people one tick may admit: it is one transaction.
    pub const MAX_BATCH: u32 = 100_000;
    /// The most waiters that are judged by their polls: what one sweep looks at.
    pub const MAX_WINDOW: u32 = 10_000;
    /// The shortest grace, in seconds: twice the longest time between two polls as told, so that somebody whose poll
    /// was lost once, or whose browser slows the timers of hidden tabs down to one a minute, keeps the place.
    pub const MIN_GRACE_SECONDS: u32 = 120;
    /// The longest time in a policy: 30 days, in seconds.
    pub const MAX_SECONDS: u32 = 30 * 24 * 60 * 60;

    /// This policy with the given fields replaced.
    ///
    /// # Errors
    /// [`InvalidPolicy`] names the first field that is out of range.
    pub fn patched(self, patch: &RoomPolicyPatch) -> Result<Self, InvalidPolicy> {
        Ok(Self {
            admit_batch: ranged("admitBatch", patch.admit_batch, self.admit_batch, Self::MAX_BATCH)?,
            admit_interval_seconds: ranged(
                "admitIntervalSeconds",
                patch.admit_interval_seconds,
                self.admit_interval_seconds,
                Self::MAX_SECONDS,
            )?,
            active_ttl_seconds: ranged(
                "activeTtlSeconds",
                patch.active_ttl_seconds,
                self.active_ttl_seconds,
                Self::MAX_SECONDS,
            )?,
            max_active: optional("maxActive", patch.max_active, self.max_active, COUNTS)?,
            max_waiting: optional("maxWaiting", patch.max_waiting, self.max_waiting, COUNTS)?,
            wait_grace_seconds: optional(
                "waitGraceSeconds",
                patch.wait_grace_seconds,
                self.wait_grace_seconds,
                (Self::MIN_GRACE_SECONDS, Self::MAX_SECONDS),
            )?,
            opens_at: patch.opens_at.unwrap_or(self.opens_at),
            mode: patch.mode.unwrap_or(self.mode),
        })
    }

    /// How many waiters, from the head, are judged by their polls where there is a grace: those of the next three ticks,
    /// and at most [`RoomPolicy::MAX_WINDOW`].
    #[must_use]
    pub const fn grace_window(&self) -> u32 {
        let ticks = self.admit_batch.saturating_mul(3);
        if ticks < Self::MAX_WINDOW { ticks } else { Self::MAX_WINDOW }
    }

    /// Whether a poll of the waiter at `position` is to be noted.
    #[must_use]
    pub fn notes_polls_at(&self, position: u64) -> bool {
        self.wait_grace_seconds.is_some() && position <= u64::from(self.grace_window())
    }

    /// Whether [`RoomPolicy::entrance`] looks at the number of ACTIVE tokens, so that it has to be counted.
    #[must_use]
    pub const fn entrance_needs_active(&self) -> bool {
        matches!(self.mode, RoomMode::Open) && self.max_active.is_some()
    }

    /// How a newcomer enters a room where `waiting` wait and `active` are ACTIVE.
    ///
    /// In OPEN a newcomer goes straight through, but never past people who wait, nor over `max_active`.
    ///
    /// # Errors
    /// [`RoomRefusal`] when the room is closed or full.
    pub fn entrance(&self, waiting: u64, active: u64) -> Result<Entrance, RoomRefusal> {
        if self.mode == RoomMode::Closed {
            return Err(RoomRefusal::Closed);
        }
        if self.mode == RoomMode::Open && waiting == 0 && self.free_places(active) > 0 {
            return Ok(Entrance::Active);
        }
        if self.max_waiting.is_some_and(|max| waiting >= u64::from(max)) {
            return Err(RoomRefusal::Full);
        }
        Ok(Entrance::Wait)
    }

    /// How many more may be ACTIVE while `active` are.
    #[must_use]
    pub fn free_places(&self, active: u64) -> u64 {
        self.max_active.map_or(u64::MAX, |max| u64::from(max).saturating_sub(active))
    }
}

fn ranged(field: &'static str, given: Option<i64>, kept: u32, max: u32) -> Result<u32, InvalidPolicy> {
    match given {
        None => Ok(kept),
        Some(number) => in_range(field, number, 1, max),
    }
}

/// The least and the most of a limit of people.
const COUNTS: (u32, u32) = (0, RoomPolicy::MAX_COUNT);

fn optional(
    field: &'static str,
    given: Option<Option<i64>>,
    kept: Option<u32>,
    (min, max): (u32, u32),
) -> Result<Option<u32>, InvalidPolicy> {
    match given {
        None => Ok(kept),
        Some(None) => Ok(None),
        Some(Some(number)) => in_range(field, number, min, max).map(Some),
    }
}

fn in_range(field: &'static str, number: i64, min: u32, max: u32) -> Result<u32, InvalidPolicy> {
    u32::try_from(number).ok().filter(|n| (min..=max).contains(n)).ok_or(InvalidPolicy { field, min, max })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(mode: RoomMode, max_active: Option<u32>, max_waiting: Option<u32>) -> RoomPolicy {
        RoomPolicy { mode, max_active, max_waiting, ..RoomPolicy::default() }
    }

    #[test]
    fn newcomers_by_mode() {
        for (mode, waiting, active, expected) in [
            (RoomMode::Auto, 0, 0, Ok(Entrance::Wait)),
            (RoomMode::Auto, 4, 0, Ok(Entrance::Wait)),
            (RoomMode::Auto, 5, 0, Err(RoomRefusal::Full)),
            (RoomMode::Hold, 4, 0, Ok(Entrance::Wait)),
            (RoomMode::Hold, 5, 0, Err(RoomRefusal::Full)),
            (RoomMode::Paused, 0, 0, Ok(Entrance::Wait)),
            (RoomMode::Paused, 5, 0, Err(RoomRefusal::Full)),
            (RoomMode::Closed, 0, 0, Err(RoomRefusal::Closed)),
            (RoomMode::Closed, 5, 0, Err(RoomRefusal::Closed)),
            (RoomMode::Open, 0, 1, Ok(Entrance::Active)),
            (RoomMode::Open, 0, 2, Ok(Entrance::Wait)),
            (RoomMode::Open, 1, 0, Ok(Entrance::Wait)),
            (RoomMode::Open, 5, 0, Err(RoomRefusal::Full)),
        ] {
            let policy = policy(mode, Some(2), Some(5));
            assert_eq!(policy.entrance(waiting, active), expected, "{mode:?} {waiting} {active}");
        }
        assert_eq!(policy(RoomMode::Open, None, None).entrance(0, 9_999), Ok(Entrance::Active));
        assert_eq!(policy(RoomMode::Auto, None, None).entrance(9_999, 0), Ok(Entrance::Wait));
    }

    #[test]
    fn polls_are_noted_near_the_head_of_a_room_with_a_grace() {
        let off = RoomPolicy::default();
        let on = RoomPolicy { wait_grace_seconds: Some(120), ..off };
        assert!(!off.notes_polls_at(1));
        assert!(on.notes_polls_at(30) && !on.notes_polls_at(31), "three batches of ten");
        let large = RoomPolicy { admit_batch: RoomPolicy::MAX_BATCH, ..on };
        assert!(large.notes_polls_at(10_000) && !large.notes_polls_at(10_001));
    }

    #[test]
    fn only_open_rooms_with_a_cap_need_a_count() {
        for (mode, _) in RoomMode::NAMES {
            assert!(!policy(mode, None, None).entrance_needs_active());
            assert_eq!(policy(mode, Some(1), None).entrance_needs_active(), mode == RoomMode::Open);
        }
    }

    #[test]
    fn a_patch_changes_what_it_names() {
        let patch = RoomPolicyPatch { admit_batch: Some(3), max_active: Some(Some(7)), ..Default::default() };
        let patched = RoomPolicy::default().patched(&patch).unwrap();
        assert_eq!(patched, RoomPolicy { admit_batch: 3, max_active: Some(7), ..RoomPolicy::default() });
        let lifted =
            RoomPolicyPatch { max_active: Some(None), mode: Some(RoomMode::Hold), ..Default::default() };
        let lifted = patched.patched(&lifted).unwrap();
        assert_eq!(lifted, RoomPolicy { admit_batch: 3, mode: RoomMode::Hold, ..RoomPolicy::default() });
    }

    #[test]
    fn numbers_out_of_range_are_named() {
        let batch = |n| RoomPolicyPatch { admit_batch: Some(n), ..Default::default() };
        let interval = |n| RoomPolicyPatch { admit_interval_seconds: Some(n), ..Default::default() };
        let ttl = |n| RoomPolicyPatch { active_ttl_seconds: Some(n), ..Default::default() };
        let active = |n| RoomPolicyPatch { max_active: Some(Some(n)), ..Default::default() };
        let waiting = |n| RoomPolicyPatch { max_waiting: Some(Some(n)), ..Default::default() };
        let grace = |n| RoomPolicyPatch { wait_grace_seconds: Some(Some(n)), ..Default::default() };
        for (patch, field) in [
            (batch(0), "admitBatch"),
            (batch(-1), "admitBatch"),
            (batch(100_001), "admitBatch"),
            (interval(0), "admitIntervalSeconds"),
            (interval(i64::MAX), "admitIntervalSeconds"),
            (ttl(0), "activeTtlSeconds"),
            (active(-1), "maxActive"),
            (waiting(-1), "maxWaiting"),
            (waiting(10_000_001), "maxWaiting"),
            (grace(0), "waitGraceSeconds"),
            (grace(119), "waitGraceSeconds"),
            (grace(2_592_001), "waitGraceSeconds"),
        ] {
            assert_eq!(RoomPolicy::default().patched(&patch).unwrap_err().field, field);
        }
    }
}
