//! A room: its policy and its grid of ticks.

use std::time::Duration;

use uuid::Uuid;

use crate::queue::{InvalidPolicy, RoomMode, RoomPolicy, RoomPolicyPatch};
use crate::{RoomId, Timestamp, Versioned};

/// The global room: it serves every concert that has none of its own.
pub const DEFAULT_ROOM_ID: RoomId = RoomId::new(Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0001));

/// How far ahead of the grid a stored tick may lie without being taken for the work of a wrong clock: more than the
/// clocks of nodes differ by, so that no node takes back the tick of another.
pub const CLOCK_SLACK: Duration = Duration::from_secs(5);

/// A waiting line with a policy. How many wait and who is next is not here: those rows are hot.
///
/// The grid of ticks is arithmetic: every time that is whole intervals from `next_tick_at` is on it. It is stored only when
/// a tick admits or the grid moves, so a room without waiters is never written (ADR 0023). [`Room::caught_up`] brings
/// stored ticks up to a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Which room.
    pub id: RoomId,
    /// How it admits.
    pub policy: RoomPolicy,
    /// The last tick that was taken, or that passed before the grid moved; the creation before the first.
    pub last_tick_at: Timestamp,
    /// The tick after that. It may have passed: see [`Room::caught_up`].
    pub next_tick_at: Timestamp,
    /// The opening by the dates of the concert whose own room this is, see [`sales_opening`].
    pub sales_open_at: Option<Timestamp>,
}

impl Room {
    /// A new room: its first tick is one interval after its creation, or at its opening.
    #[must_use]
    pub fn new(id: RoomId, policy: RoomPolicy, now: Timestamp) -> Self {
        let next_tick_at = now.plus_seconds(policy.admit_interval_seconds);
        let room = Self { id, policy, last_tick_at: now, next_tick_at, sales_open_at: None };
        room.opens_after(now).map_or(room, |opening| Self { next_tick_at: opening, ..room })
    }

    /// The opening that counts: the operator's, else that of the dates.
    #[must_use]
    pub fn opens_at(&self) -> Option<Timestamp> {
        self.policy.opens_at.or(self.sales_open_at)
    }

    /// The opening, while it lies ahead.
    #[must_use]
    pub fn opens_after(&self, now: Timestamp) -> Option<Timestamp> {
        self.opens_at().filter(|opening| now < *opening)
    }

    /// Takes the tick that is due, and says how many may be admitted by it; `None` while none is due.
    ///
    /// Nothing is banked: ticks missed while no node ran, or while the room was on HOLD, collapse into this one, and the
    /// next is the first point of the grid after `now`.
    #[must_use]
    pub fn tick(self, now: Timestamp) -> Option<(Self, u32)> {
        if now < self.next_tick_at || self.opens_after(now).is_some() {
            return None;
        }
        let batch = if self.policy.mode == RoomMode::Auto { self.policy.admit_batch } else { 0 };
        Some((self.on_grid(now), batch))
    }

    /// The room with its ticks brought up to `now`, where the first waiter entered at `waiting_since`. A tick that is due
    /// for that waiter stays due. One that passed without a waiter is over. One that lies further ahead than an interval,
    /// written under a wrong clock, moves back to the next point of the grid.
    #[must_use]
    pub fn caught_up(self, waiting_since: Option<Timestamp>, now: Timestamp) -> Self {
        if let Some(opening) = self.opens_after(now) {
            return Self { next_tick_at: opening, ..self };
        }
        let latest = now.plus(CLOCK_SLACK);
        let on_grid = self.on_grid(now);
        if self.next_tick_at <= now {
            let is_due = waiting_since.is_some_and(|since| since <= on_grid.last_tick_at);
            return if is_due { self } else { on_grid };
        }
        if self.next_tick_at > latest.plus_seconds(self.policy.admit_interval_seconds) {
            return on_grid;
        }
        let is_last_astray = self.last_tick_at > latest;
        Self { last_tick_at: if is_last_astray { on_grid.last_tick_at } else { self.last_tick_at }, ..self }
    }

    /// The room under a changed policy. A changed interval moves the next tick to the last tick + interval,
    /// or to `now` when that has passed. A tick that came due while nobody is admitted by ticks is over with it:
    /// the new policy does not get it. A changed opening moves the first tick.
    ///
    /// # Errors
    /// [`InvalidPolicy`] names the first field that is out of range.
    pub fn patched(self, patch: &RoomPolicyPatch, now: Timestamp) -> Result<Self, InvalidPolicy> {
        let policy = self.policy.patched(patch)?;
        let room = if self.policy.mode == RoomMode::Auto { self } else { self.caught_up(None, now) };
        let changed = Self { policy, ..room }.reopened(&room, now);
        let has_new_interval = policy.admit_interval_seconds != self.policy.admit_interval_seconds;
        if !has_new_interval
            || changed.next_tick_at != room.next_tick_at
            || changed.opens_after(now).is_some()
        {
            return Ok(changed);
        }
        let next_tick_at = changed.last_tick_at.plus_seconds(policy.admit_interval_seconds).max(now);
        Ok(Self { next_tick_at, ..changed })
    }

    /// The room once the dates of its concert open the sale at this time.
    #[must_use]
    pub fn with_sales_opening(self, sales_open_at: Option<Timestamp>, now: Timestamp) -> Self {
        Self { sales_open_at, ..self }.reopened(&self, now)
    }

    /// Moves the first tick with the opening, which was another `before`. An opening that is moved into the past is now;
    /// without one the grid from before counts again.
    fn reopened(self, before: &Self, now: Timestamp) -> Self {
        let next_tick_at = match (self.opens_after(now), self.opens_at()) {
            (Some(opening), _) => opening,
            (None, _) if before.opens_after(now).is_none() => return self,
            (None, Some(_)) => now,
            (None, None) => {
                let last_grid = Self { next_tick_at: self.last_tick_at, ..self };
                return last_grid.on_grid(now);
            }
        };
        Self { next_tick_at, ..self }
    }

    /// The points of the grid around `now`: the last one up to it, and the first one after it.
    fn on_grid(self, now: Timestamp) -> Self {
        let interval = i64::from(self.policy.admit_interval_seconds).saturating_mul(1_000_000).max(1);
        let into_interval =
            (now.unix_micros().saturating_sub(self.next_tick_at.unix_micros())).rem_euclid(interval);
        let last = now.unix_micros().saturating_sub(into_interval);
        let last_tick_at = Timestamp::from_unix_micros(last).unwrap_or(now);
        let next_tick_at = last_tick_at.plus_seconds(self.policy.admit_interval_seconds);
        Self { last_tick_at, next_tick_at, ..self }
    }
}

/// A room with the time at which its first waiter entered; `None` without waiters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomWithWaiters {
    /// The room.
    pub room: Versioned<Room>,
    /// The time of entry of the waiter at the head of the line.
    pub waiting_since: Option<Timestamp>,
}

impl RoomWithWaiters {
    /// Whether the scheduler has work at `now`: waiters of an OPEN room, or those of an AUTO room whose tick is due or lies too
    /// far ahead.
    #[must_use]
    pub fn has_work(&self, now: Timestamp) -> bool {
        let room = self.room.value;
        let caught_up = room.caught_up(self.waiting_since, now);
        let is_served = match room.policy.mode {
            RoomMode::Open => true,
            RoomMode::Auto => caught_up.tick(now).is_some() || caught_up.next_tick_at < room.next_tick_at,
            RoomMode::Hold | RoomMode::Closed | RoomMode::Paused => false,
        };
        is_served && self.waiting_since.is_some()
    }
}

/// When the dates of a concert, by the starts of their sales, open its own room: at the earliest, while all lie ahead.
/// `None` when there is no date, or one is on sale or was.
#[must_use]
pub fn sales_opening(
    starts: impl IntoIterator<Item = Option<Timestamp>>,
    now: Timestamp,
) -> Option<Timestamp> {
    let ahead: Option<Vec<Timestamp>> =
        starts.into_iter().map(|start| start.filter(|start| now < *start)).collect();
    ahead?.into_iter().min()
}

/// How long the waiter at `position` (1 is next) waits for its tick, in whole seconds; `None` while the room
/// admits nobody. `max_active` is ignored: an honest bound from below. An OPEN room admits within a second.
/// The room's ticks are brought up to `now` by [`Room::caught_up`].
#[must_use]
pub fn estimated_wait_seconds(room: &Room, position: u64, now: Timestamp) -> Option<u64> {
    let Some(ahead) = position.checked_sub(1) else { return Some(0) };
    match room.policy.mode {
        RoomMode::Hold | RoomMode::Closed | RoomMode::Paused => None,
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
        for mode in [RoomMode::Hold, RoomMode::Closed, RoomMode::Open, RoomMode::Paused] {
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

    fn opening(opens_at: Option<i64>) -> RoomPolicyPatch {
        RoomPolicyPatch { opens_at: Some(opens_at.map(at)), ..Default::default() }
    }

    #[test]
    fn the_first_tick_is_at_the_opening_and_the_grid_counts_from_there() {
        let policy = RoomPolicy { opens_at: Some(at(5_000_000_000)), ..RoomPolicy::default() };
        let made = Room::new(DEFAULT_ROOM_ID, policy, at(0));
        let changed = room(600).patched(&opening(Some(5_000_000_000)), at(700_000_000)).unwrap();
        for room in [made, changed] {
            assert_eq!(room.next_tick_at, at(5_000_000_000));
            assert_eq!(room.tick(at(4_999_999_999)), None);
            assert_eq!(estimated_wait_seconds(&room, 11, at(4_000_000_000)), Some(1_600));
            let (ticked, batch) = room.tick(at(5_000_400_000)).unwrap();
            assert_eq!((ticked.last_tick_at, batch), (at(5_000_000_000), 10));
            assert_eq!(ticked.next_tick_at, at(5_600_000_000));
        }
        let ticking = Room { next_tick_at: at(600_000_000), ..made };
        assert_eq!(ticking.tick(at(700_000_000)), None, "whatever tick is stored");
        assert_eq!(ticking.caught_up(Some(at(0)), at(700_000_000)), made);
    }

    #[test]
    fn an_opening_that_moves_takes_the_first_tick_along() {
        let now = at(700_000_000);
        let closed = room(600).patched(&opening(Some(5_000_000_000)), now).unwrap();
        let later = closed.patched(&opening(Some(9_000_000_000)), now).unwrap();
        assert_eq!(later.next_tick_at, at(9_000_000_000));
        let interval = RoomPolicyPatch { admit_interval_seconds: Some(30), ..Default::default() };
        assert_eq!(later.patched(&interval, now).unwrap().next_tick_at, at(9_000_000_000));
        let cleared = closed.patched(&opening(None), now).unwrap();
        assert_eq!((cleared.last_tick_at, cleared.next_tick_at), (at(600_000_000), at(1_200_000_000)));
        let at_once = closed.patched(&opening(Some(1)), now).unwrap();
        assert_eq!(at_once.next_tick_at, now, "an opening in the past is now");
        let running = room(600).patched(&opening(Some(1)), at(5)).unwrap();
        assert_eq!(
            running.next_tick_at,
            at(600_000_000),
            "of a room that is open already it changes nothing"
        );
        for (mode, _) in RoomMode::NAMES {
            let mut closed = closed;
            closed.policy.mode = mode;
            let resumed = RoomPolicyPatch { mode: Some(RoomMode::Auto), ..Default::default() };
            let resumed = closed.patched(&resumed, at(800_000_000)).unwrap();
            assert_eq!(resumed.next_tick_at, at(5_000_000_000), "{mode:?}");
        }
    }

    #[test]
    fn dates_open_the_room_while_all_their_sales_lie_ahead() {
        let (now, soon, later) = (at(10), at(20), at(30));
        assert_eq!(sales_opening([], now), None);
        assert_eq!(sales_opening([Some(later), Some(soon)], now), Some(soon));
        assert_eq!(sales_opening([Some(later), None], now), None, "one is on sale already");
        assert_eq!(sales_opening([Some(later), Some(now)], now), None, "one opens now");

        let closed = room(600).with_sales_opening(Some(at(5_000_000_000)), at(10));
        assert_eq!(closed.next_tick_at, at(5_000_000_000));
        let own = closed.patched(&opening(Some(7_000_000_000)), at(10)).unwrap();
        assert_eq!((own.opens_at(), own.next_tick_at), (Some(at(7_000_000_000)), at(7_000_000_000)));
        assert_eq!(
            own.with_sales_opening(None, at(20)).next_tick_at,
            at(7_000_000_000),
            "the operator's counts"
        );
        assert_eq!(own.patched(&opening(None), at(20)).unwrap().next_tick_at, at(5_000_000_000));
        assert_eq!(closed.with_sales_opening(None, at(20)).next_tick_at, at(600_000_000));
    }

    #[test]
    fn a_tick_that_passed_without_a_waiter_is_over() {
        let now = at(2_000_000_000);
        let caught_up = room(600).caught_up(None, now);
        assert_eq!((caught_up.last_tick_at, caught_up.next_tick_at), (at(1_800_000_000), at(2_400_000_000)));
        assert_eq!(room(600).caught_up(Some(at(1_800_000_001)), now), caught_up, "entered after it");
        assert_eq!(room(600).caught_up(Some(at(1_800_000_000)), now), room(600), "it is due");
        assert_eq!(room(600).caught_up(None, at(599_999_999)), room(600));
        let interval = RoomPolicyPatch { admit_interval_seconds: Some(300), ..Default::default() };
        assert_eq!(caught_up.patched(&interval, now).unwrap().next_tick_at, at(2_100_000_000));
    }

    #[test]
    fn a_tick_of_a_wrong_clock_moves_back_to_the_grid() {
        let now = at(700_000_000);
        let healthy = room(600).tick(now).unwrap().0;
        for wrong in [3_600_000_000, 86_400_000_000, 5_000_000_000_000_000] {
            let (astray, _) = healthy.tick(at(wrong)).unwrap();
            assert_eq!(astray.caught_up(Some(now), now), healthy, "{wrong}");
            assert_eq!(astray.caught_up(Some(now), now).tick(now), None, "no tick is taken twice");
        }
        let ahead = Room { last_tick_at: at(9_000_000_000), ..healthy };
        assert_eq!(ahead.caught_up(None, now), healthy, "the last tick as well");
        // The clock of another node is a little ahead.
        let (early, _) = healthy.tick(at(1_200_000_000)).unwrap();
        assert_eq!(early.caught_up(Some(now), at(1_195_000_001)), early);
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
