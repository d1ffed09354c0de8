//! Storage in one SQLite file: the default, with nothing to install.
//!
//! # Threads
//! One writer thread owns the write connection; a few reader threads own one read connection each and share a queue. A
//! commit and a query are one job each: it is queued without blocking, refused as unavailable when the queue is full, and
//! answered through a oneshot channel. Aggregates are loaded by key on the thread of the caller, which takes a free
//! connection for that moment and never waits for one (`nearby.rs`, ADR 0013).
//!
//! Threads are supervised: after a panic a thread goes on with a new connection (`workers.rs`, ADR 0016). Before and after
//! each batch the writer compares the file and its log with those that were opened, by two `stat` calls (`served_file.rs`).
//!
//! # The life of a batch
//! The writer waits for a unit of work, takes what else is queued (at most [`SqliteOptions::group_commit_limit`]), and
//! writes all of it in one transaction: `BEGIN IMMEDIATE`, the statements of each unit, `COMMIT`. A unit that may well be
//! refused, because it has a command or a seat that has changed since, stands in a savepoint: `SAVEPOINT`, its statements, then
//! `RELEASE`, or `ROLLBACK TO` and `RELEASE`. When another one is refused half way, the batch is rolled back and written once
//! more, each unit in a savepoint. A unit sees those before it in the batch, and one that is refused leaves no trace. Only when `COMMIT` has returned does anybody hear an answer. There is no timer: while one
//! batch is written the next one gathers by itself, so an idle server commits one unit at once and a busy one hundreds.
//!
//! Versions are checked by the updates themselves (`WHERE id = ? AND version = ?`). When a unit is refused, the reason is
//! looked for once more in the order that all adapters report in, which costs a read per aggregate, on that path only.
//!
//! # Durability
//! `journal_mode = WAL` with `synchronous = FULL`: the log is synced before `COMMIT` returns, so what a caller was told is
//! committed survives the end of the process and a loss of power, as far as the disk keeps its word. A failed `COMMIT` is
//! rolled back. It is answered as unavailable when the disk was full or the file locked, since nothing was written then; after
//! an I/O error it is answered as unknown, because the log on the disk may be complete.
//!
//! # Statements
//! All are prepared once per connection. Per unit of work, besides `SAVEPOINT` and `RELEASE` where there are any, and for `s` seats:
//!
//! | unit | statements |
//! |---|---|
//! | charge, with a key | 3: answer, account, entry |
//! | reserve, with a key | 4 + 2s: answer, line, token, reservation; a seat and its place in the reservation each |
//! | pay, with a key | 7 + 2s: answer, token, account, reservation, its seats' ownership, entry, payment; a seat and a ticket each |
//! | join | 4: line, live token, line, token; one more to expire a lapsed token, and one to count in an OPEN room with a cap |
//! | admit | 1 when nobody waits, else 3, and one to count under a cap; however many are admitted |
//! | expire tokens, expire holds | 1 and 3; however many are expired |
//! | leave the line | 3: line, its number in the departures, token |
//! | note polls, give up the abandoned | 1; 2 after an outage, else 3, and the line when somebody is gone; however many there are |
//! | fill | 2, and one a person |
//! | prune tokens, prune answers | 3, or 2 when nothing is over; 1; however many are deleted |
//!
//! A batch adds `BEGIN IMMEDIATE` and `COMMIT`. If its units change seats, it adds one statement that looks at them before,
//! and for each date three at the end, which move its feed on: the version with the counts, the seats that this version
//! changed, and the oldest such row, which goes. A batch that makes dates adds one for each. So a lone reserve or payment has
//! 4 statements more than the table says, and a batch of 256 of one date has 4 more too.
//!
//! After a batch that failed, each batch also rewrites a page, until one is written: 1 statement. Readiness has two.
//!
//! Reading by key on the caller's thread needs a `BEGIN` after each commit, and a `ROLLBACK` of the snapshot before it.
//!
//! A load or a query is one statement (the lines of all rooms, too). Several in one read transaction are reservations as their user sees them
//! (2), all seats of a date with the version of its feed (2), and what a feed tells (3).

mod audit;
mod backup;
mod commands;
mod connection;
mod error;
mod feeds;
mod health;
mod nearby;
mod prune;
mod queries;
mod repositories;
mod served_file;
mod statement;
mod unit;
mod workers;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use diesel::sqlite::SqliteConnection;
use frontrow_domain::ports::{Committer, StorageError};
use frontrow_domain::unit_of_work::{CommitError, Committed, Priority, UnitOfWork};
use tokio::sync::oneshot;

use self::connection::Verification;
use self::error::{ReadError, WorkerGone};
use self::health::WriteFault;
use self::nearby::Nearby;
use self::served_file::ServedFile;
use self::workers::{Queue, QueueError, Recovery, Workers};
use self::writer::{Counters, Job, Writer};

/// How long a dropped [`Sqlite`] waits for what is queued.
const DROP_LIMIT: Duration = Duration::from_secs(10);

/// How much a [`Sqlite`] takes on at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SqliteOptions {
    /// The most units of work in one transaction.
    pub group_commit_limit: usize,
    /// The most units of work that may be queued; more are refused as unavailable, the newest of the lowest priority.
    pub queue_limit: usize,
    /// Whether units wait in lanes by their priority. Only tests say no, to see what the lanes are for.
    pub prioritise: bool,
    /// How many threads read.
    pub read_connections: usize,
    /// How many reads by key may run at once on the threads of their callers. With 0 all reads go to the threads that read.
    pub nearby_connections: usize,
    /// The most reads that may be queued; more are refused as unavailable.
    pub read_queue_limit: usize,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            group_commit_limit: 256,
            queue_limit: 8_192,
            prioritise: true,
            read_connections: 3,
            nearby_connections: 8,
            read_queue_limit: 8_192,
        }
    }
}

/// What a [`Sqlite`] has done since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SqliteStats {
    /// Transactions that were written, each a batch of units.
    pub batches: u64,
    /// Units of work in them, refused ones included.
    pub units: u64,
    /// Units of work that are queued now.
    pub queued_units: usize,
    /// Reads that are queued now.
    pub queued_reads: usize,
}

/// Why a database could not be opened or migrated.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The path names no file that could be opened.
    #[error("{0} is no path of a database")]
    Path(PathBuf, #[source] std::io::Error),
    /// There is no such file.
    #[error("{0} is not there")]
    Missing(PathBuf),
    /// The file has several names. SQLite keeps a log beside each, so that what is written by one is lost by the other.
    #[error(
        "{0} has other names (hard links): SQLite keeps a log for each, and would lose writes. Remove the others"
    )]
    SeveralNames(PathBuf),
    /// The file is mounted by itself: its log, its locks and its secret would lie next to the mount point.
    #[error(
        "cannot open database file {0}: it is a mount point, so that its log and its locks would not be next to it. Mount its folder instead"
    )]
    MountPoint(PathBuf),
    /// The file holds no tables of this program.
    #[error("it is not a frontrow database")]
    Foreign,
    /// The integrity check, or that of the foreign keys, found something.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// Somebody began to write to a file that nobody used, while it was audited by a reader who cannot take part in locking.
    #[error("{0} has come into use meanwhile: try again")]
    InUse(PathBuf),
    /// The file could not be opened.
    #[error("the database could not be opened")]
    Connect(#[from] diesel::ConnectionError),
    /// The database could not be read or set up.
    #[error("the database could not be set up")]
    Setup(#[from] diesel::result::Error),
    /// The schema is absent or older than this program.
    #[error("the schema of the database is not up to date: migration {missing} is missing")]
    SchemaTooOld {
        /// The first migration that is missing.
        missing: String,
    },
    /// The schema is newer than this program.
    #[error("the schema of the database is newer than this program: it has migration {unknown}")]
    SchemaTooNew {
        /// The first migration that is not known.
        unknown: String,
    },
    /// A migration failed; the schema is what it was before.
    #[error("the schema could not be migrated")]
    Migration(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The system gave no thread.
    #[error("the database threads could not be started")]
    Threads(#[source] std::io::Error),
}

/// How much is in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field counts the rows of its name")]
pub struct Contents {
    pub seats: i64,
    pub reservations: i64,
    pub payments: i64,
    pub entries: i64,
}

/// A read, to be done on whichever connection is free.
type Read = Box<dyn FnOnce(&mut SqliteConnection) + Send>;

/// Storage in one SQLite file.
pub struct Sqlite {
    writer: Workers<Job>,
    readers: Workers<Read>,
    nearby: Arc<Nearby>,
    prioritise: bool,
    counters: Arc<Counters>,
    file: Arc<ServedFile>,
    fault: Arc<WriteFault>,
    /// The versions of this program's migrations.
    migrations: Arc<[String]>,
}

impl Sqlite {
    /// Opens a database whose schema is up to date (see [`Sqlite::migrate`]), and starts its threads.
    ///
    /// # Errors
    /// [`OpenError::Missing`] and [`OpenError::SchemaTooOld`] when the file or its tables are missing, which leaves no new file
    /// behind; and any other [`OpenError`].
    pub fn open(path: impl AsRef<Path>, options: SqliteOptions) -> Result<Self, OpenError> {
        let path = path.as_ref();
        connection::require_file(path)?;
        let mut write_connection = connection::connect(path)?;
        connection::require_schema(&mut write_connection)?;
        let read_connections: Vec<_> = (0..options.read_connections.max(1))
            .map(|_| connection::connect_reader(path))
            .collect::<Result<_, _>>()?;

        let nearby = (0..options.nearby_connections).map(|_| connection::connect_nearby(path));
        let nearby = Arc::new(Nearby::new(nearby.collect::<Result<_, _>>()?));

        let served = ServedFile::remember(path);
        let file = Arc::new(served.map_err(|source| OpenError::Path(path.to_owned(), source))?);
        let (counters, fault) = (Arc::<Counters>::default(), Arc::<WriteFault>::default());
        let writer = Writer {
            batch_limit: options.group_commit_limit,
            counters: counters.clone(),
            nearby: nearby.clone(),
            file: file.clone(),
            fault: fault.clone(),
        };
        Ok(Self {
            writer: start_writer(write_connection, options.queue_limit, writer)?,
            readers: start_readers(read_connections, options.read_queue_limit, nearby.clone(), file.clone())?,
            nearby,
            prioritise: options.prioritise,
            counters,
            file,
            fault,
            migrations: connection::known_versions()?.into(),
        })
    }

    /// Brings the schema of a database up to date, making the file if it is missing. Returns the migrations that were run.
    /// Any number of processes may do this at the same time: one works, the others wait for it.
    ///
    /// # Errors
    /// [`OpenError`]; the schema is then what it was before.
    pub fn migrate(path: impl AsRef<Path>) -> Result<Vec<String>, OpenError> {
        connection::migrate(path.as_ref())
    }

    /// Checks every invariant in one snapshot of a file, which may be in use. Changes nothing in it, and leaves nothing beside it.
    ///
    /// # Errors
    /// [`OpenError`] when the file is missing, cannot be read, or has another schema.
    pub fn audit(path: impl AsRef<Path>) -> Result<Vec<crate::audit::Finding>, OpenError> {
        audit::audit(path.as_ref())
    }

    /// Copies a file, which may be in use, into `target`, which is missing or empty, and sets the marker of the copy. The copy is
    /// consistent, compact and complete without a log. It is not synced.
    ///
    /// # Errors
    /// [`OpenError`] when the file is missing, cannot be read, or is not of this program, or `target` cannot be written.
    pub fn copy(path: impl AsRef<Path>, target: impl AsRef<Path>, marker: i32) -> Result<(), OpenError> {
        backup::copy(path.as_ref(), target.as_ref(), marker)
    }

    /// Checks the integrity of a file that is in use by nobody and has no log, its foreign keys and its schema, which may be
    /// older than this program.
    ///
    /// # Errors
    /// [`OpenError::Damaged`], [`OpenError::Foreign`] and [`OpenError::SchemaTooNew`]; another one when it cannot be read.
    pub fn verify(path: impl AsRef<Path>) -> Result<Contents, OpenError> {
        backup::verify(path.as_ref(), Verification::WithoutLog)
    }

    /// As [`Sqlite::verify`], of a file together with the log next to it. Neither is changed.
    ///
    /// # Errors
    /// Those of [`Sqlite::verify`].
    pub fn verify_with_log(path: impl AsRef<Path>) -> Result<Contents, OpenError> {
        backup::verify(path.as_ref(), Verification::WithLog)
    }

    /// Sets the marker of a file (`user_version` in its header), and begins a new incarnation of its data if that is asked
    /// for, in one transaction. When this is the only use of the file, the log is written into it and removed.
    ///
    /// # Errors
    /// [`OpenError`] when it cannot be written, or a new incarnation is asked for and the schema is not up to date.
    pub fn mark(path: impl AsRef<Path>, marker: i32, new_incarnation: bool) -> Result<(), OpenError> {
        backup::mark(path.as_ref(), marker, new_incarnation)
    }

    /// Whether there are concerts in a file. A file that is missing, or without tables, has none.
    ///
    /// # Errors
    /// [`OpenError`] when it cannot be read.
    pub fn holds_concerts(path: impl AsRef<Path>) -> Result<bool, OpenError> {
        backup::holds_concerts(path.as_ref())
    }

    /// Checks that a file is not mounted by itself: log and locks would lie next to the mount point.
    ///
    /// # Errors
    /// [`OpenError::MountPoint`].
    pub fn require_no_mount_point(path: impl AsRef<Path>) -> Result<(), OpenError> {
        connection::require_no_mount_point(path.as_ref())
    }

    /// Checks that a file has one name, and is not mounted by itself: either way two processes would use two logs.
    ///
    /// # Errors
    /// [`OpenError::SeveralNames`] and [`OpenError::MountPoint`].
    pub fn require_shared_neighbours(path: impl AsRef<Path>) -> Result<(), OpenError> {
        connection::require_shared_neighbours(path.as_ref())
    }

    /// Takes no more work, finishes what is queued, ends the threads and closes the connections. Blocks, at most `limit` for
    /// the writer and as long again for the readers; false when that was not enough, or a thread had failed. Calls that come
    /// later are unavailable.
    pub fn close(&self, limit: Duration) -> bool {
        let written = self.writer.close(limit);
        let is_closed = self.readers.close(limit) && written;
        self.nearby.close();
        is_closed
    }

    /// Refuses commits and reads from now on, and is not ready: another program wrote over the file.
    pub fn distrust_file(&self) {
        self.file.distrust();
    }

    /// What has been done so far, for metrics.
    #[must_use]
    pub fn stats(&self) -> SqliteStats {
        SqliteStats {
            batches: self.counters.batches.load(Ordering::Relaxed),
            units: self.counters.units.load(Ordering::Relaxed),
            queued_units: self.writer.queued(),
            queued_reads: self.readers.queued(),
        }
    }

    /// Runs a `query` that finds few rows by their keys: on this thread, or where that would wait, as [`Self::read`] does.
    async fn load<T: Send + 'static>(
        &self,
        query: impl Fn(&mut SqliteConnection) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, StorageError> {
        if self.readers.is_closed() {
            return Err(StorageError::Unavailable(Box::new(WorkerGone)));
        }
        self.file.check_lately().map_err(|replaced| StorageError::Unavailable(Box::new(replaced)))?;
        match self.nearby.read(&query) {
            Some(answer) => Ok(answer?),
            None => self.read(query).await,
        }
    }

    /// Runs `query` on a read connection. A caller who went away meanwhile withdraws it.
    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&mut SqliteConnection) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, StorageError> {
        self.file.check_lately().map_err(|replaced| StorageError::Unavailable(Box::new(replaced)))?;
        let (reply, answer) = oneshot::channel();
        let job = move |connection: &mut SqliteConnection| {
            if !reply.is_closed() {
                let _ = reply.send(query(connection));
            }
        };
        // One lane: who is let in to read at all is decided in front of the use cases (ADR 0015).
        let queued = self.readers.send(Priority::Pay, Box::new(job));
        queued.map_err(|error| StorageError::Unavailable(Box::new(error)))?;
        let answered = answer.await.map_err(|_| StorageError::Unavailable(Box::new(WorkerGone)))?;
        Ok(answered?)
    }
}

/// Starts the writer thread. After a panic it goes on with a new connection; units of the batch in which it panicked have
/// an unknown outcome, since nothing tells on which side of the COMMIT that was.
fn start_writer(
    connection: SqliteConnection,
    queue_limit: usize,
    writer: Writer,
) -> Result<Workers<Job>, OpenError> {
    let file = writer.file.clone();
    let recovery = Recovery {
        reopen: Arc::new(move || reopen(&file, connection::connect)),
        refuse: |job: Job| drop(job.reply.send(Err(CommitError::Unavailable(Box::new(WorkerGone))))),
    };
    let write = move |connection: &mut SqliteConnection, jobs: &Queue<Job>| {
        writer.write_queued(connection, jobs);
    };
    Workers::start("sqlite-writer", vec![connection], queue_limit, write, recovery)
        .map_err(OpenError::Threads)
}

/// Starts the reader threads. After a panic one goes on with a new connection; its caller gets no answer.
fn start_readers(
    connections: Vec<SqliteConnection>,
    queue_limit: usize,
    nearby: Arc<Nearby>,
    file: Arc<ServedFile>,
) -> Result<Workers<Read>, OpenError> {
    let recovery =
        Recovery { reopen: Arc::new(move || reopen(&file, connection::connect_reader)), refuse: drop };
    let read = move |connection: &mut SqliteConnection, reads: &Queue<Read>| {
        while let Some(read) = reads.take(1).pop() {
            read(connection);
            nearby.end_stale();
        }
    };
    Workers::start("sqlite-reader", connections, queue_limit, read, recovery).map_err(OpenError::Threads)
}

/// Opens another connection to the very file that is served.
fn reopen(
    file: &ServedFile,
    connect: impl Fn(&Path) -> Result<SqliteConnection, OpenError>,
) -> Result<SqliteConnection, Box<dyn std::error::Error + Send + Sync>> {
    file.check()?;
    let connection = connect(file.path())?;
    file.check()?;
    Ok(connection)
}

#[async_trait]
impl Committer for Sqlite {
    async fn commit(&self, work: UnitOfWork) -> Result<Committed, CommitError> {
        let (reply, answer) = oneshot::channel();
        let refused = |error: QueueError| CommitError::Unavailable(Box::new(error));
        let priority = if self.prioritise { work.priority() } else { Priority::Pay };
        if let Some(displaced) = self.writer.send(priority, Job { work, reply }).map_err(refused)? {
            let _ = displaced.reply.send(Err(refused(QueueError::Full)));
        }
        // The writer answers every unit it took. Without an answer it may have ended on either side of a COMMIT.
        answer.await.unwrap_or_else(|_| Err(CommitError::OutcomeUnknown(Box::new(WorkerGone))))
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        if !self.close(DROP_LIMIT) {
            tracing::warn!("the database was dropped before its threads had ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use diesel::connection::{Connection, InstrumentationEvent};
    use frontrow_domain::account::Account;
    use frontrow_domain::ports::{Accounts, StorageHealth, Writability};
    use frontrow_domain::{Change, UserId};
    use tempfile::TempDir;
    use uuid::Uuid;

    use super::*;

    fn opened() -> (TempDir, Sqlite) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("test.db");
        Sqlite::migrate(&path).unwrap();
        let sqlite = Sqlite::open(&path, SqliteOptions::default()).unwrap();
        (directory, sqlite)
    }

    fn first_account(n: u128) -> UnitOfWork {
        let account = Account::empty(UserId::new(Uuid::from_u128(n)));
        UnitOfWork { accounts: vec![Change::Insert(account)], ..UnitOfWork::default() }
    }

    async fn is_stored(sqlite: &Sqlite, n: u128) -> bool {
        sqlite.find(UserId::new(Uuid::from_u128(n))).await.unwrap().is_some()
    }

    /// The writer's first connection panics at the statement that begins so; its successors do not.
    async fn writer_panics_at(statement: &'static str) {
        let (_directory, mut sqlite) = opened();
        let writer = Writer {
            batch_limit: 1,
            counters: sqlite.counters.clone(),
            nearby: sqlite.nearby.clone(),
            file: sqlite.file.clone(),
            fault: sqlite.fault.clone(),
        };
        let mut fragile = connection::connect(sqlite.file.path()).unwrap();
        fragile.set_instrumentation(move |event: InstrumentationEvent<'_>| {
            if let InstrumentationEvent::StartQuery { query, .. } = event {
                assert!(!query.to_string().starts_with(statement), "on purpose");
            }
        });
        sqlite.writer = start_writer(fragile, 9, writer).unwrap();
        let first = sqlite.commit(first_account(1)).await;
        assert!(matches!(first, Err(CommitError::OutcomeUnknown(_))), "{statement}: {first:?}");
        for n in 2..5 {
            sqlite.commit(first_account(n)).await.unwrap();
        }
        assert!(!is_stored(&sqlite, 1).await && is_stored(&sqlite, 4).await, "{statement}");
        assert!(sqlite.close(DROP_LIMIT), "{statement}: the thread ends in order");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_writer_survives_a_panic_anywhere_in_a_batch() {
        for statement in ["BEGIN", "INSERT INTO `accounts`", "COMMIT"] {
            writer_panics_at(statement).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn readers_survive_panics_and_their_callers_hear_at_once() {
        let (_directory, sqlite) = opened();
        for _ in 0..10 {
            let panicked = sqlite.read::<()>(|_| panic!("on purpose")).await;
            assert!(matches!(panicked, Err(StorageError::Unavailable(_))), "{panicked:?}");
        }
        sqlite.read(|connection| Ok(statement::run(connection, "SELECT 1")?)).await.unwrap();
        assert!(sqlite.close(DROP_LIMIT));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn readiness_does_not_wait_for_slow_reads() {
        let (_directory, sqlite) = opened();
        let sqlite = Arc::new(sqlite);
        let (release, held) = crossbeam_channel::bounded::<()>(0);
        let slow = || {
            let (sqlite, held) = (sqlite.clone(), held.clone());
            tokio::spawn(async move {
                let wait = move |_: &mut SqliteConnection| {
                    let _ = held.recv();
                    Ok(())
                };
                sqlite.read(wait).await.unwrap();
            })
        };
        let slow: Vec<_> = (0..9).map(|_| slow()).collect();
        while sqlite.stats().queued_reads == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let patience = Duration::from_secs(2);
        let control = sqlite.read(|connection| Ok(statement::run(connection, "SELECT 1")?));
        assert!(tokio::time::timeout(patience / 10, control).await.is_err(), "control: readers are held");
        let asked = tokio::time::timeout(patience, sqlite.writability()).await;
        assert_eq!(asked.expect("no wait for a reader thread").unwrap(), Writability::Writable);
        drop(release);
        for slow in slow {
            slow.await.unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_thread_that_finds_no_file_to_reopen_refuses_until_it_is_back() {
        let (directory, sqlite) = opened();
        let (path, away) = (directory.path().join("test.db"), directory.path().join("away.db"));
        let moved = (path.clone(), away.clone());
        let panicked = sqlite
            .read::<()>(move |_| {
                std::fs::rename(moved.0, moved.1).unwrap();
                panic!("on purpose")
            })
            .await;
        assert!(panicked.is_err());
        let refused = sqlite.commit(first_account(1)).await;
        assert!(matches!(refused, Err(CommitError::Unavailable(_))), "{refused:?}");
        assert!(sqlite.read(|connection| Ok(statement::run(connection, "SELECT 1")?)).await.is_err());
        std::fs::rename(away, path).unwrap();
        sqlite.commit(first_account(2)).await.unwrap();
        for _ in 0..10 {
            sqlite.read(|connection| Ok(statement::run(connection, "SELECT 1")?)).await.unwrap();
        }
        assert!(!is_stored(&sqlite, 1).await && is_stored(&sqlite, 2).await);
    }
}
