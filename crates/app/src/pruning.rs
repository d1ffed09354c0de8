//! What is over long since is deleted, a batch at a time, in the lane that goes last (ADR 0015). Any number of nodes may do
//! so. Nobody depends on it for the truth: an answer past its time is not given again whether or not it is still there.

use std::sync::{Arc, Mutex, PoisonError};

use frontrow_domain::ports::{Clock, Committer, QueueQueries};
use frontrow_domain::queue::TicketNumber;
use frontrow_domain::unit_of_work::{Command, CommandOutcome, PruneTokens, TokensPruned};
use frontrow_domain::{RoomId, UnitOfWork};

use crate::Failure;

/// The most rows that one transaction looks at.
const BATCH: u32 = 500;
/// The most transactions of one pass and kind: the next pass goes on where this one ended.
const BATCHES_PER_PASS: u32 = 20;

/// What one pass deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruned {
    /// Tokens that ended longer ago than they are kept.
    pub tokens: u64,
    /// Answers that are no longer given again.
    pub answers: u64,
}

/// Deletes what is over.
pub struct Pruning {
    queries: Arc<dyn QueueQueries>,
    committer: Arc<dyn Committer>,
    clock: Arc<dyn Clock>,
    /// How long a token is kept after its end, in seconds.
    keep_tokens_for: u32,
    /// The line to go on with, and the ticket after which; the first one when there is none.
    next: Mutex<Option<(RoomId, TicketNumber)>>,
}

impl Pruning {
    /// Begins with the first line.
    #[must_use]
    pub fn new(
        queries: Arc<dyn QueueQueries>,
        committer: Arc<dyn Committer>,
        clock: Arc<dyn Clock>,
        keep_tokens_for: u32,
    ) -> Self {
        Self { queries, committer, clock, keep_tokens_for, next: Mutex::new(None) }
    }

    /// One pass: answers until less than a batch is left, then all lines, or as far as a pass goes.
    ///
    /// # Errors
    /// [`Failure`] of the first batch that could not be written; the batches before are.
    pub async fn run(&self) -> Result<Pruned, Failure> {
        // Neither keeps the other from running.
        let answers = self.answers().await;
        let tokens = self.tokens().await;
        Ok(Pruned { answers: answers?, tokens: tokens? })
    }

    async fn answers(&self) -> Result<u64, Failure> {
        let command = Command::PruneAnswers { now: self.clock.now(), limit: BATCH };
        let mut deleted = 0_u64;
        for _ in 0..BATCHES_PER_PASS {
            let outcome = self.commit(command.clone()).await?;
            let Some(CommandOutcome::AnswersPruned(batch)) = outcome else { return Err(unexpected(outcome)) };
            deleted = deleted.saturating_add(u64::from(batch));
            if batch < BATCH {
                break;
            }
        }
        Ok(deleted)
    }

    async fn tokens(&self) -> Result<u64, Failure> {
        let next = *self.next.lock().unwrap_or_else(PoisonError::into_inner);
        // One room more than the batches can exhaust, so that there is one to go on with.
        let page = BATCHES_PER_PASS.saturating_add(1);
        let rooms = self.queries.rooms_after(next.map(|(room_id, _)| room_id), page).await?;
        let (mut deleted, mut batches) = (0_u64, 0);
        let mut at = next.or_else(|| rooms.first().map(|room_id| (*room_id, TicketNumber(0))));
        while let Some((room_id, after)) = at.filter(|_| batches < BATCHES_PER_PASS) {
            batches += 1;
            let before = self.clock.now().minus_seconds(self.keep_tokens_for);
            let prune = PruneTokens { room_id, after, before, limit: BATCH };
            let outcome = self.commit(Command::PruneTokens(prune)).await?;
            let Some(CommandOutcome::TokensPruned(batch)) = outcome else { return Err(unexpected(outcome)) };
            deleted = deleted.saturating_add(u64::from(batch.deleted));
            at = following(&rooms, room_id, batch);
            *self.next.lock().unwrap_or_else(PoisonError::into_inner) = at;
        }
        Ok(deleted)
    }

    async fn commit(&self, command: Command) -> Result<Option<CommandOutcome>, Failure> {
        let work = UnitOfWork { command: Some(command), ..UnitOfWork::default() };
        Ok(self.committer.commit(work).await?.outcome)
    }
}

/// What comes after a batch: more of the same line, or the next line. `None` after the last one.
fn following(rooms: &[RoomId], room_id: RoomId, batch: TokensPruned) -> Option<(RoomId, TicketNumber)> {
    if let Some(through) = batch.through {
        return Some((room_id, through));
    }
    rooms.iter().find(|id| **id > room_id).map(|id| (*id, TicketNumber(0)))
}

fn unexpected(outcome: Option<CommandOutcome>) -> Failure {
    Failure::Internal(format!("pruning came to {outcome:?}"))
}

#[cfg(test)]
mod tests;
