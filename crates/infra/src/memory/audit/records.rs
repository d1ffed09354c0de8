//! What refers to something else: answers that are kept, what operators did, foreign keys.

use std::collections::BTreeMap;

use frontrow_domain::account::{Entry, EntryKind};
use frontrow_domain::audit_log::OperatorAction;
use frontrow_domain::reservation::Reservation;
use frontrow_domain::{EntryId, PaymentId, ReservationId, UserId};
use uuid::Uuid;

use super::seats::owner;
use super::{Counted, Invariant, State, count};

pub(super) const INVARIANTS: [Invariant; 3] = [
    ("answer-effect", "what is answered again was done", answers_were_done),
    ("operator-target", "what an operator did was done to something that there is", targets_are_there),
    ("reference", "whatever is referred to is there", references_are_there),
];

/// How an answer names what was done, and whether that is there and the asker's.
type Effect = (&'static str, fn(&State, Uuid, UserId) -> bool);

const EFFECTS: [Effect; 3] = [
    ("\"paymentId\":\"", |state, id, user_id| {
        state.payments.get(&PaymentId::new(id)).is_some_and(|payment| payment.user_id == user_id)
    }),
    // Whoever charges may be another than the owner of the wallet.
    ("\"entryId\":\"", |state, id, _| state.entries.contains_key(&EntryId::new(id))),
    ("\"reservationId\":\"", |state, id, user_id| {
        state.reservation(ReservationId::new(id)).is_some_and(|reservation| reservation.user_id == user_id)
    }),
];

/// The 36 characters that follow the beginning of a field.
fn id_in_answer<'a>(answer: &'a str, begin: &str) -> Option<&'a str> {
    let (_, rest) = answer.split_once(begin)?;
    Some(rest.get(..36).unwrap_or(rest))
}

fn answers_were_done(state: &State) -> Counted {
    count(state.idempotency_records.values(), |record| {
        let answer = String::from_utf8_lossy(&record.answer.body);
        let mut effects = EFFECTS.iter();
        !(200..300).contains(&record.answer.status)
            || effects.any(|(begin, is_done)| {
                id_in_answer(&answer, begin).is_some_and(|id| {
                    let id = Uuid::parse_str(id);
                    !id.is_ok_and(|id| is_done(state, id, record.request.user_id))
                })
            })
    })
}

fn targets_are_there(state: &State) -> Counted {
    count(state.audit_log.values(), |entry| !match entry.action {
        OperatorAction::CreateConcert(id) => state.concerts.contains_key(&id),
        OperatorAction::CreatePerformanceDate(id) => state.performance_dates.contains_key(&id),
        OperatorAction::ChangeRoom(id) | OperatorAction::AdmitWaiters(id) => state.rooms.contains_key(&id),
    })
}

fn references_are_there(state: &State) -> Counted {
    let dates = &state.performance_dates;
    let (reservations, payments) = (|| state.all_reservations(), || state.payments.values());
    let references = [
        dangling(state.pruned_tokens.keys().copied(), &state.rooms),
        dangling(state.concerts.values().map(|concert| concert.room_id), &state.rooms),
        dangling(dates.values().map(|date| date.concert_id), &state.concerts),
        dangling(state.queue_tokens.values().map(|row| row.value.room_id), &state.rooms),
        dangling(state.departures.keys().copied(), &state.queue_tokens),
        dangling(state.last_seen.keys().copied(), &state.queue_tokens),
        dangling(reservations().map(|reservation| reservation.performance_date_id), dates),
        dangling(reservations().map(|reservation| reservation.room_id), &state.rooms),
        dangling(reservations().map(|reservation| reservation.token_id), &state.queue_tokens),
        dangling(reservations().flat_map(Reservation::seat_ids), &state.seats),
        dangling(state.seats.values().map(|row| row.value.performance_date_id), dates),
        dangling(state.seats.values().filter_map(|row| owner(&row.value)), &state.reservations),
        dangling(state.seat_feeds.keys().copied(), dates),
        dangling(state.seat_changes.keys().map(|(id, _)| *id), dates),
        dangling(state.entries.values().map(|entry| entry.user_id), &state.accounts),
        dangling(state.entries.values().filter_map(paid_reservation), &state.reservations),
        dangling(payments().map(|payment| payment.reservation_id), &state.reservations),
        dangling(payments().map(|payment| payment.user_id), &state.accounts),
        dangling(payments().map(|payment| payment.entry_id), &state.entries),
        dangling(payments().flat_map(|p| p.tickets.iter().map(|ticket| ticket.seat_id)), &state.seats),
    ];
    references
        .iter()
        .fold((0, 0), |(checked, breaches), (of_it, dangling)| (checked + of_it, breaches + dangling))
}

/// How many name something, and how many of those something that is not there.
fn dangling<K: Ord, T>(names: impl Iterator<Item = K>, there: &BTreeMap<K, T>) -> Counted {
    count(names, |name| !there.contains_key(name))
}

const fn paid_reservation(entry: &Entry) -> Option<ReservationId> {
    match entry.kind {
        EntryKind::Charge => None,
        EntryKind::Payment { reservation_id } => Some(reservation_id),
    }
}
