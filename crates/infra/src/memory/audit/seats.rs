//! Seats and who has them.

use frontrow_domain::reservation::{Reservation, ReservationStatus};
use frontrow_domain::seat::{FeedVersion, Seat, SeatState};
use frontrow_domain::{Money, ReservationId, SeatId};

use super::{Counted, Invariant, State, count, tally};
use crate::memory::was_admitted;
use crate::sql::KEPT_SEAT_CHANGES;

pub(super) const INVARIANTS: [Invariant; 8] = [
    ("seat-reserved-once", "at most one live reservation a seat", seats_are_reserved_once),
    ("seat-status", "a seat's status agrees with its reservation", seats_agree),
    ("seat-place", "no two seats of a date have the same place", places_are_taken_once),
    (
        "reservation-owns-seats",
        "a live reservation owns each of its seats, an ended one none",
        reservations_own,
    ),
    ("reservation-total", "a reservation's total is the sum of its seats, all of one date", totals_are_sums),
    (
        "reservation-token",
        "a reservation was made under an admitted token of its user, in the room of its concert",
        reservations_were_let_in,
    ),
    (
        "reservation-on-sale",
        "nothing was reserved before its date was on sale, or once it had begun",
        reservations_were_on_sale,
    ),
    ("date-changes", "the last versions of a date's seats are there without a gap", changes_are_numbered),
];

const fn is_live(reservation: &Reservation) -> bool {
    matches!(reservation.status, ReservationStatus::Reserved | ReservationStatus::Done)
}

fn has_seat(reservation: &Reservation, id: SeatId) -> bool {
    reservation.seats.iter().any(|seat| seat.seat_id == id)
}

pub(super) const fn owner(seat: &Seat) -> Option<ReservationId> {
    match seat.state {
        SeatState::Available => None,
        SeatState::Reserved { reservation_id, .. } | SeatState::Unavailable { reservation_id } => {
            Some(reservation_id)
        }
    }
}

fn all_seats(state: &State) -> impl Iterator<Item = &Seat> {
    state.seats.values().map(|row| &row.value)
}

fn seats_are_reserved_once(state: &State) -> Counted {
    let live = state.all_reservations().filter(|reservation| is_live(reservation));
    let holders = tally(live.flat_map(Reservation::seat_ids));
    count(state.seats.keys(), |id| holders.get(id).is_some_and(|holders| *holders > 1))
}

fn seats_agree(state: &State) -> Counted {
    count(all_seats(state), |seat| {
        let held_by = |id: ReservationId| state.reservation(id).filter(|r| has_seat(r, seat.id));
        let agrees = match seat.state {
            SeatState::Available => true,
            SeatState::Reserved { reservation_id, hold_expires_at } => {
                held_by(reservation_id).is_some_and(|r| {
                    r.status == ReservationStatus::Reserved && r.hold_expires_at == hold_expires_at
                })
            }
            SeatState::Unavailable { reservation_id } => {
                held_by(reservation_id).is_some_and(|r| r.status == ReservationStatus::Done)
            }
        };
        !agrees
    })
}

fn places_are_taken_once(state: &State) -> Counted {
    let place = |seat: &Seat| (seat.performance_date_id, seat.place.row, seat.place.number);
    let places = all_seats(state).map(|seat| (place(seat), &seat.place.section));
    count(tally(places), |(_, seats)| *seats > 1)
}

fn reservations_own(state: &State) -> Counted {
    let pairs = state.all_reservations().flat_map(|r| r.seats.iter().map(move |seat| (r, seat.seat_id)));
    count(pairs, |(reservation, seat_id)| {
        let owner = state.seats.get(seat_id).and_then(|row| owner(&row.value));
        (owner == Some(reservation.id)) != is_live(reservation)
    })
}

fn totals_are_sums(state: &State) -> Counted {
    count(state.all_reservations(), |reservation| {
        let is_of = |seat: &Seat, price| {
            (seat.performance_date_id, seat.place.price) == (reservation.performance_date_id, price)
        };
        let mut seats = reservation.seats.iter();
        reservation.seats.is_empty()
            || Money::total(reservation.seats.iter().map(|seat| seat.price)) != Some(reservation.total_amount)
            || seats
                .any(|seat| !state.seats.get(&seat.seat_id).is_some_and(|row| is_of(&row.value, seat.price)))
    })
}

fn reservations_were_let_in(state: &State) -> Counted {
    count(state.all_reservations(), |reservation| {
        let token = state.queue_tokens.get(&reservation.token_id).map(|row| &row.value);
        let date = state.performance_dates.get(&reservation.performance_date_id);
        let concert = date.and_then(|date| state.concerts.get(&date.concert_id));
        let is_let_in = token.is_some_and(|token| {
            (token.user_id, token.room_id) == (reservation.user_id, reservation.room_id)
                && was_admitted(token)
        });
        !is_let_in || concert.is_none_or(|concert| concert.room_id != reservation.room_id)
    })
}

fn reservations_were_on_sale(state: &State) -> Counted {
    count(state.all_reservations(), |reservation| {
        state.performance_dates.get(&reservation.performance_date_id).is_some_and(|date| {
            let reserved_at = reservation.reserved_at;
            date.on_sale_at.is_some_and(|on_sale_at| reserved_at < on_sale_at)
                || reserved_at >= date.starts_at
        })
    })
}

fn changes_are_numbered(state: &State) -> Counted {
    count(&state.seat_feeds, |(id, version)| {
        let of_date = (**id, FeedVersion::FIRST)..=(**id, FeedVersion::new(i64::MAX));
        let kept = state.seat_changes.range(of_date).map(|((_, version), _)| version.get());
        let last = version.get();
        !kept.eq(last.saturating_sub(KEPT_SEAT_CHANGES).max(1).saturating_add(1)..=last)
    })
}
