//! The writer: units of work from the queue, many to a transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::Receiver;
use diesel::connection::SimpleConnection;
use diesel::result::Error as DieselError;
use diesel::sqlite::SqliteConnection;
use frontrow_domain::unit_of_work::{CommitError, Committed, UnitOfWork};
use tokio::sync::oneshot;

use super::error::{ApplyError, BatchFailed};
use super::statement::run;
use super::unit;

type Outcome = Result<Committed, CommitError>;

/// A unit of work, and who waits for its outcome.
pub(super) struct Job {
    pub(super) work: UnitOfWork,
    pub(super) reply: oneshot::Sender<Outcome>,
}

/// What the writer has done so far.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) batches: AtomicU64,
    pub(super) units: AtomicU64,
}

/// Commits what is queued until the queue ends.
pub(super) fn write_queued(
    connection: &mut SqliteConnection,
    jobs: &Receiver<Job>,
    batch_limit: usize,
    counters: &Counters,
) {
    while let Ok(first) = jobs.recv() {
        // No timer: while one batch is written the next one gathers by itself.
        let batch: Vec<Job> =
            std::iter::once(first).chain(jobs.try_iter()).take(batch_limit.max(1)).collect();
        let units = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        counters.batches.fetch_add(1, Ordering::Relaxed);
        counters.units.fetch_add(units, Ordering::Relaxed);
        commit_batch(connection, batch);
    }
}

/// Writes a batch in one transaction, each unit in a savepoint of its own, and answers once it is durable.
fn commit_batch(connection: &mut SqliteConnection, batch: Vec<Job>) {
    let (units, replies): (Vec<_>, Vec<_>) = batch.into_iter().map(|job| (job.work, job.reply)).unzip();
    let outcomes = match write_batch(connection, &units) {
        Ok(outcomes) => outcomes,
        Err(failure) => failure.outcomes(units.len()),
    };
    for (reply, outcome) in replies.into_iter().zip(outcomes) {
        // A caller who went away does not withdraw the unit.
        let _ = reply.send(outcome);
    }
}

/// Why a batch as a whole was not written.
enum BatchError {
    /// Nothing was written.
    Nothing(DieselError),
    /// The commit failed in a way that may have left it complete on the disk.
    Unknown(DieselError),
}

impl BatchError {
    fn outcomes(self, units: usize) -> Vec<Outcome> {
        let (error, answer): (_, fn(BatchFailed) -> CommitError) = match self {
            Self::Nothing(error) => (error, |failed| CommitError::Unavailable(Box::new(failed))),
            Self::Unknown(error) => (error, |failed| CommitError::OutcomeUnknown(Box::new(failed))),
        };
        tracing::error!(%error, units, "a batch of commits failed");
        let failed = BatchFailed(Arc::new(error));
        (0..units).map(|_| Err(answer(failed.clone()))).collect()
    }
}

fn write_batch(connection: &mut SqliteConnection, units: &[UnitOfWork]) -> Result<Vec<Outcome>, BatchError> {
    run(connection, "BEGIN IMMEDIATE").map_err(BatchError::Nothing)?;
    let outcomes: Result<Vec<_>, _> = units.iter().map(|work| write_unit(connection, work)).collect();
    match outcomes {
        Err(error) => {
            roll_back(connection);
            Err(BatchError::Nothing(error))
        }
        Ok(outcomes) => {
            commit(connection)?;
            Ok(outcomes)
        }
    }
}

/// Writes one unit, or leaves no trace of it.
///
/// # Errors
/// When the transaction around it is no longer there, or can no longer be trusted: SQLite gives the whole of it up on some
/// errors (a full disk, an I/O error), and then there is no savepoint to go back to.
fn write_unit(connection: &mut SqliteConnection, work: &UnitOfWork) -> Result<Outcome, DieselError> {
    run(connection, "SAVEPOINT unit")?;
    let outcome = match unit::apply(connection, work) {
        Ok(outcome) => Ok(Committed { outcome }),
        Err(error) => {
            run(connection, "ROLLBACK TO unit")?;
            match error {
                ApplyError::Rejected(found) => Err(unit::first_reason(connection, work, found)?),
                ApplyError::Database(source) => Err(CommitError::Unavailable(Box::new(source))),
            }
        }
    };
    run(connection, "RELEASE unit")?;
    Ok(outcome)
}

/// Commits. When that fails the transaction is rolled back, so that nobody ever reads it.
///
/// A lock or a full disk stops a commit before its last frame is in the log, so nothing was written. After an I/O error
/// that frame may be there, and be found if the process ends before the next commit writes over it.
fn commit(connection: &mut SqliteConnection) -> Result<(), BatchError> {
    run(connection, "COMMIT").map_err(|error| {
        roll_back(connection);
        if stopped_before_the_log_was_complete(&error) {
            BatchError::Nothing(error)
        } else {
            BatchError::Unknown(error)
        }
    })
}

/// diesel drops SQLite's result code, but keeps its text, which is part of SQLite's interface.
fn stopped_before_the_log_was_complete(error: &DieselError) -> bool {
    let DieselError::DatabaseError(_, said) = error else { return false };
    ["database is locked", "database or disk is full"].contains(&said.message())
}

/// Fails when SQLite has rolled back by itself; either way no transaction is open afterwards.
fn roll_back(connection: &mut SqliteConnection) {
    let _ = connection.batch_execute("ROLLBACK");
}
