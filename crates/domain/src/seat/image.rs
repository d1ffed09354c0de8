//! The picture in memory of all seats of a date (ADR 0008). It is for showing alone: no decision is taken by it.
//!
//! An image is loaded once and then follows the feed of its date: each version of the feed names the seats that it changed.
//! What this node commits itself is anticipated: shown at once, and confirmed by the feed a moment later. Every seat carries
//! its own version, so that news may come twice and in any order: an older state never replaces a newer one.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Seat, SeatLayout, SeatState, SeatStatus};
use crate::{SeatId, Timestamp, Version, Versioned};

/// How often the seats of a date have been changed, by whatever number of seats at once; 1 for a new date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeedVersion(i64);

impl FeedVersion {
    /// The version of a new date.
    pub const FIRST: Self = Self(1);

    /// Takes a stored version.
    #[must_use]
    pub const fn new(version: i64) -> Self {
        Self(version)
    }

    /// The number, for adapters.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The version after one more change.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// The state that a seat was left in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeatUpdate {
    /// Which seat.
    pub id: SeatId,
    /// Its state.
    pub state: SeatState,
    /// The version of the seat that has this state.
    pub version: Version,
}

impl SeatUpdate {
    /// What a stored seat says.
    #[must_use]
    pub const fn of(seat: &Versioned<Seat>) -> Self {
        Self { id: seat.value.id, state: seat.value.state, version: seat.version }
    }
}

/// A seat that the image has no place for: the date has got more seats, and must be loaded anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a seat is not on the map")]
pub struct UnknownSeat(pub SeatId);

/// All seats of a date as they are shown.
#[derive(Debug, Clone)]
pub struct SeatImage {
    layout: Arc<SeatLayout>,
    /// By position, as `shown`.
    cells: Vec<Cell>,
    shown: Vec<SeatStatus>,
    version: FeedVersion,
    /// Of the changes since this version the image knows every one.
    known_since: FeedVersion,
    revision: u64,
    /// Up to when deadlines have been looked at.
    now: Timestamp,
    /// The deadlines of the seats that are shown as RESERVED, with their positions.
    deadlines: BTreeSet<(Timestamp, usize)>,
    /// Seats that are stored as RESERVED and shown as AVAILABLE, because their deadline has passed.
    lapsed: BTreeSet<usize>,
    /// Seats whose state is newer than what the feed has told.
    anticipated: BTreeSet<usize>,
}

#[derive(Debug, Clone, Copy)]
struct Cell {
    /// Of the seat.
    version: Version,
    /// Of the feed, when it told of the seat's state.
    changed_at: FeedVersion,
    hold_expires_at: Option<Timestamp>,
}

impl SeatImage {
    /// The image of seats that were read together with the version of their feed.
    #[must_use]
    pub fn new(seats: &[Versioned<Seat>], version: FeedVersion) -> Self {
        let layout = SeatLayout::new(seats.iter().map(|seat| &seat.value));
        let cell = Cell { version: Version::new(0), changed_at: version, hold_expires_at: None };
        let mut image = Self {
            cells: vec![cell; layout.len()],
            shown: vec![SeatStatus::Available; layout.len()],
            layout: Arc::new(layout),
            version,
            known_since: version,
            revision: 0,
            now: Timestamp::MIN,
            deadlines: BTreeSet::new(),
            lapsed: BTreeSet::new(),
            anticipated: BTreeSet::new(),
        };
        for seat in seats {
            image.take(&SeatUpdate::of(seat), Some(version));
        }
        image
    }

    /// Takes over what was read anew of all seats. The changes since before stay known, as long as the seats are the same.
    /// Old news changes nothing.
    pub fn reload(&mut self, seats: &[Versioned<Seat>], version: FeedVersion) {
        if version <= self.version {
            return;
        }
        let same_seats = seats.len() == self.layout.len()
            && seats.iter().all(|seat| self.layout.position(seat.value.id).is_some());
        if !same_seats {
            let revision = self.revision;
            let now = self.now;
            *self = Self::new(seats, version);
            self.revision = self.revision.saturating_add(revision).saturating_add(1);
            self.advance(now);
            return;
        }
        let changed = |seat: &&Versioned<Seat>| {
            let at = self.layout.position(seat.value.id);
            let held = at.and_then(|at| self.cells.get(at).map(|cell| (at, cell.version)));
            held.is_some_and(|(at, held)| seat.version > held || self.anticipated.contains(&at))
        };
        let updates: Vec<SeatUpdate> = seats.iter().filter(changed).map(SeatUpdate::of).collect();
        for update in &updates {
            self.take(update, Some(version));
        }
        self.version = version;
    }

    /// Takes over what the feed has told: every seat that was changed after the image's version, up to `version`. Old news
    /// changes nothing.
    ///
    /// # Errors
    /// [`UnknownSeat`]; the image then needs a [`SeatImage::reload`].
    pub fn follow(&mut self, updates: &[SeatUpdate], version: FeedVersion) -> Result<(), UnknownSeat> {
        if version <= self.version {
            return Ok(());
        }
        if let Some(unknown) = updates.iter().find(|update| self.layout.position(update.id).is_none()) {
            return Err(UnknownSeat(unknown.id));
        }
        for update in updates {
            self.take(update, Some(version));
        }
        self.version = version;
        Ok(())
    }

    /// Shows what this node has just committed, ahead of the feed. An unknown seat is left to the feed.
    pub fn anticipate(&mut self, update: &SeatUpdate) {
        self.take(update, None);
    }

    /// Lets the holds lapse whose deadline is at or before `now`.
    pub fn advance(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        while let Some(&(deadline, at)) = self.deadlines.first() {
            if deadline > self.now {
                break;
            }
            self.deadlines.pop_first();
            self.lapsed.insert(at);
            self.show(at, SeatStatus::Available);
        }
    }

    fn take(&mut self, update: &SeatUpdate, told_at: Option<FeedVersion>) {
        let Some(at) = self.layout.position(update.id) else { return };
        let Some(cell) = self.cells.get_mut(at) else { return };
        if update.version < cell.version {
            return;
        }
        let is_new = update.version > cell.version;
        match told_at {
            Some(version) => {
                cell.changed_at = version;
                self.anticipated.remove(&at);
            }
            None if is_new => {
                self.anticipated.insert(at);
            }
            None => {}
        }
        if is_new {
            cell.version = update.version;
            let before = cell.hold_expires_at.take();
            if let Some(deadline) = before {
                self.deadlines.remove(&(deadline, at));
                self.lapsed.remove(&at);
            }
            self.put(at, update.state);
        }
    }

    fn put(&mut self, at: usize, state: SeatState) {
        let status = state.status_at(self.now);
        if let SeatState::Reserved { hold_expires_at, .. } = state {
            if let Some(cell) = self.cells.get_mut(at) {
                cell.hold_expires_at = Some(hold_expires_at);
            }
            if status == SeatStatus::Reserved {
                self.deadlines.insert((hold_expires_at, at));
            } else {
                self.lapsed.insert(at);
            }
        }
        self.show(at, status);
    }

    fn show(&mut self, at: usize, status: SeatStatus) {
        let Some(shown) = self.shown.get_mut(at) else { return };
        if *shown != status {
            *shown = status;
            self.revision = self.revision.saturating_add(1);
        }
    }

    /// Where the seats are.
    #[must_use]
    pub const fn layout(&self) -> &Arc<SeatLayout> {
        &self.layout
    }

    /// The status of every seat, by position.
    #[must_use]
    pub fn shown(&self) -> &[SeatStatus] {
        &self.shown
    }

    /// The version of the feed up to which everything is known.
    #[must_use]
    pub const fn version(&self) -> FeedVersion {
        self.version
    }

    /// Grows with every change of what is shown, and only then. Of this image alone.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// How many seats are shown with this status.
    #[must_use]
    pub fn count(&self, status: SeatStatus) -> usize {
        self.shown.iter().filter(|shown| **shown == status).count()
    }

    /// When the next hold lapses, unless something happens to it.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// The positions of the seats that may be shown otherwise than to somebody who knows everything up to `since`: those
    /// changed after it, those that the feed has still to tell of, and those whose hold has lapsed and is not swept yet.
    /// `None` when that is not known any more, or `since` is ahead of this image.
    #[must_use]
    pub fn changed_since(&self, since: FeedVersion) -> Option<Vec<usize>> {
        if since < self.known_since || since > self.version {
            return None;
        }
        let later = self.cells.iter().enumerate().filter(|(at, cell)| {
            cell.changed_at > since || self.anticipated.contains(at) || self.lapsed.contains(at)
        });
        Some(later.map(|(at, _)| at).collect())
    }

    /// The changes since `since`, and earlier ones, up to the next power of two of seats: the same answer for all callers
    /// that lack about as much. With the version since which it has every change. `None` as [`SeatImage::changed_since`].
    #[must_use]
    pub fn changed_since_or_earlier(&self, since: FeedVersion) -> Option<(FeedVersion, Vec<usize>)> {
        let at_most = self.changed_since(since)?.len().checked_next_power_of_two()?;
        let versions = self.cells.iter().map(|cell| cell.changed_at);
        let mut versions: Vec<FeedVersion> = versions.filter(|version| *version > self.known_since).collect();
        let from = if versions.len() <= at_most {
            self.known_since
        } else {
            // Fewer than this many seats were changed after it.
            *versions.select_nth_unstable_by(at_most, |one, other| other.cmp(one)).1
        };
        Some((from, self.changed_since(from)?))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::seat::SeatPlace;
    use crate::{Label, Money, PerformanceDateId, ReservationId};

    const SEATS: u32 = 6;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_micros(seconds * 1_000_000).unwrap()
    }

    fn id(number: u32) -> SeatId {
        // Ids in another order than places.
        SeatId::new(Uuid::from_u128(u128::from(number * 7 % 11) + 1))
    }

    fn held(until: i64) -> SeatState {
        SeatState::Reserved {
            reservation_id: ReservationId::new(Uuid::from_u128(1)),
            hold_expires_at: at(until),
        }
    }

    fn sold() -> SeatState {
        SeatState::Unavailable { reservation_id: ReservationId::new(Uuid::from_u128(1)) }
    }

    fn seat(number: u32, state: SeatState, version: i64) -> Versioned<Seat> {
        let place = SeatPlace {
            section: Label::new(if number < 3 { "A" } else { "가" }).unwrap(),
            row: number % 3 + 1,
            number: 10 - number,
            grade: Label::new("R").unwrap(),
            price: Money::new(i64::from(number)).unwrap(),
        };
        let performance_date_id = PerformanceDateId::new(Uuid::from_u128(9));
        Versioned::new(Seat { id: id(number), performance_date_id, place, state }, Version::new(version))
    }

    fn free() -> Vec<Versioned<Seat>> {
        (0..SEATS).rev().map(|number| seat(number, SeatState::Available, 1)).collect()
    }

    fn update(number: u32, state: SeatState, version: i64) -> SeatUpdate {
        SeatUpdate::of(&seat(number, state, version))
    }

    fn image() -> SeatImage {
        SeatImage::new(&free(), FeedVersion::FIRST)
    }

    #[test]
    fn seats_are_in_the_order_of_the_house() {
        let image = image();
        let layout = image.layout();
        let order: Vec<_> = (0..layout.len())
            .map(|at| layout.spot(at).unwrap())
            .map(|s| (s.section.as_str(), s.row, s.number))
            .collect();
        let expected = [("A", 1, 10), ("A", 2, 9), ("A", 3, 8), ("가", 1, 7), ("가", 2, 6), ("가", 3, 5)];
        assert_eq!(order, expected);
        for number in 0..SEATS {
            let place = seat(number, SeatState::Available, 1).value.place;
            let spot = layout.spot(layout.position(id(number)).unwrap()).unwrap();
            assert_eq!((spot.id, spot.section, spot.grade), (id(number), &place.section, &place.grade));
            assert_eq!((spot.row, spot.number, spot.price), (place.row, place.number, place.price));
        }
        assert_eq!(layout.position(SeatId::new(Uuid::from_u128(99))), None);
        assert_eq!(layout.spot(layout.len()), None);
    }

    #[test]
    fn an_older_state_never_replaces_a_newer_one() {
        let mut image = image();
        image.anticipate(&update(0, sold(), 3));
        let revision = image.revision();
        image.follow(&[update(0, held(100), 2)], FeedVersion::new(2)).unwrap();
        assert_eq!((image.shown()[0], image.revision()), (SeatStatus::Unavailable, revision));
        assert_eq!(image.changed_since(FeedVersion::new(2)), Some(vec![0]), "the feed has still to tell");
        image.follow(&[update(0, sold(), 3)], FeedVersion::new(3)).unwrap();
        assert_eq!(image.changed_since(FeedVersion::new(2)), Some(vec![0]));
        assert_eq!(image.changed_since(FeedVersion::new(3)), Some(vec![]));
        assert_eq!(image.revision(), revision, "it was shown before");
    }

    #[test]
    fn a_hold_lapses_by_the_clock() {
        let mut image = image();
        image.follow(&[update(0, held(100), 2), update(1, held(50), 2)], FeedVersion::new(2)).unwrap();
        assert_eq!(image.next_deadline(), Some(at(50)));
        image.advance(at(49));
        assert_eq!(image.count(SeatStatus::Reserved), 2);
        image.advance(at(50));
        assert_eq!(image.next_deadline(), Some(at(100)));
        let second = image.layout().position(id(1)).unwrap();
        assert_eq!(image.shown()[second], SeatStatus::Available);
        assert_eq!(image.changed_since(FeedVersion::new(2)), Some(vec![second]), "until it is swept");
        image.follow(&[update(1, SeatState::Available, 3)], FeedVersion::new(3)).unwrap();
        assert_eq!(image.changed_since(FeedVersion::new(3)), Some(vec![]));
        image.follow(&[update(1, held(40), 4)], FeedVersion::new(4)).unwrap();
        assert_eq!(image.shown()[second], SeatStatus::Available, "it comes lapsed already");
    }

    #[test]
    fn what_is_unknown_is_loaded_anew() {
        let mut image = image();
        let unknown = update(7, sold(), 2);
        assert_eq!(
            image.follow(&[update(0, sold(), 2), unknown], FeedVersion::new(2)),
            Err(UnknownSeat(unknown.id))
        );
        assert_eq!((image.version(), image.shown()[0]), (FeedVersion::FIRST, SeatStatus::Available));
        image.anticipate(&unknown);
        let revision = image.revision();
        let more: Vec<_> = free().into_iter().chain([seat(7, sold(), 2)]).collect();
        image.reload(&more, FeedVersion::new(2));
        assert_eq!((image.layout().len(), image.version()), (7, FeedVersion::new(2)));
        assert!(image.revision() > revision, "it is another picture");
        assert_eq!(image.changed_since(FeedVersion::FIRST), None);
    }

    #[test]
    fn changes_before_the_first_load_and_after_the_last_are_not_known() {
        let mut image = SeatImage::new(&free(), FeedVersion::new(5));
        assert_eq!(image.changed_since(FeedVersion::new(4)), None);
        assert_eq!(image.changed_since(FeedVersion::new(5)), Some(vec![]));
        assert_eq!(image.changed_since(FeedVersion::new(6)), None);
        let mut seats = free();
        seats[0] = seat(SEATS - 1, sold(), 2);
        image.reload(&seats, FeedVersion::new(9));
        let sold = image.layout().position(id(SEATS - 1)).unwrap();
        assert_eq!(
            image.changed_since(FeedVersion::new(5)),
            Some(vec![sold]),
            "a reload of the same seats is a change"
        );
    }

    /// What happens to seats of a date, and to a node's image of it.
    #[derive(Debug, Clone)]
    enum Step {
        /// A seat is written: this node or another commits.
        Write { number: u32, state: SeatState, ours: bool },
        /// The image hears of everything that was written.
        Follow,
        /// Of everything, by a full read.
        Reload,
        /// Of something old.
        Hear { number: u32, version: i64, told: bool },
        /// Time passes.
        Pass(i64),
    }

    fn state() -> impl Strategy<Value = SeatState> {
        prop_oneof![Just(SeatState::Available), (0..200_i64).prop_map(held), Just(sold())]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..SEATS, state(), any::<bool>())
                .prop_map(|(number, state, ours)| Step::Write { number, state, ours }),
            2 => Just(Step::Follow),
            1 => Just(Step::Reload),
            1 => (0..SEATS, 1..9_i64, any::<bool>())
                .prop_map(|(number, version, told)| Step::Hear { number, version, told }),
            2 => (0..40_i64).prop_map(Step::Pass),
        ]
    }

    /// A date as it is stored: every state that each seat ever had, and at which version of the feed it changed last.
    struct Stored {
        histories: BTreeMap<u32, Vec<SeatState>>,
        changed_at: BTreeMap<u32, i64>,
        version: i64,
    }

    impl Stored {
        fn newest(&self, number: u32) -> SeatUpdate {
            let history = &self.histories[&number];
            update(number, *history.last().unwrap(), i64::try_from(history.len()).unwrap())
        }

        fn rows(&self) -> Vec<Versioned<Seat>> {
            let row = |number| {
                let newest = self.newest(number);
                seat(number, newest.state, newest.version.get())
            };
            self.histories.keys().copied().map(row).collect()
        }
    }

    proptest! {
        #[test]
        fn an_image_agrees_with_a_naive_model(steps in prop::collection::vec(step(), 0..60)) {
            let mut stored = Stored {
                histories: (0..SEATS).map(|number| (number, vec![SeatState::Available])).collect(),
                changed_at: BTreeMap::new(),
                version: 1,
            };
            let mut image = image();
            image.advance(at(0));
            // The version of each seat that the image was told of or has committed itself.
            let mut heard: BTreeMap<u32, usize> = (0..SEATS).map(|number| (number, 1)).collect();
            let mut now = 0;
            // What was shown under each version of the feed, at any time.
            let mut snapshots: Vec<(FeedVersion, Vec<SeatStatus>)> = Vec::new();
            for step in steps {
                match step {
                    Step::Write { number, state, ours } => {
                        stored.histories.get_mut(&number).unwrap().push(state);
                        stored.version += 1;
                        stored.changed_at.insert(number, stored.version);
                        if ours {
                            image.anticipate(&stored.newest(number));
                            heard.insert(number, stored.histories[&number].len());
                        }
                    }
                    Step::Follow => {
                        let since = image.version().get();
                        let changed = stored.changed_at.iter().filter(|(_, at)| **at > since);
                        let updates: Vec<_> = changed.map(|(number, _)| stored.newest(*number)).collect();
                        image.follow(&updates, FeedVersion::new(stored.version)).unwrap();
                        heard = stored.histories.iter().map(|(number, h)| (*number, h.len())).collect();
                    }
                    Step::Reload => {
                        image.reload(&stored.rows(), FeedVersion::new(stored.version));
                        heard = stored.histories.iter().map(|(number, h)| (*number, h.len())).collect();
                    }
                    Step::Hear { number, version, told } => {
                        // An answer that was on its way for long tells nothing that the image has not passed.
                        let newest = if told { heard[&number] } else { stored.histories[&number].len() };
                        let position = usize::try_from(version).unwrap().min(newest);
                        let state = stored.histories[&number][position - 1];
                        let old = update(number, state, i64::try_from(position).unwrap());
                        if told {
                            image.follow(&[old], image.version()).unwrap();
                        } else {
                            image.anticipate(&old);
                        }
                        let known = heard.get_mut(&number).unwrap();
                        *known = position.max(*known);
                    }
                    Step::Pass(seconds) => {
                        now += seconds;
                        image.advance(at(now));
                    }
                }
                let expected = |number: u32| stored.histories[&number][heard[&number] - 1].status_at(at(now));
                for number in 0..SEATS {
                    let position = image.layout().position(id(number)).unwrap();
                    prop_assert_eq!(image.shown()[position], expected(number), "seat {}", number);
                }
                for status in [SeatStatus::Available, SeatStatus::Reserved, SeatStatus::Unavailable] {
                    let count = (0..SEATS).filter(|number| expected(*number) == status).count();
                    prop_assert_eq!(image.count(status), count);
                }
                let deadlines = (0..SEATS).filter_map(|n| match stored.histories[&n][heard[&n] - 1] {
                    SeatState::Reserved { hold_expires_at, .. } if hold_expires_at > at(now) => Some(hold_expires_at),
                    _ => None,
                });
                prop_assert_eq!(image.next_deadline(), deadlines.min());
                // Whoever saw a version, at whatever time, is told of everything that is otherwise now.
                for (version, then) in &snapshots {
                    let told = image.changed_since(*version).expect("it is known since the start");
                    let (from, more) = image.changed_since_or_earlier(*version).expect("as above");
                    prop_assert!(from <= *version && told.iter().all(|position| more.contains(position)));
                    prop_assert_eq!(image.changed_since(from), Some(more));
                    for (position, (now, then)) in image.shown().iter().zip(then).enumerate() {
                        prop_assert!(now == then || told.contains(&position), "seat {} of {:?}", position, version);
                    }
                }
                snapshots.push((image.version(), image.shown().to_vec()));
            }
        }
    }
}
