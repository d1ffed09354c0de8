//! Admission (seed: ACTIVE 스케쥴러, 10분마다 10명씩 ACTIVE). Any number of nodes may run it: a tick is claimed by
//! the version of its room, in the transaction that admits.
//!
//! Reads and writes: 1 read for every 200 rooms with work and 1 commit each, 32 at once. A room without
//! waiters has no work, and costs neither (ADR 0023).

use std::sync::Arc;

use frontrow_domain::ports::{Clock, Committer, Rooms};
use frontrow_domain::queue::{Room, RoomMode, RoomWithWaiters};
use frontrow_domain::unit_of_work::{
    Admit, AggregateRef, Command, CommandOutcome, CommitError, Committed, Guard,
};
use frontrow_domain::{Change, RoomId, Timestamp, UnitOfWork, Versioned};
use futures_util::{StreamExt, stream};

use crate::Failure;

/// The most rooms read at once. A pass goes on until it has seen all rooms with work, so that none starves another.
const ROOMS_PER_READ: u32 = 200;
/// The most rooms that are seen to at the same time: their commits share transactions on SQLite, and committers on PostgreSQL.
const ROOMS_AT_ONCE: usize = 32;
/// The most people an OPEN room admits in one transaction.
const OPEN_BATCH: u32 = 1_000;
/// The most transactions one pass spends on one OPEN room, so that no room starves the others.
const OPEN_BATCHES_PER_PASS: u32 = 50;

/// What one pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Admitted {
    /// How many people were admitted.
    pub people: u64,
    /// How many rooms could not be seen to; they stay due.
    pub failures: u32,
}

/// Admits whoever is due.
#[derive(Clone)]
#[allow(missing_docs, reason = "each field is the port of its type")]
pub struct Admission {
    pub rooms: Arc<dyn Rooms>,
    pub committer: Arc<dyn Committer>,
    pub clock: Arc<dyn Clock>,
}

impl Admission {
    /// One pass over the rooms with work: ticks that are due, and OPEN rooms with people waiting.
    ///
    /// # Errors
    /// [`Failure`] when the rooms cannot be read. A room that fails is counted and leaves the others alone.
    pub async fn run(&self) -> Result<Admitted, Failure> {
        let mut admitted = Admitted::default();
        let mut after = None;
        loop {
            let now = self.clock.now();
            let due = self.rooms.due(now, after, ROOMS_PER_READ).await?;
            after = due.last().map(|last| (last.room.value.next_tick_at, last.room.value.id));
            let is_last_read = due.len() < usize::try_from(ROOMS_PER_READ).unwrap_or(usize::MAX);
            let runs = due.into_iter().map(|found| self.run_one(found, now));
            let mut runs = stream::iter(runs).buffer_unordered(ROOMS_AT_ONCE);
            while let Some(people) = runs.next().await {
                match people {
                    Some(people) => admitted.people = admitted.people.saturating_add(people),
                    None => admitted.failures = admitted.failures.saturating_add(1),
                }
            }
            if is_last_read {
                return Ok(admitted);
            }
        }
    }

    /// How many were admitted to a room; `None`, logged, when it could not be seen to.
    async fn run_one(&self, found: RoomWithWaiters, now: Timestamp) -> Option<u64> {
        let admitted = self.run_room(found, now).await;
        admitted
            .inspect_err(|error| tracing::warn!(room = %found.room.value.id, %error, "admission failed"))
            .ok()
    }

    /// Sees to one room: the tick that is due, or one that a wrong clock has put too far ahead, and all waiters if it is OPEN.
    pub(crate) async fn run_room(&self, found: RoomWithWaiters, now: Timestamp) -> Result<u64, Failure> {
        let RoomWithWaiters { room, waiting_since } = found;
        match room.value.policy.mode {
            RoomMode::Open => return self.drain(room, now).await,
            RoomMode::Hold | RoomMode::Closed | RoomMode::Paused => return Ok(0),
            RoomMode::Auto => {}
        }
        let caught_up = room.value.caught_up(waiting_since, now);
        let (value, command) = match caught_up.tick(now) {
            Some((ticked, batch)) => (ticked, Some(admit(&ticked, batch, now))),
            None if caught_up.next_tick_at < room.value.next_tick_at => {
                tracing::warn!(room = %room.value.id, was = %room.value.next_tick_at, "a tick lay too far ahead");
                (caught_up, None)
            }
            None => return Ok(0),
        };
        let rooms = vec![Change::Update(Versioned::new(value, room.version))];
        let admitted = self.commit(UnitOfWork { command, rooms, ..UnitOfWork::default() }).await?;
        Ok(admitted.unwrap_or(0))
    }

    /// Admits the waiters of an OPEN room, in order, in bounded batches.
    async fn drain(&self, room: Versioned<Room>, now: Timestamp) -> Result<u64, Failure> {
        let mut people = 0_u64;
        for _ in 0..OPEN_BATCHES_PER_PASS {
            let Some(admitted) = self.commit(admitting(&room, OPEN_BATCH, now)).await? else { break };
            people = people.saturating_add(admitted);
            if admitted < u64::from(OPEN_BATCH) {
                break;
            }
        }
        Ok(people)
    }

    /// How many were admitted; `None` when another node or an operator was faster.
    pub(crate) async fn commit(&self, work: UnitOfWork) -> Result<Option<u64>, Failure> {
        match self.committer.commit(work).await {
            Ok(Committed { outcome: Some(CommandOutcome::Admitted(people)) }) => Ok(Some(u64::from(people))),
            Ok(_) => Ok(Some(0)),
            Err(CommitError::Conflict(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Admits up to `limit` people, if the room is still as it was loaded.
pub(crate) fn admitting(room: &Versioned<Room>, limit: u32, now: Timestamp) -> UnitOfWork {
    let guard = Guard { aggregate: AggregateRef::Room(room.value.id), version: room.version };
    UnitOfWork { guards: vec![guard], command: Some(admit(&room.value, limit, now)), ..UnitOfWork::default() }
}

fn admit(room: &Room, limit: u32, now: Timestamp) -> Command {
    let room_id: RoomId = room.id;
    let policy = &room.policy;
    let active_ttl_seconds = policy.active_ttl_seconds;
    Command::Admit(Admit { room_id, limit, max_active: policy.max_active, active_ttl_seconds, now })
}

#[cfg(test)]
mod tests;
