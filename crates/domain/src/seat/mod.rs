//! A seat on one performance date. AVAILABLE -> RESERVED -> UNAVAILABLE, and back to AVAILABLE when a hold ends.

mod image;
mod layout;

use crate::{Label, Money, PerformanceDateId, ReservationId, SeatId, Timestamp};

pub use image::{FeedVersion, SeatImage, SeatUpdate, UnknownSeat};
pub use layout::{SeatLayout, SeatSpot};

/// The status of a seat as clients see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SeatStatus {
    /// Free.
    Available,
    /// Held for somebody.
    Reserved,
    /// Sold.
    Unavailable,
}

impl SeatStatus {
    /// Every status with its name in the contract and in storage.
    pub const NAMES: [(Self, &'static str); 3] =
        [(Self::Available, "AVAILABLE"), (Self::Reserved, "RESERVED"), (Self::Unavailable, "UNAVAILABLE")];
}

/// The state of a seat as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeatState {
    /// Free.
    Available,
    /// Held until the deadline of its reservation.
    Reserved {
        /// The reservation that holds it.
        reservation_id: ReservationId,
        /// From when on the hold is lapsed.
        hold_expires_at: Timestamp,
    },
    /// Sold.
    Unavailable {
        /// The reservation that bought it.
        reservation_id: ReservationId,
    },
}

impl SeatState {
    /// The status at `now`: a seat whose hold has lapsed is AVAILABLE, whether or not a sweep has been by.
    #[must_use]
    pub fn status_at(&self, now: Timestamp) -> SeatStatus {
        match *self {
            Self::Reserved { hold_expires_at, .. } if now < hold_expires_at => SeatStatus::Reserved,
            Self::Available | Self::Reserved { .. } => SeatStatus::Available,
            Self::Unavailable { .. } => SeatStatus::Unavailable,
        }
    }
}

/// Where a seat is and what it costs. Never changes once made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeatPlace {
    /// The part of the venue.
    pub section: Label,
    /// The row, from 1.
    pub row: u32,
    /// The number in the row, from 1.
    pub number: u32,
    /// The price class.
    pub grade: Label,
    /// The price.
    pub price: Money,
}

/// A seat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    /// Which seat.
    pub id: SeatId,
    /// The performance date it belongs to.
    pub performance_date_id: PerformanceDateId,
    /// Where it is and what it costs.
    pub place: SeatPlace,
    /// Whose it is.
    pub state: SeatState,
}

/// What a seat's state forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SeatError {
    /// It is held or sold.
    #[error("the seat is taken")]
    NotAvailable,
    /// It is not held by this reservation.
    #[error("the seat is not held by this reservation")]
    NotHeld,
}

impl Seat {
    /// The status at `now`. See [`SeatState::status_at`].
    #[must_use]
    pub fn status_at(&self, now: Timestamp) -> SeatStatus {
        self.state.status_at(now)
    }

    /// The reservation whose lapsed hold still stands on this seat, if any.
    #[must_use]
    pub fn lapsed_hold(&self, now: Timestamp) -> Option<ReservationId> {
        match self.state {
            SeatState::Reserved { reservation_id, hold_expires_at } if now >= hold_expires_at => {
                Some(reservation_id)
            }
            _ => None,
        }
    }

    /// AVAILABLE -> RESERVED (seed: 좌석 예약 상태 변경 요청). A lapsed hold gives way.
    ///
    /// # Errors
    /// [`SeatError::NotAvailable`] when it is held or sold.
    pub fn hold(
        self,
        reservation_id: ReservationId,
        hold_expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<Self, SeatError> {
        if self.status_at(now) == SeatStatus::Available {
            Ok(Self { state: SeatState::Reserved { reservation_id, hold_expires_at }, ..self })
        } else {
            Err(SeatError::NotAvailable)
        }
    }

    /// RESERVED -> UNAVAILABLE, when paid (seed: 좌석 상태 변경 요청). The deadline is the reservation's to judge.
    ///
    /// # Errors
    /// [`SeatError::NotHeld`] unless `reservation_id` holds it.
    pub fn sell(self, reservation_id: ReservationId) -> Result<Self, SeatError> {
        self.require_held_by(reservation_id)?;
        Ok(Self { state: SeatState::Unavailable { reservation_id }, ..self })
    }

    /// RESERVED -> AVAILABLE, when the hold is cancelled or lapsed.
    ///
    /// # Errors
    /// [`SeatError::NotHeld`] unless `reservation_id` holds it.
    pub fn release(self, reservation_id: ReservationId) -> Result<Self, SeatError> {
        self.require_held_by(reservation_id)?;
        Ok(Self { state: SeatState::Available, ..self })
    }

    fn require_held_by(&self, by: ReservationId) -> Result<(), SeatError> {
        match self.state {
            SeatState::Reserved { reservation_id, .. } if reservation_id == by => Ok(()),
            _ => Err(SeatError::NotHeld),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const MINE: ReservationId = ReservationId::new(Uuid::from_u128(1));
    const OTHER: ReservationId = ReservationId::new(Uuid::from_u128(2));

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_micros(seconds * 1_000_000).unwrap()
    }

    fn free() -> Seat {
        Seat {
            id: SeatId::new(Uuid::from_u128(3)),
            performance_date_id: PerformanceDateId::new(Uuid::from_u128(4)),
            place: SeatPlace {
                section: Label::new("A").unwrap(),
                row: 1,
                number: 1,
                grade: Label::new("R").unwrap(),
                price: Money::new(100).unwrap(),
            },
            state: SeatState::Available,
        }
    }

    #[test]
    fn legal_transitions() {
        let held = free().hold(MINE, at(300), at(0)).unwrap();
        assert_eq!(held.state, SeatState::Reserved { reservation_id: MINE, hold_expires_at: at(300) });
        assert_eq!(held.clone().sell(MINE).unwrap().state, SeatState::Unavailable { reservation_id: MINE });
        assert_eq!(held.clone().release(MINE).unwrap(), free());
        let taken_over = held.hold(OTHER, at(600), at(300)).unwrap();
        assert_eq!(taken_over.state, SeatState::Reserved { reservation_id: OTHER, hold_expires_at: at(600) });
    }

    #[test]
    fn illegal_transitions() {
        let held = free().hold(MINE, at(300), at(0)).unwrap();
        let sold = held.clone().sell(MINE).unwrap();
        assert_eq!(held.clone().hold(OTHER, at(600), at(299)), Err(SeatError::NotAvailable));
        assert_eq!(held.clone().hold(MINE, at(600), at(299)), Err(SeatError::NotAvailable), "no timer reset");
        assert_eq!(sold.clone().hold(OTHER, at(600), at(9_999)), Err(SeatError::NotAvailable));
        for (seat, by) in [(free(), MINE), (held, OTHER), (sold, MINE)] {
            assert_eq!(seat.clone().sell(by), Err(SeatError::NotHeld));
            assert_eq!(seat.release(by), Err(SeatError::NotHeld));
        }
    }

    #[test]
    fn a_lapsed_hold_reads_as_available() {
        let held = free().hold(MINE, at(300), at(0)).unwrap();
        assert_eq!((held.status_at(at(299)), held.lapsed_hold(at(299))), (SeatStatus::Reserved, None));
        assert_eq!((held.status_at(at(300)), held.lapsed_hold(at(300))), (SeatStatus::Available, Some(MINE)));
        let sold = held.sell(MINE).unwrap();
        assert_eq!((sold.status_at(at(300)), sold.lapsed_hold(at(300))), (SeatStatus::Unavailable, None));
    }

    proptest! {
        #[test]
        fn a_sold_seat_stays_sold(steps in prop::collection::vec((0..3_u8, any::<bool>(), 0..200_i64), 0..20)) {
            let (mut seat, mut now, mut sold_to) = (free(), 0, None);
            for (action, mine, step) in steps {
                now += step;
                let by = if mine { MINE } else { OTHER };
                let next = match action {
                    0 => seat.clone().hold(by, at(now + 300), at(now)),
                    1 => seat.clone().sell(by),
                    _ => seat.clone().release(by),
                };
                if let Ok(next) = next {
                    prop_assert_eq!(sold_to, None);
                    if let SeatState::Unavailable { reservation_id } = next.state {
                        sold_to = Some(reservation_id);
                    }
                    seat = next;
                }
            }
            prop_assert_eq!(sold_to.is_some(), seat.status_at(at(now)) == SeatStatus::Unavailable);
        }
    }
}
