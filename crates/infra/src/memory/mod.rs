//! Storage in memory: the reference for what a storage adapter does, and for tests of use cases.
//!
//! It is written to be read. Everything is found by looking at every row, and a commit copies the whole state. What
//! the other adapters keep as counters (how many wait, the last ticket) is counted here, so it cannot drift; but for what was pruned, which is gone and only its number kept.

mod audit;
mod commands;
mod commit;
mod constraints;
mod feeds;
mod queries;
mod repositories;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use frontrow_domain::account::{Account, Entry, Payment};
use frontrow_domain::audit_log::AuditEntry;
use frontrow_domain::concert::{Concert, PerformanceDate};
use frontrow_domain::idempotency::{IdempotencyKey, IdempotencyRecord};
use frontrow_domain::queue::{Departure, QueueToken, QueueTokenState, QueueTokenStatus, Room, TicketNumber};
use frontrow_domain::reservation::Reservation;
use frontrow_domain::seat::{FeedVersion, Seat};
use frontrow_domain::{
    AuditEntryId, ConcertId, EntryId, Incarnation, IncarnationId, PaymentId, PerformanceDateId, QueueTokenId,
    ReservationId, RoomId, SeatId, Timestamp, UserId, Versioned,
};
use uuid::Uuid;

/// A storage adapter that forgets everything when it is dropped. Deterministic; new ones are empty, without any room.
#[derive(Debug)]
pub struct Memory {
    state: Mutex<State>,
    incarnation: Mutex<Incarnation>,
}

impl Default for Memory {
    fn default() -> Self {
        let first = Incarnation { id: IncarnationId::new(Uuid::from_u128(1)), started_at: Timestamp::MIN };
        Self { state: Mutex::default(), incarnation: Mutex::new(first) }
    }
}

impl Memory {
    /// Empty storage.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks at all that is stored, for checks.
    pub fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state())
    }

    fn incarnation(&self) -> MutexGuard<'_, Incarnation> {
        self.incarnation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A commit only ever swaps whole states in, so that what a panicking thread leaves behind is sound.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tables, each by its primary key.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs, reason = "each table is called by what its rows are")]
pub struct State {
    pub rooms: BTreeMap<RoomId, Versioned<Room>>,
    pub queue_tokens: BTreeMap<QueueTokenId, Versioned<QueueToken>>,
    /// Who left a line without being admitted, each with the number of the departure.
    pub departures: BTreeMap<QueueTokenId, i64>,
    /// What was deleted of the line of each room.
    pub pruned_tokens: BTreeMap<RoomId, Pruned>,
    /// When the holder of a place near the head last polled.
    pub last_seen: BTreeMap<QueueTokenId, Timestamp>,
    pub accounts: BTreeMap<UserId, Versioned<Account>>,
    pub entries: BTreeMap<EntryId, Entry>,
    pub reservations: BTreeMap<ReservationId, Versioned<Reservation>>,
    pub seats: BTreeMap<SeatId, Versioned<Seat>>,
    pub payments: BTreeMap<PaymentId, Payment>,
    pub concerts: BTreeMap<ConcertId, Concert>,
    pub performance_dates: BTreeMap<PerformanceDateId, PerformanceDate>,
    pub seat_feeds: BTreeMap<PerformanceDateId, FeedVersion>,
    /// Which seats each of the newest versions of a feed changed.
    pub seat_changes: BTreeMap<(PerformanceDateId, FeedVersion), Vec<SeatId>>,
    pub idempotency_records: BTreeMap<(UserId, IdempotencyKey), IdempotencyRecord>,
    pub audit_log: BTreeMap<AuditEntryId, AuditEntry>,
}

/// What was deleted of a line. Its numbers are not given again.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pruned {
    /// How many tokens.
    pub tokens: i64,
    /// How many of those had left without being admitted.
    pub departures: i64,
}

impl State {
    fn tokens_in(&self, room_id: RoomId) -> impl Iterator<Item = &QueueToken> {
        self.queue_tokens.values().map(|token| &token.value).filter(move |token| token.room_id == room_id)
    }

    /// The token stored as WAIT or ACTIVE, lapsed or not.
    fn live_token(&self, room_id: RoomId, user_id: UserId) -> Option<Versioned<QueueToken>> {
        let is_it = |token: &QueueToken| {
            token.room_id == room_id && token.user_id == user_id && is_stored_live(token.state)
        };
        self.queue_tokens.values().find(|token| is_it(&token.value)).copied()
    }

    fn waiting(&self, room_id: RoomId) -> u64 {
        count(self.tokens_in(room_id).filter(|token| token.state == QueueTokenState::Wait))
    }

    /// The last ticket that was given, 0 before the first.
    fn last_ticket(&self, room_id: RoomId) -> TicketNumber {
        self.tokens_in(room_id).map(|token| token.ticket).max().unwrap_or(TicketNumber(0))
    }

    /// The highest ticket that was ever admitted, 0 before the first.
    fn admitted_through(&self, room_id: RoomId) -> TicketNumber {
        let admitted = self.tokens_in(room_id).filter(|token| was_admitted(token));
        admitted.map(|token| token.ticket).max().unwrap_or(TicketNumber(0))
    }

    /// Who left this line without being admitted.
    fn departures_in(&self, room_id: RoomId) -> impl Iterator<Item = Departure> {
        self.tokens_in(room_id).filter_map(|token| {
            let number = *self.departures.get(&token.id)?;
            Some(Departure { number, ticket: token.ticket })
        })
    }

    /// What was deleted of this line.
    fn pruned_in(&self, room_id: RoomId) -> Pruned {
        self.pruned_tokens.get(&room_id).copied().unwrap_or_default()
    }

    /// How many left this line without being admitted.
    fn last_departure(&self, room_id: RoomId) -> i64 {
        let kept = i64::try_from(count(self.departures_in(room_id))).unwrap_or(i64::MAX);
        kept.saturating_add(self.pruned_in(room_id).departures)
    }

    fn active(&self, room_id: RoomId, now: Timestamp) -> u64 {
        count(self.tokens_in(room_id).filter(|token| token.status_at(now) == QueueTokenStatus::Active))
    }

    fn seats_of(&self, date: PerformanceDateId) -> impl Iterator<Item = &Seat> {
        self.seats.values().map(|seat| &seat.value).filter(move |seat| seat.performance_date_id == date)
    }
}

const fn is_stored_live(state: QueueTokenState) -> bool {
    !matches!(state, QueueTokenState::Expired { .. })
}

const fn was_admitted(token: &QueueToken) -> bool {
    match token.state {
        QueueTokenState::Wait => false,
        QueueTokenState::Active { .. } => true,
        QueueTokenState::Expired { activated_at, .. } => activated_at.is_some(),
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> u64 {
    items.fold(0, |counted, _| counted + 1)
}

fn at_most(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}
