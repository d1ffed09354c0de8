//! The invariants of `frontrow audit`, checked on what is stored in memory. Those of counters are missing: here there are
//! none that could drift.

use std::collections::{BTreeMap, BTreeSet};

use frontrow_domain::account::{Account, Entry, EntryKind, Payment};
use frontrow_domain::queue::{QueueToken, QueueTokenState};
use frontrow_domain::reservation::{Reservation, ReservationStatus};
use frontrow_domain::seat::{Seat, SeatState};
use frontrow_domain::{Money, ReservationId, RoomId, SeatId, Versioned};

use super::{State, is_stored_live};
use crate::audit::Finding;

/// How many things were checked, and how many of them break the promise.
type Counted = (i64, i64);

/// A name, the promise, and how it is checked.
type Invariant = (&'static str, &'static str, fn(&State) -> Counted);

/// Every promise, in the order of the report.
const INVARIANTS: [Invariant; 14] = [
    ("seat-reserved-once", "at most one live reservation a seat", seats_are_reserved_once),
    ("seat-status", "a seat's status agrees with its reservation", seats_agree),
    (
        "reservation-owns-seats",
        "a live reservation owns each of its seats, an ended one none",
        reservations_own,
    ),
    ("reservation-total", "a reservation's total is the sum of its seats, all of one date", totals_are_sums),
    ("account-balance", "a balance is the sum of its entries, and never negative", balances_are_sums),
    (
        "entry-numbers",
        "entries are numbered without a gap, each with the balance after it",
        entries_are_numbered,
    ),
    ("payment-agrees", "a payment equals its reservation's total and its entry", payments_agree),
    ("entry-has-payment", "a payment entry has its payment", payment_entries_have_payments),
    ("paid-once", "a paid reservation has one payment, with a ticket for each seat", paid_once_with_tickets),
    ("paid-token", "a paid reservation's queue token is EXPIRED", paid_tokens_are_over),
    ("token-live-once", "at most one live queue token a room and user", one_live_token),
    ("line-order", "nobody waits behind somebody who came later and was admitted", nobody_is_passed),
    ("line-tickets", "tickets of a room are numbered without a gap", tickets_are_numbered),
    (
        "line-departures",
        "whoever left a line without being admitted has a departure, numbered without a gap",
        departures_are_numbered,
    ),
];

impl State {
    /// Checks every invariant. There are no examples: whoever audits this state can look at it.
    #[must_use]
    pub fn audit(&self) -> Vec<Finding> {
        let findings = INVARIANTS.iter().map(|(name, promise, count)| {
            let (checked, breaches) = count(self);
            Finding { name, promise, checked, breaches, examples: Vec::new() }
        });
        findings.collect()
    }

    fn reservation(&self, id: ReservationId) -> Option<&Reservation> {
        self.reservations.get(&id).map(|row| &row.value)
    }

    fn all_reservations(&self) -> impl Iterator<Item = &Reservation> {
        self.reservations.values().map(|row| &row.value)
    }

    fn paid_reservations(&self) -> impl Iterator<Item = &Reservation> {
        self.all_reservations().filter(|reservation| reservation.status == ReservationStatus::Done)
    }

    /// The tokens of each room, by ticket.
    fn lines(&self) -> BTreeMap<RoomId, Vec<&QueueToken>> {
        let mut lines: BTreeMap<_, Vec<&QueueToken>> =
            self.rooms.keys().map(|room_id| (*room_id, Vec::new())).collect();
        for token in self.queue_tokens.values().map(|row| &row.value) {
            lines.entry(token.room_id).or_default().push(token);
        }
        lines.values_mut().for_each(|tokens| tokens.sort_by_key(|token| token.ticket));
        lines
    }
}

fn count<T>(items: impl IntoIterator<Item = T>, is_breach: impl Fn(&T) -> bool) -> Counted {
    items.into_iter().fold((0, 0), |(checked, breaches), item| {
        (checked + 1, if is_breach(&item) { breaches + 1 } else { breaches })
    })
}

const fn is_live(reservation: &Reservation) -> bool {
    matches!(reservation.status, ReservationStatus::Reserved | ReservationStatus::Done)
}

fn has_seat(reservation: &Reservation, id: SeatId) -> bool {
    reservation.seats.iter().any(|seat| seat.seat_id == id)
}

const fn owner(seat: &Seat) -> Option<ReservationId> {
    match seat.state {
        SeatState::Available => None,
        SeatState::Reserved { reservation_id, .. } | SeatState::Unavailable { reservation_id } => {
            Some(reservation_id)
        }
    }
}

fn seats_are_reserved_once(state: &State) -> Counted {
    let mut holders: BTreeMap<SeatId, u32> = state.seats.keys().map(|id| (*id, 0)).collect();
    for id in state.all_reservations().filter(|r| is_live(r)).flat_map(Reservation::seat_ids) {
        let holders = holders.entry(id).or_default();
        *holders = holders.saturating_add(1);
    }
    count(holders.values(), |holders| **holders > 1)
}

fn seats_agree(state: &State) -> Counted {
    count(state.seats.values().map(|row| &row.value), |seat| {
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

fn reservations_own(state: &State) -> Counted {
    let pairs = state.all_reservations().flat_map(|r| r.seats.iter().map(move |seat| (r, seat.seat_id)));
    count(pairs, |(reservation, seat_id)| {
        let owner = state.seats.get(seat_id).and_then(|row| owner(&row.value));
        (owner == Some(reservation.id)) != is_live(reservation)
    })
}

fn totals_are_sums(state: &State) -> Counted {
    count(state.all_reservations(), |reservation| {
        let date_of = |id| state.seats.get(id).map(|row| row.value.performance_date_id);
        let mut seats = reservation.seats.iter();
        reservation.seats.is_empty()
            || Money::total(reservation.seats.iter().map(|seat| seat.price)) != Some(reservation.total_amount)
            || seats.any(|seat| date_of(&seat.seat_id) != Some(reservation.performance_date_id))
    })
}

/// The entries of each account, by number.
fn histories(state: &State) -> Vec<(Option<&Versioned<Account>>, Vec<&Entry>)> {
    let mut by_user: BTreeMap<_, Vec<&Entry>> =
        state.accounts.keys().map(|user_id| (*user_id, Vec::new())).collect();
    for entry in state.entries.values() {
        by_user.entry(entry.user_id).or_default().push(entry);
    }
    let histories = by_user.into_iter().map(|(user_id, mut entries)| {
        entries.sort_by_key(|entry| entry.number);
        (state.accounts.get(&user_id), entries)
    });
    histories.collect()
}

/// What an entry adds to a balance; below zero for what it takes.
const fn signed(entry: &Entry) -> i64 {
    match entry.kind {
        EntryKind::Charge => entry.amount.minor_units(),
        EntryKind::Payment { .. } => entry.amount.minor_units().wrapping_neg(),
    }
}

fn balances_are_sums(state: &State) -> Counted {
    count(histories(state), |(account, entries)| {
        let sum: i64 = entries.iter().map(|entry| signed(entry)).sum();
        let number = i64::try_from(entries.len());
        account.is_none_or(|account| {
            account.value.balance.minor_units() != sum || number != Ok(account.value.entry_count)
        })
    })
}

fn entries_are_numbered(state: &State) -> Counted {
    let histories = histories(state);
    let numbered = histories.iter().flat_map(|(_, entries)| {
        let sums = entries.iter().scan(0_i64, |sum, entry| {
            *sum = sum.saturating_add(signed(entry));
            Some(*sum)
        });
        entries.iter().zip(1..).zip(sums)
    });
    count(numbered, |((entry, number), sum)| {
        entry.number != *number || entry.balance_after.minor_units() != *sum
    })
}

fn payments_agree(state: &State) -> Counted {
    count(state.payments.values(), |payment| {
        let Payment { reservation_id, user_id, entry_id, amount, .. } = **payment;
        let reservation = state.reservation(reservation_id).is_some_and(|r| {
            r.status == ReservationStatus::Done && r.user_id == user_id && r.total_amount == amount
        });
        let entry = state.entries.get(&entry_id).is_some_and(|entry| {
            entry.kind == EntryKind::Payment { reservation_id }
                && entry.user_id == user_id
                && entry.amount == amount
        });
        !(reservation && entry)
    })
}

fn payment_entries_have_payments(state: &State) -> Counted {
    let paid: BTreeSet<_> = state.payments.values().map(|payment| payment.entry_id).collect();
    let entries = state.entries.values().filter(|entry| entry.kind != EntryKind::Charge);
    count(entries, |entry| !paid.contains(&entry.id))
}

fn paid_once_with_tickets(state: &State) -> Counted {
    let mut payments: BTreeMap<ReservationId, Vec<&Payment>> = BTreeMap::new();
    for payment in state.payments.values() {
        payments.entry(payment.reservation_id).or_default().push(payment);
    }
    count(state.paid_reservations(), |reservation| {
        let Some([payment]) = payments.get(&reservation.id).map(Vec::as_slice) else { return true };
        let mut tickets: Vec<_> = payment.tickets.iter().map(|ticket| ticket.seat_id).collect();
        let mut seats = reservation.seat_ids();
        tickets.sort_unstable();
        seats.sort_unstable();
        tickets != seats
    })
}

fn paid_tokens_are_over(state: &State) -> Counted {
    count(state.paid_reservations(), |reservation| {
        let token = state.queue_tokens.get(&reservation.token_id);
        token.is_none_or(|token| is_stored_live(token.value.state))
    })
}

fn one_live_token(state: &State) -> Counted {
    let mut seen = BTreeSet::new();
    let live = state.queue_tokens.values().filter(|row| is_stored_live(row.value.state));
    let first: Vec<bool> = live.map(|row| seen.insert((row.value.room_id, row.value.user_id))).collect();
    count(first, |is_first| !is_first)
}

const fn was_admitted(token: &QueueToken) -> bool {
    match token.state {
        QueueTokenState::Wait => false,
        QueueTokenState::Active { .. } => true,
        QueueTokenState::Expired { activated_at, .. } => activated_at.is_some(),
    }
}

fn nobody_is_passed(state: &State) -> Counted {
    let passed = state.lines().into_values().flat_map(|tokens| {
        let last_admitted = tokens.iter().filter(|token| was_admitted(token)).map(|token| token.ticket).max();
        let waiting = tokens.into_iter().filter(|token| token.state == QueueTokenState::Wait);
        waiting.map(move |token| Some(token.ticket) < last_admitted)
    });
    count(passed, |is_passed| *is_passed)
}

fn tickets_are_numbered(state: &State) -> Counted {
    let lines = state.lines();
    let numbered = lines.values().flat_map(|tokens| tokens.iter().zip(1..));
    count(numbered, |(token, number)| token.ticket.0 != *number)
}

fn departures_are_numbered(state: &State) -> Counted {
    let left =
        |token: &QueueToken| matches!(token.state, QueueTokenState::Expired { activated_at: None, .. });
    let (checked, unnumbered) = count(state.queue_tokens.values().map(|row| &row.value), |token| {
        left(token) != state.departures.contains_key(&token.id)
    });
    let gaps = state.rooms.keys().map(|room_id| {
        let mut numbers: Vec<_> = state.departures_in(*room_id).map(|departure| departure.number).collect();
        numbers.sort_unstable();
        count(numbers.into_iter().zip(1..), |(number, expected)| number != expected).1
    });
    (checked, unnumbered.saturating_add(gaps.sum()))
}

#[cfg(test)]
mod tests;
