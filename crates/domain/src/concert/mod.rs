//! Concerts, their performance dates, and the seats a date starts with.

use std::collections::BTreeSet;

use crate::seat::{Seat, SeatPlace, SeatState};
use crate::{ConcertId, Label, Money, PerformanceDateId, RoomId, SeatId, Timestamp};

/// A concert. Never changes once made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concert {
    /// Which concert.
    pub id: ConcertId,
    /// What it is called.
    pub title: Label,
    /// Where it is.
    pub venue: Label,
    /// The waiting room in front of it.
    pub room_id: RoomId,
}

/// One performance of a concert. Never changes once made, so decisions need not guard it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerformanceDate {
    /// Which date.
    pub id: PerformanceDateId,
    /// Whose date.
    pub concert_id: ConcertId,
    /// When the performance starts: sales end.
    pub starts_at: Timestamp,
    /// When sales start; at once when absent.
    pub on_sale_at: Option<Timestamp>,
}

/// A date that is never on sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("sales must start before the performance does")]
pub struct NeverOnSale;

/// The date is not on sale now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this date is not on sale now")]
pub struct NotOnSale;

impl PerformanceDate {
    /// A new date.
    ///
    /// # Errors
    /// [`NeverOnSale`] unless `on_sale_at` is before `starts_at`.
    pub fn new(
        id: PerformanceDateId,
        concert_id: ConcertId,
        starts_at: Timestamp,
        on_sale_at: Option<Timestamp>,
    ) -> Result<Self, NeverOnSale> {
        if on_sale_at.is_some_and(|on_sale_at| on_sale_at >= starts_at) {
            return Err(NeverOnSale);
        }
        Ok(Self { id, concert_id, starts_at, on_sale_at })
    }

    /// On sale is `on_sale_at <= now < starts_at`.
    ///
    /// # Errors
    /// [`NotOnSale`] at any other time.
    pub fn require_on_sale(&self, now: Timestamp) -> Result<(), NotOnSale> {
        let open = self.on_sale_at.is_none_or(|on_sale_at| on_sale_at <= now);
        if open && now < self.starts_at { Ok(()) } else { Err(NotOnSale) }
    }
}

/// A block of equal seats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// The part of the venue.
    pub section: Label,
    /// The price class.
    pub grade: Label,
    /// The price of each seat.
    pub price: Money,
    /// How many rows, numbered from 1.
    pub rows: u32,
    /// How many seats a row, numbered from 1.
    pub seats_per_row: u32,
}

/// The seats a date starts with: at least one, no two in the same place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeatPlan(Vec<Section>);

/// Sections that make no [`SeatPlan`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSeatPlan {
    /// No section, or one without rows or seats.
    #[error("a date needs at least one section, and each section at least one row and one seat a row")]
    NoSeat,
    /// A section twice.
    #[error("each section must be named once")]
    DuplicateSection,
    /// More than [`SeatPlan::MAX_SEATS`].
    #[error("a date has at most {} seats", SeatPlan::MAX_SEATS)]
    TooManySeats,
}

impl SeatPlan {
    /// The most seats one date may have: they are made in one transaction.
    pub const MAX_SEATS: u64 = 200_000;

    /// Checks sections.
    ///
    /// # Errors
    /// [`InvalidSeatPlan`] says what is wrong.
    pub fn new(sections: Vec<Section>) -> Result<Self, InvalidSeatPlan> {
        if sections.is_empty() || sections.iter().any(|s| s.rows == 0 || s.seats_per_row == 0) {
            return Err(InvalidSeatPlan::NoSeat);
        }
        let names: BTreeSet<&Label> = sections.iter().map(|s| &s.section).collect();
        if names.len() < sections.len() {
            return Err(InvalidSeatPlan::DuplicateSection);
        }
        let plan = Self(sections);
        if plan.total_seats() > Self::MAX_SEATS { Err(InvalidSeatPlan::TooManySeats) } else { Ok(plan) }
    }

    /// The sections, as they were given.
    #[must_use]
    pub fn sections(&self) -> &[Section] {
        &self.0
    }

    /// How many seats there are.
    #[must_use]
    pub fn total_seats(&self) -> u64 {
        self.0
            .iter()
            .map(|s| u64::from(s.rows).saturating_mul(u64::from(s.seats_per_row)))
            .fold(0, u64::saturating_add)
    }

    /// The seats themselves, AVAILABLE, in order of section, row and number.
    pub fn seats(&self, date: PerformanceDateId, mut next_id: impl FnMut() -> SeatId) -> Vec<Seat> {
        let mut seats = Vec::new();
        for section in &self.0 {
            for row in 1..=section.rows {
                for number in 1..=section.seats_per_row {
                    let place = SeatPlace {
                        section: section.section.clone(),
                        row,
                        number,
                        grade: section.grade.clone(),
                        price: section.price,
                    };
                    seats.push(Seat {
                        id: next_id(),
                        performance_date_id: date,
                        place,
                        state: SeatState::Available,
                    });
                }
            }
        }
        seats
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_micros(seconds * 1_000_000).unwrap()
    }

    fn date(on_sale_at: Option<Timestamp>) -> Result<PerformanceDate, NeverOnSale> {
        let (id, concert) = (PerformanceDateId::new(Uuid::nil()), ConcertId::new(Uuid::nil()));
        PerformanceDate::new(id, concert, at(1_000), on_sale_at)
    }

    fn section(name: &str, rows: u32, seats_per_row: u32) -> Section {
        let label = |text| Label::new(text).unwrap();
        Section { section: label(name), grade: label("R"), price: Money::ZERO, rows, seats_per_row }
    }

    #[test]
    fn on_sale_from_the_opening_until_the_start() {
        for (on_sale_at, now, open) in [
            (None, 0, true),
            (None, 999, true),
            (None, 1_000, false),
            (Some(500), 499, false),
            (Some(500), 500, true),
            (Some(500), 999, true),
            (Some(500), 1_000, false),
        ] {
            let date = date(on_sale_at.map(at)).unwrap();
            assert_eq!(date.require_on_sale(at(now)).is_ok(), open, "{on_sale_at:?} at {now}");
        }
        assert_eq!(date(Some(at(1_000))), Err(NeverOnSale));
    }

    #[test]
    fn impossible_plans_are_refused() {
        for (sections, error) in [
            (vec![], InvalidSeatPlan::NoSeat),
            (vec![section("A", 0, 1)], InvalidSeatPlan::NoSeat),
            (vec![section("A", 1, 0)], InvalidSeatPlan::NoSeat),
            (vec![section("A", 1, 1), section("A", 2, 2)], InvalidSeatPlan::DuplicateSection),
            (vec![section("A", 200_000, 1), section("B", 1, 1)], InvalidSeatPlan::TooManySeats),
            (
                vec![section("A", u32::MAX, u32::MAX), section("B", u32::MAX, u32::MAX)],
                InvalidSeatPlan::TooManySeats,
            ),
        ] {
            assert_eq!(SeatPlan::new(sections), Err(error));
        }
        assert_eq!(SeatPlan::new(vec![section("A", 200_000, 1)]).unwrap().total_seats(), SeatPlan::MAX_SEATS);
    }

    /// How many rows or seats a row: none, some, the limit, or as many as there are numbers.
    fn counts() -> impl Strategy<Value = u32> {
        prop_oneof![0..4_u32, 0..1_000_u32, 199_999..200_002_u32, any::<u32>(), Just(u32::MAX)]
    }

    proptest! {
        #[test]
        fn any_layout_is_a_plan_or_refused_for_what_is_wrong(
            layout in prop::collection::vec(("[A-D]", counts(), counts()), 0..4),
        ) {
            let sections: Vec<Section> =
                layout.iter().map(|(name, rows, seats)| section(name, *rows, *seats)).collect();
            let names: BTreeSet<&String> = layout.iter().map(|(name, _, _)| name).collect();
            let total: u128 = layout.iter().map(|(_, rows, seats)| u128::from(*rows) * u128::from(*seats)).sum();
            let plan = SeatPlan::new(sections.clone());
            if layout.is_empty() || layout.iter().any(|(_, rows, seats)| *rows == 0 || *seats == 0) {
                prop_assert_eq!(plan, Err(InvalidSeatPlan::NoSeat));
            } else if names.len() < layout.len() {
                prop_assert_eq!(plan, Err(InvalidSeatPlan::DuplicateSection));
            } else if total > u128::from(SeatPlan::MAX_SEATS) {
                prop_assert_eq!(plan, Err(InvalidSeatPlan::TooManySeats));
            } else {
                let plan = plan.unwrap();
                prop_assert_eq!(plan.sections(), sections.as_slice());
                prop_assert_eq!(u128::from(plan.total_seats()), total);
            }
        }

        #[test]
        fn a_plan_makes_each_place_once(a in (1..20_u32, 1..20_u32), b in (1..20_u32, 1..20_u32)) {
            let plan = SeatPlan::new(vec![section("A", a.0, a.1), section("B", b.0, b.1)]).unwrap();
            let mut next = 0;
            let seats = plan.seats(PerformanceDateId::new(Uuid::nil()), || {
                next += 1;
                SeatId::new(Uuid::from_u128(next))
            });
            let places: BTreeSet<_> =
                seats.iter().map(|s| (s.place.section.clone(), s.place.row, s.place.number)).collect();
            prop_assert_eq!(u64::try_from(places.len()).unwrap(), plan.total_seats());
            prop_assert_eq!(places.len(), seats.len());
            prop_assert!(seats.iter().all(|s| s.state == SeatState::Available));
        }
    }
}
