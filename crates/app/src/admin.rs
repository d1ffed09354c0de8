//! What operators do: concerts, dates, rooms, sales. Whatever they change is recorded in the unit of work that changes it.
//!
//! Reads and writes: a concert is 1 commit; a date 1 read and 1 commit, and 2 reads more where its concert has a room of its own;
//! a changed room 2 reads and 1 commit; admitting 1 read and 1 commit; rooms, sales and the audit log 1 read.

use std::sync::Arc;

use frontrow_domain::audit_log::{Acting, AuditEntry};
use frontrow_domain::concert::{Concert, NeverOnSale, PerformanceDate, SeatPlan};
use frontrow_domain::ports::{AdminQueries, Clock, Concerts, IdGenerator, RoomOverview, Rooms, Sales};
use frontrow_domain::queue::{
    DEFAULT_ROOM_ID, InvalidPolicy, Room, RoomMode, RoomPolicy, RoomPolicyPatch, RoomWithWaiters, SalePaused,
    sales_opening,
};
use frontrow_domain::unit_of_work::{Command, CommitError, PauseTokens};
use frontrow_domain::{
    AuditEntryId, Change, ConcertId, Label, PerformanceDateId, RoomId, SeatId, Timestamp, UnitOfWork, UserId,
    Versioned,
};

use crate::admission::admitting;
use crate::{Admission, Failure, MAX_ATTEMPTS};

/// A date to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDate {
    /// Whose date.
    pub concert_id: ConcertId,
    /// When the performance starts.
    pub starts_at: Timestamp,
    /// When sales start; at once when absent.
    pub on_sale_at: Option<Timestamp>,
    /// Its seats.
    pub seats: SeatPlan,
}

/// Why an operator was refused. Nothing changed then.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// There is no such concert.
    #[error("there is no such concert")]
    ConcertNotFound,
    /// There is no such date.
    #[error("there is no such performance date")]
    PerformanceDateNotFound,
    /// There is no such room.
    #[error("there is no such waiting room")]
    RoomNotFound,
    /// See [`InvalidPolicy`].
    #[error(transparent)]
    InvalidPolicy(#[from] InvalidPolicy),
    /// See [`NeverOnSale`].
    #[error(transparent)]
    NeverOnSale(#[from] NeverOnSale),
    /// See [`SalePaused`].
    #[error(transparent)]
    SalePaused(#[from] SalePaused),
    /// Others were faster, again and again.
    #[error("the room kept changing")]
    Conflict,
    /// See [`Failure`].
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// What operators do.
#[derive(Clone)]
#[allow(missing_docs, reason = "each field is the port of its type")]
pub struct AdminService {
    pub admission: Admission,
    pub rooms: Arc<dyn Rooms>,
    pub concerts: Arc<dyn Concerts>,
    pub queries: Arc<dyn AdminQueries>,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn IdGenerator>,
}

impl AdminService {
    /// Makes a concert for the operator `by`, with a room of its own if a policy is given.
    ///
    /// # Errors
    /// [`AdminError::InvalidPolicy`] and [`AdminError::Failure`].
    pub async fn create_concert(
        &self,
        by: UserId,
        title: Label,
        venue: Label,
        policy: Option<&RoomPolicyPatch>,
    ) -> Result<Concert, AdminError> {
        let mut work = UnitOfWork::default();
        let now = self.clock.now();
        let mut room_id = DEFAULT_ROOM_ID;
        let own_policy = policy.map(|patch| RoomPolicy::default().patched(patch)).transpose()?;
        if let Some(policy) = own_policy {
            room_id = RoomId::new(self.ids.next_id());
            work.rooms.push(Change::Insert(Room::new(room_id, policy, now)));
        }
        let concert = Concert { id: ConcertId::new(self.ids.next_id()), title, venue, room_id };
        work.concerts.push(concert.clone());
        work.audit_log.push(self.acting(by, now).creates_concert(&concert, own_policy.as_ref()));
        self.admission.committer.commit(work).await.map_err(Failure::from)?;
        Ok(concert)
    }

    /// Makes a date with all its seats for the operator `by`, and says how many those are.
    ///
    /// # Errors
    /// [`AdminError::ConcertNotFound`], [`AdminError::NeverOnSale`], [`AdminError::Conflict`] and [`AdminError::Failure`].
    pub async fn create_date(
        &self,
        by: UserId,
        new: NewDate,
    ) -> Result<(PerformanceDateId, u64), AdminError> {
        let id = PerformanceDateId::new(self.ids.next_id());
        let date = PerformanceDate::new(id, new.concert_id, new.starts_at, new.on_sale_at)?;
        let concert = self.concerts.find(new.concert_id).await.map_err(Failure::from)?;
        let concert = concert.ok_or(AdminError::ConcertNotFound)?;
        for _ in 0..MAX_ATTEMPTS {
            let now = self.clock.now();
            let room = self.reopened(&concert, new.on_sale_at, now).await?;
            let seats = new.seats.seats(id, || SeatId::new(self.ids.next_id()));
            let work = UnitOfWork {
                rooms: room.into_iter().map(Change::Update).collect(),
                audit_log: vec![self.acting(by, now).creates_date(&date, &new.seats)],
                performance_dates: vec![date],
                seats: seats.into_iter().map(Change::Insert).collect(),
                ..UnitOfWork::default()
            };
            match self.admission.committer.commit(work).await {
                Ok(_) => return Ok((id, new.seats.total_seats())),
                Err(CommitError::Conflict(_)) => {}
                Err(error) => return Err(Failure::from(error).into()),
            }
        }
        Err(AdminError::Conflict)
    }

    /// The own room of a concert, opened by its dates and one more that goes on sale at `on_sale_at`. It is written even where
    /// nothing changes: its version stands for the dates, which are read after it. `None` for the global room.
    async fn reopened(
        &self,
        concert: &Concert,
        on_sale_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Option<Versioned<Room>>, AdminError> {
        if concert.room_id == DEFAULT_ROOM_ID {
            return Ok(None);
        }
        let room = self.find_room(concert.room_id).await?;
        let mut starts = self.concerts.sales_starts(concert.id).await.map_err(Failure::from)?;
        starts.push(on_sale_at);
        let reopened = room.value.with_sales_opening(sales_opening(starts, now), now);
        Ok(Some(Versioned::new(reopened, room.version)))
    }

    /// Changes a room's policy for the operator `by`. A room that is OPEN by it admits its waiters at once, as far as one pass goes.
    /// A change to PAUSED begins the pause of the room's ACTIVE tokens, and one from PAUSED ends it, in the same transaction.
    ///
    /// # Errors
    /// [`AdminError::RoomNotFound`], [`AdminError::InvalidPolicy`], [`AdminError::Conflict`] and [`AdminError::Failure`].
    pub async fn change_room(
        &self,
        by: UserId,
        id: RoomId,
        patch: &RoomPolicyPatch,
    ) -> Result<RoomOverview, AdminError> {
        for _ in 0..MAX_ATTEMPTS {
            let found = self.rooms.find_with_waiters(id).await.map_err(Failure::from)?;
            let RoomWithWaiters { room, waiting_since } = found.ok_or(AdminError::RoomNotFound)?;
            let now = self.clock.now();
            let changed = room.value.caught_up(waiting_since, now).patched(patch, now)?;
            let update = Change::Update(Versioned::new(changed, room.version));
            let entry = self.acting(by, now).changes_room(id, &room.value.policy, &changed.policy);
            let command = pausing(&room.value, &changed, now);
            let work =
                UnitOfWork { command, rooms: vec![update], audit_log: vec![entry], ..UnitOfWork::default() };
            match self.admission.committer.commit(work).await {
                Ok(_) => {
                    // The change is durable; whoever it lets in is the scheduler's to admit, should this fail.
                    let room = Versioned::new(changed, room.version.next());
                    let changed = RoomWithWaiters { room, waiting_since };
                    if let Err(error) = self.admission.run_room(changed, now).await {
                        tracing::warn!(room = %id, %error, "admission failed after a change of the room");
                    }
                    let overview = self.queries.find_room(id, now).await.map_err(Failure::from)?;
                    return overview.map(|overview| caught_up(overview, now)).ok_or(AdminError::RoomNotFound);
                }
                Err(CommitError::Conflict(_)) => {}
                Err(error) => return Err(Failure::from(error).into()),
            }
        }
        Err(AdminError::Conflict)
    }

    /// Admits up to `count` waiters now for the operator `by`, in any mode but PAUSED, also before the opening, but never over
    /// `max_active`.
    ///
    /// # Errors
    /// [`AdminError::RoomNotFound`], [`AdminError::SalePaused`], [`AdminError::Conflict`] and [`AdminError::Failure`].
    pub async fn admit(&self, by: UserId, id: RoomId, count: u32) -> Result<u64, AdminError> {
        for _ in 0..MAX_ATTEMPTS {
            let room = self.find_room(id).await?;
            if room.value.policy.mode == RoomMode::Paused {
                return Err(SalePaused.into());
            }
            let now = self.clock.now();
            let audit_log = vec![self.acting(by, now).admits(id, count)];
            let work = UnitOfWork { audit_log, ..admitting(&room, count, now) };
            if let Some(admitted) = self.admission.commit(work).await? {
                return Ok(admitted);
            }
        }
        Err(AdminError::Conflict)
    }

    /// Up to `limit` rooms after `after`.
    ///
    /// # Errors
    /// [`Failure`] alone.
    pub async fn list_rooms(&self, after: Option<RoomId>, limit: u32) -> Result<Vec<RoomOverview>, Failure> {
        let now = self.clock.now();
        let rooms = self.queries.list_rooms(after, limit, now).await?;
        Ok(rooms.into_iter().map(|overview| caught_up(overview, now)).collect())
    }

    /// How a date sells.
    ///
    /// # Errors
    /// [`AdminError::PerformanceDateNotFound`] and [`AdminError::Failure`].
    pub async fn sales(&self, id: PerformanceDateId) -> Result<Sales, AdminError> {
        let sales = self.queries.sales(id, self.clock.now()).await.map_err(Failure::from)?;
        sales.ok_or(AdminError::PerformanceDateNotFound)
    }

    /// Up to `limit` entries of what operators did, before `before`, newest first.
    ///
    /// # Errors
    /// [`Failure`] alone.
    pub async fn list_audit_log(
        &self,
        before: Option<AuditEntryId>,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, Failure> {
        Ok(self.queries.list_audit_log(before, limit).await?)
    }

    /// Makes the global room with this policy, if it is not there yet. Returns the policy that it has.
    ///
    /// # Errors
    /// [`Failure`] alone.
    pub async fn ensure_global_room(&self, policy: RoomPolicy) -> Result<RoomPolicy, Failure> {
        if let Some(policy) = self.global_policy().await? {
            return Ok(policy);
        }
        let room = Room::new(DEFAULT_ROOM_ID, policy, self.clock.now());
        let work = UnitOfWork { rooms: vec![Change::Insert(room)], ..UnitOfWork::default() };
        match self.admission.committer.commit(work).await {
            Ok(_) => Ok(policy),
            Err(CommitError::Conflict(_)) => {
                let policy = self.global_policy().await?;
                policy.ok_or_else(|| Failure::Internal("the global room came and went".into()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The policy of the global room, once it is made.
    ///
    /// # Errors
    /// [`Failure`] alone.
    pub async fn global_policy(&self) -> Result<Option<RoomPolicy>, Failure> {
        let room = self.rooms.find(DEFAULT_ROOM_ID).await?;
        Ok(room.map(|room| room.value.policy))
    }

    fn acting(&self, by: UserId, at: Timestamp) -> Acting {
        Acting { id: AuditEntryId::new(self.ids.next_id()), at, user_id: by }
    }

    async fn find_room(&self, id: RoomId) -> Result<Versioned<Room>, AdminError> {
        self.rooms.find(id).await.map_err(Failure::from)?.ok_or(AdminError::RoomNotFound)
    }
}

/// What a change of the mode does to the ACTIVE tokens of the room.
fn pausing(before: &Room, after: &Room, now: Timestamp) -> Option<Command> {
    let is_paused = |room: &Room| room.policy.mode == RoomMode::Paused;
    let pause = PauseTokens { room_id: after.id, begins: is_paused(after), now };
    (is_paused(before) != pause.begins).then_some(Command::PauseTokens(pause))
}

/// The room with the next point of its grid, whatever tick is stored.
fn caught_up(overview: RoomOverview, now: Timestamp) -> RoomOverview {
    RoomOverview { room: overview.room.caught_up(None, now), ..overview }
}

#[cfg(test)]
mod tests;
