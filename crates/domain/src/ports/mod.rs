//! What the use cases need from outside: traits only, all of them object-safe.
//!
//! Repositories load single aggregates with their version, for decisions. Query ports answer reads with plain
//! structs shaped for the answer. The [`Committer`] writes.

mod identity;
mod queries;
mod repositories;

pub use identity::{
    AccessClaims, AccessTokens, Clock, IdGenerator, InvalidAccessToken, InvalidWaitToken, NoIssuer, Role,
    TokenProvider, WaitClaims,
};
#[cfg(feature = "mocks")]
pub use identity::{MockAccessTokens, MockClock, MockIdGenerator, MockTokenProvider};
pub use queries::{
    AccountQueries, AdminQueries, ConcertQueries, DateFilter, DateSummary, Offer, PaymentView, QueueQueries,
    ReservationQueries, ReservationView, RoomOverview, Sales, SeatFeeds, SeatFilter, SeatNews, SeatsOfDate,
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
