//! Loading aggregates for decisions, and writing what was decided.

use async_trait::async_trait;

use crate::account::Account;
use crate::concert::{Concert, PerformanceDate};
use crate::idempotency::{IdempotencyKey, IdempotencyRecord};
use crate::queue::{QueueToken, Room, RoomWithWaiters};
use crate::reservation::{Holdings, Reservation};
use crate::seat::Seat;
use crate::unit_of_work::{CommitError, Committed, Source, UnitOfWork};
use crate::{
    ConcertId, PerformanceDateId, QueueTokenId, ReservationId, RoomId, SeatId, Timestamp, UserId, Versioned,
};

/// Why storage could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Storage cannot be reached, or has no room for more work.
    #[error("storage is unavailable")]
    Unavailable(#[source] Source),
    /// A stored row makes no sense.
    #[error("a stored row is corrupt: {0}")]
    Corrupt(String),
}

/// Writes units of work.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait Committer: Send + Sync {
    /// Writes all of `work` in one transaction, or nothing; returns once it is durable. A caller that goes away
    /// does not withdraw it.
    ///
    /// # Errors
    /// [`CommitError`]; only [`CommitError::OutcomeUnknown`] leaves open whether it was written.
    async fn commit(&self, work: UnitOfWork) -> Result<Committed, CommitError>;
}

/// Loads queue tokens.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait QueueTokens: Send + Sync {
    /// The token with this id.
    async fn find(&self, id: QueueTokenId) -> Result<Option<Versioned<QueueToken>>, StorageError>;

    /// The token of this user in this room that is stored as WAIT or ACTIVE; there is at most one. It may be lapsed.
    async fn find_live(
        &self,
        room_id: RoomId,
        user_id: UserId,
    ) -> Result<Option<Versioned<QueueToken>>, StorageError>;
}

/// Loads rooms.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait Rooms: Send + Sync {
    /// The room with this id.
    async fn find(&self, id: RoomId) -> Result<Option<Versioned<Room>>, StorageError>;

    /// The room with this id and its first waiter.
    async fn find_with_waiters(&self, id: RoomId) -> Result<Option<RoomWithWaiters>, StorageError>;

    /// Up to `limit` rooms after `after` in which the scheduler has work at `now`. All of them have waiters; a room without
    /// any costs nothing. OPEN ones, and AUTO ones with a tick that is due for the first waiter, or with one that lies too far
    /// ahead, see [`Room::caught_up`]. By the stored next tick and id, so the longest due come first.
    async fn due(
        &self,
        now: Timestamp,
        after: Option<(Timestamp, RoomId)>,
        limit: u32,
    ) -> Result<Vec<RoomWithWaiters>, StorageError>;
}

/// Loads concerts and their dates, which never change.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait Concerts: Send + Sync {
    /// The concert with this id.
    async fn find(&self, id: ConcertId) -> Result<Option<Concert>, StorageError>;

    /// The date with this id, and the concert it belongs to.
    async fn find_date(
        &self,
        id: PerformanceDateId,
    ) -> Result<Option<(PerformanceDate, Concert)>, StorageError>;

    /// When the sales of each date of a concert start, as of now; `None` for one that is on sale from the beginning.
    async fn sales_starts(&self, id: ConcertId) -> Result<Vec<Option<Timestamp>>, StorageError>;
}

/// Loads seats.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait Seats: Send + Sync {
    /// The seats with these ids, ordered by id; unknown ids are left out.
    async fn find_many(&self, ids: Vec<SeatId>) -> Result<Vec<Versioned<Seat>>, StorageError>;
}

/// Loads reservations.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait Reservations: Send + Sync {
    /// The reservation with this id. Its seats are ordered by id.
    async fn find(&self, id: ReservationId) -> Result<Option<Versioned<Reservation>>, StorageError>;

    /// What the user has of this date at `now`.
    async fn holdings(
        &self,
        user_id: UserId,
        performance_date_id: PerformanceDateId,
        now: Timestamp,
    ) -> Result<Holdings, StorageError>;
}

/// Loads accounts.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait Accounts: Send + Sync {
    /// The account of this user; absent before the first entry.
    async fn find(&self, user_id: UserId) -> Result<Option<Versioned<Account>>, StorageError>;
}

/// Loads answers that were given before.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait IdempotencyRecords: Send + Sync {
    /// The record of this user's key, expired or not.
    async fn find(
        &self,
        user_id: UserId,
        key: &IdempotencyKey,
    ) -> Result<Option<IdempotencyRecord>, StorageError>;
}
