//! The right to serve a SQLite file.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use frontrow_infra::sqlite::Sqlite;

use super::marker::LogCycle;
use super::{size_of, with_suffix};
use crate::beside::beside;
use crate::cli::DatabaseUrl;

/// The longest wait for a lock that another process has: a command that checks the log after a crash, or a
/// server that is about to end.
const TAKE_WITHIN: Duration = Duration::from_secs(5);
/// Pause between two attempts.
const TAKE_EVERY: Duration = Duration::from_millis(50);

/// The right to serve a SQLite file. Ends with the process, however that ends.
///
/// Two locks, both `flock(2)`: one of a file next to the database, which stays when the database is replaced,
/// and one of the database itself, which stays when it is renamed. Neither has to do with the locks of
/// `fcntl(2)` that SQLite takes; but to close any descriptor of the database would release those. So its
/// descriptor is opened before SQLite opens the file, and closed after.
pub struct ServeLock(pub(super) Option<Held>);

/// The locks, and the file that they are of.
pub(super) struct Held {
    /// The path of the database, which is no link.
    pub(super) path: PathBuf,
    /// The database.
    pub(super) file: File,
    /// Which markers the database may have in this log.
    pub(super) cycle: Mutex<LogCycle>,
    _sidecar: File,
}

impl ServeLock {
    /// Takes the right; there is none to take with PostgreSQL, which any number of nodes share. With
    /// `create`, a file that is missing is made, empty. Blocks for up to 5 seconds while another process has
    /// it.
    ///
    /// # Errors
    /// When another process serves the file, or it cannot be opened.
    pub fn take(url: &DatabaseUrl, create: bool) -> Result<Self> {
        match url {
            DatabaseUrl::Sqlite(database) => wait_for(database, create),
            DatabaseUrl::Postgres(_) => Ok(Self(None)),
        }
    }
}

fn wait_for(database: &Path, create: bool) -> Result<ServeLock> {
    let begun = Instant::now();
    loop {
        if let Some(lock) = try_take(database, create)? {
            return Ok(lock);
        }
        if begun.elapsed() >= TAKE_WITHIN {
            return Err(served(database));
        }
        thread::sleep(TAKE_EVERY);
    }
}

fn served(database: &Path) -> anyhow::Error {
    anyhow!("{} is served by another process: one `serve` a SQLite file", database.display())
}

/// Takes the locks of a file that is to be replaced, or to be there for the first time. They last as long as
/// what is returned.
///
/// # Errors
/// When another process serves the file, or it cannot be opened.
pub(super) fn take_for_restore(database: &Path) -> Result<Vec<File>> {
    let sidecar = lock_sidecar(database)?.ok_or_else(|| served(database))?;
    Sqlite::require_shared_neighbours(database)?;
    if !database.exists() {
        return Ok(vec![sidecar]);
    }
    let file = File::open(database);
    let file = file.with_context(|| format!("cannot open database file {}", database.display()))?;
    if is_taken(&file, database)? { Err(served(database)) } else { Ok(vec![sidecar, file]) }
}

/// Takes the right to serve a file, unless another process has it.
pub(super) fn try_take(database: &Path, create: bool) -> Result<Option<ServeLock>> {
    let Some(sidecar) = lock_sidecar(database)? else { return Ok(None) };
    Sqlite::require_shared_neighbours(database)?;
    let path = beside(database, "")?;
    require_database_of_log(&path)?;
    let options = OpenOptions::new().read(true).write(true).create(create).mode(0o644).open(&path);
    let file = match options {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("cannot open database file {}: it is not there", database.display())
        }
        Err(error) => {
            return Err(error).with_context(|| format!("cannot open database file {}", database.display()));
        }
    };
    let taken = is_taken(&file, &path)?;
    Ok((!taken).then(|| ServeLock(Some(Held { path, file, cycle: Mutex::default(), _sidecar: sidecar }))))
}

/// Whether another process serves a file. Needs the right to read alone.
pub(super) fn is_served(database: &Path) -> Result<bool> {
    let lock = File::open(beside(database, ".lock")?);
    Ok(lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock))))
}

/// Locks the file next to a database; `None` when another process has the lock.
fn lock_sidecar(database: &Path) -> Result<Option<File>> {
    let path = beside(database, ".lock")?;
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    Ok((!is_taken(&file, &path)?).then_some(file))
}

/// Takes the lock of a file, unless another process has it.
fn is_taken(file: &File, path: &Path) -> Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

/// Refuses a log without its database: SQLite would delete it, and begin an empty one.
fn require_database_of_log(path: &Path) -> Result<()> {
    let log = with_suffix(path, "-wal");
    if size_of(path)? == 0 && size_of(&log)? > 0 {
        let (path, log) = (path.display(), log.display());
        bail!(
            "cannot open database file {path}: it is missing or empty, but its log {log} is not. Put the file back, run \
             `frontrow restore`, or remove {log} to begin an empty database"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_released_soon_is_waited_for_and_another_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let url = DatabaseUrl::Sqlite(folder.path().join("a.db"));
        let held = ServeLock::take(&url, true).unwrap();
        let begun = Instant::now();
        let refused = ServeLock::take(&url, true).err().unwrap().to_string();
        assert!(refused.contains("served by another process"), "{refused}");
        assert!(begun.elapsed() >= TAKE_WITHIN);
        let release = thread::spawn(move || {
            thread::sleep(Duration::from_millis(500));
            drop(held);
        });
        ServeLock::take(&url, true).unwrap();
        release.join().unwrap();
    }
}
