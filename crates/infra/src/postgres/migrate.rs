//! The schema, brought up to date.

use std::pin::pin;
use std::time::{Duration, Instant};

use diesel::migration::{Migration, MigrationSource};
use diesel::pg::Pg;
use diesel::sql_types::{Bool, Text};
use diesel::{OptionalExtension, QueryableByName, sql_query};
use diesel_async::async_connection_wrapper::AsyncConnectionWrapper;
use diesel_async::{AsyncConnectionCore, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use frontrow_domain::unit_of_work::Source;
use tokio::time::timeout;
use tokio_postgres::config::TargetSessionAttrs;

use super::PostgresOptions;
use super::connection::{PATIENT_SESSION, establish, establish_patient};
use super::error::MigrateError;
use super::server_check::Demands;
use super::target::Target;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../../migrations/postgres");

/// The key of the lock under which one node at a time migrates ("frtmigra" in ASCII).
const ADVISORY_LOCK: i64 = 0x6672_746d_6967_7261;

/// How long another process may hold the lock before the log says so.
const LOCK_NOTICE: Duration = Duration::from_secs(1);

/// How long another process may hold the lock at most.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);

/// How much longer the server may take to say that the lock is taken.
const LOCK_GRACE: Duration = Duration::from_secs(10);

/// Brings the schema up to date. Any number of nodes may do so at once: one works, the others wait for it.
///
/// A schema that is up to date is only read, which takes no right but that. Else an advisory lock is taken,
/// in a transaction of another connection: each migration has a transaction of its own, and a lock of a
/// session would outlive its process behind a connection pooler.
///
/// # Errors
/// [`MigrateError`]; migrations that went in before the one that failed stay.
pub async fn migrate(url: &str) -> Result<(), MigrateError> {
    migrate_within(url, LOCK_TIMEOUT).await
}

/// Brings the schema up to date, while the lock is waited for so long.
pub(super) async fn migrate_within(url: &str, lock_timeout: Duration) -> Result<(), MigrateError> {
    let target = Target::new(url, &PostgresOptions::default())?;
    let mut connection = establish_patient(&target, TargetSessionAttrs::ReadWrite).await?;
    if first_missing(&mut connection).await.map_err(MigrateError::Failed)?.is_none() {
        return Ok(());
    }
    let lock = MigrationLock::take(&target, lock_timeout).await?;
    // diesel runs migrations synchronously: away from the runtime's own threads. Those that another node has
    // run by now are left out.
    let run = tokio::task::spawn_blocking(move || {
        let mut connection = AsyncConnectionWrapper::<AsyncPgConnection>::from(connection);
        connection.run_pending_migrations(MIGRATIONS).map(|_| ())
    });
    let ended = run.await.map_err(|lost| MigrateError::Failed(Box::new(lost)))?;
    drop(lock);
    ended.map_err(MigrateError::Failed)
}

/// The right to migrate. It is that of an open transaction, and ends with its connection.
struct MigrationLock(#[expect(dead_code, reason = "held")] AsyncPgConnection);

impl MigrationLock {
    /// Takes the lock once no other process has it. Logs a wait.
    async fn take(target: &Target, lock_timeout: Duration) -> Result<Self, MigrateError> {
        let demands = Demands::without_durability(TargetSessionAttrs::ReadWrite);
        let (mut connection, _) = establish(target, PATIENT_SESSION, &demands).await?;
        let sql = format!(
            "BEGIN; SET LOCAL lock_timeout = {}; SELECT pg_advisory_xact_lock({ADVISORY_LOCK})",
            lock_timeout.as_millis()
        );
        let begun = Instant::now();
        let taken = {
            let mut taking = pin!(connection.batch_execute(&sql));
            if let Ok(taken) = timeout(LOCK_NOTICE, taking.as_mut()).await {
                Ok(taken)
            } else {
                tracing::warn!(
                    "another process migrates the database: waiting for it, at most {lock_timeout:?}"
                );
                timeout(lock_timeout + LOCK_GRACE, taking).await
            }
        };
        match taken {
            Ok(Ok(())) => Ok(Self(connection)),
            // diesel drops the SQLSTATE of a lock timeout, and the message may be in any language.
            Ok(Err(error)) if begun.elapsed() < lock_timeout => Err(MigrateError::Failed(Box::new(error))),
            Ok(Err(_)) | Err(_) => Err(MigrateError::Locked { waited: lock_timeout }),
        }
    }
}

#[derive(QueryableByName)]
struct Exists {
    #[diesel(sql_type = Bool)]
    exists: bool,
}

#[derive(QueryableByName)]
struct Applied {
    #[diesel(sql_type = Text)]
    version: String,
}

/// The first migration that the database has not seen. One that only the database knows is none of our business:
/// a newer node may be at work beside this one.
pub(super) async fn first_missing(
    connection: &mut impl AsyncConnectionCore<Backend = Pg>,
) -> Result<Option<String>, Source> {
    let table = sql_query("SELECT to_regclass('__diesel_schema_migrations') IS NOT NULL AS exists");
    let exists = table.get_result::<Exists>(connection).await.optional()?.is_some_and(|row| row.exists);
    let applied: Vec<Applied> = if exists {
        sql_query("SELECT version FROM __diesel_schema_migrations").load(connection).await?
    } else {
        Vec::new()
    };
    let ours: Vec<Box<dyn Migration<Pg>>> = MIGRATIONS.migrations()?;
    let ours = ours.iter().map(Migration::name);
    let missing = ours.filter(|name| {
        let version = name.version().to_string();
        !applied.iter().any(|row| row.version == version)
    });
    Ok(missing.map(ToString::to_string).min())
}

/// The versions of this program's migrations, oldest first.
pub(super) fn known_versions() -> Result<Vec<String>, Source> {
    let ours: Vec<Box<dyn Migration<Pg>>> = MIGRATIONS.migrations()?;
    let mut versions: Vec<String> = ours.iter().map(|ours| ours.name().version().to_string()).collect();
    versions.sort();
    Ok(versions)
}

#[cfg(test)]
mod tests {
    use frontrow_testkit::postgres::{Template, database};

    use super::*;

    /// Another process is in the middle of it: the wait ends with an error after its bound, or with the lock.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_wait_for_another_migration_is_bounded() {
        let empty = Template::new("empty", |_| async { Ok(()) });
        let Some(database) = database(&empty).await else { return };
        let other = database.connect().await.unwrap();
        let lock = format!("BEGIN; SELECT pg_advisory_xact_lock({ADVISORY_LOCK})");
        other.batch_execute(&lock).await.unwrap();
        let bound = Duration::from_millis(1_500);
        let begun = Instant::now();
        let refused = migrate_within(database.url(), bound).await;
        assert!(matches!(refused, Err(MigrateError::Locked { waited }) if waited == bound), "{refused:?}");
        assert!(begun.elapsed() >= bound);

        let url = database.url().to_owned();
        let waiting = tokio::spawn(async move { migrate(&url).await });
        let waits = "SELECT count(*) FROM pg_stat_activity \
            WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while database.query_i64(waits).await.unwrap() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        other.batch_execute("COMMIT").await.unwrap();
        waiting.await.unwrap().unwrap();
        assert_eq!(database.query_i64("SELECT count(*) FROM rooms").await.unwrap(), 0);
    }
}
