//! Opening connections, and the schema.

use std::path::{Path, PathBuf};

use diesel::connection::SimpleConnection;
use diesel::migration::MigrationSource;
use diesel::prelude::{Connection, QueryableByName, RunQueryDsl};
use diesel::result::Error as DieselError;
use diesel::sql_types::{BigInt, Text};
use diesel::sqlite::{Sqlite as Backend, SqliteConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::OpenError;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../../migrations/sqlite");

/// Set on every connection. The timeout comes first, so that the others wait for a lock instead of failing.
///
/// The log is folded into the file every 4,000 pages (16 MiB) rather than every 1,000, because a batch writes hundreds
/// of pages. No memory map: with one, an I/O error is a signal that ends the process.
const SETTINGS: &str = "
    PRAGMA busy_timeout = 5000;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA foreign_keys = ON;
    PRAGMA wal_autocheckpoint = 4000;
    PRAGMA journal_size_limit = 67108864;
    PRAGMA cache_size = -32768;
    PRAGMA temp_store = MEMORY;
    PRAGMA mmap_size = 0;
";

/// Opens a connection that writes.
pub(super) fn connect(path: &Path) -> Result<SqliteConnection, OpenError> {
    // An absolute path keeps SQLite from taking a name such as `file:x` or `:memory:` for something else.
    let absolute = std::path::absolute(path).map_err(|source| OpenError::Path(path.to_owned(), source))?;
    let name = absolute.to_str().ok_or_else(|| not_utf8(path.to_owned()))?;
    let mut connection = SqliteConnection::establish(name)?;
    connection.batch_execute(SETTINGS)?;
    Ok(connection)
}

fn not_utf8(path: PathBuf) -> OpenError {
    let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, "the path is not UTF-8");
    OpenError::Path(path, source)
}

/// A missing file has no schema. Asked first, because opening one would make it.
pub(super) fn require_file(path: &Path) -> Result<(), OpenError> {
    let exists = path.try_exists().map_err(|source| OpenError::Path(path.to_owned(), source))?;
    if exists {
        return Ok(());
    }
    let missing = known_versions()?.into_iter().next().unwrap_or_default();
    Err(OpenError::SchemaTooOld { missing })
}

/// Opens a connection that only reads.
pub(super) fn connect_reader(path: &Path) -> Result<SqliteConnection, OpenError> {
    let mut connection = connect(path)?;
    connection.batch_execute("PRAGMA query_only = ON")?;
    Ok(connection)
}

/// Opens a connection that only reads, and fails at once where it would have to wait for a lock.
pub(super) fn connect_nearby(path: &Path) -> Result<SqliteConnection, OpenError> {
    let mut connection = connect_reader(path)?;
    connection.batch_execute("PRAGMA busy_timeout = 0")?;
    Ok(connection)
}

/// Brings the schema up to date, in one transaction that takes the write lock first: of two processes the second waits,
/// then finds nothing left to do.
pub(super) fn migrate(path: &Path) -> Result<Vec<String>, OpenError> {
    let mut connection = connect(path)?;
    connection
        .immediate_transaction(|connection| {
            let versions = connection.run_pending_migrations(MIGRATIONS)?;
            Ok(versions.iter().map(ToString::to_string).collect())
        })
        .map_err(OpenError::Migration)
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

#[derive(QueryableByName)]
struct Applied {
    #[diesel(sql_type = Text)]
    version: String,
}

/// Checks that the schema is the one this program was built for, without writing anything.
pub(super) fn require_schema(connection: &mut SqliteConnection) -> Result<(), OpenError> {
    let applied = applied_versions(connection)?;
    let known = known_versions()?;
    if let Some(missing) = known.iter().find(|version| !applied.contains(version)) {
        return Err(OpenError::SchemaTooOld { missing: missing.clone() });
    }
    match applied.into_iter().find(|version| !known.contains(version)) {
        Some(unknown) => Err(OpenError::SchemaTooNew { unknown }),
        None => Ok(()),
    }
}

/// The migrations of this program, oldest first.
fn known_versions() -> Result<Vec<String>, OpenError> {
    let known = MigrationSource::<Backend>::migrations(&MIGRATIONS).map_err(OpenError::Migration)?;
    let mut versions: Vec<String> = known.iter().map(|known| known.name().version().to_string()).collect();
    versions.sort();
    Ok(versions)
}

fn applied_versions(connection: &mut SqliteConnection) -> Result<Vec<String>, DieselError> {
    let table = "SELECT COUNT(*) AS count FROM sqlite_master WHERE name = '__diesel_schema_migrations'";
    if diesel::sql_query(table).get_result::<Count>(connection)?.count == 0 {
        return Ok(Vec::new());
    }
    let versions = "SELECT version FROM __diesel_schema_migrations ORDER BY version";
    let applied: Vec<Applied> = diesel::sql_query(versions).load(connection)?;
    Ok(applied.into_iter().map(|row| row.version).collect())
}
