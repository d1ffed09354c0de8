//! Opening connections, and the schema.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use diesel::connection::SimpleConnection;
use diesel::migration::MigrationSource;
use diesel::prelude::{Connection, QueryableByName, RunQueryDsl};
use diesel::result::Error as DieselError;
use diesel::sql_types::{BigInt, Text};
use diesel::sqlite::{Sqlite as Backend, SqliteConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use rustix::fs::{Access, access};
#[cfg(target_os = "linux")]
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};

use super::OpenError;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../../migrations/sqlite");

/// How long a statement waits for a lock that another process has.
pub(super) const WAIT_FOR_LOCK: &str = "PRAGMA busy_timeout = 5000";

/// Set on every connection, after [`WAIT_FOR_LOCK`], so that the others wait for a lock instead of failing.
///
/// The log is folded into the file every 4,000 pages (16 MiB) rather than every 1,000, because a batch writes hundreds
/// of pages. No memory map: with one, an I/O error is a signal that ends the process.
const SETTINGS: &str = "
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
    require_shared_neighbours(path)?;
    let mut connection = SqliteConnection::establish(&absolute(path)?)?;
    connection.batch_execute(WAIT_FOR_LOCK)?;
    connection.batch_execute(SETTINGS)?;
    Ok(connection)
}

/// An absolute path keeps SQLite from taking a name such as `file:x` or `:memory:` for something else.
pub(super) fn absolute(path: &Path) -> Result<String, OpenError> {
    let absolute = std::path::absolute(path).map_err(|source| OpenError::Path(path.to_owned(), source))?;
    absolute.into_os_string().into_string().map_err(|_| {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "the path is not UTF-8");
        OpenError::Path(path.to_owned(), source)
    })
}

/// Asked before a file is opened that has to be there, because that would make it.
pub(super) fn require_file(path: &Path) -> Result<(), OpenError> {
    let exists = path.try_exists().map_err(|source| OpenError::Path(path.to_owned(), source))?;
    if exists { Ok(()) } else { Err(OpenError::Missing(path.to_owned())) }
}

/// Checks that every process finds the same log and the same locks next to the file.
pub(super) fn require_shared_neighbours(path: &Path) -> Result<(), OpenError> {
    require_one_name(path)?;
    require_no_mount_point(path)
}

/// Refuses a file that is mounted by itself, as by `docker run -v frontrow.db:/data/frontrow.db`: log, locks and secret lie
/// next to the mount point, where no other mount of the same file finds them.
pub(super) fn require_no_mount_point(path: &Path) -> Result<(), OpenError> {
    let is_mounted = is_mount_root(path).unwrap_or_else(|| is_on_another_device_than_its_folder(path));
    if is_mounted { Err(OpenError::MountPoint(path.to_owned())) } else { Ok(()) }
}

/// The kernel's own answer, which bind mounts on one device need; `None` where the kernel gives none, or there is no file.
#[cfg(target_os = "linux")]
fn is_mount_root(path: &Path) -> Option<bool> {
    let file = statx(CWD, path, AtFlags::empty(), StatxFlags::TYPE).ok()?;
    let is_known = file.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT);
    is_known.then(|| file.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

#[cfg(not(target_os = "linux"))]
fn is_mount_root(_: &Path) -> Option<bool> {
    None
}

fn is_on_another_device_than_its_folder(path: &Path) -> bool {
    let Ok(real) = fs::canonicalize(path) else { return false };
    let device = |path: &Path| fs::metadata(path).ok().map(|file| file.dev());
    real.parent().is_some_and(|folder| device(folder) != device(&real))
}

fn require_one_name(path: &Path) -> Result<(), OpenError> {
    match fs::metadata(path) {
        Ok(file) if file.is_file() && file.nlink() > 1 => Err(OpenError::SeveralNames(path.to_owned())),
        _ => Ok(()),
    }
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

/// For an audit: no setting that would change the file, and room for the indexes that it reads over and over (128 MiB).
const AUDIT_SETTINGS: &str = "
    PRAGMA busy_timeout = 5000;
    PRAGMA query_only = ON;
    PRAGMA temp_store = MEMORY;
    PRAGMA mmap_size = 0;
    PRAGMA cache_size = -131072;
";

/// Lets `audit` read a file without changing what is in it, and without leaving anything beside it.
///
/// Whoever may not write the file or its folder could not make or remove the files by which SQLite locks and logs; some
/// could make them, and the next server, of another user, could not open them. While nobody uses the file there is nothing
/// to lock.
pub(super) fn with_auditor<T>(
    path: &Path,
    audit: impl FnOnce(&mut SqliteConnection) -> Result<T, OpenError>,
) -> Result<T, OpenError> {
    require_shared_neighbours(path)?;
    // As SQLite does, which keeps the log beside the file that a link leads to.
    let real = fs::canonicalize(path).map_err(|source| OpenError::Path(path.to_owned(), source))?;
    let name = absolute(&real)?;
    let log = PathBuf::from(format!("{name}-wal"));
    // Not by opening it: to close it again would free the locks that this process holds.
    let may_write = |path: &Path| access(path, Access::WRITE_OK).is_ok();
    let takes_part = log.exists() || may_write(&real) && real.parent().is_some_and(may_write);
    let mode = if takes_part { "mode=rw" } else { "mode=ro&immutable=1" };
    let before = state_of(&real);
    let mut connection = SqliteConnection::establish(&uri(&name, mode))?;
    connection.batch_execute(AUDIT_SETTINGS)?;
    let audited = audit(&mut connection);
    let was_still = !log.exists() && state_of(&real) == before;
    if takes_part || was_still { audited } else { Err(OpenError::InUse(path.to_owned())) }
}

/// How a file is opened that is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verification {
    /// Of a file that is in use by nobody and has no log: nothing is left next to it.
    WithoutLog,
    /// Of a file together with its log, none of which is changed: the log is not written into the file at the end.
    WithLog,
}

/// Opens a connection for verification, with the settings of an audit.
pub(super) fn connect_verifier(
    path: &Path,
    verification: Verification,
) -> Result<SqliteConnection, OpenError> {
    require_shared_neighbours(path)?;
    let mode = match verification {
        Verification::WithoutLog => "mode=rw",
        Verification::WithLog => "mode=ro",
    };
    let mut connection = SqliteConnection::establish(&uri(&absolute(path)?, mode))?;
    connection.batch_execute(AUDIT_SETTINGS)?;
    Ok(connection)
}

fn uri(absolute: &str, mode: &str) -> String {
    format!("file:{}?{mode}", utf8_percent_encode(absolute, NOT_IN_A_URI))
}

/// What changes when somebody writes to a file.
fn state_of(path: &Path) -> Option<[i64; 5]> {
    let file = fs::metadata(path).ok()?;
    Some([file.size().cast_signed(), file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()])
}

/// What would end the path of a URI, or stand for something else.
const NOT_IN_A_URI: &AsciiSet = &CONTROLS.add(b'%').add(b'?').add(b'#');

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

/// Checks that the schema is one of this program, up to date or older.
pub(super) fn require_known_schema(connection: &mut SqliteConnection) -> Result<(), OpenError> {
    let applied = applied_versions(connection)?;
    let known = known_versions()?;
    if known.first().is_none_or(|first| !applied.contains(first)) {
        return Err(OpenError::Foreign);
    }
    match applied.into_iter().find(|version| !known.contains(version)) {
        Some(unknown) => Err(OpenError::SchemaTooNew { unknown }),
        None => Ok(()),
    }
}

/// The migrations of this program, oldest first.
pub(super) fn known_versions() -> Result<Vec<String>, OpenError> {
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
