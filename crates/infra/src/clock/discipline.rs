//! Clock discipline: what a clock makes of readings of its reference. A pure state machine, without any I/O.
//!
//! Time is the machine's uptime plus an offset. A reading that differs from the offset by up to [`STEP`] is taken over
//! gradually, at most 100 ms a second, so that time runs between 0.9 and 1.1 times as fast and never goes back. A reading
//! that differs by more is a suspected step: it changes nothing until [`CONFIRMATIONS`] readings, over the time that the
//! policy asks for, agree with it. Only then does time jump, and only then may it go back.

/// The largest difference that is taken over without confirmation, in microseconds. Also how closely readings of the same
/// step agree.
pub(super) const STEP: i64 = 1_000_000;
/// A reading with a larger error says nothing, in microseconds.
const MAX_ERROR: i64 = 250_000;
/// The fewest readings that confirm a step.
const CONFIRMATIONS: u32 = 3;
/// Time is corrected by at most one microsecond in so many.
const SLEW: i64 = 10;
/// How long a settled clock goes without a reading, in microseconds. An unsettled one takes every reading that it can get.
const READ_EVERY: i64 = 10_000_000;

/// A reading of a reference clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The reference's time less this machine's uptime, in microseconds.
    pub offset: i64,
    /// By how much the offset may be wrong, in microseconds: half of the time that the answer took.
    pub error: i64,
}

/// How a step of the reference is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// For how long a step must last before it is believed, in microseconds.
    confirm_for: i64,
    /// Whether a clock with a suspected step counts as unsettled.
    unsettles: bool,
}

impl Policy {
    /// The reference is this machine's own time of day, which a single process uses. Its uptime goes on whatever is done to
    /// the time of day, so that a suspected step gives no reason to pause; one that lasts five minutes is believed, as when a
    /// machine without a battery-backed clock has reached its time server.
    pub const MACHINE: Self = Self { confirm_for: 300_000_000, unsettles: false };
    /// The reference is the database, whose clock several nodes follow. Until a step is believed or over, other nodes may
    /// judge by another time: the clock is unsettled.
    pub const DATABASE: Self = Self { confirm_for: 30_000_000, unsettles: true };
}

/// What a reading has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The reading agrees with the clock, or is taken over gradually, or is too inexact to say anything.
    Steady,
    /// The reading is the first of a suspected step by so many microseconds.
    Suspected(i64),
    /// The reading agrees with the suspected step, which still needs confirmation.
    Unconfirmed,
    /// The reference agrees with the clock again: the step is over.
    Dismissed,
    /// The step is confirmed: the clock has moved by so many microseconds.
    Adopted(i64),
}

/// The offset over time: from one value toward another, at a bounded rate.
#[derive(Debug, Clone, Copy)]
struct Course {
    since: i64,
    from: i64,
    to: i64,
}

impl Course {
    const fn constant(offset: i64) -> Self {
        Self { since: 0, from: offset, to: offset }
    }

    fn offset_at(&self, uptime: i64) -> i64 {
        let moved = uptime.saturating_sub(self.since).max(0) / SLEW;
        let distance = self.to.saturating_sub(self.from);
        self.from.saturating_add(distance.clamp(moved.saturating_neg(), moved))
    }
}

#[derive(Debug, Clone, Copy)]
struct Suspicion {
    offset: i64,
    since: i64,
    readings: u32,
}

/// The state of a disciplined clock. Uptimes are in microseconds, and never go back from one call to the next.
#[derive(Debug)]
pub(super) struct Discipline {
    policy: Policy,
    course: Course,
    suspicion: Option<Suspicion>,
    read_at: i64,
}

impl Discipline {
    /// Starts at a first reading. `expected` is the offset of an independent clock: where the two differ by a step, the
    /// clock goes by the reading and is unsettled until later readings confirm it.
    pub(super) fn start(policy: Policy, first: Reading, expected: i64, uptime: i64) -> Self {
        let tolerance = STEP.saturating_add(first.error);
        let is_expected = first.offset.abs_diff(expected) <= tolerance.unsigned_abs();
        let probation = Suspicion { offset: first.offset, since: uptime, readings: 1 };
        Self {
            policy,
            course: Course::constant(first.offset),
            suspicion: (!is_expected).then_some(probation),
            read_at: uptime,
        }
    }

    /// The time at an uptime, in microseconds since 1970.
    pub(super) fn now(&self, uptime: i64) -> i64 {
        uptime.saturating_add(self.course.offset_at(uptime))
    }

    /// Whether decisions that other nodes take as well may be based on this clock.
    pub(super) const fn is_settled(&self) -> bool {
        !self.policy.unsettles || self.suspicion.is_none()
    }

    /// Whether the reference is to be read.
    pub(super) const fn wants_reading(&self, uptime: i64) -> bool {
        self.suspicion.is_some() || uptime.saturating_sub(self.read_at) >= READ_EVERY
    }

    /// Takes in a reading at an uptime.
    pub(super) fn observe(&mut self, reading: Reading, uptime: i64) -> Verdict {
        self.read_at = uptime;
        if reading.error > MAX_ERROR {
            return Verdict::Steady;
        }
        let agrees_with = |offset: i64| reading.offset.abs_diff(offset) <= STEP.unsigned_abs();
        match &mut self.suspicion {
            Some(suspicion) if agrees_with(suspicion.offset) => {
                suspicion.readings = suspicion.readings.saturating_add(1);
                let lasted = uptime.saturating_sub(suspicion.since);
                if suspicion.readings < CONFIRMATIONS || lasted < self.policy.confirm_for {
                    return Verdict::Unconfirmed;
                }
                self.suspicion = None;
                let before = self.course.offset_at(uptime);
                if agrees_with(self.course.to) {
                    self.steer(reading, uptime);
                } else {
                    self.course = Course::constant(reading.offset);
                }
                Verdict::Adopted(self.course.offset_at(uptime).saturating_sub(before))
            }
            _ if agrees_with(self.course.to) => {
                self.steer(reading, uptime);
                let was_suspected = self.suspicion.take().is_some();
                if was_suspected { Verdict::Dismissed } else { Verdict::Steady }
            }
            suspicion => {
                *suspicion = Some(Suspicion { offset: reading.offset, since: uptime, readings: 1 });
                Verdict::Suspected(reading.offset.saturating_sub(self.course.to))
            }
        }
    }

    /// Moves gradually toward a reading, unless the difference is within its error.
    fn steer(&mut self, reading: Reading, uptime: i64) {
        if reading.offset.abs_diff(self.course.to) > reading.error.unsigned_abs() {
            self.course = Course { since: uptime, from: self.course.offset_at(uptime), to: reading.offset };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1_000_000;
    const HOUR: i64 = 3_600 * SECOND;
    /// The offset at the start.
    const START: i64 = 1_800_000_000 * SECOND;

    fn exact(offset: i64) -> Reading {
        Reading { offset, error: 0 }
    }

    fn started(policy: Policy) -> Discipline {
        Discipline::start(policy, exact(START), START, 0)
    }

    /// Reads the same offset every other second, from one second to another; the last verdict.
    fn read(clock: &mut Discipline, offset: i64, from: i64, to: i64) -> Verdict {
        let seconds = (from..=to).step_by(2);
        seconds.map(|second| clock.observe(exact(offset), second * SECOND)).last().unwrap()
    }

    #[test]
    fn a_small_difference_is_taken_over_gradually() {
        for difference in [SECOND, -SECOND] {
            let mut clock = started(Policy::DATABASE);
            assert_eq!(clock.observe(exact(START + difference), 0), Verdict::Steady);
            assert!(clock.is_settled());
            assert_eq!(clock.now(0), START);
            assert_eq!(clock.now(5 * SECOND), START + 5 * SECOND + difference / 2);
            assert_eq!(clock.now(60 * SECOND), START + 60 * SECOND + difference);
        }
    }

    #[test]
    fn a_difference_within_the_error_moves_nothing() {
        let mut clock = started(Policy::DATABASE);
        clock.observe(Reading { offset: START + 9_000, error: 9_000 }, 0);
        assert_eq!(clock.now(HOUR), START + HOUR);
        clock.observe(Reading { offset: START + 9_001, error: 9_000 }, 0);
        assert_eq!(clock.now(HOUR), START + HOUR + 9_001);
    }

    #[test]
    fn a_step_that_does_not_last_moves_nothing() {
        for (policy, step) in
            [(Policy::DATABASE, HOUR), (Policy::MACHINE, 24 * HOUR), (Policy::DATABASE, -HOUR)]
        {
            let mut clock = started(policy);
            assert_eq!(clock.observe(exact(START + step), 0), Verdict::Suspected(step));
            assert_eq!(read(&mut clock, START + step, 2, 28), Verdict::Unconfirmed);
            assert_eq!(clock.is_settled(), policy == Policy::MACHINE);
            assert_eq!(clock.observe(exact(START), 30 * SECOND), Verdict::Dismissed);
            assert!(clock.is_settled());
            assert_eq!(clock.now(30 * SECOND), START + 30 * SECOND);
        }
    }

    #[test]
    fn a_step_that_lasts_is_adopted() {
        for step in [HOUR, -HOUR, STEP + 1] {
            let mut clock = started(Policy::DATABASE);
            assert_eq!(read(&mut clock, START + step, 0, 28), Verdict::Unconfirmed);
            assert_eq!(clock.now(29 * SECOND), START + 29 * SECOND);
            assert_eq!(clock.observe(exact(START + step), 30 * SECOND), Verdict::Adopted(step));
            assert!(clock.is_settled());
            assert_eq!(clock.now(30 * SECOND), START + 30 * SECOND + step);
        }
    }

    #[test]
    fn two_readings_confirm_nothing() {
        let mut clock = started(Policy::DATABASE);
        clock.observe(exact(START + HOUR), 0);
        assert_eq!(clock.observe(exact(START + HOUR), HOUR), Verdict::Unconfirmed);
        assert_eq!(clock.observe(exact(START + HOUR), HOUR), Verdict::Adopted(HOUR));
    }

    #[test]
    fn readings_that_disagree_confirm_nothing() {
        let mut clock = started(Policy::DATABASE);
        for second in 0..200 {
            let step = if second % 2 == 0 { HOUR } else { 2 * HOUR };
            assert!(matches!(clock.observe(exact(START + step), second * SECOND), Verdict::Suspected(_)));
        }
        assert!(!clock.is_settled());
        assert_eq!(clock.now(200 * SECOND), START + 200 * SECOND);
    }

    #[test]
    fn an_inexact_reading_says_nothing() {
        let mut clock = started(Policy::DATABASE);
        let inexact = Reading { offset: START + HOUR, error: MAX_ERROR + 1 };
        assert_eq!(clock.observe(inexact, 0), Verdict::Steady);
        assert!(clock.is_settled());
    }

    #[test]
    fn a_first_reading_that_the_machine_contradicts_is_confirmed() {
        let mut clock = Discipline::start(Policy::DATABASE, exact(START + HOUR), START, 0);
        assert_eq!(clock.now(0), START + HOUR, "the reference is the authority");
        assert!(!clock.is_settled());
        assert_eq!(read(&mut clock, START + HOUR, 2, 28), Verdict::Unconfirmed);
        assert_eq!(read(&mut clock, START + HOUR, 30, 30), Verdict::Adopted(0));
        assert!(clock.is_settled());

        let mut clock = Discipline::start(Policy::DATABASE, exact(START + HOUR), START, 0);
        assert_eq!(read(&mut clock, START, 2, 2), Verdict::Suspected(-HOUR));
        assert_eq!(read(&mut clock, START, 4, 30), Verdict::Unconfirmed);
        assert_eq!(read(&mut clock, START, 32, 32), Verdict::Adopted(-HOUR), "it was wrong at the start");
    }

    #[test]
    fn an_unsettled_clock_is_read_more_often() {
        let mut clock = started(Policy::DATABASE);
        assert!(!clock.wants_reading(READ_EVERY - 1));
        assert!(clock.wants_reading(READ_EVERY));
        clock.observe(exact(START + HOUR), READ_EVERY);
        assert!(clock.wants_reading(READ_EVERY + 1));
    }

    proptest! {
        #[test]
        fn time_moves_only_forward_and_by_confirmed_readings(
            readings in prop::collection::vec(
                (
                    prop_oneof![
                        -2 * STEP..=2 * STEP,
                        prop::sample::select(vec![0, HOUR, -HOUR, 24 * HOUR]),
                    ],
                    0..300_000_i64,
                    0..20 * SECOND,
                ),
                1..60,
            ),
        ) {
            let mut clock = started(Policy::DATABASE);
            let (mut uptime, mut now) = (0, clock.now(0));
            for (difference, error, pause) in readings {
                // The last offset that was believed; between here and there lies what is taken over gradually.
                let believed = clock.course.to;
                uptime += pause;
                let before = clock.now(uptime);
                prop_assert!(before >= now, "time goes back");
                prop_assert!(before - now <= pause + pause / SLEW + 1, "time jumps");
                let reading = Reading { offset: START + difference, error };
                let verdict = clock.observe(reading, uptime);
                now = clock.now(uptime);
                match verdict {
                    Verdict::Adopted(step) => {
                        prop_assert_eq!(now - before, step);
                        prop_assert!(clock.is_settled());
                    }
                    Verdict::Steady | Verdict::Dismissed => {
                        prop_assert_eq!(now, before);
                        prop_assert!((clock.course.to - believed).abs() <= STEP);
                    }
                    Verdict::Suspected(_) | Verdict::Unconfirmed => {
                        prop_assert_eq!(now, before);
                        prop_assert_eq!(clock.course.to, believed, "an unconfirmed reading moves nothing");
                        prop_assert!(!clock.is_settled());
                    }
                }
            }
        }
    }

    /// What a clock does that believes every reading: the control.
    #[test]
    fn a_clock_that_believes_every_reading_jumps() {
        let mut clock = started(Policy { confirm_for: 0, ..Policy::DATABASE });
        assert_eq!(read(&mut clock, START + HOUR, 0, 4), Verdict::Adopted(HOUR));
    }
}
