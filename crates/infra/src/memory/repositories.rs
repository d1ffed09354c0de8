//! Loading aggregates.

use std::collections::BTreeSet;

use async_trait::async_trait;
use frontrow_domain::account::Account;
use frontrow_domain::concert::{Concert, PerformanceDate};
use frontrow_domain::idempotency::{IdempotencyKey, IdempotencyRecord};
use frontrow_domain::ports::{
    Accounts, Concerts, IdempotencyRecords, QueueTokens, Reservations, Rooms, Seats, StorageError,
};
use frontrow_domain::queue::{QueueToken, QueueTokenState, Room, RoomWithWaiters};
use frontrow_domain::reservation::{Holdings, Reservation, ReservationStatus};
use frontrow_domain::seat::Seat;
use frontrow_domain::{
    ConcertId, PerformanceDateId, QueueTokenId, ReservationId, RoomId, SeatId, Timestamp, UserId, Versioned,
};

use super::{Memory, State, at_most};

#[async_trait]
impl Rooms for Memory {
    async fn find(&self, id: RoomId) -> Result<Option<Versioned<Room>>, StorageError> {
        Ok(self.state().rooms.get(&id).copied())
    }

    async fn find_with_waiters(&self, id: RoomId) -> Result<Option<RoomWithWaiters>, StorageError> {
        let state = self.state();
        Ok(state.rooms.get(&id).map(|room| state.with_waiters(*room)))
    }

    async fn due(
        &self,
        now: Timestamp,
        after: Option<(Timestamp, RoomId)>,
        limit: u32,
    ) -> Result<Vec<RoomWithWaiters>, StorageError> {
        let state = self.state();
        let key = |found: &RoomWithWaiters| (found.room.value.next_tick_at, found.room.value.id);
        let rooms = state.rooms.values().map(|room| state.with_waiters(*room));
        let mut due: Vec<_> = rooms
            .filter(|found| found.has_work(now) && after.is_none_or(|after| key(found) > after))
            .collect();
        due.sort_by_key(key);
        due.truncate(at_most(limit));
        Ok(due)
    }
}

impl State {
    fn with_waiters(&self, room: Versioned<Room>) -> RoomWithWaiters {
        let waiting = self.tokens_in(room.value.id).filter(|token| token.state == QueueTokenState::Wait);
        let first = waiting.min_by_key(|token| token.ticket);
        RoomWithWaiters { room, waiting_since: first.map(|token| token.entered_at) }
    }
}

#[async_trait]
impl QueueTokens for Memory {
    async fn find(&self, id: QueueTokenId) -> Result<Option<Versioned<QueueToken>>, StorageError> {
        Ok(self.state().queue_tokens.get(&id).copied())
    }

    async fn find_live(
        &self,
        room_id: RoomId,
        user_id: UserId,
    ) -> Result<Option<Versioned<QueueToken>>, StorageError> {
        Ok(self.state().live_token(room_id, user_id))
    }
}

#[async_trait]
impl Concerts for Memory {
    async fn find(&self, id: ConcertId) -> Result<Option<Concert>, StorageError> {
        Ok(self.state().concerts.get(&id).cloned())
    }

    async fn find_date(
        &self,
        id: PerformanceDateId,
    ) -> Result<Option<(PerformanceDate, Concert)>, StorageError> {
        let state = self.state();
        let Some(date) = state.performance_dates.get(&id) else { return Ok(None) };
        Ok(state.concerts.get(&date.concert_id).map(|concert| (*date, concert.clone())))
    }

    async fn sales_starts(&self, id: ConcertId) -> Result<Vec<Option<Timestamp>>, StorageError> {
        let state = self.state();
        let dates = state.performance_dates.values().filter(|date| date.concert_id == id);
        Ok(dates.map(|date| date.on_sale_at).collect())
    }
}

#[async_trait]
impl Seats for Memory {
    async fn find_many(&self, ids: Vec<SeatId>) -> Result<Vec<Versioned<Seat>>, StorageError> {
        let state = self.state();
        let ids: BTreeSet<SeatId> = ids.into_iter().collect();
        Ok(ids.iter().filter_map(|id| state.seats.get(id).cloned()).collect())
    }
}

#[async_trait]
impl Reservations for Memory {
    async fn find(&self, id: ReservationId) -> Result<Option<Versioned<Reservation>>, StorageError> {
        let mut found = self.state().reservations.get(&id).cloned();
        if let Some(reservation) = &mut found {
            reservation.value.seats.sort_by_key(|seat| seat.seat_id);
        }
        Ok(found)
    }

    async fn holdings(
        &self,
        user_id: UserId,
        performance_date_id: PerformanceDateId,
        now: Timestamp,
    ) -> Result<Holdings, StorageError> {
        let state = self.state();
        let own = state.reservations.values().map(|row| &row.value).filter(|reservation| {
            (reservation.user_id, reservation.performance_date_id) == (user_id, performance_date_id)
        });
        let mut holdings = Holdings::default();
        for reservation in own {
            match (reservation.status, reservation.status_at(now)) {
                (_, ReservationStatus::Reserved | ReservationStatus::Done) => {
                    let seats = u32::try_from(reservation.seats.len()).unwrap_or(u32::MAX);
                    holdings.live_seats = holdings.live_seats.saturating_add(seats);
                }
                (ReservationStatus::Reserved, _) => holdings.lapsed.push(reservation.id),
                _ => {}
            }
        }
        Ok(holdings)
    }
}

#[async_trait]
impl Accounts for Memory {
    async fn find(&self, user_id: UserId) -> Result<Option<Versioned<Account>>, StorageError> {
        Ok(self.state().accounts.get(&user_id).copied())
    }
}

#[async_trait]
impl IdempotencyRecords for Memory {
    async fn find(
        &self,
        user_id: UserId,
        key: &IdempotencyKey,
    ) -> Result<Option<IdempotencyRecord>, StorageError> {
        Ok(self.state().idempotency_records.get(&(user_id, key.clone())).cloned())
    }
}
