//! A room: its policy and its grid of ticks.

use uuid::Uuid;

use crate::queue::{InvalidPolicy, RoomMode, RoomPolicy, RoomPolicyPatch};
use crate::{RoomId, Timestamp};

/// The global room: it serves every concert that has none of its own.
pub const DEFAULT_ROOM_ID: RoomId = RoomId::new(Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0001));

/// A waiting line with a policy. How many wait and who is next is not here: those rows are hot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Which room.
    pub id: RoomId,
    /// How it admits.
    pub policy: RoomPolicy,
    /// The last point of the tick grid that has passed; the creation before the first.
    pub last_tick_at: Timestamp,
    /// When the next batch is due.
    pub next_tick_at: Timestamp,
}

impl Room {
    /// A new room: its first tick is one interval after its creation.
    #[must_use]
    pub fn new(id: RoomId, policy: RoomPolicy, now: Timestamp) -> Self {
        let next_tick_at = now.plus_seconds(policy.admit_interval_seconds);
        Self { id, policy, last_tick_at: now, next_tick_at }
    }

    /// Takes the tick that is due, and says how many may be admitted by it; `None` while none is due.
    ///
    /// The grid goes on in every mode, so that nothing is banked: ticks missed while no node ran, or while
    /// the room was on HOLD, collapse into this one, and the next is the first point of the grid after `now`.
    #[must_use]
    pub fn tick(self, now: Timestamp) -> Option<(Self, u32)> {
        if now < self.next_tick_at {
            return None;
        }
        let interval = i64::from(self.policy.admit_interval_seconds).saturating_mul(1_000_000).max(1);
        let into_interval = (now.unix_micros() - self.next_tick_at.unix_micros()).rem_euclid(interval);
        let last = now.unix_micros() - into_interval;
        let last_tick_at = Timestamp::from_unix_micros(last).unwrap_or(now);
        let next_tick_at = last_tick_at.plus_seconds(self.policy.admit_interval_seconds);
        let batch = if self.policy.mode == RoomMode::Auto { self.policy.admit_batch } else { 0 };
        Some((Self { last_tick_at, next_tick_at, ..self }, batch))
    }

    /// The room under a changed policy. A changed interval moves the next tick to the last tick + interval,
    /// or to `now` when that has passed. A tick that came due while nobody is admitted by ticks is over with it:
    /// the new policy does not get it.
    ///
    /// # Errors
    /// [`InvalidPolicy`] names the first field that is out of range.
    pub fn patched(self, patch: &RoomPolicyPatch, now: Timestamp) -> Result<Self, InvalidPolicy> {
        let policy = self.policy.patched(patch)?;
        let spent = if self.policy.mode == RoomMode::Auto { None } else { self.tick(now) };
        let room = spent.map_or(self, |(ticked, _)| ticked);
        let next_tick_at = if policy.admit_interval_seconds == self.policy.admit_interval_seconds {
            room.next_tick_at
        } else {
            room.last_tick_at.plus_seconds(policy.admit_interval_seconds).max(now)
        };
        Ok(Self { policy, next_tick_at, ..room })
    }
}

/// How long the waiter at `position` (1 is next) waits for its tick, in whole seconds; `None` while the room
/// admits nobody. `max_active` is ignored: an honest bound from below. An OPEN room admits within a second.
#[must_use]
pub fn estimated_wait_seconds(room: &Room, position: u64, now: Timestamp) -> Option<u64> {
    let Some(ahead) = position.checked_sub(1) else { return Some(0) };
    match room.policy.mode {
        RoomMode::Hold | RoomMode::Closed => None,
        RoomMode::Open => Some(1),
        RoomMode::Auto => {
            let to_next_tick = room.next_tick_at.since(now).as_micros().div_ceil(1_000_000);
            let batches_ahead = ahead / u64::from(room.policy.admit_batch.max(1));
            let later = batches_ahead.saturating_mul(u64::from(room.policy.admit_interval_seconds));
            Some(u64::try_from(to_next_tick).unwrap_or(u64::MAX).saturating_add(later))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_unix_micros(micros).unwrap()
    }

    fn room(interval: u32) -> Room {
        let policy = RoomPolicy { admit_interval_seconds: interval, ..RoomPolicy::default() };
        Room::new(DEFAULT_ROOM_ID, policy, at(0))
    }

    fn with_mode(mode: RoomMode) -> Room {
        let mut room = room(600);
        room.policy.mode = mode;
        room
    }

    #[test]
    fn the_first_tick_is_one_interval_after_the_creation() {
        let room = room(600);
        assert_eq!(room.tick(at(599_999_999)), None);
        let (ticked, batch) = room.tick(at(600_000_000)).unwrap();
        assert_eq!(batch, 10);
        assert_eq!(ticked.last_tick_at, at(600_000_000));
        assert_eq!(ticked.next_tick_at, at(1_200_000_000));
        assert_eq!(ticked.tick(at(600_000_000)), None, "a tick is taken once");
    }

    #[test]
    fn missed_ticks_collapse_into_one_and_the_grid_stays() {
        let (ticked, batch) = room(600).tick(at(2_000_000_000)).unwrap();
        assert_eq!(batch, 10);
        assert_eq!(ticked.last_tick_at, at(1_800_000_000));
        assert_eq!(ticked.next_tick_at, at(2_400_000_000));
    }

    #[test]
    fn only_auto_admits_by_ticks_but_the_grid_always_goes_on() {
        for (mode, _) in RoomMode::NAMES {
            let (ticked, batch) = with_mode(mode).tick(at(600_000_000)).unwrap();
            assert_eq!(batch, if mode == RoomMode::Auto { 10 } else { 0 });
            assert_eq!(ticked.next_tick_at, at(1_200_000_000));
        }
    }

    #[test]
    fn a_changed_interval_counts_from_the_last_tick() {
        let interval = |n| RoomPolicyPatch { admit_interval_seconds: Some(n), ..Default::default() };
        let (ticked, _) = room(600).tick(at(600_000_000)).unwrap();
        let now = at(700_000_000);
        assert_eq!(ticked.patched(&interval(300), now).unwrap().next_tick_at, at(900_000_000));
        let overdue = ticked.patched(&interval(60), now).unwrap();
        assert_eq!(overdue.next_tick_at, now, "never in the past");
        assert_eq!(overdue.patched(&interval(600), now).unwrap().next_tick_at, at(1_200_000_000));
        let batch = RoomPolicyPatch { admit_batch: Some(5), ..Default::default() };
        assert_eq!(ticked.patched(&batch, now).unwrap().next_tick_at, ticked.next_tick_at);
    }

    #[test]
    fn a_tick_missed_on_hold_is_not_banked_for_the_next_mode() {
        let auto = RoomPolicyPatch { mode: Some(RoomMode::Auto), ..Default::default() };
        let now = at(600_500_000);
        for mode in [RoomMode::Hold, RoomMode::Closed, RoomMode::Open] {
            let resumed = with_mode(mode).patched(&auto, now).unwrap();
            assert_eq!(resumed.tick(now), None, "{mode:?}");
            assert_eq!((resumed.last_tick_at, resumed.next_tick_at), (at(600_000_000), at(1_200_000_000)));
        }
        let hold = RoomPolicyPatch { mode: Some(RoomMode::Hold), ..Default::default() };
        assert_eq!(room(600).patched(&hold, now).unwrap().tick(now).map(|(_, batch)| batch), Some(0));
        let batch = RoomPolicyPatch { admit_batch: Some(5), ..Default::default() };
        let due = room(600).patched(&batch, now).unwrap().tick(now);
        assert_eq!(due.map(|(_, batch)| batch), Some(5), "an AUTO room keeps the tick that is due");
    }

    #[test]
    fn the_estimate_counts_whole_batches() {
        let room = room(600);
        for (position, now, expected) in [
            (0, 0, 0),
            (1, 0, 600),
            (10, 0, 600),
            (11, 0, 1_200),
            (1, 1, 600),
            (1, 1_000_001, 599),
            (1, 700_000_000, 0),
        ] {
            assert_eq!(estimated_wait_seconds(&room, position, at(now)), Some(expected), "{position} {now}");
        }
        assert_eq!(estimated_wait_seconds(&with_mode(RoomMode::Hold), 1, at(0)), None);
        assert_eq!(estimated_wait_seconds(&with_mode(RoomMode::Closed), 1, at(0)), None);
        assert_eq!(estimated_wait_seconds(&with_mode(RoomMode::Hold), 0, at(0)), Some(0));
        assert_eq!(estimated_wait_seconds(&with_mode(RoomMode::Open), 5_000, at(0)), Some(1));
    }

    proptest! {
        #[test]
        fn a_tick_keeps_the_grid(interval in 1..=RoomPolicy::MAX_SECONDS, micros in 0..4_000_000_000_000_000_i64) {
            let room = room(interval);
            let now = at(micros);
            match room.tick(now) {
                None => prop_assert!(now < room.next_tick_at),
                Some((ticked, batch)) => {
                    let step = i64::from(interval) * 1_000_000;
                    prop_assert_eq!(batch, 10);
                    prop_assert!(ticked.last_tick_at <= now && now < ticked.next_tick_at);
                    prop_assert_eq!(ticked.next_tick_at.unix_micros() % step, 0);
                    prop_assert_eq!(ticked.next_tick_at.since(ticked.last_tick_at).as_secs(), u64::from(interval));
                }
            }
        }

        #[test]
        fn ticks_never_outnumber_the_intervals(interval in 1..100_u32, steps in prop::collection::vec(0..50_000_000_i64, 1..60)) {
            let (mut room, mut now, mut ticks) = (room(interval), 0, 0_i64);
            for step in steps {
                now += step;
                if let Some((ticked, _)) = room.tick(at(now)) {
                    room = ticked;
                    ticks += 1;
                }
            }
            prop_assert!(ticks <= now / (i64::from(interval) * 1_000_000));
        }

        #[test]
        fn nobody_further_back_waits_less(position in 1..1_000_000_u64, micros in 0..600_000_000_i64) {
            let room = room(600);
            prop_assert!(
                estimated_wait_seconds(&room, position, at(micros))
                    <= estimated_wait_seconds(&room, position + 1, at(micros))
            );
        }
    }
}
