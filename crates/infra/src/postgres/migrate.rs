//! The schema, brought up to date.

use diesel::migration::{Migration, MigrationSource};
use diesel::pg::Pg;
use diesel::sql_types::{BigInt, Bool, Text};
use diesel::{OptionalExtension, QueryableByName, sql_query};
use diesel_async::async_connection_wrapper::AsyncConnectionWrapper;
use diesel_async::{AsyncConnectionCore, AsyncPgConnection, RunQueryDsl};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use frontrow_domain::unit_of_work::Source;

use super::PostgresOptions;
use super::connection::{PATIENT_SESSION, establish};
use super::error::{ConnectError, MigrateError};
use super::target::Target;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../../migrations/postgres");

/// Names the lock under which one node at a time migrates ("frtmigra" in ASCII).
const ADVISORY_LOCK: i64 = 0x6672_746d_6967_7261;

/// Brings the schema up to date. Any number of nodes may do so at once: one works, the others wait for it.
///
/// # Errors
/// [`MigrateError`]; migrations that went in before the one that failed stay.
pub async fn migrate(url: &str) -> Result<(), MigrateError> {
    let target = Target::new(url, &PostgresOptions::default())?;
    let unreachable = |source: Source| ConnectError::Unreachable { server: target.server(), source };
    let connected = tokio::time::timeout(target.patience, establish(&target, PATIENT_SESSION)).await;
    let connected = connected.map_err(|late| unreachable(Box::new(late)))?;
    let mut connection = connected.map_err(|error| unreachable(Box::new(error)))?;

    let lock = sql_query("SELECT pg_advisory_lock($1)").bind::<BigInt, _>(ADVISORY_LOCK);
    lock.execute(&mut connection).await.map_err(|error| MigrateError::Failed(Box::new(error)))?;
    // The lock ends with the connection. diesel runs migrations synchronously: away from the runtime's own threads.
    let run = tokio::task::spawn_blocking(move || {
        let mut connection = AsyncConnectionWrapper::<AsyncPgConnection>::from(connection);
        connection.run_pending_migrations(MIGRATIONS).map(|_| ())
    });
    run.await.map_err(|lost| MigrateError::Failed(Box::new(lost)))?.map_err(MigrateError::Failed)
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
