//! What the databases refuse whatever the code says, under the same names. A commit that breaks one of these is undone.

use std::collections::{BTreeMap, BTreeSet};

use frontrow_domain::RoomId;
use frontrow_domain::account::EntryKind;
use frontrow_domain::reservation::ReservationStatus;
use frontrow_domain::seat::SeatState;
use frontrow_domain::unit_of_work::CommitError;

use super::{State, is_stored_live};

pub(super) fn check(state: &State) -> Result<(), CommitError> {
    check_unique(state)?;
    check_references(state)
}

fn check_unique(state: &State) -> Result<(), CommitError> {
    let tokens = || state.queue_tokens.values().map(|row| row.value);
    let live_tokens = tokens().filter(|token| is_stored_live(token.state));
    let live_reservations = state
        .reservations
        .values()
        .filter(|row| matches!(row.value.status, ReservationStatus::Reserved | ReservationStatus::Done));
    let places = state.seats.values().map(|row| {
        let place = &row.value.place;
        (row.value.performance_date_id, &place.section, place.row, place.number)
    });
    let payments = || state.payments.values();
    let tickets = || payments().flat_map(|payment| &payment.tickets);

    unique("queue_tokens_one_live", live_tokens.map(|token| (token.room_id, token.user_id)))?;
    unique("queue_tokens_ticket", tokens().map(|token| (token.room_id, token.ticket)))?;
    unique("queue_tokens_departure", departures(state))?;
    unique("reservation_seats_one_live", live_reservations.flat_map(|row| row.value.seat_ids()))?;
    unique("seats_place", places)?;
    unique("entries_number", state.entries.values().map(|entry| (entry.user_id, entry.number)))?;
    unique("payments_reservation", payments().map(|payment| payment.reservation_id))?;
    unique("payments_entry", payments().map(|payment| payment.entry_id))?;
    unique("tickets_pkey", tickets().map(|ticket| ticket.id))?;
    unique("tickets_seat", tickets().map(|ticket| ticket.seat_id))
}

fn departures(state: &State) -> impl Iterator<Item = (RoomId, i64)> {
    let rooms = state.rooms.keys().copied();
    rooms.flat_map(|room_id| state.departures_in(room_id).map(move |departure| (room_id, departure.number)))
}

fn check_references(state: &State) -> Result<(), CommitError> {
    for concert in state.concerts.values() {
        exists("concerts_room_id_fkey", &state.rooms, &concert.room_id)?;
    }
    for date in state.performance_dates.values() {
        exists("performance_dates_concert_id_fkey", &state.concerts, &date.concert_id)?;
    }
    for seat in state.seats.values().map(|row| &row.value) {
        exists("seats_performance_date_id_fkey", &state.performance_dates, &seat.performance_date_id)?;
        if let SeatState::Reserved { reservation_id, .. } | SeatState::Unavailable { reservation_id } =
            &seat.state
        {
            exists("seats_reservation_id_fkey", &state.reservations, reservation_id)?;
        }
    }
    for reservation in state.reservations.values().map(|row| &row.value) {
        exists(
            "reservations_performance_date_id_fkey",
            &state.performance_dates,
            &reservation.performance_date_id,
        )?;
        exists("reservations_room_id_fkey", &state.rooms, &reservation.room_id)?;
        exists("reservations_token_id_fkey", &state.queue_tokens, &reservation.token_id)?;
        for seat in &reservation.seats {
            exists("reservation_seats_seat_id_fkey", &state.seats, &seat.seat_id)?;
        }
    }
    for entry in state.entries.values() {
        exists("entries_user_id_fkey", &state.accounts, &entry.user_id)?;
        if let EntryKind::Payment { reservation_id } = &entry.kind {
            exists("entries_reservation_id_fkey", &state.reservations, reservation_id)?;
        }
    }
    for payment in state.payments.values() {
        exists("payments_reservation_id_fkey", &state.reservations, &payment.reservation_id)?;
        exists("payments_user_id_fkey", &state.accounts, &payment.user_id)?;
        exists("payments_entry_id_fkey", &state.entries, &payment.entry_id)?;
        for ticket in &payment.tickets {
            exists("tickets_seat_id_fkey", &state.seats, &ticket.seat_id)?;
        }
    }
    Ok(())
}

fn unique<K: Ord>(constraint: &str, mut keys: impl Iterator<Item = K>) -> Result<(), CommitError> {
    let mut seen = BTreeSet::new();
    if keys.all(|key| seen.insert(key)) { Ok(()) } else { Err(broken(constraint)) }
}

fn exists<K: Ord, T>(constraint: &str, table: &BTreeMap<K, T>, key: &K) -> Result<(), CommitError> {
    if table.contains_key(key) { Ok(()) } else { Err(broken(constraint)) }
}

pub(super) fn broken(constraint: &str) -> CommitError {
    CommitError::Backstop { constraint: constraint.to_owned() }
}
