//! Rooms, places in line, admission.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::{
    Answer, Mode, Model, Name, Patch, Place, Policy, Refusal, RoomSeen, SECOND, Time, TokenStatus, count,
};

/// A waiting room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) policy: Policy,
    last_tick: Time,
    pub(crate) next_tick: Time,
}

impl Room {
    /// A room that is made as the world begins.
    pub(crate) fn new(policy: Policy) -> Self {
        let next_tick =
            policy.opens_at.filter(|at| *at > 0).unwrap_or(policy.admit_interval_seconds * SECOND);
        Self { policy, last_tick: 0, next_tick }
    }

    /// The opening, while it lies ahead.
    fn opening(&self, now: Time) -> Option<Time> {
        self.policy.opens_at.filter(|at| *at > now)
    }

    /// The room with its grid moved past `now`.
    pub(crate) fn upcoming(mut self, now: Time) -> Self {
        while now >= self.next_tick {
            self.last_tick = self.next_tick;
            self.next_tick += self.policy.admit_interval_seconds * SECOND;
        }
        self
    }

    /// Whether a tick is due for the first waiter, who entered at `since`: one has passed since then that was not taken.
    fn is_due(&self, now: Time, since: Option<Time>) -> bool {
        now >= self.next_tick && since.is_some_and(|since| since <= self.upcoming(now).last_tick)
    }
}

/// How often a node looks who stays away.
const WATCH_EVERY: Time = 5 * SECOND;
/// Who watched last so long ago has missed something.
const WATCH_ANEW_AFTER: Time = 11 * SECOND;
/// The most people of a line who are watched.
const MOST_WATCHED: usize = 10_000;

/// A place in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    room: usize,
    pub(crate) user: usize,
    ticket: usize,
    entered_at: Time,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Wait,
    /// With the beginning of the pause of the sale, while that lasts.
    Active {
        since: Time,
        until: Time,
        paused: Option<Time>,
    },
    Over {
        since: Option<Time>,
        at: Time,
    },
}

impl Token {
    pub(crate) fn status(&self, now: Time) -> TokenStatus {
        match self.stage {
            Stage::Wait => TokenStatus::Wait,
            Stage::Active { until, paused, .. } if now < until || paused.is_some() => TokenStatus::Active,
            Stage::Active { .. } | Stage::Over { .. } => TokenStatus::Expired,
        }
    }

    pub(crate) const fn is_paused(&self) -> bool {
        matches!(self.stage, Stage::Active { paused: Some(_), .. })
    }

    /// The pause of the sale begins or ends.
    const fn pause(&mut self, begins: bool, now: Time) {
        match &mut self.stage {
            Stage::Active { until, paused: paused @ None, .. } if begins && now < *until => {
                *paused = Some(now);
            }
            Stage::Active { until, paused: paused @ Some(_), .. } if !begins => {
                if let Some(began) = paused.take() {
                    *until += now - began;
                }
            }
            _ => {}
        }
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        if let Stage::Active { until, paused: None, .. } = self.stage { Some(until) } else { None }
    }

    /// When it ended, if it has.
    fn ended_at(&self, now: Time) -> Option<Time> {
        match self.stage {
            Stage::Active { until: at, paused: None, .. } | Stage::Over { at, .. } if at <= now => Some(at),
            _ => None,
        }
    }

    /// Ends it, unless it is over.
    fn end(&mut self, now: Time) {
        self.stage = match self.stage {
            Stage::Wait => Stage::Over { since: None, at: now },
            Stage::Active { since, until, paused } if now < until || paused.is_some() => {
                Stage::Over { since: Some(since), at: now }
            }
            lapsed_or_over => lapsed_or_over,
        };
    }
}

impl Model {
    pub(crate) fn enter(
        &mut self,
        call: Name,
        user: usize,
        concert: Option<usize>,
    ) -> Result<Answer, Refusal> {
        let is_sold_out = concert.is_some_and(|concert| self.is_sold_out(concert));
        self.enter_if(is_sold_out, call, user, concert)
    }

    /// As by a view of the concert that is a moment old. `None` where every such view says the same.
    pub(crate) fn enter_by_older_view(
        &mut self,
        call: Name,
        user: usize,
        concert: Option<usize>,
    ) -> Option<Answer> {
        let concert = concert.filter(|concert| self.may_be_seen_otherwise(*concert))?;
        let was_sold_out = !self.is_sold_out(concert);
        let entered = self.enter_if(was_sold_out, call, user, Some(concert));
        Some(entered.unwrap_or_else(Answer::Refused))
    }

    /// The global room is the first: it takes people for a concert that is sold out, too.
    fn enter_if(
        &mut self,
        is_sold_out: bool,
        call: Name,
        user: usize,
        concert: Option<usize>,
    ) -> Result<Answer, Refusal> {
        let room = match concert {
            None => 0,
            Some(concert) => *self.concerts.get(concert).ok_or(Refusal::ConcertNotFound)?,
        };
        if let Some(token) = self.live_token(user, room) {
            return Ok(Answer::Entered { place: self.place(token)?, is_new: false });
        }
        if is_sold_out && room != 0 {
            return Err(Refusal::SoldOut);
        }
        let stage = self.entrance(room)?;
        let ticket = self.tokens.values().filter(|token| token.room == room).count() + 1;
        self.tokens.insert(call, Token { room, user, ticket, entered_at: self.now, stage });
        Ok(Answer::Entered { place: self.place(call)?, is_new: true })
    }

    /// How a newcomer gets in.
    fn entrance(&self, room: usize) -> Result<Stage, Refusal> {
        let policy = self.policy(room)?;
        let (waiting, active) = (self.waiting(room), self.active(room));
        if policy.mode == Mode::Closed {
            return Err(Refusal::RoomClosed);
        }
        let has_room = policy.max_active.is_none_or(|most| active < most.unsigned_abs());
        if policy.mode == Mode::Open && waiting.is_empty() && has_room {
            return Ok(Stage::Active {
                since: self.now,
                until: self.now + policy.active_ttl_seconds * SECOND,
                paused: None,
            });
        }
        if policy.max_waiting.is_some_and(|most| count(waiting.len()) >= most.unsigned_abs()) {
            return Err(Refusal::RoomFull);
        }
        Ok(Stage::Wait)
    }

    pub(crate) fn look_up(&self, user: usize, token: Option<Name>) -> Result<Answer, Refusal> {
        self.place(self.own_token(user, token)?).map(Answer::Place)
    }

    pub(crate) fn leave(&mut self, user: usize, token: Option<Name>) -> Result<Answer, Refusal> {
        let token = self.own_token(user, token)?;
        self.end_token(token);
        Ok(Answer::Left)
    }

    /// The gate: a token of this user's that is ACTIVE. Which room it is of is the caller's to check.
    pub(crate) fn pass(&self, user: usize, token: Option<Name>) -> Result<Token, Refusal> {
        let token = self.tokens.get(&self.own_token(user, token)?).ok_or(Refusal::WaitTokenInvalid)?;
        match token.status(self.now) {
            TokenStatus::Wait => Err(Refusal::WaitTokenNotActive),
            TokenStatus::Active => Ok(*token),
            TokenStatus::Expired => Err(Refusal::WaitTokenExpired),
        }
    }

    pub(crate) fn require_room(&self, token: &Token, concert: usize) -> Result<(), Refusal> {
        let is_it = self.concerts.get(concert) == Some(&token.room);
        if is_it { Ok(()) } else { Err(Refusal::WaitTokenInvalid) }
    }

    pub(crate) fn end_live_token(&mut self, user: usize, room: usize) {
        if let Some(token) = self.live_token(user, room) {
            self.end_token(token);
        }
    }

    pub(crate) fn change_room(&mut self, room: usize, patch: &Patch) -> Result<Answer, Refusal> {
        let (now, since) = (self.now, self.waiting_since(room));
        let changed = self.rooms.get_mut(room).ok_or(Refusal::RoomNotFound)?;
        let policy = changed.policy.patched(patch)?;
        if changed.policy.mode != Mode::Auto || !changed.is_due(now, since) {
            *changed = changed.upcoming(now);
        }
        let before = *changed;
        changed.policy = policy;
        if let Some(opening) = changed.opening(now) {
            changed.next_tick = opening;
        } else if before.opening(now).is_some() {
            // It opens now; or there is no opening any more, and the grid from before counts.
            changed.next_tick = now;
            if policy.opens_at.is_none() {
                changed.next_tick = changed.last_tick;
                *changed = changed.upcoming(now);
            }
        } else if policy.admit_interval_seconds != before.policy.admit_interval_seconds {
            changed.next_tick = now.max(changed.last_tick + policy.admit_interval_seconds * SECOND);
        }
        let is_paused = policy.mode == Mode::Paused;
        if is_paused != (before.policy.mode == Mode::Paused) {
            let tokens = self.tokens.values_mut().filter(|token| token.room == room);
            tokens.for_each(|token| token.pause(is_paused, now));
        }
        self.see_to(room);
        self.room_seen(room).map(Answer::Room)
    }

    pub(crate) fn admit_now(&mut self, room: usize, most: u32) -> Answer {
        match self.policy(room) {
            Ok(policy) if policy.mode == Mode::Paused => Answer::Refused(Refusal::SalePaused),
            Ok(_) => Answer::Admitted(self.admit(room, u64::from(most))),
            Err(refusal) => Answer::Refused(refusal),
        }
    }

    /// Whoever of the next three batches does not poll for the grace of the room is given up. Who was further back when it
    /// began is watched from when they are near.
    pub(crate) fn watch(&mut self, seconds: Time, polling: Option<(usize, Name)>) -> Answer {
        self.now += WATCH_ANEW_AFTER;
        let end = self.now + seconds * SECOND;
        let polling = polling.and_then(|(user, token)| self.own_token(user, Some(token)).ok());
        let mut seen = BTreeMap::new();
        loop {
            for room in 0..self.rooms.len() {
                self.give_up_who_is_away(room, polling, &mut seen);
            }
            if self.now + WATCH_EVERY > end {
                return Answer::Done;
            }
            self.now += WATCH_EVERY;
        }
    }

    fn give_up_who_is_away(&mut self, room: usize, polling: Option<Name>, seen: &mut BTreeMap<Name, Time>) {
        let Ok(Policy { admit_batch, wait_grace_seconds: Some(grace), .. }) = self.policy(room) else {
            return;
        };
        let near = usize::try_from(admit_batch * 3).unwrap_or(MOST_WATCHED).min(MOST_WATCHED);
        for token in self.waiting(room).into_iter().take(near) {
            let last = *seen.entry(token).or_insert(self.now);
            if polling == Some(token) {
                seen.insert(token, self.now);
            } else if self.now - last >= grace * SECOND {
                self.end_token(token);
            }
        }
    }

    /// After at least and at most how many seconds the holder is told to poll again.
    #[must_use]
    pub fn poll_after_seconds(&self, token: Name) -> Option<RangeInclusive<u64>> {
        let place = self.place(token).ok()?;
        let policy = self.policy(place.room).ok()?;
        let rarest = (policy.active_ttl_seconds.unsigned_abs() / 2).clamp(1, 60);
        if place.status != TokenStatus::Wait {
            return Some(rarest.min(30)..=rarest.min(30));
        }
        let far = place.position / 1_000;
        let wanted = match (policy.mode, place.estimated_wait_seconds) {
            (Mode::Hold | Mode::Closed | Mode::Paused, _) => far.max(10),
            (Mode::Auto, Some(to_own_tick)) => far.max(to_own_tick / 10),
            _ => far,
        };
        // A fifth is left to chance, so that those who came together do not stay together.
        let most = wanted.clamp(1, rarest);
        let least = most - most / 5;
        let own_tick = place.estimated_wait_seconds.filter(|_| policy.mode == Mode::Auto);
        let own_tick = own_tick.map_or(u64::MAX, |seconds| seconds.max(1));
        Some(least.min(own_tick)..=most.min(own_tick))
    }

    /// The scheduler's pass over the rooms.
    pub(crate) fn tick(&mut self) -> Answer {
        Answer::Admitted((0..self.rooms.len()).map(|room| self.see_to(room)).sum())
    }

    /// Admits the batch of a tick that is due, and everyone if the room is OPEN. How many those were.
    fn see_to(&mut self, room: usize) -> u64 {
        let (now, since) = (self.now, self.waiting_since(room));
        let Some(seen_to) = self.rooms.get_mut(room) else { return 0 };
        match seen_to.policy.mode {
            Mode::Auto if seen_to.is_due(now, since) => {
                *seen_to = seen_to.upcoming(now);
                let batch = seen_to.policy.admit_batch.unsigned_abs();
                self.admit(room, batch)
            }
            Mode::Open => self.admit(room, u64::MAX),
            Mode::Auto | Mode::Hold | Mode::Closed | Mode::Paused => 0,
        }
    }

    /// Admits from the head of the line: never more than `most`, nor than may be ACTIVE.
    fn admit(&mut self, room: usize, most: u64) -> u64 {
        let Ok(policy) = self.policy(room) else { return 0 };
        let free =
            policy.max_active.map_or(u64::MAX, |max| max.unsigned_abs().saturating_sub(self.active(room)));
        let line = self.waiting(room);
        let through: Vec<Name> = line.into_iter().zip(0..most.min(free)).map(|(token, _)| token).collect();
        let (since, until) = (self.now, self.now + policy.active_ttl_seconds * SECOND);
        for token in &through {
            if let Some(token) = self.tokens.get_mut(token) {
                token.stage = Stage::Active { since, until, paused: None };
            }
        }
        count(through.len())
    }

    pub(crate) fn rooms_seen(&self) -> Vec<RoomSeen> {
        (0..self.rooms.len()).filter_map(|room| self.room_seen(room).ok()).collect()
    }

    fn room_seen(&self, room: usize) -> Result<RoomSeen, Refusal> {
        let of = self.rooms.get(room).ok_or(Refusal::RoomNotFound)?;
        Ok(RoomSeen {
            room,
            policy: of.policy,
            waiting: count(self.waiting(room).len()),
            active: self.active(room),
            next_tick_at: of.upcoming(self.now).next_tick,
        })
    }

    pub(crate) fn places(&self) -> impl Iterator<Item = Place> {
        self.tokens
            .iter()
            .filter(|(_, token)| !self.is_bygone(token))
            .filter_map(|(token, _)| self.place(*token).ok())
    }

    /// The tokens that nobody may rely on any longer. Whether they are there still is nobody's business.
    pub fn bygone(&self) -> impl Iterator<Item = Name> {
        self.tokens.iter().filter(|(_, token)| self.is_bygone(token)).map(|(token, _)| *token)
    }

    fn is_bygone(&self, token: &Token) -> bool {
        token.ended_at(self.now).is_some_and(|at| at + self.keep_tokens <= self.now)
    }

    fn place(&self, name: Name) -> Result<Place, Refusal> {
        let token = self.tokens.get(&name).ok_or(Refusal::WaitTokenInvalid)?;
        let status = token.status(self.now);
        let ahead = self.waiting(token.room).into_iter().take_while(|other| *other != name).count();
        let position = if status == TokenStatus::Wait { count(ahead) + 1 } else { 0 };
        let (activated_at, expires_at) = match token.stage {
            Stage::Wait => (None, None),
            Stage::Active { since, until, .. } => (Some(since), Some(until)),
            Stage::Over { since, at } => (since, Some(at)),
        };
        Ok(Place {
            token: name,
            room: token.room,
            user: token.user,
            status,
            position,
            estimated_wait_seconds: self.estimate(token, position),
            entered_at: token.entered_at,
            activated_at,
            expires_at,
        })
    }

    /// ceil(next tick - now) + floor((position - 1) / batch) * interval. A tick that has passed is the next one for those who
    /// came before it, until it is taken.
    fn estimate(&self, token: &Token, position: u64) -> Option<u64> {
        let room = *self.rooms.get(token.room)?;
        let is_due = room.is_due(self.now, Some(token.entered_at));
        let room = if is_due { room } else { room.upcoming(self.now) };
        match (position, room.policy.mode) {
            (0, _) => Some(0),
            (_, Mode::Hold | Mode::Closed | Mode::Paused) => None,
            (_, Mode::Open) => Some(1),
            (_, Mode::Auto) => {
                let to_tick =
                    (room.next_tick - self.now).max(0).unsigned_abs().div_ceil(SECOND.unsigned_abs());
                let ticks_before = (position - 1) / room.policy.admit_batch.unsigned_abs();
                Some(to_tick + ticks_before * room.policy.admit_interval_seconds.unsigned_abs())
            }
        }
    }

    fn policy(&self, room: usize) -> Result<Policy, Refusal> {
        self.rooms.get(room).map(|room| room.policy).ok_or(Refusal::RoomNotFound)
    }

    /// When the first of the line entered.
    fn waiting_since(&self, room: usize) -> Option<Time> {
        let first = self.waiting(room).into_iter().next()?;
        self.tokens.get(&first).map(|token| token.entered_at)
    }

    /// Who waits, in order.
    fn waiting(&self, room: usize) -> Vec<Name> {
        let waits = |token: &Token| token.room == room && token.stage == Stage::Wait;
        let mut line: Vec<_> = self.tokens.iter().filter(|(_, token)| waits(token)).collect();
        line.sort_by_key(|(_, token)| token.ticket);
        line.into_iter().map(|(name, _)| *name).collect()
    }

    fn active(&self, room: usize) -> u64 {
        let is_active = |token: &&Token| token.room == room && token.status(self.now) == TokenStatus::Active;
        count(self.tokens.values().filter(is_active).count())
    }

    /// The one token of this user in this room that is not over.
    fn live_token(&self, user: usize, room: usize) -> Option<Name> {
        let is_it = |token: &Token| {
            (token.user, token.room) == (user, room) && token.status(self.now) != TokenStatus::Expired
        };
        self.tokens.iter().find(|(_, token)| is_it(token)).map(|(name, _)| *name)
    }

    fn own_token(&self, user: usize, token: Option<Name>) -> Result<Name, Refusal> {
        let name = token.ok_or(Refusal::WaitTokenMissing)?;
        let own = self.tokens.get(&name).filter(|token| token.user == user && !self.is_bygone(token));
        own.map(|_| name).ok_or(Refusal::WaitTokenInvalid)
    }

    fn end_token(&mut self, token: Name) {
        let now = self.now;
        if let Some(token) = self.tokens.get_mut(&token) {
            token.end(now);
        }
    }
}
