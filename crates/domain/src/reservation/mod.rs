//! A reservation: one or more seats of one date, held for one user until a deadline, then paid or given back.
//! RESERVED -> DONE | EXPIRED | CANCELLED (ADR 0004).

use crate::{Money, PerformanceDateId, QueueTokenId, ReservationId, RoomId, SeatId, Timestamp, UserId};

/// The status of a reservation as clients see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReservationStatus {
    /// Its seats are held; it can be paid.
    Reserved,
    /// Paid.
    Done,
    /// Its deadline passed unpaid.
    Expired,
    /// Its user gave it back.
    Cancelled,
}

impl ReservationStatus {
    /// Every status with its name in the contract and in storage.
    pub const NAMES: [(Self, &'static str); 4] = [
        (Self::Reserved, "RESERVED"),
        (Self::Done, "DONE"),
        (Self::Expired, "EXPIRED"),
        (Self::Cancelled, "CANCELLED"),
    ];

    /// The status at `now` of a reservation that is stored as `self`: a hold whose deadline has passed is EXPIRED,
    /// whether or not a sweep has been by.
    #[must_use]
    pub fn at(self, now: Timestamp, hold_expires_at: Timestamp) -> Self {
        if self == Self::Reserved && now >= hold_expires_at { Self::Expired } else { self }
    }
}

/// A seat of a reservation, at the price it was held for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReservedSeat {
    /// The seat.
    pub seat_id: SeatId,
    /// Its price when it was held.
    pub price: Money,
}

/// A reservation. Made by [`Reservation::hold`]; fields are public for adapters to store and restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// Which reservation.
    pub id: ReservationId,
    /// Whose it is.
    pub user_id: UserId,
    /// The date all its seats belong to.
    pub performance_date_id: PerformanceDateId,
    /// The room in front of that date's concert, whose token a payment expires.
    pub room_id: RoomId,
    /// The queue token under which it was made.
    pub token_id: QueueTokenId,
    /// Its seats: at least one, no two the same.
    pub seats: Vec<ReservedSeat>,
    /// The sum of their prices.
    pub total_amount: Money,
    /// When it was made.
    pub reserved_at: Timestamp,
    /// From when on the hold is lapsed.
    pub hold_expires_at: Timestamp,
    /// The stored status. [`Reservation::status_at`] is what counts.
    pub status: ReservationStatus,
}

/// What a user has of a date at some time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holdings {
    /// How many seats are held unlapsed, or bought.
    pub live_seats: u32,
    /// The holds that are lapsed and stored as RESERVED still. They do not count, unless somebody whose clock is behind
    /// pays them: whoever relies on that expires them.
    pub lapsed: Vec<ReservationId>,
}

/// Who holds seats of which date, where, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldTerms {
    /// Whose it will be.
    pub user_id: UserId,
    /// The date all seats belong to.
    pub performance_date_id: PerformanceDateId,
    /// The room in front of that date's concert.
    pub room_id: RoomId,
    /// The queue token under which it is made.
    pub token_id: QueueTokenId,
    /// When it is made.
    pub reserved_at: Timestamp,
    /// From when on the hold is lapsed.
    pub hold_expires_at: Timestamp,
}

/// What a reservation's state forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReservationError {
    /// The deadline passed unpaid (seed: 이미 EXPIRED된 예약 정보일 시).
    #[error("the reservation has expired")]
    Expired,
    /// Its user gave it back.
    #[error("the reservation was cancelled")]
    Cancelled,
    /// It is paid.
    #[error("the reservation is paid already")]
    AlreadyPaid,
    /// Its deadline has not passed.
    #[error("the reservation is still held")]
    StillHeld,
}

/// Seats that cannot make one reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHold {
    /// None at all.
    #[error("a reservation needs at least one seat")]
    NoSeat,
    /// The same seat twice.
    #[error("a reservation names each seat once")]
    DuplicateSeat,
    /// More than can be paid in one sum.
    #[error("the prices add up to more than can be paid")]
    TotalTooLarge,
}

impl Reservation {
    /// Holds seats (seed: 좌석 예약 요청).
    ///
    /// # Errors
    /// [`InvalidHold`] for no seat, the same seat twice, or a sum that cannot be stored.
    pub fn hold(id: ReservationId, terms: HoldTerms, seats: Vec<ReservedSeat>) -> Result<Self, InvalidHold> {
        if seats.is_empty() {
            return Err(InvalidHold::NoSeat);
        }
        let mut seat_ids: Vec<SeatId> = seats.iter().map(|seat| seat.seat_id).collect();
        seat_ids.sort_unstable();
        seat_ids.dedup();
        if seat_ids.len() < seats.len() {
            return Err(InvalidHold::DuplicateSeat);
        }
        let total_amount =
            Money::total(seats.iter().map(|seat| seat.price)).ok_or(InvalidHold::TotalTooLarge)?;
        Ok(Self {
            id,
            user_id: terms.user_id,
            performance_date_id: terms.performance_date_id,
            room_id: terms.room_id,
            token_id: terms.token_id,
            seats,
            total_amount,
            reserved_at: terms.reserved_at,
            hold_expires_at: terms.hold_expires_at,
            status: ReservationStatus::Reserved,
        })
    }

    /// The status at `now`.
    #[must_use]
    pub fn status_at(&self, now: Timestamp) -> ReservationStatus {
        self.status.at(now, self.hold_expires_at)
    }

    /// The ids of its seats.
    #[must_use]
    pub fn seat_ids(&self) -> Vec<SeatId> {
        self.seats.iter().map(|seat| seat.seat_id).collect()
    }

    /// RESERVED -> DONE (seed: 결제 완료 상태 변경 요청).
    ///
    /// # Errors
    /// The state it is in instead.
    pub fn pay(self, now: Timestamp) -> Result<Self, ReservationError> {
        self.require_held(now)?;
        Ok(Self { status: ReservationStatus::Done, ..self })
    }

    /// RESERVED -> CANCELLED.
    ///
    /// # Errors
    /// The state it is in instead; [`ReservationError::Cancelled`] the second time.
    pub fn cancel(self, now: Timestamp) -> Result<Self, ReservationError> {
        self.require_held(now)?;
        Ok(Self { status: ReservationStatus::Cancelled, ..self })
    }

    /// RESERVED -> EXPIRED, once its deadline has passed.
    ///
    /// # Errors
    /// [`ReservationError::StillHeld`] before the deadline, else the state it is in instead.
    pub fn expire(self, now: Timestamp) -> Result<Self, ReservationError> {
        match self.status {
            ReservationStatus::Reserved if now >= self.hold_expires_at => {
                Ok(Self { status: ReservationStatus::Expired, ..self })
            }
            _ => Err(self.require_held(now).err().unwrap_or(ReservationError::StillHeld)),
        }
    }

    fn require_held(&self, now: Timestamp) -> Result<(), ReservationError> {
        match self.status_at(now) {
            ReservationStatus::Reserved => Ok(()),
            ReservationStatus::Done => Err(ReservationError::AlreadyPaid),
            ReservationStatus::Expired => Err(ReservationError::Expired),
            ReservationStatus::Cancelled => Err(ReservationError::Cancelled),
        }
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

    fn seat(id: u128, price: i64) -> ReservedSeat {
        ReservedSeat { seat_id: SeatId::new(Uuid::from_u128(id)), price: Money::new(price).unwrap() }
    }

    fn terms() -> HoldTerms {
        HoldTerms {
            user_id: UserId::new(Uuid::from_u128(2)),
            performance_date_id: PerformanceDateId::new(Uuid::from_u128(3)),
            room_id: RoomId::new(Uuid::from_u128(4)),
            token_id: QueueTokenId::new(Uuid::from_u128(5)),
            reserved_at: at(0),
            hold_expires_at: at(300),
        }
    }

    fn hold(seats: Vec<ReservedSeat>) -> Result<Reservation, InvalidHold> {
        Reservation::hold(ReservationId::new(Uuid::from_u128(1)), terms(), seats)
    }

    fn held() -> Reservation {
        hold(vec![seat(1, 100), seat(2, 50)]).unwrap()
    }

    #[test]
    fn a_hold_sums_its_prices() {
        assert_eq!(held().total_amount, Money::new(150).unwrap());
        assert_eq!(held().status_at(at(299)), ReservationStatus::Reserved);
        assert_eq!(held().status_at(at(300)), ReservationStatus::Expired);
    }

    #[test]
    fn impossible_holds_are_refused() {
        assert_eq!(hold(vec![]), Err(InvalidHold::NoSeat));
        assert_eq!(hold(vec![seat(1, 1), seat(2, 1), seat(1, 1)]), Err(InvalidHold::DuplicateSeat));
        assert_eq!(hold(vec![seat(1, i64::MAX), seat(2, 1)]), Err(InvalidHold::TotalTooLarge));
    }

    /// Every state against every transition, before, at and after the deadline.
    #[test]
    fn the_whole_table_of_transitions() {
        use ReservationError as E;
        use ReservationStatus as S;
        let in_status = |status| Reservation { status, ..held() };
        for (from, now, pay, cancel, expire) in [
            (S::Reserved, 299, Ok(S::Done), Ok(S::Cancelled), Err(E::StillHeld)),
            (S::Reserved, 300, Err(E::Expired), Err(E::Expired), Ok(S::Expired)),
            (S::Reserved, 301, Err(E::Expired), Err(E::Expired), Ok(S::Expired)),
            (S::Done, 299, Err(E::AlreadyPaid), Err(E::AlreadyPaid), Err(E::AlreadyPaid)),
            (S::Done, 300, Err(E::AlreadyPaid), Err(E::AlreadyPaid), Err(E::AlreadyPaid)),
            (S::Expired, 300, Err(E::Expired), Err(E::Expired), Err(E::Expired)),
            (S::Cancelled, 299, Err(E::Cancelled), Err(E::Cancelled), Err(E::Cancelled)),
            (S::Cancelled, 300, Err(E::Cancelled), Err(E::Cancelled), Err(E::Cancelled)),
        ] {
            let status = |r: Result<Reservation, E>| r.map(|r| r.status);
            assert_eq!(status(in_status(from).pay(at(now))), pay, "pay {from:?} at {now}");
            assert_eq!(status(in_status(from).cancel(at(now))), cancel, "cancel {from:?} at {now}");
            assert_eq!(status(in_status(from).expire(at(now))), expire, "expire {from:?} at {now}");
        }
    }

    proptest! {
        #[test]
        fn a_reservation_ends_once(steps in prop::collection::vec((0..3_u8, 0..100_i64), 0..20)) {
            let (mut reservation, mut now, mut ends) = (held(), 0, 0);
            for (action, step) in steps {
                now += step;
                let next = match action {
                    0 => reservation.clone().pay(at(now)),
                    1 => reservation.clone().cancel(at(now)),
                    _ => reservation.clone().expire(at(now)),
                };
                if let Ok(next) = next {
                    ends += 1;
                    prop_assert_eq!(next.status == ReservationStatus::Expired, now >= 300);
                    reservation = next;
                }
            }
            prop_assert!(ends <= 1);
        }
    }
}
