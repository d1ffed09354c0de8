//! A unit of work as one transaction. The steps are in the order in which [`CommitError`] is to be reported; each takes
//! whole sets of rows, so that several units could share them.

mod abandoned;
mod check;
mod command;
mod failure;
mod fill;
mod lock;
mod write;

use std::time::Duration;

use async_trait::async_trait;
use diesel_async::AsyncPgConnection;
use frontrow_domain::ports::Committer;
use frontrow_domain::unit_of_work::{CommandOutcome, CommitError, Committed, UnitOfWork};

use self::failure::Failure;
use super::Postgres;
use super::transaction::Transaction;

/// How often a unit is tried at most.
pub(super) const MAX_ATTEMPTS: u32 = 5;

/// How long to wait before the second attempt; before each later one, twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(4);

#[async_trait]
impl Committer for Postgres {
    /// Runs on a task of its own, which a caller that goes away leaves running.
    async fn commit(&self, work: UnitOfWork) -> Result<Committed, CommitError> {
        let postgres = self.clone();
        let task = tokio::spawn(async move { postgres.commit_with_retries(&work).await });
        task.await.unwrap_or_else(|lost| Err(CommitError::OutcomeUnknown(Box::new(lost))))
    }
}

impl Postgres {
    async fn commit_with_retries(&self, work: &UnitOfWork) -> Result<Committed, CommitError> {
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            match self.attempt(work).await {
                Ok(outcome) => return Ok(Committed { outcome }),
                Err(Failure::Again(cause)) if attempt < MAX_ATTEMPTS => {
                    tracing::debug!(attempt, %cause, "a unit of work is tried again");
                    tokio::time::sleep(pause).await;
                    pause = pause.saturating_mul(2);
                }
                Err(failure) => return Err(failure.into()),
            }
        }
        Err(CommitError::Unavailable("no attempt was made".into()))
    }

    async fn attempt(&self, work: &UnitOfWork) -> Result<Option<CommandOutcome>, Failure> {
        let connection = self.connection().await.map_err(Failure::unavailable)?;
        let mut transaction = Transaction::begin(connection).await.map_err(Failure::not_begun)?;
        match apply(transaction.connection()?, work).await {
            Ok(outcome) => {
                if wrote_nothing(work, outcome) {
                    transaction.rollback().await;
                } else {
                    transaction.commit().await?;
                }
                Ok(outcome)
            }
            Err(failure) => {
                if failure.leaves_connection_sound() {
                    transaction.rollback().await;
                }
                Err(failure)
            }
        }
    }
}

/// Whether a unit came to nothing but an answer. Then there is nothing to make durable, and its lock need not wait
/// for the disk.
fn wrote_nothing(work: &UnitOfWork, outcome: Option<CommandOutcome>) -> bool {
    use CommandOutcome::{Admitted, AlreadyJoined, HoldsExpired, PollsNoted, TokensExpired};
    let idle = matches!(
        outcome,
        Some(AlreadyJoined(_) | Admitted(0) | TokensExpired(0) | HoldsExpired(0) | PollsNoted(0))
    );
    idle && UnitOfWork { guards: Vec::new(), command: None, ..work.clone() } == UnitOfWork::default()
}

async fn apply(
    connection: &mut AsyncPgConnection,
    work: &UnitOfWork,
) -> Result<Option<CommandOutcome>, Failure> {
    if let Some(record) = &work.idempotency {
        write::take_key(connection, record).await?;
    }
    let locked = lock::lock(connection, work).await?;
    check::require_versions(work, &locked)?;
    let outcome = match &work.command {
        Some(command) => Some(command::execute(connection, command, &locked).await?),
        None => None,
    };
    write::write(connection, work, &locked).await?;
    Ok(outcome)
}
