//! When to ask again.

use std::time::Duration;

use crate::queue::{QueueTokenStatus, Room, RoomMode};
use crate::{QueueTokenId, Timestamp};

/// The shortest time between two polls, in seconds.
pub const SOONEST_POLL_SECONDS: u64 = 1;
/// The longest time between two polls, in seconds.
pub const RAREST_POLL_SECONDS: u64 = 60;

/// Who is not waiting has little to ask for.
const NOT_WAITING: u64 = 30;
/// While nobody is admitted, in seconds.
const ON_HOLD: u64 = 10;
/// Waiters a second of distance, where they are admitted by ticks.
const WAITERS_A_SECOND: u64 = 1_000;
/// People who come back for the same tick, a second; and those who are let through an OPEN room.
const RETURNS_A_SECOND: u64 = 10_000;

/// After how many seconds the holder of `token_id`, at `position` (1 is next), should ask again.
///
/// Soon near the head, rarer at the back: `max(position / 1,000, time to the tick / 10)` seconds, from 1 to 60, less up to
/// a fifth by a jitter that is fixed for each token, so that those who came together do not stay together. Nobody sleeps
/// past the tick that is to admit them: they come back as it is due, at most 10,000 a second.
///
/// # How often N people ask
/// At most 1 / max(1, position / 1,000) times a second each, and not less than 1 / 60. Summed up, without jitter:
/// 1,000 at the head, 1,000 * ln 60 = 4,100 up to position 60,000, and (N - 60,000) / 60 behind it. With the jitter, a
/// factor of 1.12 at the mean. For 1,000,000 people: (1,000 + 4,100 + 15,700) * 1.12 = 23,200 a second, whatever the
/// policy; each admission adds one. Long intervals make it less: at the default policy it is N / 60 * 1.12 = 18,600.
///
/// # A turn is not missed
/// The time between two polls never exceeds half of `active_ttl_seconds` (least 1): a waiter that is admitted right after a
/// poll, by hand or by a shortened interval, still finds half of its turn left. A time to live below 120 seconds therefore
/// raises the load: with `c` = `active_ttl_seconds` / 2 in place of 60 it is (1,000 + 1,000 * ln c + (N - 1,000 c) / c) * 1.12,
/// which is 41,000 a second for 1,000,000 waiters at 60 seconds, and one poll a second of each at 2.
#[must_use]
pub fn poll_after_seconds(
    status: QueueTokenStatus,
    position: u64,
    room: &Room,
    token_id: QueueTokenId,
    now: Timestamp,
) -> u64 {
    let policy = &room.policy;
    let rarest = (u64::from(policy.active_ttl_seconds) / 2).clamp(SOONEST_POLL_SECONDS, RAREST_POLL_SECONDS);
    let jittered = |seconds: u64| jittered(seconds.clamp(SOONEST_POLL_SECONDS, rarest), token_id);
    if status != QueueTokenStatus::Wait {
        return NOT_WAITING.min(rarest);
    }
    let distance = position / WAITERS_A_SECOND;
    match policy.mode {
        RoomMode::Hold | RoomMode::Closed | RoomMode::Paused => jittered(distance.max(ON_HOLD)),
        // Drained as fast as it goes, unless places are short.
        RoomMode::Open if policy.max_active.is_none() => jittered(position / RETURNS_A_SECOND),
        RoomMode::Open => jittered(distance),
        RoomMode::Auto => {
            let batch = u64::from(policy.admit_batch.max(1));
            let ticks_before = position.saturating_sub(1) / batch;
            let to_tick = whole_seconds(room.next_tick_at.since(now))
                .saturating_add(ticks_before.saturating_mul(u64::from(policy.admit_interval_seconds)));
            let spread = spread(token_id, batch / RETURNS_A_SECOND);
            let at_the_tick = to_tick.max(SOONEST_POLL_SECONDS).saturating_add(spread);
            jittered(distance.max(to_tick / 10)).min(at_the_tick)
        }
    }
}

fn whole_seconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// Up to a fifth less.
fn jittered(seconds: u64, token_id: QueueTokenId) -> u64 {
    seconds - spread(token_id, seconds / 5)
}

/// A number from 0 to `most` that is always the same for a token.
fn spread(token_id: QueueTokenId, most: u64) -> u64 {
    // The low half of a UUID v7 is random; the multiplication (Knuth's) spreads ids that are not.
    let (_, low) = token_id.get().as_u64_pair();
    (low.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) % (most + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::queue::{DEFAULT_ROOM_ID, RoomPolicy};

    fn room(mode: RoomMode, admit_batch: u32, admit_interval_seconds: u32) -> Room {
        let policy = RoomPolicy { mode, admit_batch, admit_interval_seconds, ..RoomPolicy::default() };
        Room::new(DEFAULT_ROOM_ID, policy, Timestamp::from_unix_micros(0).unwrap())
    }

    fn id(n: u64) -> QueueTokenId {
        QueueTokenId::new(Uuid::from_u64_pair(1, n))
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_micros(seconds * 1_000_000).unwrap()
    }

    fn after(room: &Room, position: u64, now: i64) -> u64 {
        poll_after_seconds(QueueTokenStatus::Wait, position, room, id(position), at(now))
    }

    /// Polls a second of so many waiters.
    fn rate(room: &Room, waiters: u64, now: i64) -> f64 {
        (1..=waiters)
            .map(|position| 1.0 / f64::from(u32::try_from(after(room, position, now)).unwrap()))
            .sum()
    }

    #[test]
    fn a_million_waiters_stay_below_the_stated_rate() {
        for mode in [RoomMode::Auto, RoomMode::Hold, RoomMode::Closed] {
            for (batch, interval) in [(10, 600), (1, 1), (1_000, 1), (10_000, 60), (100_000, 600)] {
                let rate = rate(&room(mode, batch, interval), 1_000_000, 0);
                assert!((15_000.0..24_000.0).contains(&rate), "{mode:?} {batch} {interval}: {rate}");
            }
        }
        let default = rate(&room(RoomMode::Auto, 10, 600), 1_000_000, 0);
        assert!((18_000.0..19_200.0).contains(&default), "{default}");
        let thousand = rate(&room(RoomMode::Auto, 1, 1), 1_000, 0);
        assert!(thousand <= 1_000.0, "{thousand}");
    }

    #[test]
    fn soon_at_the_head_and_rarely_at_the_back() {
        let fast = room(RoomMode::Auto, 100, 1);
        assert_eq!(after(&fast, 1, 0), 1);
        assert_eq!(after(&fast, 100, 0), 1);
        assert!((48..=60).contains(&after(&fast, 500_000, 0)));
        let slow = room(RoomMode::Auto, 10, 600);
        assert!((48..=60).contains(&after(&slow, 1, 0)), "ten minutes to go");
        assert!((24..=30).contains(&after(&slow, 1, 300)));
        assert_eq!(after(&slow, 1, 590), 1);
        assert_eq!(after(&slow, 1, 700), 1, "the tick is due");
    }

    #[test]
    fn nobody_sleeps_past_the_own_tick() {
        let large = room(RoomMode::Auto, 100_000, 600);
        for (position, now) in [(90_000, 595), (60_000, 560), (100_000, 599)] {
            let to_tick = u64::try_from(600 - now).unwrap();
            let answer = after(&large, position, now);
            assert!(answer <= to_tick + 10, "{position} {now}: {answer}");
        }
        let medium = room(RoomMode::Auto, 9_999, 60);
        assert_eq!(after(&medium, 9_999, 57), 3, "within a second of it");
    }

    #[test]
    fn short_turns_are_asked_for_twice_each_and_raise_the_load_as_stated() {
        let with_ttl = |active_ttl_seconds| {
            let mut room = room(RoomMode::Auto, 10, 600);
            room.policy.active_ttl_seconds = active_ttl_seconds;
            room
        };
        for (ttl, most) in [(1, 1), (2, 1), (20, 10), (119, 59), (120, 60), (600, 60)] {
            assert!((most - most / 5..=most).contains(&after(&with_ttl(ttl), 900_000, 0)), "{ttl}");
        }
        let rate = rate(&with_ttl(60), 1_000_000, 0);
        assert!((36_000.0..42_000.0).contains(&rate), "{rate}");
    }

    #[test]
    fn far_from_the_opening_is_asked_rarely_and_at_it_at_once() {
        let mut room = room(RoomMode::Auto, 10, 600);
        room.policy.opens_at = Some(at(100_000));
        let room = room.caught_up(None, at(0));
        assert!((48..=60).contains(&after(&room, 1, 0)));
        assert_eq!(after(&room, 1, 99_997), 1);
        assert!(after(&room, 1, 99_900) <= 10);
    }

    #[test]
    fn rooms_that_admit_nobody_are_asked_now_and_then() {
        for mode in [RoomMode::Hold, RoomMode::Closed] {
            assert!((8..=10).contains(&after(&room(mode, 10, 600), 1, 0)));
            assert!((48..=60).contains(&after(&room(mode, 10, 600), 900_000, 0)));
        }
        let mut open = room(RoomMode::Open, 10, 600);
        assert_eq!(after(&open, 10_000, 0), 1);
        open.policy.max_active = Some(5);
        assert!((8..=10).contains(&after(&open, 10_000, 0)));
    }

    #[test]
    fn whoever_waits_no_more_asks_rarely() {
        let room = room(RoomMode::Auto, 10, 600);
        for status in [QueueTokenStatus::Active, QueueTokenStatus::Expired] {
            assert_eq!(poll_after_seconds(status, 0, &room, id(1), at(0)), 30);
        }
    }

    proptest! {
        #[test]
        fn always_within_bounds_and_the_same_for_a_token(
            position in 1..=10_000_000_u64, batch in 1..=RoomPolicy::MAX_BATCH, interval in 1..=RoomPolicy::MAX_SECONDS,
            low in any::<u64>(), now in 0..5_000_000_i64,
        ) {
            for (mode, _) in RoomMode::NAMES {
                let room = room(mode, batch, interval);
                let ask = || poll_after_seconds(QueueTokenStatus::Wait, position, &room, id(low), at(now));
                prop_assert!((SOONEST_POLL_SECONDS..=RAREST_POLL_SECONDS).contains(&ask()));
                prop_assert_eq!(ask(), ask());
            }
        }

        /// The worst case: an admission right after a poll. At one second to live there is nothing left to halve.
        #[test]
        fn polling_as_told_never_misses_a_turn(
            position in 1..=2_000_000_u64, batch in 1..=RoomPolicy::MAX_BATCH, interval in 1..=RoomPolicy::MAX_SECONDS,
            ttl in 1..=RoomPolicy::MAX_SECONDS, short in 1..300_u32, low in any::<u64>(), now in 0..5_000_000_i64,
            opens_at in prop::option::of(0..9_000_000_i64), max_active in prop::option::of(1..5_u32),
        ) {
            for ((mode, _), active_ttl_seconds) in RoomMode::NAMES.into_iter().flat_map(|mode| [(mode, ttl), (mode, short)]) {
                let mut room = room(mode, batch, interval);
                room.policy = RoomPolicy { active_ttl_seconds, max_active, opens_at: opens_at.map(at), ..room.policy };
                for (status, _) in QueueTokenStatus::NAMES {
                    let told = poll_after_seconds(status, position, &room, id(low), at(now));
                    prop_assert!(told <= u64::from(active_ttl_seconds / 2).max(1), "{mode:?} {told}");
                    let left = u64::from(active_ttl_seconds).checked_sub(told);
                    prop_assert!(active_ttl_seconds == 1 || left.is_some_and(|left| left >= told.min(1)));
                }
            }
        }

        /// What a grace rests on: somebody who asks as told is never away for longer.
        #[test]
        fn the_shortest_grace_outlasts_two_polls(position in 1..=1_000_000_u64, low in any::<u64>()) {
            let room = room(RoomMode::Auto, 10, 600);
            let told = poll_after_seconds(QueueTokenStatus::Wait, position, &room, id(low), at(0));
            prop_assert!(2 * told <= u64::from(RoomPolicy::MIN_GRACE_SECONDS));
        }
    }
}
