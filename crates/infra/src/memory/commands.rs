//! The commands of a unit of work.

use std::collections::BTreeMap;

use frontrow_domain::queue::{Entrance, QueueToken, QueueTokenError, QueueTokenState, TicketNumber};
use frontrow_domain::reservation::ReservationStatus;
use frontrow_domain::unit_of_work::{
    Admit, AggregateRef, Command, CommandOutcome, CommitError, Fill, GiveUpAbandoned, Join, PauseTokens,
    PruneTokens, TokensPruned,
};
use frontrow_domain::{QueueTokenId, RoomId, Timestamp, Version, Versioned};

use super::{State, at_most, constraints};

impl State {
    pub(super) fn execute(&mut self, command: &Command) -> Result<CommandOutcome, CommitError> {
        match *command {
            Command::Join(join) => self.join(join),
            Command::Admit(admit) => self.admit(admit).map(CommandOutcome::Admitted),
            Command::PauseTokens(pause) => self.pause_tokens(pause).map(CommandOutcome::TokensPaused),
            Command::ExpireTokens { now, limit } => {
                Ok(CommandOutcome::TokensExpired(self.expire_tokens(now, limit)))
            }
            Command::ExpireHolds { now, limit } => {
                Ok(CommandOutcome::HoldsExpired(self.expire_holds(now, limit)))
            }
            Command::NotePolls { ref tokens, now } => {
                Ok(CommandOutcome::PollsNoted(self.note_polls(tokens, now)))
            }
            Command::Fill(ref fill) => self.fill(fill),
            Command::GiveUpAbandoned(sweep) => self.give_up_abandoned(sweep).map(CommandOutcome::GivenUp),
            Command::PruneTokens(prune) => Ok(CommandOutcome::TokensPruned(self.prune_tokens(prune))),
            Command::PruneAnswers { now, limit } => {
                Ok(CommandOutcome::AnswersPruned(self.prune_answers(now, limit)))
            }
        }
    }

    fn join(&mut self, join: Join) -> Result<CommandOutcome, CommitError> {
        let Join { token_id, room_id, user_id, now } = join;
        let policy = self.rooms.get(&room_id).ok_or_else(|| absent(room_id))?.value.policy;
        if let Some(live) = self.live_token(room_id, user_id) {
            if live.value.is_live(now) {
                return Ok(CommandOutcome::AlreadyJoined(live.value));
            }
            self.step_token(live.value.id, |token| token.expire(now));
        }
        let entrance = policy.entrance(self.waiting(room_id), self.active(room_id, now));
        let state = match entrance.map_err(CommitError::Refused)? {
            Entrance::Wait => QueueTokenState::Wait,
            Entrance::Active => QueueTokenState::Active {
                activated_at: now,
                expires_at: now.plus_seconds(policy.active_ttl_seconds),
                paused_at: None,
            },
        };
        let ticket = TicketNumber(self.last_ticket(room_id).0.saturating_add(1));
        let token = QueueToken { id: token_id, room_id, user_id, ticket, entered_at: now, state };
        match self.queue_tokens.insert(token_id, Versioned::new(token, Version::FIRST)) {
            None => Ok(CommandOutcome::Joined(token)),
            Some(_) => Err(constraints::broken("queue_tokens_pkey")),
        }
    }

    fn admit(&mut self, admit: Admit) -> Result<u32, CommitError> {
        if !self.rooms.contains_key(&admit.room_id) {
            return Err(absent(admit.room_id));
        }
        let active = self.active(admit.room_id, admit.now);
        let free = admit.max_active.map_or(u64::MAX, |max| u64::from(max).saturating_sub(active));
        let limit = u32::try_from(free).unwrap_or(u32::MAX).min(admit.limit);

        let in_line = self.tokens_in(admit.room_id).filter(|token| token.state == QueueTokenState::Wait);
        let waiters = first(limit, in_line.map(|token| (token.ticket, token.id)));
        Ok(count_done(waiters, |id| {
            self.step_token(id, |token| token.admit(admit.now, admit.active_ttl_seconds))
        }))
    }

    fn pause_tokens(&mut self, pause: PauseTokens) -> Result<u32, CommitError> {
        let PauseTokens { room_id, begins, now } = pause;
        if !self.rooms.contains_key(&room_id) {
            return Err(absent(room_id));
        }
        let ids: Vec<_> = self.tokens_in(room_id).map(|token| token.id).collect();
        let changed = |token: QueueToken| if begins { token.paused(now) } else { token.resumed(now) };
        Ok(count_done(ids, |id| self.step_token(id, |token| changed(token).ok_or(QueueTokenError::Expired))))
    }

    fn fill(&mut self, fill: &Fill) -> Result<CommandOutcome, CommitError> {
        let Fill { room_id, ref people, now } = *fill;
        if !self.rooms.contains_key(&room_id) {
            return Err(absent(room_id));
        }
        let last = self.last_ticket(room_id).0;
        for ((id, user_id), ticket) in people.iter().zip(last.saturating_add(1)..) {
            let (ticket, state) = (TicketNumber(ticket), QueueTokenState::Wait);
            let token = QueueToken { id: *id, room_id, user_id: *user_id, ticket, entered_at: now, state };
            if self.queue_tokens.insert(*id, Versioned::new(token, Version::FIRST)).is_some() {
                return Err(constraints::broken("queue_tokens_pkey"));
            }
        }
        Ok(CommandOutcome::Filled)
    }

    fn note_polls(&mut self, tokens: &[QueueTokenId], now: Timestamp) -> u32 {
        let waits = |row: &Versioned<QueueToken>| row.value.state == QueueTokenState::Wait;
        count_done(tokens.to_vec(), |id| {
            let noted = self.queue_tokens.get(&id).is_some_and(waits);
            if noted {
                self.last_seen.insert(id, now);
            }
            noted
        })
    }

    fn give_up_abandoned(&mut self, sweep: GiveUpAbandoned) -> Result<u32, CommitError> {
        let GiveUpAbandoned { room_id, window, gone_since, now } = sweep;
        if !self.rooms.contains_key(&room_id) {
            return Err(absent(room_id));
        }
        let in_line = self.tokens_in(room_id).filter(|token| token.state == QueueTokenState::Wait);
        let mut line = first(u32::MAX, in_line.map(|token| (token.ticket, token.id)));
        let behind = line.split_off(line.len().min(at_most(window)));
        if gone_since.is_none() {
            for id in behind {
                self.last_seen.remove(&id);
            }
        }
        let mut gone = Vec::new();
        for id in line {
            match (gone_since, self.last_seen.get(&id)) {
                (Some(gone_since), Some(seen)) if *seen <= gone_since => gone.push(id),
                (Some(_), Some(_)) => {}
                (None, _) | (_, None) => {
                    self.last_seen.insert(id, now);
                }
            }
        }
        Ok(count_done(gone, |id| self.step_token(id, |token| token.expire(now))))
    }

    fn prune_tokens(&mut self, prune: PruneTokens) -> TokensPruned {
        let PruneTokens { room_id, after, before, limit } = prune;
        let admitted_through = self.admitted_through(room_id);
        let seen =
            self.tokens_in(room_id).filter(|token| token.ticket > after && token.ticket < admitted_through);
        let seen = first(limit, seen.map(|token| (token.ticket, (token.ticket, token.id))));
        let is_full = seen.len() == at_most(limit);
        let through = seen.last().map(|(ticket, _)| *ticket).filter(|_| is_full);
        let ids = seen.into_iter().map(|(_, id)| id).collect();
        let deleted = count_done(ids, |id| self.prune_token(id, before));
        TokensPruned { deleted, through }
    }

    fn prune_token(&mut self, id: QueueTokenId, before: Timestamp) -> bool {
        let Some(token) = self.queue_tokens.get(&id).map(|row| row.value) else { return false };
        let ended =
            matches!(token.state, QueueTokenState::Expired { expires_at, .. } if expires_at <= before);
        if !ended || self.reservations.values().any(|row| row.value.token_id == id) {
            return false;
        }
        self.queue_tokens.remove(&id);
        self.last_seen.remove(&id);
        let had_departed = self.departures.remove(&id).is_some();
        let pruned = self.pruned_tokens.entry(token.room_id).or_default();
        pruned.tokens = pruned.tokens.saturating_add(1);
        pruned.departures = pruned.departures.saturating_add(i64::from(had_departed));
        true
    }

    fn prune_answers(&mut self, now: Timestamp, limit: u32) -> u32 {
        let over = self.idempotency_records.iter().filter(|(_, record)| record.expires_at <= now);
        let over = first(limit, over.map(|(key, record)| (record.expires_at, key.clone())));
        count_done(over, |key| self.idempotency_records.remove(&key).is_some())
    }

    fn step_token(
        &mut self,
        id: QueueTokenId,
        transition: impl FnOnce(QueueToken) -> Result<QueueToken, QueueTokenError>,
    ) -> bool {
        let next = self.queue_tokens.get(&id).and_then(|token| token.try_map(transition).ok());
        next.map(|token| self.store_token(token)).is_some()
    }

    fn expire_tokens(&mut self, now: Timestamp, limit: u32) -> u32 {
        let lapsed = self.queue_tokens.values().filter_map(|token| match token.value.state {
            QueueTokenState::Active { expires_at, paused_at: None, .. } if expires_at <= now => {
                Some((expires_at, token.value.id))
            }
            _ => None,
        });
        count_done(first(limit, lapsed), |id| self.step_token(id, |token| token.expire(now)))
    }

    fn expire_holds(&mut self, now: Timestamp, limit: u32) -> u32 {
        let held = self.reservations.values().filter(|row| row.value.status == ReservationStatus::Reserved);
        let lapsed = held
            .filter(|row| row.value.hold_expires_at <= now)
            .map(|row| (row.value.hold_expires_at, (row.value.id, row.value.seat_ids())));
        count_done(first(limit, lapsed), |(id, seat_ids)| {
            for seat_id in &seat_ids {
                step(&mut self.seats, seat_id, |seat| seat.release(id));
            }
            step(&mut self.reservations, &id, |reservation| reservation.expire(now))
        })
    }
}

const fn absent(room_id: RoomId) -> CommitError {
    CommitError::Conflict(AggregateRef::Room(room_id))
}

/// The first `limit` of these, lowest rank first.
fn first<R: Ord, T: Ord>(limit: u32, ranked: impl Iterator<Item = (R, T)>) -> Vec<T> {
    let mut ranked: Vec<_> = ranked.collect();
    ranked.sort();
    ranked.into_iter().take(at_most(limit)).map(|(_, item)| item).collect()
}

fn count_done<T>(items: Vec<T>, mut work: impl FnMut(T) -> bool) -> u32 {
    items.into_iter().fold(0, |done, item| if work(item) { done + 1 } else { done })
}

/// Takes a stored aggregate through a transition, as one more write. False when it is absent or refuses.
fn step<K: Ord, T: Clone, E>(
    table: &mut BTreeMap<K, Versioned<T>>,
    key: &K,
    transition: impl FnOnce(T) -> Result<T, E>,
) -> bool {
    let Some(row) = table.get_mut(key) else { return false };
    let Ok(value) = transition(row.value.clone()) else { return false };
    *row = Versioned::new(value, row.version.next());
    true
}
