//! The queue of units of work, and the committers that empty it.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use frontrow_domain::unit_of_work::{CommitError, Committed, UnitOfWork};
use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::batch::Writer;
use crate::postgres::PostgresOptions;

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

/// A bounded queue and a few tasks that empty it. Dropped, they finish what is queued, and end.
pub(in crate::postgres) struct Committers {
    /// `None` once it is closed.
    queue: Mutex<Option<mpsc::Sender<Job>>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    counters: Arc<Counters>,
}

impl Committers {
    /// Starts them on the current runtime.
    pub(in crate::postgres) fn start(writer: &Writer, options: &PostgresOptions) -> Self {
        let (queue, jobs) = mpsc::channel(options.queue_limit.max(1));
        let jobs = Arc::new(tokio::sync::Mutex::new(jobs));
        let limit = options.group_commit_limit.max(1);
        let start = |_| tokio::spawn(commit_queued(writer.clone(), jobs.clone(), limit));
        let tasks = (0..options.committers.max(1)).map(start).collect();
        Self { queue: Mutex::new(Some(queue)), tasks: Mutex::new(tasks), counters: writer.counters() }
    }

    /// Queues a unit, and waits for its outcome.
    pub(in crate::postgres) async fn commit(&self, work: UnitOfWork) -> Outcome {
        let (reply, answer) = oneshot::channel();
        let Some(queue) = lock(&self.queue).clone() else {
            return Err(CommitError::Unavailable("the storage is closed".into()));
        };
        queue.try_send(Job { work, reply }).map_err(|refused| {
            let full = matches!(refused, mpsc::error::TrySendError::Full(_));
            let cause = if full { "the queue of commits is full" } else { "the committers have ended" };
            CommitError::Unavailable(cause.into())
        })?;
        drop(queue);
        // Every unit that was taken is answered. Without an answer it may have ended on either side of a COMMIT.
        answer.await.unwrap_or_else(|lost| Err(CommitError::OutcomeUnknown(Box::new(lost))))
    }

    /// Takes no more, and waits at most `limit` until all that is queued is done. False when that was not enough.
    pub(in crate::postgres) async fn close(&self, limit: Duration) -> bool {
        lock(&self.queue).take();
        let tasks = std::mem::take(&mut *lock(&self.tasks));
        tokio::time::timeout(limit, join_all(tasks)).await.is_ok()
    }

    /// Transactions, units in them, units queued now.
    pub(in crate::postgres) fn figures(&self) -> (u64, u64, usize) {
        let queued = lock(&self.queue).as_ref().map_or(0, |queue| queue.max_capacity() - queue.capacity());
        let Counters { transactions, units } = &*self.counters;
        (transactions.load(Ordering::Relaxed), units.load(Ordering::Relaxed), queued)
    }
}

/// Nothing that could panic happens under these locks.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Commits what is queued until the queue ends. No timer: while one batch is written the next one gathers by itself.
async fn commit_queued(writer: Writer, jobs: Arc<tokio::sync::Mutex<mpsc::Receiver<Job>>>, limit: usize) {
    let mut taken = Vec::new();
    while jobs.lock().await.recv_many(&mut taken, limit).await > 0 {
        let jobs = std::mem::take(&mut taken);
        if AssertUnwindSafe(writer.commit_all(jobs)).catch_unwind().await.is_err() {
            tracing::error!("a batch of commits panicked; its callers are told that the outcome is unknown");
        }
    }
}
