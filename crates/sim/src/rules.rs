//! What must hold of every unit that is written, by the states before and after it. The audit's invariants come on top.

use std::collections::BTreeSet;

use frontrow_domain::Timestamp;
use frontrow_domain::queue::{QueueToken, QueueTokenState, QueueTokenStatus, RoomMode};
use frontrow_domain::reservation::{Reservation, ReservationStatus};
use frontrow_domain::unit_of_work::{Command, CommandOutcome, Committed, Join};
use frontrow_domain::{Change, UnitOfWork};
use frontrow_infra::MemoryState as State;

/// A unit that was written.
pub(crate) struct Written<'a> {
    pub(crate) before: &'a State,
    pub(crate) after: &'a State,
    pub(crate) work: &'a UnitOfWork,
    pub(crate) committed: &'a Committed,
    /// The time by the clock of the node that decided it; that was not later.
    pub(crate) now: Timestamp,
    /// Whether somebody asked for it, or the node did it by itself.
    pub(crate) is_asked_for: bool,
    /// The most live seats of a user on a date.
    pub(crate) max_seats: usize,
}

/// A promise, and whether a step breaks it.
type Rule<'a> = (&'static str, fn(&Written<'a>) -> bool);

impl<'a> Written<'a> {
    /// The promises that it breaks.
    pub(crate) fn breaches(&self) -> Vec<String> {
        let findings = self.after.audit().into_iter().filter(|finding| finding.breaches > 0);
        let mut breaches: Vec<String> =
            findings.map(|finding| format!("audit: {}", finding.promise)).collect();
        let rules: [Rule<'a>; 16] = [
            ("a token, reservation, entry or payment is gone", Self::loses_something),
            ("a token changed otherwise than WAIT, ACTIVE, EXPIRED", Self::turns_a_token_back),
            ("a token was expired before its time", Self::ends_a_token_early),
            ("a place was given up that nobody asked to give up", Self::drops_a_waiter),
            ("people were admitted out of order", Self::admits_out_of_order),
            ("more are ACTIVE than maxActive", Self::admits_too_many),
            ("people were admitted while the room admits nobody", Self::admits_against_the_mode),
            ("a tick was taken before its time, or for too many", Self::ticks_wrongly),
            ("a tick admitted before the opening", Self::ticks_before_the_opening),
            ("seats were held while the sale was paused", Self::holds_while_paused),
            ("somebody entered whom the room refuses", Self::lets_in_whom_it_refuses),
            ("somebody entered otherwise than at the tail", Self::enters_before_others),
            ("somebody entered who had a place", Self::takes_two_places),
            (
                "a reservation changed otherwise than RESERVED to DONE, EXPIRED or CANCELLED",
                Self::turns_a_reservation_back,
            ),
            ("a hold was expired early, or paid late", Self::ends_a_hold_wrongly),
            ("somebody holds more seats than allowed", Self::holds_too_many),
        ];
        breaches.extend(rules.iter().filter(|(_, breaks)| breaks(self)).map(|(rule, _)| (*rule).to_owned()));
        if self.lacks_its_record() {
            breaches.push("an effect was written without its idempotency record".to_owned());
        }
        breaches
    }

    /// The tokens that are otherwise than before.
    fn changed_tokens(&self) -> impl Iterator<Item = (&QueueToken, &QueueToken)> {
        let before = |id| self.before.queue_tokens.get(id);
        let pairs = self.after.queue_tokens.iter().filter_map(move |(id, row)| Some((before(id)?, row)));
        pairs.filter(|(before, after)| before != after).map(|(before, after)| (&before.value, &after.value))
    }

    fn changed_reservations(&self) -> impl Iterator<Item = (&Reservation, &Reservation)> {
        let before = |id| self.before.reservations.get(id);
        let pairs = self.after.reservations.iter().filter_map(move |(id, row)| Some((before(id)?, row)));
        pairs.filter(|(before, after)| before != after).map(|(before, after)| (&before.value, &after.value))
    }

    fn new_reservations(&self) -> impl Iterator<Item = &Reservation> {
        let inserted = self.work.reservations.iter().filter(|change| matches!(change, Change::Insert(_)));
        inserted.map(Change::value)
    }

    /// The people whom it admitted from the line.
    fn admitted(&self) -> impl Iterator<Item = &QueueToken> {
        let admitted = self.changed_tokens().filter(|(before, after)| {
            before.state == QueueTokenState::Wait && matches!(after.state, QueueTokenState::Active { .. })
        });
        admitted.map(|(_, after)| after)
    }

    fn loses_something(&self) -> bool {
        let (before, after) = (self.before, self.after);
        before.queue_tokens.keys().any(|id| !after.queue_tokens.contains_key(id))
            || before.reservations.keys().any(|id| !after.reservations.contains_key(id))
            || before.entries.iter().any(|(id, entry)| after.entries.get(id) != Some(entry))
            || before.payments.iter().any(|(id, payment)| after.payments.get(id) != Some(payment))
            || before.idempotency_records.keys().any(|key| !after.idempotency_records.contains_key(key))
    }

    fn turns_a_token_back(&self) -> bool {
        self.changed_tokens().any(|(before, after)| {
            let is_same = (before.room_id, before.user_id, before.ticket, before.entered_at)
                == (after.room_id, after.user_id, after.ticket, after.entered_at);
            let goes_on = before.state == after.state
                || match after.state {
                    QueueTokenState::Wait => false,
                    QueueTokenState::Active { .. } => {
                        before.state == QueueTokenState::Wait || self.is_a_pause_of(before, after)
                    }
                    QueueTokenState::Expired { .. } => {
                        !matches!(before.state, QueueTokenState::Expired { .. })
                    }
                };
            !(is_same && goes_on)
        })
    }

    /// Whether the step between these states of a token is what the unit's pause, or its end, makes of it.
    fn is_a_pause_of(&self, before: &QueueToken, after: &QueueToken) -> bool {
        let Some(Command::PauseTokens(pause)) = self.work.command else { return false };
        let expected = if pause.begins { before.paused(pause.now) } else { before.resumed(pause.now) };
        pause.room_id == before.room_id && expected == Some(*after)
    }

    fn is_named(&self, token: &QueueToken) -> bool {
        self.work.queue_tokens.iter().any(|named| named.value.id == token.id)
    }

    fn ends_a_token_early(&self) -> bool {
        self.changed_tokens().any(|(before, after)| match (before.state, after.state) {
            (QueueTokenState::Active { expires_at, paused_at, .. }, QueueTokenState::Expired { .. }) => {
                !self.is_named(after) && (self.now < expires_at || paused_at.is_some())
            }
            _ => false,
        })
    }

    fn drops_a_waiter(&self) -> bool {
        let gives_up = matches!(self.work.command, Some(Command::GiveUpAbandoned(_)));
        self.changed_tokens().any(|(before, after)| {
            before.state == QueueTokenState::Wait
                && matches!(after.state, QueueTokenState::Expired { .. })
                && !self.is_named(after)
                && !gives_up
        })
    }

    /// Those who are admitted came before everybody else who waits.
    fn admits_out_of_order(&self) -> bool {
        let admitted: BTreeSet<_> = self.admitted().map(|token| token.id).collect();
        self.admitted().any(|token| {
            let rows = self.before.queue_tokens.values().map(|row| &row.value);
            let mut waiting = rows.filter(|other| other.state == QueueTokenState::Wait);
            waiting.any(|other| {
                other.room_id == token.room_id && other.ticket < token.ticket && !admitted.contains(&other.id)
            })
        })
    }

    fn admits_too_many(&self) -> bool {
        let Some(Command::Admit(admit)) = &self.work.command else { return false };
        let rows = self.after.queue_tokens.values().map(|row| &row.value);
        let in_room = rows.filter(|token| token.room_id == admit.room_id);
        let active = in_room.filter(|token| token.status_at(admit.now) == QueueTokenStatus::Active).count();
        let active = u32::try_from(active).unwrap_or(u32::MAX);
        self.admitted().next().is_some() && admit.max_active.is_some_and(|max| active > max)
    }

    /// By the state before: a hold that was decided before the pause conflicts with it.
    fn holds_while_paused(&self) -> bool {
        let paused = |new: &Reservation| {
            let room = self.before.rooms.get(&new.room_id);
            room.is_some_and(|room| room.value.policy.mode == RoomMode::Paused)
        };
        self.new_reservations().any(paused)
    }

    fn ticks_before_the_opening(&self) -> bool {
        self.work.rooms.iter().any(|change| {
            let before = self.before.rooms.get(&change.value().id).map(|row| row.value);
            before.is_some_and(|before| {
                before.policy == change.value().policy && before.opens_after(self.now).is_some()
            }) && self.admitted().next().is_some()
        })
    }

    /// Operators admit in any mode but PAUSED.
    fn admits_against_the_mode(&self) -> bool {
        let Some(Command::Admit(admit)) = &self.work.command else { return false };
        let mode = self.before.rooms.get(&admit.room_id).map(|room| room.value.policy.mode);
        let admits = matches!(mode, Some(RoomMode::Auto | RoomMode::Open));
        let may_admit = admits || (self.is_asked_for && mode != Some(RoomMode::Paused));
        !may_admit && self.admitted().next().is_some()
    }

    fn ticks_wrongly(&self) -> bool {
        self.work.rooms.iter().any(|change| {
            let (Change::Update(_), room) = (change, change.value()) else { return false };
            let Some(before) = self.before.rooms.get(&room.id).map(|row| row.value) else { return true };
            let is_tick = room.last_tick_at > before.last_tick_at && room.policy == before.policy;
            let admitted = u32::try_from(self.admitted().count()).unwrap_or(u32::MAX);
            is_tick && (self.now < before.next_tick_at || admitted > before.policy.admit_batch)
        })
    }

    fn lets_in_whom_it_refuses(&self) -> bool {
        let Some(Command::Join(Join { room_id, now, .. })) = self.work.command else { return false };
        let Some(CommandOutcome::Joined(joined)) = self.committed.outcome else { return false };
        let Some(room) = self.before.rooms.get(&room_id) else { return true };
        let before: Vec<_> = self.before.queue_tokens.values().map(|row| row.value).collect();
        let with = |status| {
            let those =
                before.iter().filter(|token| token.room_id == room_id && token.status_at(now) == status);
            u64::try_from(those.count()).unwrap_or(u64::MAX)
        };
        let (waiting, policy) = (with(QueueTokenStatus::Wait), room.value.policy);
        let went_through = joined.state != QueueTokenState::Wait;
        let may_go_through = policy.mode == RoomMode::Open
            && waiting == 0
            && policy.max_active.is_none_or(|max| with(QueueTokenStatus::Active) < u64::from(max));
        let is_full = policy.max_waiting.is_some_and(|max| waiting >= u64::from(max));
        policy.mode == RoomMode::Closed || (went_through && !may_go_through) || (!went_through && is_full)
    }

    fn joined(&self) -> Option<&QueueToken> {
        if let Some(CommandOutcome::Joined(joined)) = &self.committed.outcome { Some(joined) } else { None }
    }

    /// First come, first served, in the order of the commits.
    fn enters_before_others(&self) -> bool {
        let before = self.before.queue_tokens.values().map(|row| &row.value);
        self.joined().is_some_and(|joined| {
            before.into_iter().any(|other| other.room_id == joined.room_id && other.ticket >= joined.ticket)
        })
    }

    /// By the time of the join: whose place was over by then had none.
    fn takes_two_places(&self) -> bool {
        let Some(Command::Join(Join { now, .. })) = self.work.command else { return false };
        let mut before = self.before.queue_tokens.values().map(|row| &row.value);
        self.joined().is_some_and(|joined| {
            before.any(|other| {
                (other.room_id, other.user_id) == (joined.room_id, joined.user_id)
                    && other.status_at(now) != QueueTokenStatus::Expired
            })
        })
    }

    fn turns_a_reservation_back(&self) -> bool {
        self.changed_reservations().any(|(before, after)| {
            let same = Reservation { status: before.status, ..after.clone() };
            same != *before || before.status != ReservationStatus::Reserved
        })
    }

    fn ends_a_hold_wrongly(&self) -> bool {
        let paid_late = self.work.payments.iter().any(|payment| {
            let reservation = self.after.reservations.get(&payment.reservation_id);
            reservation.is_none_or(|row| payment.paid_at >= row.value.hold_expires_at)
        });
        let mut changed = self.changed_reservations();
        paid_late
            || changed.any(|(_, after)| {
                after.status == ReservationStatus::Expired && self.now < after.hold_expires_at
            })
    }

    /// As it is stored, whatever the time: a hold that is lapsed by one clock may be paid by another.
    fn holds_too_many(&self) -> bool {
        self.new_reservations().any(|new| {
            let rows = self.after.reservations.values().map(|row| &row.value);
            let own = rows.filter(|other| {
                (other.user_id, other.performance_date_id) == (new.user_id, new.performance_date_id)
            });
            let live = own.filter(|other| {
                matches!(other.status, ReservationStatus::Reserved | ReservationStatus::Done)
            });
            live.map(|reservation| reservation.seats.len()).sum::<usize>() > self.max_seats
        })
    }

    fn lacks_its_record(&self) -> bool {
        self.work.idempotency.as_ref().is_some_and(|record| {
            let key = (record.request.user_id, record.request.key.clone());
            self.after.idempotency_records.get(&key) != Some(record)
        })
    }
}

#[cfg(test)]
mod tests;
