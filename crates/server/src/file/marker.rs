//! The marker that ties a database to its log, and what is done after an unclean end.
//!
//! SQLite applies whatever log lies next to a database when it opens it. Where the database was replaced
//! after a crash, that undoes the replacement, or mixes both. So each start of `serve` sets a random marker
//! in the header of the database (`user_version`), writes it through into the file, and records it in
//! `frontrow.db.marker`. When there is a log, the database next to it must have the recorded marker.
//!
//! SQLite begins the log anew whenever all of it was written into the file. A copy of the file from before
//! does not fit the new log, so each new log brings a new marker, a second later as a rule
//! ([`ServeLock::follow_log`]). While the marker is on its way through the log into the file, the record
//! accepts the one before it, too.
//!
//! The file is judged before SQLite opens it, and once a second while it is served
//! ([`ServeLock::has_own_marker`]), on the descriptor of the [`ServeLock`]: `cp` over a served file keeps its
//! inode, so that the marker alone shows it.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use frontrow_infra::sqlite::{OpenError, Sqlite};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::lock::{self, Held};
use super::{LOGS, ServeLock, folder_of, size_of, sync_folder, unfinished_log};
use crate::beside::beside;
use crate::cli::DatabaseUrl;

/// What is recorded of the database that was served last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    /// The markers that the database may have: one, or while the marker is set, the one before it, too.
    pub(super) accepted: BTreeSet<i32>,
    /// The marker of a database that replaces the recorded one. Once it is there, the log next to it is not
    /// its own.
    pub(super) restored: Option<i32>,
    /// Whether the data must begin a new incarnation before it is served.
    pub(super) incarnation_is_due: bool,
    /// Whether another program wrote over the file while it was served: SQLite mixes both when it closes the
    /// file, and gives the result a marker that is accepted.
    #[serde(default)]
    pub(super) is_overwritten: bool,
}

impl Record {
    fn path(database: &Path) -> Result<PathBuf> {
        beside(database, ".marker")
    }

    /// Reads the record next to a database. One that makes no sense is none: it is written whole, and by
    /// nothing else.
    pub(super) fn read(database: &Path) -> Result<Option<Self>> {
        let path = Self::path(database)?;
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let record = serde_json::from_str(&text);
        if let Err(error) = &record {
            tracing::warn!("{} is ignored: {error}", path.display());
        }
        Ok(record.ok())
    }

    /// Writes the record next to a database, durably and at once.
    pub(super) fn write(&self, database: &Path) -> Result<()> {
        let path = Self::path(database)?;
        let folder = folder_of(&path);
        let written = || -> Result<()> {
            let mut file = NamedTempFile::new_in(folder)?;
            file.write_all(serde_json::to_string(self)?.as_bytes())?;
            // No secret; and a server of another user than the one that restored must be able to read it.
            file.as_file().set_permissions(Permissions::from_mode(0o644))?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            sync_folder(folder)
        };
        written().with_context(|| format!("cannot write {}", path.display()))
    }
}

/// A random marker. 0 is that of a database without one.
pub(super) fn random_marker() -> i32 {
    rand::random_range(1..=i32::MAX)
}

/// The marker in the header of a database; `None` when the file is empty or has no such header.
pub(super) fn marker_of(file: &File) -> Option<i32> {
    /// Where `user_version` is: <https://www.sqlite.org/fileformat.html#the_database_header>.
    const AT: u64 = 60;
    let (mut magic, mut marker) = ([0; 16], [0; 4]);
    file.read_exact_at(&mut magic, 0).ok()?;
    file.read_exact_at(&mut marker, AT).ok()?;
    (magic == *b"SQLite format 3\0").then(|| i32::from_be_bytes(marker))
}

/// What is to be done with a database, by its record, its marker and whether there is a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The recorded database, after a clean end.
    Clean,
    /// The recorded database and its log.
    Unclean,
    /// A database that replaces the recorded one as announced, next to the log of that one.
    Restored,
    /// Another database than the recorded one, without a log.
    Replaced,
    /// Another database than the recorded one, next to the log of that one.
    Mixed,
    /// A database that was overwritten while it was served, whatever its marker is now.
    Overwritten,
}

impl Verdict {
    fn of(record: Option<&Record>, marker: Option<i32>, has_log: bool) -> Self {
        // Without a record there is nothing to compare; without a header nothing was ever written.
        let (Some(record), Some(marker)) = (record, marker) else {
            return if has_log { Self::Unclean } else { Self::Clean };
        };
        match (record.accepted.contains(&marker), has_log) {
            _ if record.restored == Some(marker) => Self::Restored,
            _ if record.is_overwritten => Self::Overwritten,
            (true, true) => Self::Unclean,
            (true, false) => Self::Clean,
            (false, true) => Self::Mixed,
            (false, false) => Self::Replaced,
        }
    }
}

impl ServeLock {
    /// Settles how the last server ended, before SQLite opens the file. After an unclean end its integrity is
    /// checked.
    ///
    /// # Errors
    /// When the log next to the file belongs to another file, or the file and its log are damaged. Neither is
    /// changed then.
    pub fn settle(&self) -> Result<()> {
        let Some(held) = &self.0 else { return Ok(()) };
        let record = Record::read(&held.path)?;
        let log = unfinished_log(&held.path)?;
        match (Verdict::of(record.as_ref(), marker_of(&held.file), log.is_some()), log) {
            (Verdict::Restored, _) => finish_restore(&held.path, marker_of(&held.file)),
            (Verdict::Replaced, _) => {
                let mut record = Record { incarnation_is_due: true, ..record.unwrap_or_default() };
                // The next steps make a log, before they mark the file.
                record.accepted.extend(marker_of(&held.file));
                record.write(&held.path)?;
                tracing::warn!(
                    "{} was replaced since it was served last: its data begins a new incarnation",
                    held.path.display()
                );
                Ok(())
            }
            (Verdict::Mixed, Some(log)) => Err(mixed(&held.path, &log)),
            (Verdict::Overwritten, _) => Err(overwritten(&held.path)),
            (Verdict::Unclean, Some(log)) => verify_after_unclean_end(&held.path, &log),
            _ => Ok(()),
        }
    }

    /// Sets a new marker in a database whose schema is up to date, and records it. Begins a new incarnation
    /// if one is due.
    ///
    /// Killed at any instruction, it leaves a database that the record accepts.
    ///
    /// # Errors
    /// When the file or the record cannot be written.
    pub fn mark(&self) -> Result<()> {
        let Some(held) = &self.0 else { return Ok(()) };
        let marker = random_marker();
        let mut record = Record::read(&held.path)?.unwrap_or_default();
        record.accepted.extend(marker_of(&held.file));
        record.accepted.insert(marker);
        record.restored = None;
        record.write(&held.path)?;
        Sqlite::mark(&held.path, marker, record.incarnation_is_due)
            .with_context(|| format!("cannot open database file {}", held.path.display()))?;
        // Another process that reads may keep the marker from the file itself: both stay accepted then.
        let found = marker_of(&held.file);
        if found == Some(marker) {
            record.accepted = BTreeSet::from([marker]);
        }
        record.incarnation_is_due = false;
        let others = record.accepted.iter().copied().map(Some).chain([found]).collect();
        *held.cycle() = LogCycle { marker: Some(marker), others, ..LogCycle::default() };
        record.write(&held.path)
    }

    /// Whether the file has a marker that was set in this log or before it. 20 bytes of the file are read.
    ///
    /// Once false it stays so: SQLite goes on with what it has read of the file that was there before.
    #[must_use]
    pub fn has_own_marker(&self) -> bool {
        let Some(held) = &self.0 else { return true };
        let mut cycle = held.cycle();
        cycle.is_overwritten |= !cycle.accepts(marker_of(&held.file));
        !cycle.is_overwritten
    }

    /// Records that the file was overwritten while it was served, so that only `frontrow restore` leads on.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn record_overwritten(&self) -> Result<()> {
        let Some(held) = &self.0 else { return Ok(()) };
        let _cycle = held.cycle();
        let record = Record::read(&held.path)?.unwrap_or_default();
        if record.is_overwritten {
            return Ok(());
        }
        Record { is_overwritten: true, ..record }.write(&held.path)
    }

    /// Sets a new marker when the log has begun anew. Reads 8 bytes of the log and 20 of the file otherwise.
    ///
    /// # Errors
    /// When the file or the record cannot be written. The next call tries it again, with the same marker.
    pub fn follow_log(&self) -> Result<()> {
        let Some(held) = &self.0 else { return Ok(()) };
        let Some(marker) = held.begin_marker()? else { return Ok(()) };
        Sqlite::mark(&held.path, marker, false)
            .with_context(|| format!("cannot write database file {}", held.path.display()))?;
        held.cycle().is_set = true;
        Ok(())
    }
}

impl Held {
    /// Whether the path still leads to the file that is locked.
    fn is_in_place(&self) -> bool {
        let (Ok(file), Ok(there)) = (self.file.metadata(), fs::metadata(&self.path)) else { return false };
        (file.dev(), file.ino()) == (there.dev(), there.ino())
    }

    fn cycle(&self) -> MutexGuard<'_, LogCycle> {
        self.cycle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the marker that is to be set in this log; `None` when it is set, or there is no log yet. The
    /// marker is set without the lock of the cycle, because that may wait for seconds.
    fn begin_marker(&self) -> Result<Option<i32>> {
        let salts = salts_of_log(&self.path)?;
        let mut cycle = self.cycle();
        let found = marker_of(&self.file);
        let is_marked = salts.is_none() || salts == cycle.salts && cycle.is_set;
        if is_marked || cycle.is_overwritten || !cycle.accepts(found) || !self.is_in_place() {
            return Ok(None);
        }
        if salts != cycle.salts {
            *cycle = cycle.next(salts, found);
        }
        let accepted = cycle.others.iter().copied().flatten().chain(cycle.marker).collect();
        Record { accepted, ..Record::default() }.write(&self.path)?;
        Ok(cycle.marker)
    }
}

/// What the log is recognised by, and which markers the file may have while it lasts.
#[derive(Debug, Default)]
pub(super) struct LogCycle {
    salts: Option<[u8; 8]>,
    /// The marker of this log, and whether it is set for sure.
    marker: Option<i32>,
    is_set: bool,
    /// What the file may have until the marker is written through: what it had when this log was noticed, and
    /// the marker of the log before, which may have been set in this one. No header is `None`.
    others: BTreeSet<Option<i32>>,
    /// Whether the file had another marker.
    is_overwritten: bool,
}

impl LogCycle {
    /// Whether the file may have this marker.
    fn accepts(&self, found: Option<i32>) -> bool {
        self.marker.is_none() || found == self.marker || self.others.contains(&found)
    }

    /// The cycle of a log that was begun when this one was written through, with what the file has then.
    fn next(&self, salts: Option<[u8; 8]>, found: Option<i32>) -> Self {
        let others = BTreeSet::from([found, self.marker]);
        Self { salts, marker: Some(random_marker()), others, ..Self::default() }
    }
}

/// The salts in the header of a log, which change whenever it begins anew; `None` while it is empty.
fn salts_of_log(database: &Path) -> Result<Option<[u8; 8]>> {
    /// Where they are: <https://www.sqlite.org/fileformat.html#the_write_ahead_log>.
    const AT: u64 = 16;
    let path = beside(database, "-wal")?;
    let mut salts = [0; 8];
    match File::open(&path).and_then(|log| log.read_exact_at(&mut salts, AT)) {
        Ok(()) => Ok(Some(salts)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Removes the log of the database that was replaced by one with `marker`, and records that one. The last
/// step of a restore; the next start takes it where a restore was killed before.
pub(super) fn finish_restore(database: &Path, marker: Option<i32>) -> Result<()> {
    for extension in LOGS {
        let log = beside(database, extension)?;
        match fs::remove_file(&log) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", log.display()));
            }
            _ => {}
        }
    }
    sync_folder(folder_of(database))?;
    Record { accepted: marker.into_iter().collect(), ..Record::default() }.write(database)
}

/// Finishes a restore that was killed after the new database had its name: another one would record its own
/// marker instead, and the database that is there would be next to a log that is not its own.
pub(super) fn finish_interrupted(database: &Path) -> Result<()> {
    let restored = Record::read(database)?.and_then(|record| record.restored);
    let there = File::open(database).ok().and_then(|file| marker_of(&file));
    if restored.is_some() && restored == there { finish_restore(database, restored) } else { Ok(()) }
}

fn mixed(database: &Path, log: &Path) -> anyhow::Error {
    let (database, log) = (database.display(), log.display());
    anyhow::anyhow!(
        "cannot open database file {database}: it was replaced, and its log {log} belongs to the file that was there before. \
         Run `frontrow restore` with a backup; or put that file back; or remove {log} to go on with {database} alone"
    )
}

fn overwritten(database: &Path) -> anyhow::Error {
    anyhow::anyhow!(
        "cannot open database file {}: it was overwritten while it was served, so that it may be a mixture of two files. \
         Run `frontrow restore` with a backup",
        database.display()
    )
}

fn verify_after_unclean_end(database: &Path, log: &Path) -> Result<()> {
    let (begun, shown) = (Instant::now(), database.display());
    // The journal of another mode: there is one while a new file is put into WAL mode, and SQLite rolls back
    // by it.
    if size_of(&beside(database, "-wal")?)? == 0 {
        return Ok(());
    }
    let log = log.display();
    tracing::info!("{shown} was not closed: checking its integrity");
    match Sqlite::verify_with_log(database) {
        Ok(_) => {
            tracing::info!("the integrity of {shown} was checked in {:.1} s", begun.elapsed().as_secs_f64());
            Ok(())
        }
        // There may be no schema yet, or a newer one: that is for the next steps to say.
        Err(OpenError::Foreign | OpenError::SchemaTooNew { .. }) => Ok(()),
        Err(error) => Err(error).with_context(|| {
            format!(
                "cannot open database file {shown} with its log {log}: one of them was replaced or damaged. Run `frontrow \
                 restore` with a backup"
            )
        }),
    }
}

/// Checks the log of a database, before a command opens it that would apply that log. While the database is
/// served, there is nothing to check.
///
/// # Errors
/// Those of [`ServeLock::settle`].
pub fn check_log(database: &DatabaseUrl) -> Result<()> {
    let DatabaseUrl::Sqlite(path) = database else { return Ok(()) };
    require_not_overwritten(path)?;
    if unfinished_log(path)?.is_none() || lock::is_served(path)? {
        return Ok(());
    }
    lock::try_take(path, false)?.map_or(Ok(()), |lock| lock.settle())
}

/// As [`check_log`], by the marker alone and without changing anything, for a command that may lack the right
/// to write.
///
/// # Errors
/// When the log next to the file belongs to another file.
pub fn require_own_log(database: &DatabaseUrl) -> Result<()> {
    let DatabaseUrl::Sqlite(path) = database else { return Ok(()) };
    require_not_overwritten(path)?;
    let Some(log) = unfinished_log(path)? else { return Ok(()) };
    if lock::is_served(path)? {
        return Ok(());
    }
    // What cannot be read cannot be compared, and will hardly be opened.
    let (Ok(record), Ok(file)) = (Record::read(path), File::open(path)) else { return Ok(()) };
    match Verdict::of(record.as_ref(), marker_of(&file), true) {
        Verdict::Mixed => Err(mixed(path, &log)),
        Verdict::Restored => bail!(
            "cannot open database file {}: a restore was interrupted. Run `frontrow restore` again, or `frontrow serve`",
            path.display()
        ),
        _ => Ok(()),
    }
}

/// Refuses a file that was overwritten while it was served, also while it still is.
fn require_not_overwritten(path: &Path) -> Result<()> {
    // What cannot be read cannot be compared, and will hardly be opened.
    let record = Record::read(path).ok().flatten();
    // A restore that was interrupted is settled by its marker.
    let is_overwritten = record.is_some_and(|record| record.is_overwritten && record.restored.is_none());
    if is_overwritten { Err(overwritten(path)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(accepted: &[i32], restored: Option<i32>) -> Record {
        Record { accepted: accepted.iter().copied().collect(), restored, ..Record::default() }
    }

    #[test]
    fn the_marker_decides_whose_log_it_is() {
        let record = recorded(&[1, 2], Some(3));
        for (marker, has_log, expected) in [
            (Some(1), true, Verdict::Unclean),
            (Some(2), false, Verdict::Clean),
            (Some(3), true, Verdict::Restored),
            (Some(3), false, Verdict::Restored),
            (Some(4), true, Verdict::Mixed),
            (Some(4), false, Verdict::Replaced),
            (None, false, Verdict::Clean),
        ] {
            assert_eq!(Verdict::of(Some(&record), marker, has_log), expected, "{marker:?} {has_log}");
        }
        let overwritten = Record { is_overwritten: true, ..record };
        for (marker, expected) in
            [(1, Verdict::Overwritten), (4, Verdict::Overwritten), (3, Verdict::Restored)]
        {
            assert_eq!(Verdict::of(Some(&overwritten), Some(marker), false), expected, "{marker}");
        }
        // A file that this program has never served is not judged by its marker.
        for marker in [None, Some(0), Some(4)] {
            assert_eq!(Verdict::of(None, marker, true), Verdict::Unclean);
            assert_eq!(Verdict::of(None, marker, false), Verdict::Clean);
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_rubbish_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("a.db");
        assert_eq!(Record::read(&database).unwrap(), None);
        let record = Record { incarnation_is_due: true, ..recorded(&[i32::MAX, 7], Some(1)) };
        record.write(&database).unwrap();
        assert_eq!(Record::read(&database).unwrap(), Some(record));
        fs::write(folder.path().join("a.db.marker"), "{\"accepted\": 1").unwrap();
        assert_eq!(Record::read(&database).unwrap(), None);
    }

    #[test]
    fn the_marker_of_a_file_is_read_from_its_header() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        fs::write(&path, "").unwrap();
        assert_eq!(marker_of(&File::open(&path).unwrap()), None);
        Sqlite::migrate(&path).unwrap();
        assert_eq!(marker_of(&File::open(&path).unwrap()), Some(0));
        Sqlite::mark(&path, 77, false).unwrap();
        assert_eq!(marker_of(&File::open(&path).unwrap()), Some(77));
        fs::write(&path, "x".repeat(200)).unwrap();
        assert_eq!(marker_of(&File::open(&path).unwrap()), None);
    }
}
