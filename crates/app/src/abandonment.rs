//! Places near the head of a line whose holders stay away: given up, so that nobody waits behind a ghost (ADR 0007).
//!
//! Nobody who polls as told is ever given up: polls are noted before anybody is judged, the shortest grace is twice the
//! longest time between two polls, and where polls may have gone unnoted every clock starts again.
//!
//! Writes: nothing while no room has a grace; else a commit for every 1,000 people who polled near a head in the last
//! seconds, and one a room.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use frontrow_domain::ports::{Clock, Committer};
use frontrow_domain::queue::Room;
use frontrow_domain::unit_of_work::{Command, CommandOutcome, Committed, GiveUpAbandoned};
use frontrow_domain::{QueueTokenId, RoomId, Timestamp, UnitOfWork};

use crate::lines::Polls;
use crate::{Failure, Lines};

/// The most polls noted in one transaction.
const POLLS_PER_COMMIT: usize = 1_000;
/// The longest time between two passes that counts as watching all the time, in seconds: far less than what the shortest
/// grace has to spare.
const WATCHED_WITHIN_SECONDS: u64 = 10;

/// How a room was watched last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Watched {
    admit_batch: u32,
    grace_seconds: u32,
    at: Timestamp,
}

/// Notes polls and gives up abandoned places. Any number of nodes may run it.
pub struct Abandonment {
    lines: Lines,
    committer: Arc<dyn Committer>,
    clock: Arc<dyn Clock>,
    watched: Mutex<HashMap<RoomId, Watched>>,
}

impl Abandonment {
    /// Has watched nothing yet.
    #[must_use]
    pub fn new(lines: Lines, committer: Arc<dyn Committer>, clock: Arc<dyn Clock>) -> Self {
        Self { lines, committer, clock, watched: Mutex::default() }
    }

    /// One pass over the rooms with a grace. Returns how many places were given up. A room that cannot be swept does not
    /// end the pass.
    ///
    /// # Errors
    /// [`Failure`] of the last commit that failed. Polls that could not be noted are kept for the next pass.
    pub async fn run(&self) -> Result<u64, Failure> {
        let now = self.clock.now();
        self.note_polls(now).await?;
        // By a view that is old, polls near the head may have been taken for polls further back.
        let Some(rooms) = self.lines.rooms_with_grace(WATCHED_WITHIN_SECONDS, now) else { return Ok(0) };
        let mut watched = self.take_watched();
        if self.lines.polls(Polls::take_missed) {
            watched.clear();
        }
        let mut given_up = Ok(0_u64);
        for room in rooms {
            let swept = self.sweep(&room, watched.get(&room.id), now).await;
            given_up = swept.and_then(|count| Ok(given_up?.saturating_add(count)));
        }
        given_up
    }

    async fn note_polls(&self, now: Timestamp) -> Result<(), Failure> {
        let polled = self.lines.polls(|polls| polls.take(now));
        let mut rest = polled.as_slice();
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(rest.len().min(POLLS_PER_COMMIT));
            let tokens: Vec<QueueTokenId> = batch.to_vec();
            if let Err(error) = self.commit(Command::NotePolls { tokens, now }).await {
                self.lines.polls(|polls| polls.put_back(rest));
                return Err(error);
            }
            rest = later;
        }
        Ok(())
    }

    /// The passes before this one; what is not put back has not been watched.
    fn take_watched(&self) -> HashMap<RoomId, Watched> {
        std::mem::take(&mut *self.watched.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn sweep(&self, room: &Room, before: Option<&Watched>, now: Timestamp) -> Result<u64, Failure> {
        let Some(grace_seconds) = room.policy.wait_grace_seconds else { return Ok(0) };
        let this = Watched { admit_batch: room.policy.admit_batch, grace_seconds, at: now };
        let all_the_time = before.is_some_and(|before| {
            now.since(before.at).as_secs() <= WATCHED_WITHIN_SECONDS && Watched { at: now, ..*before } == this
        });
        let gone_since = all_the_time.then(|| now.minus_seconds(grace_seconds));
        let sweep = GiveUpAbandoned { room_id: room.id, window: room.policy.grace_window(), gone_since, now };
        let outcome = self.commit(Command::GiveUpAbandoned(sweep)).await?.outcome;
        let Some(CommandOutcome::GivenUp(people)) = outcome else {
            return Err(Failure::Internal(format!("giving up places came to {outcome:?}")));
        };
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).insert(room.id, this);
        Ok(u64::from(people))
    }

    async fn commit(&self, command: Command) -> Result<Committed, Failure> {
        let work = UnitOfWork { command: Some(command), ..UnitOfWork::default() };
        Ok(self.committer.commit(work).await?)
    }
}

#[cfg(test)]
mod tests;
