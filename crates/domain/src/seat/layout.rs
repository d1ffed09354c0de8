//! Where the seats of a date are: what of a seat map never changes.

use std::collections::BTreeMap;

use super::Seat;
use crate::{Label, Money, SeatId};

/// Every seat of a date, by section, row and number. Labels are kept once, so that a seat takes some forty bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct SeatLayout {
    labels: Vec<Label>,
    spots: Vec<Spot>,
    /// The positions of the seats, by their ids.
    by_id: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Spot {
    id: SeatId,
    /// Which of the labels.
    section: u32,
    grade: u32,
    row: u32,
    number: u32,
    price: Money,
}

/// One seat of a [`SeatLayout`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeatSpot<'a> {
    /// Which seat.
    pub id: SeatId,
    /// The part of the venue.
    pub section: &'a Label,
    /// The row, from 1.
    pub row: u32,
    /// The number in the row, from 1.
    pub number: u32,
    /// The price class.
    pub grade: &'a Label,
    /// The price.
    pub price: Money,
}

impl SeatLayout {
    /// Puts seats in their order. There are fewer than `u32::MAX` of them.
    pub(super) fn new<'a>(seats: impl Iterator<Item = &'a Seat>) -> Self {
        let mut seats: Vec<&Seat> = seats.collect();
        seats.sort_by(|a, b| {
            let key = |seat: &'a Seat| (&seat.place.section, seat.place.row, seat.place.number);
            key(a).cmp(&key(b))
        });
        let mut labels = Labels::default();
        let spots: Vec<Spot> = seats
            .into_iter()
            .map(|seat| Spot {
                id: seat.id,
                section: labels.number_of(&seat.place.section),
                grade: labels.number_of(&seat.place.grade),
                row: seat.place.row,
                number: seat.place.number,
                price: seat.place.price,
            })
            .collect();
        let mut by_id: Vec<(SeatId, u32)> = (0..).zip(&spots).map(|(at, spot)| (spot.id, at)).collect();
        by_id.sort_unstable();
        let by_id = by_id.into_iter().map(|(_, at)| at).collect();
        Self { labels: labels.in_order, spots, by_id }
    }

    /// How many seats there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.spots.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.spots.is_empty()
    }

    /// The seat in this position, from 0.
    #[must_use]
    pub fn spot(&self, at: usize) -> Option<SeatSpot<'_>> {
        let spot = self.spots.get(at)?;
        Some(SeatSpot {
            id: spot.id,
            section: self.label(spot.section)?,
            row: spot.row,
            number: spot.number,
            grade: self.label(spot.grade)?,
            price: spot.price,
        })
    }

    /// In which position a seat is.
    #[must_use]
    pub fn position(&self, id: SeatId) -> Option<usize> {
        let id_at = |at: &u32| self.spots.get(index(*at)).map(|spot| spot.id);
        let found = self.by_id.binary_search_by(|at| id_at(at).cmp(&Some(id))).ok()?;
        self.by_id.get(found).copied().map(index)
    }

    fn label(&self, number: u32) -> Option<&Label> {
        self.labels.get(index(number))
    }
}

/// The labels seen so far, each with its number.
#[derive(Default)]
struct Labels<'a> {
    numbers: BTreeMap<&'a Label, u32>,
    in_order: Vec<Label>,
}

impl<'a> Labels<'a> {
    fn number_of(&mut self, label: &'a Label) -> u32 {
        let next = u32::try_from(self.in_order.len()).unwrap_or(u32::MAX);
        *self.numbers.entry(label).or_insert_with(|| {
            self.in_order.push(label.clone());
            next
        })
    }
}

fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
