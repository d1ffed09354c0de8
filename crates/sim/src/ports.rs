//! The ports of one node, in front of the memory adapter: each call gives others their turn before and after, and may go
//! wrong on either side.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use frontrow_domain::account::{Account, Entry};
use frontrow_domain::audit_log::AuditEntry;
use frontrow_domain::concert::{Concert, PerformanceDate};
use frontrow_domain::idempotency::{IdempotencyKey, IdempotencyRecord};
use frontrow_domain::ports::{
    AccountQueries, Accounts, AdminQueries, Clock, Committer, ConcertQueries, Concerts, DateFilter,
    DateSummary, IdGenerator, IdempotencyRecords, Offer, QueueQueries, QueueTokens, ReservationQueries,
    ReservationView, Reservations, RoomOverview, Rooms, Sales, SeatFeeds, SeatNews, Seats, SeatsOfDate,
    StorageError, StorageHealth, StoredLines, Writability,
};
use frontrow_domain::queue::{Departure, QueueToken, Room, RoomWithWaiters, TicketNumber};
use frontrow_domain::reservation::{Holdings, Reservation};
use frontrow_domain::seat::{FeedVersion, Seat};
use frontrow_domain::unit_of_work::{CommitError, Committed};
use frontrow_domain::{
    AuditEntryId, ConcertId, IncarnationId, PerformanceDateId, QueueTokenId, ReservationId, RoomId, SeatId,
    Timestamp, UnitOfWork, UserId, Versioned,
};
use frontrow_infra::Storage;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::faults::Fault;
use crate::monitor::{Monitor, Unit};
use crate::mutation::Mutation;
use crate::world::{About, NodeRun, Owner, World};

/// A node's own clock: wrong by some time, but never set back.
#[derive(Clone)]
pub(crate) struct NodeClock {
    pub(crate) world: World,
    pub(crate) ahead_micros: i64,
}

impl Clock for NodeClock {
    fn now(&self) -> Timestamp {
        self.world.time(self.ahead_micros)
    }
}

/// Ids by the clock of the node and by chance.
pub(crate) struct DrawnIds(pub(crate) NodeClock);

impl IdGenerator for DrawnIds {
    fn next_id(&self) -> Uuid {
        self.0.world.id(self.0.now())
    }
}

/// What every port of a node is made of.
#[derive(Clone)]
pub(crate) struct NodePorts {
    pub(crate) run: NodeRun,
    pub(crate) clock: NodeClock,
    /// The memory adapter itself.
    pub(crate) storage: Storage,
    pub(crate) monitor: Arc<Monitor>,
    pub(crate) mutation: Option<Mutation>,
    /// Longer than a hold and an admission last.
    pub(crate) past_deadline: Duration,
}

impl NodePorts {
    /// All ports of the node. One that is not here goes straight to memory.
    pub(crate) fn storage(&self) -> Storage {
        let ports = Arc::new(self.clone());
        let mut storage = self.storage.clone();
        storage.committer = ports.clone();
        storage.queue_tokens = ports.clone();
        storage.rooms = ports.clone();
        storage.concerts = ports.clone();
        storage.seats = ports.clone();
        storage.reservations = ports.clone();
        storage.accounts = ports.clone();
        storage.idempotency_records = ports.clone();
        storage.queue_queries = ports.clone();
        storage.concert_queries = ports.clone();
        storage.seat_feeds = ports.clone();
        storage.reservation_queries = ports.clone();
        storage.account_queries = ports.clone();
        storage.admin_queries = ports.clone();
        storage.health = ports;
        storage
    }

    const fn world(&self) -> &World {
        &self.clock.world
    }

    /// The way to storage or back: others have their turn, and time passes.
    async fn travel(&self) {
        let world = self.world();
        world.pause().await;
        if world.strikes(Fault::Slow) {
            world.count(Fault::Slow);
            world.sleep(world.millis(500, 6_000)).await;
        } else if world.chance(0.3) {
            world.sleep(world.millis(1, 30)).await;
        }
    }

    fn is_away(&self) -> bool {
        self.monitor.is_away(self.run.node, self.world().elapsed())
    }

    async fn read<T>(
        &self,
        answer: impl Future<Output = Result<T, StorageError>> + Send,
    ) -> Result<T, StorageError> {
        self.travel().await;
        if self.is_away() {
            return Err(StorageError::Unavailable("storage is away".into()));
        }
        if self.world().strikes(Fault::ReadFails) {
            self.world().count(Fault::ReadFails);
            return Err(StorageError::Unavailable("an injected failure".into()));
        }
        let answer = answer.await;
        self.travel().await;
        answer
    }

    /// Writes a unit, or not, and says what came of it, or not.
    async fn write(&self, unit: Unit) -> Result<Committed, CommitError> {
        let world = self.world();
        self.travel().await;
        if world.strikes(Fault::PastDeadline) {
            world.count(Fault::PastDeadline);
            world.note(format_args!("{}: {} takes very long", self.run, unit.told()));
            world.sleep(self.past_deadline).await;
        }
        if self.is_away() {
            return Err(CommitError::Unavailable("storage is away".into()));
        }
        if let Some(error) = self.turned_away(&unit.work) {
            world.note(format_args!("{}: {}: {error}", self.run, unit.told()));
            return Err(error);
        }
        let written = self.apply(unit.clone()).await;
        self.travel().await;
        if written.is_ok() && world.strikes(Fault::AnswerLost) {
            world.count(Fault::AnswerLost);
            world.note(format_args!("{}: the answer to {} is lost", self.run, unit.told()));
            return Err(match self.mutation {
                Some(Mutation::LostAnswerIsFailure) => CommitError::Unavailable("the answer is lost".into()),
                _ => CommitError::OutcomeUnknown("the answer is lost".into()),
            });
        }
        written
    }

    /// What goes wrong before anything is written.
    fn turned_away(&self, work: &UnitOfWork) -> Option<CommitError> {
        let world = self.world();
        if world.strikes(Fault::Unavailable) {
            world.count(Fault::Unavailable);
            return Some(CommitError::Unavailable("an injected failure".into()));
        }
        if world.strikes(Fault::UnitLost) {
            world.count(Fault::UnitLost);
            return Some(CommitError::OutcomeUnknown("the unit is lost".into()));
        }
        let expected = work.expected_versions();
        let (aggregate, _) = world.pick(&expected)?;
        if world.strikes(Fault::Conflict) {
            world.count(Fault::Conflict);
            return Some(CommitError::Conflict(*aggregate));
        }
        None
    }

    async fn apply(&self, unit: Unit) -> Result<Committed, CommitError> {
        match self.mutation {
            None => {
                let written = self.storage.committer.commit(unit.work.clone()).await;
                self.monitor.observe(&unit, &written);
                written
            }
            Some(mutation) => mutation.apply(self, unit).await,
        }
    }
}

#[async_trait]
impl Committer for NodePorts {
    /// By a task of its own: a caller that goes away does not withdraw the unit.
    async fn commit(&self, work: UnitOfWork) -> Result<Committed, CommitError> {
        let attempt = self.world().current().and_then(|about| about.attempt);
        let unit = Unit { run: self.run, clock: self.clock.clone(), attempt, work };
        let (tell, told) = oneshot::channel();
        let ports = self.clone();
        let about = About { attempt, ..About::of(Owner::Node(self.run)) };
        self.world().spawn(about, async move {
            // The caller may have gone away.
            let _ = tell.send(ports.write(unit).await);
        });
        told.await.unwrap_or_else(|gone| Err(CommitError::OutcomeUnknown(gone.into())))
    }
}

#[async_trait]
impl Rooms for NodePorts {
    async fn find(&self, id: RoomId) -> Result<Option<Versioned<Room>>, StorageError> {
        self.read(self.storage.rooms.find(id)).await
    }

    async fn find_with_waiters(&self, id: RoomId) -> Result<Option<RoomWithWaiters>, StorageError> {
        self.read(self.storage.rooms.find_with_waiters(id)).await
    }

    async fn due(
        &self,
        now: Timestamp,
        after: Option<(Timestamp, RoomId)>,
        limit: u32,
    ) -> Result<Vec<RoomWithWaiters>, StorageError> {
        self.read(self.storage.rooms.due(now, after, limit)).await
    }
}

#[async_trait]
impl QueueTokens for NodePorts {
    async fn find(&self, id: QueueTokenId) -> Result<Option<Versioned<QueueToken>>, StorageError> {
        let token = self.read(self.storage.queue_tokens.find(id)).await?;
        Ok(match self.mutation {
            None => token,
            Some(mutation) => token.and_then(|token| mutation.read_token(self.world(), token)),
        })
    }

    async fn find_live(
        &self,
        room_id: RoomId,
        user_id: UserId,
    ) -> Result<Option<Versioned<QueueToken>>, StorageError> {
        self.read(self.storage.queue_tokens.find_live(room_id, user_id)).await
    }
}

#[async_trait]
impl Concerts for NodePorts {
    async fn find(&self, id: ConcertId) -> Result<Option<Concert>, StorageError> {
        self.read(self.storage.concerts.find(id)).await
    }

    async fn find_date(
        &self,
        id: PerformanceDateId,
    ) -> Result<Option<(PerformanceDate, Concert)>, StorageError> {
        self.read(self.storage.concerts.find_date(id)).await
    }

    async fn sales_starts(&self, id: ConcertId) -> Result<Vec<Option<Timestamp>>, StorageError> {
        self.read(self.storage.concerts.sales_starts(id)).await
    }
}

#[async_trait]
impl Seats for NodePorts {
    async fn find_many(&self, ids: Vec<SeatId>) -> Result<Vec<Versioned<Seat>>, StorageError> {
        self.read(self.storage.seats.find_many(ids)).await
    }
}

#[async_trait]
impl Reservations for NodePorts {
    async fn find(&self, id: ReservationId) -> Result<Option<Versioned<Reservation>>, StorageError> {
        self.read(self.storage.reservations.find(id)).await
    }

    async fn holdings(
        &self,
        user_id: UserId,
        performance_date_id: PerformanceDateId,
        now: Timestamp,
    ) -> Result<Holdings, StorageError> {
        let mut holdings =
            self.read(self.storage.reservations.holdings(user_id, performance_date_id, now)).await?;
        if self.mutation == Some(Mutation::LapsedHoldsLeft) {
            holdings.lapsed.clear();
        }
        Ok(holdings)
    }
}

#[async_trait]
impl Accounts for NodePorts {
    async fn find(&self, user_id: UserId) -> Result<Option<Versioned<Account>>, StorageError> {
        self.read(self.storage.accounts.find(user_id)).await
    }
}

#[async_trait]
impl IdempotencyRecords for NodePorts {
    async fn find(
        &self,
        user_id: UserId,
        key: &IdempotencyKey,
    ) -> Result<Option<IdempotencyRecord>, StorageError> {
        let record = self.read(self.storage.idempotency_records.find(user_id, key)).await?;
        Ok(match self.mutation {
            None => record,
            Some(mutation) => record.and_then(|record| mutation.read_record(record)),
        })
    }
}

#[async_trait]
impl QueueQueries for NodePorts {
    async fn lines(&self) -> Result<StoredLines, StorageError> {
        self.read(self.storage.queue_queries.lines()).await
    }

    async fn lines_of(&self, rooms: Vec<RoomId>) -> Result<StoredLines, StorageError> {
        self.read(self.storage.queue_queries.lines_of(rooms)).await
    }

    async fn begin_incarnation(&self, after: IncarnationId, now: Timestamp) -> Result<(), StorageError> {
        self.read(self.storage.queue_queries.begin_incarnation(after, now)).await
    }

    async fn rooms_after(&self, after: Option<RoomId>, limit: u32) -> Result<Vec<RoomId>, StorageError> {
        self.read(self.storage.queue_queries.rooms_after(after, limit)).await
    }

    async fn departures(
        &self,
        after: Vec<(RoomId, i64)>,
        limit: u32,
    ) -> Result<Vec<(RoomId, Departure)>, StorageError> {
        self.read(self.storage.queue_queries.departures(after, limit)).await
    }

    async fn departed_tickets(
        &self,
        room_id: RoomId,
        after: TicketNumber,
        limit: u32,
    ) -> Result<Vec<TicketNumber>, StorageError> {
        self.read(self.storage.queue_queries.departed_tickets(room_id, after, limit)).await
    }
}

#[async_trait]
impl ConcertQueries for NodePorts {
    async fn list_concerts(
        &self,
        after: Option<ConcertId>,
        limit: u32,
    ) -> Result<Vec<Concert>, StorageError> {
        self.read(self.storage.concert_queries.list_concerts(after, limit)).await
    }

    async fn offers(
        &self,
        ids: Vec<ConcertId>,
        now: Timestamp,
    ) -> Result<Vec<(ConcertId, Offer)>, StorageError> {
        self.read(self.storage.concert_queries.offers(ids, now)).await
    }

    async fn list_dates(
        &self,
        concert_id: ConcertId,
        filter: DateFilter,
        now: Timestamp,
    ) -> Result<Vec<DateSummary>, StorageError> {
        self.read(self.storage.concert_queries.list_dates(concert_id, filter, now)).await
    }
}

#[async_trait]
impl SeatFeeds for NodePorts {
    async fn versions(
        &self,
        ids: Vec<PerformanceDateId>,
    ) -> Result<Vec<(PerformanceDateId, FeedVersion)>, StorageError> {
        self.read(self.storage.seat_feeds.versions(ids)).await
    }

    async fn news(
        &self,
        id: PerformanceDateId,
        since: FeedVersion,
    ) -> Result<Option<SeatNews>, StorageError> {
        let mut news = self.read(self.storage.seat_feeds.news(id, since)).await?;
        if let (Some(mutation), Some(news)) = (self.mutation, &mut news) {
            news.updates.iter_mut().for_each(|update| update.state = mutation.read_seat(update.state));
        }
        Ok(news)
    }

    async fn load(&self, id: PerformanceDateId) -> Result<Option<SeatsOfDate>, StorageError> {
        let mut seats = self.read(self.storage.seat_feeds.load(id)).await?;
        if let (Some(mutation), Some(of_date)) = (self.mutation, &mut seats) {
            of_date.seats.iter_mut().for_each(|row| row.value.state = mutation.read_seat(row.value.state));
        }
        Ok(seats)
    }
}

#[async_trait]
impl ReservationQueries for NodePorts {
    async fn find_own(
        &self,
        user_id: UserId,
        id: ReservationId,
        now: Timestamp,
    ) -> Result<Option<ReservationView>, StorageError> {
        self.read(self.storage.reservation_queries.find_own(user_id, id, now)).await
    }

    async fn list_own(
        &self,
        user_id: UserId,
        before: Option<ReservationId>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<ReservationView>, StorageError> {
        self.read(self.storage.reservation_queries.list_own(user_id, before, limit, now)).await
    }
}

#[async_trait]
impl AccountQueries for NodePorts {
    async fn list_entries(
        &self,
        user_id: UserId,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Entry>, StorageError> {
        self.read(self.storage.account_queries.list_entries(user_id, before, limit)).await
    }
}

#[async_trait]
impl AdminQueries for NodePorts {
    async fn list_rooms(
        &self,
        after: Option<RoomId>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<RoomOverview>, StorageError> {
        self.read(self.storage.admin_queries.list_rooms(after, limit, now)).await
    }

    async fn find_room(&self, id: RoomId, now: Timestamp) -> Result<Option<RoomOverview>, StorageError> {
        self.read(self.storage.admin_queries.find_room(id, now)).await
    }

    async fn sales(&self, id: PerformanceDateId, now: Timestamp) -> Result<Option<Sales>, StorageError> {
        self.read(self.storage.admin_queries.sales(id, now)).await
    }

    async fn list_audit_log(
        &self,
        before: Option<AuditEntryId>,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, StorageError> {
        self.read(self.storage.admin_queries.list_audit_log(before, limit)).await
    }
}

#[async_trait]
impl StorageHealth for NodePorts {
    async fn writability(&self) -> Result<Writability, StorageError> {
        self.read(self.storage.health.writability()).await
    }
}
