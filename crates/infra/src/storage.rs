//! One storage adapter behind every port that it implements.

use std::sync::Arc;

use frontrow_domain::ports::{
    AccountQueries, Accounts, AdminQueries, Committer, ConcertQueries, Concerts, IdempotencyRecords,
    QueueQueries, QueueTokens, ReservationQueries, Reservations, Rooms, SeatFeeds, Seats, StorageHealth,
};

/// The ports of one storage adapter, each on its own, so that a use case takes only what it needs.
#[derive(Clone)]
#[allow(missing_docs, reason = "each field is the port of its type")]
pub struct Storage {
    pub committer: Arc<dyn Committer>,
    pub queue_tokens: Arc<dyn QueueTokens>,
    pub rooms: Arc<dyn Rooms>,
    pub concerts: Arc<dyn Concerts>,
    pub seats: Arc<dyn Seats>,
    pub reservations: Arc<dyn Reservations>,
    pub accounts: Arc<dyn Accounts>,
    pub idempotency_records: Arc<dyn IdempotencyRecords>,
    pub queue_queries: Arc<dyn QueueQueries>,
    pub concert_queries: Arc<dyn ConcertQueries>,
    pub seat_feeds: Arc<dyn SeatFeeds>,
    pub reservation_queries: Arc<dyn ReservationQueries>,
    pub account_queries: Arc<dyn AccountQueries>,
    pub admin_queries: Arc<dyn AdminQueries>,
    pub health: Arc<dyn StorageHealth>,
}

impl Storage {
    /// Puts an adapter behind its ports.
    pub fn new<A>(adapter: Arc<A>) -> Self
    where
        A: Committer
            + QueueTokens
            + Rooms
            + Concerts
            + Seats
            + Reservations
            + Accounts
            + IdempotencyRecords
            + QueueQueries
            + ConcertQueries
            + SeatFeeds
            + ReservationQueries
            + AccountQueries
            + AdminQueries
            + StorageHealth
            + 'static,
    {
        Self {
            committer: adapter.clone(),
            queue_tokens: adapter.clone(),
            rooms: adapter.clone(),
            concerts: adapter.clone(),
            seats: adapter.clone(),
            reservations: adapter.clone(),
            accounts: adapter.clone(),
            idempotency_records: adapter.clone(),
            queue_queries: adapter.clone(),
            concert_queries: adapter.clone(),
            seat_feeds: adapter.clone(),
            reservation_queries: adapter.clone(),
            account_queries: adapter.clone(),
            admin_queries: adapter.clone(),
            health: adapter,
        }
    }
}
