//! Readiness of PostgreSQL: one statement, which every role may run.
//!
//! It takes a connection as committers do, because writes are what it is about: slow reads that hold all connections of reads
//! do not delay it. Callers share one such question (readiness, the circuit breaker), so that it takes few of them.

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel::sql_types::{Array, Bool, Nullable, Text};
use diesel::{QueryableByName, sql_query};
use diesel_async::RunQueryDsl;
use frontrow_domain::ports::{StorageError, StorageHealth, Writability};
use frontrow_domain::unit_of_work::CommitError;

use super::Postgres;
use super::cached::Cached;
use super::connection;
use super::connection::AcquireError;
use super::error::{ConnectError, read_error};
use super::migrate::known_versions;
use super::shared::Shared;
use crate::sql::TABLES;

/// What a write depends on. A database without the table of migrations fails to parse it.
const STATE: &str = "\
    SELECT pg_is_in_recovery() AS is_standby, current_setting('transaction_read_only')::BOOL AS is_read_only, \
        ARRAY(SELECT version::TEXT FROM __diesel_schema_migrations) AS applied, \
        (SELECT name FROM unnest($1) AS name WHERE to_regclass(name) IS NULL LIMIT 1) AS missing_table, \
        (SELECT name FROM unnest($1) AS name WHERE to_regclass(name) IS NOT NULL \
            AND NOT has_table_privilege(to_regclass(name), 'INSERT') LIMIT 1) AS forbidden_table";

/// The table in which diesel notes the migrations that were applied.
const MIGRATIONS_TABLE: &str = "__diesel_schema_migrations";

#[derive(QueryableByName)]
struct State {
    #[diesel(sql_type = Bool)]
    is_standby: bool,
    #[diesel(sql_type = Bool)]
    is_read_only: bool,
    #[diesel(sql_type = Array<Text>)]
    applied: Vec<String>,
    #[diesel(sql_type = Nullable<Text>)]
    missing_table: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    forbidden_table: Option<String>,
}

impl State {
    fn writability(self) -> Result<Writability, StorageError> {
        let known = known_versions().map_err(StorageError::Unavailable)?;
        let missing = known.into_iter().find(|version| !self.applied.contains(version));
        Ok(if self.is_standby {
            Writability::refused("the database is a standby in recovery, which cannot be written")
        } else if self.is_read_only {
            Writability::refused("the database is read-only (default_transaction_read_only)")
        } else if let Some(migration) = missing {
            Writability::refused(format!("migration {migration} is missing in the database"))
        } else if let Some(table) = self.missing_table {
            Writability::refused(format!("table {table} is missing in the database"))
        } else if let Some(table) = self.forbidden_table {
            Writability::refused(format!("the role may not write table {table}"))
        } else {
            Writability::Writable
        })
    }
}

/// No connection can be made that takes writes.
const READ_ONLY: &str = "the server is read-only: a standby, or default_transaction_read_only is on";

/// Whether the last commit was refused because the server had become read-only. The check above asks one connection,
/// which may lead to another server than the one that refused.
#[derive(Debug, Default)]
pub(super) struct ReadOnlyCommits(AtomicBool);

impl ReadOnlyCommits {
    /// Notes how a commit ended.
    pub(super) fn note<T>(&self, outcome: &Result<T, CommitError>) {
        match outcome {
            Ok(_) => AtomicBool::store(&self.0, false, Ordering::Relaxed),
            Err(error) if is_read_only(error) => AtomicBool::store(&self.0, true, Ordering::Relaxed),
            Err(_) => {}
        }
    }

    fn was_refused(&self) -> bool {
        AtomicBool::load(&self.0, Ordering::Relaxed)
    }
}

/// Whether the server refused because it takes reads only: the statement (SQLSTATE 25006), or the connection.
fn is_read_only(error: &CommitError) -> bool {
    let (CommitError::Unavailable(source) | CommitError::OutcomeUnknown(source)) = error else {
        return false;
    };
    has_read_only_cause(&**source)
}

fn has_read_only_cause(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let statement = error.downcast_ref::<DieselError>();
        let connection = error.downcast_ref::<AcquireError>();
        if matches!(statement, Some(DieselError::DatabaseError(DatabaseErrorKind::ReadOnlyTransaction, _)))
            || matches!(connection, Some(AcquireError::Connect(ConnectError::ReadOnly { .. })))
        {
            return true;
        }
        cause = match error.downcast_ref::<Shared<dyn Error + Send + Sync>>() {
            Some(shared) => Some(&*shared.0),
            None => error.source(),
        };
    }
    false
}

#[async_trait]
impl StorageHealth for Postgres {
    async fn writability(&self) -> Result<Writability, StorageError> {
        let mut connection = match connection::acquire(&self.pool.for_committers()).await {
            Ok(connection) => connection,
            // Without the server's address, which anyone could read.
            Err(error) if has_read_only_cause(&error) => return Ok(Writability::refused(READ_ONLY)),
            Err(error) => return Err(error),
        };
        let query = sql_query(STATE).bind::<Array<Text>, _>(TABLES.as_slice());
        let state = Cached(query).get_result::<State>(&mut connection).await;
        drop(connection);
        match state {
            Ok(state) => match state.writability()? {
                Writability::Writable if self.committers.read_only().was_refused() => {
                    Ok(Writability::refused("the last commit was refused: the server was read-only"))
                }
                answer => Ok(answer),
            },
            Err(DieselError::DatabaseError(_, told)) if told.message().contains(MIGRATIONS_TABLE) => {
                Ok(Writability::refused("the database has no schema"))
            }
            Err(error) => Err(read_error(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(kind: DatabaseErrorKind) -> CommitError {
        let error = DieselError::DatabaseError(kind, Box::new("refused".to_owned()));
        CommitError::Unavailable(Box::new(Shared::of(Box::new(error))))
    }

    #[test]
    fn a_commit_that_a_read_only_server_refused_is_noted_until_one_succeeds() {
        let commits = ReadOnlyCommits::default();
        commits.note::<()>(&Err(refused(DatabaseErrorKind::Unknown)));
        assert!(!commits.was_refused(), "any other refusal says nothing of it");
        commits.note::<()>(&Err(refused(DatabaseErrorKind::ReadOnlyTransaction)));
        assert!(commits.was_refused());
        commits.note::<()>(&Err(refused(DatabaseErrorKind::Unknown)));
        assert!(commits.was_refused());
        commits.note(&Ok(()));
        assert!(!commits.was_refused());
    }
}
