//! Who is let in while more come than can be served (ADR 0015).
//!
//! Requests that use storage are counted while they are under way. By Little's law (Little 1961) they take on average as
//! long as that many take to leave: so the number that may be under way follows from how many were answered lately, and
//! from how long they may take. Whoever is one too many is refused at once, before token or body are looked at: `503` with
//! `Retry-After`. The less urgent a request is, the sooner it is one too many; but each class has a few places of its
//! own, so that none is shut out for ever. A burst of a second may take longer: as in CoDel (RFC 8289), only a queue that
//! stands is cut down. Where nobody is refused, this costs two additions and two looks at the clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix_web::http::StatusCode;

use crate::problem::{Code, Problem};

/// How often it is worked out anew how many may be under way.
const WINDOW: Duration = Duration::from_millis(100);
/// After so many windows one after another in which requests came too late or were refused, this is a storm, no burst.
const WINDOWS_OF_A_BURST: u32 = 10;
/// Each class has this part of all places to itself.
const OWN_PART: u32 = 16;
/// Within this time it is seen what is wrong with a request, where that needs no storage.
const SEEN_WITHOUT_STORAGE: Duration = Duration::from_millis(1);
/// After how many seconds whoever was refused is to come again.
const RETRY_SECONDS: u64 = 1;

/// How many requests may be under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverloadLimits {
    /// How long requests may take on average before more are refused.
    pub target: Duration,
    /// So many may always be under way, however slow storage is: batches need some to be batches.
    pub fewest: u32,
    /// So many may be in a burst: a crowd that is served in a second or so is better served than sent away.
    pub burst: u32,
    /// Never more than that: a crowd that comes at once to a server that was idle.
    pub most: u32,
}

impl OverloadLimits {
    /// The usual numbers.
    #[must_use]
    pub const fn new(target: Duration) -> Self {
        Self { target, fewest: 512, burst: 1_024, most: 2_048 }
    }
}

/// What a request is for, the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Payments, and the charges before them.
    Pay,
    /// Holds and their ends.
    Hold,
    /// Places in a line and their ends.
    Join,
    /// Reads of concerts, behind the gate, and of one's own.
    Look,
}

impl Class {
    const COUNT: usize = 4;

    /// Its number, and up to how many eighths of all places may be taken when one of this class takes another.
    const fn row(self) -> (usize, u32) {
        match self {
            Self::Pay => (0, 8),
            Self::Hold => (1, 7),
            Self::Join => (2, 6),
            Self::Look => (3, 5),
        }
    }

    /// Whether how long it takes says how busy storage is. Most reads take nothing from it.
    const fn is_measured(self) -> bool {
        !matches!(self, Self::Look)
    }
}

/// Counts who is under way. Cloning shares it.
#[derive(Debug, Clone)]
pub(crate) struct Overload(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: OverloadLimits,
    /// How many are under way, and of each class.
    under_way: AtomicU32,
    of_class: [AtomicU32; Class::COUNT],
    /// How many may be.
    limit: AtomicU32,
    /// How many windows in a row were no calm ones.
    windows_of_storm: AtomicU32,
    began: Instant,
    window: Window,
}

/// What has happened since the window began.
#[derive(Debug, Default)]
struct Window {
    /// When it began, in microseconds.
    begin: AtomicU64,
    /// How many were answered, and how long all of them took, in microseconds.
    answered: AtomicU32,
    took: AtomicU64,
    refused: AtomicU32,
}

/// A request under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay {
    overload: Overload,
    class: Class,
    since: Instant,
    /// Whether how long it takes says how busy storage is.
    is_measured: bool,
}

impl Overload {
    /// Nobody is under way.
    pub(crate) fn new(limits: OverloadLimits) -> Self {
        Self(Arc::new(Inner {
            limits,
            under_way: AtomicU32::new(0),
            of_class: Default::default(),
            limit: AtomicU32::new(limits.most),
            windows_of_storm: AtomicU32::new(0),
            began: Instant::now(),
            window: Window::default(),
        }))
    }

    /// Lets a request in.
    ///
    /// # Errors
    /// 503 when it is one too many.
    pub(crate) fn enter(&self, class: Class) -> Result<UnderWay, Problem> {
        let inner = &*self.0;
        let (limit, own) = (inner.limit.load(Ordering::Relaxed), inner.own(class));
        let (_, eighths) = class.row();
        let others = inner.under_way.fetch_add(1, Ordering::Relaxed);
        let like_it = own.fetch_add(1, Ordering::Relaxed);
        if others < limit * eighths / 8 || like_it < limit / OWN_PART {
            let (since, is_measured) = (Instant::now(), class.is_measured());
            return Ok(UnderWay { overload: self.clone(), class, since, is_measured });
        }
        inner.leave(class);
        inner.window.refused.fetch_add(1, Ordering::Relaxed);
        Err(too_many())
    }
}

impl UnderWay {
    /// It is answered. What is wrong with a request itself is found without storage, in microseconds: those who send such
    /// requests must not make a busy server look idle. Some refusals had to ask storage first, and count if that took time.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        let asked_storage = status.is_success()
            || status.is_server_error()
            || [StatusCode::NOT_FOUND, StatusCode::CONFLICT].contains(&status)
            || self.since.elapsed() > SEEN_WITHOUT_STORAGE;
        self.is_measured &= asked_storage;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let inner = &*self.overload.0;
        inner.leave(self.class);
        if self.is_measured {
            inner.answered(self.since, Instant::now());
        }
    }
}

impl Inner {
    fn own(&self, class: Class) -> &AtomicU32 {
        let [pay, hold, join, look] = &self.of_class;
        match class {
            Class::Pay => pay,
            Class::Hold => hold,
            Class::Join => join,
            Class::Look => look,
        }
    }

    fn leave(&self, class: Class) {
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        self.own(class).fetch_sub(1, Ordering::Relaxed);
    }

    fn answered(&self, since: Instant, now: Instant) {
        let window = &self.window;
        window.answered.fetch_add(1, Ordering::Relaxed);
        window.took.fetch_add(micros(now.duration_since(since)), Ordering::Relaxed);
        let (begin, now) = (window.begin.load(Ordering::Relaxed), micros(now.duration_since(self.began)));
        let lasted = now.saturating_sub(begin);
        if lasted < micros(WINDOW) {
            return;
        }
        // One of those who see the end of the window closes it.
        let closed = window.begin.compare_exchange(begin, now, Ordering::Relaxed, Ordering::Relaxed);
        if closed.is_ok() {
            let seen = Seen {
                lasted,
                answered: window.answered.swap(0, Ordering::Relaxed),
                took: window.took.swap(0, Ordering::Relaxed),
                refused: window.refused.swap(0, Ordering::Relaxed),
            };
            self.next_window(seen);
        }
    }

    /// Only who closed the window is here.
    fn next_window(&self, seen: Seen) {
        let windows = if seen.is_calm(self.limits.target) {
            0
        } else {
            self.windows_of_storm.load(Ordering::Relaxed).saturating_add(1)
        };
        let limit = seen.next_limit(self.limit.load(Ordering::Relaxed), windows, self.limits);
        self.windows_of_storm.store(windows, Ordering::Relaxed);
        self.limit.store(limit, Ordering::Relaxed);
    }
}

/// What happened in a window. All times are in microseconds.
#[derive(Debug, Clone, Copy)]
struct Seen {
    lasted: u64,
    answered: u32,
    took: u64,
    refused: u32,
}

impl Seen {
    /// Requests took longer on average than they may.
    fn is_late(self, target: Duration) -> bool {
        self.took / u64::from(self.answered.max(1)) > micros(target)
    }

    /// Nobody is refused, and nobody late.
    fn is_calm(self, target: Duration) -> bool {
        self.refused == 0 && !self.is_late(target)
    }

    /// How many may be under way in the next window, after so many in a row that were not calm. In calm, many more; some
    /// more while only some are refused, as classes are whose share is full; else as many as leave within the time, which is
    /// looked at over some windows.
    fn next_limit(self, limit: u32, windows_of_storm: u32, limits: OverloadLimits) -> u32 {
        let OverloadLimits { target, fewest, burst, most } = limits;
        if windows_of_storm == 0 {
            return limit.saturating_mul(2).clamp(fewest, most);
        }
        if !self.is_late(target) {
            return limit.saturating_add(limit / 8).clamp(fewest, most);
        }
        let at_least = if windows_of_storm <= WINDOWS_OF_A_BURST { burst } else { fewest };
        let leave_within = u64::from(self.answered).saturating_mul(micros(target)) / self.lasted.max(1);
        let leave_within = u32::try_from(leave_within).unwrap_or(u32::MAX).clamp(at_least, most);
        // The first time it is exact: what is under way by then has to go down at once.
        if limit == most { leave_within } else { limit.saturating_mul(3).saturating_add(leave_within) / 4 }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn too_many() -> Problem {
    let detail =
        "More requests come than can be served. Nothing was changed; the same request can be sent again.";
    Problem::new(Code::Unavailable, detail).with_retry_after(RETRY_SECONDS)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const LIMITS: OverloadLimits =
        OverloadLimits { target: Duration::from_millis(100), fewest: 128, burst: 512, most: 1_024 };
    const MOST: u32 = LIMITS.most;
    const FEWEST: u32 = LIMITS.fewest;
    const STORM: u32 = WINDOWS_OF_A_BURST + 1;

    fn patient() -> Overload {
        Overload::new(OverloadLimits { target: Duration::from_secs(600), ..LIMITS })
    }

    fn enter_all(overload: &Overload, class: Class) -> Vec<UnderWay> {
        std::iter::from_fn(|| overload.enter(class).ok()).collect()
    }

    #[test]
    fn the_less_urgent_is_refused_first() {
        let overload = patient();
        let looks = enter_all(&overload, Class::Look);
        assert_eq!(looks.len(), 640);
        let joins = enter_all(&overload, Class::Join);
        assert_eq!(joins.len(), 128, "up to six eighths");
        let holds = enter_all(&overload, Class::Hold);
        assert_eq!(holds.len(), 128, "up to seven");
        let payments = enter_all(&overload, Class::Pay);
        assert_eq!(payments.len(), 128, "all");
        drop(payments);
        assert!(overload.enter(Class::Hold).is_err() && overload.enter(Class::Pay).is_ok());
    }

    #[test]
    fn no_class_is_shut_out() {
        let overload = patient();
        let _payments = enter_all(&overload, Class::Pay);
        for class in [Class::Hold, Class::Join, Class::Look] {
            assert_eq!(enter_all(&overload, class).len(), 64, "{class:?}: a sixteenth of all is its own");
        }
    }

    #[test]
    fn who_has_left_is_counted_no_more() {
        let overload = patient();
        for _ in 0..3 {
            assert_eq!(enter_all(&overload, Class::Pay).len(), 1_024);
        }
        assert_eq!(overload.0.under_way.load(Ordering::Relaxed), 0);
        assert!(overload.0.of_class.iter().all(|own| own.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn as_many_are_let_in_as_leave_in_time() {
        // 400 answers in 100 ms are 4,000 a second: within 100 ms, 400 leave.
        let seen = |answered: u32, each: u64, refused| Seen {
            lasted: 100_000,
            answered,
            took: u64::from(answered) * each,
            refused,
        };
        let next = |seen: Seen, limit| seen.next_limit(limit, STORM, LIMITS);
        assert_eq!(next(seen(400, 150_000, 0), MOST), 400, "they take too long");
        assert_eq!(next(seen(400, 150_000, 9), 400), 400, "no more than that while they do");
        assert_eq!(next(seen(800, 150_000, 9), 400), 500, "twice as fast: more, not all at once");
        assert_eq!(next(seen(400, 50_000, 9), 400), 450, "they are early: some more, whoever is refused");
        assert_eq!(next(seen(1, 900_000, 9), MOST), FEWEST);
        assert_eq!(next(seen(90_000, 10, 9), MOST), MOST);
    }

    #[test]
    fn a_burst_is_served_and_a_storm_is_cut_down() {
        let late = Seen { lasted: 100_000, answered: 200, took: 200 * 150_000, refused: 9 };
        assert!(!late.is_calm(LIMITS.target));
        let after =
            |windows| (1..=windows).fold(MOST, |limit, number| late.next_limit(limit, number, LIMITS));
        assert_eq!(after(WINDOWS_OF_A_BURST), LIMITS.burst, "however few leave in time");
        assert!(after(WINDOWS_OF_A_BURST + 5) < 300, "nearly as few as leave in time");
        assert_eq!(after(WINDOWS_OF_A_BURST + 30), 200);
    }

    #[test]
    fn a_calm_window_ends_the_storm() {
        let overload = Overload::new(LIMITS);
        let late = Seen { lasted: 100_000, answered: 10, took: 10 * 150_000, refused: 0 };
        for _ in 0..30 {
            overload.0.next_window(late);
        }
        assert_eq!(overload.0.limit.load(Ordering::Relaxed), FEWEST);
        overload.0.next_window(Seen { took: 0, ..late });
        for _ in 0..WINDOWS_OF_A_BURST {
            overload.0.next_window(late);
        }
        assert!(overload.0.limit.load(Ordering::Relaxed) > FEWEST * 2, "it is a burst again");
    }

    #[test]
    fn when_the_storm_is_over_everybody_is_let_in_within_half_a_second() {
        let calm = Seen { lasted: 100_000, answered: 10, took: 50_000, refused: 0 };
        assert!(calm.is_calm(LIMITS.target));
        let after = (0..5).fold(FEWEST, |limit, _| calm.next_limit(limit, 0, LIMITS));
        assert_eq!(after, MOST);
    }

    /// How many milliseconds payments take in the end of a storm of some seconds, in which 40 come each millisecond and 4 leave.
    fn times_in_a_storm(limits: OverloadLimits) -> Vec<u64> {
        let overload = Overload::new(limits);
        let inner = &*overload.0;
        let at = |millis| inner.began + Duration::from_millis(millis);
        let (mut line, mut times) = (VecDeque::new(), Vec::new());
        for now in 0..4_000 {
            for _ in 0..40 {
                if let Ok(under_way) = overload.enter(Class::Pay) {
                    // It leaves by the clock of this test.
                    std::mem::forget(under_way);
                    line.push_back(now);
                }
            }
            for since in line.drain(..line.len().min(4)) {
                inner.leave(Class::Pay);
                inner.answered(at(since), at(now));
                times.extend((now >= 3_000).then_some(now - since));
            }
        }
        times
    }

    #[test]
    fn in_a_storm_who_is_let_in_is_served_in_time() {
        let target = u64::try_from(LIMITS.target.as_millis()).unwrap();
        let times = times_in_a_storm(LIMITS);
        assert_eq!(times.len(), 4_000, "as many as can be");
        assert!(times.iter().all(|time| *time <= 2 * target), "{:?} ms", times.iter().max());
        let without = OverloadLimits { fewest: 1 << 20, burst: 1 << 20, most: 1 << 20, ..LIMITS };
        assert!(
            times_in_a_storm(without).iter().all(|time| *time > 10 * target),
            "the control: whoever comes is let in, and late"
        );
    }

    /// What is counted of an answer that took so long.
    fn counted(status: StatusCode, took: Duration) -> u32 {
        let overload = patient();
        let mut under_way = overload.enter(Class::Pay).unwrap();
        // Later than now is no time at all.
        under_way.since = Instant::now().checked_add(Duration::from_secs(60)).unwrap();
        if took > Duration::ZERO {
            under_way.since = Instant::now().checked_sub(took).unwrap();
        }
        under_way.answered(status);
        drop(under_way);
        overload.0.window.answered.load(Ordering::Relaxed)
    }

    #[test]
    fn what_needs_no_storage_says_nothing_of_it() {
        for status in [200, 201, 204, 404, 409, 500, 503] {
            assert_eq!(counted(StatusCode::from_u16(status).unwrap(), Duration::ZERO), 1, "{status}");
        }
        for status in [301, 400, 401, 403, 413, 415, 422, 429] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(counted(status, Duration::ZERO), 0, "{status}");
            assert_eq!(counted(status, Duration::from_millis(20)), 1, "{status}: it asked storage first");
        }
    }

    #[test]
    fn a_window_closes_by_itself() {
        let overload = Overload::new(OverloadLimits { target: Duration::ZERO, ..LIMITS });
        let inner = &*overload.0;
        let at = |millis| inner.began + Duration::from_millis(millis);
        inner.answered(at(0), at(99));
        assert_eq!(inner.limit.load(Ordering::Relaxed), MOST);
        inner.answered(at(0), at(100));
        assert_eq!(inner.limit.load(Ordering::Relaxed), LIMITS.burst, "nobody can be that fast");
        assert_eq!(inner.window.begin.load(Ordering::Relaxed), 100_000);
    }
}
