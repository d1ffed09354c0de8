//! Decides, over locked rows, what becomes of each unit of a batch. Pure: no I/O.
//!
//! Units are judged in the order of the queue, each against what is stored and what the units before it will write. One
//! that is refused leaves no trace, as if it had come first.

use std::collections::{BTreeMap, HashMap, HashSet};

use frontrow_domain::idempotency::IdempotencyKey;
use frontrow_domain::queue::{Entrance, QueueToken, QueueTokenError, QueueTokenState, TicketNumber};
use frontrow_domain::unit_of_work::{AggregateRef, CommandOutcome, CommitError, Join, UnitOfWork};
use frontrow_domain::{QueueTokenId, RoomId, UserId, Version, Versioned};

use super::failure::Failure;
use super::find::{Found, join_of};
use super::lock::{LineCounters, Locked, was_waiting};

/// What becomes of a unit.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is written with the batch, and its command, if it had one, came to this.
    Done(Option<CommandOutcome>),
    /// It is not written.
    Refused(CommitError),
    /// It needs a row that the batch has not locked, and no other: it has to come again, alone.
    Alone,
}

/// A token as it is to be stored, over the version it was loaded under.
#[derive(Debug, Clone, Copy)]
pub(super) struct TokenChange {
    pub(super) token: Versioned<QueueToken>,
    /// Its number among those who left the line unadmitted, if it does so now.
    pub(super) departure: Option<i64>,
}

/// What a batch writes.
#[derive(Debug, Default)]
pub(super) struct Plan<'u> {
    /// One for each unit of the batch, in its order.
    pub(super) verdicts: Vec<Verdict>,
    /// The units to be written.
    pub(super) units: Vec<&'u UnitOfWork>,
    /// The tokens that change.
    pub(super) tokens: Vec<TokenChange>,
    /// New tokens, in the order of their tickets.
    pub(super) newcomers: Vec<QueueToken>,
    /// The lines that move, as they will be.
    pub(super) lines: BTreeMap<RoomId, LineCounters>,
}

/// Judges all units of a batch.
pub(super) fn plan<'u>(
    units: &[&'u UnitOfWork],
    locked: &Locked,
    found: &Found,
) -> Result<Plan<'u>, Failure> {
    let mut judge = Judge {
        locked,
        found,
        batch_of_one: units.len() == 1,
        keys: HashSet::new(),
        written: HashSet::new(),
        let_in: HashMap::new(),
        joined: HashMap::new(),
        plan: Plan::default(),
    };
    for work in units {
        let verdict = match judge.judge(work) {
            Ok(outcome) => {
                judge.accept(work);
                Verdict::Done(outcome)
            }
            Err(Rejection::Refused(error)) => Verdict::Refused(error),
            Err(Rejection::Alone) => Verdict::Alone,
            Err(Rejection::Corrupt(failure)) => return Err(failure),
        };
        judge.plan.verdicts.push(verdict);
    }
    Ok(judge.plan)
}

/// Why a unit is not written.
enum Rejection {
    Refused(CommitError),
    Alone,
    Corrupt(Failure),
}

impl Rejection {
    const fn conflict(aggregate: AggregateRef) -> Self {
        Self::Refused(CommitError::Conflict(aggregate))
    }
}

struct Judge<'u, 'l> {
    locked: &'l Locked,
    found: &'l Found,
    batch_of_one: bool,
    /// The idempotency keys of the units so far.
    keys: HashSet<(UserId, &'u IdempotencyKey)>,
    /// What the units so far write.
    written: HashSet<AggregateRef>,
    /// How many newcomers so far go straight through.
    let_in: HashMap<RoomId, u64>,
    /// The newcomers so far.
    joined: HashMap<(RoomId, UserId), QueueToken>,
    plan: Plan<'u>,
}

impl<'u> Judge<'u, '_> {
    /// The checks are in the order in which [`CommitError`] is to be reported.
    fn judge(&mut self, work: &'u UnitOfWork) -> Result<Option<CommandOutcome>, Rejection> {
        if let Some(record) = &work.idempotency {
            let key = (record.request.user_id, &record.request.key);
            if self.found.is_taken(record) || self.keys.contains(&key) {
                return Err(Rejection::Refused(CommitError::DuplicateIdempotencyKey));
            }
        }
        // What a unit before has written is not what this one has loaded, since it is not even committed.
        let moved_on = |(aggregate, version): &(AggregateRef, _)| {
            self.written.contains(aggregate) || self.locked.version_of(*aggregate) != *version
        };
        if let Some((aggregate, _)) = work.expected_versions().into_iter().find(moved_on) {
            return Err(Rejection::conflict(aggregate));
        }
        join_of(work).map(|join| self.join(join)).transpose()
    }

    /// Takes a unit into the batch.
    fn accept(&mut self, work: &'u UnitOfWork) {
        if let Some(record) = &work.idempotency {
            self.keys.insert((record.request.user_id, &record.request.key));
        }
        self.written.extend(written_by(work));
        for token in &work.queue_tokens {
            let departure = self.leave_line(&token.value);
            self.plan.tokens.push(TokenChange { token: *token, departure });
        }
        self.plan.units.push(work);
    }

    /// The line of a room, as the units so far leave it.
    fn line(&mut self, room_id: RoomId) -> Option<&mut LineCounters> {
        let locked = self.locked.line(room_id)?;
        Some(self.plan.lines.entry(room_id).or_insert(locked))
    }

    /// Takes a token out of its line, if it was locked as one that waits and is written as one that does not. Gives its
    /// departure number, unless it is admitted.
    fn leave_line(&mut self, token: &QueueToken) -> Option<i64> {
        if !self.locked.waits(token.id) || token.state == QueueTokenState::Wait {
            return None;
        }
        let line = self.line(token.room_id)?;
        line.waiting -= 1;
        was_waiting(token).then(|| {
            line.departures += 1;
            line.departures
        })
    }

    fn join(&mut self, join: Join) -> Result<CommandOutcome, Rejection> {
        let absent = || Rejection::conflict(AggregateRef::Room(join.room_id));
        let found = self.found;
        let policy = found.policy(join.room_id).ok_or_else(absent)?;
        let line = self.locked.line(join.room_id).ok_or_else(absent)?;
        let line = self.plan.lines.get(&join.room_id).copied().unwrap_or(line);
        let lapsed = match self.live(&join) {
            Some(live) if live.value.is_live(join.now) => {
                return Ok(CommandOutcome::AlreadyJoined(live.value));
            }
            Some(_) if !self.batch_of_one => return Err(Rejection::Alone),
            lapsed => lapsed,
        };
        let let_in = self.let_in.get(&join.room_id).copied().unwrap_or(0);
        let active = found.active(join.room_id).saturating_add(let_in);
        let waiting = u64::try_from(line.waiting).unwrap_or(0);
        let entrance = policy.entrance(waiting, active);
        let entrance = entrance.map_err(|refusal| Rejection::Refused(CommitError::Refused(refusal)))?;
        let corrupt = |error| Rejection::Corrupt(Failure::unavailable(error));
        let token = newcomer(&join, line, entrance, policy.active_ttl_seconds).map_err(corrupt)?;
        if let Some(lapsed) = lapsed {
            let token = lapsed.try_map(|token| token.expire(join.now)).map_err(corrupt)?;
            self.plan.tokens.push(TokenChange { token, departure: None });
        }
        self.take_in(token);
        Ok(CommandOutcome::Joined(token))
    }

    /// The token that the user of a Join has already: of an earlier unit, or as an earlier unit leaves it.
    fn live(&self, join: &Join) -> Option<Versioned<QueueToken>> {
        if let Some(token) = self.joined.get(&(join.room_id, join.user_id)) {
            return Some(Versioned::new(*token, Version::FIRST));
        }
        let stored = self.found.live(join)?;
        if !self.written.contains(&AggregateRef::QueueToken(stored.value.id)) {
            return Some(stored);
        }
        let changed = self.change_of(stored.value.id)?;
        let is_over = matches!(changed.value.state, QueueTokenState::Expired { .. });
        (!is_over).then_some(changed)
    }

    fn change_of(&self, id: QueueTokenId) -> Option<Versioned<QueueToken>> {
        self.plan.tokens.iter().find(|change| change.token.value.id == id).map(|change| change.token)
    }

    fn take_in(&mut self, token: QueueToken) {
        let waits = token.state == QueueTokenState::Wait;
        if let Some(line) = self.line(token.room_id) {
            line.last_ticket = token.ticket.0;
            if waits {
                line.waiting += 1;
            } else {
                // It was let in past nobody.
                line.admitted_through = token.ticket.0;
            }
        }
        if !waits {
            *self.let_in.entry(token.room_id).or_default() += 1;
        }
        self.joined.insert((token.room_id, token.user_id), token);
        self.plan.newcomers.push(token);
    }
}

fn newcomer(
    join: &Join,
    line: LineCounters,
    entrance: Entrance,
    active_ttl_seconds: u32,
) -> Result<QueueToken, QueueTokenError> {
    let waiting = QueueToken {
        id: join.token_id,
        room_id: join.room_id,
        user_id: join.user_id,
        ticket: TicketNumber(line.last_ticket.saturating_add(1)),
        entered_at: join.now,
        state: QueueTokenState::Wait,
    };
    match entrance {
        Entrance::Wait => Ok(waiting),
        Entrance::Active => waiting.admit(join.now, active_ttl_seconds),
    }
}

/// What a unit writes, of that which has a version.
fn written_by(work: &UnitOfWork) -> impl Iterator<Item = AggregateRef> + '_ {
    let rooms = work.rooms.iter().map(|room| AggregateRef::Room(room.value().id));
    let tokens = work.queue_tokens.iter().map(|token| AggregateRef::QueueToken(token.value.id));
    let accounts = work.accounts.iter().map(|account| AggregateRef::Account(account.value().user_id));
    let reservations =
        work.reservations.iter().map(|reservation| AggregateRef::Reservation(reservation.value().id));
    let seats = work.seats.iter().map(|seat| AggregateRef::Seat(seat.value().id));
    rooms.chain(tokens).chain(accounts).chain(reservations).chain(seats)
}
