//! What the use cases need from outside: traits only, all of them object-safe.
//!
//! Repositories load single aggregates with their version, for decisions. Query ports answer reads with plain
//! structs shaped for the answer. The [`Committer`] writes.

mod health;
mod identity;
mod nodes;
mod queries;
mod repositories;

#[cfg(feature = "mocks")]
pub use health::MockStorageHealth;
pub use health::{StorageHealth, Writability};
pub use identity::{
    AccessClaims, AccessTokens, Clock, IdGenerator, InvalidAccessToken, InvalidWaitToken, NoIssuer, Role,
    TokenProvider, WaitClaims,
};
#[cfg(feature = "mocks")]
pub use identity::{MockAccessTokens, MockClock, MockIdGenerator, MockTokenProvider};
#[cfg(feature = "mocks")]
pub use nodes::MockNodeRegistry;
pub use nodes::{NodeRecord, NodeRegistry};
pub use queries::{
    AccountQueries, AdminQueries, ConcertQueries, DateFilter, DateSummary, Offer, PaymentView, QueueQueries,
    ReservationQueries, ReservationView, RoomOverview, Sales, SeatFeeds, SeatFilter, SeatNews, SeatsOfDate,
    StoredLines,
};
#[cfg(feature = "mocks")]
pub use queries::{
    MockAccountQueries, MockAdminQueries, MockConcertQueries, MockQueueQueries, MockReservationQueries,
    MockSeatFeeds,
};
pub use repositories::{
    Accounts, Committer, Concerts, IdempotencyRecords, QueueTokens, Reservations, Rooms, Seats, StorageError,
};
#[cfg(feature = "mocks")]
pub use repositories::{
    MockAccounts, MockCommitter, MockConcerts, MockIdempotencyRecords, MockQueueTokens, MockReservations,
    MockRooms, MockSeats,
};
