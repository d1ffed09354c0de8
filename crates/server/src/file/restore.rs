//! `frontrow restore`: a backup takes the place of a SQLite file.
//!
//! The backup is copied, checked, migrated and marked under another name first. Then, killed at any
//! instruction, a restore leaves the old database with its log, or the new one: [`Replacement`] has the order
//! of the steps.

use std::fs::{self, File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use frontrow_domain::ports::Clock;
use frontrow_infra::identity::SystemClock;
use frontrow_infra::sqlite::Sqlite;
use tempfile::NamedTempFile;

use super::backup::{copy_of, described, put};
use super::marker::{Record, finish_interrupted, finish_restore, marker_of, random_marker};
use super::{folder_of, is_same_file, lock, size_of, sqlite_file, sync_folder, unfinished_log, with_suffix};
use crate::beside::beside;
use crate::cli::{DatabaseUrl, RestoreArgs};
use crate::secret;

/// Puts a backup in the place of a database that is not served, as a new incarnation of the data. Returns a
/// line that says what was done.
///
/// # Errors
/// When the database is served or there is one already, or the backup is none. The database is what it was
/// before then.
pub fn restore(args: &RestoreArgs, database: &DatabaseUrl) -> Result<String> {
    let target = sqlite_file(database, "restore")?;
    require_backup(&args.path, target)?;
    let _locks = lock::take_for_restore(target)?;
    let target = beside(target, "")?;
    let old = OldDatabase::of(&target)?;
    if old.is_some() && !args.replace {
        bail!(
            "{} is there: --replace puts the backup in its place, and keeps it under another name",
            target.display()
        );
    }
    finish_interrupted(&target)?;
    let marker = random_marker();
    let secret = if args.with_secret { Some(staged_secret(&args.path, &target)?) } else { None };
    let staged = copy_of(&args.path, &target)?;
    let prepared = prepare(&staged, marker);
    let contents = prepared.with_context(|| format!("cannot restore {}", args.path.display()))?;
    let owner = Owner::of(&target)?;
    for staged in [Some(&staged), secret.as_ref()].into_iter().flatten() {
        owner.give(staged.path())?;
    }
    if let Some(old) = &old {
        fs::set_permissions(staged.path(), Permissions::from_mode(old.mode))?;
        old.keep(secret.is_some())?;
    }
    staged.as_file().sync_all()?;
    let size = staged.as_file().metadata()?.len();

    let replacement = Replacement { target: &target, marker };
    replacement.announce()?;
    for sidecar in [".lock", ".marker"] {
        owner.give(&beside(&target, sidecar)?)?;
    }
    if let Some(secret) = secret {
        put(secret, &with_suffix(&target, ".secret"), true)?;
    }
    put(staged, &target, true)?;
    replacement.finish()?;
    owner.give(&beside(&target, ".marker")?)?;
    let kept = old.map_or_else(String::new, |old| format!("; the old file is {}", old.kept_as.display()));
    let (from, described) = (args.path.display(), described(size, contents));
    Ok(format!("{} was restored from {from}: {described}{kept}", target.display()))
}

/// Checks what can be seen of a backup without opening it.
fn require_backup(backup: &Path, target: &Path) -> Result<()> {
    let shown = backup.display();
    let file = fs::metadata(backup).with_context(|| format!("cannot open backup {shown}"))?;
    ensure!(file.is_file(), "cannot open backup {shown}: it is no file");
    ensure!(!is_same_file(backup, target), "cannot restore {shown}: it is the database itself");
    match unfinished_log(backup)? {
        Some(log) => bail!(
            "cannot restore {shown}: {} is next to it, so it is not complete by itself. `frontrow backup --database-url \
             sqlite:{shown} PATH` makes a backup of both",
            log.display()
        ),
        None => Ok(()),
    }
}

/// Checks a copy of a backup, brings its schema up to date, and begins a new incarnation of its data.
fn prepare(staged: &NamedTempFile, marker: i32) -> Result<frontrow_infra::sqlite::Contents> {
    let path = staged.path();
    let contents = Sqlite::verify(path)?;
    Sqlite::migrate(path)?;
    Sqlite::mark(path, marker, true)?;
    match unfinished_log(path)? {
        Some(log) => bail!("{} was not written into the file", log.display()),
        None => Ok(contents),
    }
}

fn staged_secret(backup: &Path, target: &Path) -> Result<NamedTempFile> {
    let secret = secret::file_of(backup).context("--with-secret restores the secret next to the backup")?;
    copy_of(&secret, target)
}

/// A database that is to be replaced.
struct OldDatabase<'a> {
    path: &'a Path,
    mode: u32,
    /// Under which name it is kept.
    kept_as: PathBuf,
}

impl<'a> OldDatabase<'a> {
    /// `None` where there is neither a file nor a log.
    fn of(path: &'a Path) -> Result<Option<Self>> {
        let mode = match fs::metadata(path) {
            Ok(file) => file.permissions().mode(),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if unfinished_log(path)?.is_none() {
                    return Ok(None);
                }
                0o600
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot look at {}", path.display()));
            }
        };
        let now = SystemClock::default().now().to_string();
        let now: String =
            now.chars().filter(char::is_ascii_alphanumeric).take("20261129T181500".len()).collect();
        Ok(Some(Self { path, mode, kept_as: with_suffix(path, &format!(".replaced-{now}")) }))
    }

    /// Copies the database with its log and its marker, and the secret where that is replaced, too. The
    /// database comes last: where it is, all of it is.
    fn keep(&self, with_secret: bool) -> Result<()> {
        let secret = with_secret.then_some(".secret");
        for extension in secret.into_iter().chain(["-wal", "-journal", ".marker", ""]) {
            let from = with_suffix(self.path, extension);
            if size_of(&from)? > 0 {
                let (copy, to) = (copy_of(&from, self.path)?, with_suffix(&self.kept_as, extension));
                fs::set_permissions(copy.path(), fs::metadata(&from)?.permissions())?;
                put(copy, &to, false)?;
            }
        }
        Ok(())
    }
}

/// The user that is to own what is made: of the database that is there, or else of the folder. A service
/// cannot open what root made.
struct Owner {
    user: u32,
    group: u32,
}

impl Owner {
    fn of(target: &Path) -> Result<Self> {
        let owner = fs::metadata(target).or_else(|_| fs::metadata(folder_of(target)))?;
        Ok(Self { user: owner.uid(), group: owner.gid() })
    }

    /// Only root gives files away.
    fn give(&self, path: &Path) -> Result<()> {
        if fs::metadata(path)?.uid() != 0 || self.user == 0 {
            return Ok(());
        }
        let given = chown(path, Some(self.user), Some(self.group));
        given.with_context(|| format!("cannot give {} to user {}", path.display(), self.user))
    }
}

/// The steps in which a database is replaced by one with another marker.
///
/// | killed after | is there | the next start |
/// |---|---|---|
/// | `announce` | the old database, whose marker is recorded, and its log | is one after an unclean end, or a clean one |
/// | the renaming of the new one | the new database, as announced, next to the old log | removes that log |
/// | `finish` | the new database | |
struct Replacement<'a> {
    target: &'a Path,
    marker: i32,
}

impl Replacement<'_> {
    /// Records that a database of this marker, once it is there, is not the one that the log belongs to.
    fn announce(&self) -> Result<()> {
        let recorded = Record::read(self.target)?;
        let record = recorded.unwrap_or_else(|| {
            let old = File::open(self.target).ok().and_then(|file| marker_of(&file));
            Record { accepted: old.into_iter().collect(), ..Record::default() }
        });
        Record { restored: Some(self.marker), ..record }.write(self.target)
    }

    /// Removes the old log, and records the new database.
    fn finish(&self) -> Result<()> {
        finish_restore(self.target, Some(self.marker))?;
        sync_folder(folder_of(self.target))
    }
}

#[cfg(test)]
mod tests {
    use diesel::connection::SimpleConnection;
    use diesel::prelude::*;
    use diesel::sql_types::Text;
    use tempfile::TempDir;

    use super::*;
    use crate::file::ServeLock;

    #[derive(QueryableByName)]
    struct Title {
        #[diesel(sql_type = Text)]
        title: String,
    }

    fn open(path: &Path) -> SqliteConnection {
        SqliteConnection::establish(path.to_str().unwrap()).unwrap()
    }

    /// The last word of a database, whose first words are in the file and whose last is in the log.
    fn last_word(path: &Path) -> String {
        let words = "SELECT group_concat(word, ' ') AS title FROM words";
        diesel::sql_query(words).get_result::<Title>(&mut open(path)).unwrap().title
    }

    /// A crashed database in a folder of its own, as the last server marked it, and a staged one that is to
    /// replace it.
    fn crashed() -> (TempDir, PathBuf, NamedTempFile) {
        let folder = tempfile::tempdir().unwrap();
        let (elsewhere, path) = (folder.path().join("elsewhere.db"), folder.path().join("a.db"));
        Sqlite::migrate(&elsewhere).unwrap();
        open(&elsewhere)
            .batch_execute("CREATE TABLE words (word TEXT); INSERT INTO words VALUES ('old')")
            .unwrap();
        Sqlite::mark(&elsewhere, OLD, false).unwrap();
        let mut connection = open(&elsewhere);
        connection.batch_execute("INSERT INTO words VALUES ('log')").unwrap();
        for extension in ["", "-wal"] {
            fs::copy(with_suffix(&elsewhere, extension), with_suffix(&path, extension)).unwrap();
        }
        assert!(size_of(&with_suffix(&path, "-wal")).unwrap() > 0);
        let record = Record { accepted: [OLD].into_iter().collect(), ..Record::default() };
        record.write(&path).unwrap();

        let staged = crate::file::backup::stage(&path).unwrap();
        Sqlite::migrate(staged.path()).unwrap();
        open(staged.path())
            .batch_execute("CREATE TABLE words (word TEXT); INSERT INTO words VALUES ('new')")
            .unwrap();
        Sqlite::mark(staged.path(), NEW, true).unwrap();
        (folder, path, staged)
    }

    const OLD: i32 = 1;
    const NEW: i32 = 2;

    fn settled(path: &Path) -> Result<String> {
        ServeLock::take(&DatabaseUrl::Sqlite(path.to_owned()), false)?.settle()?;
        Ok(last_word(path))
    }

    #[test]
    fn a_restore_killed_between_two_steps_leaves_the_old_or_the_new_database() {
        for (steps, expected) in [(0, "old log"), (1, "old log"), (2, "new"), (3, "new")] {
            let (_folder, path, staged) = crashed();
            let replacement = Replacement { target: &path, marker: NEW };
            if steps > 0 {
                replacement.announce().unwrap();
            }
            if steps > 1 {
                put(staged, &path, true).unwrap();
            }
            if steps > 2 {
                replacement.finish().unwrap();
            }
            assert_eq!(settled(&path).unwrap(), expected, "after {steps} steps");
        }
    }

    /// The controls: without the announcement the start is refused, and SQLite alone would have undone the
    /// restore.
    #[test]
    fn a_file_that_replaced_another_unannounced_is_refused() {
        let (_folder, path, staged) = crashed();
        put(staged, &path, true).unwrap();
        let refused = settled(&path).unwrap_err().to_string();
        assert!(refused.contains("was replaced") && refused.contains("a.db-wal"), "{refused}");
        assert_eq!(last_word(&path), "old log");
    }

    /// A start that is killed before it has marked a file that was put there by hand leaves a log that is its own.
    #[test]
    fn a_replaced_file_is_accepted_with_the_log_of_a_start_that_was_killed() {
        let (_folder, path, staged) = crashed();
        fs::remove_file(with_suffix(&path, "-wal")).unwrap();
        put(staged, &path, true).unwrap();
        assert_eq!(settled(&path).unwrap(), "new");
        let killed = tempfile::tempdir().unwrap();
        let copy = killed.path().join("a.db");
        let mut connection = open(&path);
        connection.batch_execute("PRAGMA journal_mode = WAL; UPDATE words SET word = 'migrated'").unwrap();
        for extension in ["", "-wal", ".marker"] {
            fs::copy(with_suffix(&path, extension), with_suffix(&copy, extension)).unwrap();
        }
        assert!(size_of(&with_suffix(&copy, "-wal")).unwrap() > 0);
        assert_eq!(settled(&copy).unwrap(), "migrated");
        let record = Record::read(&copy).unwrap().unwrap();
        assert!(record.incarnation_is_due, "the new incarnation is still to begin");
    }

    /// Both restores are killed: the first one after its renaming, the second one before.
    #[test]
    fn a_restore_finishes_the_one_before_it() {
        let (_folder, path, staged) = crashed();
        Replacement { target: &path, marker: NEW }.announce().unwrap();
        put(staged, &path, true).unwrap();
        finish_interrupted(&path).unwrap();
        Replacement { target: &path, marker: 3 }.announce().unwrap();
        assert_eq!(settled(&path).unwrap(), "new");
    }

    /// The control of the above, and of a restore that was killed before its renaming.
    #[test]
    fn a_restore_that_has_replaced_nothing_is_not_finished() {
        let (_folder, path, _staged) = crashed();
        Replacement { target: &path, marker: NEW }.announce().unwrap();
        finish_interrupted(&path).unwrap();
        assert_eq!(settled(&path).unwrap(), "old log");
    }

    #[test]
    fn an_old_database_without_a_record_is_told_from_the_new_one() {
        let (_folder, path, _staged) = crashed();
        fs::remove_file(with_suffix(&path, ".marker")).unwrap();
        Replacement { target: &path, marker: NEW }.announce().unwrap();
        assert_eq!(settled(&path).unwrap(), "old log");
    }
}
