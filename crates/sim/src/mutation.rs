//! Protections switched off, one at a time: a simulation that does not see the difference proves nothing.

use frontrow_domain::account::Account;
use frontrow_domain::idempotency::IdempotencyRecord;
use frontrow_domain::queue::{QueueToken, QueueTokenState, QueueTokenStatus, TicketNumber};
use frontrow_domain::reservation::{Reservation, ReservationStatus};
use frontrow_domain::seat::{Seat, SeatState};
use frontrow_domain::unit_of_work::{Admit, Command, CommandOutcome, CommitError, Committed};
use frontrow_domain::{Change, Timestamp, UnitOfWork, Version, Versioned};
use frontrow_infra::MemoryState as State;

use crate::monitor::Unit;
use crate::ports::NodePorts;
use crate::world::{About, Owner, World};

/// How often a mistake is made that is not always made.
const NOW_AND_THEN: f64 = 0.2;

/// What a mutated adapter does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// It writes over whatever is there: no version is checked.
    VersionsUnchecked,
    /// It stores the idempotency record in a transaction of its own, after that of the effect.
    RecordApart,
    /// It admits over `maxActive`.
    MaxActiveIgnored,
    /// Its expiry of holds frees the seats of paid reservations as well.
    ExpiryFreesPaidSeats,
    /// It says that nothing was written when it does not know.
    LostAnswerIsFailure,
    /// It admits from the tail of the line.
    AdmitsFromTheTail,
    /// It takes whoever joins for somebody who had a place already.
    JoinToldAsOld,
    /// It keeps silent of holds that are lapsed and stored still.
    LapsedHoldsLeft,
    /// It admits nobody.
    AdmitsNobody,
    /// It expires no hold.
    ExpiresNoHold,
    /// It notes no poll.
    PollsForgotten,
    /// It writes a moment later, now and then, what it says is not written.
    WritesLate,
    /// It loses a unit that has no idempotency record, now and then, and says that it is written.
    LostUnitIsWritten,
    /// It tells whoever has a place already of the ticket after it.
    PlaceToldWrongly,
    /// It reads a token one step behind, now and then, and takes that for news.
    TokensReadBehind,
    /// It finds no token, now and then.
    TokensNotFound,
    /// It knows no idempotency key again.
    KeysForgotten,
    /// It stores the idempotency record, and loses the effect.
    EffectLost,
    /// It gives answers again without their last byte.
    AnswersCutShort,
    /// Its feed tells of held seats as free.
    HeldToldAsFree,
}

impl Mutation {
    /// Every mutation.
    pub const ALL: [Self; 20] = [
        Self::VersionsUnchecked,
        Self::RecordApart,
        Self::MaxActiveIgnored,
        Self::ExpiryFreesPaidSeats,
        Self::LostAnswerIsFailure,
        Self::AdmitsFromTheTail,
        Self::JoinToldAsOld,
        Self::LapsedHoldsLeft,
        Self::AdmitsNobody,
        Self::ExpiresNoHold,
        Self::PollsForgotten,
        Self::WritesLate,
        Self::LostUnitIsWritten,
        Self::PlaceToldWrongly,
        Self::TokensReadBehind,
        Self::TokensNotFound,
        Self::KeysForgotten,
        Self::EffectLost,
        Self::AnswersCutShort,
        Self::HeldToldAsFree,
    ];

    /// Writes a unit wrongly. The monitor sees what was asked for, and what came of it.
    pub(crate) async fn apply(self, ports: &NodePorts, unit: Unit) -> Result<Committed, CommitError> {
        if let Some(told) = self.keep_back(ports, &unit) {
            return told;
        }
        let memory = &ports.monitor.memory;
        let mut work = unit.work.clone();
        let mut outcome = None;
        match (self, &work.command) {
            (Self::VersionsUnchecked, _) => memory.look(|state| renew(&mut work, state)),
            (Self::RecordApart, _) => work.idempotency = None,
            (Self::KeysForgotten, _) if memory.look(|state| is_answered(&work, state)) => {
                work.idempotency = None;
            }
            (Self::EffectLost, _) if work.idempotency.is_some() => {
                work = UnitOfWork { idempotency: work.idempotency, ..UnitOfWork::default() };
            }
            (Self::MaxActiveIgnored, Some(Command::Admit(admit))) => {
                work.command = Some(Command::Admit(Admit { max_active: None, ..*admit }));
            }
            (Self::AdmitsFromTheTail, Some(Command::Admit(admit))) => {
                work.queue_tokens = memory.look(|state| from_the_tail(state, admit));
                let people = u32::try_from(work.queue_tokens.len()).unwrap_or(u32::MAX);
                outcome = Some(CommandOutcome::Admitted(people));
                work.command = None;
            }
            (Self::AdmitsNobody, Some(Command::Admit(_))) => {
                outcome = Some(CommandOutcome::Admitted(0));
                work.command = None;
            }
            (Self::ExpiresNoHold, Some(Command::ExpireHolds { .. })) => {
                outcome = Some(CommandOutcome::HoldsExpired(0));
                work.command = None;
            }
            (Self::PollsForgotten, Some(Command::NotePolls { .. })) => {
                outcome = Some(CommandOutcome::PollsNoted(0));
                work.command = None;
            }
            _ => {}
        }
        let written = ports.storage.committer.commit(work).await;
        let written = written.map(|committed| Committed { outcome: outcome.or(committed.outcome) });
        ports.monitor.observe(&unit, &written);
        if let Some(told) = self.told(&written) {
            return Ok(Committed { outcome: Some(CommandOutcome::AlreadyJoined(told)) });
        }
        if let (Self::ExpiryFreesPaidSeats, Some(Command::ExpireHolds { now, .. })) =
            (self, unit.work.command)
        {
            let seats = memory.look(|state| paid_seats(state, now));
            let work = UnitOfWork { seats, ..UnitOfWork::default() };
            let freed = ports.storage.committer.commit(work.clone()).await;
            let unit = Unit { run: unit.run, clock: unit.clock, attempt: None, work };
            ports.monitor.observe(&unit, &freed);
        }
        written
    }

    /// The place that somebody is said to have had, where that is wrong.
    fn told(self, written: &Result<Committed, CommitError>) -> Option<QueueToken> {
        match (self, written.as_ref().ok()?.outcome?) {
            (Self::JoinToldAsOld, CommandOutcome::Joined(token)) => Some(token),
            (Self::PlaceToldWrongly, CommandOutcome::AlreadyJoined(token)) => {
                Some(QueueToken { ticket: TicketNumber(token.ticket.0.saturating_add(1)), ..token })
            }
            _ => None,
        }
    }

    /// What is told of a unit that is kept back, for good or for a moment. Only of one that somebody asked for.
    fn keep_back(self, ports: &NodePorts, unit: &Unit) -> Option<Result<Committed, CommitError>> {
        let strikes = || unit.attempt.is_some() && ports.clock.world.chance(NOW_AND_THEN);
        match self {
            Self::LostUnitIsWritten
                if unit.work.idempotency.is_none() && unit.work.command.is_none() && strikes() =>
            {
                Some(Ok(Committed::default()))
            }
            Self::WritesLate if strikes() => {
                write_later(ports.clone(), unit.clone());
                Some(Err(CommitError::Unavailable("it is written later".into())))
            }
            _ => None,
        }
    }

    /// Reads a token wrongly, or not at all.
    pub(crate) fn read_token(
        self,
        world: &World,
        token: Versioned<QueueToken>,
    ) -> Option<Versioned<QueueToken>> {
        match self {
            Self::TokensNotFound if world.chance(NOW_AND_THEN) => None,
            Self::TokensReadBehind if world.chance(NOW_AND_THEN) => Some(a_step_behind(token)),
            _ => Some(token),
        }
    }

    /// Reads a record wrongly, or not at all.
    pub(crate) fn read_record(self, mut record: IdempotencyRecord) -> Option<IdempotencyRecord> {
        if self == Self::AnswersCutShort {
            record.answer.body.pop();
        }
        (self != Self::KeysForgotten).then_some(record)
    }

    /// Reads wrongly whose a seat is, for those who only show it.
    pub(crate) const fn read_seat(self, state: SeatState) -> SeatState {
        match (self, state) {
            (Self::HeldToldAsFree, SeatState::Reserved { .. }) => SeatState::Available,
            (_, state) => state,
        }
    }
}

/// A token as it was before it was admitted, or before it ended.
fn a_step_behind(token: Versioned<QueueToken>) -> Versioned<QueueToken> {
    let state = match token.value.state {
        QueueTokenState::Wait => return token,
        QueueTokenState::Active { .. } | QueueTokenState::Expired { activated_at: None, .. } => {
            QueueTokenState::Wait
        }
        QueueTokenState::Expired { activated_at: Some(activated_at), expires_at } => {
            QueueTokenState::Active { activated_at, expires_at: expires_at.plus_seconds(60), paused_at: None }
        }
    };
    Versioned::new(QueueToken { state, ..token.value }, token.version.next())
}

/// Writes a unit, once it was told that nothing is written.
fn write_later(ports: NodePorts, unit: Unit) {
    let world = ports.clock.world.clone();
    let about = About { attempt: unit.attempt, ..About::of(Owner::Node(unit.run)) };
    world.clone().spawn(about, async move {
        world.sleep(world.millis(20, 100)).await;
        let written = ports.storage.committer.commit(unit.work.clone()).await;
        ports.monitor.observe(&unit, &written);
    });
}

fn is_answered(work: &UnitOfWork, state: &State) -> bool {
    let key = work.idempotency.as_ref().map(|new| (new.request.user_id, new.request.key.clone()));
    key.is_some_and(|key| state.idempotency_records.contains_key(&key))
}

/// Takes over the versions that are stored.
fn renew(work: &mut UnitOfWork, state: &State) {
    let seat = |seat: &Seat| state.seats.get(&seat.id).map(|row| row.version);
    let account = |account: &Account| state.accounts.get(&account.user_id).map(|row| row.version);
    work.guards.clear();
    work.queue_tokens.iter_mut().for_each(|token| {
        let stored = state.queue_tokens.get(&token.value.id);
        token.version = stored.map_or(token.version, |row| row.version);
    });
    work.rooms = renewed(&work.rooms, |room| state.rooms.get(&room.id).map(|row| row.version));
    work.accounts = renewed(&work.accounts, account);
    work.reservations = renewed(&work.reservations, |r| state.reservations.get(&r.id).map(|row| row.version));
    work.seats = renewed(&work.seats, seat);
}

fn renewed<T: Clone>(changes: &[Change<T>], stored: impl Fn(&T) -> Option<Version>) -> Vec<Change<T>> {
    let renew = |change: &Change<T>| match stored(change.value()) {
        Some(version) => Change::Update(Versioned::new(change.value().clone(), version)),
        None => Change::Insert(change.value().clone()),
    };
    changes.iter().map(renew).collect()
}

/// As many as may be admitted, those who came last.
fn from_the_tail(state: &State, admit: &Admit) -> Vec<Versioned<QueueToken>> {
    let rows = state.queue_tokens.values().filter(|row| row.value.room_id == admit.room_id);
    let rows: Vec<_> = rows.copied().collect();
    let active = rows.iter().filter(|row| row.value.status_at(admit.now) == QueueTokenStatus::Active).count();
    let max = admit.max_active.and_then(|max| usize::try_from(max).ok()).unwrap_or(usize::MAX);
    let limit = usize::try_from(admit.limit).unwrap_or(usize::MAX).min(max.saturating_sub(active));
    let mut waiting: Vec<_> =
        rows.into_iter().filter(|row| row.value.state == QueueTokenState::Wait).collect();
    waiting.sort_by_key(|row| std::cmp::Reverse(row.value.ticket));
    let admitted = waiting.into_iter().take(limit);
    admitted.filter_map(|row| row.try_map(|t| t.admit(admit.now, admit.active_ttl_seconds)).ok()).collect()
}

/// The seats of paid reservations whose holds would have lapsed, free again.
fn paid_seats(state: &State, now: Timestamp) -> Vec<Change<Seat>> {
    let rows = state.reservations.values().map(|row| &row.value);
    let paid = rows.filter(|r| r.status == ReservationStatus::Done && r.hold_expires_at <= now);
    let seats = paid.flat_map(Reservation::seat_ids);
    let seats = seats.filter_map(|id| state.seats.get(&id).cloned());
    let sold = seats.filter(|row| row.value.state != SeatState::Available);
    let free = |row: Versioned<Seat>| {
        let value = Seat { state: SeatState::Available, ..row.value };
        Change::Update(Versioned::new(value, row.version))
    };
    sold.map(free).collect()
}
