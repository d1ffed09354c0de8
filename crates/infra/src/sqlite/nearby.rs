//! Read connections for the caller's own thread.
//!
//! A read by key takes some microseconds from the page cache; to hand it to another thread and to be woken by it takes
//! several times that. So whoever reads by key takes a free connection for that moment and reads at once. Where none is
//! free, or the file is locked, the read goes to the reader threads, which may wait (ADR 0013).
//!
//! Between two commits all reads of a connection share one snapshot. To begin one costs several system calls and throws
//! away all pages that the connection has in memory, which is more than the read itself. The writer counts its commits
//! before anybody hears of them, so that a read never sees less than what was committed before it began. What another
//! process writes is seen within [`SNAPSHOT_LASTS`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use diesel::QueryResult;
use diesel::result::Error as DieselError;
use diesel::sqlite::SqliteConnection;

use super::error::{ReadError, said_by};
use super::statement::run;

/// How long a snapshot is read from at most.
const SNAPSHOT_LASTS: Duration = Duration::from_millis(50);

/// Connections that are taken for a moment, and never waited for.
pub(super) struct Nearby {
    /// None once they are closed.
    readers: Vec<Mutex<Option<Reader>>>,
    /// How often the writer has committed.
    commits: AtomicU64,
}

struct Reader {
    connection: SqliteConnection,
    snapshot: Option<Snapshot>,
}

/// An open read transaction.
#[derive(Clone, Copy)]
struct Snapshot {
    /// It has at least so many commits.
    commits: u64,
    begun: Instant,
}

impl Snapshot {
    /// Whether it has all there is.
    fn is_fresh(&self, commits: u64) -> bool {
        self.commits == commits && self.begun.elapsed() < SNAPSHOT_LASTS
    }
}

impl Nearby {
    /// The connections must fail at once where they would have to wait for a lock.
    pub(super) fn new(connections: Vec<SqliteConnection>) -> Self {
        let reader = |connection| Mutex::new(Some(Reader { connection, snapshot: None }));
        Self { readers: connections.into_iter().map(reader).collect(), commits: AtomicU64::new(0) }
    }

    /// Runs `query` here and now; `None` when it would have to wait.
    pub(super) fn read<T>(
        &self,
        query: impl Fn(&mut SqliteConnection) -> Result<T, ReadError>,
    ) -> Option<Result<T, ReadError>> {
        let mut reader = self.readers.iter().find_map(try_lock)?;
        let reader = reader.as_mut()?;
        // Counted before the snapshot begins: it may have more than that, never less.
        let commits = self.commits.load(Ordering::Acquire);
        let answer = match reader.renew(commits) {
            Ok(()) => query(&mut reader.connection),
            Err(error) => Err(error.into()),
        };
        if answer.is_err() {
            reader.end();
        }
        match answer {
            Err(ReadError::Database(error)) if is_locked(&error) => None,
            answer => Some(answer),
        }
    }

    /// The writer has committed, and nobody knows yet.
    pub(super) fn committed(&self) {
        self.commits.fetch_add(1, Ordering::Release);
        self.end_stale();
    }

    /// Ends the snapshots that nobody may read from any more: as long as there is one, SQLite cannot begin its log anew.
    /// One that is in use is left to its user, or to the next who comes by here.
    pub(super) fn end_stale(&self) {
        let commits = self.commits.load(Ordering::Acquire);
        for mut reader in self.readers.iter().filter_map(try_lock) {
            let Some(reader) = reader.as_mut() else { continue };
            if reader.snapshot.is_some_and(|snapshot| !snapshot.is_fresh(commits)) {
                reader.end();
            }
        }
    }
}

impl Nearby {
    /// Closes the connections, each when the read that uses it is over. SQLite writes its log into the file when the last
    /// connection is closed.
    pub(super) fn close(&self) {
        for reader in &self.readers {
            *reader.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

impl Reader {
    /// Begins a snapshot, unless there is one that has all `commits`.
    fn renew(&mut self, commits: u64) -> QueryResult<()> {
        if self.snapshot.is_some_and(|snapshot| snapshot.is_fresh(commits)) {
            return Ok(());
        }
        self.end();
        run(&mut self.connection, "BEGIN")?;
        self.snapshot = Some(Snapshot { commits, begun: Instant::now() });
        Ok(())
    }

    /// Where there is nothing to end any more, that is well too.
    fn end(&mut self) {
        if self.snapshot.take().is_some() {
            let _ = run(&mut self.connection, "ROLLBACK");
        }
    }
}

fn try_lock(reader: &Mutex<Option<Reader>>) -> Option<MutexGuard<'_, Option<Reader>>> {
    match reader.try_lock() {
        Ok(reader) => Some(reader),
        // A read leaves nothing half done: diesel resets its statement however it ends.
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

fn is_locked(error: &DieselError) -> bool {
    said_by(error).is_some_and(|said| said.contains("is locked"))
}

#[cfg(test)]
mod tests {
    use diesel::connection::SimpleConnection;
    use diesel::prelude::{QueryDsl, RunQueryDsl};

    use super::*;
    use crate::sql::schema::accounts;
    use crate::sqlite::connection::{connect, connect_nearby, migrate};

    struct Scene {
        nearby: Nearby,
        other: SqliteConnection,
        _directory: tempfile::TempDir,
    }

    impl Scene {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("near.db");
            migrate(&path).unwrap();
            let nearby = Nearby::new(vec![connect_nearby(&path).unwrap()]);
            Self { nearby, other: connect(&path).unwrap(), _directory: directory }
        }

        fn write(&mut self) {
            let insert = "INSERT INTO accounts (user_id, balance, entry_count, version) VALUES (randomblob(16), 0, 0, 1)";
            self.other.batch_execute(insert).unwrap();
        }
    }

    fn count(connection: &mut SqliteConnection) -> Result<i64, ReadError> {
        Ok(accounts::table.count().get_result(connection)?)
    }

    #[test]
    fn a_free_connection_answers_and_none_is_waited_for() {
        let Scene { nearby, .. } = Scene::new();
        assert!(matches!(nearby.read(count), Some(Ok(0))));
        let taken = nearby.readers[0].lock().unwrap();
        assert!(nearby.read(count).is_none(), "the only one is taken");
        drop(taken);
        assert!(nearby.read(count).is_some());
    }

    #[test]
    fn a_read_sees_every_commit_that_was_counted_before_it() {
        let mut scene = Scene::new();
        for written in 1..=20 {
            scene.write();
            scene.nearby.committed();
            assert!(matches!(scene.nearby.read(count), Some(Ok(found)) if found == written));
            assert!(matches!(scene.nearby.read(count), Some(Ok(found)) if found == written));
        }
    }

    #[test]
    fn what_nobody_counted_is_seen_a_moment_later() {
        let mut scene = Scene::new();
        assert!(matches!(scene.nearby.read(count), Some(Ok(0))));
        scene.write();
        std::thread::sleep(SNAPSHOT_LASTS);
        assert!(matches!(scene.nearby.read(count), Some(Ok(1))));
    }

    #[test]
    fn a_snapshot_that_is_over_does_not_hold_up_the_log() {
        let mut scene = Scene::new();
        assert!(matches!(scene.nearby.read(count), Some(Ok(0))));
        scene.write();
        let truncated = |connection: &mut SqliteConnection| {
            // Fails with "database is locked" while an older snapshot is open.
            connection.batch_execute("PRAGMA busy_timeout = 0; PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
            let log = diesel::sql_query("PRAGMA wal_checkpoint(TRUNCATE)");
            #[derive(diesel::QueryableByName)]
            struct Checkpoint {
                #[diesel(sql_type = diesel::sql_types::Integer)]
                busy: i32,
            }
            log.get_result::<Checkpoint>(connection).unwrap().busy == 0
        };
        assert!(!truncated(&mut scene.other), "control: the snapshot is open");
        scene.nearby.committed();
        assert!(truncated(&mut scene.other));
    }

    /// With a log, a file is locked for readers only while the log is recovered, which no test can hold on to.
    #[test]
    fn a_locked_file_is_left_to_those_who_may_wait() {
        let Scene { nearby, .. } = Scene::new();
        let fails_with = |said: &'static str| {
            nearby.read(move |_| {
                let said = Box::new(said.to_owned());
                let unknown = diesel::result::DatabaseErrorKind::Unknown;
                Err::<(), _>(ReadError::Database(DieselError::DatabaseError(unknown, said)))
            })
        };
        assert!(fails_with("database is locked").is_none());
        assert!(fails_with("disk I/O error").is_some_and(|answer| answer.is_err()));
        assert!(matches!(nearby.read(count), Some(Ok(0))));
    }

    #[test]
    fn the_log_is_in_the_file_once_they_are_closed() {
        let Scene { nearby, other, _directory: directory } = Scene::new();
        assert!(matches!(nearby.read(count), Some(Ok(0))));
        drop(other);
        let log = directory.path().join("near.db-wal");
        assert!(log.exists(), "control: one of them is open");
        nearby.close();
        assert!(!log.exists());
        assert!(nearby.read(count).is_none());
    }

    #[test]
    fn nothing_can_be_written_through_them() {
        let Scene { nearby, .. } = Scene::new();
        let write =
            |connection: &mut SqliteConnection| Ok(diesel::delete(accounts::table).execute(connection)?);
        assert!(matches!(nearby.read(write), Some(Err(ReadError::Database(_)))));
        assert!(matches!(nearby.read(count), Some(Ok(0))), "and it goes on");
    }
}
