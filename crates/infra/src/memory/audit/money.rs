//! Wallets, payments and tickets.

use std::collections::BTreeMap;

use frontrow_domain::account::{Account, Entry, EntryKind, Payment};
use frontrow_domain::reservation::ReservationStatus;
use frontrow_domain::seat::SeatState;
use frontrow_domain::{Money, ReservationId, Versioned};

use super::{Counted, Invariant, State, count, sums, tally};
use crate::memory::is_stored_live;

pub(super) const INVARIANTS: [Invariant; 11] = [
    ("account-balance", "a balance is the sum of its entries, and never negative", balances_are_sums),
    ("money-conserved", "what a user charged is what it has, and what it paid", money_is_conserved),
    (
        "entry-numbers",
        "entries are numbered without a gap, each with the balance after it",
        entries_are_numbered,
    ),
    ("entry-kind", "an entry is a charge above zero, or what a reservation cost", charges_are_above_zero),
    ("payment-agrees", "a payment equals its reservation's total and its entry", payments_agree),
    ("payment-in-time", "nothing was paid once its hold had lapsed", payments_were_in_time),
    ("entry-has-payment", "a payment entry has its payment", payment_entries_have_payments),
    ("paid-once", "a paid reservation has one payment, with a ticket for each seat", paid_once_with_tickets),
    ("ticket-seat", "a ticket is the only one of its seat, which its reservation bought", tickets_have_seats),
    ("paid-token", "a paid reservation's queue token is EXPIRED", paid_tokens_are_over),
    ("date-sales", "a date's sold seats are worth what was paid for them", sales_are_paid),
];

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

fn money_is_conserved(state: &State) -> Counted {
    let charges = state.entries.values().filter(|entry| entry.kind == EntryKind::Charge);
    let charged = sums(charges.map(|entry| (entry.user_id, entry.amount)));
    let paid = sums(state.payments.values().map(|payment| (payment.user_id, payment.amount)));
    count(&state.accounts, |(user_id, account)| {
        let sum = |sums: &BTreeMap<_, i64>| sums.get(*user_id).copied().unwrap_or(0);
        sum(&charged) != account.value.balance.minor_units().saturating_add(sum(&paid))
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

/// What is no charge names its reservation, or it could not be here.
fn charges_are_above_zero(state: &State) -> Counted {
    count(state.entries.values(), |entry| entry.kind == EntryKind::Charge && entry.amount == Money::ZERO)
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

fn payments_were_in_time(state: &State) -> Counted {
    count(state.payments.values(), |payment| {
        let reservation = state.reservation(payment.reservation_id);
        reservation.is_some_and(|reservation| payment.paid_at >= reservation.hold_expires_at)
    })
}

fn payment_entries_have_payments(state: &State) -> Counted {
    let payments = tally(state.payments.values().map(|payment| payment.entry_id));
    let entries = state.entries.values().filter(|entry| entry.kind != EntryKind::Charge);
    count(entries, |entry| payments.get(&entry.id) != Some(&1))
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

fn tickets_have_seats(state: &State) -> Counted {
    let tickets = || state.payments.values().flat_map(|p| p.tickets.iter().map(move |t| (p, t.seat_id)));
    let of_seat = tally(tickets().map(|(_, seat_id)| seat_id));
    count(tickets(), |(payment, seat_id)| {
        let sold = SeatState::Unavailable { reservation_id: payment.reservation_id };
        let seat = state.seats.get(seat_id);
        seat.is_none_or(|row| row.value.state != sold) || of_seat.get(seat_id) != Some(&1)
    })
}

fn paid_tokens_are_over(state: &State) -> Counted {
    count(state.paid_reservations(), |reservation| {
        let token = state.queue_tokens.get(&reservation.token_id);
        token.is_none_or(|token| is_stored_live(token.value.state))
    })
}

fn sales_are_paid(state: &State) -> Counted {
    let seats = state.seats.values().map(|row| &row.value);
    let sold = seats.filter(|seat| matches!(seat.state, SeatState::Unavailable { .. }));
    let worth = sums(sold.map(|seat| (seat.performance_date_id, seat.place.price)));
    let paid = sums(state.payments.values().filter_map(|payment| {
        let reservation = state.reservation(payment.reservation_id)?;
        Some((reservation.performance_date_id, payment.amount))
    }));
    let sum = |sums: &BTreeMap<_, i64>, id| sums.get(id).copied().unwrap_or(0);
    count(state.performance_dates.keys(), |id| sum(&worth, id) != sum(&paid, id))
}
