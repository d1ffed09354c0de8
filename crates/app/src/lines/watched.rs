//! What this node commits is known on it at once.

use std::sync::Arc;

use async_trait::async_trait;
use frontrow_domain::ports::Committer;
use frontrow_domain::queue::QueueToken;
use frontrow_domain::reservation::ReservationStatus;
use frontrow_domain::unit_of_work::{Command, CommandOutcome, CommitError, Committed, UnitOfWork};
use frontrow_domain::{Change, QueueTokenId, RoomId, Version, Versioned};

use super::Lines;
use crate::incarnation::Generation;

/// Commits, and lets the lines know before anybody else hears of it. A caller that goes away takes that with it; the next
/// refresh makes up for it.
pub struct WatchedCommitter {
    committer: Arc<dyn Committer>,
    lines: Lines,
}

impl WatchedCommitter {
    /// Watches what goes through `committer`.
    #[must_use]
    pub fn new(committer: Arc<dyn Committer>, lines: Lines) -> Self {
        Self { committer, lines }
    }

    async fn committed(
        &self,
        tokens: &[Versioned<QueueToken>],
        has_rooms: bool,
        outcome: Option<CommandOutcome>,
        generation: Generation,
    ) {
        for token in tokens {
            self.lines.remember(Versioned::new(token.value, token.version.next()), generation);
        }
        let has_moved = match outcome {
            Some(CommandOutcome::Joined(token)) => {
                self.lines.remember(Versioned::new(token, Version::FIRST), generation);
                false
            }
            Some(CommandOutcome::Admitted(people) | CommandOutcome::GivenUp(people)) => people > 0,
            Some(
                CommandOutcome::AlreadyJoined(_)
                | CommandOutcome::TokensPaused(_)
                | CommandOutcome::TokensExpired(_)
                | CommandOutcome::HoldsExpired(_)
                | CommandOutcome::PollsNoted(_)
                | CommandOutcome::TokensPruned(_)
                | CommandOutcome::AnswersPruned(_)
                | CommandOutcome::Filled,
            )
            | None => false,
        };
        if (has_moved || has_rooms)
            && let Err(error) = self.lines.refresh().await
        {
            tracing::debug!(%error, "the lines could not be read after a commit; the next refresh is soon");
        }
    }
}

#[async_trait]
impl Committer for WatchedCommitter {
    async fn commit(&self, work: UnitOfWork) -> Result<Committed, CommitError> {
        let (tokens, has_rooms) = (work.queue_tokens.clone(), !work.rooms.is_empty());
        let paid_under = paid_under(&work);
        let generation = self.lines.generation();
        let paused = paused_room(&work);
        let committed = self.committer.commit(work).await;
        match &committed {
            Ok(committed) => {
                paid_under.into_iter().for_each(|id| self.lines.forget(id));
                paused.into_iter().for_each(|room_id| self.lines.forget_room(room_id));
                self.committed(&tokens, has_rooms, committed.outcome, generation).await;
            }
            Err(CommitError::OutcomeUnknown(_)) => {
                tokens.iter().for_each(|token| self.lines.forget(token.value.id));
                paused.into_iter().for_each(|room_id| self.lines.forget_room(room_id));
            }
            Err(_) => {}
        }
        committed
    }
}

/// The room whose ACTIVE tokens are paused or resumed here.
const fn paused_room(work: &UnitOfWork) -> Option<RoomId> {
    match work.command {
        Some(Command::PauseTokens(pause)) => Some(pause.room_id),
        _ => None,
    }
}

/// The tokens under which what is paid here was held. They are over, whoever ended them.
fn paid_under(work: &UnitOfWork) -> Vec<QueueTokenId> {
    let paid = work.reservations.iter().map(Change::value);
    let paid = paid.filter(|reservation| reservation.status == ReservationStatus::Done);
    paid.map(|reservation| reservation.token_id).collect()
}
