//! The queue of units of work, and the committers that empty it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use frontrow_domain::unit_of_work::{CommitError, Committed, Priority, UnitOfWork};
use tokio::sync::oneshot;

use super::batch::Writer;
use super::sideline::Sideline;
use crate::postgres::PostgresOptions;
use crate::postgres::batches::{Batches, Bounds, Refused};
use crate::postgres::health::ReadOnlyCommits;

/// What a caller hears.
pub(super) type Outcome = Result<Committed, CommitError>;

/// A unit of work that is answered once.
pub(super) trait Unit: Send + Sync {
    /// What is to be written.
    fn work(&self) -> &UnitOfWork;

    /// Answers the caller. One that went away did not withdraw the unit.
    fn answer(self, outcome: Outcome);

    /// Refuses it: nothing of it was written.
    fn refuse(self, cause: impl std::error::Error + Send + Sync + 'static)
    where
        Self: Sized,
    {
        self.answer(Err(CommitError::Unavailable(Box::new(cause))));
    }
}

/// A unit of work, and who waits for its outcome.
pub(super) struct Job {
    work: UnitOfWork,
    reply: oneshot::Sender<Outcome>,
}

impl Unit for Job {
    fn work(&self) -> &UnitOfWork {
        &self.work
    }

    fn answer(self, outcome: Outcome) {
        let _ = self.reply.send(outcome);
    }
}

/// What the committers have done.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) transactions: AtomicU64,
    pub(super) units: AtomicU64,
}

/// Writes the units of all callers.
pub(in crate::postgres) struct Committers {
    jobs: Batches<Job>,
    prioritise: bool,
    counters: Arc<Counters>,
    sideline: Arc<Sideline>,
    read_only: ReadOnlyCommits,
}

impl Committers {
    /// Starts them on the current runtime.
    pub(in crate::postgres) fn start(writer: Writer, options: &PostgresOptions) -> Self {
        let PostgresOptions { committers, group_commit_limit, queue_limit, prioritise, .. } = *options;
        let bounds = Bounds { workers: committers, batch: group_commit_limit, queue: queue_limit };
        let counters = writer.counters();
        let (sideline, committer) = Sideline::start(writer, options);
        let commit = move |jobs| {
            let committer = committer.clone();
            async move { committer.commit_all(jobs).await }
        };
        let read_only = ReadOnlyCommits::default();
        Self { jobs: Batches::start(bounds, commit), prioritise, counters, sideline, read_only }
    }

    /// Queues a unit, and waits for its outcome. Without priorities, all wait in one lane.
    pub(in crate::postgres) async fn commit(&self, work: UnitOfWork) -> Outcome {
        let (reply, answer) = oneshot::channel();
        let refused = |refused| CommitError::Unavailable(Box::new(refused));
        let priority = if self.prioritise { work.priority() } else { Priority::Pay };
        if let Some(displaced) = self.jobs.push(priority, Job { work, reply }).map_err(refused)? {
            displaced.refuse(Refused::Full);
        }
        // Every unit that was taken is answered. Without an answer it may have ended on either side of a COMMIT.
        let outcome = answer.await.unwrap_or_else(|lost| Err(CommitError::OutcomeUnknown(Box::new(lost))));
        self.read_only.note(&outcome);
        outcome
    }

    /// Whether the server refuses commits because it is read-only.
    pub(in crate::postgres) const fn read_only(&self) -> &ReadOnlyCommits {
        &self.read_only
    }

    /// See [`Batches::close`]. Units on the sideline are waited for as well.
    pub(in crate::postgres) async fn close(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let committed = self.jobs.close(limit).await;
        self.sideline.ended(until).await && committed
    }

    /// Transactions, units in them, units queued or on the sideline now.
    pub(in crate::postgres) fn figures(&self) -> (u64, u64, usize) {
        let Counters { transactions, units } = &*self.counters;
        let queued = self.jobs.queued().saturating_add(self.sideline.units());
        (transactions.load(Ordering::Relaxed), units.load(Ordering::Relaxed), queued)
    }
}
