//! Admission (seed: ACTIVE 스케쥴러, 10분마다 10명씩 ACTIVE). Any number of nodes may run it: a tick is claimed by
//! the version of its room, in the transaction that admits.
//!
//! Reads and writes: 1 read of the rooms with work, 1 commit each.

use std::sync::Arc;

use frontrow_domain::ports::{Clock, Committer, Rooms};
use frontrow_domain::queue::{Room, RoomMode};
use frontrow_domain::unit_of_work::{
    Admit, AggregateRef, Command, CommandOutcome, CommitError, Committed, Guard,
};
use frontrow_domain::{Change, RoomId, Timestamp, UnitOfWork, Versioned};

use crate::Failure;

/// The most rooms looked at in one pass; the next pass takes the others.
const ROOMS_PER_PASS: u32 = 200;
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
        let now = self.clock.now();
        let mut admitted = Admitted::default();
        for room in self.rooms.due(now, ROOMS_PER_PASS).await? {
            match self.run_room(room, now).await {
                Ok(people) => admitted.people = admitted.people.saturating_add(people),
                Err(error) => {
                    tracing::warn!(room = %room.value.id, %error, "admission failed");
                    admitted.failures = admitted.failures.saturating_add(1);
                }
            }
        }
        Ok(admitted)
    }

    /// Sees to one room: the tick that is due, and everyone who waits if it is OPEN.
    pub(crate) async fn run_room(&self, room: Versioned<Room>, now: Timestamp) -> Result<u64, Failure> {
        let Some((ticked, batch)) = room.value.tick(now) else { return self.drain(room, now).await };
        let claim = Change::Update(Versioned::new(ticked, room.version));
        let work = UnitOfWork {
            command: (batch > 0).then(|| admit(&ticked, batch, now)),
            rooms: vec![claim],
            ..UnitOfWork::default()
        };
        let Some(people) = self.commit(work).await? else { return Ok(0) };
        Ok(people.saturating_add(self.drain(Versioned::new(ticked, room.version.next()), now).await?))
    }

    /// Admits the waiters of an OPEN room, in order, in bounded batches.
    async fn drain(&self, room: Versioned<Room>, now: Timestamp) -> Result<u64, Failure> {
        let mut people = 0_u64;
        if room.value.policy.mode != RoomMode::Open {
            return Ok(people);
        }
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
