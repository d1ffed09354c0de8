//! The queue of units of work, and the committers that empty it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use frontrow_domain::unit_of_work::{CommitError, Committed, Priority, UnitOfWork};
use tokio::sync::oneshot;

use super::batch::Writer;
use crate::postgres::batches::{Batches, Bounds, Refused};
use crate::postgres::health::ReadOnlyCommits;

/// What a caller hears.
pub(super) type Outcome = Result<Committed, CommitError>;

/// A unit of work, and who waits for its outcome.
pub(super) struct Job {
    pub(super) work: UnitOfWork,
    reply: oneshot::Sender<Outcome>,
}

impl Job {
    /// Says how it ended. A caller who went away did not withdraw the unit, and hears nothing.
    pub(super) fn answer(self, outcome: Outcome) {
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
    read_only: ReadOnlyCommits,
}

impl Committers {
    /// Starts them on the current runtime. Without `prioritise`, all wait in one lane.
    pub(in crate::postgres) fn start(writer: Writer, bounds: Bounds, prioritise: bool) -> Self {
        let counters = writer.counters();
        let commit = move |jobs| {
            let writer = writer.clone();
            async move { writer.commit_all(jobs).await }
        };
        let read_only = ReadOnlyCommits::default();
        Self { jobs: Batches::start(bounds, commit), prioritise, counters, read_only }
    }

    /// Queues a unit, and waits for its outcome.
    pub(in crate::postgres) async fn commit(&self, work: UnitOfWork) -> Outcome {
        let (reply, answer) = oneshot::channel();
        let refused = |refused| CommitError::Unavailable(Box::new(refused));
        let priority = if self.prioritise { work.priority() } else { Priority::Pay };
        if let Some(displaced) = self.jobs.push(priority, Job { work, reply }).map_err(refused)? {
            displaced.answer(Err(refused(Refused::Full)));
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

    /// See [`Batches::close`].
    pub(in crate::postgres) async fn close(&self, limit: Duration) -> bool {
        self.jobs.close(limit).await
    }

    /// Transactions, units in them, units queued now.
    pub(in crate::postgres) fn figures(&self) -> (u64, u64, usize) {
        let Counters { transactions, units } = &*self.counters;
        (transactions.load(Ordering::Relaxed), units.load(Ordering::Relaxed), self.jobs.queued())
    }
}
