//! The embedded database as a file: who serves it, which log belongs to it, its backups (ADR 0020).

mod backup;
mod lock;
mod marker;
mod restore;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::beside::beside;
use crate::cli::DatabaseUrl;

pub use self::backup::backup;
pub use self::lock::ServeLock;
pub use self::marker::{check_log, require_own_log};
pub use self::restore::restore;

/// The extensions of what SQLite keeps next to a database: its log, what locks it, and the journal of other
/// modes.
const LOGS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// The path of the SQLite file of a command that is for SQLite alone.
fn sqlite_file<'a>(database: &'a DatabaseUrl, command: &str) -> Result<&'a Path> {
    match database {
        DatabaseUrl::Sqlite(path) => Ok(path),
        DatabaseUrl::Postgres(_) => bail!(
            "`frontrow {command}` is for SQLite: back up PostgreSQL with pg_basebackup or pg_dump (docs/BACKUP.md)"
        ),
    }
}

/// The folder that a file is in.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes what was created, renamed or removed in a folder durable.
fn sync_folder(folder: &Path) -> Result<()> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.with_context(|| format!("cannot sync folder {}", folder.display()))
}

/// A path with something added to its name.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The size of a file, and 0 where there is none.
fn size_of(path: &Path) -> Result<u64> {
    match fs::metadata(path) {
        Ok(file) => Ok(file.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error).with_context(|| format!("cannot look at {}", path.display())),
    }
}

/// The log or journal next to a database that holds something: the end of whatever used it was unclean, or it
/// is in use.
fn unfinished_log(database: &Path) -> Result<Option<PathBuf>> {
    for extension in ["-wal", "-journal"] {
        let log = beside(database, extension)?;
        if size_of(&log)? > 0 {
            return Ok(Some(log));
        }
    }
    Ok(None)
}

/// Whether two paths lead to one file.
fn is_same_file(one: &Path, other: &Path) -> bool {
    match (fs::canonicalize(one), fs::canonicalize(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}
