//! Readiness of the file: whether it is the one that was opened, has its schema, and took the last batch. The schema is read on
//! the thread of the caller, not behind slow reads in the queue of the reader threads.

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use diesel::prelude::{QueryableByName, RunQueryDsl};
use diesel::result::Error as DieselError;
use diesel::sql_types::Text;
use frontrow_domain::ports::{StorageError, StorageHealth, Writability};
use frontrow_domain::unit_of_work::{CommitError, Committed};
use rustix::fs::{Access, StatVfsMountFlags, access, statvfs};

use super::Sqlite;
use super::error::{BatchCause, said_by};
use super::served_file::{FileReplaced, ServedFile};
use super::statement::Sql;
use crate::sql::TABLES;

const FILE_REPLACED: &str = "the database file was deleted, moved or replaced while it is served";
const FILE_OVERWRITTEN: &str = "the database file was overwritten while it is served: run `frontrow restore`";

/// Why the last batch was not written. While there is a reason, each batch also rewrites a page, so that only a commit that
/// reached the file clears it: one that changes nothing succeeds on a full disk too.
#[derive(Debug, Default)]
pub(super) struct WriteFault(Mutex<Option<&'static str>>);

impl WriteFault {
    /// A batch as a whole was not written.
    pub(super) fn set(&self, cause: &BatchCause) {
        let reason = match cause {
            BatchCause::FileReplaced(_) => FILE_REPLACED,
            BatchCause::Database(error) => reason_of(error).unwrap_or("the last commit failed"),
        };
        *self.reason() = Some(reason);
    }

    /// A batch was written, with these outcomes of its units: one that the disk refused was rolled back alone.
    pub(super) fn note(&self, outcomes: &[Result<Committed, CommitError>]) {
        let refused = outcomes.iter().find_map(|outcome| match outcome {
            Err(CommitError::Unavailable(source)) => source.downcast_ref().and_then(reason_of),
            _ => None,
        });
        *self.reason() = refused;
    }

    pub(super) fn get(&self) -> Option<&'static str> {
        *self.reason()
    }

    fn reason(&self) -> MutexGuard<'_, Option<&'static str>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reason_of(error: &DieselError) -> Option<&'static str> {
    match said_by(error)? {
        "database or disk is full" => Some("the disk is full: the last commit failed"),
        "attempt to write a readonly database" => {
            Some("the database file is read-only: the last commit failed")
        }
        "disk I/O error" => Some("the disk has failed: the last commit ended in an I/O error"),
        "database is locked" => {
            Some("the database file is locked by another process: the last commit failed")
        }
        _ => None,
    }
}

/// What the file system says of the file, without a write. Blocks that only root may take count as free: a server that runs as root
/// uses them, and for one that does not the next commit tells.
fn refused_by_file_system(file: &ServedFile) -> Option<&'static str> {
    let disk = statvfs(file.path()).ok()?;
    if disk.f_flag.contains(StatVfsMountFlags::RDONLY) {
        Some("the disk of the database file is read-only")
    } else if access(file.path(), Access::WRITE_OK).is_err() {
        Some("the database file may not be written")
    } else if disk.f_blocks > 0 && disk.f_bfree == 0 {
        Some("the disk of the database file is full")
    } else {
        None
    }
}

#[derive(QueryableByName)]
struct Name {
    #[diesel(sql_type = Text)]
    name: String,
}

const TABLE_NAMES: Sql<()> = Sql("SELECT name FROM sqlite_master WHERE type = 'table'", ());
const APPLIED: Sql<()> = Sql("SELECT version AS name FROM __diesel_schema_migrations", ());
/// The table in which diesel notes the migrations that were applied.
const MIGRATIONS_TABLE: &str = "__diesel_schema_migrations";

#[async_trait]
impl StorageHealth for Sqlite {
    async fn writability(&self) -> Result<Writability, StorageError> {
        if self.file.check() == Err(FileReplaced) {
            let reason = if self.file.is_overwritten() { FILE_OVERWRITTEN } else { FILE_REPLACED };
            return Ok(Writability::refused(reason));
        }
        let migrations = self.migrations.clone();
        let missing = self
            .load(move |connection| {
                let names = |names: Vec<Name>| names.into_iter().map(|row| row.name).collect::<Vec<_>>();
                let tables = names(TABLE_NAMES.load(connection)?);
                if !tables.iter().any(|table| table == MIGRATIONS_TABLE) {
                    return Ok(Some("the database file has no schema".to_owned()));
                }
                let applied = names(APPLIED.load::<Name>(connection)?);
                let migration = migrations.iter().find(|version| !applied.contains(version));
                let table = TABLES.iter().find(|table| !tables.iter().any(|found| found == *table));
                let missing =
                    migration.map(|version| format!("migration {version} is missing in the database file"));
                Ok(missing
                    .or_else(|| table.map(|table| format!("table {table} is missing in the database file"))))
            })
            .await?;
        let refused = missing.map(Into::into);
        let refused = refused.or_else(|| refused_by_file_system(&self.file).map(Into::into));
        let refused = refused.or_else(|| self.fault.get().map(Into::into));
        Ok(refused.map_or(Writability::Writable, Writability::NotWritable))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_its_reason_and_the_last_one_counts() {
        let failed = |message: &str| {
            let said = Box::new(message.to_owned());
            BatchCause::Database(DieselError::DatabaseError(diesel::result::DatabaseErrorKind::Unknown, said))
        };
        let fault = WriteFault::default();
        assert_eq!(fault.get(), None);
        for (cause, word) in [
            (failed("database or disk is full"), "full"),
            (failed("attempt to write a readonly database"), "read-only"),
            (failed("disk I/O error"), "I/O"),
            (failed("database is locked"), "locked"),
            (failed("something else"), "the last commit failed"),
            (BatchCause::FileReplaced(FileReplaced), "replaced"),
        ] {
            fault.set(&cause);
            assert!(fault.get().unwrap().contains(word), "{cause:?}");
        }
        fault.note(&[Ok(Committed { outcome: None })]);
        assert_eq!(fault.get(), None);
    }
}
