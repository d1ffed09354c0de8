//! Rendered deltas of a seat map, shared by all callers that lack about as much (ADR 0008).
//!
//! A delta of few seats is rendered for its caller: it is smaller than what a connection buffers in any case. A larger one is
//! rendered once for all callers whose number of changed seats rounds up to the same power of two, whatever version they ask
//! with: it covers the newest changes of that many seats, so it may include unchanged ones. A date therefore has one current
//! delta per power of two and encoding, and a connection that does not read its answer holds a reference, not a copy.
//!
//! Old deltas live as long as connections send them. While all that live take more than [`MAX_HELD_BYTES`], no further delta
//! is rendered, and callers get the whole map, which they share as well.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use actix_web::web::Bytes;
use frontrow_app::SeatsChanged;
use frontrow_domain::seat::FeedVersion;

use super::body::{Parts, WeakParts};
use super::picture::delta;
use crate::etag::{self, Encoding};
use crate::problem::Problem;

/// The most changed seats whose delta is rendered for one caller alone: some 25 KiB.
pub(crate) const OWN_DELTA_SEATS: usize = 128;
/// The most bytes of one date's deltas that this cache and connections may hold before no more are rendered.
const MAX_HELD_BYTES: usize = 64 * 1024 * 1024;

/// A rendered delta.
pub(crate) struct Delta {
    /// The version from which on it is complete.
    since: FeedVersion,
    /// The version to ask with next.
    version: FeedVersion,
    revision: u64,
    seats: usize,
    encoding: Encoding,
    body: Parts,
    rendered_at: Instant,
    cost: Duration,
}

impl Delta {
    /// Renders what has changed, compressed if that is accepted and gains anything.
    ///
    /// # Errors
    /// Never: everything is written to memory.
    pub(crate) fn render(changed: &SeatsChanged, accepted: Encoding) -> Result<Self, Problem> {
        let rendered_at = Instant::now();
        let text = delta(changed)?;
        let encoding = accepted.for_body(text.len());
        let text = match encoding {
            Encoding::Identity => text,
            Encoding::Gzip => etag::gzip(&text).map_err(Problem::internal)?,
        };
        Ok(Self {
            since: changed.since,
            version: changed.version,
            revision: changed.revision,
            seats: changed.seats.len(),
            encoding,
            body: Parts::new(vec![Bytes::from(text)]),
            rendered_at,
            cost: rendered_at.elapsed(),
        })
    }

    /// The encoding of the body.
    pub(crate) const fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The body, shared.
    pub(crate) fn body(&self) -> Parts {
        self.body.clone()
    }

    /// How many seats it tells of.
    pub(crate) const fn seats(&self) -> usize {
        self.seats
    }

    /// See [`frontrow_app::SeatMap::revision`].
    pub(crate) const fn revision(&self) -> u64 {
        self.revision
    }

    /// How long ago the map looked so.
    pub(crate) fn age(&self) -> Duration {
        self.rendered_at.elapsed()
    }

    /// How long it took to render.
    pub(crate) const fn cost(&self) -> Duration {
        self.cost
    }

    fn covers(&self, since: FeedVersion) -> bool {
        self.since <= since && since <= self.version
    }
}

/// Which of the current deltas: the exponent of the power of two that the number of changed seats rounds up to, and the
/// encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Class(u32, Encoding);

impl Class {
    /// The class of a caller that lacks the changes of so many seats.
    pub(crate) fn of(seats: usize, encoding: Encoding) -> Self {
        Self(seats.checked_next_power_of_two().map_or(usize::BITS, usize::ilog2), encoding)
    }
}

/// The current deltas of one map, and the old ones that connections still send.
pub(crate) struct Deltas {
    max_held_bytes: usize,
    state: Mutex<State>,
    /// Held by the task that renders a delta of many seats.
    pub(super) rendering: futures_util::lock::Mutex<()>,
}

#[derive(Default)]
struct State {
    current: HashMap<Class, Arc<Delta>>,
    /// Every body that was rendered, for as long as anything holds it.
    held: Vec<WeakParts>,
}

impl Default for Deltas {
    fn default() -> Self {
        Self::holding(MAX_HELD_BYTES)
    }
}

impl Deltas {
    fn holding(max_held_bytes: usize) -> Self {
        Self { max_held_bytes, state: Mutex::default(), rendering: futures_util::lock::Mutex::new(()) }
    }

    /// The current delta of a class, if it has all changes since a version.
    pub(crate) fn find(&self, class: Class, since: FeedVersion) -> Option<Arc<Delta>> {
        let delta = self.state().current.get(&class).cloned();
        delta.filter(|delta| delta.covers(since))
    }

    /// Whether there is room for another delta next to those that live.
    pub(crate) fn has_room(&self) -> bool {
        self.held_bytes() <= self.max_held_bytes
    }

    /// How many bytes the deltas take that live, those that connections still send included.
    fn held_bytes(&self) -> usize {
        let held = &mut self.state().held;
        held.retain(WeakParts::is_held);
        held.iter().map(WeakParts::len).sum()
    }

    /// Makes a delta the current one of a class, unless that has a newer one.
    pub(crate) fn insert(&self, class: Class, delta: &Arc<Delta>) {
        let mut state = self.state();
        state.held.push(delta.body.downgrade());
        let current = state.current.entry(class).or_insert_with(|| delta.clone());
        if current.revision <= delta.revision {
            *current = delta.clone();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that holds this lock can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use frontrow_domain::seat::{Seat, SeatImage, SeatPlace, SeatState, SeatUpdate};
    use frontrow_domain::{
        Label, Money, PerformanceDateId, ReservationId, SeatId, Timestamp, Version, Versioned,
    };
    use uuid::Uuid;

    use super::*;

    const SEATS: u32 = 6_000;

    fn seat(number: u32, state: SeatState, version: Version) -> Versioned<Seat> {
        let label = |text: &str| Label::new(text).unwrap();
        let place = SeatPlace {
            section: label("A"),
            row: 1,
            number,
            grade: label("R"),
            price: Money::new(100).unwrap(),
        };
        let performance_date_id = PerformanceDateId::new(Uuid::from_u128(1));
        let id = SeatId::new(Uuid::from_u128(number.into()));
        Versioned::new(Seat { id, performance_date_id, place, state }, version)
    }

    /// An image of which each version of the feed has changed one more seat.
    fn image(changes: u32) -> SeatImage {
        let seats: Vec<_> =
            (1..=SEATS).map(|number| seat(number, SeatState::Available, Version::FIRST)).collect();
        let mut image = SeatImage::new(&seats, FeedVersion::FIRST);
        change(&mut image, 1..=changes);
        image
    }

    fn change(image: &mut SeatImage, numbers: impl Iterator<Item = u32>) {
        let reservation_id = ReservationId::new(Uuid::from_u128(9));
        let held = SeatState::Reserved { reservation_id, hold_expires_at: Timestamp::MAX };
        for number in numbers {
            let update = SeatUpdate::of(&seat(number, held, Version::new(2)));
            image.follow(&[update], image.version().next()).unwrap();
        }
    }

    /// What a map answers.
    fn changed(image: &SeatImage, since: FeedVersion, positions: Vec<usize>) -> SeatsChanged {
        let seats = positions.into_iter().map(|at| (at, image.shown()[at])).collect();
        let (layout, version, revision) = (image.layout().clone(), image.version(), image.revision());
        SeatsChanged { layout, seats, since, version, revision }
    }

    /// The body for a caller, as an album finds or renders it.
    fn answer(deltas: &Deltas, image: &SeatImage, since: FeedVersion) -> Option<Parts> {
        let class = Class::of(image.changed_since(since)?.len(), Encoding::Identity);
        let current = deltas.find(class, since).filter(|delta| delta.revision() == image.revision());
        if let Some(delta) = current {
            return Some(delta.body());
        }
        if !deltas.has_room() {
            return None;
        }
        let (from, positions) = image.changed_since_or_earlier(since)?;
        let delta = Arc::new(Delta::render(&changed(image, from, positions), Encoding::Identity).ok()?);
        deltas.insert(class, &delta);
        Some(delta.body())
    }

    #[test]
    fn callers_share_deltas_whatever_version_they_ask_with() {
        let (image, deltas) = (image(4_000), Deltas::default());
        let callers = (1_i64..3_800).step_by(9).map(FeedVersion::new);
        let answers: Vec<Parts> =
            callers.clone().map(|since| answer(&deltas, &image, since).unwrap()).collect();
        let sent: usize = answers.iter().map(Parts::len).sum();
        // Classes of 256, 512, 1,024, 2,048 and 4,096 seats.
        assert_eq!(deltas.state().held.len(), 5);
        let held = deltas.held_bytes();
        assert!(held < 2 * answers[0].len() && held * 100 < sent, "{held} bytes are held for {sent}");
        drop(answers);
        assert_eq!(deltas.held_bytes(), held, "the current ones stay");

        // The control: rendered per caller, unread answers take what all of them send.
        let own: Vec<Vec<u8>> = callers
            .step_by(10)
            .map(|since| delta(&changed(&image, since, image.changed_since(since).unwrap())).ok().unwrap())
            .collect();
        let held_by_own: usize = own.iter().map(Vec::len).sum();
        assert!(held_by_own > 5 * held, "{held_by_own} bytes for {} callers", own.len());
    }

    #[test]
    fn a_shared_delta_has_all_that_its_caller_lacks() {
        let (image, deltas) = (image(1_000), Deltas::default());
        for since in (1..872).step_by(31).map(FeedVersion::new) {
            let body = answer(&deltas, &image, since).unwrap().joined();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!((&body["version"], &body["full"]), (&1_001.into(), &false.into()));
            let lacking = image.changed_since(since).unwrap().len();
            let seats = body["seats"].as_array().unwrap();
            assert!((lacking..=2 * lacking).contains(&seats.len()), "{} for {lacking}", seats.len());
            let numbers: Vec<_> = seats.iter().filter_map(|seat| seat["number"].as_i64()).collect();
            assert!((since.get()..=1_000).all(|number| numbers.contains(&number)), "{since:?}");
        }
    }

    #[test]
    fn a_delta_of_an_older_or_newer_version_is_not_taken() {
        let (mut image, deltas) = (image(1_000), Deltas::default());
        answer(&deltas, &image, FeedVersion::new(600)).unwrap();
        let class = Class::of(401, Encoding::Identity);
        assert!(deltas.find(class, FeedVersion::new(600)).is_some());
        assert!(deltas.find(class, FeedVersion::new(400)).is_none(), "it lacks what changed before");
        change(&mut image, 1_001..=1_010);
        assert!(deltas.find(class, image.version()).is_none(), "its caller knows more already");
    }

    #[test]
    fn unread_deltas_of_any_number_of_versions_are_bounded() {
        const MAX: usize = 1_000_000;
        let (mut image, deltas, mut unread) = (image(1_000), Deltas::holding(MAX), Vec::new());
        for number in 1_001..1_501 {
            change(&mut image, number..=number);
            unread.push(answer(&deltas, &image, FeedVersion::new(700)));
        }
        let one = unread[0].as_ref().unwrap().len();
        assert!(unread.last().unwrap().is_none(), "the whole map is sent instead");
        assert!(deltas.held_bytes() <= MAX + 2 * one, "{}", deltas.held_bytes());
        unread.clear();
        assert!(answer(&deltas, &image, FeedVersion::new(700)).is_some(), "what nothing sends is forgotten");
    }
}
