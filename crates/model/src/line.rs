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
        Self { policy, last_tick: 0, next_tick: policy.admit_interval_seconds * SECOND }
    }

    /// Moves the grid past `now`. Whether a tick was due.
    fn take_tick(&mut self, now: Time) -> bool {
        let is_due = now >= self.next_tick;
        while now >= self.next_tick {
            self.last_tick = self.next_tick;
            self.next_tick += self.policy.admit_interval_seconds * SECOND;
        }
        is_due
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
    Active { since: Time, until: Time },
    Over { since: Option<Time>, at: Time },
}

impl Token {
    pub(crate) fn status(&self, now: Time) -> TokenStatus {
        match self.stage {
            Stage::Wait => TokenStatus::Wait,
            Stage::Active { until, .. } if now < until => TokenStatus::Active,
            Stage::Active { .. } | Stage::Over { .. } => TokenStatus::Expired,
        }
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        if let Stage::Active { until, .. } = self.stage { Some(until) } else { None }
    }

    /// When it ended, if it has.
    fn ended_at(&self, now: Time) -> Option<Time> {
        match self.stage {
            Stage::Active { until: at, .. } | Stage::Over { at, .. } if at <= now => Some(at),
            _ => None,
        }
    }

    /// Ends it, unless it is over.
    fn end(&mut self, now: Time) {
        self.stage = match self.stage {
            Stage::Wait => Stage::Over { since: None, at: now },
            Stage::Active { since, until } if now < until => Stage::Over { since: Some(since), at: now },
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
        let now = self.now;
        let changed = self.rooms.get_mut(room).ok_or(Refusal::RoomNotFound)?;
        let policy = changed.policy.patched(patch)?;
        if changed.policy.mode != Mode::Auto {
            changed.take_tick(now);
        }
        let interval = policy.admit_interval_seconds;
        if interval != changed.policy.admit_interval_seconds {
            changed.next_tick = now.max(changed.last_tick + interval * SECOND);
        }
        changed.policy = policy;
        self.see_to(room);
        self.room_seen(room).map(Answer::Room)
    }

    pub(crate) fn admit_now(&mut self, room: usize, most: u32) -> Answer {
        match self.policy(room) {
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
        if place.status != TokenStatus::Wait {
            return Some(30..=30);
        }
        let far = place.position / 1_000;
        let wanted = match (policy.mode, place.estimated_wait_seconds) {
            (Mode::Hold | Mode::Closed, _) => far.max(10),
            (Mode::Auto, Some(to_own_tick)) => far.max(to_own_tick / 10),
            _ => far,
        };
        // A fifth is left to chance, so that those who came together do not stay together.
        let most = wanted.clamp(1, 60);
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
        let now = self.now;
        let Some(seen_to) = self.rooms.get_mut(room) else { return 0 };
        let is_due = seen_to.take_tick(now);
        match seen_to.policy.mode {
            Mode::Auto if is_due => {
                let batch = seen_to.policy.admit_batch.unsigned_abs();
                self.admit(room, batch)
            }
            Mode::Open => self.admit(room, u64::MAX),
            Mode::Auto | Mode::Hold | Mode::Closed => 0,
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
                token.stage = Stage::Active { since, until };
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
            next_tick_at: of.next_tick,
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
            Stage::Active { since, until } => (Some(since), Some(until)),
            Stage::Over { since, at } => (since, Some(at)),
        };
        Ok(Place {
            token: name,
            room: token.room,
            user: token.user,
            status,
            position,
            estimated_wait_seconds: self.estimate(token.room, position),
            entered_at: token.entered_at,
            activated_at,
            expires_at,
        })
    }

    /// ceil(next tick - now) + floor((position - 1) / batch) * interval.
    fn estimate(&self, room: usize, position: u64) -> Option<u64> {
        let room = self.rooms.get(room)?;
        match (position, room.policy.mode) {
            (0, _) => Some(0),
            (_, Mode::Hold | Mode::Closed) => None,
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
