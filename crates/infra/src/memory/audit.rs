//! The invariants of `frontrow audit`, checked on what is stored in memory.
//!
//! Missing are those of counters that are counted here, so that they cannot drift: `date-seats`, `date-available`, `line-waiting`,
//! `line-admitted` and `line-behind`. What the last two say of tokens follows from `line-order` and `line-departures`.

mod lines;
mod money;
mod records;
mod seats;

use std::collections::BTreeMap;

use frontrow_domain::reservation::{Reservation, ReservationStatus};
use frontrow_domain::{Money, ReservationId};

use super::State;
use crate::audit::Finding;

/// How many things were checked, and how many of them break the promise.
type Counted = (i64, i64);

/// A name, the promise, and how it is checked.
type Invariant = (&'static str, &'static str, fn(&State) -> Counted);

/// Every promise, in the order of the report.
fn invariants() -> impl Iterator<Item = &'static Invariant> {
    let topics: [&[Invariant]; 4] =
        [&seats::INVARIANTS, &money::INVARIANTS, &lines::INVARIANTS, &records::INVARIANTS];
    topics.into_iter().flatten()
}

impl State {
    /// Checks every invariant. There are no examples: whoever audits this state can look at it.
    #[must_use]
    pub fn audit(&self) -> Vec<Finding> {
        let findings = invariants().map(|(name, promise, count)| {
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
}

fn count<T>(items: impl IntoIterator<Item = T>, is_breach: impl Fn(&T) -> bool) -> Counted {
    items.into_iter().fold((0, 0), |(checked, breaches), item| {
        (checked + 1, if is_breach(&item) { breaches + 1 } else { breaches })
    })
}

/// How often each comes.
fn tally<K: Ord>(items: impl IntoIterator<Item = K>) -> BTreeMap<K, u32> {
    let mut tally = BTreeMap::new();
    for item in items {
        let times: &mut u32 = tally.entry(item).or_default();
        *times = times.saturating_add(1);
    }
    tally
}

/// The sum for each.
fn sums<K: Ord>(amounts: impl IntoIterator<Item = (K, Money)>) -> BTreeMap<K, i64> {
    let mut sums = BTreeMap::new();
    for (key, amount) in amounts {
        let sum: &mut i64 = sums.entry(key).or_default();
        *sum = sum.saturating_add(amount.minor_units());
    }
    sums
}

#[cfg(test)]
mod tests;
