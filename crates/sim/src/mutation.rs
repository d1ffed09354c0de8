//! Protections switched off, one at a time: a simulation that does not see the difference proves nothing.

use frontrow_domain::account::Account;
use frontrow_domain::queue::{QueueToken, QueueTokenState, QueueTokenStatus};
use frontrow_domain::reservation::{Reservation, ReservationStatus};
use frontrow_domain::seat::{Seat, SeatState};
use frontrow_domain::unit_of_work::{Admit, Command, CommandOutcome, CommitError, Committed};
use frontrow_domain::{Change, Timestamp, UnitOfWork, Version, Versioned};
use frontrow_infra::MemoryState as State;

use crate::monitor::Unit;
use crate::ports::NodePorts;

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
}

impl Mutation {
    /// Every mutation.
    pub const ALL: [Self; 8] = [
        Self::VersionsUnchecked,
        Self::RecordApart,
        Self::MaxActiveIgnored,
        Self::ExpiryFreesPaidSeats,
        Self::LostAnswerIsFailure,
        Self::AdmitsFromTheTail,
        Self::JoinToldAsOld,
        Self::LapsedHoldsLeft,
    ];

    /// Writes a unit wrongly. The monitor sees what was asked for, and what came of it.
    pub(crate) async fn apply(self, ports: &NodePorts, unit: Unit) -> Result<Committed, CommitError> {
        let memory = &ports.monitor.memory;
        let mut work = unit.work.clone();
        let mut outcome = None;
        match (self, &work.command) {
            (Self::VersionsUnchecked, _) => memory.look(|state| renew(&mut work, state)),
            (Self::RecordApart, _) => work.idempotency = None,
            (Self::MaxActiveIgnored, Some(Command::Admit(admit))) => {
                work.command = Some(Command::Admit(Admit { max_active: None, ..*admit }));
            }
            (Self::AdmitsFromTheTail, Some(Command::Admit(admit))) => {
                work.queue_tokens = memory.look(|state| from_the_tail(state, admit));
                let people = u32::try_from(work.queue_tokens.len()).unwrap_or(u32::MAX);
                outcome = Some(CommandOutcome::Admitted(people));
                work.command = None;
            }
            _ => {}
        }
        let written = ports.storage.committer.commit(work).await;
        let written = written.map(|committed| Committed { outcome: outcome.or(committed.outcome) });
        ports.monitor.observe(&unit, &written);
        if let (Self::JoinToldAsOld, Ok(Committed { outcome: Some(CommandOutcome::Joined(token)) })) =
            (self, &written)
        {
            return Ok(Committed { outcome: Some(CommandOutcome::AlreadyJoined(*token)) });
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
