//! The writer: units of work from the queue, many to a transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use diesel::QueryResult;
use diesel::connection::SimpleConnection;
use diesel::result::Error as DieselError;
use diesel::sqlite::SqliteConnection;
use frontrow_domain::unit_of_work::{CommitError, Committed, UnitOfWork};
use tokio::sync::oneshot;

use super::connection::WAIT_FOR_LOCK;
use super::error::{ApplyError, BatchCause, BatchFailed, said_by};
use super::feeds::BatchOfSeats;
use super::health::WriteFault;
use super::nearby::Nearby;
use super::served_file::ServedFile;
use super::statement::run;
use super::unit;
use super::workers::Queue;

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

/// What SQLite calls SQLITE_BUSY.
const LOCKED: &str = "database is locked";

/// How long a batch waits for the write lock after one that waited for it in vain; the others wait as long as the connection
/// is set to. So a file that another process keeps locked delays what is queued by seconds, and not each batch of it.
const WAIT_AFTER_LOCKED: &str = "PRAGMA busy_timeout = 100";

/// Writes what is queued, batch by batch.
#[derive(Clone)]
pub(super) struct Writer {
    /// The most units of a batch.
    pub(super) batch_limit: usize,
    pub(super) counters: Arc<Counters>,
    pub(super) nearby: Arc<Nearby>,
    pub(super) file: Arc<ServedFile>,
    pub(super) fault: Arc<WriteFault>,
}

impl Writer {
    /// Commits what is queued until the queue ends.
    pub(super) fn write_queued(&self, connection: &mut SqliteConnection, jobs: &Queue<Job>) {
        let mut is_locked = false;
        loop {
            // No timer: while one batch is written the next one gathers by itself.
            let batch = jobs.take(self.batch_limit);
            if batch.is_empty() {
                return;
            }
            let units = u64::try_from(batch.len()).unwrap_or(u64::MAX);
            self.counters.batches.fetch_add(1, Ordering::Relaxed);
            self.counters.units.fetch_add(units, Ordering::Relaxed);
            let was_locked = std::mem::replace(&mut is_locked, self.commit_batch(connection, batch));
            if is_locked != was_locked {
                let wait = if is_locked { WAIT_AFTER_LOCKED } else { WAIT_FOR_LOCK };
                // Where it fails the wait is the one before.
                let _ = connection.batch_execute(wait);
            }
        }
    }

    /// Writes a batch in one transaction, and answers once it is durable. Returns whether another process had locked the file
    /// for too long.
    fn commit_batch(&self, connection: &mut SqliteConnection, batch: Vec<Job>) -> bool {
        let (units, replies): (Vec<_>, Vec<_>) = batch.into_iter().map(|job| (job.work, job.reply)).unzip();
        let (outcomes, is_locked) = match self.write_to_served_file(connection, &units) {
            Ok(outcomes) => (outcomes, false),
            Err(failure) => {
                self.fault.set(failure.cause());
                let is_locked = failure.is_of_a_locked_file();
                (failure.outcomes(units.len()), is_locked)
            }
        };
        self.nearby.committed();
        for (reply, outcome) in replies.into_iter().zip(outcomes) {
            // A caller who went away does not withdraw the unit.
            let _ = reply.send(outcome);
        }
        is_locked
    }

    /// Writes a batch if the file is in place, and acknowledges it if it still is afterwards: what was written to a file
    /// that was moved away meanwhile may be found again or not.
    fn write_to_served_file(
        &self,
        connection: &mut SqliteConnection,
        units: &[UnitOfWork],
    ) -> Result<Vec<Outcome>, BatchError> {
        self.file.check().map_err(BatchError::nothing)?;
        let outcomes = write_batch(connection, units, self.fault.get().is_some())?;
        self.file.check().map_err(BatchError::unknown)?;
        self.fault.note(&outcomes);
        Ok(outcomes)
    }
}

/// Why a batch as a whole was not written.
enum BatchError {
    /// Nothing was written.
    Nothing(BatchCause),
    /// The commit failed in a way that may have left it complete on the disk.
    Unknown(BatchCause),
}

impl BatchError {
    fn is_of_a_locked_file(&self) -> bool {
        matches!(self, Self::Nothing(BatchCause::Database(error)) if said_by(error) == Some(LOCKED))
    }

    fn nothing(cause: impl Into<BatchCause>) -> Self {
        Self::Nothing(cause.into())
    }

    fn unknown(cause: impl Into<BatchCause>) -> Self {
        Self::Unknown(cause.into())
    }

    const fn cause(&self) -> &BatchCause {
        match self {
            Self::Nothing(cause) | Self::Unknown(cause) => cause,
        }
    }

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

/// Most batches have no unit that is refused half way, and so need no savepoints, each of which costs a copy of every page
/// that a unit writes first. A batch that does is rolled back and written once more, with them. After a failure the
/// batch also rewrites a page (`probe`).
fn write_batch(
    connection: &mut SqliteConnection,
    units: &[UnitOfWork],
    probe: bool,
) -> Result<Vec<Outcome>, BatchError> {
    run(connection, "BEGIN IMMEDIATE").map_err(BatchError::nothing)?;
    let mut written = write_units(connection, units, Apart::Doubtful);
    if matches!(written, Err(Interrupted::HalfWay)) {
        roll_back(connection);
        run(connection, "BEGIN IMMEDIATE").map_err(BatchError::nothing)?;
        written = write_units(connection, units, Apart::All);
    }
    if probe {
        written =
            written.and_then(|outcomes| rewrite_page(connection).map(|()| outcomes).map_err(Into::into));
    }
    match written {
        Ok(outcomes) => {
            commit(connection)?;
            Ok(outcomes)
        }
        Err(interrupted) => {
            roll_back(connection);
            Err(BatchError::nothing(DieselError::from(interrupted)))
        }
    }
}

/// Sets a row to what it is, which writes its page all the same.
fn rewrite_page(connection: &mut SqliteConnection) -> QueryResult<()> {
    run(
        connection,
        "UPDATE __diesel_schema_migrations SET run_on = run_on \
         WHERE version = (SELECT MIN(version) FROM __diesel_schema_migrations)",
    )
}

/// Which units have a savepoint each, to which they are undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Apart {
    /// Those that may well be refused: commands are by their rules, and who is late for a seat.
    Doubtful,
    /// All.
    All,
}

/// Why the units of a batch are not all written or refused.
enum Interrupted {
    /// A unit without a savepoint was refused after it may have written something.
    HalfWay,
    /// The transaction is no longer there, or can no longer be trusted: SQLite gives the whole of it up on some errors (a
    /// full disk, an I/O error), and then there is no savepoint to go back to.
    Lost(DieselError),
}

impl From<DieselError> for Interrupted {
    fn from(error: DieselError) -> Self {
        Self::Lost(error)
    }
}

impl From<Interrupted> for DieselError {
    fn from(interrupted: Interrupted) -> Self {
        match interrupted {
            Interrupted::HalfWay => Self::RollbackTransaction,
            Interrupted::Lost(error) => error,
        }
    }
}

/// Writes the units, and then moves on the feed of every date whose seats they changed: once, however many they are.
fn write_units(
    connection: &mut SqliteConnection,
    units: &[UnitOfWork],
    apart: Apart,
) -> Result<Vec<Outcome>, Interrupted> {
    let mut seats = BatchOfSeats::before(connection, units)?;
    let write = |work: &UnitOfWork| {
        if apart == Apart::All || work.command.is_some() || seats.is_stale(work) {
            write_apart(connection, work, &mut seats)
        } else {
            write_unit(connection, work, &mut seats)
        }
    };
    let outcomes = units.iter().map(write).collect::<Result<_, Interrupted>>()?;
    seats.write(connection)?;
    Ok(outcomes)
}

/// Writes one unit that nobody expects to fail.
fn write_unit(
    connection: &mut SqliteConnection,
    work: &UnitOfWork,
    seats: &mut BatchOfSeats,
) -> Result<Outcome, Interrupted> {
    match unit::apply(connection, work) {
        Ok((outcome, freed)) => {
            seats.add(work, &freed);
            Ok(Ok(Committed { outcome }))
        }
        // Looked for before anything is written.
        Err(ApplyError::Rejected(used @ CommitError::DuplicateIdempotencyKey)) => Ok(Err(used)),
        Err(_) => Err(Interrupted::HalfWay),
    }
}

/// Writes one unit, or leaves no trace of it.
fn write_apart(
    connection: &mut SqliteConnection,
    work: &UnitOfWork,
    seats: &mut BatchOfSeats,
) -> Result<Outcome, Interrupted> {
    run(connection, "SAVEPOINT unit")?;
    let outcome = match unit::apply(connection, work) {
        Ok((outcome, freed)) => {
            seats.add(work, &freed);
            Ok(Committed { outcome })
        }
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
            BatchError::nothing(error)
        } else {
            BatchError::unknown(error)
        }
    })
}

fn stopped_before_the_log_was_complete(error: &DieselError) -> bool {
    said_by(error).is_some_and(|said| [LOCKED, "database or disk is full"].contains(&said))
}

/// Fails when SQLite has rolled back by itself; either way no transaction is open afterwards.
fn roll_back(connection: &mut SqliteConnection) {
    let _ = connection.batch_execute("ROLLBACK");
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use diesel::prelude::{Connection, QueryDsl, RunQueryDsl};
    use frontrow_domain::account::Account;
    use frontrow_domain::idempotency::{
        Answer, Fingerprint, IdempotencyKey, IdempotencyRecord, KeyedRequest,
    };
    use frontrow_domain::{Change, Timestamp, UserId};
    use uuid::Uuid;

    use super::*;
    use crate::sql::schema::{accounts, idempotency_records};
    use crate::sqlite::connection::{connect, migrate};

    fn user(n: u128) -> UserId {
        UserId::new(Uuid::from_u128(n))
    }

    fn small(n: u128) -> UnitOfWork {
        UnitOfWork { accounts: vec![Change::Insert(Account::empty(user(n)))], ..Default::default() }
    }

    /// Has no place in a database of [`limit`] pages.
    fn large(n: u128) -> UnitOfWork {
        let key = IdempotencyKey::new("key").unwrap();
        let request = KeyedRequest { user_id: user(n), key, fingerprint: Fingerprint([0; 32]) };
        let answer = Answer { status: 200, content_type: String::new(), body: vec![b'x'; 8 << 20] };
        let record = IdempotencyRecord::new(request, answer, Timestamp::MIN);
        UnitOfWork { idempotency: Some(record), ..small(n) }
    }

    /// A connection to which the disk has room for a MiB.
    fn limited(path: &Path) -> SqliteConnection {
        migrate(path).unwrap();
        let mut connection = connect(path).unwrap();
        connection.batch_execute("PRAGMA max_page_count = 256").unwrap();
        connection
    }

    fn writer(path: &Path) -> Writer {
        Writer {
            batch_limit: 256,
            counters: Arc::default(),
            nearby: Arc::new(Nearby::new(Vec::new())),
            file: Arc::new(ServedFile::remember(path).unwrap()),
            fault: Arc::default(),
        }
    }

    /// The outcomes of a batch.
    fn outcomes(path: &Path, connection: &mut SqliteConnection, works: Vec<UnitOfWork>) -> Vec<Outcome> {
        outcomes_by(&writer(path), connection, works)
    }

    fn outcomes_by(
        writer: &Writer,
        connection: &mut SqliteConnection,
        works: Vec<UnitOfWork>,
    ) -> Vec<Outcome> {
        let (jobs, answers): (Vec<_>, Vec<_>) = works
            .into_iter()
            .map(|work| {
                let (reply, answer) = oneshot::channel();
                (Job { work, reply }, answer)
            })
            .unzip();
        writer.commit_batch(connection, jobs);
        answers.into_iter().map(|mut answer| answer.try_recv().unwrap()).collect()
    }

    fn stored(connection: &mut SqliteConnection) -> (i64, i64) {
        let accounts = accounts::table.count().get_result(connection).unwrap();
        (accounts, idempotency_records::table.count().get_result(connection).unwrap())
    }

    #[test]
    fn a_full_disk_is_unavailable_and_every_answer_is_true() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("full.db");
        let mut connection = limited(&path);
        let outcomes = outcomes(&path, &mut connection, vec![small(1), large(2), small(3)]);
        assert!(matches!(outcomes[1], Err(CommitError::Unavailable(_))), "{outcomes:?}");
        let written = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        let refused = outcomes.iter().filter(|o| matches!(o, Err(CommitError::Unavailable(_)))).count();
        assert_eq!(written + refused, 3, "{outcomes:?}");
        assert_eq!(stored(&mut connect(&path).unwrap()), (i64::try_from(written).unwrap(), 0));
    }

    #[test]
    fn the_writer_goes_on_after_a_full_disk() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("full.db");
        let mut connection = limited(&path);
        assert!(outcomes(&path, &mut connection, vec![large(1)]).remove(0).is_err());
        assert!(outcomes(&path, &mut connection, vec![small(1)]).remove(0).is_ok());
        connection.batch_execute("PRAGMA max_page_count = 1000000").unwrap();
        assert!(outcomes(&path, &mut connection, vec![large(2)]).remove(0).is_ok());
        assert_eq!(stored(&mut connection), (2, 1));
    }

    #[test]
    fn a_transaction_that_is_lost_takes_its_batch_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lost.db");
        migrate(&path).unwrap();
        let mut connection = connect(&path).unwrap();
        // What SQLite does by itself after some errors: the third account ends the transaction.
        let lose = "CREATE TRIGGER lose AFTER INSERT ON accounts WHEN (SELECT COUNT(*) FROM accounts) = 3 \
                    BEGIN SELECT RAISE(ROLLBACK, 'lost'); END";
        connection.batch_execute(lose).unwrap();
        let outcomes = outcomes(&path, &mut connection, (1..=4).map(small).collect());
        for outcome in &outcomes {
            assert!(matches!(outcome, Err(CommitError::Unavailable(_))), "{outcomes:?}");
        }
        assert_eq!(stored(&mut connection), (0, 0));
        connection.batch_execute("DROP TRIGGER lose").unwrap();
        assert!(super::tests::outcomes(&path, &mut connection, vec![small(1)]).remove(0).is_ok());
    }

    #[test]
    fn a_fault_lasts_until_a_commit_has_reached_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("full.db");
        let (mut connection, mut other) = (limited(&path), connect(&path).unwrap());
        let writer = writer(&path);
        assert!(outcomes_by(&writer, &mut connection, vec![large(1)]).remove(0).is_err());
        assert!(writer.fault.get().unwrap().contains("full"));
        // No page may be rewritten: the probe in the batch is refused, and the batch with it.
        other
            .batch_execute(
                "CREATE TRIGGER full BEFORE UPDATE ON __diesel_schema_migrations \
                             BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END",
            )
            .unwrap();
        assert!(outcomes_by(&writer, &mut connection, vec![UnitOfWork::default()]).remove(0).is_err());
        assert!(writer.fault.get().is_some(), "a batch that writes nothing proves nothing");
        other.batch_execute("DROP TRIGGER full").unwrap();
        assert!(outcomes_by(&writer, &mut connection, vec![UnitOfWork::default()]).remove(0).is_ok());
        assert_eq!(writer.fault.get(), None);
    }

    #[test]
    fn nothing_is_acknowledged_into_a_file_that_was_moved() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("here.db");
        let away = directory.path().join("away.db");
        migrate(&path).unwrap();
        let mut connection = connect(&path).unwrap();
        stored(&mut connection);
        let writer = writer(&path);
        assert!(outcomes_by(&writer, &mut connection, vec![small(1)]).remove(0).is_ok());
        std::fs::rename(&path, &away).unwrap();
        let refused = outcomes_by(&writer, &mut connection, vec![small(2)]).remove(0);
        assert!(matches!(refused, Err(CommitError::Unavailable(_))), "{refused:?}");
        assert!(writer.fault.get().unwrap().contains("moved"));
        std::fs::rename(&away, &path).unwrap();
        assert!(outcomes_by(&writer, &mut connection, vec![small(3)]).remove(0).is_ok(), "it is back");
        assert_eq!((writer.fault.get(), stored(&mut connection)), (None, (2, 0)));
        std::fs::remove_file(&path).unwrap();
        assert!(outcomes_by(&writer, &mut connection, vec![small(4)]).remove(0).is_err());
        // What SQLite itself thinks of it.
        assert!(write_batch(&mut connection, &[small(5)], false).is_ok(), "control");
    }

    #[test]
    fn a_file_that_is_moved_during_a_batch_leaves_its_outcome_unknown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("here.db");
        migrate(&path).unwrap();
        let mut connection = connect(&path).unwrap();
        stored(&mut connection);
        let writer = writer(&path);
        let away = directory.path().join("away.db");
        connection.set_instrumentation(move |event: diesel::connection::InstrumentationEvent<'_>| {
            if let diesel::connection::InstrumentationEvent::FinishQuery { query, .. } = event
                && query.to_string().starts_with("COMMIT")
            {
                std::fs::rename(&path, &away).unwrap();
            }
        });
        let unknown = outcomes_by(&writer, &mut connection, vec![small(1)]).remove(0);
        assert!(matches!(unknown, Err(CommitError::OutcomeUnknown(_))), "{unknown:?}");
    }

    #[test]
    fn a_commit_that_fails_is_answered_by_what_it_left() {
        let failed = |message: &str| {
            let said = Box::new(message.to_owned());
            DieselError::DatabaseError(diesel::result::DatabaseErrorKind::Unknown, said)
        };
        for (message, nothing_written) in
            [("database is locked", true), ("database or disk is full", true), ("disk I/O error", false)]
        {
            assert_eq!(stopped_before_the_log_was_complete(&failed(message)), nothing_written, "{message}");
        }
    }
}
