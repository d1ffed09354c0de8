//! Accounts, payment, and answers that are given again. A balance follows from the entries alone.

use crate::sale::End;
use crate::{
    Answer, EntryKind, EntrySeen, Key, MAX_CHARGE, Model, Name, Receipt, Refusal, ReservationStatus, SECOND,
    Time,
};

/// How long an answer is given again.
const REPLAYED_FOR: Time = 24 * 60 * 60 * SECOND;
/// Opening entries are called from here on.
const OPENING: Name = 1_000_000;

/// What was asked under a key, what it was answered, and from when on the key is free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    request: Request,
    answer: Answer,
    pub(crate) until: Time,
}

/// What tells two requests apart: method, path and body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    Reserve { date: usize, seats: Vec<usize> },
    Charge { amount: i64 },
    Pay { reservation: Name },
}

/// The history that accounts begin with.
pub(crate) fn opened(balances: &[i64]) -> Vec<Vec<EntrySeen>> {
    let opening = |(balance, entry): (&i64, Name)| {
        let (kind, amount) = (EntryKind::Charge, *balance);
        let entry = EntrySeen { entry, number: 1, kind, amount, balance_after: amount, at: 0 };
        if amount == 0 { Vec::new() } else { vec![entry] }
    };
    balances.iter().zip(OPENING..).map(opening).collect()
}

impl Model {
    /// Gives the answer again that the key has, or acts and keeps what is answered. A refusal leaves the key free.
    pub(crate) fn keyed(
        &mut self,
        user: usize,
        key: Option<Key>,
        request: Request,
        act: impl FnOnce(&mut Self) -> Result<Answer, Refusal>,
    ) -> Result<Answer, Refusal> {
        let Some(key) = key else { return act(self) };
        if let Some(kept) = self.kept.get(&(user, key)).filter(|kept| self.now < kept.until) {
            let is_same = kept.request == request;
            return if is_same {
                Ok(Answer::Replayed(Box::new(kept.answer.clone())))
            } else {
                Err(Refusal::IdempotencyKeyReused)
            };
        }
        let answer = act(self)?;
        let kept = Kept { request, answer: answer.clone(), until: self.now + REPLAYED_FOR };
        self.kept.insert((user, key), kept);
        Ok(answer)
    }

    pub(crate) fn charge(
        &mut self,
        call: Name,
        user: usize,
        amount: i64,
        key: Option<Key>,
    ) -> Result<Answer, Refusal> {
        self.keyed(user, key, Request::Charge { amount }, |model| {
            if !(1..=MAX_CHARGE).contains(&amount) {
                return Err(Refusal::InvalidAmount);
            }
            let balance = model.balance(user).checked_add(amount).ok_or(Refusal::InvalidAmount)?;
            Ok(Answer::Charged(model.enter_in_history(call, user, EntryKind::Charge, amount, balance)))
        })
    }

    pub(crate) fn pay(
        &mut self,
        call: Name,
        user: usize,
        reservation: Name,
        key: Option<Key>,
    ) -> Result<Answer, Refusal> {
        self.keyed(user, key, Request::Pay { reservation }, |model| model.pay_once(call, user, reservation))
    }

    fn pay_once(&mut self, call: Name, user: usize, name: Name) -> Result<Answer, Refusal> {
        let reservation = self.own_reservation(user, name)?.clone();
        match reservation.status(self.now) {
            ReservationStatus::Reserved => {}
            ReservationStatus::Done => return Err(Refusal::AlreadyPaid),
            ReservationStatus::Expired => return Err(Refusal::ReservationExpired),
            ReservationStatus::Cancelled => return Err(Refusal::ReservationCancelled),
        }
        let (required, balance) = (reservation.total, self.balance(user));
        if balance < required {
            return Err(Refusal::InsufficientBalance { required, balance });
        }
        let room = self.dates.get(reservation.date).and_then(|date| self.concerts.get(date.concert)).copied();
        self.end_live_token(user, room.ok_or(Refusal::ConcertNotFound)?);
        self.end_reservation(name, End::Paid { payment: call, at: self.now });
        let balance = balance - required;
        self.enter_in_history(call, user, EntryKind::Payment(name), required, balance);
        let mut tickets = reservation.seats;
        tickets.sort_unstable();
        let paid_at = self.now;
        Ok(Answer::Paid(Receipt {
            payment: call,
            reservation: name,
            amount: required,
            balance,
            paid_at,
            tickets,
        }))
    }

    pub(crate) fn balance(&self, user: usize) -> i64 {
        let signed = |entry: &EntrySeen| match entry.kind {
            EntryKind::Charge => entry.amount,
            EntryKind::Payment(_) => -entry.amount,
        };
        self.history(user).iter().map(signed).sum()
    }

    pub(crate) fn list_entries(&self, user: usize, before: Option<i64>, limit: u32) -> Answer {
        let newest_first = self.history(user).iter().rev().copied();
        let earlier = newest_first.filter(|entry| before.is_none_or(|before| entry.number < before));
        Answer::Entries(earlier.zip(0..limit).map(|(entry, _)| entry).collect())
    }

    pub(crate) fn history(&self, user: usize) -> &[EntrySeen] {
        self.entries.get(user).map_or(&[], Vec::as_slice)
    }

    fn enter_in_history(
        &mut self,
        entry: Name,
        user: usize,
        kind: EntryKind,
        amount: i64,
        balance_after: i64,
    ) -> EntrySeen {
        let number = i64::try_from(self.history(user).len()).unwrap_or(i64::MAX) + 1;
        let entry = EntrySeen { entry, number, kind, amount, balance_after, at: self.now };
        if let Some(history) = self.entries.get_mut(user) {
            history.push(entry);
        }
        entry
    }
}
