//! Storage that lets others go first, now and then, before it reads or writes: so that operations that run together on one
//! thread meet in every way, and in the same way each time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use frontrow_domain::account::Account;
use frontrow_domain::idempotency::{IdempotencyKey, IdempotencyRecord};
use frontrow_domain::ports::{
    Accounts, Committer, IdempotencyRecords, QueueTokens, Reservations, Rooms, Seats, StorageError,
};
use frontrow_domain::queue::{QueueToken, Room, RoomWithWaiters};
use frontrow_domain::reservation::{Holdings, Reservation};
use frontrow_domain::seat::Seat;
use frontrow_domain::unit_of_work::{CommitError, Committed};
use frontrow_domain::{
    PerformanceDateId, QueueTokenId, ReservationId, RoomId, SeatId, Timestamp, UnitOfWork, UserId, Versioned,
};
use frontrow_infra::Storage;

/// How many turns are let pass, each as often. The long ones let others do all of their work meanwhile.
const TURNS: [u64; 6] = [0, 0, 1, 2, 3, 12];

struct Pausing {
    storage: Storage,
    seed: Arc<AtomicU64>,
}

/// Storage that pauses by this seed, which whoever holds it may set anew.
pub(crate) fn pausing(storage: Storage, seed: Arc<AtomicU64>) -> Storage {
    let pausing = Arc::new(Pausing { storage: storage.clone(), seed });
    Storage {
        committer: pausing.clone(),
        queue_tokens: pausing.clone(),
        rooms: pausing.clone(),
        seats: pausing.clone(),
        reservations: pausing.clone(),
        accounts: pausing.clone(),
        idempotency_records: pausing,
        ..storage
    }
}

impl Pausing {
    async fn pause(&self) {
        // SplitMix64 (Steele, Lea, Flood 2014).
        let seed = self.seed.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let chosen = usize::try_from((mixed ^ (mixed >> 31)) % 6).unwrap();
        for _ in 0..TURNS[chosen] {
            tokio::task::yield_now().await;
        }
    }
}

#[async_trait]
impl Committer for Pausing {
    async fn commit(&self, work: UnitOfWork) -> Result<Committed, CommitError> {
        self.pause().await;
        let committed = self.storage.committer.commit(work).await;
        self.pause().await;
        committed
    }
}

#[async_trait]
impl QueueTokens for Pausing {
    async fn find(&self, id: QueueTokenId) -> Result<Option<Versioned<QueueToken>>, StorageError> {
        self.pause().await;
        self.storage.queue_tokens.find(id).await
    }

    async fn find_live(
        &self,
        room_id: RoomId,
        user_id: UserId,
    ) -> Result<Option<Versioned<QueueToken>>, StorageError> {
        self.pause().await;
        self.storage.queue_tokens.find_live(room_id, user_id).await
    }
}

#[async_trait]
impl Rooms for Pausing {
    async fn find(&self, id: RoomId) -> Result<Option<Versioned<Room>>, StorageError> {
        self.pause().await;
        self.storage.rooms.find(id).await
    }

    async fn find_with_waiters(&self, id: RoomId) -> Result<Option<RoomWithWaiters>, StorageError> {
        self.pause().await;
        self.storage.rooms.find_with_waiters(id).await
    }

    async fn due(
        &self,
        now: Timestamp,
        after: Option<(Timestamp, RoomId)>,
        limit: u32,
    ) -> Result<Vec<RoomWithWaiters>, StorageError> {
        self.pause().await;
        self.storage.rooms.due(now, after, limit).await
    }
}

#[async_trait]
impl Seats for Pausing {
    async fn find_many(&self, ids: Vec<SeatId>) -> Result<Vec<Versioned<Seat>>, StorageError> {
        self.pause().await;
        self.storage.seats.find_many(ids).await
    }
}

#[async_trait]
impl Reservations for Pausing {
    async fn find(&self, id: ReservationId) -> Result<Option<Versioned<Reservation>>, StorageError> {
        self.pause().await;
        self.storage.reservations.find(id).await
    }

    async fn holdings(
        &self,
        user_id: UserId,
        performance_date_id: PerformanceDateId,
        now: Timestamp,
    ) -> Result<Holdings, StorageError> {
        self.pause().await;
        self.storage.reservations.holdings(user_id, performance_date_id, now).await
    }
}

#[async_trait]
impl Accounts for Pausing {
    async fn find(&self, user_id: UserId) -> Result<Option<Versioned<Account>>, StorageError> {
        self.pause().await;
        self.storage.accounts.find(user_id).await
    }
}

#[async_trait]
impl IdempotencyRecords for Pausing {
    async fn find(
        &self,
        user_id: UserId,
        key: &IdempotencyKey,
    ) -> Result<Option<IdempotencyRecord>, StorageError> {
        self.pause().await;
        self.storage.idempotency_records.find(user_id, key).await
    }
}
