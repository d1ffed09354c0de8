//! What a database would refuse whatever the code says. A commit that breaks one of these is undone.

use std::collections::{BTreeMap, BTreeSet};

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

    unique("one_live_token_per_room_and_user", live_tokens.map(|token| (token.room_id, token.user_id)))?;
    unique("one_ticket_number_per_room", tokens().map(|token| (token.room_id, token.ticket)))?;
    unique("one_live_reservation_per_seat", live_reservations.flat_map(|row| row.value.seat_ids()))?;
    unique("one_seat_per_place", places)?;
    unique("one_entry_per_number", state.entries.values().map(|entry| (entry.user_id, entry.number)))?;
    unique("one_payment_per_reservation", payments().map(|payment| payment.reservation_id))?;
    unique("one_payment_per_entry", payments().map(|payment| payment.entry_id))?;
    unique("tickets_pkey", payments().flat_map(|payment| &payment.tickets).map(|ticket| ticket.id))
}

fn check_references(state: &State) -> Result<(), CommitError> {
    for concert in state.concerts.values() {
        exists("concert_room", &state.rooms, &concert.room_id)?;
    }
    for date in state.performance_dates.values() {
        exists("performance_date_concert", &state.concerts, &date.concert_id)?;
    }
    for seat in state.seats.values().map(|row| &row.value) {
        exists("seat_performance_date", &state.performance_dates, &seat.performance_date_id)?;
        if let SeatState::Reserved { reservation_id, .. } | SeatState::Unavailable { reservation_id } =
            &seat.state
        {
            exists("seat_reservation", &state.reservations, reservation_id)?;
        }
    }
    for reservation in state.reservations.values().map(|row| &row.value) {
        exists("reservation_date", &state.performance_dates, &reservation.performance_date_id)?;
        exists("reservation_room", &state.rooms, &reservation.room_id)?;
        exists("reservation_queue_token", &state.queue_tokens, &reservation.token_id)?;
        for seat in &reservation.seats {
            exists("reservation_seat", &state.seats, &seat.seat_id)?;
        }
    }
    for entry in state.entries.values() {
        exists("entry_account", &state.accounts, &entry.user_id)?;
        if let EntryKind::Payment { reservation_id } = &entry.kind {
            exists("entry_reservation", &state.reservations, reservation_id)?;
        }
    }
    for payment in state.payments.values() {
        exists("payment_reservation", &state.reservations, &payment.reservation_id)?;
        exists("payment_entry", &state.entries, &payment.entry_id)?;
        for ticket in &payment.tickets {
            exists("ticket_seat", &state.seats, &ticket.seat_id)?;
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
