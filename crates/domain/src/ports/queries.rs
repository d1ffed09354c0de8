//! Read models: plain structs shaped for the answer. They judge deadlines by the `now` they are given.

use async_trait::async_trait;

use crate::account::{Entry, Ticket};
use crate::audit_log::AuditEntry;
use crate::concert::Concert;
use crate::ports::StorageError;
use crate::queue::{Departure, LineState, Room, TicketNumber};
use crate::reservation::ReservationStatus;
use crate::seat::{FeedVersion, Seat, SeatPlace, SeatUpdate};
use crate::{
    AuditEntryId, ConcertId, Incarnation, IncarnationId, Money, PaymentId, PerformanceDateId, ReservationId,
    RoomId, SeatId, Timestamp, UserId, Versioned,
};

/// Lines as stored at one moment, and the incarnation of the data that they are of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLines {
    /// The incarnation: never later than the lines.
    pub incarnation: Incarnation,
    /// The rooms with the counters of their lines, in any order.
    pub lines: Vec<LineState>,
}

/// Reads lines, and the incarnation of the data along with them.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait QueueQueries: Send + Sync {
    /// Every room with waiters, with the counters of its line, all of them from one snapshot. Rooms without cost nothing. Where
    /// storage itself can tell that its data has gone back, a new incarnation has begun before this returns.
    async fn lines(&self) -> Result<StoredLines, StorageError>;

    /// As [`QueueQueries::lines`], those of these rooms that there are. Of no room this is the incarnation alone.
    async fn lines_of(&self, rooms: Vec<RoomId>) -> Result<StoredLines, StorageError>;

    /// Begins a new incarnation at `now`, unless another one has followed on this one already: of any number of nodes that
    /// find out the same, one does it.
    async fn begin_incarnation(&self, after: IncarnationId, now: Timestamp) -> Result<(), StorageError>;

    /// Up to `limit` rooms with an id after `after`, by id.
    async fn rooms_after(&self, after: Option<RoomId>, limit: u32) -> Result<Vec<RoomId>, StorageError>;

    /// Who left each of these lines after the departure with this number, without being admitted: for each line the first
    /// `limit`, by number, without a gap. Departures are numbered in commit order, so that none comes in later before one
    /// that was read.
    async fn departures(
        &self,
        after: Vec<(RoomId, i64)>,
        limit: u32,
    ) -> Result<Vec<(RoomId, Departure)>, StorageError>;

    /// Up to `limit` tickets after `after`, by number, whose holders left the line without being admitted.
    async fn departed_tickets(
        &self,
        room_id: RoomId,
        after: TicketNumber,
        limit: u32,
    ) -> Result<Vec<TicketNumber>, StorageError>;
}

/// Which dates to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DateFilter {
    /// Those that start after now and have a seat left.
    Reservable,
    /// All.
    All,
}

/// A performance date with its seats counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DateSummary {
    /// Which date.
    pub id: PerformanceDateId,
    /// When it starts.
    pub starts_at: Timestamp,
    /// When its sales start.
    pub on_sale_at: Option<Timestamp>,
    /// How many seats it has.
    pub total_seats: u64,
    /// How many of them are free at the time asked.
    pub available_seats: u64,
}

/// What a concert has left to sell on the dates that start after the time asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offer {
    /// The earliest start among those dates; absent when there is none.
    pub next_date_at: Option<Timestamp>,
    /// The lowest price among their unsold seats, those stored as AVAILABLE or RESERVED; absent when there is none.
    pub from_price: Option<Money>,
}

impl Offer {
    /// Whether there are dates ahead, and every seat of them is sold. A held seat is unsold: its hold may end unpaid.
    #[must_use]
    pub const fn is_sold_out(&self) -> bool {
        self.next_date_at.is_some() && self.from_price.is_none()
    }
}

/// Which seats to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeatFilter {
    /// Those that are AVAILABLE.
    Available,
    /// All.
    All,
}

/// Reads concerts and dates. Seats have their own feed: [`SeatFeeds`].
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait ConcertQueries: Send + Sync {
    /// Up to `limit` concerts with an id after `after`, by id.
    async fn list_concerts(&self, after: Option<ConcertId>, limit: u32)
    -> Result<Vec<Concert>, StorageError>;

    /// The offers of these concerts at `now`, in any order; that of an unknown concert is empty.
    async fn offers(
        &self,
        ids: Vec<ConcertId>,
        now: Timestamp,
    ) -> Result<Vec<(ConcertId, Offer)>, StorageError>;

    /// The dates of a concert, by start.
    async fn list_dates(
        &self,
        concert_id: ConcertId,
        filter: DateFilter,
        now: Timestamp,
    ) -> Result<Vec<DateSummary>, StorageError>;
}

/// All seats of a date, with the version of its feed that they are of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeatsOfDate {
    /// The seats, in any order.
    pub seats: Vec<Versioned<Seat>>,
    /// The version of the feed.
    pub version: FeedVersion,
}

/// What the feed of a date tells since a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeatNews {
    /// Every seat that has changed since, once, as it is now.
    pub updates: Vec<SeatUpdate>,
    /// The version up to which that is.
    pub version: FeedVersion,
}

/// Reads the feeds of dates: a version that every change of seats moves on, in the transaction of the change, and which seats
/// each of the newest versions changed. That is how nodes keep their seat maps (ADR 0008).
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait SeatFeeds: Send + Sync {
    /// The versions that these dates have now, by id; unknown dates are left out.
    async fn versions(
        &self,
        ids: Vec<PerformanceDateId>,
    ) -> Result<Vec<(PerformanceDateId, FeedVersion)>, StorageError>;

    /// What has changed after `since`, from one snapshot. `None` when the feed does not reach back so far, or there is no
    /// such date: then all of it must be loaded.
    async fn news(&self, id: PerformanceDateId, since: FeedVersion)
    -> Result<Option<SeatNews>, StorageError>;

    /// All seats of a date, from one snapshot; `None` when there is no such date.
    async fn load(&self, id: PerformanceDateId) -> Result<Option<SeatsOfDate>, StorageError>;
}

/// A reservation as its user sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReservationView {
    /// Which reservation.
    pub id: ReservationId,
    /// Whose it is.
    pub user_id: UserId,
    /// The date its seats belong to.
    pub performance_date_id: PerformanceDateId,
    /// Its seats, by section, row and number.
    pub seats: Vec<(SeatId, SeatPlace)>,
    /// The sum of their prices.
    pub total_amount: Money,
    /// Its status at the time asked.
    pub status: ReservationStatus,
    /// The deadline of the hold (exclusive).
    pub hold_expires_at: Timestamp,
    /// The payment of a DONE reservation; absent in every other state.
    pub payment: Option<PaymentView>,
}

/// The payment of a reservation, as its user sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentView {
    /// Which payment.
    pub id: PaymentId,
    /// One ticket for each seat, in the order of the seats.
    pub tickets: Vec<Ticket>,
}

/// Reads reservations.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait ReservationQueries: Send + Sync {
    /// The reservation with this id, if it is this user's.
    async fn find_own(
        &self,
        user_id: UserId,
        id: ReservationId,
        now: Timestamp,
    ) -> Result<Option<ReservationView>, StorageError>;

    /// Up to `limit` reservations of this user with an id before `before`, newest id first.
    async fn list_own(
        &self,
        user_id: UserId,
        before: Option<ReservationId>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<ReservationView>, StorageError>;
}

/// Reads accounts.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait AccountQueries: Send + Sync {
    /// Up to `limit` entries of this user with a number below `before`, newest first.
    async fn list_entries(
        &self,
        user_id: UserId,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Entry>, StorageError>;
}

/// A room as operators see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomOverview {
    /// The room.
    pub room: Room,
    /// How many wait.
    pub waiting: u64,
    /// How many are ACTIVE at the time asked.
    pub active: u64,
}

/// How a date sells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sales {
    /// Free seats.
    pub available: u64,
    /// Held seats.
    pub reserved: u64,
    /// Sold seats.
    pub unavailable: u64,
    /// The prices of the sold seats.
    pub amount_sold: Money,
}

/// Reads for operators.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait AdminQueries: Send + Sync {
    /// Up to `limit` rooms with an id after `after`, by id.
    async fn list_rooms(
        &self,
        after: Option<RoomId>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<RoomOverview>, StorageError>;

    /// One room.
    async fn find_room(&self, id: RoomId, now: Timestamp) -> Result<Option<RoomOverview>, StorageError>;

    /// The sales of a date; `None` when there is no such date.
    async fn sales(&self, id: PerformanceDateId, now: Timestamp) -> Result<Option<Sales>, StorageError>;

    /// Up to `limit` entries of what operators did with an id before `before`, newest id first.
    async fn list_audit_log(
        &self,
        before: Option<AuditEntryId>,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, StorageError>;
}
